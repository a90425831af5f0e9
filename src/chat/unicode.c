/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/unicode.h"

bool unicode_has(uint32_t code, unsigned properties)
{
    size_t low = 0;
    size_t high = unicode_n_runs;

    while (high - low > 1) { /* runs[low] begins at or before code, runs[high] after it */
        size_t middle = (low + high) / 2;

        if (unicode_runs[middle] >> UNICODE_RUN_SHIFT <= code) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (unicode_runs[low] & ((1u << UNICODE_RUN_SHIFT) - 1) & properties) != 0;
}

static const struct unicode_special *find_special(uint32_t code, enum unicode_case to)
{
    for (size_t i = 0; i < unicode_n_specials[to]; i++) {
        if (unicode_specials[to][i].code == code) {
            return &unicode_specials[to][i];
        }
    }
    return NULL;
}

static uint32_t map_simple(uint32_t code, enum unicode_case to)
{
    size_t low = 0;
    size_t high = unicode_n_shifts[to];

    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct unicode_shift *shift = &unicode_shifts[to][middle];

        if (code < shift->first) {
            high = middle;
        } else if (code > shift->last) {
            low = middle + 1;
        } else {
            return (code - shift->first) % shift->step == 0 ? code + (uint32_t)shift->delta : code;
        }
    }
    return code;
}

size_t unicode_map(uint32_t code, enum unicode_case to, uint32_t out[UNICODE_CASE_CODES])
{
    const struct unicode_special *special = code < 0x80 ? NULL : find_special(code, to);
    size_t n = 0;

    if (special == NULL) {
        out[0] = map_simple(code, to);
        return 1;
    }
    while (n < UNICODE_CASE_CODES && special->to[n] != 0) {
        out[n] = special->to[n];
        n++;
    }
    return n;
}
