/* SPDX-License-Identifier: Apache-2.0 */
/* Requests come and go. */
#include "world/batch.h"

#include <stdlib.h>

#include "base/mem.h"
#include "world/batch_priv.h"

/* --- Life --- */

static void make_space(struct batch *b)
{
    const struct batch_config *config = &b->config;
    struct batch_space *space = &b->space;
    uint32_t n = config->n_slots;

    space->picked = xcalloc(n, sizeof(*space->picked));
    space->tokens = xcalloc(config->max_rows, sizeof(*space->tokens));
    space->refs = xcalloc(n, sizeof(*space->refs));
    space->segments = xcalloc(n, sizeof(*space->segments));
    space->wants = xcalloc((size_t)n + config->max_score_rows, sizeof(*space->wants));
    space->params = xcalloc(n, sizeof(*space->params));
    space->parts = xcalloc(n, sizeof(*space->parts));
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        b->steps[i].parts = xcalloc(n, sizeof(*b->steps[i].parts));
    }
}

struct batch *batch_create(const struct batch_config *config)
{
    struct batch *b = xalloc(sizeof(*b));

    ENSURE(config->n_slots > 0 && config->n_slots <= PLAN_MAX_SLOTS && config->max_rows > 0);
    b->config = *config;
    journal_init(&b->journal, config->journal_bytes);
    b->sched = sched_create(&(struct sched_config){
        .max_running = config->n_slots,
        .max_queue = config->max_queue,
        .max_rows = config->max_rows,
        .max_score_rows = config->max_score_rows,
        .max_context = config->max_context,
        .n_pages = config->n_pages,
        .page_tokens = config->page_tokens,
    });
    make_space(b);
    return b;
}

void batch_destroy(struct batch **batch)
{
    struct batch *b = *batch;

    if (b == NULL) {
        return;
    }
    while (b->runs != NULL) {
        struct batch_run *run = b->runs;

        b->runs = run->next;
        free(run);
    }
    sched_destroy(&b->sched);
    journal_release(&b->journal);
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        free(b->steps[i].parts);
    }
    free(b->space.picked);
    free(b->space.tokens);
    free(b->space.refs);
    free(b->space.segments);
    free(b->space.wants);
    free(b->space.params);
    free(b->space.parts);
    free(b->space.pages);
    free(b->space.bias);
    free(b->space.history);
    free(b);
    *batch = NULL;
}

void batch_attach(struct batch *batch, struct supervisor *supervisor)
{
    batch->supervisor = supervisor;
}

/* --- What there is --- */

uint32_t batch_running(const struct batch *batch)
{
    return sched_counts(batch->sched).running;
}

uint32_t batch_waiting(const struct batch *batch)
{
    return sched_counts(batch->sched).waiting;
}

void batch_stats(const struct batch *batch, struct batch_stats *ret_stats)
{
    const struct sched_counts counts = sched_counts(batch->sched);

    *ret_stats = batch->stats;
    ret_stats->running = counts.running;
    ret_stats->waiting = counts.waiting;
    ret_stats->kv_total = counts.kv.total;
    ret_stats->kv_used = counts.kv.used;
    ret_stats->kv_cached = counts.kv.cached;
    ret_stats->kv_free = counts.kv.free;
    ret_stats->preemptions = counts.preemptions;
    ret_stats->prefix_queries = counts.prefix_queries;
    ret_stats->prefix_hits = counts.prefix_hits;
}

bool batch_has_work(const struct batch *batch)
{
    return batch->runs != NULL;
}

bool batch_idle(const struct batch *batch)
{
    return batch->n_steps == 0;
}

void batch_pause(struct batch *batch, bool paused)
{
    batch->paused = paused;
}

/* The journal keeps bytes, at no particular alignment. */
struct plan_params batch_params(const struct batch_run *run)
{
    struct plan_params params;

    memcpy(&params, run->entry->params, sizeof(params));
    return params;
}

const uint8_t *batch_bias(const struct batch_run *run)
{
    return run->entry->params + sizeof(struct plan_params);
}

/* --- Adding --- */

static enum status check(const struct batch *b, const struct batch_request *request,
                         struct err *err)
{
    for (uint32_t i = 0; i < request->n_prompt; i++) {
        if (request->prompt[i] < 0 || (uint32_t)request->prompt[i] >= b->config.vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           request->prompt[i], b->config.vocab);
        }
    }
    if (MAX(request->n_top, request->n_prompt_top) > b->config.max_top) {
        return err_set(err, STATUS_INVALID,
                       "%u likeliest tokens were asked for, at most %u are kept",
                       MAX(request->n_top, request->n_prompt_top), b->config.max_top);
    }
    return STATUS_OK;
}

/* What is asked for, or, if that is more than the context holds, all that context and pages do; the
 * last token needs no place in either. */
