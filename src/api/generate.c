/* SPDX-License-Identifier: Apache-2.0 */
#include "api/generate.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/fields.h"
#include "base/clock.h"
#include "base/mem.h"

enum {
    PING_MS = 1000,       /* a stream that is silent for so long gets a comment */
    BEGIN_MS = 5000,      /* a stream begins by then, also while its request waits in the queue */
    RETRY_S = 2,          /* after a full queue, */
    MAX_BIASES = 1 << 22, /* of a request: every choice has its own */
    RETRY_FAILED_S = 30,  /* and a world that failed: the time to its next probe */
};

/* --- Parsing, on a worker --- */

/* The model that a body names, with a reference to its text; NULL text: it was never loaded. */
static bool find_model(struct answer *answer, const char **ret_name, struct served **ret_served,
                       struct served_text **ret_text)
{
    const struct api_config *config = answer_config(answer);
    struct api_error *error = &answer->error;
    const char *name = NULL;
    struct served *served;

    if (!field_text(answer->json, "model", &name, error)) {
        return false;
    }
    if (name == NULL) {
        return api_error_field(error, "model", "is missing");
    }
    served = registry_find(config->registry, name);
    if (served == NULL) {
        api_error_set(error, 404, "model_not_found", "model: \"%.200s\" is not served here", name);
        snprintf(error->param, sizeof(error->param), "model");
        return false;
    }
    *ret_name = name;
    *ret_served = served;
    *ret_text = served_take_text(config->registry, served);
    return true;
}

static bool open_generation(struct answer *answer, const struct format *format,
                            const char *id_prefix, bool to_run, struct generation **ret_generation)
{
    const char *model = NULL;
    struct generation *g;
    struct served *served = NULL;
    struct served_text *text = NULL;

    if (!find_model(answer, &model, &served, &text)) {
        return false;
    }
    if (text == NULL || (to_run && host_phase(served->host) == HOST_DOWN)) {
        bool loading = host_phase(served->host) == HOST_LOADING;

        served_text_unref(&text);
        api_error_set(&answer->error, 503, loading ? "loading" : "not_loaded",
                      "model \"%.200s\" is %s", model, loading ? "being loaded" : "not loaded");
        answer->error.retry_after = RETRY_S;
        return false;
    }
    g = xalloc(sizeof(*g));
    g->answer = answer;
    g->format = format;
    g->served = served;
    g->text = text;
    g->model = xstrdup(model);
    answer->model = g->model;
    g->created = (int64_t)time(NULL);
    snprintf(g->id, sizeof(g->id), "%s%s", id_prefix, answer->id);
    g->spec.tokenizer = text->tokenizer;
    g->spec.n = 1;
    g->spec.max_bias = text->vocab;
    g->to_run = to_run;
    g->spec.tenant = answer->tenant;
    answer->data = g;
    *ret_generation = g;
    return true;
}

bool generation_open(struct answer *answer, const struct format *format, const char *id_prefix,
                     struct generation **ret_generation)
{
    return open_generation(answer, format, id_prefix, true, ret_generation);
}

bool generation_open_text(struct answer *answer, const struct format *format,
                          struct generation **ret_generation)
{
    return open_generation(answer, format, "", false, ret_generation);
}

bool generation_encode(struct generation *g, uint32_t i, const char *text, size_t n,
                       bool add_special, const char *field)
{
    struct api_error *error = &g->answer->error;
    struct err err = {0};

    if (g->to_run &&
        g->keep_tokens == 0) { /* of a text that is too long the rest does not matter */
        g->prompts[i].limit = g->text->max_context;
    }
    if (tokenizer_encode(g->text->tokenizer, text, n,
                         TOKENIZER_PARSE_SPECIAL | (add_special ? TOKENIZER_ADD_SPECIAL : 0u),
                         &g->prompts[i], &err) == STATUS_OK) {
        return true;
    }
    if (g->prompts[i].full) {
        return api_error_set(error, 400, "context_length_exceeded",
                             "%s: the prompt has more tokens than the context of %u holds", field,
                             g->text->max_context);
    }
    return api_error_field(error, field, "%s", err.text);
}

