/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared memory of an epoch, both sides in one process: records reach each other, what does not
 * fit is refused with the reason, nobody else can write what one side writes.
 */
#include "helpers.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "rpc/wiring.h"

enum { N_RANKS = 3, EPOCH = 5 };

/* Zeroed regions of one epoch, and nothing mapped. */
struct rig {
    struct wiring_shape shape;
    int leader_fd;
    int rank_fds[N_RANKS];
    struct wiring_leader leader;
    struct wiring_rank ranks[N_RANKS];
    uint32_t n_fds; /* open before */
};

static const struct wiring_shape usual = {
    .epoch = EPOCH, .n_ranks = N_RANKS, .n_slots = 4, .plan_bytes = 1000, .result_bytes = 200};

static void open_rig(struct rig *rig, const struct wiring_shape *shape)
{
    *rig = (struct rig){.shape = *shape, .n_fds = count_fds()};
    assert_int_equal(region_create("leader", wiring_leader_bytes(shape), &rig->leader_fd, NULL),
                     STATUS_OK);
    for (uint32_t r = 0; r < shape->n_ranks; r++) {
        assert_int_equal(region_create("rank", wiring_rank_bytes(shape), &rig->rank_fds[r], NULL),
                         STATUS_OK);
    }
}

static void close_rig(struct rig *rig)
{
    wiring_leader_release(&rig->leader);
    close(rig->leader_fd);
    for (uint32_t r = 0; r < rig->shape.n_ranks; r++) {
        wiring_rank_release(&rig->ranks[r]);
        close(rig->rank_fds[r]);
    }
    assert_int_equal(count_fds(), rig->n_fds);
}

/* In the order of an epoch: ranks start, the leader wires them, they connect, it attaches. */
static void connect_all(struct rig *rig)
{
    for (uint32_t r = 0; r < rig->shape.n_ranks; r++) {
        assert_int_equal(wiring_rank_init(&rig->ranks[r], rig->rank_fds[r], r, EPOCH, NULL),
                         STATUS_OK);
    }
    assert_int_equal(
        wiring_leader_init(&rig->leader, &rig->shape, rig->leader_fd, rig->rank_fds, NULL),
        STATUS_OK);
    for (uint32_t r = 0; r < rig->shape.n_ranks; r++) {
        assert_int_equal(wiring_rank_connect(&rig->ranks[r], &rig->shape, rig->leader_fd, NULL),
                         STATUS_OK);
        assert_int_equal(wiring_leader_attach(&rig->leader, r, NULL), STATUS_OK);
        assert_true(rig->leader.attached[r]);
    }
}

/* The next record, which must be there. */
static struct ring_record read_now(struct ring_reader *reader, void *out)
{
    struct wait wait = wait_leader(clock_ns() + 5000 * MS);
    struct ring_record record = {0};

    assert_int_equal(ring_read(reader, &wait, out, &record, NULL), STATUS_OK);
    ring_ack(reader, record.number);
    return record;
}

/* Many laps of plans to all and results back, each rank with its own words. */
static void test_records(void **state)
{
    static _Alignas(8) uint8_t in[1000];
    struct rig rig;

    (void)state;
    open_rig(&rig, &usual);
    connect_all(&rig);
    for (uint64_t k = 1; k <= 50; k++) {
        uint8_t plan[1000];
        uint64_t number;

        memset(plan, (int)k, sizeof(plan));
        assert_int_equal(
            ring_publish(&rig.leader.plans, RING_PLAN, plan, sizeof(plan), &number, NULL),
            STATUS_OK);
        assert_int_equal(number, k);
        for (uint32_t r = 0; r < N_RANKS; r++) {
            uint8_t result[200];
            struct ring_record record = read_now(&rig.ranks[r].plans, in);

            assert_int_equal(record.kind, RING_PLAN);
            assert_int_equal(record.n_bytes, sizeof(plan));
            assert_memory_equal(in, plan, sizeof(plan));
            memset(result, (int)(k * N_RANKS + r), sizeof(result));
            assert_int_equal(ring_publish(&rig.ranks[r].results, RING_RESULT, result,
                                          sizeof(result), &number, NULL),
                             STATUS_OK);
            record = read_now(&rig.leader.results[r], in);
            assert_int_equal(record.number, k);
            assert_memory_equal(in, result, sizeof(result));
            assert_int_equal(ring_acked(&rig.ranks[r].results, 0, &number, NULL), STATUS_OK);
            assert_int_equal(number, k);
            assert_int_equal(ring_acked(&rig.leader.plans, r, &number, NULL), STATUS_OK);
            assert_int_equal(number, k);
        }
    }
    /* one rank falls behind: it sees that, and the others do not */
    for (int k = 0; k < 5; k++) {
        uint64_t number;

        assert_int_equal(ring_publish(&rig.leader.plans, RING_CONTROL, NULL, 0, &number, NULL),
                         STATUS_OK);
        assert_int_equal(read_now(&rig.ranks[1].plans, in).kind, RING_CONTROL);
    }
    assert_int_equal(
        ring_read(&rig.ranks[0].plans, &(struct wait){0}, in, &(struct ring_record){0}, NULL),
        STATUS_LINK);
    close_rig(&rig);
}

