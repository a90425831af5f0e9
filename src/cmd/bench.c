/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench: prefill and decode rates beside the yardsticks of the same run. Each repetition
 * measures everything in turn (memory bandwidth, multiply-add rate, prefill, decode), because a
 * shared machine's speed changes within seconds; medians are reported. The other benchmarks are in
 * bench_comm.c, bench_quality.c and bench_recovery.c.
 */
#include "cmd/bench.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bandwidth.h"
#include "cmd/cmd.h"
#include "cmd/host.h"
#include "cmd/service.h"
#include "cmd/stats.h"
#include "cmd/tuning.h"
#include "cpu/cpu.h"
#include "cpu/peak.h"

enum { BANDWIDTH_MS = 300, PEAK_MS = 50 };

enum figure { READ_BYTES, PEAK_FLOPS, PEAK_BF16, PEAK_INT8, PREFILL, DECODE, FIGURE_COUNT };

struct bench {
    const struct options *options;
    struct service service;
    struct bandwidth *bandwidth;
    struct host host;
    const char *model_name;
    uint32_t n_threads;           /* of a rank */
    double *values[FIGURE_COUNT]; /* [reps] */
    int32_t *prompt;
    uint64_t first_ns; /* when the first token of the present repetition came */
    uint64_t last_ns;
    bool over;
    struct err err;
};

static bool take_token(void *arg, UNUSED const struct batch_token *token)
{
    struct bench *b = arg;

    b->last_ns = clock_ns();
    b->first_ns = b->first_ns == 0 ? b->last_ns : b->first_ns;
    return true;
}

static void take_end(void *arg, enum batch_end end, enum status status, const char *why)
{
    struct bench *b = arg;

    b->over = true;
    if (end == BATCH_FAILED) {
        err_set(&b->err, status, "%s", why);
    }
}

/* What a rank said when it had loaded. */
static const json_t *loaded(struct bench *b, uint32_t rank)
{
    return supervisor_answer(b->service.supervisor, MESSAGE_LOAD_OK, rank);
}

static uint64_t sum_of_ranks(struct bench *b, const char *field)
{
    uint64_t sum = 0;

    for (uint32_t r = 0; r < b->service.n_ranks; r++) {
        sum += message_uint(loaded(b, r), field, 0);
    }
    return sum;
}

/* Packed, over all ranks; the embedding, which they share, once. */
static uint64_t weight_bytes(struct bench *b)
{
    uint64_t shared = message_uint(loaded(b, 0), "host_bytes", 0);

    return sum_of_ranks(b, "weight_bytes") - (b->service.n_ranks - 1) * shared;
}

/* One prompt and its answer, greedily. A new first token each time: nothing is cached. */
static enum status answer(struct bench *b, uint32_t rep, struct err *err)
{
    const struct batch_request request = {
        .params = {.top_p = 1.0f, .repetition_penalty = 1.0f},
        .prompt = b->prompt,
        .n_prompt = (uint32_t)b->options->prompt_tokens,
        .max_generated = (uint32_t)b->options->decode_tokens + 1,
        .token = take_token,
        .end = take_end,
        .arg = b,
    };
    uint64_t id;
    enum status status;

    b->prompt[0] = (int32_t)((rep + 1) % b->service.config.vocab);
    b->first_ns = 0;
    b->over = false;
    status = batch_add(b->service.batch, &request, &id, err);
    while (status == STATUS_OK && !b->over) {
        status = service_turn(&b->service, UINT64_MAX, err);
    }
    if (status == STATUS_OK && b->err.status != STATUS_OK) {
        *err = b->err;
        status = b->err.status;
    }
    return status;
}

/* One of the rates of cpu/peak.h. */
typedef double peak_fn(enum cpu_level level, uint32_t ms);

struct peak_job {
    peak_fn *peak;
    enum cpu_level level;
    double rate;
};

static void *run_peak(void *arg)
{
    struct peak_job *job = arg;

    job->rate = job->peak(job->level, PEAK_MS);
    return NULL;
}

/* The rate of n threads at once. */
static double peak_of(peak_fn *peak, enum cpu_level level, uint32_t n)
{
    struct peak_job *jobs = xcalloc(n, sizeof(*jobs));
    pthread_t *threads = xcalloc(n, sizeof(*threads));
    uint32_t started = 1;
    double sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        jobs[i] = (struct peak_job){.peak = peak, .level = level};
    }
    while (started < n && pthread_create(&threads[started], NULL, run_peak, &jobs[started]) == 0) {
        started++;
    }
    run_peak(&jobs[0]);
    for (uint32_t i = 1; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    for (uint32_t i = 0; i < started; i++) {
        sum += jobs[i].rate;
    }
    free(jobs);
    free(threads);
    return sum;
}

static enum status measure(struct bench *b, uint32_t rep, struct err *err)
{
    const char *level_name = message_text(loaded(b, 0), "level", "ref");
    const uint32_t n = b->n_threads * b->service.n_ranks;
    enum cpu_level level = CPU_LEVEL_REF;
    enum status status;
    uint64_t start;

