/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Managing the server: its models with what they are and hold, loading and unloading, faults on
 * purpose. Loading is asynchronous: the answer says that it has begun (202), progress is in GET
 * /models and, as a stream, in GET /models/sse.
 */
#include <stdlib.h>
#include <string.h>

#include "api/answer.h"
#include "api/fields.h"
#include "api/state.h"
#include "base/clock.h"
#include "base/mem.h"

enum { DEFAULT_DRAIN_MS = 30000 };

/* --- What a model is like --- */

static const char *status_of(enum host_phase phase)
{
    static const char *const texts[] = {
        [HOST_DOWN] = "unloaded",         [HOST_LOADING] = "loading", [HOST_READY] = "loaded",
        [HOST_REBUILDING] = "recovering", [HOST_FAILED] = "failed",   [HOST_DRAINING] = "unloading",
        [HOST_STOPPING] = "unloading",
    };

    return texts[phase];
}

/* Of each rank: bytes, rate and the time that is left, as far as it can be told. */
static json_t *load_progress(const struct host_snapshot *s)
{
    double seconds = (double)(clock_ns() - s->load_start_ns) * 1e-9;
    json_t *ranks = json_array();

    for (uint32_t r = 0; r < s->n_ranks; r++) {
        double rate = seconds > 0 ? (double)s->load_done[r] / seconds : 0;
        uint64_t left = s->load_total[r] - MIN(s->load_done[r], s->load_total[r]);
        json_t *rank = json_pack("{s:I, s:I, s:I, s:f}", "rank", (json_int_t)r, "bytes",
                                 (json_int_t)s->load_done[r], "total", (json_int_t)s->load_total[r],
                                 "bytes_per_second", rate);

        json_object_set_new(rank, "eta_seconds",
                            rate > 0 && s->load_total[r] > 0 ? json_real((double)left / rate)
                                                             : json_null());
        json_array_append_new(ranks, rank);
    }
    return ranks;
}

static void add_text_facts(json_t *entry, const struct served_text *text)
{
    json_t *capabilities = json_pack("[s]", "completions");

    if (text->prompt != NULL) {
        json_array_append_new(capabilities, json_string("chat"));
        json_array_append_new(capabilities, json_string("tools"));
    }
    json_object_set_new(entry, "capabilities", capabilities);
    json_object_set_new(entry, "limit",
                        json_pack("{s:I, s:I}", "context", (json_int_t)text->max_context, "output",
                                  (json_int_t)text->max_context));
}

static json_t *describe(struct registry *registry, struct served *served)
{
    struct served_text *text = served_take_text(registry, served);
    struct host_snapshot s;
    json_t *names = json_array();
    json_t *devices = json_array();
    json_t *entry;

    host_snapshot(served->host, &s);
    for (uint32_t i = 0; i < served->n_names; i++) {
        json_array_append_new(names, json_string(served->names[i]));
    }
    for (uint32_t r = 0; r < s.n_ranks; r++) {
        json_array_append_new(devices, json_string("cpu"));
    }
    entry = json_pack("{s:s, s:o, s:s, s:s, s:o, s:I, s:s, s:{s:I, s:I, s:I}, s:I, s:I, s:I}", "id",
                      served->names[0], "names", names, "path", served->path, "status",
                      status_of(s.phase), "devices", devices, "tp", (json_int_t)s.n_ranks, "class",
                      s.arithmetic, "memory", "weight_bytes", (json_int_t)s.weight_bytes,
                      "kv_bytes", (json_int_t)(s.kv_token_bytes * 64 * s.batch.kv_total),
                      "kv_used_bytes", (json_int_t)(s.kv_token_bytes * 64 * s.batch.kv_used),
                      "max_running", (json_int_t)s.max_running, "running",
                      (json_int_t)s.batch.running, "waiting", (json_int_t)s.batch.waiting);
    if (text != NULL) {
        add_text_facts(entry, text);
    }
    if (s.phase == HOST_LOADING) {
        json_object_set_new(entry, "progress", load_progress(&s));
    }
    if (served->why[0] != '\0' && s.phase == HOST_DOWN) {
        json_object_set_new(entry, "why", json_string(served->why));
    } else if (s.phase == HOST_FAILED) {
        json_object_set_new(entry, "why", json_string(s.why));
    }
    served_text_unref(&text);
    return entry;
}

