/* SPDX-License-Identifier: Apache-2.0 */
/* Rings between processes that die in the middle of a write or scribble over their memory: readers
 * never crash, hang, or return a torn record. Readers map the ring read-only, as ranks do. */
#include "helpers.h"

#include <sys/mman.h>

#include "rpc/plan.h"
#include "rpc/ring_priv.h"

static const struct ring_shape shape = {.n_slots = 2, .slot_bytes = 1000, .epoch = 1};

enum { WORDS = 1000 / 8 };

/* Every word of record n is n, so a mixture of two shows. */
static void fill(uint64_t n, uint64_t *words)
{
    for (uint32_t i = 0; i < WORDS; i++) {
        words[i] = n;
    }
}

static bool is_whole(const struct ring_record *record, const uint64_t *words)
{
    for (uint32_t i = 0; i < record->n_bytes / 8; i++) {
        if (words[i] != record->number) {
            return false;
        }
    }
    return record->n_bytes == 8 * (record->number % (WORDS + 1));
}

static NORETURN void write_for_ever(void *memory, const struct ring_line *line)
{
    struct ring_writer writer;
    uint64_t words[WORDS];

    ring_writer_init(&writer, memory, &shape, &line, 1);
    for (;;) {
        uint64_t number = writer.newest + 1;

        fill(number, words);
        if (ring_publish(&writer, RING_PLAN, words, 8 * (number % (WORDS + 1)), &number, NULL) !=
            STATUS_OK) {
            _exit(1);
        }
    }
}

/* Reads until nothing comes any more; returns how many records were whole. */
static uint64_t read_to_end(struct ring_reader *reader, pid_t child, uint32_t live_us)
{
    uint64_t deadline = clock_ns() + 20000 * MS;
    uint64_t kill_at = clock_ns() + live_us * UINT64_C(1000);
    uint64_t words[WORDS];
    uint64_t n_whole = 0;
    bool killed = false;

    for (;;) {
        struct ring_record record;
        enum status status;
        struct wait wait;

        if (!killed && clock_ns() >= kill_at) {
            assert_int_equal(kill(child, SIGKILL), 0);
            assert_int_equal(waitpid(child, NULL, 0), child);
            killed = true;
        }
        assert_in_range(clock_ns(), 0, deadline);
        wait = wait_rank(killed ? 0 : clock_ns() + 1000 * MS);
        status = ring_read(reader, &wait, words, &record, NULL);
        if (status == STATUS_OK) {
            assert_true(is_whole(&record, words));
            n_whole++;
        } else if (status == STATUS_LINK) {
            reader->next++; /* catch up */
        } else {
            assert_int_equal(status, STATUS_TIMEOUT); /* never STATUS_CORRUPT */
            if (killed) {
                return n_whole;
            }
        }
    }
}

static void test_killed_writer(void **state)
{
    struct random random = random_start("killed writer");
    uint64_t n_whole = 0;
    uint32_t n_torn_slots = 0;

    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 50 : 300); round++) {
        size_t bytes = ring_bytes(&shape);
        struct ring_line *line = shared_memory(sizeof(*line));
        struct ring_reader reader;
        void *writable;
        void *memory;
        pid_t child;
        int fd;

        assert_int_equal(region_create("ring", bytes, &fd, NULL), STATUS_OK);
        assert_int_equal(region_map(fd, bytes, true, &writable, NULL), STATUS_OK);
        child = fork_child();
        if (child == 0) {
            write_for_ever(writable, line);
        }
        region_unmap(writable, bytes);
        assert_int_equal(region_map(fd, bytes, false, &memory, NULL), STATUS_OK);
        close(fd);
        while (ring_reader_init(&reader, memory, &shape, line, NULL) != STATUS_OK) {
            usleep(100);
        }
        n_whole += read_to_end(&reader, child, random_below(&random, 2000));
        for (uint64_t n = 1; n <= shape.n_slots; n++) {
            const struct ring_slot *slot =
                (const struct ring_slot *)((const uint8_t *)memory + sizeof(struct ring_head) +
                                           ring_offset(&shape, n));

            n_torn_slots += slot->number == 0 && slot->what != 0;
        }
        region_unmap(memory, bytes);
        region_unmap(line, sizeof(*line));
    }
    print_message("%llu whole records, %u slots left half written\n", (unsigned long long)n_whole,
                  n_torn_slots);
    assert_true(n_whole > 0);
}