    b->values[READ_BYTES][rep] = bandwidth_measure(b->bandwidth, BANDWIDTH_MS);
    if (cpu_level_parse(level_name, &level, err) == STATUS_OK) {
        b->values[PEAK_FLOPS][rep] = peak_of(cpu_peak_flops, level, n);
        b->values[PEAK_BF16][rep] = peak_of(cpu_peak_bf16_flops, level, n);
        b->values[PEAK_INT8][rep] = peak_of(cpu_peak_int8_ops, level, n);
    }
    start = clock_ns();
    status = answer(b, rep, err);
    b->values[PREFILL][rep] =
        (double)b->options->prompt_tokens / ((double)(b->first_ns - start) * 1e-9);
    b->values[DECODE][rep] =
        (double)b->options->decode_tokens / ((double)(b->last_ns - b->first_ns) * 1e-9);
    return status;
}

/* What most products are made of, and the rate at which registers alone give it. */
static enum figure peak_figure(struct bench *b)
{
    const char *arithmetic = message_text(loaded(b, 0), "arithmetic", "");

    return strstr(arithmetic, " act int8") != NULL   ? PEAK_INT8
           : strstr(arithmetic, " act bf16") != NULL ? PEAK_BF16
                                                     : PEAK_FLOPS;
}

static const char *peak_name(enum figure figure)
{
    return figure == PEAK_INT8   ? "8-bit products from registers"
           : figure == PEAK_BF16 ? "BF16 multiply-add from registers"
                                 : "multiply-add from registers";
}

/* Multiply-adds of a prompt token, as floating-point operations: the matrices that it passes, and
 * its queries with the keys and values before it, which are half the prompt on average. */
static double flops_per_token(struct bench *b)
{
    const struct model_config *c = &b->service.config;
    double projections = (double)c->hidden * c->head_dim * (2.0 * c->n_heads + 2.0 * c->n_kv_heads);
    double keys = ((double)b->options->prompt_tokens + 1) / 2;
    double attention = 2.0 * c->n_heads * c->head_dim * keys;

    return 2.0 * c->n_layers * (projections + attention + 3.0 * c->hidden * c->ffn);
}

static void print_table(struct bench *b, const struct stats s[FIGURE_COUNT])
{
    double bytes = (double)sum_of_ranks(b, "token_bytes");
    double flops = flops_per_token(b);
    const enum figure figure = peak_figure(b);
    const struct stats *peak = &s[figure];
    const char *unit = figure == PEAK_INT8 ? "GOP/s" : "GFLOP/s";

    printf("%s, %s, %s kernels, %u rank%s of %u thread%s, %s\n", b->model_name, b->host.cpu,
           message_text(loaded(b, 0), "level", "?"), b->service.n_ranks,
           b->service.n_ranks == 1 ? "" : "s", b->n_threads, b->n_threads == 1 ? "" : "s",
           message_text(loaded(b, 0), "arithmetic", "?"));
    printf("load      %.2f s, %.1f MiB read\n", b->service.load_seconds,
           (double)sum_of_ranks(b, "read_bytes") / (1 << 20));
    printf("%-34s %10s %10s %10s\n", "", "median", "min", "max");
    printf("%-34s %10.1f %10.1f %10.1f  GB/s\n", "memory read", s[READ_BYTES].median / 1e9,
           s[READ_BYTES].min / 1e9, s[READ_BYTES].max / 1e9);
    printf("%-34s %10.1f %10.1f %10.1f  %s\n", peak_name(figure), peak->median / 1e9,
           peak->min / 1e9, peak->max / 1e9, unit);
    printf("prefill %6lld tokens, chunk %-5lld  %10.2f %10.2f %10.2f  tokens/s, %.1f %s, %.0f %% "
           "of the above\n",
           (long long)b->options->prompt_tokens, (long long)b->options->chunk, s[PREFILL].median,
           s[PREFILL].min, s[PREFILL].max, s[PREFILL].median * flops / 1e9, unit,
           100 * s[PREFILL].median * flops / peak->median);
    printf(
        "decode  %6lld tokens               %10.2f %10.2f %10.2f  tokens/s, %.1f GB/s of weights, "
        "%.0f %% of the read rate\n",
        (long long)b->options->decode_tokens, s[DECODE].median, s[DECODE].min, s[DECODE].max,
        s[DECODE].median * bytes / 1e9, 100 * s[DECODE].median * bytes / s[READ_BYTES].median);
}

static json_t *rate_json(const struct stats *s, const char *name)
{
    return json_pack("{s:f, s:f, s:f}", name, s->median, "min", s->min, "max", s->max);
}

