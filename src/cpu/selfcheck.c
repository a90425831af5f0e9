/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 92 tiles: each of the 12 types by two and nine rows, and by one and five with values whose
 * products flush to zero (48); the two of BF16 by 17 rounded rows (4); the 8 quantised ones by two
 * and 17 rows of integers (16); 12 blocks of attention; 12 rows of the small kernels; and 2 of
 * masses. The product for fewer rows is compared with the first rows of the reference's product for
 * more, which is where most of the time goes.
 *
 * The data are fixed: the check is about the processor and the build, the tests are about the code.
 */
#include "cpu/selfcheck.h"

#include "tensor/bf16_12.h"
#include "tensor/canon.h"

enum {
    ROWS = 9,      /* of x */
    ROWS_MAX = 17, /* of x rounded to bf16 or made integers */
    COLS_MAX = 256,
    X_STRIDE = COLS_MAX + 32,
    OUTPUTS = 16,
    LENGTH = 40, /* of rows: two vectors and a half */
    QUERIES = 2,
    HEAD_DIM = 18,
    KEYS = 64,
    CODE_BYTES = COLS_MAX * OUTPUTS * 4,
    SCALE_BYTES = 512
};

struct check {
    const struct cpu_kernels *kernels;
    const struct cpu_kernels *ref;
    uint64_t random;
    float *scratch;
    _Alignas(CACHE_LINE) uint8_t codes[CODE_BYTES];
    _Alignas(CACHE_LINE) uint8_t scales[SCALE_BYTES];
    uint8_t rows[OUTPUTS * COLS_MAX * 2]; /* of BF16 */
    _Alignas(CACHE_LINE) float x[ROWS_MAX * X_STRIDE];
    _Alignas(CACHE_LINE) uint8_t quantised[ROWS_MAX * (COLS_MAX / QUANT_GROUP + 3) * 72];
    float expected[ROWS_MAX * OUTPUTS * 2];
    float found[ROWS_MAX * OUTPUTS * 2];
};

static const char *const matmul_names[DTYPE_COUNT] = {
#define DTYPE(name, text, ggml, group, group_bytes) "the product with " text,
#include "tensor/dtype.def"
#undef DTYPE
};

static uint32_t next(struct check *check)
{
    check->random = check->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(check->random >> 32);
}

/* A value of either sign, four binades from 2^exponent up, now and then a zero. */
static float value(struct check *check, int exponent)
{
    uint32_t r = next(check);
    uint32_t bits = (r & 0x80000000) | (uint32_t)(exponent + (int)(r >> 23 & 3) + 127) << 23;
    float out;

    bits = (r >> 25 & 15) == 0 ? r & 0x80000000 : bits | (r & 0x7fffff);
    memcpy(&out, &bits, sizeof(out));
    return out;
}

static void fill(struct check *check, float *values, size_t n, int exponent)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = value(check, exponent);
    }
}

static bool same(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&a[i], &b[i], sizeof(a[i])) != 0 && (a[i] == a[i] || b[i] == b[i])) {
            return false;
        }
    }
    return true;
}

/* Codes of a matrix, elements around 2^exponent for the plain types; scales are small halves,
 * denormals among them, if tiny. */
static void fill_weights(struct check *check, struct packed *w, bool tiny)
{
    size_t code_bytes = w->panel_code_bytes * w->n_panels;

    ENSURE_OP(code_bytes, <=, CODE_BYTES);
    ENSURE_OP(w->panel_scale_bytes * w->n_panels, <=, SCALE_BYTES);
    for (size_t i = 0; i < code_bytes; i += 4) {
        uint32_t word = next(check);
        float element = value(check, tiny ? -64 : -1);

        if (w->dtype == DTYPE_F16) {
            word &= tiny ? 0x87ff87ff : 0xbfffbfff; /* small or denormal; finite */
        } else if (w->dtype == DTYPE_F32) {
            memcpy(&word, &element, sizeof(word));
        } else if (w->dtype == DTYPE_BF16) {
            word = bf16_from_f32(element) | (uint32_t)bf16_from_f32(-element) << 16;
        }
        memcpy(check->codes + i, &word, sizeof(word));
    }
    for (size_t i = 0; i < SCALE_BYTES; i += 4) {
        uint32_t word = next(check) & (tiny ? 0x87ff87ff : 0xbfffbfff);

        memcpy(check->scales + i, &word, sizeof(word));
    }
    w->codes = check->codes;
    w->scales = w->panel_scale_bytes == 0 ? NULL : check->scales;
}

