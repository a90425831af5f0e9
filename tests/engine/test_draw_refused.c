/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a draw refuses: wants that do not fit the slots, bad parameters, rows that are no division
 * of the vocabulary, rubbish from another rank. And what it sends.
 */
#include "comm/backend.h"
#include "engine/draw_plan.h"

static bool is_refused(struct draw *draw, struct draw_want *wants, uint32_t n, const char *text)
{
    struct err err = {0};

    if (draw_tokens(draw, 1, wants, n, &err) != STATUS_BUG || strstr(err.text, text) == NULL) {
        print_error("not refused with \"%s\" but \"%s\"\n", text, err.text);
        return false;
    }
    return true;
}

static bool run_bugs(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct draw *draw = create(comm, plan, NULL);
    struct rows rows = rows_create(comm, plan);
    struct draw_slot start = slot_of(plan, 0, 0);
    struct draw_slot later = slot_of(plan, 0, 3);
    struct draw_want wants[2];
    bool good = draw != NULL && draw_slot_set(draw, 0, &start, NULL) == STATUS_OK &&
                draw_slot_set(draw, 3, &later, NULL) == STATUS_OK;

    if (good) {
        wants[0] = want_of(plan, &rows, 0, 0, 0);
        wants[1] = want_of(plan, &rows, 3, 2, 0);
        good = is_refused(draw, wants, 2, "token 2 of slot 3 is wanted, but it has 3");
        wants[1].position = 3;
        good = good && draw_tokens(draw, 1, wants, 2, NULL) == STATUS_OK && wants[0].token >= 0;
        good = good && is_refused(draw, wants, 2, "token 0 of slot 0 is wanted, but it has 1");
        wants[0].position = 1;
        wants[1] = wants[0];
        good = good && is_refused(draw, wants, 2, "two tokens are wanted of slot 0");
        draw_slot_clear(draw, 3);
        draw_slot_clear(draw, 3);
        wants[1] = want_of(plan, &rows, 3, 0, 0);
        good = good && is_refused(draw, wants, 2, "slot 3, which is not set");
        wants[1].slot = N_SLOTS;
        good = good && is_refused(draw, wants, 2, "slot 5, which is not set");
        good = good && !draw_slot_last(draw, 3, &(uint64_t){0}, &(int32_t){0}) &&
               !draw_slot_last(draw, N_SLOTS, &(uint64_t){0}, &(int32_t){0});
        wants[0] = want_of(plan, &rows, 0, 1, 1); /* nothing of that was kept */
        good = good && draw_tokens(draw, 101, wants, 1, NULL) == STATUS_OK &&
               check_token(draw, wants, 1, plan->expected[0][0][1][0]) &&
               draw_tokens(draw, 102, wants, 0, NULL) == STATUS_OK;
    }
    free(rows.logits);
    draw_destroy(&draw);
    return good;
}

static void test_bugs_are_refused(void **state)
{
    struct plan *plan = plan_create(1500);

    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 2; n_ranks++) {
        cut_rows(plan, n_ranks, NULL);
        run_world(n_ranks, run_bugs, plan);
    }
    plan_destroy(plan);
}

static void check_invalid(struct draw *draw, uint32_t slot, const struct draw_slot *from,
                          const char *text)
{
    struct err err = {0};

    assert_int_equal(draw_slot_set(draw, slot, from, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, text));
}

