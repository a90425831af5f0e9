/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor says: steps are committed or void, requests fail, memory is short. */
#include <stdio.h>

#include "base/mem.h"
#include "world/batch_priv.h"

/* The tokens of a committed step, in the order of its plan's wants, as its parts take them. */
struct answers {
    const struct step_result *result;
    uint32_t n_tokens; /* taken */
    uint32_t n_tops;
};

static const struct result_token *take(struct answers *answers, struct batch_token *ret_token)
{
    const struct result_token *token = &answers->result->tokens[answers->n_tokens++];

    ENSURE_OP(answers->n_tokens, <=, answers->result->n_tokens);
    *ret_token = (struct batch_token){
        .token = token->token,
        .logprob = token->logprob,
        .tops = token->n_top > 0 ? answers->result->tops + answers->n_tops : NULL,
        .n_tops = token->n_top,
    };
    answers->n_tops += token->n_top;
    ENSURE_OP(answers->n_tops, <=, answers->result->n_tops);
    return token;
}

static void end_not_a_number(struct batch *b, struct batch_run *run,
                             const struct result_token *token, uint32_t position)
{
    char why[128];

    snprintf(why, sizeof(why), "layer %d gave a result that is not a number (at position %u)",
             (int)token->nan_layer, position);
    batch_end(b, run, BATCH_FAILED, STATUS_NUMERIC, why);
}

/* The scores of rows of a prompt; false: the request has ended. */
static bool hand_out_scores(struct batch *b, const struct batch_part *part, struct answers answers)
{
    struct batch_run *run = part->run;

    for (uint32_t i = 0; i < part->sched.n_score && !run->ended; i++) {
        uint32_t position = part->sched.score_begin + i;
        struct batch_token token;
        const struct result_token *result = take(&answers, &token);

        if ((result->flags & RESULT_NAN) != 0) {
            end_not_a_number(b, run, result, position);
        } else if (run->request.prompt_token != NULL) {
            token.token = run->entry->tokens[position + 1];
            run->request.prompt_token(run->request.arg, position + 1, &token);
        }
    }
    return !run->ended;
}

static void hand_out_token(struct batch *b, struct batch_run *run, const struct batch_token *token)
{
    b->stats.generated_tokens++;
    b->stats.prompt_tokens += run->entry->n_generated == 1 ? run->entry->n_prompt : 0;
    if (!run->request.token(run->request.arg, token)) {
        batch_end(b, run, BATCH_STOP, STATUS_OK, NULL);
    } else if (!run->ended && run->entry->n_generated == run->entry->max_generated) {
        batch_end(b, run, BATCH_LENGTH, STATUS_OK, NULL);
    }
}

/* What a committed step did for one request, which has not ended or lost its pages since. */
static void commit_part(struct batch *b, const struct batch_part *part, uint64_t step,
                        const struct answers *scores, const struct batch_token *sampled)
{
    struct batch_run *run = part->run;
    const struct journal_commit commit = {
        .step = step,
        .n_positions = part->sched.n,
        .tokens = sampled != NULL ? &sampled->token : NULL,
        .n_tokens = sampled != NULL,
    };

    if (journal_commit(&b->journal, run->entry, &commit) != STATUS_OK) {
        batch_end(b, run, BATCH_FAILED, STATUS_BUG,
                  "a step was committed that does not fit the journal");
        return;
    }
    sched_know(b->sched, run->seq, run->entry->tokens, journal_n_known(run->entry));
    sched_commit(b->sched, &part->sched);
    if (hand_out_scores(b, part, *scores) && sampled != NULL) {
        hand_out_token(b, run, sampled);
    }
}

static void take_part(struct batch *b, const struct batch_part *part, uint64_t step,
                      struct answers *answers)
{
    const struct answers scores = *answers;
    const struct result_token *nan = NULL;
    struct batch_token token = {0};

    for (uint32_t i = 0; i < part->sched.n_score; i++) {
        (void)take(answers, &token);
    }
    if (part->sched.want) {
        const struct result_token *result = take(answers, &token);

        nan = (result->flags & RESULT_NAN) != 0 ? result : NULL;
    }
    if (part->run->ended || !sched_is_current(&part->sched, part->run->seq)) {
        return; /* it will be sampled again, and be the same */
    }
    if (nan != NULL) {
        end_not_a_number(b, part->run, nan, part->sched.begin + part->sched.n - 1);
        return;
    }
    commit_part(b, part, step, &scores, part->sched.want ? &token : NULL);
}

static void on_commit(void *arg, const struct step_result *result)
{
    struct batch *b = arg;
    struct batch_step done = b->steps[0];
    struct answers answers = {.result = result};

    ENSURE(b->n_steps > 0 && done.number == result->step);
    for (uint32_t i = 1; i < FLIGHT_MAX_STEPS; i++) {
        b->steps[i - 1] = b->steps[i];
    }
    b->steps[FLIGHT_MAX_STEPS - 1] = (struct batch_step){.parts = done.parts};
    b->n_steps--;
    b->stats.steps++;
    b->stats.step_rows += done.n_rows;
    for (uint32_t i = 0; i < done.n_parts; i++) {
        take_part(b, &done.parts[i], done.number, &answers);
    }
    for (uint32_t i = 0; i < done.n_parts; i++) { /* not before: callbacks may cancel any of them */
        struct batch_run *run = done.parts[i].run;

        run->n_steps--;
        if (run->seq != NULL) {
            run->seq->alone = supervisor_is_alone(b->supervisor, run->entry->request);
        }
        batch_release_if_over(b, run);
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

/* The steps in flight are void. */
static void drop_steps(struct batch *b)
{
    struct batch_run *next;

    b->n_steps = 0;
    for (struct batch_run *run = b->runs; run != NULL; run = next) {
        next = run->next;
        run->n_steps = 0;
        run->sent = (struct batch_sent){0};
        batch_release_if_over(b, run);
    }
}

static void on_resume(void *arg, bool keep_kv, const uint64_t *alone, size_t n_alone)
{
    struct batch *b = arg;

    drop_steps(b);
    if (keep_kv) {
        sched_void(b->sched);
    } else {
        journal_rewind(&b->journal);
        sched_reset(b->sched);
    }
    for (struct batch_run *run = b->runs; run != NULL; run = run->next) {
        run->seq->alone = is_listed(alone, n_alone, run->entry->request);
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

    while ((run = next_failing(b, last, all ? NULL : ids, n_ids)) != NULL) {
        batch_end(b, run, BATCH_FAILED, STATUS_LINK, supervisor_why(b->supervisor));
    }
    drop_steps(b);
    sched_void(b->sched);
}

/* What is only cached goes, and the memory of all pages that nobody uses with it. */
static void on_drop_cache(void *arg)
{
    struct batch *b = arg;

    sched_drop_cached(b->sched);
    for (uint32_t i = 0; i < b->config.n_pages; i++) {
        if (kvmap_is_free(sched_kvmap(b->sched), i)) {
            supervisor_drop_page(b->supervisor, i);
        }
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
