/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element types of stored tensors, and how the quantised ones are grouped. The list is dtype.def.
 * Pure; any thread.
 */
#pragma once

#include "base/base.h"

enum dtype {
#define DTYPE(name, text, ggml, group, group_bytes) DTYPE_##name,
#include "tensor/dtype.def"
#undef DTYPE
    DTYPE_COUNT
};

struct dtype_info {
    const char *name;     /* "BF16", "Q4_1", ... */
    int ggml_type;        /* number in a GGUF file, -1: no file has the type */
    uint32_t group;       /* elements that share one stored record (1 for plain types) */
    uint32_t group_bytes; /* bytes of that record as files store it */
};

enum { DTYPE_GROUP_MAX = 256 }; /* of all types */

/* Never NULL. */
const struct dtype_info *dtype_info(enum dtype dtype);

/* False if no type of files has that name ("bf16" and "BF16" are the same) or GGUF number. */
bool dtype_from_name(const char *name, enum dtype *ret_dtype);
bool dtype_from_ggml(uint32_t ggml_type, enum dtype *ret_dtype);

/* True for the types whose weights are codes with scales (Q8_0 and the like). */
bool dtype_is_quantised(enum dtype dtype);

/* Bytes of n elements as files store them; false if n is no multiple of the group or it overflows.
 */
NODISCARD bool dtype_bytes(enum dtype dtype, size_t n, size_t *ret_bytes);

/* Nearest-even rounding to bfloat16; a NaN stays a NaN. */
static inline uint16_t bf16_from_f32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float f32_from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float out;

    memcpy(&out, &bits, sizeof(out));
    return out;
}

/* Exact, denormals included, whatever the float environment. */
float f32_from_f16(uint16_t value);

/* Nearest-even, denormals included, whatever the float environment; what is too large becomes
 * infinite, a NaN stays one. */
uint16_t f16_from_f32(float value);
