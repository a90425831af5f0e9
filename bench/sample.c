/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What choosing one token costs a rank: bench_sample [LEVEL [THREADS [VOCAB]]]: LEVEL of kernels,
 * or "plain" for the sampler's own; the best, one thread, 151,936 rows by default. Each line is one
 * way of choosing, at one rank (all rows) and at two (half of the rows, and the merge of both
 * answers), in microseconds, median of 41. Logits are of a confident model: few are near the
 * greatest.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/float_env.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include "sample/sampler.h"

enum { N_RUNS = 41, N_HISTORY = 1000, MAX_PARTS = 2 };

struct bench {
    uint32_t vocab;
    uint32_t n_parts;
    float *model;  /* [vocab] what the model said */
    float *logits; /* [vocab] a copy that sampling may change */
    int32_t history[N_HISTORY];
    struct sample_part parts[MAX_PARTS];
    struct sample_merge merge;
    struct mass_table masses;
    bool logprobs;
};

static int compare(const void *a, const void *b)
{
    const double *left = a;
    const double *right = b;

    return (*left > *right) - (*left < *right);
}

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static void fill(struct bench *bench)
{
    uint32_t random = 1;

    for (uint32_t i = 0; i < bench->vocab; i++) { /* near normal: a sum of six */
        float sum = 0.0f;

        for (int j = 0; j < 6; j++) {
            sum += (float)next(&random) * 0x1p-24f - 0.5f;
        }
        bench->model[i] = sum * 4.0f;
    }
    for (uint32_t i = 0; i < 50; i++) {
        bench->model[next(&random) % bench->vocab] = 14.0f + (float)(i % 10) * 0.5f;
    }
    for (uint32_t i = 0; i < N_HISTORY; i++) {
        bench->history[i] = (int32_t)(next(&random) % bench->vocab);
    }
}

/* The longest share of a part and the time of the merge, for one question after the other. */
static double choose(struct bench *bench, const struct sample_request *request)
{
    struct sample_ask ask = {.n_top = 20, .blocks = true};
    struct sample_answer answers[MAX_PARTS];
    struct sample_logprob top[20];
    struct sample_scale scale;
    enum status status = STATUS_PENDING;
    uint64_t slowest = 0;
    uint64_t merging = 0;
    uint64_t start;
    uint32_t n;

    if (!bench->logprobs) {
        sample_merge_begin(&bench->merge, request, &ask);
    }
    for (uint32_t round = 0; status == STATUS_PENDING; round++) {
        uint64_t longest = 0;

        for (uint32_t p = 0; p < bench->n_parts; p++) {
            struct sample_part *part = &bench->parts[p];

            start = clock_ns();
            if (round == 0) {
                ENSURE(sample_part_begin(part, request, bench->logits + part->first_row) ==
                       STATUS_OK);
            }
            sample_part_answer(part, &ask, &answers[p]);
            longest = MAX(longest, clock_ns() - start);
        }
        slowest += longest;
        start = clock_ns();
        if (bench->logprobs) {
            status =
                sample_merge_logprobs(&bench->merge, answers, bench->n_parts, 20, &scale, top, &n);
        } else {
            status = sample_merge_next(&bench->merge, answers, bench->n_parts, &ask, &n);
        }
        merging += clock_ns() - start;
    }
    ENSURE(status == STATUS_OK);
    return (double)(slowest + merging) * 1e-3;
}

static double measure(struct bench *bench, const struct sample_params *params, uint32_t n_parts)
{
    uint32_t cut = (uint32_t)round_up(bench->vocab / n_parts, SAMPLE_BLOCK_ROWS);
    double times[N_RUNS];
    struct sample_request request = {
        .params = params,
        .prompt = bench->history,
        .n_prompt = N_HISTORY / 2,
        .generated = bench->history + N_HISTORY / 2,
        .n_generated = N_HISTORY / 2,
    };

    bench->n_parts = n_parts;
    for (uint32_t p = 0; p < n_parts; p++) {
        uint32_t begin = p * cut;
        uint32_t end = MIN(begin + cut, bench->vocab);

        ENSURE(sample_part_init(&bench->parts[p], begin, end - begin) == STATUS_OK);
        bench->parts[p].masses = bench->masses;
    }
    for (uint32_t i = 0; i < N_RUNS; i++) {
        request.key.position = i;
        memcpy(bench->logits, bench->model, bench->vocab * sizeof(float));
        times[i] = choose(bench, &request);
    }
    for (uint32_t p = 0; p < n_parts; p++) {
        sample_part_release(&bench->parts[p]);
    }
    qsort(times, N_RUNS, sizeof(*times), compare);
    return times[N_RUNS / 2];
}

static void report(struct bench *bench, const char *name, const struct sample_params *params)
{
    printf("%-28s %9.1f %9.1f\n", name, measure(bench, params, 1), measure(bench, params, 2));
}

static void run(struct bench *bench)
{
    static const struct {
        const char *name;
        struct sample_params params;
    } ways[] = {
        {"greedy", {.temperature = 0, .top_p = 1, .repetition_penalty = 1}},
        {"greedy, penalties of 1,000",
         {.temperature = 0, .top_p = 1, .repetition_penalty = 1.1f, .presence_penalty = 1}},
        {"temperature 1", {.temperature = 1, .top_p = 1, .repetition_penalty = 1}},
        {"top-k 40", {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 40}},
        {"top-k 1,000", {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 1000}},
        {"top-p 0.95", {.temperature = 1, .top_p = 0.95f, .repetition_penalty = 1}},
        {"min-p 0.05", {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .min_p = 0.05f}},
    };

    printf("%-28s %9s %9s   us\n", "", "1 rank", "2 ranks");
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        report(bench, ways[i].name, &ways[i].params);
    }
    bench->logprobs = true;
    report(bench, "log-probabilities, 20 top", &ways[2].params);
}

static enum status run_on(struct bench *bench, const char *level, uint32_t n_threads,
                          struct err *err)
{
    const struct ops_config config = {.n_threads = n_threads, .level = level};
    struct ops_device *device = NULL;
    struct float_env env;

    if (level != NULL && strcmp(level, "plain") == 0) {
        bench->masses = mass_plain;
    } else {
        enum status status = cpu_ops.create(&config, &device, err);

        if (status != STATUS_OK) {
            return status;
        }
        bench->masses = cpu_ops.masses(device);
        level = cpu_ops.level(device);
    }
    printf("%s, %u threads, %u rows\n", level, n_threads, bench->vocab);
    float_env_enter(&env);
    run(bench);
    float_env_leave(&env);
    cpu_ops.destroy(&device);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    const char *level = argc > 1 ? argv[1] : NULL;
    uint32_t n_threads = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1;
    struct bench *bench = xalloc(sizeof(*bench));
    struct err err = {0};
    enum status status;

    bench->vocab = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 151936;
    if (bench->vocab == 0 || n_threads == 0) {
        (void)fprintf(stderr, "usage: bench_sample [LEVEL [THREADS [VOCAB]]]\n");
        return 2;
    }
    bench->model = xcalloc(bench->vocab, sizeof(float));
    bench->logits = xcalloc(bench->vocab, sizeof(float));
    ENSURE(sample_merge_init(&bench->merge, bench->vocab) == STATUS_OK);
    fill(bench);
    status = run_on(bench, level, n_threads, &err);
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "bench_sample: %s\n", err.text);
    }
    sample_merge_release(&bench->merge);
    free(bench->model);
    free(bench->logits);
    free(bench);
    return status == STATUS_OK ? 0 : 1;
}
