/* SPDX-License-Identifier: Apache-2.0 */
/* Private to cpu/: the device behind the operator table. Owned by the thread that calls operators.
 */
#pragma once

#include <stdatomic.h>

#include "cpu/cpu.h"
#include "base/float_env.h"
#include "cpu/pool.h"
#include "cpu/row_queue.h"

struct ops_device {
    struct pool *pool;
    uint32_t n_threads;
    enum cpu_level level;
    struct cpu_kernels kernels;
    float **scratch; /* [n_threads] of CPU_SCRATCH_BYTES */
    /* What products take, of all rows of x or, where those wait, in equal parts for each thread */
    float *rounded; /* x rounded to bf16 */
    size_t rounded_bytes;
    void *quantised[2]; /* x as integers (struct quant), [1] as wide ones */
    size_t quantised_bytes[2];
    struct row_queue queue;
    struct ops_tune tune;
    struct float_env caller_fenv;
    void (*tick)(void *arg); /* as in struct ops_config */
    void *tick_arg;
    _Atomic uint32_t beats; /* signs of life of the other threads, */
    uint32_t beats_seen;    /* of which the calling thread has passed on so many */
};

/* A sign of life, from inside a share. The calling thread is number 0; those of the others it
 * passes on while it waits for them. */
static inline void device_tick(struct ops_device *device, uint32_t thread)
{
    if (thread != 0) {
        atomic_fetch_add_explicit(&device->beats, 1, memory_order_relaxed);
    } else if (device->tick != NULL) {
        device->tick(device->tick_arg);
    }
}

/* All shares of fn: of little work by the calling thread alone, for a fork and join costs about 1
 * us.
 */
enum { CPU_INLINE_ELEMENTS = 16 * 1024 };

static inline void device_run(struct ops_device *device, pool_fn *fn, void *arg, size_t n_elements)
{
    if (n_elements < CPU_INLINE_ELEMENTS) {
        fn(arg, 0, 1);
    } else {
        pool_run(device->pool, fn, arg);
    }
}

enum { CPU_FETCH_ROWS = 3 }; /* rows of a head that are on their way while one is read */

/* n floats on their way into the second-level cache: a head of a row is too short for a processor
 * to see what comes next. */
static inline void device_fetch(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += CACHE_LINE / sizeof(*x)) {
        __builtin_prefetch(x + i, 0, 2);
    }
}

/* The operators, one file a kind. */
void cpu_op_embed(struct ops_device *device, const struct packed *w, const int32_t *tokens,
                  uint32_t n, float *out, size_t out_stride);
void cpu_op_rmsnorm(struct ops_device *device, const struct ops_rmsnorm *args);
void cpu_op_rope(struct ops_device *device, const struct ops_rope *args);
void cpu_op_silu_mul(struct ops_device *device, const float *gate, const float *up, size_t stride,
                     float *y, size_t y_stride, uint32_t n, uint32_t dim);
void cpu_op_add(struct ops_device *device, float *x, size_t x_stride, const float *y,
                size_t y_stride, uint32_t n, uint32_t dim);
bool cpu_op_has_nan(struct ops_device *device, const float *x, size_t x_stride, uint32_t n,
                    uint32_t dim);
void cpu_op_linear(struct ops_device *device, const struct ops_linear *args);
size_t cpu_op_kv_page_bytes(const struct ops_kv *kv);
void cpu_op_kv_page_clear(struct ops_device *device, const struct ops_kv *kv, uint32_t page);
void cpu_op_kv_write(struct ops_device *device, const struct ops_kv_write *args);
void cpu_op_attention(struct ops_device *device, const struct ops_attention *args);
struct mass_table cpu_op_masses(struct ops_device *device);
