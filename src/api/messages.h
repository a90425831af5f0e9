/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anthropic's messages: their body in the terms of chat (messages.c), and answers and errors as
 * Anthropic's clients read them (messages_format.c). Private to api/.
 */
#pragma once

#include "api/generate.h"

/* generation->state. */
struct messages_state {
    json_t *chat;          /* the body as chat takes it, which the generation borrows from; owned */
    bool open;             /* a content block of the stream is, */
    enum output_kind kind; /* with this in it */
    uint32_t index;        /* of the open block, else of the next */
};

/* From a body of /v1/messages to one that chat_body_parse takes: a new reference. False: the body
 * is wrong, error names the member. */
NODISCARD bool messages_translate(const json_t *from, json_t **ret_chat, struct api_error *error);

/* {"type":"error","error":{"type","message"},"request_id"} */
void messages_error_body(const struct answer *answer, const struct api_error *error,
                         struct buf *out);

extern const struct format messages_format;
