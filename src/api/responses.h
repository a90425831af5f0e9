/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenAI's responses: their body in the terms of chat (responses.c), and answers as items and
 * numbered events (responses_format.c). Nothing is stored. Private to api/.
 */
#pragma once

#include "api/generate.h"

/* One item of the output: a message, reasoning, or a function call. */
struct responses_item {
    enum output_kind kind; /* OUTPUT_CONTENT, OUTPUT_REASONING, OUTPUT_TOOL_NAME */
    uint32_t call;         /* number of the call */
    struct buf name;
    struct buf text;     /* or the call's arguments */
    struct buf logprobs; /* of a message: of its tokens, the members of a JSON list */
    bool cut;            /* it ends because the tokens did */
};

/* generation->state. */
struct responses_state {
    json_t *chat;        /* the body as chat takes it, which the generation borrows from; owned */
    uint32_t max_tokens; /* 0: not said */
    struct responses_item *items; /* [n_items] */
    uint32_t n_items;
    bool open;         /* the last item is, in a stream */
    uint64_t sequence; /* of the next event */
};

/* From a body of /v1/responses to one that chat_body_parse takes: a new reference. False: the body
 * is wrong, error names the member. */
NODISCARD bool responses_translate(const json_t *from, json_t **ret_chat, struct api_error *error);

extern const struct format responses_format;
