/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/quant.h"

#include <math.h>

uint32_t quant_n_groups(const struct leaf_plan *leaves)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        n += quant_leaf_groups(leaves->bounds[i], leaves->bounds[i + 1]);
    }
    return n;
}

bool quant_bytes(uint32_t n, uint32_t n_groups, size_t *ret_bytes)
{
    size_t groups;

    return size_mul(n, n_groups, &groups) &&
           size_mul(groups, QUANT_GROUP + sizeof(float) + sizeof(int32_t), ret_bytes);
}

struct quant quant_attach(void *memory, uint32_t n, uint32_t n_groups)
{
    size_t groups = (size_t)n * n_groups;
    struct quant quant = {.n_groups = n_groups, .codes = memory};

    quant.scales = (float *)((char *)memory + groups * QUANT_GROUP);
    quant.sums = (int32_t *)(quant.scales + groups);
    return quant;
}

/* The greatest |x|; a NaN is greater than all. */
static float greatest(const float *x, uint32_t n)
{
    uint32_t most = 0;
    float amax;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof(bits));
        most = MAX(most, bits & 0x7fffffff);
    }
    memcpy(&amax, &most, sizeof(amax));
    return amax;
}

/* The group of x, or the fine one. */
static void make_group(const float *x, uint32_t lead, uint32_t n, bool fine, int8_t *codes,
                       float *ret_scale, int32_t *ret_sum)
{
    float amax = greatest(x, n);
    int32_t sum = 0;

    memset(codes, 0, QUANT_GROUP);
    *ret_sum = 0;
    if (!isfinite(amax) || amax < QUANT_SMALLEST) {
        *ret_scale = isfinite(amax) ? 0.0f : NAN;
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        float steps = x[i] * (QUANT_MOST / amax);
        float whole = rintf(steps);
        int32_t code = (int32_t)(fine ? rintf((steps - whole) * QUANT_FINE) : whole);

        codes[lead + i] = (int8_t)code;
        sum += code;
    }
    *ret_scale = fine ? amax / QUANT_MOST / QUANT_FINE : amax / QUANT_MOST;
    *ret_sum = sum;
}

void quant_group(const float *x, uint32_t lead, uint32_t n, int8_t codes[QUANT_GROUP],
                 float *ret_scale, int32_t *ret_sum)
{
    make_group(x, lead, n, false, codes, ret_scale, ret_sum);
}

void quant_group_fine(const float *x, uint32_t lead, uint32_t n, int8_t codes[QUANT_GROUP],
                      float *ret_scale, int32_t *ret_sum)
{
    make_group(x, lead, n, true, codes, ret_scale, ret_sum);
}

void quant_row(const float *x, const struct leaf_plan *leaves, int8_t *codes, float *scales,
               int32_t *sums)
{
    quant_each(x, leaves, codes, scales, sums, quant_group);
}

void quant_row_fine(const float *x, const struct leaf_plan *leaves, int8_t *codes, float *scales,
                    int32_t *sums)
{
    quant_each(x, leaves, codes, scales, sums, quant_group_fine);
}