static void test_bad_parameters(void **state)
{
    const struct sample_bias outside = {1500, 1.0f};
    struct plan *plan = plan_create(1500);
    struct comm *comm = comm_self_create();
    struct draw_slot good = slot_of(plan, 0, 0);
    struct draw_slot bad = good;
    struct draw_want want;
    struct rows rows;
    struct draw *draw;

    (void)state;
    cut_rows(plan, 1, NULL);
    draw = create(comm, plan, NULL);
    rows = rows_create(comm, plan);
    assert_int_equal(draw_slot_set(draw, 0, &good, NULL), STATUS_OK);
    bad.params.temperature = -1;
    check_invalid(draw, 0, &bad, "temperature");
    bad = good;
    bad.params.top_p = 0;
    check_invalid(draw, 0, &bad, "top_p");
    bad = good;
    bad.params.min_p = 2;
    check_invalid(draw, 0, &bad, "min_p");
    bad = good;
    bad.params.repetition_penalty = 0;
    check_invalid(draw, 0, &bad, "repetition_penalty");
    bad = good;
    bad.params.bias = &outside;
    bad.params.n_bias = 1;
    check_invalid(draw, 0, &bad, "logit bias for token 1500");
    check_invalid(draw, N_SLOTS, &good, "slot 5");
    want = want_of(plan, &rows, 0, 0, 0); /* the slot is as it was */
    assert_int_equal(draw_tokens(draw, 100, &want, 1, NULL), STATUS_OK);
    assert_true(check_token(draw, &want, 0, plan->expected[0][0][0][0]));
    free(rows.logits);
    draw_destroy(&draw);
    comm_destroy(&comm);
    plan_destroy(plan);
}

static void test_bad_rows(void **state)
{
    static const uint32_t bad[][2] = {{0, 1000}, {1000, 5000}, {2048, 1024}, {0, 6144}, {0, 4096}};
    struct comm *comm = comm_self_create();
    struct draw *draw = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct draw_config config = {
            .comm = comm, .vocab = 5000, .vocab_begin = bad[i][0], .vocab_end = bad[i][1]};
        struct err err = {0};

        assert_int_equal(draw_create(&config, &draw, &err), STATUS_INVALID);
        assert_non_null(strstr(err.text, "of a vocabulary of 5000"));
        assert_null(draw);
    }
    comm_destroy(&comm);
}

/* All ranks find that their rows are not a division of the vocabulary. */
static bool run_misfit(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct draw *draw = create(comm, plan, NULL);
    struct rows rows = rows_create(comm, plan);
    struct draw_slot start = slot_of(plan, 0, 0);
    struct draw_want want = want_of(plan, &rows, 0, 0, 0);
    struct err err = {0};
    bool good = draw != NULL && draw_slot_set(draw, 0, &start, NULL) == STATUS_OK &&
                draw_tokens(draw, 1, &want, 1, &err) == STATUS_INVALID &&
                strstr(err.text, "of the vocabulary") != NULL;

    free(rows.logits);
    draw_destroy(&draw);
    return good;
}

static void test_rows_that_do_not_fit(void **state)
{
    struct plan *plan = plan_create(5000);

    (void)state;
    cut_rows(plan, 3, NULL);
    plan->cut.bounds[0] = 1024; /* the first block is nobody's */
    run_world(3, run_misfit, plan);
    plan_destroy(plan);
}

/* A communicator of two ranks of which this is the first; what the other sends is made up. */
struct fake {
    struct comm comm;
    enum status status;     /* of each call */
    const uint32_t *answer; /* what the other sends from the second call on; NULL: as this one */
    struct comm_backend backend;
    uint32_t other_begin;
    uint32_t other_end;
    uint32_t n_calls;
    size_t n_words; /* of the last call */
};

static enum status fake_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    struct fake *fake = (struct fake *)comm;
    uint32_t *out = data->out;

    assert_ptr_equal(data->in, out);
    fake->n_words = data->count;
    if (fake->status != STATUS_OK) {
        return err_set(err, fake->status, "made up");
    }
    if (fake->n_calls++ == 0) {
        assert_int_equal(data->count, 2);
        out[2] = fake->other_begin;
        out[3] = fake->other_end;
    } else if (fake->answer != NULL) {
        memcpy(out + data->count, fake->answer, data->count * sizeof(*out));
    } else {
        memcpy(out + data->count, out, data->count * sizeof(*out));
    }
    return STATUS_OK;
}

static void fake_init(struct fake *fake, struct plan *plan)
{
    *fake = (struct fake){
        .comm = {.n_ranks = 2},
        .backend = {.name = "fake", .all_gather = fake_all_gather},
        .other_begin = 1024,
        .other_end = plan->vocab,
    };
    fake->comm.backend = &fake->backend;
    cut_rows(plan, 2, NULL);
}

