/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer's way from tokens to what a client reads:
 *
 *   token ─▶ detokenizer ─▶ stop strings ─▶ reasoning and tool calls ─▶ emit
 *
 * Each stage holds back what it cannot decide yet: bytes of a character, the beginning of a stop
 * string, of a tag. What was told of a token (its log-probability) goes out with or after its text
 * and is dropped if its text was part of a stop string. One thread.
 */
#pragma once

#include "chat/stop.h"
#include "gateway/guard.h"

struct choice_entry {
    struct token_entry entry; /* tops: owned */
    size_t begin;             /* of its text in the answer's, */
    size_t end;               /* and its end */
};

struct choice {
    const struct request_spec *spec; /* borrowed */
    struct detok detok;
    struct stop_matcher *stop;    /* NULL: none */
    struct output_parser *parser; /* NULL: all is content */
    struct call_guard guard;      /* with spec->must_call */
    struct buf piece;
    struct choice_entry *entries; /* [n_entries] not told yet */
    uint32_t n_entries;
    uint32_t cap_entries;
    struct token_entry *telling; /* those that go with the present event */
    uint32_t cap_telling;
    uint32_t n_told;
    size_t n_text;     /* bytes decoded, */
    size_t n_released; /* and released by the stop strings */
    uint32_t n_tokens;
    uint32_t n_reasoning; /* tokens that gave reasoning */
    bool reasoning;       /* the last text was */
    bool called;          /* a tool */
    void (*emit)(void *arg, const struct output_event *output, const struct token_entry *entries,
                 uint32_t n_entries);
    void *arg;
};

void choice_init(struct choice *choice, const struct request_spec *spec,
                 void (*emit)(void *arg, const struct output_event *output,
                              const struct token_entry *entries, uint32_t n_entries),
                 void *arg);
void choice_release(struct choice *choice);

enum choice_step {
    CHOICE_MORE,
    CHOICE_OVER,    /* a stop string is complete, or the last call that is allowed, or what must be
                       a call is none: choice_finish */
    CHOICE_REFUSED, /* the token is not taken: the call that must be goes on with another one */
};

/* The next token. */
NODISCARD enum choice_step choice_push(struct choice *choice, const struct batch_token *token);
/* True if the answer may not end now: a call must be gone on with. */
bool choice_must_go_on(const struct choice *choice);

/* What is wrong with an answer that is over, NULL: spec->must_call was not met. */
const char *choice_why(struct choice *choice);

/* What was held back comes out; then *ret_entries (borrowed until the next call) are those that
 * remain to be told. *ret_stop: the stop string that matched, NULL. */
void choice_finish(struct choice *choice, const struct token_entry **ret_entries,
                   uint32_t *ret_n_entries, const char **ret_stop);
