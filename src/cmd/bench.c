/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench: prefill and decode rates beside the yardsticks of the same run. Each repetition
 * measures everything in turn (memory bandwidth, multiply-add rate, prefill, decode), because a
 * shared machine's speed changes within seconds; medians are reported.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/bandwidth.h"
#include "cmd/cmd.h"
#include "cmd/host.h"
#include "cmd/open_engine.h"
#include "cmd/shapes.h"
#include "cmd/stats.h"
#include "cpu/peak.h"
#include "engine/sequence.h"
#include "json/json.h"
#include "sample/sampler.h"

enum { BANDWIDTH_MS = 300, PEAK_MS = 50 };

enum figure { READ_BYTES, PEAK_FLOPS, PREFILL, DECODE, FIGURE_COUNT };

struct bench {
    const struct options *options;
    struct engine *engine;
    struct bandwidth *bandwidth;
    struct host host;
    const char *model_name;
    double load_seconds;          /* 0: random weights */
    double *values[FIGURE_COUNT]; /* [reps] */
    int32_t *prompt;
    float *logits; /* [vocab], the sampler changes them */
    struct sampler sampler;
    int32_t next;
};

/* Greedy: part of what a token costs. */
static enum status choose(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct bench *b = arg;
    struct sample_params params;
    struct sample_request request = {.params = &params};
    uint32_t token;
    enum status status;

    (void)pos;
    sample_params_init(&params);
    params.temperature = 0.0f;
    memcpy(b->logits, logits, engine_config(b->engine)->vocab * sizeof(float));
    status = sampler_token(&b->sampler, &request, b->logits, &token, err);
    b->next = (int32_t)token;
    return status;
}

static enum status extend(struct bench *b, struct sequence *sequence, const int32_t *tokens,
                          uint32_t n, struct err *err)
{
    return sequence_extend(sequence,
                           &(struct sequence_extend){
                               .tokens = tokens,
                               .n = n,
                               .chunk = (uint32_t)b->options->chunk,
                               .logits = choose,
                               .arg = b,
                           },
                           err);
}

static enum status measure(struct bench *b, uint32_t rep, struct err *err)
{
    uint32_t n_prompt = (uint32_t)b->options->prompt_tokens;
    uint32_t n_decode = (uint32_t)b->options->decode_tokens;
    enum cpu_level level = CPU_LEVEL_REF;
    struct sequence sequence;
    enum status status;
    uint64_t start;
    uint64_t middle;

    b->values[READ_BYTES][rep] = bandwidth_measure(b->bandwidth, BANDWIDTH_MS);
    if (cpu_level_parse(engine_level(b->engine), &level, err) == STATUS_OK) {
        b->values[PEAK_FLOPS][rep] = cpu_peak_flops(level, PEAK_MS) * engine_n_threads(b->engine);
    }
    sequence_init(&sequence, b->engine);
    start = clock_ns();
    status = extend(b, &sequence, b->prompt, n_prompt, err);
    middle = clock_ns();
    for (uint32_t i = 0; i < n_decode && status == STATUS_OK; i++) {
        status = extend(b, &sequence, &b->next, 1, err);
    }
    b->values[PREFILL][rep] = n_prompt / ((double)(middle - start) * 1e-9);
    b->values[DECODE][rep] = n_decode / ((double)(clock_ns() - middle) * 1e-9);
    sequence_release(&sequence);
    return status;
}

/* Multiply-adds of the matrices that one prompt token passes, as floating-point operations. */
static double flops_per_token(struct bench *b)
{
    const struct model_config *c = engine_config(b->engine);
    double attention = (double)c->hidden * c->head_dim * (2.0 * c->n_heads + 2.0 * c->n_kv_heads);

    return 2.0 * c->n_layers * (attention + 3.0 * c->hidden * c->ffn);
}

