/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all generating endpoints share: a parsed body becomes a request, its events become a stream
 * of frames or, put together, one body. What the frames look like is a format's business: OpenAI's
 * chat and completions and responses, Anthropic's messages.
 *
 * A generation is filled in on a worker, then belongs to the loop. Private to api/.
 */
#pragma once

#include "api/answer.h"
#include "gateway/request.h"

struct generation;

struct format {
    /* Appends the frames that open a stream. */
    void (*begin)(struct generation *g, struct buf *out);
    /* Appends the frames of one event (REQUEST_TEXT, REQUEST_FINISH). */
    void (*event)(struct generation *g, const struct request_event *event, struct buf *out);
    /* Appends the frames that close it. */
    void (*end)(struct generation *g, const struct request_usage *usage, struct buf *out);
    /* Appends the frames that say that it failed. */
    void (*fail)(struct generation *g, const struct api_error *error, struct buf *out);
    /* The whole answer from what was said. */
    void (*whole)(struct generation *g, const struct request_usage *usage, struct buf *out);
    /* Frees g->state. NULL: there is none. */
    void (*release)(struct generation *g);
};

/* A tool call as it was said. */
struct said_call {
    struct buf name;
    struct buf arguments;
    char id[40];
};

/* One choice, put together. Streams keep only what later frames need. */
struct said {
    struct buf content;
    struct buf reasoning;
    struct said_call *calls; /* [n_calls] */
    uint32_t n_calls;
    struct token_entry *entries; /* [n_entries], tops owned */
    enum output_kind *kinds;     /* [n_entries]: of the text that each came with */
    uint32_t n_entries;
    uint32_t cap_entries;
    bool finished;
    enum finish_reason reason;
    char *stop_text;
    int32_t stop_token;
};

struct generation {
    struct answer *answer;
    const struct format *format;
    struct served *served;
    struct served_text *text; /* a reference */
    char *model;              /* as the client called it */
    char id[64];
    int64_t created;

    /* Parsed. */
    struct request_spec spec; /* its arrays are owned, below */
    struct token_ids *prompts;
    struct plan_bias *bias;
    const char **stops; /* texts owned by answer->json */
    int32_t *ends;
    struct buf forced;
    bool stream;
    bool include_usage;
    bool continuous_usage;
    bool return_ids;
    bool tokens_as_ids;   /* log-probabilities name tokens "token_id:N" */
    bool list_prompt;     /* prompt_logprobs: they are listed in the answer */
    bool hide_reasoning;  /* include_reasoning: false */
    uint32_t keep_tokens; /* of a prompt, the last ones; 0: all */
    bool to_run;          /* not only counted or rendered */
    void *state;          /* the format's */

    /* Running. */
    struct request *request; /* NULL once it has ended */
    struct request *ending;  /* during its end alone */
    struct said *said;       /* [n_said]: prompts times choices */
    uint32_t n_said;
    bool begun;        /* the stream */
    uint64_t wrote_ns; /* when something was last sent */
    uint32_t n_calls;  /* made ids for */
};

/* Begins answer->data for a body: finds the model, takes its text. False: error is set. On a
 * worker.
 */
NODISCARD bool generation_open(struct answer *answer, const struct format *format,
                               const char *id_prefix, struct generation **ret_generation);

/* The same for what only counts or renders: the model's text is enough, its ranks may be away.
 * format: NULL, or one whose release is to be called. */
NODISCARD bool generation_open_text(struct answer *answer, const struct format *format,
                                    struct generation **ret_generation);

/* Puts the prompts' lengths to the test against the context, once everything is parsed. asked: the
 * member that asked for max_tokens, NULL if none did. */
NODISCARD bool generation_check(struct generation *g, const char *asked);

/* Tokenizes text as prompt number i. */
NODISCARD bool generation_encode(struct generation *g, uint32_t i, const char *text, size_t n,
                                 bool add_special, const char *field);

/* endpoint.now and endpoint.gone of all that generate. */
void generation_start(struct answer *answer);
void generation_gone(struct answer *answer);

/* What prompt p's tokens had for probabilities, from the second on: [n]; within a format's calls.
 */
const struct token_entry *generation_prompt_entries(const struct generation *g, uint32_t prompt,
                                                    uint32_t *ret_n);

/* Makes the id of call number i of a choice ("call_..."), once. */
const char *generation_call_id(struct generation *g, struct said *said, uint32_t call);

/* "data: " + json + blank line; with a name, "event: name" is the line before. */
void frame_begin(struct buf *out);
void frame_begin_event(struct buf *out, const char *name);
void frame_end(struct buf *out);

/* Fields that every generating body may have (sampling.c). */
NODISCARD bool sampling_parse(struct generation *g, const json_t *body, struct api_error *error);
/* prompt_logprobs; after sampling_parse. */
NODISCARD bool sampling_parse_prompt_logprobs(struct generation *g, const json_t *body,
                                              struct api_error *error);
/* Of them, those that name tokens: what ends an answer, what may be in it (sampling_tokens.c). */
NODISCARD bool sampling_parse_tokens(struct generation *g, const json_t *body,
                                     struct api_error *error);
NODISCARD bool sampling_parse_stops(struct generation *g, const json_t *body, const char *field,
                                    struct api_error *error);
NODISCARD bool sampling_parse_stream(struct generation *g, const json_t *body,
                                     struct api_error *error);
/* Members that mean something which is not built: refused by name. */
NODISCARD bool sampling_refuse(const json_t *body, const char *const *names, size_t n,
                               struct api_error *error);
