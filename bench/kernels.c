/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the CPU kernels of one thread: products for one to four rows (GEMV) in bytes of weights
 * a second, beside what the same memory can be read at in the same run, and products for many rows
 * (GEMM) and attention in operations a second, beside what the registers alone can do. Variants are
 * interleaved and medians reported, in processor time of the thread, because the machine may be
 * shared.
 *
 *   bench_kernels [LEVEL] [ROUNDS] [TEXT]
 *
 * LEVEL: ref, avx2, avx512, ... (default: the best there is). TEXT: only the cases whose names
 * contain it, for example "m 512".
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/float_env.h"
#include "base/mem.h"
#include "cpu/peak.h"
#include "tensor/bf16_12.h"

enum { MAX_ROUNDS = 64, MAX_CASES = 96 };

/* Weights of all GEMV cases are cut out of this much memory, so that none stays in a cache. */
static const size_t POOL_BYTES = (size_t)1 << 30;
static const size_t X_BYTES = (size_t)512 * 4096 * sizeof(float);
static const size_t Y_BYTES = (size_t)512 * 8192 * sizeof(float);

struct bench_case {
    char name[48];
    bool attention; /* rows: queries, cols: head_dim */
    bool integers;  /* the product with integer activations, quantised in the same time */
    bool wide;      /* of 16 bits */
    enum dtype dtype;
    uint32_t rows;
    uint32_t cols;
    uint32_t leaves;
    uint32_t m;
    double rate[MAX_ROUNDS]; /* bytes or operations a second */
};

struct bench {
    enum cpu_level level;
    struct cpu_kernels kernels;
    uint8_t *pool;
    size_t offset; /* into pool, where the next case reads */
    float *x;
    float *y;
    float *scratch;
    void *quantised; /* X_BYTES */
    struct bench_case cases[MAX_CASES];
    uint32_t n_cases;
    uint32_t n_rounds;
};

/* Processor time of this thread: what others do on this core does not count. */
static uint64_t thread_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Reads bytes (a multiple of 32 KiB) in the way that is fastest here: eight pages side by side, the
 * next eight fetched meanwhile. */
static void read_memory(const uint8_t *memory, size_t bytes)
{
    enum { PAGE = 4096, STREAMS = 8 };
    uint64_t sum = 0;

    for (size_t block = 0; block < bytes; block += STREAMS * PAGE) {
        for (size_t at = 0; at < PAGE; at += 2 * CACHE_LINE) {
            for (size_t s = 0; s < STREAMS; s++) {
                const uint8_t *p = memory + block + s * PAGE + at;

                __builtin_prefetch(p + STREAMS * PAGE, 0, 3);
                __builtin_prefetch(p + STREAMS * PAGE + CACHE_LINE, 0, 3);
                sum += p[0] + p[CACHE_LINE];
            }
        }
    }
    __asm__ volatile("" ::"r"(sum));
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, uint32_t n)
{
    qsort(values, n, sizeof(*values), compare);
    return values[n / 2];
}

static void add_case(struct bench *bench, enum dtype dtype, uint32_t rows, uint32_t cols,
                     uint32_t leaves, uint32_t m)
{
    struct bench_case *it = &bench->cases[bench->n_cases++];

    ENSURE_OP(bench->n_cases, <=, MAX_CASES);
    *it = (struct bench_case){.dtype = dtype, .rows = rows, .cols = cols, .leaves = leaves, .m = m};
    snprintf(it->name, sizeof(it->name), "%s %u x %u, %u leaves, m %u", dtype_info(dtype)->name,
             rows, cols, leaves, m);
}

/* The same with integer activations. */
static void add_integers(struct bench *bench, enum dtype dtype, uint32_t rows, uint32_t cols,
                         bool wide, uint32_t m)
{
    struct bench_case *it = &bench->cases[bench->n_cases];

    add_case(bench, dtype, rows, cols, 1, m);
    it->integers = true;
    it->wide = wide;
    snprintf(it->name, sizeof(it->name), "%s %u x %u, int%d, m %u", dtype_info(dtype)->name, rows,
             cols, wide ? 16 : 8, m);
}

/* n_q queries of one KV head against a block of 64 keys; causal: the block on the diagonal. Q8_0
 * stands for a KV cache of integers. */
static void add_attention(struct bench *bench, enum dtype dtype, uint32_t head_dim, uint32_t n_q,
                          bool causal)
{
    struct bench_case *it = &bench->cases[bench->n_cases++];

    ENSURE_OP(bench->n_cases, <=, MAX_CASES);
    *it = (struct bench_case){
        .attention = true, .dtype = dtype, .rows = n_q, .cols = head_dim, .m = causal ? 0 : 1};
    snprintf(it->name, sizeof(it->name), "attention %s, dim %u, %u queries%s",
             dtype_info(dtype)->name, head_dim, n_q, causal ? ", causal" : "");
}

