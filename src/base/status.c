/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

const char *status_text(enum status status)
{
    switch (status) {
#define STATUS(name, value, text) \
    case STATUS_##name:           \
        return text;
#include "base/status.def"
#undef STATUS
    }
    return "unknown status";
}
