/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second promise over world sizes: N ranks, each a thread with its own device, weights and
 * cache, over the shm collectives. Every rank's share of the logits must be what one rank computes
 * for those rows.
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

#define FIXTURE(name) TEST_SOURCE_DIR "/tests/model/golden/" name

/* Two attention blocks and more, and so many rows at once that operators wait (cpu/row_queue.h). */
enum { N_TOKENS = 132, FEW = 70, MAX_RANKS = 8 };

static const uint64_t WAIT_NS = 120ull * 1000 * 1000 * 1000;

struct rank_run {
    const char *path;
    struct comm *comm; /* NULL: a world of one */
    uint32_t chunk;
    const char *level;
    float *logits; /* [N_TOKENS][vocab], this rank's columns filled in */
    uint32_t vocab;
    uint32_t begin; /* of the columns of the rank whose run it is */
    uint32_t end;
    enum status status;
    struct err err;
};

static enum status collect(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct rank_run *run = arg;

    (void)err;
    memcpy(run->logits + (size_t)pos * run->vocab + run->begin, logits,
           (run->end - run->begin) * sizeof(float));
    return STATUS_OK;
}

static void compute(struct rank_run *run, struct engine *engine)
{
    struct sequence sequence;
    int32_t tokens[N_TOKENS];

    run->begin = model_slice(engine_model(engine))->vocab_begin;
    run->end = model_slice(engine_model(engine))->vocab_end;
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (int32_t)((i * 2654435761u >> 8) % run->vocab);
    }
    sequence_init(&sequence, engine);
    run->status = sequence_extend(
        &sequence,
        &(struct sequence_extend){
            .tokens = tokens, .n = N_TOKENS, .every = true, .logits = collect, .arg = run},
        &run->err);
    sequence_release(&sequence);
}

static void *run_rank(void *arg)
{
    struct rank_run *run = arg;
    struct engine_options options = {
        .path = run->path,
        .n_threads = 1,
        .level = run->level,
        .max_context = N_TOKENS,
        .max_chunk = run->chunk,
        .ops = &cpu_ops,
        .comm = run->comm,
    };
    struct engine *engine = NULL;

    run->status = engine_create(&options, &engine, &run->err);
    if (run->status == STATUS_OK) {
        compute(run, engine);
        engine_destroy(&engine);
    } else if (run->comm != NULL) {
        comm_abort(run->comm);
    }
    return NULL;
}

static uint32_t vocab_of(const char *path)
{
    struct model_config config;
    struct weights *weights = NULL;
    struct err err = {0};

    if (weights_open(path, &weights, &err) != STATUS_OK ||
        model_config_load(weights, &config, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    weights_close(&weights);
    return config.vocab;
}

static void run_world(const char *path, uint32_t n_ranks, const struct rank_run *like,
                      float *logits)
{
    size_t region_bytes = comm_shm_region_bytes(n_ranks);
    void *region = mem_map(region_bytes);
    struct rank_run runs[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    struct comm_id id;

    assert_non_null(region);
    comm_id_make(&id);
    comm_shm_region_init(region, n_ranks, &id);
    for (uint32_t r = 0; r < n_ranks; r++) {
        struct comm_shm_member member = {region, region_bytes, &id, r, n_ranks};
        struct err err = {0};

        runs[r] = *like;
        runs[r].path = path;
        runs[r].logits = logits;
        if (comm_shm_join(&member, &runs[r].comm, &err) != STATUS_OK) {
            fail_msg("%s", err.text);
        }
        runs[r].comm->timeout_ns = WAIT_NS; /* more ranks than cores, and the machine may be busy */
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        pthread_join(threads[r], NULL);
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (runs[r].status != STATUS_OK) {
            fail_msg("%s, rank %u of %u: %s", path, r, n_ranks, runs[r].err.text);
        }
        comm_destroy(&runs[r].comm);
    }
    mem_unmap(region, region_bytes);
}

static void check(const char *path)
{
    static const uint32_t sizes[] = {2, 3, 4, 5, 8, 1};
    uint32_t vocab = vocab_of(path);
    size_t n = (size_t)N_TOKENS * vocab;
    struct rank_run one = {.path = path, .chunk = FEW, .vocab = vocab};

    one.logits = xcalloc(n, sizeof(float));
    run_rank(&one);
    if (one.status != STATUS_OK) {
        fail_msg("%s", one.err.text);
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct rank_run like = {.chunk = i == 0 ? 1 : i % 2 == 0 ? 13 : N_TOKENS, .vocab = vocab};
        float *logits = xcalloc(n, sizeof(float));

        like.level = i == 1 ? "ref" : i == 2 ? "avx2" : NULL;
        run_world(path, sizes[i], &like, logits);
        if (memcmp(logits, one.logits, n * sizeof(float)) != 0) {
            fail_msg("%s: %u ranks differ from one", path, sizes[i]);
        }
        free(logits);
    }
    free(one.logits);
}

/* Heads that do not divide, fewer KV heads than ranks, a vocabulary of one block and of several. */
static void test_world_sizes(void **state)
{
    (void)state;
    check(FIXTURE("llama-f32"));
    check(FIXTURE("llama-bf16"));
    check(FIXTURE("qwen2-bf16"));
    check(FIXTURE("qwen3-bf16"));
    check(FIXTURE("llama-bias-f16"));
    check(FIXTURE("gguf-q4_1"));
    check(FIXTURE("gguf-q8_0"));
    check(FIXTURE("gguf-q4_k"));
    check(FIXTURE("gguf-q6_k"));
    check(FIXTURE("gguf-mixed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_world_sizes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
