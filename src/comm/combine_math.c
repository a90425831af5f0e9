/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels make up a reduction of a type, and the two that are rare: scaling and dividing. */
#include "comm/combine.h"

/* x[i] *= *scale, for integers without a sign, which wraps around. */
#define SCALE(function, type)                                  \
    static void function(void *x, const void *scale, size_t n) \
    {                                                          \
        type *at = x;                                          \
        type by;                                               \
                                                               \
        memcpy(&by, scale, sizeof(by));                        \
        for (size_t i = 0; i < n; i++) {                       \
            at[i] = (type)(at[i] * by);                        \
        }                                                      \
    }

/* x[i] /= n_ranks, truncating; the divisor has the type's sign and is at least 32 bits wide. */
#define DIVIDE(function, type, divisor)                       \
    static void function(void *x, uint32_t n_ranks, size_t n) \
    {                                                         \
        type *at = x;                                         \
                                                              \
        for (size_t i = 0; i < n; i++) {                      \
            at[i] = (type)(at[i] / (divisor)n_ranks);         \
        }                                                     \
    }

SCALE(scale_f32, float)
SCALE(scale_f64, double)
SCALE(scale_8, uint8_t)
SCALE(scale_32, uint32_t)
SCALE(scale_64, uint64_t)
DIVIDE(divide_f32, float, float)
DIVIDE(divide_f64, double, double)
DIVIDE(divide_i8, int8_t, int32_t)
DIVIDE(divide_u8, uint8_t, uint32_t)
DIVIDE(divide_i32, int32_t, int64_t)
DIVIDE(divide_u32, uint32_t, uint32_t)
DIVIDE(divide_i64, int64_t, int64_t)
DIVIDE(divide_u64, uint64_t, uint64_t)

static const struct {
    void (*scale)(void *x, const void *scale, size_t n);
    void (*divide)(void *x, uint32_t n_ranks, size_t n);
} rare[COMM_TYPE_COUNT] = {
    [COMM_F32] = {scale_f32, divide_f32}, [COMM_F64] = {scale_f64, divide_f64},
    [COMM_F16] = {scale_f32, divide_f32}, [COMM_BF16] = {scale_f32, divide_f32},
    [COMM_I8] = {scale_8, divide_i8},     [COMM_U8] = {scale_8, divide_u8},
    [COMM_I32] = {scale_32, divide_i32},  [COMM_U32] = {scale_32, divide_u32},
    [COMM_I64] = {scale_64, divide_i64},  [COMM_U64] = {scale_64, divide_u64},
};

const struct combine_sums *combine_sums_find(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return &combine_sums_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        return &combine_sums_avx2;
    }
#endif
    return &combine_sums_ref;
}

const struct combine_kernels *combine_kernels_find(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        return &combine_kernels_avx2;
    }
#endif
    return &combine_kernels_ref;
}

size_t combine_computing_bytes(enum comm_type type)
{
    return type == COMM_F16 || type == COMM_BF16 ? sizeof(float) : comm_type_bytes(type);
}

struct combine_math combine_math_find(enum comm_type type, enum comm_reduction reduction)
{
    const struct combine_kernels *kernels = combine_kernels_find();
    enum comm_reduction basic = reduction > COMM_MAX ? COMM_SUM : reduction;
    bool is_half = type == COMM_F16 || type == COMM_BF16;
    bool is_sum = basic == COMM_SUM && (is_half || type == COMM_F32);
    struct combine_math math = {
        .type_bytes = comm_type_bytes(type),
        .computing_bytes = comm_type_bytes(type),
        .combine = kernels->combine[type][basic],
        .scale = reduction == COMM_PREMUL_SUM ? rare[type].scale : NULL,
        .divide = reduction == COMM_AVG ? rare[type].divide : NULL,
    };

    if (is_half && (basic == COMM_SUM || basic == COMM_PROD)) {
        math.computing_bytes = sizeof(float);
        math.combine = kernels->combine[COMM_F32][basic];
        math.widen = type == COMM_F16 ? kernels->widen_f16 : kernels->widen_bf16;
        math.narrow = type == COMM_F16 ? kernels->narrow_f16 : kernels->narrow_bf16;
    }
    if (is_sum) {
        math.combine = combine_sums_find()->sum;
        math.add_sum = combine_sums_find()->add_sum;
    }
    return math;
}