/* Keeps the last of a prompt's tokens, and in any case leaves room for the answer. */
static void truncate_prompt(struct generation *g, struct token_ids *prompt)
{
    uint32_t answer = MAX(g->spec.max_tokens, 1u);
    uint32_t context = g->text->max_context;
    size_t keep = MIN(g->keep_tokens, context > answer ? context - answer : 1);

    if (keep > 0 && prompt->n > keep) {
        memmove(prompt->data, prompt->data + (prompt->n - keep), keep * sizeof(*prompt->data));
        prompt->n = keep;
    }
}

bool generation_check(struct generation *g, const char *asked)
{
    struct api_error *error = &g->answer->error;
    uint32_t context = g->text->max_context;
    uint64_t most = 0;

    for (uint32_t i = 0; i < g->spec.n_prompts; i++) {
        truncate_prompt(g, &g->prompts[i]);
        if (g->prompts[i].n == 0) {
            return api_error_set(error, 400, "empty_prompt", "the prompt has no tokens");
        }
        most = MAX(most, (uint64_t)g->prompts[i].n);
    }
    if (g->spec.n_prompts * (uint64_t)g->spec.n > REQUEST_MAX_CHOICES) {
        return api_error_field(error, "n", "%u prompts with %u choices each, at most %d in all",
                               g->spec.n_prompts, g->spec.n, REQUEST_MAX_CHOICES);
    }
    if (g->spec.params.n_bias * (uint64_t)g->spec.n_prompts * g->spec.n > MAX_BIASES) {
        return api_error_field(error, "n", "%u token biases for each of %u choices, at most %d",
                               g->spec.params.n_bias, g->spec.n_prompts * g->spec.n, MAX_BIASES);
    }
    if (most + (asked != NULL ? g->spec.max_tokens : 1) > context) {
        if (asked == NULL) {
            api_error_set(error, 400, "context_length_exceeded",
                          "the prompt has %llu tokens, and the context holds %u with the answer",
                          (unsigned long long)most, context);
        } else {
            api_error_set(error, 400, "context_length_exceeded",
                          "%s: the prompt's %llu tokens and %u more do not fit the context of %u",
                          asked, (unsigned long long)most, g->spec.max_tokens, context);
            snprintf(error->param, sizeof(error->param), "%s", asked);
        }
        return false;
    }
    return true;
}

/* --- What is said --- */

/* Those that are told at the end belong to the text before it. */
static enum output_kind kind_of(const struct said *said, const struct request_event *event)
{
    if (event->kind == REQUEST_TEXT) {
        return event->output.kind;
    }
    return said->n_calls > 0 ? OUTPUT_TOOL_NAME : OUTPUT_CONTENT;
}

static void copy_entries(struct said *said, const struct request_event *event)
{
    enum output_kind kind = kind_of(said, event);

    for (uint32_t i = 0; i < event->n_entries; i++) {
        struct token_entry *e;
        struct result_top *tops = NULL;

        if (said->n_entries == said->cap_entries) {
            said->cap_entries = MAX(16u, 2 * said->cap_entries);
            said->entries = xrealloc(said->entries, said->cap_entries, sizeof(*said->entries));
            said->kinds = xrealloc(said->kinds, said->cap_entries, sizeof(*said->kinds));
        }
        said->kinds[said->n_entries] = kind;
        e = &said->entries[said->n_entries++];
        *e = event->entries[i];
        if (e->n_tops > 0) {
            tops = xcalloc(e->n_tops, sizeof(*tops));
            memcpy(tops, e->tops, e->n_tops * sizeof(*tops));
        }
        e->tops = tops;
    }
}

static struct said_call *call_of(struct said *said, uint32_t index)
{
    if (index >= said->n_calls) {
        said->calls = xrealloc(said->calls, index + 1, sizeof(*said->calls));
        memset(said->calls + said->n_calls, 0, (index + 1 - said->n_calls) * sizeof(*said->calls));
        said->n_calls = index + 1;
    }
    return &said->calls[index];
}

static void keep_text(struct said *said, const struct output_event *output)
{
    switch (output->kind) {
    case OUTPUT_CONTENT:
        buf_append(&said->content, output->text, output->n);
        break;
    case OUTPUT_REASONING:
        buf_append(&said->reasoning, output->text, output->n);
        break;
    case OUTPUT_TOOL_NAME:
        buf_append(&call_of(said, output->index)->name, output->text, output->n);
        break;
    case OUTPUT_TOOL_ARGUMENTS:
        buf_append(&call_of(said, output->index)->arguments, output->text, output->n);
        break;
    case OUTPUT_TOOL_END:
        break;
    }
}