/* About normally distributed, with the quarter of a binade in 8,192 that lies below the table. */
static uint16_t normal_element(uint32_t *random)
{
    float sum = 0.0f;

    for (int i = 0; i < 4; i++) {
        *random = *random * 1664525u + 1013904223u;
        sum += (float)(int32_t)*random * 0x1p-36f;
    }
    return bf16_from_f32(sum);
}

/* The records of a matrix at 12 bits: each that of one panel of normally distributed elements, for
 * how often there are patches decides the speed, and their places do not. */
static void put_records(struct packed *w)
{
    uint8_t *elements = xcalloc(w->cols, 2 * PACKED_LANES);
    uint8_t *codes = xcalloc(w->panel_code_bytes, 1);
    uint8_t *record = (uint8_t *)w->scales;
    const struct bf16_12_head *head = (const void *)record;
    const uint8_t *rows[PACKED_LANES];
    uint32_t random = 1;

    for (size_t i = 0; i < (size_t)w->cols * PACKED_LANES; i++) {
        uint16_t element = normal_element(&random);

        memcpy(elements + 2 * i, &element, sizeof(element));
        rows[i / w->cols] = elements + i / w->cols * w->cols * 2;
    }
    memset(record, 0, w->panel_scale_bytes);
    ENSURE(bf16_12_pack(w, rows, codes, record));
    for (uint32_t panel = 1; panel < w->n_panels; panel++) {
        memcpy(record + panel * w->panel_scale_bytes, record,
               bf16_12_patches_at(w->cols) + head->n_patches * sizeof(uint32_t));
    }
    free(codes);
    free(elements);
}

/* A matrix at the next place of the pool. */
static void take_matrix(struct bench *bench, const struct bench_case *it, struct packed *ret_w)
{
    uint32_t *bounds = xcalloc(it->leaves + 1, sizeof(*bounds));
    size_t bytes;

    ENSURE(packed_init(ret_w, it->dtype, it->rows, it->cols));
    bytes = round_up(packed_bytes(ret_w), 4096);
    if (bench->offset + bytes > POOL_BYTES) {
        bench->offset = 0;
    }
    packed_attach(ret_w, bench->pool + bench->offset);
    bench->offset += bytes;
    if (it->dtype == DTYPE_BF16_12) {
        put_records(ret_w);
    }
    for (uint32_t i = 0; i <= it->leaves; i++) {
        bounds[i] = i * (it->cols / 32) / it->leaves * 32;
    }
    bounds[it->leaves] = it->cols;
    leaf_plan_init(&ret_w->leaves, bounds, it->leaves, 0, it->leaves);
    free(bounds);
}

/* The rows of x, quantised. */
static struct quant quantise(struct bench *bench, const struct bench_case *it,
                             const struct packed *w, size_t x_stride)
{
    uint32_t n = quant_n_groups(&w->leaves);
    struct quant q = quant_attach(bench->quantised, it->m, n, it->wide);

    for (uint32_t i = 0; i < it->m; i++) {
        struct quant row = quant_from(q, i);

        bench->kernels.quant_row(bench->x + i * x_stride, &w->leaves, &row);
    }
    return q;
}

/* Seconds for products with 256 MB of matrices (GEMV) or one (GEMM). */
static double run_matmul(struct bench *bench, const struct bench_case *it, size_t *ret_bytes)
{
    const size_t x_stride = round_up(it->cols, 16) + 16;
    uint64_t ns = 0;

    *ret_bytes = 0;
    do {
        struct packed w;
        uint64_t start;

        take_matrix(bench, it, &w);
        start = thread_ns();
        (it->integers ? bench->kernels.matmul_int8
                      : bench->kernels.matmul)[it->dtype](&(struct cpu_matmul){
            .w = &w,
            .x = bench->x,
            .x_stride = x_stride,
            .x_bf16 = it->dtype == DTYPE_BF16 || it->dtype == DTYPE_BF16_12,
            .q = it->integers ? quantise(bench, it, &w, x_stride) : (struct quant){0},
            .y = bench->y,
            .y_stride = it->rows,
            .root_stride = it->rows,
            .m = it->m,
            .panel_end = w.n_panels,
            .scratch = bench->scratch,
        });
        ns += thread_ns() - start;
        *ret_bytes += packed_read_bytes(&w);
        leaf_plan_release(&w.leaves);
    } while (it->m <= 4 && *ret_bytes < (size_t)256 << 20);
    return (double)ns / 1e9;
}

