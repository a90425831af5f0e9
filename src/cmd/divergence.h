/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far one path's next-token distributions are from another's, position by position. Pure; sums
 * in double.
 */
#pragma once

#include "base/base.h"

struct divergence {
    uint32_t n;      /* positions */
    uint32_t n_next; /* of them with a next token */
    uint32_t n_same; /* positions whose likeliest token is the same */
    double kl_sum;   /* of the divergences, in nats */
    double nll_a;    /* sum of -ln p of the next tokens, by a */
    double nll_b;    /* and by b */
    double *kl;      /* [max]: one for each position; owned */
    uint32_t max;
};

void divergence_init(struct divergence *divergence, uint32_t max);
void divergence_release(struct divergence *divergence);

/* Adds a position: KL(a || b) = sum of p_a (ln p_a - ln p_b) over softmax of the logits a and b
 * ([vocab], finite). Of equal logits the first counts as the likeliest. next: the token that
 * follows, -1 if none does. */
void divergence_add(struct divergence *divergence, const float *a, const float *b, uint32_t vocab,
                    int32_t next);

/* The mean, and the smallest that at least `share` (0 .. 1) of the positions do not exceed; n > 0.
 * The second sorts kl. */
double divergence_mean(const struct divergence *divergence);
double divergence_quantile(struct divergence *divergence, double share);
