/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens drawn by ranks, each a thread with its own rows of the logits, against sampler_token on
 * the whole vocabulary; and logits that are not numbers.
 */
#include "engine/draw_plan.h"

#include "base/float_env.h"
#include "cpu/cpu.h"

static bool run_setting(struct draw *draw, const struct plan *plan, const struct rows *rows,
                        uint32_t setting, bool many)
{
    struct draw_want wants[N_SLOTS];
    uint32_t positions[N_SLOTS];
    struct err err = {0};

    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        struct draw_slot from = slot_of(plan, setting, slot);

        positions[slot] = from.n_generated;
        if (draw_slot_set(draw, slot, &from, &err) != STATUS_OK ||
            draw_slot_last(draw, slot, &(uint64_t){0}, &(int32_t){0})) {
            print_error("setting %u, slot %u: %s\n", setting, slot, err.text);
            return false;
        }
    }
    for (uint32_t step = 0; step < N_STEPS; step++) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < (many ? N_SLOTS : 1); i++) {
            uint32_t slot = many ? (i * 2 + step) % N_SLOTS : 0; /* in any order */

            if (takes_part(slot, step)) {
                wants[n++] = want_of(plan, rows, slot, positions[slot]++, step);
            }
        }
        if (draw_tokens(draw, 100 + step, wants, n, &err) != STATUS_OK) {
            print_error("setting %u, step %u: %s\n", setting, step, err.text);
            return false;
        }
        for (uint32_t i = 0; i < n; i++) {
            if (!check_token(draw, &wants[i], step,
                             plan->expected[setting][many][step][wants[i].slot])) {
                print_error("setting %u%s\n", setting, many ? ", all slots" : "");
                return false;
            }
        }
    }
    return true;
}

static bool run_all(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct draw *draw = create(comm, plan, NULL);
    struct rows rows = rows_create(comm, plan);
    bool good = draw != NULL;

    for (uint32_t setting = 0; setting < N_SETTINGS && good; setting++) {
        good = run_setting(draw, plan, &rows, setting, false) &&
               run_setting(draw, plan, &rows, setting, true);
    }
    if (!good) {
        comm_abort(comm);
    }
    free(rows.logits);
    draw_destroy(&draw);
    return good;
}

static void test_tokens(void **state)
{
    static const uint32_t vocabs[] = {7, 1500, 49152};
    static const uint32_t n_ranks[] = {1, 2, 3, 5, 8};
    static const uint32_t weights[MAX_RANKS] = {0, 1, 0, 3,
                                                1}; /* ranks without rows among others */

    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(vocabs); v++) {
        struct plan *plan = plan_create(vocabs[v]);

        for (size_t i = 0; i < ARRAY_LEN(n_ranks); i++) {
            cut_rows(plan, n_ranks[i], NULL);
            run_world(n_ranks[i], run_all, plan);
        }
        cut_rows(plan, 5, weights);
        run_world(5, run_all, plan);
        plan_destroy(plan);
    }
}

struct device_plan {
    struct plan *plan;
    struct ops_config device;
};

/* The same where a device weighs the logits: every setting in one of the slots. */
static bool run_on_device(struct comm *comm, void *arg)
{
    const struct device_plan *on = arg;
    const struct plan *plan = on->plan;
    struct ops_device *device;
    struct mass_table masses;
    struct float_env env;
    struct draw *draw;
    struct rows rows;
    bool good;

    if (cpu_ops.create(&on->device, &device, NULL) != STATUS_OK) {
        comm_abort(comm);
        return false;
    }
    masses = cpu_ops.masses(device);
    draw = create(comm, plan, &masses);
    rows = rows_create(comm, plan);
    good = draw != NULL;
    float_env_enter(&env);
    for (uint32_t setting = 0; setting < N_SETTINGS && good; setting += N_SLOTS) {
        good = run_setting(draw, plan, &rows, setting, true);
    }
    float_env_leave(&env);
    if (!good) {
        comm_abort(comm);
    }
    free(rows.logits);
    draw_destroy(&draw);
    cpu_ops.destroy(&device);
    return good;
}

