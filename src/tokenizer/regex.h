/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The regular expressions of pre-tokenizers: written for Oniguruma, run by PCRE2. A pattern is
 * translated where the two differ, and a construct whose meaning is not certain is refused by name.
 *
 * A pattern comes from a model's file and must not be able to hang or to exhaust memory: every item
 * it visits and every byte it moves over is counted (by PCRE2's callouts) against a budget for the
 * text. A compiled pattern is immutable; a struct regex_run belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "tokenizer/tokenizer.h"

struct regex;

enum { REGEX_MAX_BYTES = 16384 };

/* Compiles a pattern. STATUS_UNSUPPORTED, STATUS_INVALID, STATUS_LIMIT; the text says what and at
 * which byte of the pattern. */
NODISCARD enum status regex_create(const char *pattern, size_t size, struct regex **ret_regex,
                                   struct err *err);

/* The literal text as a pattern. */
NODISCARD enum status regex_create_literal(const char *text, size_t size, struct regex **ret_regex,
                                           struct err *err);

/* One word character as Unicode's UTS 18 defines it (and Rust's regex crate, which `tokenizers`
 * uses beside Oniguruma). */
NODISCARD enum status regex_create_word(struct regex **ret_regex, struct err *err);

void regex_destroy(struct regex **regex);

/* Steps that one byte of text may cost: several times what patterns in use need. */
uint64_t regex_steps_per_byte(const struct regex *regex);

/* Working memory and what is left of the budget. Zero-initialise; release with regex_run_release.
 */
struct regex_run {
    struct pcre2_real_match_data_8 *match;
    struct pcre2_real_match_context_8 *context;
    struct pcre2_real_jit_stack_8 *stack;
    uint64_t steps_left;
};

/* Searches text (valid UTF-8) from start on, as text before it were there for look-behind only.
 * STATUS_OK with the match, STATUS_NOT_FOUND, or STATUS_LIMIT (steps, stack), STATUS_NO_MEMORY. */
NODISCARD enum status regex_search(const struct regex *regex, struct regex_run *run,
                                   const struct tokenizer_text *text, size_t start,
                                   size_t *ret_start, size_t *ret_end);

void regex_run_release(struct regex_run *run);
