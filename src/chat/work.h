/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What parsing and rendering a template may use up, and the one way out when something is wrong:
 * memory from an arena with a limit, a budget of steps, a bound on nesting. Everything they make
 * lies in the arena and owns nothing else, so a failure is a single longjmp out of any depth to the
 * function that opened the work, which releases the arena. Hence the functions of this module that
 * can fail return plain values: they return only if all is well.
 *
 * The opener writes:  if (setjmp(work->exit) == 0) { ... } work_close(work);
 * One thread at a time.
 */
#pragma once

#include <setjmp.h>

#include "base/buf.h"

struct work_block;

struct work {
    struct work_block *blocks; /* newest first */
    size_t used_bytes;
    size_t max_bytes;
    uint64_t steps;
    uint64_t max_steps;
    int depth;
    int max_depth;
    int line;            /* of the construct at hand, for messages */
    struct buf *message; /* set by the opener; filled before the jump */
    jmp_buf exit;
};

/* Releases all memory; what was allocated is gone. The zero value is allowed. */
void work_close(struct work *work);

/* Zeroed bytes, aligned for any type; fails when the limit is reached. */
void *work_alloc(struct work *work, size_t n, size_t bytes);

/* n bytes grown to new_n, in place if they are the newest ones; the rest is not initialised. */
char *work_grow(struct work *work, char *bytes, size_t n, size_t new_n);

/* Fails with "line N: TEXT" or with the message as it is. */
NORETURN void work_fail(struct work *work, const char *format, ...) PRINTF_LIKE(2, 3);
NORETURN void work_raise(struct work *work, const char *message, size_t size);

/* Charges n steps; fails when the budget is used up. */
void work_step(struct work *work, uint64_t n);

/* Brackets a recursion; enter fails when it is too deep. */
void work_enter(struct work *work);
static inline void work_leave(struct work *work)
{
    work->depth--;
}
