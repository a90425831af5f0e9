/* SPDX-License-Identifier: Apache-2.0 */
/* The ring between threads (also under the thread sanitizer): order, sizes, overrun, sleeping,
 * acknowledgements, stopping. */
#include "helpers.h"

#include <pthread.h>

#include "rpc/ring_priv.h"

struct rig {
    struct ring_shape shape;
    void *memory;
    struct ring_line *lines; /* [n_readers] */
    struct ring_writer writer;
    uint32_t n_readers;
};

static void open_rig(struct rig *rig, uint32_t n_readers, uint32_t n_slots, uint32_t slot_bytes)
{
    const struct ring_line *lines[RING_MAX_READERS];

    *rig = (struct rig){.shape = {.n_slots = n_slots, .slot_bytes = slot_bytes, .epoch = 3},
                        .n_readers = n_readers};
    rig->memory = shared_memory(ring_bytes(&rig->shape));
    rig->lines = shared_memory(RING_MAX_READERS * sizeof(struct ring_line));
    for (uint32_t i = 0; i < n_readers; i++) {
        lines[i] = &rig->lines[i];
    }
    ring_writer_init(&rig->writer, rig->memory, &rig->shape, lines, n_readers);
}

static void close_rig(struct rig *rig)
{
    region_unmap(rig->memory, ring_bytes(&rig->shape));
    region_unmap(rig->lines, RING_MAX_READERS * sizeof(struct ring_line));
}

static void attach(struct rig *rig, uint32_t i, struct ring_reader *reader)
{
    assert_int_equal(ring_reader_init(reader, rig->memory, &rig->shape, &rig->lines[i], NULL),
                     STATUS_OK);
}

/* Record n: its length and every byte follow from n, so a torn one shows. */
static size_t fill(uint64_t n, size_t max, uint8_t *out)
{
    size_t bytes = (size_t)(n * 2654435761u % (max + 1));

    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(n + i * (n | 1));
    }
    return bytes;
}

static bool is_record(uint64_t n, const uint8_t *bytes, size_t n_bytes, size_t max)
{
    uint8_t expected[4096];

    return n_bytes == fill(n, max, expected) && memcmp(bytes, expected, n_bytes) == 0;
}

static uint64_t publish(struct rig *rig)
{
    uint8_t bytes[4096];
    size_t n = fill(rig->writer.newest + 1, rig->shape.slot_bytes, bytes);
    uint64_t number = 0;

    assert_int_equal(ring_publish(&rig->writer, RING_PLAN, bytes, n, &number, NULL), STATUS_OK);
    return number;
}

static struct wait in(uint64_t ms)
{
    return wait_rank(clock_ns() + ms * MS);
}

static void test_shape(void **state)
{
    static const struct ring_shape bad[] = {
        {1, 8, 0}, {65537, 8, 0}, {2, 0, 0}, {2, (1 << 24) + 1, 0}};
    struct ring_shape good = {.n_slots = 2, .slot_bytes = 1};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(ring_bytes(&bad[i]), 0);
    }
    assert_int_equal(ring_bytes(&good), 2 * 128 + 2 * 128);
    good.slot_bytes = 113;
    assert_int_equal(ring_bytes(&good), 2 * 128 + 2 * 256);
    assert_int_equal(sizeof(struct ring_line), RING_LINE_BYTES);
}

static void test_in_turn(void **state)
{
    struct rig rig;
    struct ring_reader reader;
    uint64_t out[4096 / 8];
    uint8_t long_record[200] = {0};
    struct err err = {0};

    (void)state;
    for (uint32_t slot_bytes = 1; slot_bytes <= 150; slot_bytes += 7) {
        open_rig(&rig, 1, 3, slot_bytes);
        attach(&rig, 0, &reader);
        for (uint64_t n = 1; n <= 50; n++) {
            struct wait wait = in(1000);
            struct ring_record record;

            assert_int_equal(publish(&rig), n);
            assert_int_equal(ring_read(&reader, &wait, out, &record, NULL), STATUS_OK);
            assert_int_equal(record.number, n);
            assert_int_equal(record.kind, RING_PLAN);
            assert_true(is_record(n, (uint8_t *)out, record.n_bytes, slot_bytes));
        }
        assert_int_equal(
            ring_publish(&rig.writer, RING_PLAN, long_record, slot_bytes + 1, &(uint64_t){0}, &err),
            STATUS_LIMIT);
        assert_non_null(strstr(err.text, "a slot of the ring has"));
        assert_int_equal(rig.writer.newest, 50);
        close_rig(&rig);
    }
}

