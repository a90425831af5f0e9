/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

void base_ensure_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "lockstep: bug: %s:%d: %s does not hold\n", file, line, condition);
    abort();
}

void base_ensure_op_failed(const char *condition, long long a, long long b, const char *file,
                           int line)
{
    fprintf(stderr, "lockstep: bug: %s:%d: %s does not hold (%lld, %lld)\n", file, line, condition,
            a, b);
    abort();
}
