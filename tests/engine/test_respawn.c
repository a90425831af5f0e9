/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives its rank: weights and KV pages in memfds. A world whose ranks (threads, each
 * with its own device) load into memfds, and one whose ranks find them filled, must compute what a
 * plain load computes; what is not exactly this rank's must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "comm/shm.h"
#include "cpu/cpu.h"
#include "engine/engine.h"

#define FIXTURE(name) TEST_SOURCE_DIR "/tests/model/golden/" name

enum {
    N_TOKENS = 70,
    MAX_RANKS = 3,
    CHUNK = 16,
    N_PAGES = 2,
    SEALS = F_SEAL_SHRINK | F_SEAL_WRITE
};

/* The memory of a world: what a leader owns. */
struct memory {
    int weights[MAX_RANKS];
    int kv[MAX_RANKS];
    int host;
};

/* What the ranks of a world do: positions [begin, end), into logits [N_TOKENS][vocab]. */
struct job {
    const char *path; /* NULL: random weights of config */
    struct model_config config;
    const struct memory *memory; /* NULL: plain */
    bool keep_weights;
    bool keep_host;
    bool keep_kv;
    bool kv_given;
    enum kv_type kv;
    uint32_t begin;
    uint32_t end;
    float *logits;
};

struct rank_run {
    const struct job *job;
    struct comm *comm; /* NULL: a world of one */
    uint64_t load_bytes;
    uint64_t state_hash;
    uint32_t n_watched;
    enum status status;
    struct err err;
};

static int make_memfd(void)
{
    int fd = memfd_create("lockstep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    return fd;
}

static void memory_init(struct memory *memory)
{
    memory->host = make_memfd();
    for (int r = 0; r < MAX_RANKS; r++) {
        memory->weights[r] = make_memfd();
        memory->kv[r] = make_memfd();
    }
}

static void memory_release(struct memory *memory)
{
    close(memory->host);
    for (int r = 0; r < MAX_RANKS; r++) {
        close(memory->weights[r]);
        close(memory->kv[r]);
    }
}

static void memory_seal(const struct memory *memory, uint32_t n_ranks)
{
    assert_int_equal(fcntl(memory->host, F_ADD_SEALS, SEALS), 0);
    for (uint32_t r = 0; r < n_ranks; r++) {
        assert_int_equal(fcntl(memory->weights[r], F_ADD_SEALS, SEALS), 0);
    }
}

static void count_watch(void *arg, uint32_t layer)
{
    struct rank_run *run = arg;

    if (run->n_watched++ != layer) {
        run->n_watched = UINT32_MAX / 2;
    }
}

static void keep_logits(const struct job *job, struct engine *engine, uint32_t pos,
                        const float *logits)
{
    const struct shard_slice *slice = model_slice(engine_model(engine));

    memcpy(job->logits + (size_t)pos * engine_config(engine)->vocab + slice->vocab_begin, logits,
           (slice->vocab_end - slice->vocab_begin) * sizeof(float));
}

static enum status step(struct rank_run *run, struct engine *engine, uint32_t pos, uint32_t n)
{
    static const uint32_t pages[N_PAGES] = {1, 0};
    const struct ops_segment segment = {0, n, pos, pages};
    struct model_want wants[CHUNK];
    int32_t tokens[CHUNK];
    enum status status;

    for (uint32_t i = 0; i < n; i++) {
        wants[i] = (struct model_want){.row = i};
        tokens[i] = (int32_t)(((pos + i) * 2654435761u >> 8) % engine_config(engine)->vocab);
    }
    run->n_watched = 0;
    status = engine_step(engine,
                         &(struct model_step){.tokens = tokens,
                                              .n_tokens = n,
                                              .segments = &segment,
                                              .n_segments = 1,
                                              .wants = wants,
                                              .n_wants = n,
                                              .watch = count_watch,
                                              .watch_arg = run},
                         &run->err);
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        keep_logits(run->job, engine, pos + i, wants[i].logits);
    }
    run->state_hash = engine_state_hash(engine, n);
    return status;
}

static enum status compute(struct rank_run *run, struct engine *engine)
{
    const struct job *job = run->job;
    enum status status = STATUS_OK;

