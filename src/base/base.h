/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary every module uses: attributes, ENSURE, sizes that cannot overflow.
 * Header only; no state; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/banned.h"

#define NODISCARD         __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define UNUSED            __attribute__((unused))
#define NORETURN          __attribute__((noreturn))
#define CACHE_LINE        64

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MAX(a, b)    ((a) > (b) ? (a) : (b))

/* Aborts with the text of the condition. For bugs only: input from outside never reaches it. */
#define ENSURE(x) ((x) ? (void)0 : base_ensure_failed(#x, __FILE__, __LINE__))

/* As ENSURE(a op b) for integers, and prints both operands. */
#define ENSURE_OP(a, op, b)                                                                        \
    ((a)op(b) ? (void)0                                                                            \
              : base_ensure_op_failed(#a " " #op " " #b, (long long)(a), (long long)(b), __FILE__, \
                                      __LINE__))

NORETURN void base_ensure_failed(const char *condition, const char *file, int line);
NORETURN void base_ensure_op_failed(const char *condition, long long a, long long b,
                                    const char *file, int line);

/* Sizes from outside: *ret = a op b, false (and *ret untouched) when it does not fit. */
static inline NODISCARD bool size_add(size_t a, size_t b, size_t *ret)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *ret = sum;
    return true;
}

static inline NODISCARD bool size_mul(size_t a, size_t b, size_t *ret)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *ret = product;
    return true;
}

/* n rounded up to a multiple of unit; the caller knows that it does not overflow. */
static inline size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static inline size_t div_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit;
}