static uint32_t cut_to_room(const struct batch *b, const struct batch_request *request)
{
    uint64_t pages = (uint64_t)b->config.n_pages * b->config.page_tokens;
    uint64_t places = b->config.max_context;

    if (request->n_prompt >= places || request->max_generated <= places + 1 - request->n_prompt) {
        return request->max_generated;
    }
    places = MIN(places, MAX(pages, (uint64_t)request->n_prompt));
    return (uint32_t)(places + 1 - request->n_prompt);
}

/* Writes the request into the journal; its parameters and biases as one run of bytes. */
static enum status write_journal(struct batch *b, const struct batch_request *request,
                                 uint32_t max_generated, struct journal_entry **ret_entry,
                                 struct err *err)
{
    size_t bias_bytes = request->params.n_bias * sizeof(struct plan_bias);
    size_t bytes = sizeof(struct plan_params) + bias_bytes;
    uint8_t *params = xalloc(bytes);
    enum status status;

    memcpy(params, &request->params, sizeof(request->params));
    if (bias_bytes > 0) {
        memcpy(params + sizeof(request->params), request->bias, bias_bytes);
    }
    status = journal_add(&b->journal,
                         &(struct journal_request){
                             .request = b->last_id + 1,
                             .seed = request->params.seed,
                             .prompt_index = request->params.prompt_index,
                             .choice = request->params.choice,
                             .params = params,
                             .params_bytes = bytes,
                             .prompt = request->prompt,
                             .n_prompt = request->n_prompt,
                             .max_generated = max_generated,
                         },
                         ret_entry, err);
    free(params);
    return status;
}

static void append(struct batch *b, struct batch_run *run)
{
    run->prev = b->last;
    *(b->last == NULL ? &b->runs : &b->last->next) = run;
    b->last = run;
}

enum status batch_add(struct batch *batch, const struct batch_request *request, uint64_t *ret_id,
                      struct err *err)
{
    struct batch *b = batch;
    uint32_t max_generated = cut_to_room(b, request);
    struct batch_run *run = NULL;
    struct sched_seq *seq;
    enum status status = check(b, request, err);

    if (status != STATUS_OK) {
        return status;
    }
    run = xalloc(sizeof(*run));
    status = sched_add(b->sched,
                       &(struct sched_request){
                           .tenant = request->tenant,
                           .priority = request->priority,
                           .salt = request->salt,
                           .tokens = request->prompt,
                           .n_prompt = request->n_prompt,
                           .max_generated = max_generated,
                           .score = request->prompt_logprobs,
                           .owner = run,
                       },
                       &seq, err);
    if (status != STATUS_OK) {
        free(run);
        return status;
    }
    status = write_journal(b, request, max_generated, &run->entry, err);
    if (status != STATUS_OK) {
        sched_remove(b->sched, &seq);
        free(run);
        return status;
    }
    run->request = *request;
    run->request.prompt = NULL;
    run->request.bias = NULL;
    run->seq = seq;
    sched_know(b->sched, seq, run->entry->tokens, request->n_prompt);
    append(b, run);
    *ret_id = ++b->last_id;
    return STATUS_OK;
}

/* --- Ending --- */

void batch_release_if_over(struct batch *b, struct batch_run *run)
{
    if (!run->ended || run->n_steps > 0) {
        return;
    }
    *(run->prev == NULL ? &b->runs : &run->prev->next) = run->next;
    *(run->next == NULL ? &b->last : &run->next->prev) = run->prev;
    supervisor_request_ended(b->supervisor, run->entry->request);
    journal_remove(&b->journal, &run->entry);
    free(run);
}

void batch_end(struct batch *b, struct batch_run *run, enum batch_end how, enum status status,
               const char *why)
{
    if (!run->ended) {
        run->ended = true;
        sched_remove(b->sched, &run->seq);
        run->request.end(run->request.arg, how, status, why);
    }
}

static struct batch_run *find_run(struct batch *b, uint64_t id)
{
    for (struct batch_run *run = b->runs; run != NULL; run = run->next) {
        if (run->entry->request == id) {
            return run;
        }
    }
    return NULL;
}

void batch_cancel(struct batch *batch, uint64_t id)
{
    struct batch_run *run = find_run(batch, id);

    if (run != NULL) {
        batch_end(batch, run, BATCH_CANCELLED, STATUS_CANCELLED, "cancelled");
        run = find_run(batch, id); /* its callback may have cancelled it once more */
    }
    if (run != NULL) {
        batch_release_if_over(batch, run);
    }
}

void batch_turn(struct batch *batch, uint64_t deadline_ns, struct pollfd *extra, uint32_t n_extra)
{
    while (batch_issue(batch)) {
    }
    supervisor_turn(batch->supervisor, deadline_ns, extra, n_extra);
}
