/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3" (SC 2011): a pure function from a counter and a key to 128 random
 * bits. It has no state, so there is none to lose, to copy or to order between threads.
 */
#pragma once

#include "base/base.h"

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret_out[4]);

/* What one random number of the sampler belongs to. Different keys give independent numbers. */
struct sample_key {
    uint64_t seed;
    uint32_t prompt;   /* index of the prompt within its request */
    uint32_t choice;   /* index of the answer to that prompt */
    uint32_t position; /* tokens generated before this one */
    uint32_t draw;     /* 0 for the token itself; others are free for further draws there */
};

/* Uniform in [0, 1), a multiple of 2^-52: for every total > 0 the product of both is less than
 * total, also rounded. */
double sample_uniform(const struct sample_key *key);