/* A reader that dies asleep leaves nothing that stops or slows the writer for good. */
static void test_killed_reader(void **state)
{
    struct ring_line *lines = shared_memory(2 * sizeof(*lines));
    const struct ring_line *pointers[] = {&lines[0], &lines[1]};
    void *memory = shared_memory(ring_bytes(&shape));
    struct ring_writer writer;
    uint64_t words[WORDS];
    uint64_t number = 0;
    uint64_t start;
    pid_t child;
    struct err err = {0};
    struct wait wait;

    (void)state;
    ring_writer_init(&writer, memory, &shape, pointers, 2);
    child = fork_child();
    if (child == 0) {
        struct ring_reader reader;
        struct ring_record record;
        struct wait ever = wait_rank(UINT64_MAX);

        if (ring_reader_init(&reader, memory, &shape, &lines[0], NULL) == STATUS_OK &&
            ring_read(&reader, &ever, words, &record, NULL) == STATUS_OK) {
            _exit(0);
        }
        _exit(1);
    }
    start = clock_ns();
    while (atomic_load(&lines[0].asleep) == 0) {
        assert_in_range(clock_ns() - start, 0, 10000 * MS);
        usleep(100);
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    start = clock_ns();
    for (uint64_t n = 1; n <= 5000; n++) {
        fill(n, words);
        assert_int_equal(ring_publish(&writer, RING_PLAN, words, 64, &number, NULL), STATUS_OK);
    }
    assert_in_range(clock_ns() - start, 0, 5000 * MS);
    wait = wait_leader(clock_ns() + 20 * MS);
    assert_int_equal(ring_wait_acked(&writer, number, &wait, &err), STATUS_TIMEOUT);
    assert_non_null(strstr(err.text, "rank 0, rank 1: not done with record 5000"));
    region_unmap(memory, ring_bytes(&shape));
    region_unmap(lines, 2 * sizeof(*lines));
}

/* Any bytes in the ring: an error or nothing, and what passes is refused by the plan's hash. */
static void test_scribbled(void **state)
{
    struct random random = random_start("scribbled");
    size_t bytes = ring_bytes(&shape);
    struct ring_line *line = shared_memory(sizeof(*line));
    const struct plan_limits limits = {.max_rows = 8,
                                       .n_slots = 8,
                                       .n_pages = 8,
                                       .page_tokens = 64,
                                       .max_context = 512,
                                       .vocab = 99};
    uint32_t n_passed = 0;

    (void)state;
    for (uint32_t round = 0; round < 2000; round++) {
        uint64_t *memory = shared_memory(bytes);
        const struct ring_line *pointer = line;
        struct ring_writer writer;
        struct ring_reader reader;
        struct ring_record record;
        uint64_t words[WORDS];
        struct wait wait = wait_rank(0);
        struct ring_slot *slot;
        enum status status;
        struct err err = {0};

        ring_writer_init(&writer, memory, &shape, &pointer, 1);
        assert_int_equal(ring_reader_init(&reader, memory, &shape, line, NULL), STATUS_OK);
        for (size_t i = 0; i < bytes / 8; i++) {
            memory[i] = random_next(&random) >> random_below(&random, 64);
        }
        slot = (struct ring_slot *)((uint8_t *)memory + sizeof(struct ring_head));
        if (round % 2 == 0) { /* past the first check */
            slot->number = 1;
        }
        if (round % 4 == 0) {
            slot->what = (uint64_t)RING_PLAN << 32 | random_below(&random, 1200);
        }
        status = ring_read(&reader, &wait, words, &record, &err);
        assert_true(status <= 0);
        if (status == STATUS_OK) {
            struct step_plan plan;
            uint64_t hash;

            n_passed++;
            assert_in_range(record.n_bytes, 0, shape.slot_bytes);
            assert_int_equal(plan_decode(words, record.n_bytes, &limits, &plan, &hash, &err),
                             STATUS_CORRUPT);
        } else {
            assert_string_not_equal(err.text, "");
        }
        region_unmap(memory, bytes);
    }
    assert_true(n_passed > 0);
    region_unmap(line, sizeof(*line));
}

/* A child writes rubbish into the ring while it is read. */
static void test_scribbler(void **state)
{
    struct random random = random_start("scribbler");
    size_t bytes = ring_bytes(&shape);
    uint64_t *memory = shared_memory(bytes);
    struct ring_line *line = shared_memory(sizeof(*line));
    const struct ring_line *pointer = line;
    uint64_t end = clock_ns() + 300 * MS;
    struct ring_writer writer;
    struct ring_reader reader;
    pid_t child;

    (void)state;
    ring_writer_init(&writer, memory, &shape, &pointer, 1);
    assert_int_equal(ring_reader_init(&reader, memory, &shape, line, NULL), STATUS_OK);
    child = fork_child();
    if (child == 0) {
        for (;;) {
            struct ring_slot *slot =
                (struct ring_slot *)((uint8_t *)memory + sizeof(struct ring_head));
            uint64_t value = random_next(&random);

            ((_Atomic uint64_t *)memory)[value % (bytes / 8)] = value >> value % 64;
            slot->number = value % 4;
            slot->what = (value % 5) << 32 | value % 2000;
        }
    }
    while (clock_ns() < end) {
        struct wait wait = wait_rank(clock_ns() + 1 * MS);
        struct ring_record record = {0};
        uint64_t words[WORDS];

        reader.next = 1;
        if (ring_read(&reader, &wait, words, &record, NULL) == STATUS_OK) {
            assert_in_range(record.n_bytes, 0, shape.slot_bytes);
            assert_in_range(record.kind, RING_PLAN, RING_CONTROL);
        }
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    region_unmap(memory, bytes);
    region_unmap(line, sizeof(*line));
}

static void test_region(void **state)
{
    struct err err = {0};
    void *memory;
    void *other = NULL;
    int pipe_fds[2];
    int fd;

    (void)state;
    assert_int_equal(region_create("r", 8192, &fd, NULL), STATUS_OK);
    assert_int_equal(region_map(fd, 8192, true, &memory, NULL), STATUS_OK);
    assert_int_equal(ftruncate(fd, 4096), -1); /* nobody can pull the memory away */
    assert_int_equal(ftruncate(fd, 16384), -1);
    assert_int_equal(region_map(fd, 8193, false, &other, &err), STATUS_CORRUPT);
    assert_string_equal(err.text, "shared memory has 8192 bytes where 8193 are needed");
    assert_int_equal(region_seal(fd, NULL), STATUS_OK);
    assert_int_equal(region_map(fd, 8192, true, &other, &err), STATUS_INVALID);
    assert_null(other);
    assert_int_equal(region_map(fd, 8192, false, &other, NULL), STATUS_OK);
    *(uint32_t *)memory = 5; /* the owner still writes */
    assert_int_equal(*(uint32_t *)other, 5);
    region_unmap(memory, 8192);
    region_unmap(other, 8192);
    close(fd);

    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(region_map(pipe_fds[0], 1, false, &other, &err), STATUS_CORRUPT);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    fd = memfd_create("unsealed", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(region_map(fd, 4096, false, &other, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "is no shared memory of fixed size"));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_writer), cmocka_unit_test(test_killed_reader),
        cmocka_unit_test(test_scribbled),     cmocka_unit_test(test_scribbler),
        cmocka_unit_test(test_region),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
