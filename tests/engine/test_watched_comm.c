/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The communicator that tells where its rank is: every call reaches the inner one unchanged, the
 * status page moves as it should, faults happen in the right collective, and it costs little.
 */
#include "faults.h"

#include "base/mem.h"
#include "comm/backend.h"
#include "engine/watched_comm.h"

/* An inner communicator that notes what it was called with and what the page said meanwhile. */
struct probe {
    struct comm comm;
    const void *page;
    uint32_t n_calls;
    const char *name;
    const void *args;
    uint32_t number; /* root or reduction */
    uint64_t timeout_ns;
    struct status_progress at;
    uint64_t took_ns; /* how long a call is to take */
    enum status status;
    bool aborted;
};

static enum status note(struct comm *comm, const char *name, const void *args, uint32_t number)
{
    struct probe *probe = (struct probe *)comm;
    struct status_snapshot seen;

    probe->n_calls++;
    probe->name = name;
    probe->args = args;
    probe->number = number;
    probe->timeout_ns = comm->timeout_ns;
    assert_int_equal(status_page_read(probe->page, 3, 1, &seen, NULL), STATUS_OK);
    probe->at = seen.progress;
    if (probe->took_ns > 0) {
        drill_sleep(probe->took_ns);
    }
    return probe->status;
}

static enum status probe_sum_tree(struct comm *comm, const struct comm_tree *args,
                                  UNUSED struct err *err)
{
    return note(comm, "sum_tree", args, 0);
}

static enum status probe_all_reduce(struct comm *comm, const struct comm_data *data,
                                    enum comm_reduction reduction, UNUSED struct err *err)
{
    return note(comm, "all_reduce", data, reduction);
}

static enum status probe_all_gather(struct comm *comm, const struct comm_data *data,
                                    UNUSED struct err *err)
{
    return note(comm, "all_gather", data, 0);
}

static enum status probe_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                                   UNUSED struct err *err)
{
    return note(comm, "broadcast", data, root);
}

static enum status probe_barrier(struct comm *comm, UNUSED struct err *err)
{
    return note(comm, "barrier", NULL, 0);
}

static float probe_floats[1];

static float *probe_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                                   size_t *ret_root_stride)
{
    ((struct probe *)comm)->number = (uint32_t)count * 100 + n_roots;
    *ret_root_stride = 12;
    return probe_floats;
}

static void probe_abort(struct comm *comm)
{
    ((struct probe *)comm)->aborted = true;
}

static void probe_destroy(UNUSED struct comm **comm)
{
    fail_msg("the inner communicator is not the wrapper's");
}

static const struct comm_backend probe_backend = {
    .name = "probe",
    .sum_tree = probe_sum_tree,
    .all_reduce = probe_all_reduce,
    .all_gather = probe_all_gather,
    .broadcast = probe_broadcast,
    .barrier = probe_barrier,
    .partial_buffer = probe_partial_buffer,
    .abort = probe_abort,
    .destroy = probe_destroy,
};

/* A watched probe: rank 3 of 5. */
struct scene {
    struct drill drill;
    struct probe probe;
    struct watched_comm *watched;
    struct comm *comm;
};

static void scene_begin(struct scene *scene)
{
    *scene = (struct scene){0};
    drill_begin(&scene->drill);
    scene->probe.comm.backend = &probe_backend;
    scene->probe.comm.rank = 3;
    scene->probe.comm.n_ranks = 5;
    scene->probe.comm.timeout_ns = 77;
    scene->probe.page = scene->drill.page;
    scene->watched =
        watched_comm_create(&scene->probe.comm, &scene->drill.status, &scene->drill.faults);
    scene->comm = &scene->watched->comm;
}

static void scene_end(struct scene *scene)
{
    watched_comm_destroy(&scene->watched);
    assert_null(scene->watched);
    drill_end(&scene->drill);
}

static void read_page(struct scene *scene)
{
    assert_int_equal(status_page_read(scene->drill.page, 3, 1, &scene->drill.seen, NULL),
                     STATUS_OK);
}