/* Records of all ranks reach the leader, who alone says whether there are any; a full ring of them
 * and a full ring of results leave each other, and the status page, alone. */
static void test_trace(void **state)
{
    static _Alignas(8) uint8_t in[1000];
    struct trace_reader readers[N_RANKS];
    struct trace_record out;
    struct rig rig;
    uint64_t lost = 0;
    uint64_t number;

    (void)state;
    open_rig(&rig, &usual);
    connect_all(&rig);
    for (uint32_t r = 0; r < N_RANKS; r++) {
        uint8_t result[200];

        memset(result, 0x5a, sizeof(result));
        trace_reader_init(&readers[r], wiring_leader_trace_ring(&rig.leader, r));
        assert_false(trace_is_asked(&rig.ranks[r].trace));
        for (uint32_t i = 0; i < usual.n_slots; i++) {
            assert_int_equal(ring_publish(&rig.ranks[r].results, RING_RESULT, result,
                                          sizeof(result), &number, NULL),
                             STATUS_OK);
        }
    }
    wiring_leader_trace(&rig.leader, true);
    for (uint32_t r = 0; r < N_RANKS; r++) {
        assert_true(trace_is_asked(&rig.ranks[r].trace));
        for (uint32_t i = 1; i <= TRACE_SLOTS; i++) {
            trace_write(&rig.ranks[r].trace,
                        &(struct trace_record){.start_ns = UINT64_MAX / 2, .step = i, .layer = r});
        }
    }
    for (uint32_t r = 0; r < N_RANKS; r++) {
        for (uint32_t i = 0; i < usual.n_slots; i++) {
            assert_int_equal(read_now(&rig.leader.results[r], in).n_bytes, 200);
            assert_int_equal(in[0] + in[199], 0x5a * 2);
        }
        for (uint32_t i = 2; i <= TRACE_SLOTS; i++) {
            assert_int_equal(trace_read(&readers[r], &out, 1, &lost), 1);
            assert_int_equal(out.step, i);
            assert_int_equal(out.layer, r);
        }
        assert_int_equal(status_page_progress_read(rig.leader.ranks[r]).step, 0);
    }
    assert_int_equal(lost, N_RANKS);
    wiring_leader_trace(&rig.leader, false);
    assert_false(trace_is_asked(&rig.ranks[0].trace));
    for (uint32_t r = 0; r < N_RANKS; r++) { /* what the leader says of results is no switch */
        assert_int_equal(ring_publish(&rig.ranks[r].results, RING_RESULT, in, 1, &number, NULL),
                         STATUS_OK);
        read_now(&rig.leader.results[r], in);
        assert_false(trace_is_asked(&rig.ranks[0].trace));
    }
    close_rig(&rig);
}

/* The status page is the first thing there, and the leader sees it. */
static void test_status_page(void **state)
{
    struct status_snapshot *page = xalloc(sizeof(*page));
    struct rig rig;

    (void)state;
    open_rig(&rig, &usual);
    connect_all(&rig);
    status_page_error(&rig.ranks[2].status, "last words");
    status_page_progress(&rig.ranks[2].status, &(struct status_progress){.step = 9, .layer = 3});
    assert_int_equal(status_page_read(rig.leader.ranks[2], 2, EPOCH, page, NULL), STATUS_OK);
    assert_string_equal(page->error, "last words");
    assert_int_equal(status_page_progress_read(rig.leader.ranks[2]).layer, 3);
    assert_int_equal(status_page_read(rig.leader.ranks[1], 1, EPOCH, page, NULL), STATUS_OK);
    assert_string_equal(page->error, "");
    assert_int_equal(status_page_read(rig.leader.ranks[1], 1, EPOCH + 1, page, NULL),
                     STATUS_CORRUPT);
    close_rig(&rig);
    free(page);
}

