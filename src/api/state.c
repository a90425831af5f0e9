/* SPDX-License-Identifier: Apache-2.0 */
/* What the server says of itself: health, world, models, version, discovery, metrics. */
#include "api/state.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/answer.h"
#include "base/clock.h"
#include "base/mem.h"

enum { STALL_MS = 30000 }; /* without a step, though there is work: no answer is to be hoped for */

struct served *state_served(const struct answer *answer)
{
    const struct api_config *config = answer_config(answer);
    const char *name = answer->exchange == NULL ? NULL : http_query(answer->exchange, "model");

    return name == NULL ? registry_at(config->registry, 0) : registry_find(config->registry, name);
}

/* False: answered with 404. */
static bool take_served(struct answer *answer, struct served **ret_served)
{
    *ret_served = state_served(answer);
    if (*ret_served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found",
                      "no model of that name is served here");
        answer_failed(answer);
        return false;
    }
    return true;
}

/* --- /health --- */

static uint64_t step_age_ms(const struct host_snapshot *s)
{
    uint64_t now = clock_ns();

    return s->last_step_ns == 0 || now < s->last_step_ns ? 0 : (now - s->last_step_ns) / 1000000;
}

/* The state of all models together: ready if each that was to be is. */
static const char *overall(const struct answer *answer, struct host_snapshot *ret_worst)
{
    struct registry *registry = answer_config(answer)->registry;
    const char *text = "ready";
    bool any = false;

    *ret_worst = (struct host_snapshot){0};
    for (uint32_t i = 0; i < registry_count(registry); i++) {
        struct served *served = registry_at(registry, i);
        struct host_snapshot s;

        host_snapshot(served->host, &s);
        if (s.phase == HOST_DOWN && !served->starts) {
            continue;
        }
        if (!any || s.phase != HOST_READY) {
            *ret_worst = s;
            text = host_phase_text(s.phase);
        }
        any = true;
        if (s.phase != HOST_READY) {
            break;
        }
    }
    if (answer_is_draining(answer)) {
        return "draining";
    }
    return any ? text : "down";
}

static void count_all(const struct answer *answer, uint32_t *ret_running, uint32_t *ret_waiting)
{
    struct registry *registry = answer_config(answer)->registry;

    *ret_running = 0;
    *ret_waiting = 0;
    for (uint32_t i = 0; i < registry_count(registry); i++) {
        struct host_snapshot s;

        host_snapshot(registry_at(registry, i)->host, &s);
        *ret_running += s.batch.running;
        *ret_waiting += s.batch.waiting;
    }
}

static void health(struct answer *answer)
{
    struct host_snapshot s;
    const char *state = overall(answer, &s);
    uint32_t running;
    uint32_t waiting;
    uint64_t age = step_age_ms(&s);
    bool ready = strcmp(state, "ready") == 0;
    json_t *body;

    count_all(answer, &running, &waiting);
    if (ready && running > 0 && age > STALL_MS) {
        state = "stalled";
        ready = false;
    }
    body =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "status", ready ? "ok" : "unavailable", "state",
                  state, "epoch", (json_int_t)s.epoch, "last_step_age_ms", (json_int_t)age,
                  "running", (json_int_t)running, "waiting", (json_int_t)waiting);
    if (!ready && s.why[0] != '\0') {
        json_object_set_new(body, "why", json_string(s.why));
    }
    if (!ready) {
        http_answer_header(answer->exchange, "Retry-After", "1");
    }
    answer_value(answer, ready ? 200 : 503, body);
}

const struct endpoint endpoint_health = {.now = health};

/* --- /world --- */

static json_t *fault_of(const struct host_snapshot *s)
{
    if (s->fault.kind == NULL) {
        return json_null();
    }
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:b}", "rank", (json_int_t)s->fault.rank, "kind",
                     s->fault.kind, "step", (json_int_t)s->fault.step, "layer",
                     (json_int_t)s->fault.layer, "collective", (json_int_t)s->fault.collective,
                     "injected", (int)s->fault.injected);
}

static const char *rank_state(const struct host_snapshot *s, uint32_t r)
{
    if (s->pids[r] == 0) {
        return "down";
    }
    return s->up[r] ? "ready" : "starting";
}

