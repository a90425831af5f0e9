/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log-probabilities of drawn and of given tokens, among ranks that each have their own rows of the
 * logits: the bits of sampler_logprobs on the whole vocabulary, which are compared with a softmax
 * in long double. The tokens drawn are those that come without.
 */
#include "engine/draw_plan.h"

enum { N_SCORES = 3, N_WANTS = N_SLOTS * (1 + N_SCORES), MAX_TOP = 20 };

static const uint32_t n_tops[] = {0, 1, 5, MAX_TOP, 3, 0, 20};

/* A call's wants with what they point to. */
struct call {
    struct draw_want wants[N_WANTS];
    uint32_t tables[N_WANTS]; /* the step of table_of */
    struct sample_logprob tops[N_WANTS][MAX_TOP];
    float *logits; /* [N_WANTS][rows] */
};

/* For each slot some scores and, among them, a token to be drawn. */
static void make_call(struct call *call, const struct plan *plan, const struct rows *rows)
{
    uint64_t random = 5;

    for (uint32_t i = 0; i < N_WANTS; i++) {
        uint32_t slot = i / (1 + N_SCORES);
        bool score = i % (1 + N_SCORES) != slot % (1 + N_SCORES);
        uint32_t step = score ? i % 2 * 3 : 0;
        float *logits = call->logits + (size_t)i * rows->n;

        memcpy(logits, table_of(plan, slot, step) + rows->begin, rows->n * sizeof(*logits));
        call->tables[i] = step;
        call->wants[i] = (struct draw_want){
            .slot = slot,
            .position = slot >= 3 && !score ? N_HISTORY : 0,
            .logits = logits,
            .nan_layer = -1,
            .score = score,
            .logprob = score || slot != 1,
            .n_top = score || slot != 1 ? n_tops[i % ARRAY_LEN(n_tops)] : 0,
            .token = score ? (int32_t)(test_random(&random) % plan->vocab) : -77,
            .tops = call->tops[i],
        };
    }
    call->wants[0].token = (int32_t)plan->vocab - 1; /* if it is a score: the last row */
}

/* How far from the exact logarithm of the sum the arithmetic may be: 64 additions in a lane, 4 of
 * the lanes, in the tree a product, an exponential and an addition a level; the exponentials'
 * own error, and the rounding of their arguments (logits are within 24 of each other). */
static double bound_of(uint32_t vocab, double logprob)
{
    const double unit = 0x1p-24;
    double levels = ceil(log2((double)div_up(vocab, SAMPLE_BLOCK_ROWS)));

    return (64 + 4 + 24) * unit + 2e-7 + levels * (3 * unit + 2e-7) + fabs(logprob) * unit;
}

static bool is_near(const float *logits, uint32_t vocab, uint32_t token, float logprob)
{
    long double sum = 0.0L;
    double exact;

    for (uint32_t i = 0; i < vocab; i++) {
        sum += expl((long double)logits[i] - 12.0L);
    }
    exact = (double)((long double)logits[token] - 12.0L - logl(sum));
    return logits[token] == -INFINITY ? logprob == -INFINITY
                                      : fabs(logprob - exact) <= bound_of(vocab, exact);
}

/* The first n likeliest by looking at all, n_top times. */
static bool is_ranked(const float *logits, uint32_t vocab, const struct sample_logprob *tops,
                      uint32_t n)
{
    struct sample_candidate last = {INFINITY, 0};

    for (uint32_t i = 0; i < n; i++) {
        struct sample_candidate best = {-INFINITY, UINT32_MAX};

        for (uint32_t token = 0; token < vocab; token++) {
            struct sample_candidate one = {logits[token], token};

            if (sample_before(last, one) && sample_before(one, best)) {
                best = one;
            }
        }
        if (tops[i].token != best.token) {
            return false;
        }
        last = best;
    }
    return true;
}

/* exactly: also against long double, which one world does for all. */
static bool check_want(const struct plan *plan, struct sampler *sampler, const struct call *call,
                       uint32_t i, bool exactly)
{
    const struct draw_want *want = &call->wants[i];
    const float *table = table_of(plan, want->slot, call->tables[i]);
    float *logits = xcalloc(plan->vocab, sizeof(*logits));
    struct sample_logprob tops[MAX_TOP];
    struct sample_logprob own;
    uint32_t n_top;
    bool good;

    memcpy(logits, table, plan->vocab * sizeof(*logits));
    good = want->token >= 0 && want->ret_nan_layer == -1 &&
           sampler_logprobs(sampler, logits, (uint32_t)want->token, want->n_top, &own, tops,
                            &n_top) == STATUS_OK &&
           memcmp(&own.logprob, &want->ret_logprob, sizeof(float)) == 0 &&
           n_top == want->ret_n_top && memcmp(tops, want->tops, n_top * sizeof(*tops)) == 0;
    if (good && exactly) {
        good = is_near(table, plan->vocab, own.token, own.logprob) &&
               is_ranked(table, plan->vocab, tops, n_top);
    }
    for (uint32_t k = 0; good && exactly && k < n_top; k += 9) {
        good = is_near(table, plan->vocab, tops[k].token, tops[k].logprob);
    }
    free(logits);
    return good;
}

/* What the slot draws in step 0 of its table, without log-probabilities. */
static int32_t token_without(const struct plan *plan, uint32_t setting, uint32_t slot)
{
    uint32_t step = 0;

    while (!takes_part(slot, step)) {
        step++;
    }
    return plan->expected[setting][1][step][slot];
}

