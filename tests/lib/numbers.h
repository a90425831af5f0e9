/* SPDX-License-Identifier: Apache-2.0 */
/* Small whole numbers as elements of every type, so that each result is exact in all of them. */
#pragma once

#include <lockstep.h>

#include <string.h>

/* v in [0, 2048] as f16. */
static inline uint16_t numbers_f16(unsigned v)
{
    unsigned exponent = 0;

    if (v == 0) {
        return 0;
    }
    while (v >> (exponent + 1) != 0) {
        exponent++;
    }
    return (uint16_t)((exponent + 15) << 10 | ((v << 10 >> exponent) & 0x3ff));
}

static inline uint16_t numbers_bf16(unsigned v)
{
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

static inline void numbers_set(void *data, enum lockstep_type type, size_t i, unsigned v)
{
    switch (type) {
    case LOCKSTEP_F32:
        ((float *)data)[i] = (float)v;
        break;
    case LOCKSTEP_F64:
        ((double *)data)[i] = v;
        break;
    case LOCKSTEP_F16:
        ((uint16_t *)data)[i] = numbers_f16(v);
        break;
    case LOCKSTEP_BF16:
        ((uint16_t *)data)[i] = numbers_bf16(v);
        break;
    case LOCKSTEP_I8:
    case LOCKSTEP_U8:
        ((uint8_t *)data)[i] = (uint8_t)v;
        break;
    case LOCKSTEP_I32:
    case LOCKSTEP_U32:
        ((uint32_t *)data)[i] = v;
        break;
    case LOCKSTEP_I64:
    case LOCKSTEP_U64:
        ((uint64_t *)data)[i] = v;
        break;
    }
}

static inline bool numbers_is(const void *data, enum lockstep_type type, size_t i, unsigned v)
{
    unsigned char expected[16] = {0};
    size_t bytes = lockstep_type_bytes(type);

    numbers_set(expected, type, 0, v);
    return memcmp((const char *)data + i * bytes, expected, bytes) == 0;
}
