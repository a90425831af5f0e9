/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outcomes as the public header has them, and what the parts of liblockstep need to give them.
 * Statuses of the modules below keep their number where the public list has it. Any thread.
 */
#pragma once

#include <lockstep/types.h>

#include "base/base.h"

/* Fills error (NULL: not wanted) and returns status, so that one can write return lib_fail(...). */
enum lockstep_status lib_fail(struct lockstep_error *error, enum lockstep_status status,
                              const char *format, ...) PRINTF_LIKE(3, 4);

/* What a status of the modules below is called outside. */
enum lockstep_status lib_status(int status);

/* Cuts where it must, never in the middle of a UTF-8 character. Returns out. */
char *lib_text(char *out, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);

/* Whether the calling thread runs a callback or a function of the user: it must not wait there for
 * what only this thread could bring about. */
bool lib_in_callback(void);
bool lib_callback_enter(void); /* returns what it was */
void lib_callback_leave(bool was);

/* LOCKSTEP_INVALID in a callback, otherwise LOCKSTEP_OK; what: "lockstep_op_wait". */
enum lockstep_status lib_may_wait(const char *what, struct lockstep_error *error);

/* The time timeout_ms from now, by clock_ns. */
uint64_t lib_deadline(uint32_t timeout_ms);

/* Milliseconds until then, rounded up; 0: it has passed. */
uint32_t lib_ms_left(uint64_t deadline_ns);