/* The same at 12 bits: rare elements among them, some of which are patches. */
static void fill_bf16_12(struct check *check, struct packed *w, bool tiny)
{
    enum { RARE = 16 };
    const uint8_t *rows[PACKED_LANES] = {NULL};
    uint8_t *elements = check->rows;

    ENSURE_OP(w->n_panels, ==, 1);
    memset(check->codes, 0, sizeof(check->codes));
    memset(check->scales, 0, sizeof(check->scales));
    for (uint32_t i = 0; i < w->rows * w->cols; i++) {
        uint32_t at = i / (w->rows * w->cols / RARE);
        bool rare = i % (w->rows * w->cols / RARE) == 7;
        float element = value(check, tiny ? -64 : -1);
        uint16_t bf16 = rare ? (uint16_t)((at + 2) << 8 | i) : bf16_from_f32(element);

        memcpy(elements + 2 * i, &bf16, sizeof(bf16));
        rows[i / w->cols] = elements + 2 * (i - i % w->cols);
    }
    ENSURE(bf16_12_pack(w, rows, check->codes, check->scales));
    w->codes = check->codes;
    w->scales = check->scales;
}

/* Both roots of a product of two. */
static bool same_roots(const struct check *check, const struct cpu_matmul *args)
{
    return same(check->found, check->expected, args->m * OUTPUTS) &&
           same(check->found + args->root_stride, check->expected + args->root_stride,
                args->m * OUTPUTS);
}

/* The rows of check->x as integers. */
static struct quant quantise(struct check *check, const struct cpu_kernels *kernels,
                             const struct packed *w, bool wide)
{
    uint32_t n = quant_n_groups(&w->leaves);
    struct quant q = quant_attach(check->quantised, ROWS_MAX, n, wide);
    size_t bytes;

    ENSURE(quant_bytes(ROWS_MAX, n, wide, &bytes) && bytes <= sizeof(check->quantised));
    for (size_t i = 0; i < ROWS_MAX; i++) {
        struct quant row = quant_from(q, i);

        kernels->quant_row(check->x + i * X_STRIDE, &w->leaves, &row);
    }
    return q;
}

/* Integer activations by the weights that check_matmul left: two rows, and as many as take two tile
 * registers. */
static bool check_integers(struct check *check, const struct cpu_matmul *matmul, bool wide)
{
    struct cpu_matmul args = *matmul;

    fill(check, check->x, ROWS_MAX * X_STRIDE, -1);
    args.q = quantise(check, check->ref, args.w, wide);
    args.m = ROWS_MAX;
    args.y = check->expected;
    check->ref->matmul_int8[args.w->dtype](&args);
    args.q = quantise(check, check->kernels, args.w, wide);
    args.y = check->found;
    for (args.m = 2; args.m <= ROWS_MAX; args.m += ROWS_MAX - 2) {
        memset(check->found, 0, sizeof(check->found));
        check->kernels->matmul_int8[args.w->dtype](&args);
        if (!same_roots(check, &args)) {
            return false;
        }
    }
    return true;
}

/* The weights that check_matmul left by as many rows as take two tile registers, rounded to bf16.
 */
static bool check_rounded(struct check *check, const struct cpu_matmul *matmul, int exponent)
{
    struct cpu_matmul args = *matmul;

    args.m = ROWS_MAX;
    args.x_bf16 = true;
    fill(check, check->x, ROWS_MAX * X_STRIDE, exponent);
    check->ref->round_bf16(check->x, check->x, ROWS_MAX * X_STRIDE);
    args.y = check->expected;
    check->ref->matmul[args.w->dtype](&args);
    args.y = check->found;
    memset(check->found, 0, sizeof(check->found));
    check->kernels->matmul[args.w->dtype](&args);
    return same_roots(check, &args);
}