static void keep(struct generation *g, const struct request_event *event)
{
    struct said *said = &g->said[event->choice];

    if (event->kind == REQUEST_TEXT) {
        keep_text(said, &event->output);
    } else {
        said->finished = true;
        said->reason = event->reason;
        said->stop_text = event->stop_text == NULL ? NULL : xstrdup(event->stop_text);
        said->stop_token = event->stop_token;
    }
    copy_entries(said, event);
}

const struct token_entry *generation_prompt_entries(const struct generation *g, uint32_t prompt,
                                                    uint32_t *ret_n)
{
    const struct request *request = g->request != NULL ? g->request : g->ending;

    *ret_n = 0;
    return request == NULL ? NULL : request_prompt_entries(request, prompt, ret_n);
}

const char *generation_call_id(struct generation *g, struct said *said, uint32_t call)
{
    struct said_call *c = call_of(said, call);

    if (c->id[0] == '\0') {
        snprintf(c->id, sizeof(c->id), "call_%.20s%03u", g->answer->id, g->n_calls++);
    }
    return c->id;
}

static void release_said(struct said *said)
{
    for (uint32_t i = 0; i < said->n_entries; i++) {
        free((void *)said->entries[i].tops);
    }
    for (uint32_t i = 0; i < said->n_calls; i++) {
        buf_release(&said->calls[i].name);
        buf_release(&said->calls[i].arguments);
    }
    free(said->entries);
    free(said->kinds);
    free(said->calls);
    free(said->stop_text);
    buf_release(&said->content);
    buf_release(&said->reasoning);
}

/* --- Frames --- */

void frame_begin(struct buf *out)
{
    buf_append_str(out, "data: ");
}

void frame_begin_event(struct buf *out, const char *name)
{
    buf_printf(out, "event: %s\ndata: ", name);
}

void frame_end(struct buf *out)
{
    buf_append_str(out, "\n\n");
}

static void send(struct generation *g, struct buf *out)
{
    if (out->len > 0 && g->answer->exchange != NULL) {
        http_stream_write(g->answer->exchange, buf_str(out), out->len);
        g->wrote_ns = clock_ns();
    }
    buf_release(out);
}

static void begin_stream(struct generation *g)
{
    struct buf out = {0};

    if (g->begun || g->answer->exchange == NULL) {
        return;
    }
    g->begun = true;
    g->answer->status = 200;
    http_answer_header(g->answer->exchange, "Cache-Control", "no-cache");
    http_answer_header(g->answer->exchange, "X-Accel-Buffering", "no");
    http_stream_begin(g->answer->exchange, 200, "text/event-stream; charset=utf-8");
    g->format->begin(g, &out);
    send(g, &out);
}

/* --- The request's events --- */

static void on_event(void *arg, const struct request_event *event)
{
    struct generation *g = arg;
    struct buf out = {0};

    if (event->kind == REQUEST_STARTED) {
        if (g->stream) {
            begin_stream(g);
        }
        return;
    }
    if (!g->stream || event->kind == REQUEST_FINISH || event->output.kind == OUTPUT_TOOL_NAME) {
        keep(g, event);
    }
    if (g->stream) {
        begin_stream(g);
        g->format->event(g, event, &out);
        send(g, &out);
    }
}

static void error_of(const struct request_end *end, struct api_error *error)
{
    switch ((int)end->status) {
    case STATUS_LIMIT:
        api_error_set(error, 429, "queue_full", "%s", end->why);
        error->retry_after = RETRY_S;
        break;
    case STATUS_INVALID:
        api_error_set(error, 400, "context_length_exceeded", "%s", end->why);
        break;
    case STATUS_LINK:
    case STATUS_CANCELLED:
        api_error_set(error, 503, "world_failed", "%s", end->why);
        error->retry_after = RETRY_FAILED_S;
        break;
    case STATUS_CORRUPT:
        api_error_set(error, 500, "invalid_tool_call", "%s", end->why);
        break;
    default:
        api_error_set(error, 500, NULL, "%s", end->why);
        error->no_retry = true; /* it may be this request that kills ranks */
        break;
    }
}