static void test_overrun(void **state)
{
    struct rig rig;
    struct ring_reader reader;
    struct ring_record record;
    uint64_t out[8];
    struct err err = {0};
    struct wait wait = in(1000);

    (void)state;
    open_rig(&rig, 1, 4, 64);
    attach(&rig, 0, &reader);
    for (int i = 0; i < 4; i++) { /* the whole ring may be unread */
        publish(&rig);
    }
    assert_int_equal(ring_read(&reader, &wait, out, &record, &err), STATUS_OK);
    publish(&rig);
    assert_int_equal(ring_read(&reader, &wait, out, &record, &err), STATUS_OK);
    publish(&rig);
    publish(&rig);
    assert_int_equal(ring_read(&reader, &wait, out, &record, &err), STATUS_LINK);
    assert_string_equal(err.text, "overrun: record 3 was overwritten before it was read");
    assert_int_equal(reader.next, 3);
    close_rig(&rig);
}

static void test_attach(void **state)
{
    struct rig rig;
    struct ring_reader reader;
    struct ring_shape other;
    struct err err = {0};

    (void)state;
    open_rig(&rig, 1, 4, 64);
    other = rig.shape;
    other.n_slots = 5;
    assert_int_equal(ring_reader_init(&reader, rig.memory, &other, rig.lines, &err),
                     STATUS_CORRUPT);
    assert_string_equal(err.text, "there is no ring of 5 slots of 64 bytes");
    other = rig.shape;
    other.epoch = 2;
    assert_int_equal(ring_reader_init(&reader, rig.memory, &other, rig.lines, &err),
                     STATUS_CORRUPT);
    assert_string_equal(err.text, "the ring is of epoch 3, this is 2");
    ((struct ring_head *)rig.memory)->magic = 0;
    assert_int_equal(ring_reader_init(&reader, rig.memory, &rig.shape, rig.lines, &err),
                     STATUS_CORRUPT);
    close_rig(&rig);
}

static void test_acknowledgements(void **state)
{
    struct rig rig;
    struct ring_reader readers[3];
    uint64_t out[8];
    struct err err = {0};
    uint64_t acked = 99;

    (void)state;
    open_rig(&rig, 3, 4, 64);
    publish(&rig);
    for (uint32_t i = 0; i < 3; i++) {
        struct ring_record record;
        struct wait wait = in(1000);

        attach(&rig, i, &readers[i]);
        assert_int_equal(ring_read(&readers[i], &wait, out, &record, NULL), STATUS_OK);
    }
    ring_ack(&readers[1], 1);
    assert_int_equal(ring_acked(&rig.writer, 1, &acked, NULL), STATUS_OK);
    assert_int_equal(acked, 1);
    assert_int_equal(ring_acked(&rig.writer, 2, &acked, NULL), STATUS_OK);
    assert_int_equal(acked, 0);
    {
        struct wait wait = wait_leader(clock_ns() + 10 * MS);

        assert_int_equal(ring_wait_acked(&rig.writer, 1, &wait, &err), STATUS_TIMEOUT);
        assert_string_equal(err.text, "rank 0, rank 2: not done with record 1");
    }
    ring_ack(&readers[0], 1);
    rig.lines[2].acked = 7; /* a rank that scribbles */
    {
        struct wait wait = wait_leader(clock_ns() + 10 * MS);

        assert_int_equal(ring_wait_acked(&rig.writer, 1, &wait, &err), STATUS_LINK);
        assert_string_equal(err.text, "rank 2 acknowledged record 7 of 1");
    }
    rig.lines[2].acked = 0;
    ring_ack(&readers[2], 1);
    {
        struct wait wait = wait_leader(clock_ns());

        assert_int_equal(ring_wait_acked(&rig.writer, 1, &wait, &err), STATUS_OK);
    }
    close_rig(&rig);
}

/* ---- threads ---- */

struct echo {
    struct rig *rig;
    uint32_t i;
    uint64_t until;
    struct random random; /* pauses of the reader, so that either side sleeps at times */
    uint64_t failed_at;
};