static enum kv_type kv_type_of(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? KV_BF16 : dtype == DTYPE_Q8_0 ? KV_INT8 : KV_F32;
}

/* Seconds for one block of keys, many times over. */
static double run_attention(struct bench *bench, const struct bench_case *it, uint32_t n_blocks)
{
    uint32_t valid[512];
    size_t stride = round_up(it->cols, 16);
    uint64_t start;

    ENSURE_OP(it->rows, <=, ARRAY_LEN(valid));
    for (uint32_t i = 0; i < it->rows; i++) {
        valid[i] = it->m == 0 ? MIN(i / 2 + 1, 64) : 64;
    }
    start = thread_ns();
    for (uint32_t i = 0; i < n_blocks; i++) {
        bench->kernels.attn_block(&(struct cpu_attn_block){
            .k = bench->pool + i % 64 * 65536,
            .v = bench->pool + i % 64 * 65536 + 32768,
            .next = bench->pool + (i + 1) % 64 * 65536,
            .head_dim = it->cols,
            .kv = kv_type_of(it->dtype),
            .scale = 0.1f,
            .q = bench->x,
            .q_stride = stride,
            .q8 = quant_attach(bench->quantised, it->rows, (uint32_t)div_up(it->cols, QUANT_GROUP),
                               false),
            .product = it->dtype == DTYPE_Q8_0 ? bench->kernels.matmul_int8[DTYPE_Q8_0]
                                               : bench->kernels.matmul[DTYPE_BF16],
            .n_q = it->rows,
            .valid = valid,
            .m = bench->y,
            .l = bench->y + 512,
            .o = bench->y + 1024,
            .o_stride = stride,
            .scratch = bench->scratch,
        });
    }
    return (double)(thread_ns() - start) / 1e9;
}

/* The case's rate: bytes (GEMV) or operations a second, in 10^9. */
static double run_case(struct bench *bench, const struct bench_case *it)
{
    size_t bytes;
    double seconds;

    if (it->attention) {
        uint32_t n_blocks = 20000 / it->rows + 1;

        seconds = run_attention(bench, it, n_blocks);
        return 4.0 * 64 * it->rows * it->cols * n_blocks / seconds / 1e9;
    }
    seconds = run_matmul(bench, it, &bytes);
    return it->m <= 4 ? (double)bytes / seconds / 1e9
                      : 2.0 * it->rows * it->cols * it->m / seconds / 1e9;
}

static void report(struct bench *bench, double *read, double *peak)
{
    double read_median = median(read, bench->n_rounds);
    double peak_median = median(peak, bench->n_rounds);

    printf("%-40s %8.2f GB/s\n%-40s %8.2f GFLOP/s\n", "memory, read only", read_median,
           "fused multiply-adds, registers only", peak_median);
    for (uint32_t c = 0; c < bench->n_cases; c++) {
        struct bench_case *it = &bench->cases[c];
        bool by_bytes = it->m <= 4 && !it->attention;
        double rate = median(it->rate, bench->n_rounds);

        printf("%-40s %8.2f %-7s %5.1f %%   (%.2f .. %.2f)\n", it->name, rate,
               by_bytes ? "GB/s" : "GFLOP/s", 100 * rate / (by_bytes ? read_median : peak_median),
               it->rate[0], it->rate[bench->n_rounds - 1]);
    }
}

/* Forgets the cases whose names do not contain text. */
static void keep_cases(struct bench *bench, const char *text)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < bench->n_cases; i++) {
        if (strstr(bench->cases[i].name, text) != NULL) {
            bench->cases[n++] = bench->cases[i];
        }
    }
    bench->n_cases = n;
}

static void run(struct bench *bench)
{
    const size_t bytes = (size_t)64 << 20;
    double read[MAX_ROUNDS];
    double peak[MAX_ROUNDS];

    for (uint32_t r = 0; r < bench->n_rounds; r++) {
        size_t from = bench->offset + bytes + 65536 > POOL_BYTES ? 0 : bench->offset;
        uint64_t start = thread_ns();

        read_memory(bench->pool + from, bytes);
        read[r] = (double)bytes / (double)(thread_ns() - start);
        bench->offset = from + bytes;
        peak[r] = cpu_peak_flops(bench->level, 10) / 1e9;
        for (uint32_t c = 0; c < bench->n_cases; c++) {
            bench->cases[c].rate[r] = run_case(bench, &bench->cases[c]);
        }
    }
    report(bench, read, peak);
}