static void list(struct answer *answer)
{
    struct registry *registry = answer_config(answer)->registry;
    json_t *models = json_array();

    for (uint32_t i = 0; i < registry_count(registry); i++) {
        json_array_append_new(models, describe(registry, registry_at(registry, i)));
    }
    answer_value(answer, 200, json_pack("{s:o}", "models", models));
}

const struct endpoint endpoint_manage_list = {.now = list};

/* --- Load, unload --- */

static bool parse_model(struct answer *answer, const char **ret_model)
{
    *ret_model = NULL;
    if (!field_text(answer->json, "model", ret_model, &answer->error) ||
        (*ret_model == NULL && !field_text(answer->json, "model_id", ret_model, &answer->error))) {
        return false;
    }
    return *ret_model != NULL || api_error_field(&answer->error, "model", "is missing");
}

/* The entry of that name or, where the server can make one, of that path. */
static struct served *find_or_add(struct answer *answer, const char *model)
{
    const struct api_config *config = answer_config(answer);
    struct served *served = registry_find(config->registry, model);
    struct err err = {0};

    if (served == NULL && config->add_model != NULL &&
        config->add_model(config->arg, model, &served, &err) != STATUS_OK) {
        if (err.status == STATUS_NOT_FOUND || err.status == STATUS_IO) {
            api_error_set(&answer->error, 404, "model_not_found", "%s", err.text);
        } else {
            api_error_set(&answer->error, 400, "bad_model", "%s", err.text);
        }
        snprintf(answer->error.param, sizeof(answer->error.param), "model");
        return NULL;
    }
    if (served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found", "no model \"%.200s\"", model);
    }
    return served;
}

/* Loading twice is loading once: the second is told how the first goes. */
static void load(struct answer *answer)
{
    const struct api_config *config = answer_config(answer);
    const char *model;
    struct served *served = parse_model(answer, &model) ? find_or_add(answer, model) : NULL;
    struct err err = {0};
    enum host_phase phase;
    json_t *entry;

    if (served == NULL) {
        answer_failed(answer);
        return;
    }
    phase = host_phase(served->host);
    if (phase == HOST_DOWN && config->load_model(config->arg, served, &err) != STATUS_OK) {
        api_error_set(&answer->error, err.status == STATUS_PENDING ? 409 : 400, "not_loaded", "%s",
                      err.text);
        answer_failed(answer);
        return;
    }
    if (phase == HOST_DRAINING || phase == HOST_STOPPING) {
        api_error_set(&answer->error, 409, "unloading", "%s is being unloaded", served->names[0]);
        answer->error.retry_after = 1;
        answer_failed(answer);
        return;
    }
    entry = describe(config->registry, served);
    answer_value(answer, phase == HOST_DOWN || phase == HOST_LOADING ? 202 : 200, entry);
}

const struct endpoint endpoint_manage_load = {.now = load};

/* Waits for the model to be gone. */
static void tick_unload(struct answer *answer, uint64_t now)
{
    struct served *served = answer->data;

    (void)now;
    if (host_phase(served->host) == HOST_DOWN) {
        answer->tick = NULL;
        answer_value(answer, 200,
                     json_pack("{s:s, s:s}", "model", served->names[0], "status", "unloaded"));
    }
}

static void unload(struct answer *answer)
{
    struct registry *registry = answer_config(answer)->registry;
    double drain = (double)DEFAULT_DRAIN_MS / 1000;
    const char *model;
    struct served *served = NULL;
    struct err err = {0};

    if (parse_model(answer, &model) &&
        field_real(answer->json, "drain_timeout", 0, 86400, &drain, NULL, &answer->error)) {
        served = registry_find(registry, model);
        if (served == NULL) {
            api_error_set(&answer->error, 404, "model_not_found", "no model \"%.200s\"", model);
        } else if (host_unload(served->host, (uint32_t)(drain * 1000), &err) != STATUS_OK) {
            api_error_set(&answer->error, 409, "not_loaded", "%s", err.text);
        }
    }
    if (answer->error.status != 0) {
        answer_failed(answer);
        return;
    }
    answer->data = served;
    answer->tick = tick_unload;
}

const struct endpoint endpoint_manage_unload = {.now = unload};

/* --- Progress as a stream --- */