static void *read_and_ack(void *arg)
{
    struct echo *echo = arg;
    uint64_t out[4096 / 8];
    struct ring_reader reader;

    if (ring_reader_init(&reader, echo->rig->memory, &echo->rig->shape, &echo->rig->lines[echo->i],
                         NULL) != STATUS_OK) {
        echo->failed_at = UINT64_MAX;
        return NULL;
    }
    for (uint64_t n = 1; n <= echo->until; n++) {
        struct wait wait = in(20000);
        struct ring_record record = {0};

        if (ring_read(&reader, &wait, out, &record, NULL) != STATUS_OK || record.number != n ||
            !is_record(n, (uint8_t *)out, record.n_bytes, echo->rig->shape.slot_bytes)) {
            echo->failed_at = n;
            return NULL;
        }
        if (random_below(&echo->random, 100) == 0) {
            usleep(random_below(&echo->random, 3000));
        }
        ring_ack(&reader, n);
    }
    return NULL;
}

/* Lockstep: the writer waits for all acknowledgements before the next record. */
static void run_lockstep(uint32_t n_readers, uint32_t n_records, struct random *random)
{
    struct rig rig;
    struct echo echoes[16];
    pthread_t threads[16];
    struct err err = {0};

    open_rig(&rig, n_readers, 2, 1000);
    for (uint32_t i = 0; i < n_readers; i++) {
        echoes[i] = (struct echo){
            .rig = &rig, .i = i, .until = n_records, .random = {.state = random_next(random)}};
        assert_int_equal(pthread_create(&threads[i], NULL, read_and_ack, &echoes[i]), 0);
    }
    for (uint32_t n = 1; n <= n_records; n++) {
        struct wait wait = n % 2 == 0 ? in(20000) : wait_leader(clock_ns() + 20000 * MS);

        if (random_below(random, 50) == 0) {
            usleep(random_below(random, 3000)); /* longer than they spin and yield */
        }
        if (ring_wait_acked(&rig.writer, publish(&rig), &wait, &err) != STATUS_OK) {
            fail_msg("%s", err.text);
        }
    }
    for (uint32_t i = 0; i < n_readers; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(echoes[i].failed_at, 0);
        assert_int_equal(rig.lines[i].asleep, 0);
    }
    close_rig(&rig);
}

static void test_lockstep(void **state)
{
    struct random random = random_start("lockstep");

    (void)state;
    run_lockstep(1, SANITIZED ? 1000 : 10000, &random);
    run_lockstep(2, SANITIZED ? 300 : 1000, &random);
    run_lockstep(7, SANITIZED ? 50 : 200, &random); /* more than this machine has cores */
}

struct racer {
    struct rig *rig;
    _Atomic bool stop;
    uint64_t n_read;
    uint64_t n_overruns;
    bool torn;
};

/* Reads as fast as it can, starting again behind the writer after each overrun. */
static void *race(void *arg)
{
    struct racer *racer = arg;
    uint64_t out[4096 / 8];
    struct ring_reader reader;
    enum status status =
        ring_reader_init(&reader, racer->rig->memory, &racer->rig->shape, racer->rig->lines, NULL);

    while (status == STATUS_OK) {
        struct ring_record record;
        struct wait wait = in(5000);

        wait.stop = &racer->stop;
        wait.slice_ns = 1 * MS;
        status = ring_read(&reader, &wait, out, &record, NULL);
        if (status == STATUS_LINK) {
            racer->n_overruns++;
            reader.next++;
            status = STATUS_OK;
        } else if (status == STATUS_OK) {
            racer->n_read++;
            racer->torn = racer->torn || !is_record(record.number, (uint8_t *)out, record.n_bytes,
                                                    racer->rig->shape.slot_bytes);
        }
    }
    return NULL;
}

/* The writer waits for nobody: a reader sees whole records or an overrun, never a torn one. */
static void test_race(void **state)
{
    struct rig rig;
    struct racer racer = {.rig = &rig};
    pthread_t thread;
    uint64_t end = clock_ns() + (SANITIZED ? 1000 : 700) * MS;

    (void)state;
    open_rig(&rig, 1, 2, 600);
    assert_int_equal(pthread_create(&thread, NULL, race, &racer), 0);
    while (clock_ns() < end) {
        publish(&rig);
        if (rig.writer.newest % 64 == 0) {
            usleep(1);
        }
    }
    atomic_store(&racer.stop, true);
    pthread_join(thread, NULL);
    print_message("%llu published, %llu read, %llu overruns\n",
                  (unsigned long long)rig.writer.newest, (unsigned long long)racer.n_read,
                  (unsigned long long)racer.n_overruns);
    assert_false(racer.torn);
    assert_true(racer.n_read > 0);
    assert_true(racer.n_overruns > 0);
    close_rig(&rig);
}