static void add_cases(struct bench *bench)
{
    static const uint32_t many[] = {8, 16, 64, 512};

    /* decode and prefill of the qwen3-0.6b shape */
    add_case(bench, DTYPE_BF16, 4096, 1024, 1, 1);
    add_case(bench, DTYPE_BF16, 1024, 2048, 16, 1);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 1);
    add_case(bench, DTYPE_BF16, 1024, 3072, 16, 1);
    add_case(bench, DTYPE_BF16, 1024, 3072, 1, 1);
    add_case(bench, DTYPE_BF16, 151936, 1024, 1, 1);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 2);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 4);
    add_case(bench, DTYPE_BF16_12, 4096, 1024, 1, 1);
    add_case(bench, DTYPE_BF16_12, 1024, 3072, 16, 1);
    add_case(bench, DTYPE_BF16_12, 151936, 1024, 1, 1);
    add_case(bench, DTYPE_BF16_12, 3072, 1024, 1, 2);
    add_case(bench, DTYPE_BF16_12, 3072, 1024, 1, 4);
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        add_case(bench, DTYPE_BF16_12, 3072, 1024, 1, many[i]);
    }
    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        if (dtype != DTYPE_BF16) {
            add_case(bench, (enum dtype)dtype, 3072, 1024, 1, 1);
        }
    }
    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        if (dtype_is_quantised((enum dtype)dtype)) {
            add_integers(bench, (enum dtype)dtype, 3072, 1024, false, 1);
        }
    }
    add_integers(bench, DTYPE_Q8_0, 3072, 1024, false, 4);
    add_integers(bench, DTYPE_Q4_0, 3072, 1024, false, 4);
    add_case(bench, DTYPE_Q4_1, 3072, 1024, 1, 4);
    add_case(bench, DTYPE_Q8_0, 3072, 1024, 1, 4);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 8);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 16);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 64);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 256);
    add_case(bench, DTYPE_BF16, 3072, 1024, 1, 512);
    add_case(bench, DTYPE_BF16, 1024, 2048, 16, 256);
    add_case(bench, DTYPE_BF16, 1024, 2048, 32, 256);
    add_case(bench, DTYPE_BF16, 1024, 3072, 16, 256);
    add_case(bench, DTYPE_BF16, 1024, 3072, 1, 512);
    add_attention(bench, DTYPE_BF16, 128, 2, false);
    add_attention(bench, DTYPE_BF16, 128, 64, false);
    add_attention(bench, DTYPE_BF16, 128, 64, true);
    add_attention(bench, DTYPE_Q8_0, 128, 2, false);
    add_attention(bench, DTYPE_Q8_0, 128, 64, false);
    add_attention(bench, DTYPE_Q8_0, 128, 64, true);
    add_attention(bench, DTYPE_F32, 64, 3, false);
    add_attention(bench, DTYPE_F32, 64, 63, false);
    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        if (dtype != DTYPE_BF16) {
            add_case(bench, (enum dtype)dtype, 3072, 1024, 1, 256);
        }
        if (dtype_is_quantised((enum dtype)dtype)) {
            add_integers(bench, (enum dtype)dtype, 3072, 1024, false, 16);
            add_integers(bench, (enum dtype)dtype, 3072, 1024, true, 16);
            add_integers(bench, (enum dtype)dtype, 3072, 1024, false, 256);
        }
    }
}

int main(int argc, char **argv)
{
    struct bench *bench = xalloc(sizeof(*bench));
    struct err err = {0};
    struct float_env env;

    bench->level = CPU_LEVEL_COUNT - 1;
    if (argc > 1 && cpu_level_parse(argv[1], &bench->level, &err) != STATUS_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.text);
        return 1;
    }
    bench->n_rounds = argc > 2 ? (uint32_t)MIN(MAX(strtol(argv[2], NULL, 10), 1), MAX_ROUNDS) : 9;
    bench->level = cpu_kernels_init(&bench->kernels, bench->level);
    bench->pool = mem_map(POOL_BYTES);
    bench->x = mem_map(X_BYTES);
    bench->y = mem_map(Y_BYTES);
    bench->scratch = mem_map(CPU_SCRATCH_BYTES);
    bench->quantised = mem_map(X_BYTES);
    if (bench->pool == NULL || bench->x == NULL || bench->y == NULL || bench->scratch == NULL ||
        bench->quantised == NULL) {
        fprintf(stderr, "bench_kernels: not enough memory\n");
        return 1;
    }
    memset(bench->pool, 0x3c, POOL_BYTES); /* 0.0115 as bf16, 1.06 as half */
    for (size_t i = 0; i < X_BYTES / sizeof(float); i++) {
        bench->x[i] = (float)(i % 64) / 64.0f;
    }
    printf("level %s, %u rounds\n", cpu_level_name(bench->level), bench->n_rounds);
    add_cases(bench);
    keep_cases(bench, argc > 3 ? argv[3] : "");
    float_env_enter(&env);
    run(bench);
    float_env_leave(&env);
    return 0;
}