static void assert_at(const struct status_progress *at, uint64_t step, uint32_t layer,
                      uint32_t collective, bool waiting)
{
    assert_int_equal(at->step, step);
    assert_int_equal(at->layer, layer);
    assert_int_equal(at->collective, collective);
    assert_int_equal(at->waiting, waiting);
}

static void test_passes_through(void **state)
{
    struct scene scene;
    struct probe *probe = &scene.probe;
    struct comm_tree tree = {0};
    struct comm_data data = {0};
    size_t stride = 0;

    (void)state;
    scene_begin(&scene);
    assert_int_equal(scene.comm->rank, 3);
    assert_int_equal(scene.comm->n_ranks, 5);
    assert_int_equal(scene.comm->timeout_ns, 77);
    assert_int_equal(comm_sum_tree(scene.comm, &tree, NULL), STATUS_OK);
    assert_string_equal(probe->name, "sum_tree");
    assert_ptr_equal(probe->args, &tree);
    assert_int_equal(probe->timeout_ns, 77);
    scene.comm->timeout_ns = 88;
    assert_int_equal(comm_all_reduce(scene.comm, &data, COMM_MAX, NULL), STATUS_OK);
    assert_string_equal(probe->name, "all_reduce");
    assert_ptr_equal(probe->args, &data);
    assert_int_equal(probe->number, COMM_MAX);
    assert_int_equal(probe->timeout_ns, 88);
    assert_int_equal(comm_all_gather(scene.comm, &data, NULL), STATUS_OK);
    assert_string_equal(probe->name, "all_gather");
    assert_int_equal(comm_broadcast(scene.comm, &data, 4, NULL), STATUS_OK);
    assert_string_equal(probe->name, "broadcast");
    assert_int_equal(probe->number, 4);
    probe->status = STATUS_LINK;
    assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_LINK);
    assert_string_equal(probe->name, "barrier");
    assert_int_equal(probe->n_calls, 5);
    assert_ptr_equal(comm_partial_buffer(scene.comm, 64, 2, &stride), probe_floats);
    assert_int_equal(stride, 12);
    assert_int_equal(probe->number, 6402);
    comm_abort(scene.comm);
    assert_true(probe->aborted);
    assert_int_equal(probe->comm.aborted, 1);
    scene_end(&scene);
}

static void test_progress(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene);
    assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK);
    assert_at(&scene.probe.at, 0, 0, 1, true);
    for (uint64_t step = 9; step < 12; step++) {
        watched_comm_step(scene.watched, step);
        read_page(&scene);
        assert_at(&scene.drill.seen.progress, step, 0, 0, false);
        for (uint32_t i = 0; i < 6; i++) {
            if (i % 2 == 0) {
                watched_comm_layer(scene.watched, i / 2);
                read_page(&scene);
                assert_at(&scene.drill.seen.progress, step, i / 2, i, false);
            }
            assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK);
            assert_at(&scene.probe.at, step, i / 2, i + 1, true);
            read_page(&scene);
            assert_at(&scene.drill.seen.progress, step, i / 2, i + 1, false);
        }
    }
    assert_int_equal(scene.drill.seen.counters[STATUS_COUNTER_COLLECTIVES], 1 + 3 * 6);
    scene_end(&scene);
}

/* Collectives in the flight recorder; *ret_last is the last one. */
static uint32_t recorded(struct scene *scene, struct status_record *ret_last)
{
    uint32_t n = 0;

    read_page(scene);
    for (uint32_t i = 0; i < scene->drill.seen.n_events; i++) {
        if (scene->drill.seen.events[i].type == STATUS_EVENT_COLLECTIVE) {
            *ret_last = scene->drill.seen.events[i];
            n++;
        }
    }
    return n;
}

static void test_long_ones_are_recorded(void **state)
{
    struct scene scene;
    struct status_record last = {.b = UINT64_MAX};
    uint32_t before;
    uint64_t start;
    uint64_t limit;

    (void)state;
    scene_begin(&scene);
    watched_comm_step(scene.watched, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK);
    }
    before = recorded(&scene, &last); /* none, unless the machine is very busy */
    assert_true(before < 20 && last.b > MS);
    scene.probe.took_ns = 25 * MS; /* longer than any tick */
    start = clock_ns();
    assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK);
    limit = clock_ns() - start;
    assert_int_equal(recorded(&scene, &last), before + 1);
    assert_int_equal(last.a, 21);
    assert_in_range(last.b, 25 * MS, limit);
    scene_end(&scene);
}