struct sleeper {
    struct rig *rig;
    uint64_t woken_ns;
    bool acks; /* sleeps as the writer, for an acknowledgement */
};

/* Sleeps for up to a minute: only being woken ends it. */
static void *sleep_long(void *arg)
{
    struct sleeper *sleeper = arg;
    struct rig *rig = sleeper->rig;
    struct wait wait = {.deadline_ns = clock_ns() + 60000 * MS, .slice_ns = 60000 * MS};
    enum status status;

    if (sleeper->acks) {
        status = ring_wait_acked(&rig->writer, 1, &wait, NULL);
    } else {
        struct ring_reader reader;
        struct ring_record record;
        uint64_t out[8];

        status = ring_reader_init(&reader, rig->memory, &rig->shape, rig->lines, NULL);
        if (status == STATUS_OK) {
            status = ring_read(&reader, &wait, out, &record, NULL);
        }
    }
    sleeper->woken_ns = status == STATUS_OK ? clock_ns() : UINT64_MAX;
    return NULL;
}

/* Who sleeps is woken, on both sides. */
static void test_wakes(void **state)
{
    (void)state;
    for (int acks = 0; acks < 2; acks++) {
        struct rig rig;
        struct sleeper sleeper = {.rig = &rig, .acks = acks != 0};
        struct ring_reader reader;
        const _Atomic uint32_t *asleep;
        uint64_t start = clock_ns();
        pthread_t thread;

        open_rig(&rig, 1, 4, 64);
        attach(&rig, 0, &reader);
        if (sleeper.acks) {
            struct ring_record record;
            struct wait wait = in(1000);
            uint64_t out[8];

            publish(&rig);
            assert_int_equal(ring_read(&reader, &wait, out, &record, NULL), STATUS_OK);
        }
        asleep = sleeper.acks ? &rig.writer.head->asleep : &rig.lines[0].asleep;
        assert_int_equal(pthread_create(&thread, NULL, sleep_long, &sleeper), 0);
        while (atomic_load(asleep) == 0) {
            assert_in_range(clock_ns() - start, 0, 10000 * MS);
            usleep(100);
        }
        usleep(20000); /* now surely in the system call */
        start = clock_ns();
        if (sleeper.acks) {
            ring_ack(&reader, 1);
        } else {
            publish(&rig);
        }
        pthread_join(thread, NULL);
        assert_in_range(sleeper.woken_ns - start, 0, 10000 * MS);
        close_rig(&rig);
    }
}

static void *stop_soon(void *arg)
{
    usleep(20000);
    atomic_store((_Atomic bool *)arg, true);
    return NULL;
}

static void test_stop_and_deadline(void **state)
{
    struct rig rig;
    struct ring_reader reader;
    struct ring_record record;
    uint64_t out[8];
    _Atomic bool stop = false;
    struct err err = {0};
    uint64_t start = clock_ns();
    struct wait wait = in(30);
    pthread_t thread;

    (void)state;
    open_rig(&rig, 1, 4, 64);
    attach(&rig, 0, &reader);
    assert_int_equal(ring_read(&reader, &wait, out, &record, &err), STATUS_TIMEOUT);
    assert_string_equal(err.text, "no record 1 in time");
    assert_in_range(clock_ns() - start, 30 * MS, 3000 * MS);
    assert_int_equal(rig.lines[0].asleep, 0);

    wait = in(20000);
    wait.stop = &stop;
    start = clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, &stop), 0);
    assert_int_equal(ring_read(&reader, &wait, out, &record, &err), STATUS_CANCELLED);
    assert_in_range(clock_ns() - start, 0, 5000 * MS);
    pthread_join(thread, NULL);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_in_turn),
        cmocka_unit_test(test_overrun),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_acknowledgements),
        cmocka_unit_test(test_lockstep),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_wakes),
        cmocka_unit_test(test_stop_and_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
