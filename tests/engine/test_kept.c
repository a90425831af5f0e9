/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memfds that weights and KV pages are kept in, without a model: what is not exactly what a
 * rank would have made, or was never completed, is refused; sealing; a lack of memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/kept.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_WRITE };

static int make_memfd(void)
{
    int fd = memfd_create("lockstep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    return fd;
}

static struct kept_options options_of(enum kept_kind kind, int fd)
{
    return (struct kept_options){
        .kind = kind, .fd = fd, .bytes = 5 << 20, .identity = 77, .rank = 1, .n_ranks = 3};
}

static struct kept open_ok(const struct kept_options *options)
{
    struct kept kept;
    struct err err = {0};

    if (kept_open(options, &kept, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    return kept;
}

static void finish_ok(struct kept *kept)
{
    struct err err = {0};

    if (kept_finish(kept, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
}

/* A weights memfd of options_of, complete, with one byte set. */
static int complete_memfd(void)
{
    int fd = make_memfd();
    struct kept_options options = options_of(KEPT_WEIGHTS, fd);
    struct kept kept = open_ok(&options);

    assert_int_equal(kept_reserve(&kept, kept.memory, options.bytes, NULL), STATUS_OK);
    ((char *)kept.memory)[options.bytes - 1] = 'x';
    finish_ok(&kept);
    kept_close(&kept);
    return fd;
}

static void expect_refused(const struct kept_options *options, enum status status,
                           const char *message)
{
    struct kept kept = {0};
    struct err err = {0};

    assert_int_equal(kept_open(options, &kept, &err), status);
    if (strstr(err.text, message) == NULL) {
        fail_msg("'%s' does not say '%s'", err.text, message);
    }
    assert_null(kept.memory);
}

static void test_refused(void **state)
{
    int fd = complete_memfd();
    struct kept_options right = options_of(KEPT_WEIGHTS, fd);
    struct kept_options wrong;
    struct kept kept;

    (void)state;
    right.keep = true;
    kept = open_ok(&right);
    assert_int_equal(((char *)kept.memory)[right.bytes - 1], 'x');
    assert_int_equal((uintptr_t)kept.memory % (2 << 20), 0);
    kept_close(&kept);
    wrong = right;
    wrong.identity++;
    expect_refused(&wrong, STATUS_INVALID, "the weights: holds another model's");
    wrong = right;
    wrong.rank = 0;
    expect_refused(&wrong, STATUS_INVALID, "is that of rank 1 of 3, not of rank 0 of 3");
    wrong = right;
    wrong.n_ranks = 2;
    expect_refused(&wrong, STATUS_INVALID, "is that of rank 1 of 3, not of rank 1 of 2");
    wrong = right;
    wrong.bytes -= 1 << 20;
    expect_refused(&wrong, STATUS_INVALID, "bytes, not the");
    wrong = right;
    wrong.bytes--; /* the same number of pages */
    expect_refused(&wrong, STATUS_INVALID, "another model");
    wrong = right;
    wrong.kind = KEPT_KV;
    expect_refused(&wrong, STATUS_INVALID, "layout");
    wrong = right;
    wrong.fd = -1;
    expect_refused(&wrong, STATUS_IO, "the weights");
    assert_int_equal(ftruncate(fd, (off_t)right.bytes), 0);
    expect_refused(&right, STATUS_INVALID, "has 5242880 bytes");
    assert_int_equal(ftruncate(fd, (off_t)right.bytes + 4096), 0); /* the header is gone */
    expect_refused(&right, STATUS_CORRUPT, "never completed");
    close(fd);
}

/* A writer that was killed before it finished leaves nothing that could be kept. */
static void test_incomplete(void **state)
{
    struct kept_options options = options_of(KEPT_WEIGHTS, make_memfd());
    struct kept kept = open_ok(&options);
    struct kept parts[3];

    (void)state;
    memset(kept.memory, 'x', options.bytes);
    kept_close(&kept);
    options.keep = true;
    expect_refused(&options, STATUS_CORRUPT, "never completed");
    options.keep = false; /* and the next load begins with zeroes */
    kept = open_ok(&options);
    assert_int_equal(((char *)kept.memory)[0], 0);
    kept_close(&kept);
    close(options.fd);

    options = options_of(KEPT_EMBEDDING, make_memfd());
    for (uint32_t r = 0; r < 3; r++) {
        options.rank = r;
        parts[r] = open_ok(&options);
        ((char *)parts[r].memory)[r << 20] = (char)('a' + r);
    }
    options.keep = true;
    options.rank = 7; /* of whatever world */
    options.n_ranks = 9;
    finish_ok(&parts[1]);
    expect_refused(&options, STATUS_CORRUPT, "never completed");
    finish_ok(&parts[0]);
    expect_refused(&options, STATUS_CORRUPT, "the embedding: rank 2 never completed its part");
    finish_ok(&parts[2]);
    kept = open_ok(&options);
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(((char *)kept.memory)[r << 20], 'a' + r);
        kept_close(&parts[r]);
    }
    kept_close(&kept);

    options.keep = false; /* begun again by two ranks: what the three wrote does not count */
    options.n_ranks = 2;
    options.rank = 0;
    kept = open_ok(&options);
    finish_ok(&kept);
    kept_close(&kept);
    options.keep = true;
    expect_refused(&options, STATUS_CORRUPT, "rank 1 never completed its part");
    close(options.fd);
}

/* Sealing fails while a rank may write, and works once all have finished; KV pages stay writable.
 */
static void test_seal(void **state)
{
    struct kept_options options = options_of(KEPT_WEIGHTS, make_memfd());
    struct kept kept = open_ok(&options);
    struct kept again;
    void *memory = kept.memory;

    (void)state;
    memset(kept.memory, 'x', options.bytes);
    assert_int_equal(fcntl(options.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EBUSY);
    finish_ok(&kept);
    assert_ptr_equal(kept.memory, memory);
    assert_int_equal(((char *)kept.memory)[4 << 20], 'x');
    assert_int_equal(fcntl(options.fd, F_ADD_SEALS, SEALS), 0);
    expect_refused(&options, STATUS_IO, "cannot be made 5.0 MiB");
    options.keep = true;
    again = open_ok(&options);
    assert_int_equal(fcntl(options.fd, F_GET_SEALS) & SEALS, SEALS);
    kept_close(&again);
    kept_close(&kept);
    close(options.fd);

    options = options_of(KEPT_KV, make_memfd());
    kept = open_ok(&options);
    finish_ok(&kept);
    ((char *)kept.memory)[0] = 'k';
    kept_close(&kept);
    options.keep = true;
    kept = open_ok(&options);
    assert_int_equal(((char *)kept.memory)[0], 'k');
    ((char *)kept.memory)[0] = 'l';
    kept_close(&kept);
    close(options.fd);
}

static void test_no_memory(void **state)
{
    struct kept_options options = options_of(KEPT_KV, make_memfd());
    struct kept kept;
    struct err err = {0};

    (void)state;
    mem_fail_next(1 << 20);
    expect_refused(&options, STATUS_NO_MEMORY, "no memory for the 5.0 MiB of the memory of the KV");
    kept = open_ok(&options);
    mem_fail_next(1 << 20);
    assert_int_equal(kept_reserve(&kept, kept.memory, 2 << 20, &err), STATUS_NO_MEMORY);
    assert_int_equal(kept_reserve(&kept, kept.memory, 2 << 20, &err), STATUS_OK);
    kept_close(&kept);
    options.bytes = SIZE_MAX / 2;
    expect_refused(&options, STATUS_NO_MEMORY, "MiB");
    options.bytes = (size_t)1 << 50; /* more than the address space */
    expect_refused(&options, STATUS_NO_MEMORY, "MiB");
    close(options.fd);
}

/* Memory ahead of its use: once, all of it, and nothing that is there is lost. */
static void test_take_block(void **state)
{
    struct kept_options options = options_of(KEPT_KV, make_memfd());
    struct kept kept = open_ok(&options);
    struct stat before;
    struct stat info;

    (void)state;
    ((char *)kept.memory)[7] = 'k';
    assert_int_equal(fstat(options.fd, &before), 0);
    assert_true(kept_take_block(&kept, 0));
    assert_true(kept_take_block(&kept, 0));
    assert_int_equal(fstat(options.fd, &info), 0);
    assert_true(info.st_blocks * 512 >= KEPT_BLOCK_BYTES);
    assert_int_equal(((char *)kept.memory)[7], 'k');
    assert_true(kept_take_block(&kept, KEPT_BLOCK_BYTES));
    assert_true(kept_take_block(&kept, 2 * KEPT_BLOCK_BYTES)); /* the rest, and the header */
    assert_false(kept_take_block(&kept, 3 * KEPT_BLOCK_BYTES));
    assert_int_equal(fstat(options.fd, &info), 0);
    assert_int_equal(info.st_blocks * 512, kept.map_bytes);
    kept_close(&kept);
    options.keep = true;
    kept = open_ok(&options);
    assert_int_equal(((char *)kept.memory)[7], 'k');
    kept_close(&kept);
    close(options.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_seal),       cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_take_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
