/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: added with slot and pages, fed by committed steps, ended, parked. */
#include "world/batch.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "world/batch_priv.h"

/* --- Life --- */

struct batch *batch_create(const struct batch_config *config)
{
    struct batch *b = xalloc(sizeof(*b));
    uint32_t n = config->n_slots;

    ENSURE(n > 0 && n <= PLAN_MAX_SLOTS && config->max_rows > 0);
    b->config = *config;
    journal_init(&b->journal, config->journal_bytes);
    b->slots = xcalloc(n, sizeof(*b->slots));
    b->free_pages = xcalloc(config->n_pages, sizeof(*b->free_pages));
    for (uint32_t i = 0; i < config->n_pages; i++) {
        b->free_pages[i] = config->n_pages - 1 - i;
    }
    b->n_free = config->n_pages;
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        b->steps[i].parts = xcalloc(n, sizeof(*b->steps[i].parts));
    }
    b->space.tokens = xcalloc(config->max_rows, sizeof(*b->space.tokens));
    b->space.refs = xcalloc(n, sizeof(*b->space.refs));
    b->space.segments = xcalloc(n, sizeof(*b->space.segments));
    b->space.wants = xcalloc(n, sizeof(*b->space.wants));
    b->space.params = xcalloc(n, sizeof(*b->space.params));
    b->space.parts = xcalloc(n, sizeof(*b->space.parts));
    b->space.pages = xcalloc(config->n_pages, sizeof(*b->space.pages));
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
    journal_release(&b->journal);
    for (uint32_t i = 0; i < b->config.n_slots; i++) {
        free(b->slots[i].pages);
        free(b->slots[i].tokens);
    }
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        free(b->steps[i].parts);
    }
    free(b->slots);
    free(b->free_pages);
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

uint32_t batch_running(const struct batch *batch)
{
    uint32_t n = 0;

    for (const struct batch_run *run = batch->runs; run != NULL; run = run->next) {
        n += !run->ended;
    }
    return n;
}

uint32_t batch_waiting(const struct batch *batch)
{
    return batch->n_waiting;
}