static void test_levels(void **state)
{
    struct float_env env;
    struct plan *plan;

    (void)state;
    float_env_enter(&env);
    plan = plan_create(40000);
    float_env_leave(&env);
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        bool there = cpu_level_is_supported((enum cpu_level)level);

        for (uint32_t n_ranks = 1; there && n_ranks <= 3; n_ranks++) {
            struct device_plan on = {
                .plan = plan,
                .device = {.n_threads = 3 - n_ranks / 2, /* 3, 2, 2 */
                           .level = cpu_level_name((enum cpu_level)level)},
            };

            cut_rows(plan, n_ranks, NULL);
            run_world(n_ranks, run_on_device, &on);
        }
    }
    plan_destroy(plan);
}

/* Penalties and settings are worth something: they change what is drawn. */
static void test_settings_matter(void **state)
{
    struct plan *plan = plan_create(49152);
    size_t n_same = 0;

    (void)state;
    for (uint32_t setting = 1; setting < N_SETTINGS; setting++) {
        n_same += memcmp(plan->expected[setting][0], plan->expected[0][0],
                         sizeof(plan->expected[0][0])) == 0;
    }
    assert_int_equal(n_same, 1); /* top_k 1 is greedy */
    plan_destroy(plan);
}

/* Slot 0: a layer on every rank. 1: a logit of one rank. 2: all impossible. 3: good. 4: a layer on
 * the last rank only. */
static void spoil(struct draw_want *wants, const struct rows *rows, const struct comm *comm)
{
    static const int32_t layers[] = {9, 5, 7};

    wants[0].nan_layer = layers[comm->rank];
    if (comm->rank == MIN(1, comm->n_ranks - 1)) {
        wants[1].logits[rows->n - 1] = NAN;
    }
    for (uint32_t i = 0; i < rows->n; i++) {
        wants[2].logits[i] = -INFINITY;
    }
    wants[4].nan_layer = comm->rank == comm->n_ranks - 1 ? 0 : -1;
}

/* What the slot draws first (table 0 serves as long as any slot may wait for that). */
static int32_t first_token(const struct plan *plan, uint32_t setting, uint32_t slot)
{
    uint32_t step = 0;

    while (!takes_part(slot, step)) {
        step++;
    }
    return plan->expected[setting][1][step][slot];
}

static bool is_drawn(const struct draw *draw, uint32_t slot)
{
    uint64_t step;
    int32_t token;

    return draw_slot_last(draw, slot, &step, &token);
}

static bool spoil_setting(struct draw *draw, const struct plan *plan, const struct rows *rows,
                          const struct comm *comm, uint32_t setting)
{
    const int32_t layers[N_SLOTS] = {comm->n_ranks == 1 ? 9 : 5, -1, -1, -1, 0};
    struct draw_want wants[N_SLOTS];

    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        struct draw_slot from = slot_of(plan, setting, slot);

        if (draw_slot_set(draw, slot, &from, NULL) != STATUS_OK) {
            return false;
        }
        wants[slot] = want_of(plan, rows, slot, from.n_generated, 0);
    }
    spoil(wants, rows, comm);
    if (draw_tokens(draw, 100, wants, N_SLOTS, NULL) != STATUS_OK) {
        return false;
    }
    for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
        bool drawn = slot == 3;
        int32_t expected = drawn ? first_token(plan, setting, slot) : -1;

        if (wants[slot].token != expected || wants[slot].ret_nan_layer != layers[slot] ||
            is_drawn(draw, slot) != drawn) {
            print_error("slot %u: token %d, layer %d\n", slot, wants[slot].token,
                        wants[slot].ret_nan_layer);
            return false;
        }
        if (!drawn) { /* the slot is where it was */
            wants[slot] = want_of(plan, rows, slot, wants[slot].position, 0);
            if (draw_tokens(draw, 101, &wants[slot], 1, NULL) != STATUS_OK ||
                wants[slot].token != first_token(plan, setting, slot)) {
                print_error("slot %u: token %d after all\n", slot, wants[slot].token);
                return false;
            }
        }
    }
    return true;
}

static bool run_nan(struct comm *comm, void *arg)
{
    const struct plan *plan = arg;
    struct draw *draw = create(comm, plan, NULL);
    struct rows rows = rows_create(comm, plan);
    bool good = draw != NULL;

    for (uint32_t setting = 0; setting < N_SETTINGS && good; setting++) {
        good = spoil_setting(draw, plan, &rows, comm, setting);
    }
    if (!good) {
        comm_abort(comm);
    }
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
        run_world(n_ranks, run_nan, plan);
    }
    plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_settings_matter),
        cmocka_unit_test(test_not_a_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
