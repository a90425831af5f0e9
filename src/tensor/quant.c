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

bool quant_bytes(uint32_t n, uint32_t n_groups, bool wide, size_t *ret_bytes)
{
    size_t codes = QUANT_GROUP * (wide ? sizeof(int16_t) : sizeof(int8_t));
    size_t groups;

    return size_mul(n, n_groups, &groups) &&
           size_mul(groups, codes + sizeof(float) + sizeof(int32_t), ret_bytes);
}

struct quant quant_attach(void *memory, uint32_t n, uint32_t n_groups, bool wide)
{
    size_t groups = (size_t)n * n_groups;
    struct quant quant = {.n_groups = n_groups};

    if (wide) {
        quant.wide = memory;
        quant.scales = (float *)(void *)(quant.wide + groups * QUANT_GROUP);
    } else {
        quant.codes = memory;
        quant.scales = (float *)(void *)(quant.codes + groups * QUANT_GROUP);
    }
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

/* The codes of the group's 32 columns; returns their sum. */
static int32_t make_group(const float *x, uint32_t lead, uint32_t n, float most,
                          int32_t codes[QUANT_GROUP], float *ret_scale)
{
    float amax = greatest(x, n);
    int32_t sum = 0;

    memset(codes, 0, QUANT_GROUP * sizeof(*codes));
    if (!isfinite(amax) || amax < QUANT_SMALLEST) {
        *ret_scale = isfinite(amax) ? 0.0f : NAN;
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        codes[lead + i] = (int32_t)rintf(x[i] * (most / amax));
        sum += codes[lead + i];
    }
    *ret_scale = amax / most;
    return sum;
}

void quant_group(const float *x, uint32_t lead, uint32_t n, void *codes, float *ret_scale,
                 int32_t *ret_sum)
{
    int32_t made[QUANT_GROUP];
    int8_t *out = codes;

    *ret_sum = make_group(x, lead, n, QUANT_MOST, made, ret_scale);
    for (uint32_t k = 0; k < QUANT_GROUP; k++) {
        out[k] = (int8_t)made[k];
    }
}

void quant_group_wide(const float *x, uint32_t lead, uint32_t n, void *codes, float *ret_scale,
                      int32_t *ret_sum)
{
    int32_t made[QUANT_GROUP];
    int16_t *out = codes;

    *ret_sum = make_group(x, lead, n, QUANT_MOST_WIDE, made, ret_scale);
    for (uint32_t k = 0; k < QUANT_GROUP; k++) {
        out[quant_wide_at(k)] = (int16_t)made[k];
    }
}

void quant_row(const float *x, const struct leaf_plan *leaves, const struct quant *out)
{
    if (out->wide != NULL) {
        quant_each(x, leaves, out->wide, sizeof(int16_t), out->scales, out->sums, quant_group_wide);
    } else {
        quant_each(x, leaves, out->codes, sizeof(int8_t), out->scales, out->sums, quant_group);
    }
}
