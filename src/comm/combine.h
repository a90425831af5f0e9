/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of reductions: two vectors combined into one, and the program that combines many
 * by the halving tree. A program is compiled from who owns which leaves: its inputs are the roots
 * of all ranks in order, its steps the inner nodes of the tree above them. Running it gives the
 * same bits whoever owned what. Pure but for the float environment, which the caller sets.
 */
#pragma once

#include "comm/comm.h"
#include "tensor/shard.h"

enum { COMBINE_INPUTS_MAX = 1024, COMBINE_TEMPS_MAX = 16 };

/* out[i] = a[i] op b[i]; out may be a or b. */
typedef void combine_fn(void *out, const void *a, const void *b, size_t n);

/* x[i] = x[i] + (a[i] + b[i]): the last step of a sum that goes on into the residual stream. */
typedef void combine_add_sum_fn(float *restrict x, const float *restrict a, const float *restrict b,
                                size_t n);

/* Between a type and the one it is computed in. */
typedef void combine_convert_fn(void *out, const void *in, size_t n);

/* Sums of floats, the ones that decoding waits for, for one instruction set. What comes from
 * another core arrives faster the fewer instructions wait for each line. All give the same bits. */
struct combine_sums {
    const char *name;
    combine_fn *sum;
    combine_add_sum_fn *add_sum;
};

extern const struct combine_sums combine_sums_ref;
#if defined(__x86_64__)
extern const struct combine_sums combine_sums_avx2;
extern const struct combine_sums combine_sums_avx512;
#endif

/* The widest that this processor has. */
const struct combine_sums *combine_sums_find(void);

/* Everything else, for one instruction set; all give the same bits. */
struct combine_kernels {
    const char *name;
    combine_fn *combine[COMM_TYPE_COUNT][COMM_MAX + 1]; /* sum and prod of f16 and bf16: NULL */
    combine_convert_fn *widen_f16;                      /* to f32 */
    combine_convert_fn *narrow_f16;
    combine_convert_fn *widen_bf16;
    combine_convert_fn *narrow_bf16;
};

extern const struct combine_kernels combine_kernels_ref;
#if defined(__x86_64__)
extern const struct combine_kernels combine_kernels_avx2;
#endif

const struct combine_kernels *combine_kernels_find(void);

/* How a type is reduced: inputs are widened, scaled, combined along the tree, the result divided
 * and narrowed. NULL where there is nothing to do. */
struct combine_math {
    size_t type_bytes;
    size_t computing_bytes; /* of the type in which it is computed */
    combine_fn *combine;
    combine_add_sum_fn *add_sum; /* of f32 sums */
    combine_convert_fn *widen;
    void (*scale)(void *x, const void *scale, size_t n); /* x[i] *= *scale */
    void (*divide)(void *x, uint32_t n_ranks, size_t n); /* x[i] /= n_ranks */
    combine_convert_fn *narrow;
};

struct combine_math combine_math_find(enum comm_type type, enum comm_reduction reduction);

/* Bytes of the type in which this one is computed: of a premul_sum's scale. */
size_t combine_computing_bytes(enum comm_type type);

/* x[i] = x[i] + a[i] */
void combine_add(float *restrict x, const float *restrict a, size_t n);

/* Operands: an input's number, or ~t for temporary t. */
struct combine_step {
    int16_t a;
    int16_t b;
    uint8_t temp; /* where the result goes, but for the last step */
};

struct combine_program {
    uint32_t n_leaves;
    struct shard_cut cut;                      /* from which it was compiled */
    uint32_t n_inputs;                         /* 0: there are no leaves */
    uint32_t n_steps;                          /* n_inputs - 1 */
    uint32_t first_input[SHARD_RANKS_MAX + 1]; /* rank r's: [first_input[r], first_input[r + 1]) */
    struct combine_step *steps;
};

/* Compiles; cut covers n_leaves and has at most COMBINE_INPUTS_MAX roots. */
void combine_program_init(struct combine_program *program, uint32_t n_leaves,
                          const struct shard_cut *cut);
void combine_program_release(struct combine_program *program);

struct combine_run {
    const struct combine_math *math;
    const void *const *inputs; /* [n_inputs], elements of the type */
    const void *const *scales; /* [n_inputs] of premul_sum */
    size_t offset;             /* elements [offset, offset + count) of every input */
    size_t count;
    void *out;     /* [count], may be what is read of one input; or NULL and */
    float *add_to; /* [count]: add_to[i] += result[i], of floats; overlaps no input */
};

void combine_program_run(const struct combine_program *program, const struct combine_run *run);
