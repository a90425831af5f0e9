/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/combine.h"

#include "base/mem.h"
#include "tensor/leaves.h"

/* Bytes of vectors that are combined at a time, so that temporaries stay in the first cache. */
enum { BLOCK_BYTES = 2048 };

void combine_add(float *restrict x, const float *restrict a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + a[i];
    }
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

/* What the blocks of one run need. */
struct workplace {
    _Alignas(CACHE_LINE) unsigned char temps[COMBINE_TEMPS_MAX][BLOCK_BYTES];
    _Alignas(CACHE_LINE) unsigned char a[BLOCK_BYTES]; /* operands as they are computed with */
    _Alignas(CACHE_LINE) unsigned char b[BLOCK_BYTES];
};

/* Elements [at, at + n) of an input, as they are computed with: where they lie, or in prepared. */
static const void *prepare(const struct combine_run *run, int16_t input, size_t at, size_t n,
                           unsigned char *prepared)
{
    const struct combine_math *math = run->math;
    const char *in = (const char *)run->inputs[input] + at * math->type_bytes;

    if (math->widen == NULL && math->scale == NULL) {
        return in;
    }
    if (math->widen != NULL) {
        math->widen(prepared, in, n);
    } else {
        memcpy(prepared, in, n * math->type_bytes);
    }
    if (math->scale != NULL) {
        math->scale(prepared, run->scales[input], n);
    }
    return prepared;
}

/* The result of a block, in place as it was computed, becomes elements [at, at + n) of out. */
static void finish(const struct combine_run *run, uint32_t n_ranks, size_t at, size_t n,
                   unsigned char *result)
{
    const struct combine_math *math = run->math;
    char *out = (char *)run->out + at * math->type_bytes;

    if (math->divide != NULL) {
        math->divide(result, n_ranks, n);
    }
    if (math->narrow != NULL) {
        math->narrow(out, result, n);
    } else {
        memcpy(out, result, n * math->type_bytes);
    }
}

/* One block of the result: elements [at, at + n) of the run. */
static void run_block(const struct combine_program *program, const struct combine_run *run,
                      size_t at, size_t n, struct workplace *work)
{
    const struct combine_math *math = run->math;
    const struct combine_step *step = program->steps;
    const struct combine_step *last = step + program->n_steps - 1;
    const void *a = NULL;
    const void *b = NULL;

    for (; step <= last; step++) {
        a = step->a < 0 ? work->temps[~step->a]
                        : prepare(run, step->a, run->offset + at, n, work->a);
        b = step->b < 0 ? work->temps[~step->b]
                        : prepare(run, step->b, run->offset + at, n, work->b);
        if (step < last) {
            math->combine(work->temps[step->temp], a, b, n);
        }
    }
    if (run->add_to != NULL) {
        math->add_sum(run->add_to + at, a, b, n);
    } else if (math->divide != NULL || math->narrow != NULL) {
        math->combine(work->a, a, b, n);
        finish(run, program->cut.n_ranks, at, n, work->a);
    } else {
        math->combine((char *)run->out + at * math->type_bytes, a, b, n);
    }
}

/* With one input there is nothing to combine: it is copied, unless it is scaled or divided. */
static void run_single(const struct combine_program *program, const struct combine_run *run)
{
    const struct combine_math *math = run->math;
    const char *only = (const char *)run->inputs[0] + run->offset * math->type_bytes;
    size_t block = BLOCK_BYTES / math->computing_bytes;
    _Alignas(CACHE_LINE) unsigned char work[BLOCK_BYTES];

    if (run->add_to != NULL) {
        combine_add(run->add_to, (const float *)only, run->count);
        return;
    }
    if (math->scale == NULL && math->divide == NULL) {
        if (run->out != only) {
            memmove(run->out, only, run->count * math->type_bytes);
        }
        return;
    }
    for (size_t at = 0; at < run->count; at += block) {
        size_t n = MIN(block, run->count - at);
        const void *prepared = prepare(run, 0, run->offset + at, n, work);

        if (prepared != work) {
            memcpy(work, prepared, n * math->type_bytes);
        }
        finish(run, program->cut.n_ranks, at, n, work);
    }
}

/* Two inputs that are neither scaled nor divided, nor of a type that is computed in another: they
 * need no workplace. */
static bool run_pair(const struct combine_program *program, const struct combine_run *run)
{
    const struct combine_math *math = run->math;
    size_t offset = run->offset * math->type_bytes;
    const char *a;
    const char *b;

    if (program->n_steps != 1 || math->widen != NULL || math->scale != NULL ||
        math->divide != NULL) {
        return false;
    }
    a = (const char *)run->inputs[program->steps->a] + offset;
    b = (const char *)run->inputs[program->steps->b] + offset;
    if (run->add_to != NULL) {
        math->add_sum(run->add_to, (const void *)a, (const void *)b, run->count);
    } else {
        math->combine(run->out, a, b, run->count);
    }
    return true;
}

static void run_blocks(const struct combine_program *program, const struct combine_run *run)
{
    size_t block = BLOCK_BYTES / run->math->computing_bytes;
    struct workplace work;

    for (size_t at = 0; at < run->count; at += block) {
        run_block(program, run, at, MIN(block, run->count - at), &work);
    }
}

void combine_program_run(const struct combine_program *program, const struct combine_run *run)
{
    if (run->count == 0 || run_pair(program, run)) {
        return;
    }
    if (program->n_steps == 0) {
        run_single(program, run);
    } else {
        run_blocks(program, run);
    }
}