/* Each region has one writer; whoever maps it later can only read. */
static void test_sealed(void **state)
{
    struct rig rig;

    (void)state;
    open_rig(&rig, &usual);
    connect_all(&rig);
    for (uint32_t i = 0; i <= N_RANKS; i++) {
        int fd = i < N_RANKS ? rig.rank_fds[i] : rig.leader_fd;
        size_t bytes = i < N_RANKS ? wiring_rank_bytes(&usual) : wiring_leader_bytes(&usual);
        void *memory = NULL;
        struct err err = {0};

        assert_int_equal(region_map(fd, bytes, true, &memory, &err), STATUS_INVALID);
        assert_null(memory);
        assert_true(err.text[0] != '\0');
        assert_true(write(fd, "x", 1) < 0);
        assert_true(ftruncate(fd, 1) < 0);
        assert_int_equal(region_map(fd, bytes, false, &memory, &err), STATUS_OK);
        region_unmap(memory, bytes);
    }
    close_rig(&rig);
}

/* --- What does not fit --- */

static void test_shapes(void **state)
{
    static const struct wiring_shape bad[] = {
        {EPOCH, 0, 4, 1000, 200},       {EPOCH, RING_MAX_READERS + 1, 4, 1000, 200},
        {EPOCH, 3, 1, 1000, 200},       {EPOCH, 3, 65537, 1000, 200},
        {EPOCH, 3, 4, 0, 200},          {EPOCH, 3, 4, (16 << 20) + 1, 200},
        {EPOCH, UINT32_MAX, 4, 100, 1}, {0},
    };
    static const struct wiring_shape bad_results[] = {
        {EPOCH, 3, 4, 1000, 0}, {EPOCH, 3, 4, 1000, (16 << 20) + 1}, {EPOCH, 3, 0, 1000, 200}};
    struct wiring_shape most = {EPOCH, RING_MAX_READERS, 2, 64, 64};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(wiring_leader_bytes(&bad[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_results); i++) {
        assert_int_equal(wiring_rank_bytes(&bad_results[i]), 0);
    }
    assert_int_equal(wiring_leader_bytes(&most) % RING_LINE_BYTES, 0);
    assert_true(wiring_leader_bytes(&most) > RING_MAX_READERS * sizeof(struct ring_line));
    assert_true(wiring_rank_bytes(&most) > STATUS_PAGE_BYTES);
}

/* Regions that are too small, or no regions. */
static void test_wrong_regions(void **state)
{
    struct wiring_shape larger = usual;
    int plain = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct err err = {0};
    struct rig rig;
    int small;

    (void)state;
    larger.plan_bytes *= 2;
    larger.result_bytes *= 2;
    assert_int_equal(region_create("small", 4096, &small, NULL), STATUS_OK);
    open_rig(&rig, &usual);

    assert_int_equal(wiring_rank_init(&rig.ranks[0], plain, 0, EPOCH, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "no region of a rank"));
    assert_int_equal(wiring_rank_init(&rig.ranks[0], small, 0, EPOCH, &err), STATUS_CORRUPT);
    assert_int_equal(wiring_rank_init(&rig.ranks[0], -1, 0, EPOCH, &err), STATUS_CORRUPT);
    wiring_rank_release(&rig.ranks[0]);
    assert_int_equal(wiring_leader_init(&rig.leader, &larger, rig.leader_fd, rig.rank_fds, &err),
                     STATUS_CORRUPT);
    assert_null(rig.leader.own);
    wiring_leader_release(&rig.leader); /* once more is nothing */
    close_rig(&rig);

    open_rig(&rig, &usual);
    close(rig.rank_fds[N_RANKS - 1]); /* the last of the ranks has none: the others are let go */
    rig.rank_fds[N_RANKS - 1] = dup(small);
    assert_int_equal(wiring_leader_init(&rig.leader, &usual, rig.leader_fd, rig.rank_fds, &err),
                     STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "4096"));
    assert_null(rig.leader.own);
    assert_null(rig.leader.ranks[0]);
    close_rig(&rig);
    close(small);
    close(plain);
}

static void test_wrong_connections(void **state)
{
    struct wiring_shape shape = usual;
    struct err err = {0};
    struct rig rig;

    (void)state;
    open_rig(&rig, &usual);
    assert_int_equal(wiring_rank_init(&rig.ranks[0], rig.rank_fds[0], 0, EPOCH, NULL), STATUS_OK);
    shape.result_bytes = 1 << 20; /* does not fit this rank's region */
    assert_int_equal(wiring_rank_connect(&rig.ranks[0], &shape, rig.leader_fd, &err),
                     STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "do not fit"));
    shape = usual;
    shape.n_ranks = 0;
    assert_int_equal(wiring_rank_connect(&rig.ranks[0], &shape, rig.leader_fd, &err),
                     STATUS_CORRUPT);
    shape = usual;
    shape.plan_bytes = 1 << 20; /* nor the leader's */
    assert_int_equal(wiring_rank_connect(&rig.ranks[0], &shape, rig.leader_fd, &err),
                     STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "shared memory has"));
    assert_null(rig.ranks[0].leader);

    /* the leader has not started its ring */
    assert_int_equal(wiring_rank_connect(&rig.ranks[0], &usual, rig.leader_fd, &err),
                     STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "no ring"));
    close_rig(&rig);
}