    for (uint32_t page = 0; page < N_PAGES && !job->keep_kv && status == STATUS_OK; page++) {
        status = engine_page_clear(engine, page, &run->err);
    }
    for (uint32_t pos = job->begin; pos < job->end && status == STATUS_OK; pos += CHUNK) {
        status = step(run, engine, pos, MIN(job->end - pos, (uint32_t)CHUNK));
    }
    return status;
}

static void *run_rank(void *arg)
{
    struct rank_run *run = arg;
    const struct job *job = run->job;
    uint32_t rank = run->comm == NULL ? 0 : run->comm->rank;
    struct engine_memory memory = {.keep_weights = job->keep_weights,
                                   .keep_host = job->keep_host,
                                   .keep_kv = job->keep_kv,
                                   .kv_pages = N_PAGES};
    struct engine_options options = {
        .path = job->path,
        .n_threads = 2,
        .max_context = N_TOKENS,
        .max_chunk = CHUNK,
        .max_wants = CHUNK,
        .kv_given = job->kv_given,
        .kv = job->kv,
        .ops = &cpu_ops,
        .comm = run->comm,
        .memory = job->memory == NULL ? NULL : &memory,
    };
    struct engine *engine = NULL;

    if (job->memory != NULL) {
        memory.weights_fd = job->memory->weights[rank];
        memory.kv_fd = job->memory->kv[rank];
        memory.host_fd = job->memory->host;
    }
    run->status = job->path == NULL
                      ? engine_create_random(&options, &job->config, &engine, &run->err)
                      : engine_create(&options, &engine, &run->err);
    if (run->status == STATUS_OK) {
        run->load_bytes = engine_load_bytes(engine);
        run->status = engine_memory_finish(engine, &run->err);
    }
    if (run->status == STATUS_OK && run->comm != NULL) { /* the embedding is whole after this */
        run->status = comm_barrier(run->comm, &run->err);
    }
    if (run->status == STATUS_OK) {
        run->status = compute(run, engine);
    } else if (run->comm != NULL) {
        comm_abort(run->comm);
    }
    engine_destroy(&engine);
    return NULL;
}

/* Runs the job on n_ranks ranks and fills runs. */
static void run_world(const struct job *job, uint32_t n_ranks, struct rank_run *runs)
{
    size_t region_bytes = comm_shm_region_bytes(n_ranks);
    void *region = mem_map(region_bytes);
    pthread_t threads[MAX_RANKS];
    struct comm_id id;

    assert_non_null(region);
    comm_id_make(&id);
    comm_shm_region_init(region, n_ranks, &id);
    for (uint32_t r = 0; r < n_ranks; r++) {
        struct comm_shm_member member = {region, region_bytes, &id, r, n_ranks};

        runs[r] = (struct rank_run){.job = job};
        assert_int_equal(comm_shm_join(&member, &runs[r].comm, NULL), STATUS_OK);
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        pthread_join(threads[r], NULL);
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        comm_destroy(&runs[r].comm);
    }
    mem_unmap(region, region_bytes);
}

static void expect_ok(const struct job *job, uint32_t n_ranks, struct rank_run *runs)
{
    run_world(job, n_ranks, runs);
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (runs[r].status != STATUS_OK) {
            fail_msg("%s, rank %u of %u: %s", job->path == NULL ? "random" : job->path, r, n_ranks,
                     runs[r].err.text);
        }
        assert_int_equal(runs[r].n_watched, job->config.n_layers + 1);
        assert_int_equal(runs[r].state_hash, runs[0].state_hash);
    }
}

/* Columns of attn_out for a rank's heads, in whole quantisation groups. */
static uint64_t columns_read(const struct shard_slice *slice, uint32_t head_dim, uint32_t group)
{
    uint32_t begin = slice->head_begin * head_dim / group * group;

    return slice->head_begin == slice->head_end
               ? 0
               : round_up(slice->head_end * head_dim, group) - begin;
}

/* Bytes of a checkpoint that the ranks of a world read: every tensor once, but vectors once a rank,
 * keys and values of a KV head that several ranks need once each, and likewise a quantisation group
 * of attn_out that is cut between heads. */