/* The records of step 2, with two collectives in three layers; returns the collectives' time. */
static uint64_t expect_nested(const struct trace_record out[6])
{
    uint64_t in_collectives = 0;

    for (uint32_t i = 0; i < 6; i++) {
        static const enum trace_kind kinds[] = {TRACE_COLLECTIVE, TRACE_LAYER, TRACE_COLLECTIVE,
                                                TRACE_LAYER,      TRACE_LAYER, TRACE_STEP};
        static const uint32_t layers[] = {0, 0, 1, 1, 2, 77};

        assert_int_equal(out[i].kind, kinds[i]);
        assert_int_equal(out[i].layer, layers[i]);
        assert_int_equal(out[i].step, 2);
        assert_true(out[i].start_ns >= out[5].start_ns);
        assert_true(out[i].start_ns + out[i].took_ns <= out[5].start_ns + out[5].took_ns);
        if (kinds[i] == TRACE_COLLECTIVE) { /* and within its layer, which ends after it */
            assert_int_equal(out[i].what, TRACE_ALL_REDUCE);
            assert_int_equal(out[i].number, layers[i] + 1);
            assert_true(out[i].took_ns >= 2 * MS);
            assert_true(out[i].start_ns >= out[i + 1].start_ns);
            assert_true(out[i].start_ns + out[i].took_ns <=
                        out[i + 1].start_ns + out[i + 1].took_ns);
            in_collectives += out[i].took_ns;
        }
    }
    return in_collectives;
}

/* While the leader asks for it a step is recorded: as it begins, so it stays until it ends; what is
 * recorded nests, and the times of all collectives of steps are counted. */
static void test_trace(void **state)
{
    struct trace_ring *ring = mem_alloc(1, sizeof(*ring) + 128);
    struct trace_ring *aligned = (struct trace_ring *)(((uintptr_t)ring + 127) / 128 * 128);
    struct trace_switch asked = {0};
    struct trace_writer writer = {.ring = aligned, .asked = &asked};
    struct trace_record out[20];
    struct trace_reader reader;
    struct scene scene;
    uint64_t lost = 0;
    uint64_t in_collectives;
    uint32_t n;

    (void)state;
    assert_non_null(ring);
    trace_reader_init(&reader, aligned);
    scene_begin(&scene);
    watched_comm_trace(scene.watched, &writer);
    assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK); /* in no step */
    read_page(&scene);
    assert_int_equal(scene.drill.seen.counters[STATUS_COUNTER_COLLECTIVE_NS], 0);
    scene.probe.took_ns = 2 * MS;
    for (uint64_t step = 1; step <= 3; step++) {
        atomic_store(&asked.on, step == 2);
        watched_comm_step(scene.watched, step);
        atomic_store(&asked.on, step == 1); /* too late for this one */
        for (uint32_t layer = 0; layer < 3; layer++) {
            watched_comm_layer(scene.watched, layer);
            if (layer < 2) {
                assert_int_equal(
                    comm_all_reduce(scene.comm, &(struct comm_data){0}, COMM_SUM, NULL), STATUS_OK);
            }
        }
        watched_comm_step_end(scene.watched, TRACE_PREFILL, 77);
    }
    n = trace_read(&reader, out, ARRAY_LEN(out), &lost);
    assert_int_equal(n, 2 + 3 + 1);
    assert_int_equal(lost, 0);
    in_collectives = expect_nested(out);
    assert_int_equal(out[5].what, TRACE_PREFILL);
    assert_int_equal(out[2].start_ns + out[2].took_ns <= out[4].start_ns, true);
    read_page(&scene);
    assert_true(scene.drill.seen.counters[STATUS_COUNTER_COLLECTIVE_NS] >= 12 * MS);
    assert_true(scene.drill.seen.counters[STATUS_COUNTER_COLLECTIVE_NS] >= in_collectives);
    assert_true(scene.drill.seen.counters[STATUS_COUNTER_STEP_NS] >=
                scene.drill.seen.counters[STATUS_COUNTER_COLLECTIVE_NS]);
    scene_end(&scene);
    free(ring);
}

