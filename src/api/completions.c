/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/completions: a text, or token ids, continued. The four forms of prompt: a string,
 * strings, ids, arrays of ids. With echo the prompt comes first, with its log-probabilities if they
 * are asked for (max_tokens 0 then measures a text).
 */
#include <stdlib.h>
#include <string.h>

#include "api/chat.h"
#include "api/fields.h"
#include "api/logprobs.h"
#include "api/usage.h"
#include "base/mem.h"

/* generation->state. */
struct completion {
    bool echo;
    bool logprobs;
    bool only_prompt;     /* max_tokens 0 with echo: one token is generated and left out */
    size_t *text_offsets; /* [n_said] of a stream: bytes told so far */
    bool *echoed;         /* [n_said] */
};

/* --- prompt --- */

static bool is_ids(const json_t *array)
{
    return json_array_size(array) > 0 && json_is_integer(json_array_get(array, 0));
}

static bool take_ids(struct generation *g, uint32_t i, const json_t *array, struct api_error *error)
{
    for (size_t j = 0; j < json_array_size(array); j++) {
        const json_t *id = json_array_get(array, j);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= g->text->vocab) {
            return api_error_field(error, "prompt", "entry %zu is no token of the vocabulary of %u",
                                   j, g->text->vocab);
        }
        if (token_ids_push(&g->prompts[i], (int32_t)json_integer_value(id)) != STATUS_OK) {
            return api_error_set(error, 500, NULL, "no memory for the prompt");
        }
    }
    return true;
}

static bool take_prompt(struct generation *g, uint32_t i, const json_t *prompt,
                        struct api_error *error)
{
    if (json_is_string(prompt)) {
        return generation_encode(g, i, json_string_value(prompt), json_string_length(prompt), true,
                                 "prompt");
    }
    if (json_is_array(prompt) && (is_ids(prompt) || json_array_size(prompt) == 0)) {
        return take_ids(g, i, prompt, error);
    }
    return api_error_field(
        error, "prompt",
        "must be a string, an array of strings, of token ids, or of arrays of ids");
}

static bool parse_prompts(struct generation *g, const json_t *json, struct api_error *error)
{
    const json_t *prompt = field_get(json, "prompt");
    bool several = json_is_array(prompt) && !is_ids(prompt);
    size_t n = several ? json_array_size(prompt) : 1;

    if (prompt == NULL) {
        return api_error_field(error, "prompt", "is missing");
    }
    if (n == 0 || n > REQUEST_MAX_CHOICES) {
        return api_error_field(error, "prompt", "%zu prompts, must be 1 to %d", n,
                               REQUEST_MAX_CHOICES);
    }
    g->prompts = xcalloc(n, sizeof(*g->prompts));
    g->spec.prompts = g->prompts;
    g->spec.n_prompts = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        if (!take_prompt(g, i, several ? json_array_get(prompt, i) : prompt, error)) {
            return false;
        }
    }
    return true;
}

/* --- The body --- */

static bool parse_echo(struct generation *g, struct completion *c, const json_t *json,
                       struct api_error *error)
{
    int64_t logprobs = 0;
    bool given = false;

    if (!field_bool(json, "echo", &c->echo, error) ||
        !field_int(json, "logprobs", 0, 20, &logprobs, &given, error)) {
        return false;
    }
    c->logprobs = given;
    g->spec.logprobs = given;
    g->spec.n_top = (uint32_t)logprobs;
    g->spec.prompt_logprobs = given && c->echo;
    g->spec.n_prompt_top = (uint32_t)logprobs;
    return true;
}

static bool parse(struct generation *g, struct completion *c, const json_t *json,
                  struct api_error *error)
{
    static const char *const refused[] = {"suffix"};
    int64_t max_tokens = 16; /* OpenAI's default */
    int64_t best_of = 1;
    bool given = false;

    if (!parse_prompts(g, json, error) || !sampling_parse(g, json, error) ||
        !sampling_parse_stops(g, json, "stop", error) || !parse_echo(g, c, json, error) ||
        !sampling_parse_prompt_logprobs(g, json, error) ||
        !chat_parse_response_format(json, error) ||
        !sampling_refuse(json, refused, ARRAY_LEN(refused), error) ||
        !field_int(json, "best_of", 1, REQUEST_MAX_CHOICES, &best_of, NULL, error) ||
        !field_int(json, "max_tokens", c->echo ? 0 : 1, INT32_MAX, &max_tokens, &given, error)) {
        return false;
    }
    if (best_of > 1 && best_of != g->spec.n) {
        return api_error_field(error, "best_of", "other than n is not supported by this server");
    }
    c->only_prompt = max_tokens == 0;
    g->spec.max_tokens = (uint32_t)MAX(max_tokens, 1);
    return generation_check(g, given && !c->only_prompt ? "max_tokens" : NULL);
}