static uint64_t bytes_to_read(const char *path, struct model_config *ret_config, uint32_t n_ranks)
{
    struct weights *weights = NULL;
    struct model_config *c = ret_config;
    const struct weights_tensor *out;
    uint64_t n_kv_held = 0;
    uint64_t n_out_cols = 0;
    uint64_t bytes = 0;

    assert_int_equal(weights_open(path, &weights, NULL), STATUS_OK);
    assert_int_equal(model_config_load(weights, c, NULL), STATUS_OK);
    assert_int_equal(model_tensor_find(c, weights, MODEL_ATTN_OUT, 0, &out, NULL), STATUS_OK);
    for (uint32_t r = 0; r < n_ranks; r++) {
        struct model_share share;

        assert_int_equal(
            model_share_of(weights, c, &(struct model_place){r, n_ranks, false}, &share, NULL),
            STATUS_OK);
        n_kv_held += share.slice.kv_end - share.slice.kv_begin;
        n_out_cols += columns_read(&share.slice, c->head_dim, dtype_info(out->dtype)->group);
    }
    for (unsigned i = 0; i < MODEL_TENSOR_COUNT; i++) {
        struct model_tensor_shape shape = model_tensor_shape(c, (enum model_tensor)i);
        uint32_t n = shape.per_layer ? c->n_layers : 1;

        for (uint32_t layer = 0; layer < n && shape.wanted; layer++) {
            const struct weights_tensor *found;

            assert_int_equal(
                model_tensor_find(c, weights, (enum model_tensor)i, layer, &found, NULL),
                STATUS_OK);
            bytes += !shape.matrix ? found->bytes * n_ranks
                     : i == MODEL_ATTN_K || i == MODEL_ATTN_V
                         ? found->bytes / c->n_kv_heads * n_kv_held
                     : i == MODEL_ATTN_OUT ? found->bytes * n_out_cols / found->dims[1]
                                           : found->bytes;
        }
    }
    weights_close(&weights);
    return bytes;
}

static uint64_t bytes_read(const struct rank_run *runs, uint32_t n_ranks)
{
    uint64_t bytes = 0;

    for (uint32_t r = 0; r < n_ranks; r++) {
        bytes += runs[r].load_bytes;
    }
    return bytes;
}

/* The logits of the plain engine. */
static float *reference(const struct job *like)
{
    struct job job = *like;
    struct rank_run run = {.job = &job};

    job.memory = NULL;
    job.logits = xcalloc((size_t)N_TOKENS * job.config.vocab, sizeof(float));
    run_rank(&run);
    if (run.status != STATUS_OK) {
        fail_msg("%s", run.err.text);
    }
    return job.logits;
}

static void expect_equal(const struct job *job, const float *expected, const char *what)
{
    size_t row = job->config.vocab;

    if (memcmp(job->logits + job->begin * row, expected + job->begin * row,
               (job->end - job->begin) * row * sizeof(float)) != 0) {
        fail_msg("%s: %s differs", job->path == NULL ? "random" : job->path, what);
    }
    memset(job->logits, 0, N_TOKENS * row * sizeof(float));
}

/* Memory that outlives the ranks, and room for the logits. */
static void job_begin(struct job *job, struct memory *memory)
{
    memory_init(memory);
    job->memory = memory;
    job->logits = xcalloc((size_t)N_TOKENS * job->config.vocab, sizeof(float));
}

/* Load, respawn, respawn in the middle of a sequence. */
static void check_world(struct job job, uint32_t n_ranks)
{
    uint64_t bytes = bytes_to_read(job.path, &job.config, n_ranks);
    struct rank_run runs[MAX_RANKS];
    struct memory memory;
    float *expected = reference(&job);

    job_begin(&job, &memory);
    expect_ok(&job, n_ranks, runs);
    expect_equal(&job, expected, "the first load");
    assert_int_equal(bytes_read(runs, n_ranks), bytes);
    memory_seal(&memory, n_ranks);

    job.keep_weights = job.keep_host = true;
    expect_ok(&job, n_ranks, runs);
    expect_equal(&job, expected, "what was kept");
    assert_int_equal(bytes_read(runs, n_ranks), 0);

    job.end = 41; /* a KV page that is begun anew, then kept */
    expect_ok(&job, n_ranks, runs);
    expect_equal(&job, expected, "the first part");
    job.keep_kv = true;
    job.begin = 41;
    job.end = N_TOKENS;
    expect_ok(&job, n_ranks, runs);
    expect_equal(&job, expected, "the part after the respawn");
    memory_release(&memory);
    free(job.logits);
    free(expected);
}

