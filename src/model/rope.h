/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary position embedding (Su et al. 2021) and the ways to stretch it: linear, llama3, yarn (Peng
 * et al. 2023). Frequencies are computed once, in double with canonical functions, and rounded to
 * f32; an angle is the f32 product of position and frequency, as the reference implementations have
 * it.
 */
#pragma once

#include "model/config.h"

struct rope_table {
    uint32_t half; /* head_dim / 2 */
    float attention_factor;
    float *inv_freq; /* [half], owned */
};

/* freq_factors: NULL, or [half] divisors of the frequencies (GGUF's rope_freqs.weight). */
void rope_table_init(struct rope_table *table, const struct rope_config *config, uint32_t head_dim,
                     const float *freq_factors);
void rope_table_release(struct rope_table *table);

/* cos and sin of positions pos .. pos + n - 1, [n][half] each. */
void rope_table_fill(const struct rope_table *table, uint32_t pos, uint32_t n, float *cos,
                     float *sin);
