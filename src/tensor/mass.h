/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The softmax over a vocabulary in fixed blocks of 1,024 rows: the greatest logit of a block, and
 * the mass of its rows relative to that. This file and mass.c are the definition; a device computes
 * the same bits faster and offers that as a struct mass_table, through which the sampler asks.
 *
 * The mass of a row relative to a logit m is canon_exp((logit - m) * inv_temperature), 1 where both
 * are equal (also at infinity). Masses and maxima run over 16 lanes (lane i: rows i, i + 16, ...
 * ascending), lanes joined 8+8, 4+4, 2+2, 1+1 (i with i + half). Rows beyond the last enter
 * nothing.
 *
 * Pure; any thread. Denormals count as the float environment of the caller has it, which is the
 * canonical one (base/float_env.h) wherever results are to be the same.
 */
#pragma once

#include "tensor/canon.h"

enum { MASS_BLOCK_ROWS = 1024, MASS_LANES = 16 };

struct mass_block {
    float max; /* greatest logit + 0; -infinity of no rows */
    float sum; /* mass relative to max; 0 if max is -infinity */
};

/* n logits and their blocks [ceil(n / MASS_BLOCK_ROWS)]. */
struct mass_rows {
    const float *logits;
    uint32_t n;
    struct mass_block *blocks;
    float inv_temperature; /* of sum, as is the next */
    float *masses;         /* [n] set to each row's, relative to its block's max; or NULL */
};

struct mass_table {
    void *arg; /* of both */
    /* Sets each block's max, not a number if the block holds what is none. */
    void (*max)(void *arg, const struct mass_rows *rows);
    /* Sets each block's sum, where its max is set and a number. */
    void (*sum)(void *arg, const struct mass_rows *rows);
};

/* The definition, one row after the other on the calling thread; arg is not used. */
extern const struct mass_table mass_plain;

/* One row's mass relative to a logit m. */
static inline float mass_of(float logit, float m, float inv_temperature)
{
    return logit == m ? 1.0f : canon_exp((logit - m) * inv_temperature);
}

/* One block, n <= MASS_BLOCK_ROWS: its max, not a number if it holds what is none. */
float mass_block_max(const float *logits, uint32_t n);

/* One block, n <= MASS_BLOCK_ROWS, no logit above max: its sum. masses [n] is set to the rows', or
 * NULL. */
float mass_block_sum(const float *logits, uint32_t n, float max, float inv_temperature,
                     float *masses);

/* Rows of block b. */
static inline uint32_t mass_block_rows(const struct mass_rows *rows, uint32_t b)
{
    return MIN(MASS_BLOCK_ROWS, rows->n - b * MASS_BLOCK_ROWS);
}
