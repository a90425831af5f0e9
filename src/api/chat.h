/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation in a body, and the prompt made of it; chat's, and what others translate into.
 * Private to api/. */
#pragma once

#include "api/generate.h"

enum chat_tools { CHAT_TOOLS_NONE, CHAT_TOOLS_AUTO, CHAT_TOOLS_REQUIRED, CHAT_TOOLS_NAMED };

/* Borrows from the body it was parsed from, but for messages. */
struct chat_body {
    json_t *messages; /* as templates want them; owned */
    const json_t *tools;
    json_t *allowed;      /* those of tools that the model is shown, if not all; owned */
    const char *effort;   /* reasoning_effort; NULL: not said */
    const json_t *kwargs; /* further variables for the template */
    const json_t *documents;
    const char *own_template;
    enum chat_tools choice;
    const char *tool_name; /* of CHAT_TOOLS_NAMED */
    bool one_call;         /* parallel_tool_calls: false */
    bool add_generation_prompt;
    bool go_on;       /* continue_final_message */
    bool add_special; /* add_special_tokens: templates write them, but for few models */
};

NODISCARD bool chat_body_parse(struct chat_body *body, const json_t *json, struct api_error *error);
void chat_body_release(struct chat_body *body);

/* The prompt's text. False: the template refuses it. */
NODISCARD bool chat_body_render(const struct chat_body *body, const struct chat_prompt *prompt,
                                struct buf *ret_text, struct api_error *error);

/* Renders and tokenizes the generation's only prompt; sets how its output is read. */
NODISCARD bool chat_generation_prompt(struct generation *g, const struct chat_body *body);

/* response_format: text, or refused by name. */
NODISCARD bool chat_parse_response_format(const json_t *body, struct api_error *error);

extern const struct format chat_format;
