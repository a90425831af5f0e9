/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /tokenize, /detokenize: between text and token ids. A text is tokenized as /v1/completions
 * does, a conversation ("messages") is rendered as chat does and then tokenized. The ranks are not
 * needed.
 */
#include "api/chat.h"
#include "api/fields.h"
#include "api/logprobs.h"
#include "base/mem.h"

/* --- /tokenize --- */

static bool encode_prompt(struct generation *g, const json_t *json, struct api_error *error)
{
    const json_t *prompt = field_get(json, "prompt");
    bool add_special = true;

    if (!json_is_string(prompt)) {
        return api_error_field(error, "prompt", "must be a string");
    }
    if (!field_bool(json, "add_special_tokens", &add_special, error)) {
        return false;
    }
    g->prompts = xcalloc(1, sizeof(*g->prompts));
    g->spec.n_prompts = 1;
    return generation_encode(g, 0, json_string_value(prompt), json_string_length(prompt),
                             add_special, "prompt");
}

static bool encode_messages(struct generation *g, const json_t *json, struct api_error *error)
{
    struct chat_body body = {0};
    struct buf text = {0};
    bool add_special = false; /* templates write them */
    bool ok = field_bool(json, "add_special_tokens", &add_special, error) &&
              chat_body_parse(&body, json, error) &&
              chat_body_render(&body, g->text->prompt, &text, error);

    if (ok) {
        g->prompts = xcalloc(1, sizeof(*g->prompts));
        g->spec.n_prompts = 1;
        ok = generation_encode(g, 0, buf_str(&text), text.len, add_special, "messages");
    }
    chat_body_release(&body);
    buf_release(&text);
    return ok;
}

static bool tokenize(struct answer *answer)
{
    struct api_error *error = &answer->error;
    bool messages = field_get(answer->json, "messages") != NULL;
    struct generation *g;

    if (!generation_open_text(answer, NULL, &g)) {
        return false;
    }
    if (messages && field_get(answer->json, "prompt") != NULL) {
        return api_error_field(error, "prompt", "and messages exclude each other");
    }
    if (!field_bool(answer->json, "return_token_strs", &g->return_ids, error)) {
        return false;
    }
    return messages ? encode_messages(g, answer->json, error)
                    : encode_prompt(g, answer->json, error);
}

static void tokenize_now(struct answer *answer)
{
    struct generation *g = answer->data;
    const struct token_ids *ids = &g->prompts[0];
    struct buf out = {0};

    buf_append_str(&out, "{\"tokens\":[");
    for (size_t i = 0; i < ids->n; i++) {
        buf_printf(&out, "%s%d", i > 0 ? "," : "", ids->data[i]);
    }
    buf_printf(&out, "],\"count\":%zu,\"max_model_len\":%u", ids->n, g->text->max_context);
    if (g->return_ids) {
        buf_append_str(&out, ",\"token_strs\":[");
        for (size_t i = 0; i < ids->n; i++) {
            buf_append(&out, ",", i > 0);
            logprob_write_token(&out, g->text->tokenizer, ids->data[i]);
        }
        buf_append_char(&out, ']');
    }
    buf_append_char(&out, '}');
    answer_json(answer, 200, &out);
    buf_release(&out);
}

const struct endpoint endpoint_tokenize = {
    .work = tokenize,
    .now = tokenize_now,
    .gone = generation_gone,
};

/* --- /detokenize --- */

static bool detokenize(struct answer *answer)
{
    struct api_error *error = &answer->error;
    const json_t *tokens = NULL;
    struct token_ids ids = {0};
    struct err err = {0};
    struct generation *g;
    bool ok = true;

    if (!generation_open_text(answer, NULL, &g) ||
        !field_array(answer->json, "tokens", &tokens, error)) {
        return false;
    }
    if (tokens == NULL) {
        return api_error_field(error, "tokens", "is missing");
    }
    for (size_t i = 0; i < json_array_size(tokens) && ok; i++) {
        const json_t *id = json_array_get(tokens, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= g->text->vocab) {
            ok = api_error_field(error, "tokens", "entry %zu is no token of the vocabulary of %u",
                                 i, g->text->vocab);
        } else if (token_ids_push(&ids, (int32_t)json_integer_value(id)) != STATUS_OK) {
            ok = api_error_set(error, 500, NULL, "no memory for the tokens");
        }
    }
    if (ok &&
        tokenizer_decode(g->text->tokenizer, ids.data, ids.n, 0, &g->forced, &err) != STATUS_OK) {
        ok = api_error_field(error, "tokens", "%s", err.text);
    }
    token_ids_release(&ids);
    return ok;
}

static void prompt_now(struct answer *answer)
{
    struct generation *g = answer->data;
    struct buf out = {0};

    buf_append_str(&out, "{\"prompt\":");
    json_write_str(&out, buf_str(&g->forced), g->forced.len, false);
    buf_append_char(&out, '}');
    answer_json(answer, 200, &out);
    buf_release(&out);
}

const struct endpoint endpoint_detokenize = {
    .work = detokenize,
    .now = prompt_now,
    .gone = generation_gone,
};

/* --- /apply-template --- */

static bool apply_template(struct answer *answer)
{
    struct chat_body body = {0};
    struct generation *g;
    bool ok = generation_open_text(answer, NULL, &g) &&
              chat_body_parse(&body, answer->json, &answer->error) &&
              chat_body_render(&body, g->text->prompt, &g->forced, &answer->error);

    chat_body_release(&body);
    return ok;
}

const struct endpoint endpoint_apply_template = {
    .work = apply_template,
    .now = prompt_now,
    .gone = generation_gone,
};