/* A rank that hangs before a collective shows where, and not as one that waits. */
static void play_steps(struct drill *drill)
{
    struct comm *self = comm_self_create();
    struct watched_comm *watched = watched_comm_create(self, &drill->status, &drill->faults);

    for (uint64_t step = 1; step < 4; step++) {
        status_page_phase(&drill->status, STATUS_PHASE_DECODE);
        watched_comm_step(watched, step);
        for (uint32_t layer = 0; layer < 4; layer++) {
            watched_comm_layer(watched, layer);
            for (int i = 0; i < 2; i++) {
                if (comm_barrier(&watched->comm, NULL) != STATUS_OK) {
                    _exit(1);
                }
            }
        }
    }
    watched_comm_destroy(&watched);
    comm_destroy(&self);
}

static void test_hang(void **state)
{
    struct drill drill;
    uint64_t limit = clock_ns() + 10000 * MS;
    struct buf place = {0};
    uint64_t step = 0;
    pid_t child;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 1, "hang-in-collective:rank=3,step=2,layer=3");
    child = drill_fork(&drill, play_steps);
    while (drill_recorded(&drill, 1, &step) == 0 && clock_ns() < limit) {
        drill_sleep(MS);
    }
    drill_sleep(20 * MS);
    assert_int_equal(drill_recorded(&drill, 1, &step), 1);
    assert_at(&drill.seen.progress, 2, 3, 7, false);
    status_snapshot_place(&drill.seen, "stopped", &place);
    assert_string_equal(buf_str(&place), "rank 3 stopped in layer 3, all-reduce 7 of step 2");
    buf_release(&place);
    kill(child, SIGKILL);
    assert_int_equal(drill_wait(child), SIGKILL);
    drill_end(&drill);
}

static void test_kill_in_layer(void **state)
{
    struct drill drill;
    uint64_t step = 0;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 1, "kill:rank=3,layer=2");
    assert_int_equal(drill_wait(drill_fork(&drill, play_steps)), SIGKILL);
    assert_int_equal(drill_recorded(&drill, 1, &step), 1);
    assert_int_equal(step, 1);
    assert_at(&drill.seen.progress, 1, 2, 4, false); /* when the layer begins */
    drill_end(&drill);
}

static void test_slow(void **state)
{
    struct scene scene;
    uint64_t start;

    (void)state;
    scene_begin(&scene);
    drill_arm(&scene.drill, 1, "slow:rank=3,ms=5");
    start = clock_ns();
    for (int i = 0; i < 4; i++) {
        assert_int_equal(comm_barrier(scene.comm, NULL), STATUS_OK);
    }
    assert_true(clock_ns() - start >= 20 * MS);
    scene_end(&scene);
}

static double barrier_ns(struct comm *comm, uint32_t n)
{
    uint64_t start = clock_ns();

    for (uint32_t i = 0; i < n; i++) {
        if (comm_barrier(comm, NULL) != STATUS_OK) {
            fail_msg("barrier");
        }
    }
    return (double)(clock_ns() - start) / n;
}

/* Printed; a bound would fail on a machine that is busy. */
static void test_cost(void **state)
{
    enum { N = 5000, ROUNDS = 200 };
    struct comm *self = comm_self_create();
    double plain = 1e9;
    double both = 1e9;
    struct watched_comm *watched;
    struct drill drill;

    (void)state;
    drill_begin(&drill);
    watched = watched_comm_create(self, &drill.status, &drill.faults);
    for (int i = 0; i < ROUNDS; i++) {
        double a = barrier_ns(self, N);
        double b = barrier_ns(&watched->comm, N);

        plain = MIN(plain, a);
        both = MIN(both, b);
    }
    print_message("watching costs %.1f ns a collective\n", both - plain);
    watched_comm_destroy(&watched);
    comm_destroy(&self);
    drill_end(&drill);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passes_through),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_long_ones_are_recorded),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_kill_in_layer),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_cost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