static const struct format completions_format;

static bool work(struct answer *answer)
{
    struct generation *g;
    struct completion *c;

    if (!generation_open(answer, &completions_format, "cmpl-", &g)) {
        return false;
    }
    c = xalloc(sizeof(*c));
    g->state = c;
    if (!parse(g, c, answer->json, &answer->error)) {
        return false;
    }
    c->text_offsets = xcalloc(g->spec.n_prompts * (size_t)g->spec.n, sizeof(*c->text_offsets));
    c->echoed = xcalloc(g->spec.n_prompts * (size_t)g->spec.n, sizeof(*c->echoed));
    return true;
}

const struct endpoint endpoint_completions = {
    .work = work,
    .now = generation_start,
    .gone = generation_gone,
};

/* --- Answers --- */

static void write_head(const struct generation *g, struct buf *out)
{
    buf_printf(out,
               "{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,\"model\":", g->id,
               (long long)g->created);
    json_write_str(out, g->model, strlen(g->model), false);
    buf_append_str(out, ",\"system_fingerprint\":\"lockstep-" LOCKSTEP_VERSION "\",\"choices\":[");
}

static size_t token_bytes(const struct generation *g, int32_t token)
{
    size_t n = 0;

    return tokenizer_token_bytes(g->text->tokenizer, token, &n) == NULL ? 0 : n;
}

static void write_top(const struct generation *g, const struct token_entry *e, struct buf *out)
{
    buf_append_char(out, '{');
    for (uint32_t j = 0; j < e->n_tops; j++) {
        buf_append(out, ",", j > 0);
        logprob_write_name(out, g, (int32_t)e->tops[j].token);
        buf_append_char(out, ':');
        logprob_write(out, e->tops[j].logprob);
    }
    buf_append_char(out, '}');
}

/* The four arrays of the old form. first: the prompt's first token, which has no probability; -1:
 * none. offset: of the first entry's text. */
static void write_logprobs(const struct generation *g, int32_t first,
                           const struct token_entry *const lists[2], const uint32_t counts[2],
                           size_t offset, struct buf *out)
{
    struct buf arrays[4] = {{0}};
    static const char *const names[4] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    bool comma = first >= 0;

    if (first >= 0) {
        logprob_write_name(&arrays[0], g, first);
        buf_append_str(&arrays[1], "null");
        buf_append_str(&arrays[2], "null");
        buf_printf(&arrays[3], "%zu", offset);
        offset += token_bytes(g, first);
    }
    for (int l = 0; l < 2; l++) {
        for (uint32_t i = 0; i < counts[l]; i++, comma = true) {
            const struct token_entry *e = &lists[l][i];

            for (int a = 0; a < 4; a++) {
                buf_append(&arrays[a], ",", comma);
            }
            logprob_write_name(&arrays[0], g, e->token);
            logprob_write(&arrays[1], e->logprob);
            write_top(g, e, &arrays[2]);
            buf_printf(&arrays[3], "%zu", offset);
            offset += token_bytes(g, e->token);
        }
    }
    for (int a = 0; a < 4; a++) {
        buf_printf(out, "%s\"%s\":[", a > 0 ? "," : "{", names[a]);
        buf_append(out, buf_str(&arrays[a]), arrays[a].len);
        buf_append_char(out, ']');
        buf_release(&arrays[a]);
    }
    buf_append_char(out, '}');
}

static void append_prompt(const struct generation *g, uint32_t choice, struct buf *text)
{
    const struct token_ids *prompt = &g->prompts[choice / g->spec.n];

    (void)!tokenizer_decode(g->text->tokenizer, prompt->data, prompt->n, 0, text, NULL);
}

/* What a choice has to say at once: the prompt if it is echoed, then text and entries. */
struct piece {
    uint32_t choice;
    bool echo;
    const char *text;
    size_t n_text;
    const struct token_entry *entries;
    uint32_t n_entries;
    size_t offset; /* of its text in the choice's */
};

