/* SPDX-License-Identifier: Apache-2.0 */
/* What a fake rank's pages hold, and what its model thinks of tokens behind them. */
#pragma once

#include "fake_verbs.h"

/* The tokens that the slot's pages hold, up to its last position in this step. */
static inline void fake_read_pages(const struct fake_rank *f, uint32_t slot, uint32_t n,
                                   int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = f->slots[slot].pages[i / FAKE_PAGE_TOKENS];

        out[i] = f->kv[page * FAKE_PAGE_TOKENS + i % FAKE_PAGE_TOKENS] - 1;
    }
}

/* The log-probabilities of a want, behind n positions. */
static inline void fake_report(struct fake_rank *f, const struct plan_want *want,
                               const int32_t *tokens, uint32_t n, struct result_token *token)
{
    if ((want->flags & PLAN_WANT_LOGPROB) == 0) {
        return;
    }
    token->logprob = fake_logprob(tokens, n, token->token);
    token->n_top = want->n_top;
    for (uint32_t k = 0; k < want->n_top; k++) {
        uint32_t top = fake_top(tokens, n, k);

        ENSURE_OP(f->n_tops, <, FAKE_MAX_TOPS);
        f->tops[f->n_tops++] =
            (struct result_top){.token = top, .logprob = fake_logprob(tokens, n, (int32_t)top)};
    }
}

/* Scores a token by the row that is the slot's position n - 1. */
static inline void fake_score(struct fake_rank *f, const struct plan_want *want, uint32_t n,
                              struct result_token *ret_token)
{
    int32_t tokens[FAKE_CONTEXT];

    fake_read_pages(f, want->slot, n, tokens);
    *ret_token =
        (struct result_token){.slot = want->slot, .token = (int32_t)want->token, .nan_layer = -1};
    fake_report(f, want, tokens, n, ret_token);
}