/* Two tiles, over three leaves of which two merge: 2 and 9 rows of x, or 1 and 5 tiny ones. */
static bool check_matmul(struct check *check, enum dtype dtype, bool tiny)
{
    uint32_t cols = dtype_info(dtype)->group == 256                       ? 256
                    : dtype_is_quantised(dtype) || dtype == DTYPE_BF16_12 ? 96
                                                                          : 71;
    static const uint32_t rows[2][2] = {{2, ROWS}, {1, 5}};
    uint32_t bounds[] = {0, 32, 58, cols};
    uint8_t merges[] = {0, 1, 0};
    struct packed w;
    struct cpu_matmul args = {.w = &w,
                              .x = check->x,
                              .x_stride = X_STRIDE,
                              .y = check->expected,
                              .y_stride = OUTPUTS,
                              .root_stride = ROWS_MAX * OUTPUTS,
                              .m = rows[tiny][1],
                              .panel_end = 1,
                              .scratch = check->scratch};

    ENSURE(packed_init(&w, dtype, cols == 256 ? 4 : OUTPUTS - 1, cols));
    if (dtype == DTYPE_BF16_12) {
        fill_bf16_12(check, &w, tiny);
    } else {
        fill_weights(check, &w, tiny);
    }
    w.leaves = (struct leaf_plan){
        .n_leaves = 3, .n_roots = 2, .depth = 2, .bounds = bounds, .merges = merges};
    fill(check, check->x, args.m * X_STRIDE,
         !tiny                                          ? -1
         : w.scales == NULL || w.dtype == DTYPE_BF16_12 ? -64
                                                        : -108);
    memset(check->expected, 0, sizeof(check->expected));
    check->ref->matmul[dtype](&args);
    args.y = check->found;
    for (int i = 0; i < 2; i++) {
        args.m = rows[tiny][i];
        memset(check->found, 0, sizeof(check->found));
        check->kernels->matmul[dtype](&args);
        if (!same_roots(check, &args)) {
            return false;
        }
    }
    if (dtype == DTYPE_BF16 || dtype == DTYPE_BF16_12) {
        return check_rounded(check, &args, tiny ? -64 : -1);
    }
    return !dtype_is_quantised(dtype) || tiny ||
           (check_integers(check, &args, false) && check_integers(check, &args, true));
}

/* K and V of a block, in check->codes; both begin there for the plain types, large enough for
 * either shape. */
static void fill_block(struct check *check, struct cpu_attn_block *args, bool tiny)
{
    enum { V_AT = 4096 };
    bool integers = args->kv == KV_INT8;
    enum dtype dtype = integers ? DTYPE_Q8_0 : args->kv == KV_BF16 ? DTYPE_BF16 : DTYPE_F32;
    struct packed shape;

    ENSURE(packed_init(&shape, dtype, KEYS, integers ? QUANT_GROUP : HEAD_DIM));
    fill_weights(check, &shape, tiny);
    args->k = check->codes;
    args->v = check->codes + (integers ? V_AT : 0);
    if (integers) {
        ENSURE_OP(packed_bytes(&shape), <=, V_AT);
        memcpy(check->codes + packed_scale_offset(&shape), check->scales,
               shape.panel_scale_bytes * shape.n_panels);
        for (size_t i = V_AT; i < V_AT + cpu_v8_scale_offset(HEAD_DIM); i++) {
            check->codes[i] = (uint8_t)next(check);
        }
        fill(check, (void *)(check->codes + V_AT + cpu_v8_scale_offset(HEAD_DIM)), KEYS,
             tiny ? -126 : -7);
    }
}

/* One block: two queries that see few keys or many. */
static bool check_attention(struct check *check, enum kv_type kv, bool tiny, uint32_t keys)
{
    uint32_t valid[QUERIES] = {keys, keys + 3};
    uint32_t bounds[] = {0, HEAD_DIM};
    struct packed head = {.leaves = {.n_leaves = 1, .bounds = bounds}};
    float *results[2] = {check->expected, check->found};
    struct cpu_attn_block args = {.head_dim = HEAD_DIM,
                                  .kv = kv,
                                  .scale = 0.25f,
                                  .q = check->x,
                                  .q_stride = X_STRIDE,
                                  .n_q = QUERIES,
                                  .valid = valid,
                                  .o_stride = 32,
                                  .scratch = check->scratch};

    fill_block(check, &args, tiny);
    args.next = args.k;
    fill(check, check->x, QUERIES * X_STRIDE, tiny ? -64 : 1);
    if (kv == KV_BF16) {
        check->ref->round_bf16(check->x, check->x, QUERIES * X_STRIDE);
    }
    for (int i = 0; i < 2; i++) {
        const struct cpu_kernels *kernels = i == 0 ? check->ref : check->kernels;

        if (kv == KV_INT8) {
            args.q8 = quantise(check, kernels, &head, false);
        }
        args.product =
            kv == KV_INT8 ? kernels->matmul_int8[DTYPE_Q8_0] : kernels->matmul[DTYPE_BF16];
        memset(results[i], 0, sizeof(check->found));
        args.o = results[i];
        args.m = results[i] + QUERIES * args.o_stride;
        args.l = args.m + QUERIES;
        kernels->attn_block(&args);
    }
    return same(check->expected, check->found, ARRAY_LEN(check->found));
}