static void send_states(struct answer *answer)
{
    struct registry *registry = answer_config(answer)->registry;
    const struct served *only = answer->data;
    struct buf out = {0};

    for (uint32_t i = 0; i < registry_count(registry); i++) {
        struct served *served = registry_at(registry, i);
        json_t *entry;

        if (only != NULL && only != served) {
            continue;
        }
        entry = describe(registry, served);
        buf_append_str(&out, "data: ");
        json_write(&out, entry, &json_style_compact);
        buf_append_str(&out, "\n\n");
        json_decref(entry);
    }
    http_stream_write(answer->exchange, buf_str(&out), out.len);
    buf_release(&out);
}

static void end_sse(struct answer *answer, const char *why)
{
    (void)why;
    answer->tick = NULL;
    answer->abort = NULL;
    http_stream_end(answer->exchange);
}

/* With ?model= it ends once that model neither loads nor unloads; otherwise with the server. */
static void tick_sse(struct answer *answer, uint64_t now)
{
    const struct served *only = answer->data;
    enum host_phase phase = only == NULL ? HOST_LOADING : host_phase(only->host);

    (void)now;
    send_states(answer);
    if (answer_is_draining(answer) ||
        (phase != HOST_LOADING && phase != HOST_DRAINING && phase != HOST_STOPPING)) {
        end_sse(answer, NULL);
    }
}

static void sse(struct answer *answer)
{
    const char *name = http_query(answer->exchange, "model");
    struct served *served = name == NULL ? NULL : state_served(answer);

    if (name != NULL && served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found", "no model \"%.200s\"", name);
        answer_failed(answer);
        return;
    }
    answer->status = 200;
    answer->data = served;
    http_answer_header(answer->exchange, "Cache-Control", "no-cache");
    http_stream_begin(answer->exchange, 200, "text/event-stream; charset=utf-8");
    answer->tick = tick_sse;
    answer->abort = end_sse;
    tick_sse(answer, clock_ns());
}

const struct endpoint endpoint_manage_sse = {.now = sse};

/* --- Faults --- */

/* A fault on its way to the host and back. */
struct fault_call {
    struct host_call call;
    struct answer *answer; /* NULL: its client has gone */
    struct fault_spec spec;
    enum status status;
    struct err err;
};

static void run_fault(struct host_call *call, struct supervisor *supervisor, struct batch *batch)
{
    struct fault_call *f = (struct fault_call *)call;

    (void)batch;
    f->status = supervisor == NULL ? err_set(&f->err, STATUS_NOT_FOUND, "the model is not loaded")
                                   : supervisor_inject(supervisor, &f->spec, &f->err);
}

static void fault_done(struct host_call *call)
{
    struct fault_call *f = (struct fault_call *)call;
    struct answer *answer = f->answer;
    struct buf text = {0};

    if (answer != NULL) {
        answer->data = NULL;
        if (f->status != STATUS_OK) {
            api_error_set(&answer->error, 400, "bad_fault", "%s", f->err.text);
            answer_failed(answer);
        } else {
            fault_format(&f->spec, &text);
            answer_value(answer, 200, json_pack("{s:s}", "fault", buf_str(&text)));
            buf_release(&text);
        }
    }
    free(f);
}

static void fault(struct answer *answer)
{
    const char *text = NULL;
    struct served *served = state_served(answer);
    struct fault_call *f;
    struct err err = {0};

    if (!field_text(answer->json, "fault", &text, &answer->error)) {
        answer_failed(answer);
        return;
    }
    f = xalloc(sizeof(*f));
    if (served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found", "no such model");
    } else if (text == NULL) {
        api_error_field(&answer->error, "fault", "is missing (for example \"kill:rank=1\")");
    } else if (fault_parse(text, &f->spec, &err) != STATUS_OK) {
        api_error_field(&answer->error, "fault", "%s", err.text);
    }
    if (answer->error.status != 0) {
        free(f);
        answer_failed(answer);
        return;
    }
    f->call.run = run_fault;
    f->call.done = fault_done;
    f->answer = answer;
    answer->data = f;
    host_call(served->host, &f->call);
}

static void fault_gone(struct answer *answer)
{
    struct fault_call *f = answer->data;

    if (f != NULL) {
        f->answer = NULL;
        answer->data = NULL;
    }
}

const struct endpoint endpoint_fault = {.now = fault, .gone = fault_gone};
