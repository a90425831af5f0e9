/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records come out as they went in; those that were written over are counted, never shown; a
 * damaged ring shows nothing that there is not.
 */
#include "helpers.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "rpc/trace_ring.h"

struct scene {
    struct trace_ring *ring;
    struct trace_switch asked;
    struct trace_writer writer;
    struct trace_reader reader;
};

static void begin(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    scene->ring =
        mmap(NULL, sizeof(*scene->ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(scene->ring != MAP_FAILED);
    scene->writer = (struct trace_writer){.ring = scene->ring, .asked = &scene->asked};
    trace_reader_init(&scene->reader, scene->ring);
}

static void end(struct scene *scene)
{
    munmap(scene->ring, sizeof(*scene->ring));
}

/* Every field follows from i, so that a mixture of two records shows. */
static struct trace_record made(uint64_t i)
{
    return (struct trace_record){
        .start_ns = i * 1000,
        .took_ns = i * 7 % 100000,
        .kind = (enum trace_kind)(i % TRACE_KINDS),
        .what = (enum trace_what)(i % TRACE_WHATS),
        .step = (uint32_t)(i * 3),
        .layer = (uint32_t)(i % 1000),
        .number = (uint32_t)(i % 4001),
    };
}

static void expect_made(const struct trace_record *record)
{
    struct trace_record expected = made(record->start_ns / 1000);

    assert_int_equal(record->start_ns, expected.start_ns);
    assert_int_equal(record->took_ns, expected.took_ns);
    assert_int_equal(record->kind, expected.kind);
    assert_int_equal(record->what, expected.what);
    assert_int_equal(record->step, expected.step);
    assert_int_equal(record->layer, expected.layer);
    assert_int_equal(record->number, expected.number);
}

static void test_in_and_out(void **state)
{
    struct trace_record out[100];
    struct scene scene;
    uint64_t lost = 0;
    uint64_t next = 0;

    (void)state;
    begin(&scene);
    assert_int_equal(trace_read(&scene.reader, out, 100, &lost), 0);
    for (uint64_t i = 0; i < 3 * TRACE_SLOTS; i++) {
        struct trace_record record = made(i);

        trace_write(&scene.writer, &record);
        if (i % 77 == 0) {
            for (uint32_t n; (n = trace_read(&scene.reader, out, 10, &lost)) > 0;) {
                assert_true(n <= 10);
                for (uint32_t k = 0; k < n; k++) {
                    assert_int_equal(out[k].start_ns, 1000 * next++);
                    expect_made(&out[k]);
                }
            }
            assert_int_equal(next, i + 1);
        }
    }
    assert_int_equal(lost, 0);
    end(&scene);
}

static void test_asked(void **state)
{
    struct trace_writer nobody = {0};
    struct scene scene;

    (void)state;
    begin(&scene);
    assert_false(trace_is_asked(&nobody));
    assert_false(trace_is_asked(&scene.writer));
    atomic_store(&scene.asked.on, 1);
    assert_true(trace_is_asked(&scene.writer));
    end(&scene);
}

static void test_limits(void **state)
{
    struct trace_record record = {.start_ns = 5,
                                  .took_ns = UINT64_MAX,
                                  .kind = TRACE_COLLECTIVE,
                                  .what = TRACE_BARRIER,
                                  .step = UINT32_MAX,
                                  .layer = 65536,
                                  .number = UINT32_MAX};
    struct trace_record out;
    struct scene scene;
    uint64_t lost = 0;

    (void)state;
    begin(&scene);
    trace_write(&scene.writer, &record);
    assert_int_equal(trace_read(&scene.reader, &out, 1, &lost), 1);
    assert_int_equal(out.kind, TRACE_COLLECTIVE);
    assert_int_equal(out.what, TRACE_BARRIER);
    assert_true(out.took_ns == (UINT64_C(1) << 48) - 1);
    assert_int_equal(out.step, UINT32_MAX);
    assert_int_equal(out.layer, 65535);
    assert_int_equal(out.number, 65535);
    assert_int_equal(lost, 0);
    end(&scene);
}

static void test_overtaken(void **state)
{
    struct trace_record out[100];
    struct scene scene;
    uint64_t lost = 0;
    uint64_t n_read = 0;
    uint64_t n;

    (void)state;
    begin(&scene);
    for (uint64_t i = 0; i < TRACE_SLOTS + 500; i++) {
        struct trace_record record = made(i);

        trace_write(&scene.writer, &record);
    }
    while ((n = trace_read(&scene.reader, out, 100, &lost)) > 0) {
        for (uint64_t k = 0; k < n; k++) {
            expect_made(&out[k]);
            assert_int_equal(out[k].start_ns / 1000, 501 + n_read++);
        }
    }
    assert_int_equal(lost, 501);
    assert_int_equal(n_read + lost, TRACE_SLOTS + 500);
    end(&scene);
}

static void test_damaged(void **state)
{
    struct trace_record record = made(4);
    struct trace_record out[4];
    struct scene scene;
    uint64_t lost = 0;

    (void)state;
    begin(&scene);
    for (uint32_t i = 0; i < 4; i++) {
        trace_write(&scene.writer, &record);
    }
    atomic_store(&scene.ring->slots[0].took, (uint64_t)TRACE_KINDS << 56);
    atomic_store(&scene.ring->slots[1].took, (uint64_t)TRACE_WHATS << 48);
    atomic_store(&scene.ring->slots[2].start_ns, UINT64_MAX);
    assert_int_equal(trace_read(&scene.reader, out, 4, &lost), 1);
    expect_made(&out[0]);
    assert_int_equal(lost, 3);
    atomic_store(&scene.ring->n, 1); /* backwards */
    assert_int_equal(trace_read(&scene.reader, out, 4, &lost), 0);
    assert_int_equal(lost, 4);
    atomic_store(&scene.ring->n, UINT64_MAX); /* and far ahead: it ends all the same */
    while (trace_read(&scene.reader, out, 4, &lost) > 0) {
    }
    assert_true(lost > UINT32_MAX);
    end(&scene);
}

enum { RACED = 100 * TRACE_SLOTS };

static void *write_all(void *arg)
{
    struct scene *scene = arg;

    for (uint64_t i = 0; i < RACED; i++) {
        struct trace_record record = made(i);

        trace_write(&scene->writer, &record);
    }
    return NULL;
}

/* A reader beside a writer that does not wait for it: what comes out is whole, in order, and with
 * what was lost it is all. The reader waits until it is a whole lap behind, so that the first slots
 * it reads are those that are being written. */
static void test_race(void **state)
{
    struct trace_record out[1000];
    struct scene scene;
    pthread_t writer;
    uint64_t lost = 0;
    uint64_t n_read = 0;
    uint64_t last = 0;

    (void)state;
    begin(&scene);
    assert_int_equal(pthread_create(&writer, NULL, write_all, &scene), 0);
    while (n_read + lost < RACED) {
        uint32_t n;

        while (atomic_load(&scene.ring->n) <
               MIN(scene.reader.next + TRACE_SLOTS, (uint64_t)RACED)) {
            sched_yield();
        }
        n = trace_read(&scene.reader, out, ARRAY_LEN(out), &lost);

        for (uint32_t k = 0; k < n; k++) {
            expect_made(&out[k]);
            assert_true(n_read + k == 0 || out[k].start_ns > last);
            last = out[k].start_ns;
        }
        n_read += n;
    }
    pthread_join(writer, NULL);
    assert_int_equal(n_read + lost, RACED);
    assert_int_equal(trace_read(&scene.reader, out, 1, &lost), 0);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_and_out), cmocka_unit_test(test_asked),
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_overtaken),
        cmocka_unit_test(test_damaged),    cmocka_unit_test(test_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