static bool run_call(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct rows rows = rows_create(comm, plan);
    struct draw *draw = create(comm, plan, NULL);
    struct call *call = xalloc(sizeof(*call));
    struct sampler sampler;
    bool good = draw != NULL && sampler_init(&sampler, plan->vocab) == STATUS_OK;

    call->logits = xcalloc((size_t)N_WANTS * rows.n, sizeof(float));
    for (uint32_t setting = 0; setting < N_SETTINGS && good; setting += 4) {
        struct err err = {0};

        for (uint32_t slot = 0; slot < N_SLOTS && good; slot++) {
            struct draw_slot from = slot_of(plan, setting, slot);

            good = draw_slot_set(draw, slot, &from, &err) == STATUS_OK;
        }
        make_call(call, plan, &rows);
        good = good && draw_tokens(draw, 100, call->wants, N_WANTS, &err) == STATUS_OK;
        for (uint32_t i = 0; i < N_WANTS && good; i++) {
            const struct draw_want *want = &call->wants[i];

            good = (want->logprob ? check_want(plan, &sampler, call, i, comm->n_ranks == 1)
                                  : want->ret_n_top == 0) &&
                   (want->score || want->token == token_without(plan, setting, want->slot));
            if (!good) {
                print_error("setting %u, want %u: token %d, %g\n", setting, i, want->token,
                            (double)want->ret_logprob);
            }
        }
    }
    if (!good) {
        comm_abort(comm);
    }
    sampler_release(&sampler);
    free(call->logits);
    free(call);
    free(rows.logits);
    draw_destroy(&draw);
    return good;
}

static void test_logprobs(void **state)
{
    static const uint32_t vocabs[] = {7, 1500, 9001};
    static const uint32_t n_ranks[] = {1, 2, 3, 5, 8};
    static const uint32_t weights[MAX_RANKS] = {0, 1, 0, 3, 1};

    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(vocabs); v++) {
        struct plan *plan = plan_create(vocabs[v]);

        for (size_t i = 0; i < ARRAY_LEN(n_ranks); i++) {
            cut_rows(plan, n_ranks[i], NULL);
            run_world(n_ranks[i], run_call, plan);
        }
        cut_rows(plan, 5, weights);
        run_world(5, run_call, plan);
        plan_destroy(plan);
    }
}

/* Slot 0: a layer that is not a number. 1: a logit of the last rows. 2: all impossible. 3: one
 * certain, without end. 4: good. */
static void spoil(struct draw_want *want, const struct rows *rows, const struct plan *plan)
{
    bool is_last = rows->n > 0 && rows->begin + rows->n == plan->vocab;

    if (want->slot == 0) {
        want->nan_layer = 6;
    } else if (want->slot == 1 && is_last) {
        want->logits[rows->n - 1] = NAN;
    } else if (want->slot == 2) {
        for (uint32_t i = 0; i < rows->n; i++) {
            want->logits[i] = -INFINITY;
        }
    } else if (want->slot == 3 && is_last) {
        want->logits[rows->n - 1] = INFINITY;
    }
}

static bool run_spoilt(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct rows rows = rows_create(comm, plan);
    struct draw *draw = create(comm, plan, NULL);
    struct call *call = xalloc(sizeof(*call));
    bool good = draw != NULL;
    uint64_t step;
    int32_t token;

    call->logits = xcalloc((size_t)N_WANTS * rows.n, sizeof(float));
    for (uint32_t slot = 0; slot < N_SLOTS && good; slot++) {
        struct draw_slot from = slot_of(plan, 0, slot);

        good = draw_slot_set(draw, slot, &from, NULL) == STATUS_OK;
    }
    make_call(call, plan, &rows);
    for (uint32_t i = 0; i < N_WANTS; i++) {
        call->wants[i].logprob = true;
        spoil(&call->wants[i], &rows, plan);
    }
    good = good && draw_tokens(draw, 1, call->wants, N_WANTS, NULL) == STATUS_OK;
    for (uint32_t i = 0; i < N_WANTS && good; i++) {
        const struct draw_want *want = &call->wants[i];

        good =
            (want->token >= 0) == (want->slot == 4) &&
            want->ret_nan_layer == (want->slot == 0 ? 6 : -1) &&
            (want->slot == 4 || want->ret_n_top == 0) &&
            (want->score || draw_slot_last(draw, want->slot, &step, &token) == (want->slot == 4));
    }
    if (!good) {
        comm_abort(comm);
    }
    free(call->logits);
    free(call);
    free(rows.logits);
    draw_destroy(&draw);
    return good;
}

static void test_not_a_number(void **state)
{
    struct plan *plan = plan_create(5000);

    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 3; n_ranks++) {
        cut_rows(plan, n_ranks, NULL);
        run_world(n_ranks, run_spoilt, plan);
    }
    plan_destroy(plan);
}

static void test_refused(void **state)
{
    struct comm *comm = comm_self_create();
    struct plan *plan = plan_create(7);
    struct draw_want want = {.score = true, .logprob = true, .nan_layer = -1, .token = 7};
    struct err err = {0};
    struct draw *draw;

    (void)state;
    cut_rows(plan, 1, NULL);
    draw = create(comm, plan, NULL);
    assert_int_equal(draw_tokens(draw, 1, &want, 1, &err), STATUS_BUG);
    assert_non_null(strstr(err.text, "token 7"));
    want.token = -1;
    assert_int_equal(draw_tokens(draw, 1, &want, 1, &err), STATUS_BUG);
    want.token = 0;
    want.slot = N_SLOTS;
    assert_int_equal(draw_tokens(draw, 1, &want, 1, &err), STATUS_BUG);
    want.slot = 0;
    want.logprob = false;
    assert_int_equal(draw_tokens(draw, 1, &want, 1, &err), STATUS_BUG);
    draw_destroy(&draw);
    plan_destroy(plan);
    comm_destroy(&comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