static void write_piece(struct generation *g, const struct piece *piece, struct buf *out)
{
    const struct completion *c = g->state;
    const struct token_entry *lists[2] = {NULL, piece->entries};
    uint32_t counts[2] = {0, c->only_prompt ? 0 : piece->n_entries};
    struct buf text = {0};
    int32_t first = -1;

    if (piece->echo) {
        append_prompt(g, piece->choice, &text);
        first = g->prompts[piece->choice / g->spec.n].data[0];
        lists[0] = generation_prompt_entries(g, piece->choice / g->spec.n, &counts[0]);
    }
    if (!c->only_prompt) {
        buf_append(&text, piece->text, piece->n_text);
    }
    buf_printf(out, "{\"index\":%u,\"text\":", piece->choice);
    json_write_str(out, buf_str(&text), text.len, false);
    buf_append_str(out, ",\"logprobs\":");
    if (c->logprobs) {
        write_logprobs(g, first, lists, counts, piece->offset, out);
    } else {
        buf_append_str(out, "null");
    }
    buf_release(&text);
}

static void write_finish(const struct generation *g, enum finish_reason reason, int32_t stop_token,
                         const char *stop_text, struct buf *out)
{
    const struct completion *c = g->state;

    buf_printf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":",
               reason == FINISH_LENGTH || c->only_prompt ? "length" : "stop");
    if (stop_text != NULL) {
        json_write_str(out, stop_text, strlen(stop_text), false);
    } else if (stop_token >= 0) {
        buf_printf(out, "%d", stop_token);
    } else {
        buf_append_str(out, "null");
    }
}

static void begin(struct generation *g, struct buf *out)
{
    (void)g;
    (void)out;
}

static void event(struct generation *g, const struct request_event *event, struct buf *out)
{
    struct completion *c = g->state;
    struct piece piece = {
        .choice = event->choice,
        .echo = c->echo && !c->echoed[event->choice],
        .text = event->kind == REQUEST_TEXT ? event->output.text : "",
        .n_text = event->kind == REQUEST_TEXT ? event->output.n : 0,
        .entries = event->entries,
        .n_entries = event->n_entries,
        .offset = c->text_offsets[event->choice],
    };

    frame_begin(out);
    write_head(g, out);
    write_piece(g, &piece, out);
    if (event->kind == REQUEST_TEXT) {
        buf_append_str(out, ",\"finish_reason\":null");
    } else {
        write_finish(g, event->reason, event->stop_token, event->stop_text, out);
    }
    buf_append_str(out, "}]");
    if (g->include_usage) {
        buf_append_str(out, ",\"usage\":null");
    }
    buf_append_char(out, '}');
    frame_end(out);
    c->text_offsets[event->choice] += piece.n_text;
    c->echoed[event->choice] = true;
}

static void end(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    if (g->include_usage) {
        frame_begin(out);
        write_head(g, out);
        buf_append_str(out, "],\"usage\":");
        usage_write_openai(out, usage);
        buf_append_char(out, '}');
        frame_end(out);
    }
    buf_append_str(out, "data: [DONE]\n\n");
}

static void whole(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    const struct completion *c = g->state;
    struct request_usage used = *usage;

    used.completion_tokens = c->only_prompt ? 0 : used.completion_tokens;
    write_head(g, out);
    for (uint32_t i = 0; i < g->n_said; i++) {
        const struct said *said = &g->said[i];

        buf_append(out, ",", i > 0);
        write_piece(g,
                    &(struct piece){.choice = i,
                                    .echo = c->echo,
                                    .text = buf_str(&said->content),
                                    .n_text = said->content.len,
                                    .entries = said->entries,
                                    .n_entries = said->n_entries},
                    out);
        write_finish(g, said->reason, said->stop_token, said->stop_text, out);
        if (g->list_prompt) {
            buf_append_str(out, ",\"prompt_logprobs\":");
            logprobs_write_prompt(out, g, i / g->spec.n);
        }
        buf_append_char(out, '}');
    }
    buf_append_str(out, "],\"usage\":");
    usage_write_openai(out, &used);
    buf_append_char(out, '}');
}

static void release(struct generation *g)
{
    struct completion *c = g->state;

    if (c != NULL) {
        free(c->text_offsets);
        free(c->echoed);
        free(c);
    }
}

static const struct format completions_format = {
    .begin = begin,
    .event = event,
    .end = end,
    .fail = format_fail_openai,
    .whole = whole,
    .release = release,
};
