/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request: one or several prompts, n answers (choices) to each, from tokens in to text out,
 * without HTTP. Each choice is a sequence of the host; its tokens become text (choice.h), and the
 * text comes to a sink as events. The front's thread.
 *
 * Choice number c of prompt p is choice p * n + c. All choices of a request share its seed; what
 * tells them apart are the prompt's and the choice's number in the key of the generator, so that
 * choice 0 of n is the answer that n = 1 would give.
 */
#pragma once

#include "chat/output.h"
#include "gateway/host.h"
#include "tokenizer/tokenizer.h"

enum { REQUEST_MAX_STOPS = 16, REQUEST_MAX_CHOICES = 128 };

struct request;

/* What there is to tell of one generated token, or of one of a prompt. */
struct token_entry {
    int32_t token;
    float logprob;
    const struct result_top *tops; /* [n_tops] */
    uint32_t n_tops;
};

enum request_event_kind {
    REQUEST_STARTED, /* its first rows are computed; n_cached */
    REQUEST_TEXT,    /* output, entries */
    REQUEST_FINISH,  /* of the choice: reason, and entries not told before */
};

enum finish_reason { FINISH_STOP, FINISH_LENGTH, FINISH_TOOL_CALLS };

struct request_event {
    enum request_event_kind kind;
    uint32_t choice;
    struct output_event output;
    const struct token_entry *entries; /* [n_entries] */
    uint32_t n_entries;
    uint32_t n_cached;
    enum finish_reason reason;
    const char *stop_text; /* the stop string that matched; NULL */
    int32_t stop_token;    /* the stop token, -1 */
};

struct request_usage {
    uint64_t prompt_tokens; /* of all prompts, each once */
    uint64_t completion_tokens;
    uint64_t cached_tokens;
    uint64_t reasoning_tokens;
};

/* How it ended: status and why of a failure. */
struct request_end {
    enum status status; /* STATUS_OK; STATUS_LIMIT: the queue is full; STATUS_INVALID: it can never
                           fit; STATUS_LINK: the world failed; STATUS_CORRUPT: the model did not
                           call a tool as it must; STATUS_NUMERIC, others: a fault of it */
    const char *why;
    struct request_usage usage;
};

struct request_sink {
    void *arg;
    void (*event)(void *arg, const struct request_event *event);
    void (*end)(void *arg,
                const struct request_end *end); /* once, last; the request is gone then */
};

/* Everything is copied. */
struct request_spec {
    const struct tokenizer *tokenizer; /* outlives the request */
    struct token_ids *prompts;         /* [n_prompts] */
    uint32_t n_prompts;
    uint32_t n;                   /* choices a prompt */
    struct plan_params params;    /* seed and sampling; slot, key numbers and counts are set here */
    const struct plan_bias *bias; /* [params.n_bias] */
    uint32_t max_tokens;          /* 0: as far as the context goes */
    const char *const *stops;     /* [n_stops] */
    uint32_t n_stops;
    bool include_stop;
    bool keep_special;   /* special tokens give text */
    const int32_t *ends; /* [n_ends] */
    uint32_t n_ends;
    uint32_t min_tokens;
    bool logprobs;
    uint32_t n_top;
    bool prompt_logprobs;
    uint32_t n_prompt_top;
    uint64_t tenant;
    int32_t priority;
    uint64_t salt;
    struct output_options output; /* borrowed texts outlive the request */
    bool parse_output;            /* false: all text is content */
    const char *forced;           /* text that the answer begins with, which the prompt has; NULL */
    bool must_call;               /* the answer calls tools of output.schemas with an object each */
    bool forced_object;           /* forced ends with the first byte of the first call's */
    uint32_t max_bias;            /* what ranks have room for */
};

/* Starts it. sink.end always comes, unless the request is cancelled. */
struct request *request_start(struct host *host, const struct request_spec *spec,
                              const struct request_sink *sink);

/* Nobody wants it any more: no further event, no end. */
void request_cancel(struct request **request);

/* Log-probabilities of prompt p's tokens, from its second on: [n], for whoever asked for them;
 * valid inside the sink's calls, complete once its first text comes. */
const struct token_entry *request_prompt_entries(const struct request *request, uint32_t prompt,
                                                 uint32_t *ret_n);

struct request_usage request_usage(const struct request *request);