static void print_json(struct bench *b, const struct stats s[FIGURE_COUNT])
{
    double bytes = (double)sum_of_ranks(b, "token_bytes");
    json_t *prefill = rate_json(&s[PREFILL], "tokens_per_s");
    json_t *decode = rate_json(&s[DECODE], "tokens_per_s");
    struct buf text = {0};
    json_t *all;

    json_object_set_new(prefill, "tokens", json_integer(b->options->prompt_tokens));
    json_object_set_new(prefill, "chunk", json_integer(b->options->chunk));
    json_object_set_new(prefill, "flops_per_s", json_real(s[PREFILL].median * flops_per_token(b)));
    json_object_set_new(decode, "tokens", json_integer(b->options->decode_tokens));
    json_object_set_new(decode, "weight_bytes_per_token", json_real(bytes));
    json_object_set_new(decode, "weight_bytes_per_s", json_real(s[DECODE].median * bytes));
    all = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o, s:o}", "model",
        b->model_name, "cpu", b->host.cpu, "isa", message_text(loaded(b, 0), "level", "?"),
        "threads", (int)b->n_threads, "ranks", (int)b->service.n_ranks, "arithmetic_class",
        message_text(loaded(b, 0), "arithmetic", "?"), "reps", (json_int_t)b->options->reps,
        "read_bytes_per_s", s[READ_BYTES].median, "fma_flops_per_s", s[PEAK_FLOPS].median,
        "bf16_flops_per_s", s[PEAK_BF16].median, "int8_ops_per_s", s[PEAK_INT8].median, "load_s",
        b->service.load_seconds, "weight_bytes", (json_int_t)weight_bytes(b), "read_bytes",
        (json_int_t)sum_of_ranks(b, "read_bytes"), "prefill", prefill, "decode", decode);
    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

static enum status prepare(struct bench *b, struct err *err)
{
    uint32_t n_prompt = (uint32_t)b->options->prompt_tokens;
    const struct service_want want = {
        .max_context = n_prompt + (uint32_t)b->options->decode_tokens + 1,
        .n_slots = 1,
    };
    enum status status;

    tuning_make_once(b->options);
    status = service_open(&b->service, b->options, &want, err);
    b->model_name = b->options->given.shape ? b->options->shape : b->options->path;
    if (status != STATUS_OK || (status = host_collect(&b->host, err)) != STATUS_OK) {
        return status;
    }
    b->n_threads = (uint32_t)message_uint(loaded(b, 0), "threads", 1);
    status = bandwidth_create(
        b->n_threads * b->service.n_ranks,
        bandwidth_bytes(host_cache_bytes(&b->host), b->host.memory_available_bytes), &b->bandwidth,
        err);
    if (status != STATUS_OK) {
        return status;
    }
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        b->values[i] = xcalloc((size_t)b->options->reps, sizeof(double));
    }
    b->prompt = xcalloc(n_prompt, sizeof(*b->prompt));
    for (uint32_t i = 0; i < n_prompt; i++) {
        b->prompt[i] = (int32_t)((i * 7919ull + 13) % b->service.config.vocab);
    }
    return STATUS_OK;
}

static void release(struct bench *b)
{
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        free(b->values[i]);
    }
    free(b->prompt);
    bandwidth_destroy(&b->bandwidth);
    service_close(&b->service);
}

static int bench_model(const struct options *options)
{
    struct bench b = {.options = options};
    struct stats stats[FIGURE_COUNT];
    struct err err = {0};
    int exit_status;
    enum status status = prepare(&b, &err);

    for (int64_t rep = 0; rep < options->reps && status == STATUS_OK; rep++) {
        status = measure(&b, (uint32_t)rep, &err);
    }
    if (status == STATUS_OK) {
        for (unsigned i = 0; i < FIGURE_COUNT; i++) {
            stats[i] = stats_of(b.values[i], (size_t)options->reps);
        }
        (options->json ? print_json : print_table)(&b, stats);
    }
    exit_status = service_exit(&b.service, status, &err);
    release(&b);
    return exit_status;
}

static bool is_topic(const char *word)
{
    return word != NULL && (strcmp(word, "recovery") == 0 || strcmp(word, "comm") == 0 ||
                            strcmp(word, "quality") == 0);
}

int cmd_bench(const struct options *options)
{
    struct options rest = *options;
    const char *topic = options->topic;

    if (topic == NULL && is_topic(options->path)) { /* the only argument */
        topic = options->path;
        rest.path = NULL;
    }
    if (topic != NULL && !is_topic(topic)) {
        return cmd_usage(options, "%s is no benchmark; there are recovery, comm and quality",
                         topic);
    }
    if (topic != NULL && strcmp(topic, "comm") == 0) {
        return rest.path == NULL ? bench_comm(&rest)
                                 : cmd_usage(options, "bench comm needs no model");
    }
    if (topic != NULL && strcmp(topic, "quality") == 0) {
        if (rest.path == NULL || rest.given.text == rest.given.prompt_ids) {
            return cmd_usage(options, "bench quality needs MODEL and --text or --prompt-ids");
        }
        return bench_quality(&rest);
    }
    if ((rest.path == NULL) == !options->given.shape) {
        return cmd_usage(options, "either MODEL or --shape is needed, not both");
    }
    return topic == NULL ? bench_model(&rest) : bench_recovery(&rest);
}