json_t *state_world(struct served *served)
{
    json_t *ranks = json_array();
    struct host_snapshot s;

    host_snapshot(served->host, &s);
    for (uint32_t r = 0; r < s.n_ranks; r++) {
        json_array_append_new(ranks, json_pack("{s:I, s:I, s:s}", "rank", (json_int_t)r, "pid",
                                               (json_int_t)s.pids[r], "state", rank_state(&s, r)));
    }
    return json_pack(
        "{s:s, s:I, s:s, s:I, s:I, s:s, s:o, s:o, s:{s:I, s:I, s:I, s:I, s:I}, s:I, s:I}", "model",
        served->names[0], "epoch", (json_int_t)s.epoch, "state", host_phase_text(s.phase),
        "rebuilds", (json_int_t)s.rebuilds, "tp", (json_int_t)s.n_ranks, "class", s.arithmetic,
        "last_fault", fault_of(&s), "ranks", ranks, "kv", "total", (json_int_t)s.batch.kv_total,
        "used", (json_int_t)s.batch.kv_used, "cached", (json_int_t)s.batch.kv_cached, "free",
        (json_int_t)s.batch.kv_free, "page_tokens", (json_int_t)64, "running",
        (json_int_t)s.batch.running, "waiting", (json_int_t)s.batch.waiting);
}

static void world(struct answer *answer)
{
    struct served *served;

    if (take_served(answer, &served)) {
        answer_value(answer, 200, state_world(served));
    }
}

const struct endpoint endpoint_world = {.now = world};

/* --- /v1/models --- */

static json_t *model_entry(const struct answer *answer, struct served *served, const char *name)
{
    struct registry *registry = answer_config(answer)->registry;
    struct served_text *text = served_take_text(registry, served);
    json_t *entry = json_pack("{s:s, s:s, s:I, s:s}", "id", name, "object", "model", "created",
                              (json_int_t)served->created, "owned_by", "lockstep");

    if (text != NULL) {
        json_object_set_new(entry, "max_model_len", json_integer((json_int_t)text->max_context));
        json_object_set_new(
            entry, "meta",
            json_pack("{s:I, s:I, s:I}", "n_ctx_train", (json_int_t)text->max_context, "n_vocab",
                      (json_int_t)text->vocab, "size", (json_int_t)text->file_bytes));
    }
    json_object_set_new(entry, "root", json_string(served->names[0]));
    served_text_unref(&text);
    return entry;
}

static void model_list(struct answer *answer)
{
    struct registry *registry = answer_config(answer)->registry;
    json_t *data = json_array();

    for (uint32_t i = 0; i < registry_count(registry); i++) {
        struct served *served = registry_at(registry, i);

        for (uint32_t j = 0; j < served->n_names; j++) {
            json_array_append_new(data, model_entry(answer, served, served->names[j]));
        }
    }
    answer_value(answer, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

const struct endpoint endpoint_model_list = {.now = model_list};

static void model_one(struct answer *answer)
{
    struct served *served = registry_find(answer_config(answer)->registry, answer->argument);

    if (served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found", "model \"%.200s\" is not served here",
                      answer->argument);
        snprintf(answer->error.param, sizeof(answer->error.param), "model");
        answer_failed(answer);
        return;
    }
    answer_value(answer, 200, model_entry(answer, served, answer->argument));
}

const struct endpoint endpoint_model_one = {.now = model_one};

/* --- /version, /discovery, /metrics --- */

static void version(struct answer *answer)
{
    answer_value(answer, 200, json_pack("{s:s}", "version", answer_config(answer)->version));
}

const struct endpoint endpoint_version = {.now = version};

static void discovery(struct answer *answer)
{
    const struct api_config *config = answer_config(answer);
    char name[256] = "";
    json_t *features =
        json_pack("[s, s, s, s, s]", "chat", "completions", "streaming", "tools", "logprobs");
    json_t *devices = json_array();
    struct served *served = registry_at(config->registry, 0);
    struct host_snapshot s = {.n_ranks = 0};

    gethostname(name, sizeof(name) - 1);
    if (served != NULL) {
        host_snapshot(served->host, &s);
    }
    for (uint32_t r = 0; r < s.n_ranks; r++) {
        json_array_append_new(devices,
                              json_pack("{s:I, s:s}", "rank", (json_int_t)r, "device", "cpu"));
    }
    if (config->allow_faults) {
        json_array_append_new(features, json_string("faults"));
    }
    answer_value(answer, 200,
                 json_pack("{s:s, s:s, s:I, s:I, s:o, s:o}", "host", name, "version",
                           config->version, "pid", (json_int_t)getpid(), "cpus",
                           (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "devices", devices,
                           "features", features));
}

const struct endpoint endpoint_discovery = {.now = discovery};

static void metrics(struct answer *answer)
{
    struct registry *registry = answer_config(answer)->registry;
    struct metrics *all[SERVED_MAX];
    uint32_t n = registry_count(registry);
    struct buf out = {0};

    for (uint32_t i = 0; i < n; i++) {
        all[i] = registry_at(registry, i)->metrics;
    }
    metrics_render(all, n, &out);
    answer->status = 200;
    http_answer(answer->exchange, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&out),
                out.len);
    buf_release(&out);
}

const struct endpoint endpoint_metrics = {.now = metrics};
