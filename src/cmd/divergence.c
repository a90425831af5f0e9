/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/divergence.h"

#include <math.h>

#include "base/mem.h"
#include "cmd/stats.h"

void divergence_init(struct divergence *divergence, uint32_t max)
{
    *divergence = (struct divergence){.max = max, .kl = xcalloc(MAX(max, 1u), sizeof(double))};
}

void divergence_release(struct divergence *divergence)
{
    free(divergence->kl);
    *divergence = (struct divergence){0};
}

static uint32_t likeliest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* ln of the sum of exp. */
static double log_sum(const float *logits, uint32_t vocab, double max)
{
    double sum = 0;

    for (uint32_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - max);
    }
    return max + log(sum);
}

void divergence_add(struct divergence *divergence, const float *a, const float *b, uint32_t vocab,
                    int32_t next)
{
    uint32_t top_a = likeliest(a, vocab);
    uint32_t top_b = likeliest(b, vocab);
    double sum_a = log_sum(a, vocab, (double)a[top_a]);
    double sum_b = log_sum(b, vocab, (double)b[top_b]);
    double kl = 0;

    ENSURE_OP(divergence->n, <, divergence->max);
    for (uint32_t i = 0; i < vocab; i++) {
        double ln_a = (double)a[i] - sum_a;

        kl += exp(ln_a) * (ln_a - ((double)b[i] - sum_b));
    }
    divergence->kl[divergence->n++] = kl;
    divergence->kl_sum += kl;
    divergence->n_same += top_a == top_b;
    if (next >= 0) {
        divergence->n_next++;
        divergence->nll_a += sum_a - (double)a[next];
        divergence->nll_b += sum_b - (double)b[next];
    }
}

double divergence_mean(const struct divergence *divergence)
{
    return divergence->kl_sum / divergence->n;
}

double divergence_quantile(struct divergence *divergence, double share)
{
    uint32_t at = (uint32_t)ceil(share * divergence->n);

    stats_sort(divergence->kl, divergence->n);
    return divergence->kl[MIN(MAX(at, 1u), divergence->n) - 1];
}