/* A rank beyond the world's, and a ring of another epoch or shape. */
static void test_strangers(void **state)
{
    struct wiring_shape shape = usual;
    struct wiring_rank stranger;
    struct err err = {0};
    struct rig rig;
    int fd;

    (void)state;
    open_rig(&rig, &usual);
    connect_all(&rig);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(region_create("stranger", wiring_rank_bytes(&usual), &fd, NULL),
                         STATUS_OK);
        assert_int_equal(
            wiring_rank_init(&stranger, fd, i == 0 ? N_RANKS : 1, EPOCH + (i == 1), NULL),
            STATUS_OK);
        shape = usual;
        shape.epoch += i == 1;
        shape.plan_bytes -= i == 2;
        assert_int_equal(wiring_rank_connect(&stranger, &shape, rig.leader_fd, &err),
                         STATUS_CORRUPT);
        assert_non_null(strstr(err.text, i == 0   ? "do not fit"
                                         : i == 1 ? "epoch 5, this is 6"
                                                  : "no ring of 4 slots of 999 bytes"));
        wiring_rank_release(&stranger);
        close(fd);
    }
    close_rig(&rig);
}

/* A rank that said it was connected and was not, or that scribbled over its ring. */
static void test_attach_to_nothing(void **state)
{
    struct err err = {0};
    struct rig rig;

    (void)state;
    open_rig(&rig, &usual);
    assert_int_equal(wiring_leader_init(&rig.leader, &usual, rig.leader_fd, rig.rank_fds, NULL),
                     STATUS_OK);
    assert_int_equal(wiring_leader_attach(&rig.leader, 1, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "no ring"));
    assert_false(rig.leader.attached[1]);
    assert_int_equal(wiring_rank_init(&rig.ranks[1], rig.rank_fds[1], 1, EPOCH, NULL), STATUS_OK);
    assert_int_equal(wiring_rank_connect(&rig.ranks[1], &usual, rig.leader_fd, NULL), STATUS_OK);
    memset((char *)rig.ranks[1].own + STATUS_PAGE_BYTES, 0x5a,
           rig.ranks[1].own_bytes - STATUS_PAGE_BYTES);
    assert_int_equal(wiring_leader_attach(&rig.leader, 1, &err), STATUS_CORRUPT);
    close_rig(&rig);
}

/* --- As JSON --- */

static void test_json(void **state)
{
    struct wiring_shape back = {0};
    json_t *json = wiring_to_json(&usual);

    (void)state;
    assert_int_equal(wiring_from_json(json, EPOCH, N_RANKS, &back, NULL), STATUS_OK);
    assert_memory_equal(&back, &usual, sizeof(back));
    json_decref(json);
}

static void test_bad_json(void **state)
{
    static const char *const fields[] = {"slots", "plan_bytes", "result_bytes"};
    static const char *const values[] = {"-1",    "0",    "16777217", "1.5",
                                         "\"8\"", "true", "[]",       "9223372036854775807"};
    struct wiring_shape untouched = {.n_slots = 77};
    struct err err = {0};

    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(fields); f++) {
        json_t *json = wiring_to_json(&usual);

        json_object_del(json, fields[f]);
        assert_true(wiring_from_json(json, EPOCH, N_RANKS, &untouched, &err) < 0);
        assert_non_null(strstr(err.text, fields[f]));
        for (size_t v = 0; v < ARRAY_LEN(values); v++) {
            json_t *value = json_loads(values[v], JSON_DECODE_ANY, NULL);

            assert_non_null(value);
            json_object_set_new(json, fields[f], value);
            err = (struct err){0};
            if (wiring_from_json(json, EPOCH, N_RANKS, &untouched, &err) == STATUS_OK) {
                fail_msg("%s: %s is taken", fields[f], values[v]);
            }
            assert_non_null(strstr(err.text, fields[f]));
        }
        json_decref(json);
    }
    assert_true(wiring_from_json(NULL, EPOCH, N_RANKS, &untouched, &err) < 0);
    assert_int_equal(untouched.n_slots, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_status_page),
        cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_wrong_regions),
        cmocka_unit_test(test_wrong_connections),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_attach_to_nothing),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_bad_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