static void print_table(struct bench *b, const struct stats s[FIGURE_COUNT])
{
    double bytes = (double)model_bytes_per_token(engine_model(b->engine));
    double flops = flops_per_token(b);

    printf("%s, %s, %s kernels, %u thread%s, %s\n", b->model_name, b->host.cpu,
           engine_level(b->engine), engine_n_threads(b->engine),
           engine_n_threads(b->engine) == 1 ? "" : "s", engine_arith_class(b->engine));
    if (b->load_seconds > 0) {
        printf("load      %.2f s, %.1f MiB read\n", b->load_seconds,
               (double)engine_load_bytes(b->engine) / (1 << 20));
    }
    printf("%-34s %10s %10s %10s\n", "", "median", "min", "max");
    printf("%-34s %10.1f %10.1f %10.1f  GB/s\n", "memory read", s[READ_BYTES].median / 1e9,
           s[READ_BYTES].min / 1e9, s[READ_BYTES].max / 1e9);
    printf("%-34s %10.1f %10.1f %10.1f  GFLOP/s\n", "multiply-add from registers",
           s[PEAK_FLOPS].median / 1e9, s[PEAK_FLOPS].min / 1e9, s[PEAK_FLOPS].max / 1e9);
    printf(
        "prefill %6lld tokens, chunk %-5lld  %10.2f %10.2f %10.2f  tokens/s, %.1f GFLOP/s, %.0f %% "
        "of the above\n",
        (long long)b->options->prompt_tokens, (long long)b->options->chunk, s[PREFILL].median,
        s[PREFILL].min, s[PREFILL].max, s[PREFILL].median * flops / 1e9,
        100 * s[PREFILL].median * flops / s[PEAK_FLOPS].median);
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
    double bytes = (double)model_bytes_per_token(engine_model(b->engine));
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
    all = json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:I, s:f, s:f, s:f, s:I, s:o, s:o}", "model",
                    b->model_name, "cpu", b->host.cpu, "isa", engine_level(b->engine), "threads",
                    (int)engine_n_threads(b->engine), "ranks", 1, "arithmetic_class",
                    engine_arith_class(b->engine), "reps", (json_int_t)b->options->reps,
                    "read_bytes_per_s", s[READ_BYTES].median, "fma_flops_per_s",
                    s[PEAK_FLOPS].median, "load_s", b->load_seconds, "weight_bytes",
                    (json_int_t)model_weight_bytes(engine_model(b->engine)), "prefill", prefill,
                    "decode", decode);
    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

static enum status prepare(struct bench *b, struct err *err)
{
    uint32_t n_prompt = (uint32_t)b->options->prompt_tokens;
    uint32_t vocab;
    enum status status;
    const struct open_engine want = {
        .max_context = n_prompt + (uint32_t)b->options->decode_tokens,
        .max_chunk = MIN((uint32_t)b->options->chunk, n_prompt),
    };

    if (b->options->given.shape) {
        struct model_config config;

        ENSURE(shape_find(b->options->shape, &config)); /* the option's choices */
        b->model_name = b->options->shape;
        status = open_engine_random(b->options, &want, &config, &b->engine, err);
    } else {
        b->model_name = b->options->path;
        status = open_engine(b->options, &want, &b->engine, &b->load_seconds, err);
    }
    if (status != STATUS_OK || (status = host_collect(&b->host, err)) != STATUS_OK) {
        return status;
    }
    status = bandwidth_create(
        engine_n_threads(b->engine),
        bandwidth_bytes(host_cache_bytes(&b->host), b->host.memory_available_bytes), &b->bandwidth,
        err);
    if (status != STATUS_OK) {
        return status;
    }
    vocab = engine_config(b->engine)->vocab;
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        b->values[i] = xcalloc((size_t)b->options->reps, sizeof(double));
    }
    b->prompt = xcalloc(n_prompt, sizeof(*b->prompt));
    for (uint32_t i = 0; i < n_prompt; i++) {
        b->prompt[i] = (int32_t)((i * 7919ull + 13) % vocab);
    }
    b->logits = mem_alloc(vocab, sizeof(*b->logits));
    if (b->logits == NULL || sampler_init(&b->sampler, vocab) != STATUS_OK) {
        return err_set(err, STATUS_NO_MEMORY, "no memory to sample from %u tokens", vocab);
    }
    return STATUS_OK;
}

static void release(struct bench *b)
{
    for (unsigned i = 0; i < FIGURE_COUNT; i++) {
        free(b->values[i]);
    }
    free(b->prompt);
    free(b->logits);
    sampler_release(&b->sampler);
    bandwidth_destroy(&b->bandwidth);
    engine_destroy(&b->engine);
}

int cmd_bench(const struct options *options)
{
    struct bench b = {.options = options};
    struct stats stats[FIGURE_COUNT];
    struct err err = {0};
    enum status status;

    if ((options->path == NULL) == !options->given.shape) {
        return cmd_usage(options, "either MODEL or --shape is needed, not both");
    }
    status = prepare(&b, &err);
    for (int64_t rep = 0; rep < options->reps && status == STATUS_OK; rep++) {
        status = measure(&b, (uint32_t)rep, &err);
    }
    if (status == STATUS_OK) {
        for (unsigned i = 0; i < FIGURE_COUNT; i++) {
            stats[i] = stats_of(b.values[i], (size_t)options->reps);
        }
        (options->json ? print_json : print_table)(&b, stats);
    }
    release(&b);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
