/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench recovery: kills a rank with SIGKILL while an answer runs, again and again, and
 * measures from the kill to its detection and to the answer's next token. The answer must be the
 * undisturbed one each time. First with KV pages kept, then with all positions computed again.
 */
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bench.h"
#include "cmd/cmd.h"
#include "cmd/service.h"
#include "cmd/stats.h"

enum {
    CONTEXT = 256, /* positions when the rank is killed */
    AFTER = 8,     /* tokens that the answer goes on for */
    ANSWER = 32 + AFTER,
    PROMPT = CONTEXT - 32,
};

enum figure { DETECTED, READY, NEXT_TOKEN, PREFILL_RATE, FIGURE_COUNT };

struct recovery {
    const struct options *options;
    struct service service;
    int32_t prompt[PROMPT];
    int32_t answer[ANSWER]; /* the undisturbed one */
    uint32_t n;             /* tokens of the present answer */
    uint32_t kill_at;       /* number of tokens after which a rank is killed; 0: none is */
    uint32_t victim;
    uint64_t start_ns; /* of the answer */
    uint64_t first_ns; /* of its first token */
    uint64_t killed_ns;
    uint64_t next_ns; /* of the first token after it */
    bool over;
    struct err err;
    double *values[FIGURE_COUNT]; /* [reps] milliseconds; tokens a second */
};

static bool take_token(void *arg, const struct batch_token *token)
{
    struct recovery *r = arg;
    uint64_t now = clock_ns();

    if (r->n == 0) {
        r->first_ns = now;
    }
    if (r->killed_ns != 0 && r->next_ns == 0) {
        r->next_ns = now;
    }
    if (r->kill_at == 0) {
        r->answer[r->n] = token->token;
    } else if (r->answer[r->n] != token->token) {
        err_set(&r->err, STATUS_BUG, "token %u is %d after the rebuild, and was %d before", r->n,
                token->token, r->answer[r->n]);
    }
    r->n++;
    if (r->n == r->kill_at) {
        r->killed_ns = clock_ns();
        kill(supervisor_pid(r->service.supervisor, r->victim), SIGKILL);
    }
    return true;
}

static void take_end(void *arg, enum batch_end end, enum status status, const char *why)
{
    struct recovery *r = arg;

    r->over = true;
    if (end == BATCH_FAILED) {
        err_set(&r->err, status, "%s", why);
    }
}

/* One answer; a rank is killed after kill_at of its tokens. */
static enum status run_answer(struct recovery *r, uint32_t kill_at, struct err *err)
{
    const struct batch_request request = {
        .params = {.top_p = 1.0f, .repetition_penalty = 1.0f},
        .prompt = r->prompt,
        .n_prompt = PROMPT,
        .max_generated = ANSWER,
        .token = take_token,
        .end = take_end,
        .arg = r,
    };
    uint64_t id;
    enum status status;

    r->n = 0;
    r->kill_at = kill_at;
    r->killed_ns = 0;
    r->next_ns = 0;
    r->over = false;
    r->start_ns = clock_ns();
    status = batch_add(r->service.batch, &request, &id, err);
    while (status == STATUS_OK && !r->over) {
        status = service_turn(&r->service, UINT64_MAX, err);
    }
    if (status == STATUS_OK && r->err.status != STATUS_OK) {
        *err = r->err;
        status = r->err.status;
    }
    return status;
}

static double ms_between(uint64_t from, uint64_t to)
{
    return to > from ? (double)(to - from) * 1e-6 : 0;
}

static enum status measure(struct recovery *r, uint32_t rep, struct err *err)
{
    enum status status;

    r->victim = rep % r->service.n_ranks;
    status = run_answer(r, ANSWER - AFTER, err);
    if (status == STATUS_OK) {
        r->values[DETECTED][rep] =
            ms_between(r->killed_ns, supervisor_fault_ns(r->service.supervisor));
        r->values[READY][rep] =
            ms_between(r->killed_ns, supervisor_ready_ns(r->service.supervisor));
        r->values[NEXT_TOKEN][rep] = ms_between(r->killed_ns, r->next_ns);
    }
    return status;
}

