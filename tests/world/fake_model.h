/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fake ranks (fake_rank.h) compute, and how a test tells them to misbehave; for both sides.
 *
 * The model: a token follows from everything that it should depend on, and from nothing else: the
 * sampling parameters, the biases, and all tokens of the sequence. A rank takes the tokens out of
 * the KV pages, so that lost pages, wrong block tables and wrong histories show as other tokens.
 *
 * The script: words "VERB:PLACE/RANK/EPOCH/STEP" in the environment variable LOCKSTEP_FAKE, which
 * ranks inherit; 99 is every rank, 0 every epoch and every step. PLACE is the name of the message
 * that would now be answered, or plan. fake_rank.h says what the verbs do.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "rpc/plan.h"

#define FAKE_SCRIPT_VARIABLE "LOCKSTEP_FAKE"
#define FAKE_BUILD           "a fake build"

enum {
    FAKE_VOCAB = 991,
    FAKE_LAYERS = 5,
    FAKE_NAN_LAYER = 3,
    FAKE_PAGE_TOKENS = 4, /* small pages: many block tables */
    FAKE_CONTEXT = 96,
    FAKE_SLOTS = 4,
    FAKE_EVERY_RANK = 99,
    FAKE_POISON = 666, /* as params.choice: rank 0 kills itself in epochs up to prompt_index */
};

static inline uint64_t fake_mix(uint64_t hash, uint64_t value)
{
    uint64_t z = (hash ^ value) + UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t fake_hash(uint64_t hash, const int32_t *tokens, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hash = fake_mix(hash, (uint64_t)tokens[i]);
    }
    return hash;
}

/* What params and bias do to every token. */
static inline uint64_t fake_key(const struct plan_params *params, const struct plan_bias *bias)
{
    uint32_t temperature;
    uint64_t hash = fake_mix(params->seed, params->choice);

    memcpy(&temperature, &params->temperature, sizeof(temperature));
    hash = fake_mix(hash, temperature);
    for (uint32_t i = 0; i < params->n_bias; i++) {
        hash = fake_mix(hash, bias[i].token);
    }
    return hash;
}

/* params.top_k is one more than the position in the answer at which there is no number. */
static inline bool fake_is_nan(const struct plan_params *params, uint32_t position)
{
    return params->top_k != 0 && params->top_k - 1 == position;
}

/* The token that follows n others. */
static inline int32_t fake_token(uint64_t key, const int32_t *tokens, uint32_t n)
{
    return (int32_t)(fake_hash(key, tokens, n) % FAKE_VOCAB);
}

/* What the model thinks of a token after n others, and the k-th likeliest of its tokens there. */
static inline float fake_logprob(const int32_t *tokens, uint32_t n, int32_t token)
{
    return -(float)(fake_mix(fake_hash(7, tokens, n), (uint64_t)token) % 1024) / 16;
}

static inline uint32_t fake_top(const int32_t *tokens, uint32_t n, uint32_t k)
{
    return (uint32_t)((fake_hash(9, tokens, n) + k) % FAKE_VOCAB);
}

/* True if the script has this word for this rank. */
static inline bool fake_scripted(const char *verb, const char *place, uint32_t rank, uint64_t epoch,
                                 uint64_t step)
{
    const char *at = getenv(FAKE_SCRIPT_VARIABLE);

    while (at != NULL && *at != '\0') {
        char has_verb[24];
        char has_place[24];
        unsigned long long e;
        unsigned long long s;
        unsigned r;
        int n = 0;

        if (sscanf(at, " %23[^:]:%23[^/]/%u/%llu/%llu%n", has_verb, has_place, &r, &e, &s, &n) !=
            5) {
            fprintf(stderr, "no word of a script: %s\n", at);
            abort();
        }
        if (strcmp(verb, has_verb) == 0 && strcmp(place, has_place) == 0 &&
            (r == FAKE_EVERY_RANK || r == rank) && (e == 0 || e == epoch) &&
            (s == 0 || s == step)) {
            return true;
        }
        at += n;
        at += strspn(at, " ");
    }
    return false;
}
