/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/combine.h"

#include "base/mem.h"
#include "tensor/leaves.h"

/* Elements of a vector that are combined at a time, so that temporaries stay in the first cache. */
enum { BLOCK = 512, ELEMENT_BYTES = 4 };

static void sum_f32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = x[i] + y[i];
    }
}

static void prod_f32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = x[i] * y[i];
    }
}

static void min_f32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = MIN(x[i], y[i]);
    }
}

static void max_f32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = MAX(x[i], y[i]);
    }
}

static void sum_u32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    uint32_t *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = x[i] + y[i];
    }
}

static void prod_u32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    uint32_t *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = x[i] * y[i];
    }
}

static void min_u32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    uint32_t *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = MIN(x[i], y[i]);
    }
}

static void max_u32(void *restrict out, const void *restrict a, const void *restrict b, size_t n)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    uint32_t *z = out;

    for (size_t i = 0; i < n; i++) {
        z[i] = MAX(x[i], y[i]);
    }
}

static void add_sum(float *restrict x, const float *restrict a, const float *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + (a[i] + b[i]);
    }
}

void combine_add(float *restrict x, const float *restrict a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + a[i];
    }
}

static const struct {
    const char *name;
    size_t bytes;
    combine_fn *combine[COMM_REDUCTION_COUNT];
} types[COMM_TYPE_COUNT] = {
    [COMM_F32] = {"f32", 4, {sum_f32, prod_f32, min_f32, max_f32}},
    [COMM_U32] = {"u32", 4, {sum_u32, prod_u32, min_u32, max_u32}},
};

static const char *const reductions[COMM_REDUCTION_COUNT] = {"sum", "prod", "min", "max"};

size_t combine_type_bytes(enum comm_type type)
{
    return types[type].bytes;
}

const char *combine_type_name(enum comm_type type)
{
    return types[type].name;
}

const char *combine_reduction_name(enum comm_reduction reduction)
{
    return reductions[reduction];
}

const struct combine_sums combine_sums_ref = {"ref", sum_f32, add_sum};

const struct combine_sums *combine_sums_find(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return &combine_sums_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        return &combine_sums_avx2;
    }
#endif
    return &combine_sums_ref;
}

combine_fn *combine_find(enum comm_type type, enum comm_reduction reduction)
{
    if (type == COMM_F32 && reduction == COMM_SUM) {
        return combine_sums_find()->sum;
    }
    return types[type].combine[reduction];
}

/* While a program is compiled. */
struct compiler {
    struct combine_program *program;
    uint32_t rank;  /* that owns the next leaf */
    uint32_t temps; /* bit t: temporary t is in use */
};

static void free_operand(struct compiler *c, int16_t operand)
{
    if (operand < 0) {
        c->temps &= ~(1u << ~operand);
    }
}

/* Emits the steps for leaves [low, high); returns where their sum is. The result's temporary is
 * chosen while both operands hold theirs, so that no step works in place. */
static int16_t compile(struct compiler *c, uint32_t low, uint32_t high)
{
    struct combine_program *p = c->program;
    uint32_t middle = low + leaves_split(high - low);
    struct combine_step step;

    while (low >= p->cut.bounds[c->rank + 1]) {
        c->rank++;
    }
    if (high <= p->cut.bounds[c->rank + 1]) {
        return (int16_t)p->n_inputs++;
    }
    step.a = compile(c, low, middle);
    step.b = compile(c, middle, high);
    step.temp = (uint8_t)__builtin_ctz(~c->temps);
    ENSURE_OP(step.temp, <, COMBINE_TEMPS_MAX);
    c->temps |= 1u << step.temp;
    free_operand(c, step.a);
    free_operand(c, step.b);
    p->steps[p->n_steps++] = step;
    return (int16_t)~step.temp;
}

void combine_program_init(struct combine_program *program, uint32_t n_leaves,
                          const struct shard_cut *cut)
{
    struct compiler compiler = {.program = program};
    uint32_t n_inputs = 0;

    *program = (struct combine_program){.n_leaves = n_leaves, .cut = *cut};
    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        n_inputs +=
            shard_n_roots(n_leaves, (struct shard_range){cut->bounds[r], cut->bounds[r + 1]});
        program->first_input[r + 1] = n_inputs;
    }
    ENSURE_OP(n_inputs, <=, COMBINE_INPUTS_MAX);
    program->steps = xcalloc(n_inputs, sizeof(*program->steps));
    if (n_leaves > 0) {
        compile(&compiler, 0, n_leaves);
    }
    ENSURE_OP(program->n_inputs, ==, n_inputs);
}

void combine_program_release(struct combine_program *program)
{
    free(program->steps);
    *program = (struct combine_program){0};
}

/* One block of the result: elements [at, at + n) of the run. */
static void run_block(const struct combine_program *program, const struct combine_run *run,
                      size_t at, size_t n, float temps[][BLOCK])
{
    size_t from = (run->offset + at) * ELEMENT_BYTES;
    const struct combine_step *step = program->steps;
    const struct combine_step *last = step + program->n_steps - 1;
    const void *a = NULL;
    const void *b = NULL;

    for (; step <= last; step++) {
        a = step->a < 0 ? (const void *)temps[~step->a] : (const char *)run->inputs[step->a] + from;
        b = step->b < 0 ? (const void *)temps[~step->b] : (const char *)run->inputs[step->b] + from;
        if (step < last) {
            run->combine(temps[step->temp], a, b, n);
        }
    }
    if (run->add_to != NULL) {
        run->add_sum(run->add_to + at, a, b, n);
    } else {
        run->combine((char *)run->out + at * ELEMENT_BYTES, a, b, n);
    }
}

void combine_program_run(const struct combine_program *program, const struct combine_run *run)
{
    float temps[COMBINE_TEMPS_MAX][BLOCK];

    if (program->n_steps == 0) {
        const float *only = (const float *)run->inputs[0] + run->offset;

        if (run->add_to != NULL) {
            combine_add(run->add_to, only, run->count);
        } else {
            memcpy(run->out, only, run->count * ELEMENT_BYTES);
        }
        return;
    }
    for (size_t at = 0; at < run->count; at += BLOCK) {
        run_block(program, run, at, MIN(BLOCK, run->count - at), temps);
    }
}