static void print_row(const char *what, double *values, size_t n)
{
    stats_sort(values, n);
    printf("  %-28s %9.2f %9.2f %9.2f  ms\n", what, values[n / 2], values[MIN(n * 99 / 100, n - 1)],
           values[n - 1]);
}

static json_t *row_json(double *values, size_t n)
{
    stats_sort(values, n);
    return json_pack("{s:f, s:f, s:f}", "p50_ms", values[n / 2], "p99_ms",
                     values[MIN(n * 99 / 100, n - 1)], "max_ms", values[n - 1]);
}

static json_t *report(struct recovery *r, bool kept, double prefill)
{
    size_t n = (size_t)r->options->reps;
    json_t *all;

    if (!r->options->json) {
        printf("%s, %zu kills, %u ranks, %d tokens of context\n",
               kept ? "KV pages kept" : "positions computed again", n, r->service.n_ranks, CONTEXT);
        printf("  %-28s %9s %9s %9s\n", "from kill -9 to", "p50", "p99", "max");
        print_row("its detection", r->values[DETECTED], n);
        print_row("the world being ready", r->values[READY], n);
        print_row("the next token", r->values[NEXT_TOKEN], n);
        printf("  (prefill of %d tokens without a fault: %.1f ms, %.0f tokens/s)\n", PROMPT,
               prefill, PROMPT / prefill * 1e3);
        return NULL;
    }
    all = json_pack("{s:b, s:I, s:i, s:i, s:f}", "kv_kept", kept, "kills", (json_int_t)n, "ranks",
                    (int)r->service.n_ranks, "context", (int)CONTEXT, "prefill_ms", prefill);
    json_object_set_new(all, "detected", row_json(r->values[DETECTED], n));
    json_object_set_new(all, "ready", row_json(r->values[READY], n));
    json_object_set_new(all, "next_token", row_json(r->values[NEXT_TOKEN], n));
    return all;
}

/* All repetitions on one world. */
static int run(const struct options *options, bool kept, json_t *reports)
{
    struct recovery r = {.options = options};
    struct options own = *options;
    const struct service_want want = {.max_context = CONTEXT + ANSWER, .n_slots = 1};
    struct err err = {0};
    int exit_status;
    enum status status;

    own.reprefill = !kept;
    status = service_open(&r.service, &own, &want, &err);
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        r.values[i] = xcalloc((size_t)options->reps, sizeof(double));
    }
    for (uint32_t i = 0; i < PROMPT && status == STATUS_OK; i++) {
        r.prompt[i] = (int32_t)((i * 7919ull + 13) % r.service.config.vocab);
    }
    if (status == STATUS_OK) {
        status = run_answer(&r, 0, &err);
    }
    if (status == STATUS_OK) {
        double prefill = ms_between(r.start_ns, r.first_ns);

        for (int64_t rep = 0; rep < options->reps && status == STATUS_OK; rep++) {
            status = measure(&r, (uint32_t)rep, &err);
        }
        if (status == STATUS_OK) {
            json_t *one = report(&r, kept, prefill);

            if (one != NULL) {
                json_array_append_new(reports, one);
            }
        }
    }
    exit_status = service_exit(&r.service, status, &err);
    service_close(&r.service);
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        free(r.values[i]);
    }
    return exit_status;
}

int bench_recovery(const struct options *options)
{
    json_t *reports = json_array();
    struct buf text = {0};
    int exit_status = run(options, true, reports);

    if (exit_status == CMD_OK) {
        exit_status = run(options, false, reports);
    }
    if (exit_status == CMD_OK && options->json) {
        json_write(&text, reports,
                   &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
        printf("%s\n", buf_str(&text));
    }
    buf_release(&text);
    json_decref(reports);
    return exit_status;
}
