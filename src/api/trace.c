/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /trace?seconds=5: what every rank does in the next seconds, as Chrome's tracing and Perfetto
 * open it. The host records, a worker writes the text.
 *
 *   begin (host) ─▶ tick until it is time ─▶ end (host) ─▶ text (worker) ─▶ answer
 */
#include <stdlib.h>

#include "api/answer.h"
#include "api/state.h"
#include "base/clock.h"
#include "base/mem.h"

#define DEFAULT_SECONDS 5.0
#define MOST_SECONDS    60.0

/* A recording, on its way. */
struct recording {
    struct job job;        /* first */
    struct host_call call; /* begin, then end */
    struct answer *answer; /* NULL: its client has gone */
    struct served *served;
    double seconds;
    uint64_t until_ns;
    bool begun;
    bool ending;
    struct trace *trace;
    struct buf text;
    enum status status;
    struct err err;
};

static void destroy(struct recording *r)
{
    if (r->answer != NULL) {
        r->answer->data = NULL;
    }
    trace_destroy(&r->trace);
    buf_release(&r->text);
    free(r);
}

static struct recording *of_call(struct host_call *call)
{
    return (struct recording *)((char *)call - offsetof(struct recording, call));
}

/* --- The text --- */

static void write_text(struct job *job)
{
    struct recording *r = (struct recording *)job;

    trace_append_json(r->trace, r->served->names[0], &r->text);
}

static void deliver_text(struct mail *mail)
{
    struct recording *r = (struct recording *)mail;

    if (r->answer != NULL) {
        answer_json(r->answer, 200, &r->text);
    }
    destroy(r);
}

/* --- The end --- */

static void run_end(struct host_call *call, struct supervisor *supervisor, struct batch *batch)
{
    struct recording *r = of_call(call);

    (void)batch;
    r->trace = supervisor == NULL ? NULL : supervisor_trace_end(supervisor);
}

static void end_done(struct host_call *call)
{
    struct recording *r = of_call(call);

    if (r->answer != NULL && r->trace == NULL) {
        api_error_set(&r->answer->error, 503, "not_loaded", "the model was unloaded meanwhile");
        answer_failed(r->answer);
    }
    if (r->answer == NULL || r->trace == NULL) {
        destroy(r);
        return;
    }
    r->job = (struct job){
        .mail.deliver = deliver_text, .run = write_text, .done = answer_config(r->answer)->front};
    workers_give(answer_config(r->answer)->workers, &r->job);
}

static void end(struct recording *r)
{
    r->ending = true;
    r->call.run = run_end;
    r->call.done = end_done;
    host_call(r->served->host, &r->call);
}

static void tick(struct answer *answer, uint64_t now)
{
    struct recording *r = answer->data;

    if (r->begun && !r->ending && now >= r->until_ns) {
        answer->tick = NULL;
        end(r);
    }
}

/* --- The beginning --- */

static void run_begin(struct host_call *call, struct supervisor *supervisor, struct batch *batch)
{
    struct recording *r = of_call(call);

    (void)batch;
    r->status = supervisor == NULL ? err_set(&r->err, STATUS_NOT_FOUND, "the model is not loaded")
                                   : supervisor_trace_begin(supervisor, &r->err);
}

static void begin_done(struct host_call *call)
{
    struct recording *r = of_call(call);

    if (r->status != STATUS_OK) {
        if (r->answer != NULL) {
            api_error_set(&r->answer->error, r->status == STATUS_PENDING ? 409 : 503, NULL, "%s",
                          r->err.text);
            answer_failed(r->answer);
        }
        destroy(r);
        return;
    }
    r->begun = true;
    r->until_ns = clock_ns() + (uint64_t)(r->seconds * 1e9);
    if (r->answer == NULL) {
        end(r);
        return;
    }
    r->answer->tick = tick;
}

static bool parse_seconds(struct answer *answer, double *ret_seconds)
{
    const char *text = http_query(answer->exchange, "seconds");
    char *rest = NULL;

    *ret_seconds = text == NULL ? DEFAULT_SECONDS : strtod(text, &rest);
    if (text != NULL &&
        (rest == text || *rest != '\0' || !(*ret_seconds > 0) || *ret_seconds > MOST_SECONDS)) {
        return api_error_field(&answer->error, "seconds", "must be a number, at most %g",
                               MOST_SECONDS);
    }
    return true;
}

static void trace(struct answer *answer)
{
    struct served *served = state_served(answer);
    struct recording *r;
    double seconds;

    if (served == NULL) {
        api_error_set(&answer->error, 404, "model_not_found", "no model of that name is served");
    }
    if (served == NULL || !parse_seconds(answer, &seconds)) {
        answer_failed(answer);
        return;
    }
    r = xalloc(sizeof(*r));
    r->answer = answer;
    r->served = served;
    r->seconds = seconds;
    r->call.run = run_begin;
    r->call.done = begin_done;
    answer->data = r;
    host_call(served->host, &r->call);
}

static void gone(struct answer *answer)
{
    struct recording *r = answer->data;

    if (r != NULL) {
        r->answer = NULL;
        answer->data = NULL;
        if (r->begun && !r->ending) {
            end(r);
        }
    }
}

const struct endpoint endpoint_trace = {.now = trace, .gone = gone};