static void test_worlds(void **state)
{
    static const char *const paths[] = {FIXTURE("llama-bf16"), FIXTURE("llama-f32"),
                                        FIXTURE("qwen2-bf16"), FIXTURE("gguf-q4_1"),
                                        FIXTURE("gguf-q8_0")};
    uint32_t n_tied = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct model_config config;

        bytes_to_read(paths[i], &config, 1);
        n_tied += config.tied;
        for (uint32_t n = 1; n <= MAX_RANKS; n++) {
            check_world((struct job){.path = paths[i], .end = N_TOKENS}, n);
        }
    }
    assert_in_range(n_tied, 1, ARRAY_LEN(paths) - 1);
}

static void test_worlds_with_kv_of_integers(void **state)
{
    struct job job = {
        .path = FIXTURE("llama-f32"), .end = N_TOKENS, .kv_given = true, .kv = KV_INT8};

    (void)state;
    check_world(job, 2);
    job.path = FIXTURE("gguf-q8_0");
    check_world(job, 1);
}

/* A world rebuilt on fewer ranks: other shares of the weights, but the same embedding. */
static void test_fewer_ranks(void **state)
{
    struct job job = {.path = FIXTURE("llama-bf16"), .end = N_TOKENS};
    uint64_t bytes = bytes_to_read(job.path, &job.config, 2);
    size_t embed_bytes = (size_t)job.config.vocab * job.config.hidden * sizeof(uint16_t);
    struct rank_run runs[MAX_RANKS];
    struct memory memory;
    float *expected = reference(&job);

    (void)state;
    job_begin(&job, &memory);
    expect_ok(&job, 3, runs);
    job.keep_host = true;
    memset(job.logits, 0, (size_t)N_TOKENS * job.config.vocab * sizeof(float));
    expect_ok(&job, 2, runs);
    expect_equal(&job, expected, "a world of fewer ranks");
    assert_int_equal(bytes_read(runs, 2), bytes - embed_bytes);
    memory_release(&memory);
    free(job.logits);
    free(expected);
}

/* Heads and a vocabulary that do not divide; a last panel and a last block that are not full. */
static const struct model_config random_config = {
    .arch = MODEL_LLAMA,
    .n_layers = 2,
    .hidden = 96,
    .n_heads = 5,
    .n_kv_heads = 5,
    .head_dim = 16,
    .ffn = 200,
    .vocab = 2100,
    .max_context = 128,
    .norm_eps = 1e-5f,
    .rope = {.theta = 1e4, .factor = 1, .attention_factor = 1},
};

static void check_random(bool tied)
{
    struct job job = {.config = random_config, .end = N_TOKENS};
    struct rank_run runs[MAX_RANKS];
    struct memory memory;
    float *expected;

    job.config.tied = tied;
    expected = reference(&job);
    job.logits = xcalloc((size_t)N_TOKENS * job.config.vocab, sizeof(float));
    for (uint32_t n = 2; n <= MAX_RANKS; n++) {
        job.memory = NULL;
        job.keep_weights = job.keep_host = false;
        expect_ok(&job, n, runs);
        expect_equal(&job, expected, "another number of ranks");
        memory_init(&memory);
        job.memory = &memory;
        expect_ok(&job, n, runs);
        expect_equal(&job, expected, "kept memory");
        memory_seal(&memory, n);
        job.keep_weights = job.keep_host = true;
        expect_ok(&job, n, runs);
        expect_equal(&job, expected, "what was kept");
        memory_release(&memory);
    }
    free(job.logits);
    free(expected);
}

static void test_random(void **state)
{
    (void)state;
    check_random(true);
    check_random(false);
}

