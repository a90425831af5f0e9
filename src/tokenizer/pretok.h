/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pre-tokenizer: a chain of stages, each of which splits every piece of text that it gets and
 * hands the parts on; what leaves the last stage is a word. Filled once, then immutable.
 */
#pragma once

#include "base/buf.h"
#include "tokenizer/regex.h"
#include "tokenizer/tokenizer.h"

enum { PRETOK_MAX_STAGES = 16 };

/* What becomes of a match, as `tokenizers` names it. */
enum pretok_behavior {
    PRETOK_REMOVED,
    PRETOK_ISOLATED,
    PRETOK_CONTIGUOUS,
    PRETOK_MERGED_WITH_PREVIOUS,
    PRETOK_MERGED_WITH_NEXT,
};

struct pretok_stage {
    struct regex *regex; /* owned; NULL: does not split */
    enum pretok_behavior behavior;
    bool invert;           /* what lies between matches is the match */
    bool add_prefix_space; /* before splitting, to a piece that begins with none */
};

struct pretok {
    struct pretok_stage stages[PRETOK_MAX_STAGES];
    size_t n_stages;
};

void pretok_release(struct pretok *pretok);

/* Appends the stage and owns its regex from then on, also after STATUS_LIMIT (too many stages). */
NODISCARD enum status pretok_add(struct pretok *pretok, const struct pretok_stage *stage,
                                 struct err *err);

/* Steps that one byte of text may cost in all stages. */
uint64_t pretok_steps_per_byte(const struct pretok *pretok);

/* One run over one piece of text. */
struct pretok_run {
    const struct pretok *pretok;
    struct regex_run regex;
    struct buf spaced[PRETOK_MAX_STAGES]; /* a stage's piece with a space before it */
    enum status (*word)(void *data, const struct tokenizer_text *word);
    void *data;
};

/* Calls run->word for each word of text (valid UTF-8) in order; the word is valid during the call.
 * A status from it ends the run and is returned; otherwise as regex_search. */
NODISCARD enum status pretok_split(struct pretok_run *run, const struct tokenizer_text *text);

/* Releases the working memory. */
void pretok_run_release(struct pretok_run *run);