/* The kernels over rows, from a, b and c to check->expected or found; the name of one that differs.
 */
static const char *check_rows(struct check *check, int exponent)
{
    const float *a = check->x;
    const float *b = a + LENGTH;
    const float *c = b + LENGTH;
    float *results[2] = {check->expected, check->found};
    static const char *const names[] = {"rmsnorm",    "round_bf16",  "silu_mul",
                                        "attn_merge", "attn_finish", "add or rope"};

    fill(check, check->x, 3 * LENGTH, exponent);
    for (size_t n = 0; n < ARRAY_LEN(names); n++) {
        for (int i = 0; i < 2; i++) {
            const struct cpu_kernels *kernels = i == 0 ? check->ref : check->kernels;
            float *y = results[i];

            memcpy(y, c, (LENGTH + 2) * sizeof(float));
            switch (n) {
            case 0:
                kernels->rmsnorm(y, a, b, LENGTH - 3, 1e-6f);
                break;
            case 1:
                kernels->round_bf16(y, a, LENGTH - 1);
                break;
            case 2:
                kernels->silu_mul(y, a, b, LENGTH);
                break;
            case 3:
                kernels->attn_merge(y + LENGTH, y + LENGTH + 1, y, a, b, a, LENGTH);
                break;
            case 4:
                kernels->attn_finish(y, a, b[0], LENGTH);
                break;
            default:
                kernels->add(y, a, LENGTH);
                kernels->rope(y, a, b, LENGTH / 2 - 1);
                break;
            }
        }
        if (!same(check->expected, check->found, LENGTH + 2)) {
            return names[n];
        }
    }
    return NULL;
}

/* Masses of some rows, and their sum: all of the range of exp, its ends and both zeros. */
static const char *check_masses(struct check *check, float inv_temperature)
{
    float *logits = check->x;
    float *results[2] = {check->expected, check->found};

    fill(check, logits, LENGTH, 2);
    logits[5] = -INFINITY;
    logits[7] = -100.0f;
    for (int i = 0; i < 2; i++) {
        const struct cpu_kernels *kernels = i == 0 ? check->ref : check->kernels;
        float *y = results[i];

        y[LENGTH] = kernels->mass_max(logits, LENGTH - 3);
        y[LENGTH + 1] =
            kernels->mass_sum(logits, LENGTH - 3, check->expected[LENGTH], inv_temperature, y);
    }
    if (!same(check->expected + LENGTH, check->found + LENGTH, 1)) {
        return "mass_max";
    }
    check->expected[LENGTH - 3] = check->expected[LENGTH + 1];
    check->found[LENGTH - 3] = check->found[LENGTH + 1];
    return same(check->expected, check->found, LENGTH - 2) ? NULL : "mass_sum";
}

static const char *run(struct check *check)
{
    const char *differs = NULL;

    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (!check_matmul(check, (enum dtype)i, false) ||
            !check_matmul(check, (enum dtype)i, true)) {
            return matmul_names[i];
        }
    }
    for (unsigned i = 0; i < 4 * KV_TYPE_COUNT; i++) {
        if (!check_attention(check, (enum kv_type)(i / 4), (i & 1) != 0, (i & 2) != 0 ? 37 : 1)) {
            return "attn_block";
        }
    }
    differs = check_rows(check, 3); /* reaches both ends of exp */
    differs = differs != NULL ? differs : check_rows(check, -65);
    differs = differs != NULL ? differs : check_masses(check, 1.0f);
    return differs != NULL ? differs : check_masses(check, 1.7f);
}

const char *cpu_selfcheck(const struct cpu_kernels *kernels, const struct cpu_kernels *ref)
{
    struct check *check = aligned_alloc(CACHE_LINE, round_up(sizeof(*check), CACHE_LINE));
    const char *differs;

    ENSURE(check != NULL);
    check->kernels = kernels;
    check->ref = ref;
    check->random = 1;
    check->scratch = aligned_alloc(CACHE_LINE, CPU_SCRATCH_BYTES);
    ENSURE(check->scratch != NULL);
    differs = run(check);
    free(check->scratch);
    free(check);
    return differs;
}
