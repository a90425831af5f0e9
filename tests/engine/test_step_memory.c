/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step takes no memory: with two ranks as threads, a prompt in chunks and decoding over many KV
 * pages, nothing in the process asks the allocator for anything, collectives included. The first
 * step is left out: in it the communicator works out how its sums are added, once for each shape.
 * Where malloc is not ours to count (sanitizers, another libc) mem_alloc and mem_map are watched
 * alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/mem.h"
#include "comm/shm.h"
#include "cpu/cpu.h"
#include "engine/sequence.h"
#include "sanitized.h"

#define FIXTURE(name) TEST_SOURCE_DIR "/tests/model/golden/" name

#if defined(__GLIBC__) && !SANITIZED
#define COUNTS_ALL true

/* The allocator's own functions under their other names, which the C library offers for this. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static _Atomic uint64_t n_allocations;

void *malloc(size_t bytes)
{
    n_allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    n_allocations++;
    return __libc_calloc(n, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    n_allocations++;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    n_allocations++;
    return __libc_memalign(alignment, bytes);
}

#else
#define COUNTS_ALL false
static _Atomic uint64_t n_allocations;
#endif

enum { N_RANKS = 2, N_PROMPT = 150, CHUNK = 32, N_TOKENS = 200 };

static const uint64_t WAIT_NS = 120ull * 1000 * 1000 * 1000;

struct scene {
    const char *path;
    pthread_barrier_t barrier;
    uint64_t before;
    uint64_t after;
    bool asked; /* mem_alloc or mem_map was called */
};

struct rank_run {
    struct scene *scene;
    uint32_t rank;
    struct comm *comm;
    enum status status;
    struct err err;
};

/* The steps from one position to another: a prompt's chunks, then token by token. Pages were taken
 * before. */
static void compute(struct rank_run *run, struct sequence *sequence, uint32_t begin, uint32_t end)
{
    struct model_want want;
    int32_t tokens[N_TOKENS];
    struct sequence_extend args = {.tokens = tokens};

    for (uint32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (int32_t)((i * 2654435761u >> 9) % 250);
    }
    for (uint32_t at = begin; at < end && run->status == STATUS_OK;) {
        uint32_t n = at < N_PROMPT ? MIN(CHUNK, N_PROMPT - at) : 1;

        args.n = at + n; /* so that each step ends with logits */
        run->status = sequence_step(sequence, &args, at, n, &want, &run->err);
        at += n;
    }
}

/* Between the two numbers are the steps of both ranks and nothing else. */
static void watch(struct rank_run *run, struct sequence *sequence)
{
    struct scene *scene = run->scene;

    pthread_barrier_wait(&scene->barrier);
    if (run->rank == 0) {
        scene->before = n_allocations;
        mem_fail_next(1);
    }
    pthread_barrier_wait(&scene->barrier);
    if (run->status == STATUS_OK) {
        compute(run, sequence, CHUNK, N_TOKENS);
    }
    pthread_barrier_wait(&scene->barrier);
    if (run->rank == 0) {
        scene->after = n_allocations;
        scene->asked = !mem_fail_pending();
        mem_fail_next(0);
    }
    pthread_barrier_wait(&scene->barrier);
}

static void *run_rank(void *arg)
{
    struct rank_run *run = arg;
    struct engine_options options = {
        .path = run->scene->path,
        .n_threads = 1,
        .max_context = N_TOKENS,
        .max_chunk = CHUNK,
        .ops = &cpu_ops,
        .comm = run->comm,
    };
    struct engine *engine = NULL;
    struct sequence sequence = {0};

    run->status = engine_create(&options, &engine, &run->err);
    if (run->status == STATUS_OK) {
        sequence_init(&sequence, engine);
        run->status = sequence_take_pages(&sequence, N_TOKENS, &run->err);
    }
    if (run->status == STATUS_OK) {
        compute(run, &sequence, 0, CHUNK);
    }
    if (run->status != STATUS_OK) {
        comm_abort(run->comm);
    }
    watch(run, &sequence);
    sequence_release(&sequence);
    engine_destroy(&engine);
    return NULL;
}

static void check(const char *path)
{
    size_t region_bytes = comm_shm_region_bytes(N_RANKS);
    void *region = mem_map(region_bytes);
    struct scene scene = {.path = path};
    struct rank_run runs[N_RANKS] = {0};
    pthread_t threads[N_RANKS];
    struct comm_id id;

    assert_non_null(region);
    assert_int_equal(pthread_barrier_init(&scene.barrier, NULL, N_RANKS), 0);
    comm_id_make(&id);
    comm_shm_region_init(region, N_RANKS, &id);
    for (uint32_t r = 0; r < N_RANKS; r++) {
        struct comm_shm_member member = {region, region_bytes, &id, r, N_RANKS};

        runs[r].scene = &scene;
        runs[r].rank = r;
        assert_int_equal(comm_shm_join(&member, &runs[r].comm, NULL), STATUS_OK);
        runs[r].comm->timeout_ns = WAIT_NS; /* the machine may be busy */
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (uint32_t r = 0; r < N_RANKS; r++) {
        pthread_join(threads[r], NULL);
        comm_destroy(&runs[r].comm);
    }
    for (uint32_t r = 0; r < N_RANKS; r++) {
        if (runs[r].status != STATUS_OK) {
            fail_msg("%s, rank %u: %s", path, r, runs[r].err.text);
        }
    }
    assert_true(scene.before > 0 || !COUNTS_ALL); /* it does count */
    assert_int_equal(scene.after - scene.before, 0);
    assert_false(scene.asked);
    pthread_barrier_destroy(&scene.barrier);
    mem_unmap(region, region_bytes);
}

static void test_a_step_allocates_nothing(void **state)
{
    (void)state;
    check(FIXTURE("llama-bf16"));
    check(FIXTURE("qwen3-f32"));
    check(FIXTURE("gguf-q4_1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_step_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
