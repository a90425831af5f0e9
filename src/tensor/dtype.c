/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/dtype.h"

static const struct dtype_info infos[DTYPE_COUNT] = {
#define DTYPE(name, text, ggml, group, group_bytes) {text, ggml, group, group_bytes},
#include "tensor/dtype.def"
#undef DTYPE
};

const struct dtype_info *dtype_info(enum dtype dtype)
{
    ENSURE_OP(dtype, <, DTYPE_COUNT);
    return &infos[dtype];
}

bool dtype_from_name(const char *name, enum dtype *ret_dtype)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (infos[i].ggml_type >= 0 && strcasecmp(infos[i].name, name) == 0) {
            *ret_dtype = (enum dtype)i;
            return true;
        }
    }
    return false;
}

bool dtype_from_ggml(uint32_t ggml_type, enum dtype *ret_dtype)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (infos[i].ggml_type >= 0 && (uint32_t)infos[i].ggml_type == ggml_type) {
            *ret_dtype = (enum dtype)i;
            return true;
        }
    }
    return false;
}

bool dtype_is_quantised(enum dtype dtype)
{
    return dtype_info(dtype)->group > 1;
}

bool dtype_bytes(enum dtype dtype, size_t n, size_t *ret_bytes)
{
    const struct dtype_info *info = dtype_info(dtype);

    return n % info->group == 0 && size_mul(n / info->group, info->group_bytes, ret_bytes);
}

float f32_from_f16(uint16_t value)
{
    uint32_t sign = (uint32_t)(value & 0x8000) << 16;
    uint32_t exponent = value >> 10 & 0x1f;
    uint32_t mantissa = value & 0x3ff;
    uint32_t bits;
    float out;

    if (exponent == 0x1f) {
        bits = sign | 0x7f800000 | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else if (mantissa == 0) {
        bits = sign;
    } else { /* a denormal half is a normal float: shift its leading one up */
        uint32_t shift = (uint32_t)__builtin_clz(mantissa) - 21;

        bits = sign | (113 - shift) << 23 | ((mantissa << shift) & 0x3ff) << 13;
    }
    memcpy(&out, &bits, sizeof(out));
    return out;
}

uint16_t f16_from_f32(float value)
{
    uint32_t bits;
    uint32_t sign;

    memcpy(&bits, &value, sizeof(bits));
    sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x1ff));
    }
    if (bits >= 0x477ff000) { /* half way from the largest to the next: infinity */
        return (uint16_t)(sign | 0x7c00);
    }
    if (bits < 0x38800000) { /* denormal: the last place of a number near 0.5 is f16's */
        float magnitude;

        memcpy(&magnitude, &bits, sizeof(magnitude));
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof(bits));
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13);
}
