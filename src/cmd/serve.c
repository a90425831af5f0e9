/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cmd.h"

int cmd_serve(const struct options *options)
{
    return cmd_usage(options, "not in this build");
}