/* Draws a first token of slot 0 with that setting while the other rank answers so. */
static enum status draw_with(struct fake *fake, const struct plan *plan, uint32_t setting,
                             struct err *err)
{
    struct draw *draw = create(&fake->comm, plan, NULL);
    struct rows rows = rows_create(&fake->comm, plan);
    struct draw_slot from = slot_of(plan, setting, 0);
    struct draw_want want = want_of(plan, &rows, 0, 0, 0);
    enum status status;

    assert_non_null(draw);
    assert_int_equal(draw_slot_set(draw, 0, &from, NULL), STATUS_OK);
    status = draw_tokens(draw, 1, &want, 1, err);
    if (status != STATUS_OK) {
        assert_false(draw_slot_last(draw, 0, &(uint64_t){0}, &(int32_t){0}));
    }
    free(rows.logits);
    draw_destroy(&draw);
    return status;
}

/* Words that no rank would send are refused before they are used. */
static void test_rubbish(void **state)
{
    static const uint32_t answers[][4] = {
        {0, 2 << 1, 0, 0},                 /* two candidates where one was asked for */
        {0, UINT32_MAX, 0, 0},             /* as many as there can be */
        {0, 1, 0, 0},                      /* none, but more of them */
        {0, 1 << 1, 0x7f000000, 1u << 30}, /* a great logit of a token far outside */
    };
    struct plan *plan = plan_create(1500);
    struct fake fake;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        fake_init(&fake, plan);
        fake.answer = answers[i];
        assert_int_equal(draw_with(&fake, plan, 0, &err), STATUS_LINK);
    }
    fake_init(&fake, plan);
    fake.other_begin = 100;
    assert_int_equal(draw_with(&fake, plan, 0, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "rank 1 has rows 100 to 1500"));
    fake_init(&fake, plan);
    fake.other_end = 1400;
    assert_int_equal(draw_with(&fake, plan, 0, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "1400 rows of a vocabulary of 1500"));
    fake_init(&fake, plan);
    fake.status = STATUS_TIMEOUT;
    assert_int_equal(draw_with(&fake, plan, 0, &err), STATUS_TIMEOUT);
    assert_string_equal(err.text, "made up");
    plan_destroy(plan);
}

/* The cost of a step: how often the ranks meet, and with how many words. */
static void test_traffic(void **state)
{
    static const uint32_t n_top[] = {1, 40};
    static const uint32_t setting_of[] = {0, 2};
    struct plan *plan = plan_create(49152);
    struct draw_want wants[N_SLOTS];
    struct draw *draw;
    struct rows rows;
    struct fake fake;

    (void)state;
    fake_init(&fake, plan);
    fake.other_begin = plan->cut.bounds[1];
    draw = create(&fake.comm, plan, NULL);
    rows = rows_create(&fake.comm, plan);
    for (size_t i = 0; i < ARRAY_LEN(n_top); i++) {
        struct draw_slot from = slot_of(plan, setting_of[i], 0);

        for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
            assert_int_equal(draw_slot_set(draw, slot, &from, NULL), STATUS_OK);
            wants[slot] = want_of(plan, &rows, slot, 0, 0);
        }
        assert_int_equal(draw_tokens(draw, i, wants, N_SLOTS, NULL), STATUS_OK);
        assert_int_equal(fake.n_calls, i + 2); /* one to meet, then one a step */
        assert_int_equal(fake.n_words, N_SLOTS * (2 + 2 * n_top[i]));
    }
    free(rows.logits);
    draw_destroy(&draw);
    plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bugs_are_refused), cmocka_unit_test(test_bad_parameters),
        cmocka_unit_test(test_bad_rows),         cmocka_unit_test(test_rows_that_do_not_fit),
        cmocka_unit_test(test_rubbish),          cmocka_unit_test(test_traffic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