static void fail(struct generation *g, const struct api_error *error)
{
    struct buf out = {0};

    if (g->answer->exchange == NULL) {
        return;
    }
    if (!g->begun) {
        answer_error(g->answer, error);
        return;
    }
    g->format->fail(g, error, &out);
    send(g, &out);
    http_stream_end(g->answer->exchange);
}

static void on_end(void *arg, const struct request_end *end)
{
    struct generation *g = arg;
    struct api_error error = {0};
    struct buf out = {0};

    g->ending = g->request;
    g->request = NULL;
    g->answer->prompt_tokens = end->usage.prompt_tokens;
    g->answer->completion_tokens = end->usage.completion_tokens;
    g->answer->tick = NULL;
    g->answer->abort = NULL;
    if (end->status != STATUS_OK) {
        error_of(end, &error);
        fail(g, &error);
        return;
    }
    if (g->answer->exchange == NULL) {
        return;
    }
    if (g->stream) {
        begin_stream(g);
        g->format->end(g, &end->usage, &out);
        send(g, &out);
        http_stream_end(g->answer->exchange);
        return;
    }
    g->format->whole(g, &end->usage, &out);
    g->ending = NULL;
    answer_json(g->answer, 200, &out);
    buf_release(&out);
}

/* --- Life --- */

static void tick(struct answer *answer, uint64_t now)
{
    static const char ping[] = ": ping\n\n";
    struct generation *g = answer->data;

    if (!g->begun && g->stream && now - answer->began_ns >= (uint64_t)BEGIN_MS * 1000000) {
        begin_stream(g);
    }
    if (g->begun && now - g->wrote_ns >= (uint64_t)PING_MS * 1000000) {
        http_stream_write(answer->exchange, ping, sizeof(ping) - 1);
        g->wrote_ns = now;
    }
}

static void abort_generation(struct answer *answer, const char *why)
{
    struct generation *g = answer->data;
    struct api_error error = {0};

    request_cancel(&g->request);
    answer->tick = NULL;
    answer->abort = NULL;
    api_error_set(&error, 503, "shutting_down", "%s", why);
    fail(g, &error);
}

/* A refusal of what would have run, had it come at another time. */
static void count_refusal(const struct generation *g, enum host_phase phase)
{
    bool draining = answer_is_draining(g->answer);

    if (draining || phase == HOST_FAILED) {
        metrics_add_label(g->served->metrics, METRIC_ADMISSION_REJECTIONS_TOTAL,
                          draining ? METRICS_REJECTED_DRAINING : METRICS_REJECTED_FAILED, 1);
    }
}

void generation_start(struct answer *answer)
{
    struct generation *g = answer->data;
    const struct request_sink sink = {.arg = g, .event = on_event, .end = on_end};
    enum host_phase phase = host_phase(g->served->host);
    struct api_error error = {0};

    if (answer_is_draining(answer) || phase == HOST_FAILED || phase == HOST_LOADING) {
        count_refusal(g, phase);
        api_error_set(&error, 503, answer_is_draining(answer) ? "draining" : host_phase_text(phase),
                      answer_is_draining(answer) ? "the server is shutting down"
                                                 : "the model's ranks are not up");
        error.retry_after = phase == HOST_FAILED ? RETRY_FAILED_S : RETRY_S;
        answer_error(answer, &error);
        return;
    }
    g->n_said = g->spec.n_prompts * g->spec.n;
    g->said = xcalloc(g->n_said, sizeof(*g->said));
    answer->tick = tick;
    answer->abort = abort_generation;
    g->spec.forced = g->forced.len > 0 ? buf_str(&g->forced) : NULL;
    g->request = request_start(g->served->host, &g->spec, &sink);
}

void generation_gone(struct answer *answer)
{
    struct generation *g = answer->data;

    if (g == NULL) {
        return;
    }
    answer->model = NULL;
    request_cancel(&g->request);
    for (uint32_t i = 0; i < g->n_said; i++) {
        release_said(&g->said[i]);
    }
    if (g->format != NULL && g->format->release != NULL) {
        g->format->release(g);
    }
    for (uint32_t i = 0; g->prompts != NULL && i < g->spec.n_prompts; i++) {
        token_ids_release(&g->prompts[i]);
    }
    free(g->prompts);
    free(g->said);
    free(g->bias);
    free(g->stops);
    free(g->ends);
    free(g->model);
    buf_release(&g->forced);
    served_text_unref(&g->text);
    free(g);
    answer->data = NULL;
}