/* One field of the configuration more or less, and nothing of it may be kept. */
static void test_other_model(void **state)
{
    struct job job = {.config = random_config, .end = N_TOKENS};
    struct rank_run runs[MAX_RANKS];
    struct memory memory;

    (void)state;
    job_begin(&job, &memory);
    expect_ok(&job, 2, runs);
    job.keep_weights = job.keep_host = true;
    job.config.norm_eps = 1e-6f;
    run_world(&job, 2, runs);
    assert_int_equal(runs[0].status, STATUS_INVALID);
    assert_non_null(strstr(runs[0].err.text, "another model"));
    assert_int_equal(runs[1].status, STATUS_INVALID);

    job.config.norm_eps = random_config.norm_eps; /* another number of ranks */
    run_world(&job, 1, runs);
    assert_int_equal(runs[0].status, STATUS_INVALID);
    job.config.norm_eps = 1e-6f; /* weights and embedding anew, but the KV pages of before */
    job.keep_weights = job.keep_host = false;
    job.keep_kv = true;
    run_world(&job, 2, runs);
    assert_int_equal(runs[0].status, STATUS_INVALID);
    assert_non_null(strstr(runs[0].err.text, "KV pages: holds another model"));
    memory_release(&memory);
    free(job.logits);
}

/* Kept KV pages of another type are refused, however large. */
static void test_other_kv_type(void **state)
{
    struct job job = {.config = random_config, .end = 10, .kv_given = true, .kv = KV_INT8};
    struct rank_run runs[MAX_RANKS];
    struct memory memory;

    (void)state;
    job_begin(&job, &memory);
    expect_ok(&job, 2, runs);
    job.keep_weights = job.keep_host = job.keep_kv = true;
    job.kv = KV_BF16;
    run_world(&job, 2, runs);
    assert_int_equal(runs[0].status, STATUS_INVALID);
    assert_non_null(strstr(runs[0].err.text, "KV pages"));
    job.kv = KV_INT8;
    expect_ok(&job, 2, runs);
    memory_release(&memory);
    free(job.logits);
}

/* A result that is not a number ends the step on all ranks, also on one without a row of the
 * vocabulary, and none waits for another. */
static void test_nan(void **state)
{
    struct job job = {.config = random_config, .end = 1};
    struct rank_run runs[MAX_RANKS];

    (void)state;
    job.config.vocab = 1000;
    job.config.norm_eps = NAN;
    run_world(&job, 2, runs);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(runs[r].status, STATUS_NUMERIC);
        assert_non_null(strstr(runs[r].err.text, "layer 0"));
    }
}

/* A file that was written to since is another model, even if it looks the same. */
static void test_changed_file(void **state)
{
    char path[] = "/tmp/lockstep-test-XXXXXX";
    struct job job = {.path = path, .end = 1};
    struct rank_run run = {.job = &job};
    struct buf data = {0};
    struct memory memory;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(file_read_all(FIXTURE("gguf-q4_1/model.gguf"), 1 << 24, &data, NULL),
                     STATUS_OK);
    assert_int_equal(write(fd, data.data, data.len), data.len);
    memory_init(&memory);
    job.memory = &memory;
    bytes_to_read(path, &job.config, 1);
    job.logits = xcalloc((size_t)N_TOKENS * job.config.vocab, sizeof(float));
    run_rank(&run);
    assert_int_equal(run.status, STATUS_OK);
    job.keep_weights = job.keep_host = true;
    run_rank(&run);
    assert_int_equal(run.status, STATUS_OK);
    assert_int_equal(run.load_bytes, 0);
    assert_int_equal(futimens(fd, (const struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}), 0);
    run_rank(&run);
    assert_int_equal(run.status, STATUS_INVALID);
    assert_non_null(strstr(run.err.text, "another model"));
    memory_release(&memory);
    free(job.logits);
    buf_release(&data);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),        cmocka_unit_test(test_worlds_with_kv_of_integers),
        cmocka_unit_test(test_other_kv_type), cmocka_unit_test(test_fewer_ranks),
        cmocka_unit_test(test_random),        cmocka_unit_test(test_other_model),
        cmocka_unit_test(test_changed_file),  cmocka_unit_test(test_nan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