void batch_stats(const struct batch *batch, struct batch_stats *ret_stats)
{
    *ret_stats = (struct batch_stats){
        .running = batch_running(batch),
        .kv_total = batch->config.n_pages,
        .kv_used = batch->config.n_pages - batch->n_free,
        .kv_free = batch->n_free,
    };
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

/* --- Slots and pages --- */

static void forget_parked(struct batch *b, struct batch_slot *slot)
{
    for (uint32_t i = 0; i < slot->n_pages; i++) {
        b->free_pages[b->n_free++] = slot->pages[i];
    }
    free(slot->pages);
    free(slot->tokens);
    *slot = (struct batch_slot){0};
}

static struct batch_slot *oldest_parked(struct batch *b, const struct batch_slot *but)
{
    struct batch_slot *oldest = NULL;

    for (uint32_t i = 0; i < b->config.n_slots; i++) {
        struct batch_slot *slot = &b->slots[i];

        if (slot != but && slot->parked_at != 0 &&
            (oldest == NULL || slot->parked_at < oldest->parked_at)) {
            oldest = slot;
        }
    }
    return oldest;
}

/* Tokens at the beginning of the prompt that a parked slot holds; its last one must be computed. */
static uint32_t common_prefix(const struct batch_slot *slot, const struct batch_request *request)
{
    uint32_t limit = MIN(slot->n_tokens, request->n_prompt - 1);
    uint32_t n = 0;

    while (n < limit && slot->tokens[n] == request->prompt[n]) {
        n++;
    }
    return n;
}

/* The slot that has most of the prompt, else an empty one, else the one parked longest. NULL: all
 * run. */
static struct batch_slot *choose_slot(struct batch *b, const struct batch_request *request,
                                      uint32_t *ret_cached)
{
    struct batch_slot *best = NULL;
    struct batch_slot *empty = NULL;

    *ret_cached = 0;
    for (uint32_t i = 0; i < b->config.n_slots; i++) {
        struct batch_slot *slot = &b->slots[i];

        if (slot->parked_at != 0 && common_prefix(slot, request) > *ret_cached) {
            *ret_cached = common_prefix(slot, request);
            best = slot;
        }
        empty = slot->running || slot->parked_at != 0 ? empty : slot;
    }
    if (best != NULL || empty != NULL) {
        return best != NULL ? best : empty;
    }
    best = oldest_parked(b, NULL);
    if (best != NULL) {
        forget_parked(b, best);
    }
    return best;
}

/* Makes the slot's pages exactly n, at the cost of what is parked elsewhere. */
static bool size_pages(struct batch *b, struct batch_slot *slot, uint32_t n)
{
    while (slot->n_pages > n) {
        b->free_pages[b->n_free++] = slot->pages[--slot->n_pages];
    }
    while (b->n_free < n - slot->n_pages) {
        struct batch_slot *victim = oldest_parked(b, slot);

        if (victim == NULL) {
            return false;
        }
        forget_parked(b, victim);
    }
    slot->pages = xrealloc(slot->pages, MAX(n, 1u), sizeof(*slot->pages));
    while (slot->n_pages < n) {
        slot->pages[slot->n_pages++] = b->free_pages[--b->n_free];
    }
    return true;
}

/* --- Adding --- */

static enum status check_fit(const struct batch *b, const struct batch_request *request,
                             struct err *err)
{
    for (uint32_t i = 0; i < request->n_prompt; i++) {
        if (request->prompt[i] < 0 || (uint32_t)request->prompt[i] >= b->config.vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           request->prompt[i], b->config.vocab);
        }
    }
    if (request->n_prompt == 0 || request->max_generated == 0) {
        return err_set(err, STATUS_INVALID, "a request needs a prompt and tokens to generate");
    }
    if (request->n_prompt > b->config.max_context) {
        return err_set(err, STATUS_LIMIT, "%u tokens do not fit the context of %u",
                       request->n_prompt, b->config.max_context);
    }
    return STATUS_OK;
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

enum status batch_add(struct batch *batch, const struct batch_request *request, uint64_t *ret_id,
                      struct err *err)
{
    struct batch *b = batch;
    uint32_t room = b->config.max_context + 1 - MIN(request->n_prompt, b->config.max_context);
    uint32_t max_generated = MIN(request->max_generated, room);
    struct journal_entry *entry;
    struct batch_slot *slot;
    struct batch_run *run;
    struct batch_run **last = &b->runs;
    uint32_t cached;
    enum status status = check_fit(b, request, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = write_journal(b, request, max_generated, &entry, err);
    if (status != STATUS_OK) {
        return status;
    }
    slot = choose_slot(b, request, &cached);
    if (slot == NULL) {
        journal_remove(&b->journal, &entry);
        return err_set(err, STATUS_LIMIT, "%u requests run already", b->config.n_slots);
    }
    if (!size_pages(
            b, slot,
            (uint32_t)div_up(request->n_prompt + max_generated - 1, b->config.page_tokens))) {
        journal_remove(&b->journal, &entry);
        return err_set(err, STATUS_LIMIT, "no KV pages are free for %u + %u tokens",
                       request->n_prompt, max_generated);
    }
    journal_reuse(entry, cached);
    run = xalloc(sizeof(*run));
    run->request = *request;
    run->entry = entry;
    run->slot = (uint32_t)(slot - b->slots);
    run->sent.positions = cached;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = run;
    slot->running = true;
    slot->parked_at = 0;
    free(slot->tokens);
    slot->tokens = NULL;
    slot->n_tokens = 0;
    *ret_id = ++b->last_id;
    if (request->started != NULL) {
        request->started(request->arg, cached);
    }
    return STATUS_OK;
}

/* --- Ending --- */

/* Keeps what the slot's pages hold for a later prompt. */
static void park(struct batch *b, struct batch_run *run)
{
    struct batch_slot *slot = &b->slots[run->slot];
    uint32_t n = run->entry->positions;

    slot->running = false;
    if (n == 0) {
        forget_parked(b, slot);
        return;
    }
    slot->tokens = xcalloc(n, sizeof(*slot->tokens));
    slot->n_tokens = n;
    slot->parked_at = ++b->n_parked;
    journal_copy_tokens(run->entry, 0, n, slot->tokens);
}

/* Removes a run that has ended and whose steps are over. */
static void release_if_over(struct batch *b, struct batch_run *run)
{
    struct batch_run **link = &b->runs;

    if (!run->ended || run->n_steps > 0) {
        return;
    }
    while (*link != run) {
        link = &(*link)->next;
    }
    *link = run->next;
    park(b, run);
    supervisor_request_ended(b->supervisor, run->entry->request);
    journal_remove(&b->journal, &run->entry);
    free(run);
}

static void end(struct batch_run *run, enum batch_end how, enum status status, const char *why)
{
    if (!run->ended) {
        run->ended = true;
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
        end(run, BATCH_CANCELLED, STATUS_CANCELLED, "cancelled");
        run = find_run(batch, id); /* its callback may have cancelled it once more */
    }
    if (run != NULL) {
        release_if_over(batch, run);
    }
}

/* --- What the supervisor says --- */

static void end_not_a_number(struct batch_run *run, const struct result_token *token,
                             uint32_t position)
{
    char why[128];

    snprintf(why, sizeof(why), "layer %d gave a result that is not a number (at position %u)",
             (int)token->nan_layer, position);
    end(run, BATCH_FAILED, STATUS_NUMERIC, why);
}

/* What a committed step did for one request. */
static void commit_part(struct batch *b, const struct batch_part *part, uint64_t step,
                        const struct result_token *token)
{
    struct batch_run *run = part->run;
    bool sampled = token != NULL && (token->flags & RESULT_NAN) == 0;

    run->sent.sampling -= part->want;
    if (run->ended) {
        return;
    }
    if (journal_commit(&b->journal, run->entry,
                       &(struct journal_commit){.step = step,
                                                .n_positions = part->n,
                                                .tokens = sampled ? &token->token : NULL,
                                                .n_tokens = sampled}) != STATUS_OK) {
        end(run, BATCH_FAILED, STATUS_BUG, "a step was committed that does not fit the journal");
        return;
    }
    if (token != NULL && !sampled) {
        end_not_a_number(run, token, run->entry->positions - 1);
    } else if (sampled && !run->request.token(run->request.arg, &(struct batch_token){.token = token->token})) {
        end(run, BATCH_STOP, STATUS_OK, NULL);
    } else if (sampled && run->entry->n_generated == run->entry->max_generated) {
        end(run, BATCH_LENGTH, STATUS_OK, NULL);
    }
}

static void on_commit(void *arg, const struct step_result *result)
{
    struct batch *b = arg;
    struct batch_step done = b->steps[0];
    uint32_t n_tokens = 0;

    ENSURE(b->n_steps > 0 && done.number == result->step);
    for (uint32_t i = 1; i < FLIGHT_MAX_STEPS; i++) {
        b->steps[i - 1] = b->steps[i];
    }
    b->steps[FLIGHT_MAX_STEPS - 1] = (struct batch_step){.parts = done.parts};
    b->n_steps--;
    for (uint32_t i = 0; i < done.n_parts; i++) {
        const struct result_token *token = NULL;

        if (done.parts[i].want) {
            ENSURE_OP(n_tokens, <, result->n_tokens);
            token = &result->tokens[n_tokens++];
        }
        commit_part(b, &done.parts[i], done.number, token);
    }
    for (uint32_t i = 0; i < done.n_parts; i++) { /* not before: callbacks may cancel any of them */
        done.parts[i].run->n_steps--;
        done.parts[i].run->alone =
            supervisor_is_alone(b->supervisor, done.parts[i].run->entry->request);
        release_if_over(b, done.parts[i].run);
    }
    while (batch_issue(b)) {
    }
}

static bool is_listed(const uint64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void on_resume(void *arg, bool keep_kv, const uint64_t *alone, size_t n_alone)
{
    struct batch *b = arg;
    struct batch_run *next;

    b->n_steps = 0;
    if (!keep_kv) {
        journal_rewind(&b->journal);
        for (uint32_t i = 0; i < b->config.n_slots; i++) {
            if (b->slots[i].parked_at != 0) {
                forget_parked(b, &b->slots[i]);
            }
        }
    }
    for (struct batch_run *run = b->runs; run != NULL; run = next) {
        next = run->next;
        run->n_steps = 0;
        run->sent = (struct batch_sent){.positions = run->entry->positions};
        run->alone = is_listed(alone, n_alone, run->entry->request);
        release_if_over(b, run);
    }
    while (batch_issue(b)) {
    }
}

/* The first run up to this request that is to fail and has not ended. */
static struct batch_run *next_failing(struct batch *b, uint64_t last, const uint64_t *ids,
                                      size_t n_ids)
{
    struct batch_run *run = b->runs;

    while (run != NULL && (run->ended || run->entry->request > last ||
                           (ids != NULL && !is_listed(ids, n_ids, run->entry->request)))) {
        run = run->next;
    }
    return run;
}

static void on_fail(void *arg, bool all, const uint64_t *ids, size_t n_ids)
{
    struct batch *b = arg;
    uint64_t last = b->last_id; /* callbacks may add others, and cancel any */
    struct batch_run *run;
    struct batch_run *next;

    while ((run = next_failing(b, last, all ? NULL : ids, n_ids)) != NULL) {
        end(run, BATCH_FAILED, STATUS_LINK, supervisor_why(b->supervisor));
    }
    b->n_steps = 0; /* the steps in flight are void */
    for (run = b->runs; run != NULL; run = next) {
        next = run->next;
        run->n_steps = 0;
        release_if_over(b, run);
    }
}

/* What is parked goes, and the memory of all pages that nobody uses with it. */
static void on_drop_cache(void *arg)
{
    struct batch *b = arg;

    for (uint32_t i = 0; i < b->config.n_slots; i++) {
        if (b->slots[i].parked_at != 0) {
            forget_parked(b, &b->slots[i]);
        }
    }
    for (uint32_t i = 0; i < b->n_free; i++) {
        supervisor_drop_page(b->supervisor, b->free_pages[i]);
    }
}

void batch_handle(struct batch *batch, struct supervisor_handlers *handlers)
{
    handlers->arg = batch;
    handlers->commit = on_commit;
    handlers->resume = on_resume;
    handlers->fail = on_fail;
    handlers->drop_cache = on_drop_cache;
}

void batch_turn(struct batch *batch, uint64_t deadline_ns, struct pollfd *extra, uint32_t n_extra)
{
    while (batch_issue(batch)) {
    }
    supervisor_turn(batch->supervisor, deadline_ns, extra, n_extra);
}
