/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must survive the ranks: for each request its prompt, what it has generated, how it is
 * sampled and how far the ranks have come. With it a request goes on after a rebuild as if nothing
 * had happened, because sampling draws from a generator without state (seed, prompt, choice,
 * position) and the arithmetic is canonical.
 *
 * The positions of a request are its prompt's tokens and then its generated ones. `positions`
 * counts those that the ranks hold in their KV pages; the next step computes the ones that follow.
 * When all known tokens are computed the step has sampled one more, which becomes the next known
 * token.
 *
 *     prompt            generated
 *     |-----------------|-------|
 *     |  committed positions  |^|          ^: known, not yet computed: fed to the next step
 *
 * Memory for an answer grows with it: room for what a step may sample is taken before the step is
 * issued (journal_reserve), so that a commit cannot fail for want of it. max_bytes is looked at
 * when a request is added; those that are there may grow beyond it, each up to its max_generated.
 * The journal owns its entries; an entry is borrowed until journal_remove. Pure data, no input or
 * output; one thread (the supervisor's).
 */
#pragma once

#include "base/err.h"

struct journal_entry {
    uint64_t request;
    uint64_t seed;         /* drawn once, by whoever adds the request, where the client gave none */
    uint32_t prompt_index; /* within its request, for the generator */
    uint32_t choice;
    const uint8_t *params; /* [params_bytes] the sampling parameters, as the plan encodes them */
    size_t params_bytes;

    int32_t *tokens; /* [n_prompt + n_generated], moved by journal_reserve */
    uint32_t n_prompt;
    uint32_t n_generated;
    uint32_t max_generated;
    uint32_t room; /* for generated tokens */

    uint32_t positions;      /* committed by all ranks of this epoch */
    uint32_t positions_most; /* committed in any epoch: below it a step computes nothing new */
    uint64_t last_step;      /* number of the last step committed for it; 0: none */

    struct journal_entry *next;
    struct journal_entry *prev;
    size_t bytes;
};

/* Room for generated tokens that an entry begins with. */
enum { JOURNAL_FIRST_ROOM = 64 };

struct journal {
    struct journal_entry *first; /* in the order of their adding */
    struct journal_entry *last;
    size_t n;
    size_t bytes; /* held by all entries */
    size_t max_bytes;
    uint64_t n_refused; /* commits that came twice or did not fit */
};

/* What a request is; copied by journal_add. */
struct journal_request {
    uint64_t request;
    uint64_t seed;
    uint32_t prompt_index;
    uint32_t choice;
    const void *params;
    size_t params_bytes;
    const int32_t *prompt;
    uint32_t n_prompt; /* at least 1 */
    uint32_t max_generated;
};

/* What a committed step did for a request. */
struct journal_commit {
    uint64_t step;
    uint32_t n_positions;  /* computed, at least 1 */
    const int32_t *tokens; /* [n_tokens] sampled after the last of them; only the last position that
                              is known gives any */
    uint32_t n_tokens;
};

void journal_init(struct journal *journal, size_t max_bytes);
void journal_release(struct journal *journal);

/* STATUS_INVALID (no prompt, or the request is there), STATUS_LIMIT (max_bytes), STATUS_NO_MEMORY.
 */
NODISCARD enum status journal_add(struct journal *journal, const struct journal_request *request,
                                  struct journal_entry **ret_entry, struct err *err);

/* NULL if it is not there. Walks the list: for rare paths. */
struct journal_entry *journal_find(const struct journal *journal, uint64_t request);

void journal_remove(struct journal *journal, struct journal_entry **entry);

/* Appends what a step did, exactly once: a step that is not later than the last one for this entry,
 * that computes positions beyond the known tokens, or that gives tokens it cannot have, changes
 * nothing and is STATUS_INVALID. More tokens than there is room for: STATUS_LIMIT, likewise. */
NODISCARD enum status journal_commit(struct journal *journal, struct journal_entry *entry,
                                     const struct journal_commit *commit);

/* Room for n more generated tokens, or for as many as there may be. STATUS_NO_MEMORY. */
NODISCARD enum status journal_reserve(struct journal *journal, struct journal_entry *entry,
                                      uint32_t n);

/* The entry has other pages now, which hold its first n positions and not all that are known
 * (computed for requests whose tokens were the same). */
void journal_place(struct journal_entry *entry, uint32_t n);

/* The ranks have lost their KV pages: every entry starts from its first position again. */
void journal_rewind(struct journal *journal);

/* What the ranks must compute before the entry can give its next token. */
struct journal_replay {
    uint32_t begin; /* positions [begin, end) */
    uint32_t end;
    uint32_t n_again; /* the first of them, which had been computed before */
};

struct journal_replay journal_replay(const struct journal_entry *entry);

/* True if a step that computes n positions of entry computes nothing new (state.h's again). */
bool journal_is_again(const struct journal_entry *entry, uint32_t n);

/* Copies the tokens of positions [begin, end), which are known, into out. */
void journal_copy_tokens(const struct journal_entry *entry, uint32_t begin, uint32_t end,
                         int32_t *out);

/* Tokens known so far, prompt and generated. */
static inline uint32_t journal_n_known(const struct journal_entry *entry)
{
    return entry->n_prompt + entry->n_generated;
}
