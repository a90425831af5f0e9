/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings over a stream of text, however it is cut: what is pushed comes out again except a
 * tail that may be the beginning of a stop string. The stop string that is complete first ends the
 * text; of several that end with the same byte, the longest. (So that a text is over as soon as it
 * can be, and never depends on what would have followed.) Bytes in, bytes out: if neither the
 * pieces nor the stop strings cut a UTF-8 sequence, what comes out does not either.
 *
 * One matcher a choice; one thread at a time.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum { STOP_MAX = 16 };

struct stop_matcher;

/* include_stop: the stop string itself is released too. */
struct stop_matcher *stop_matcher_create(bool include_stop);
void stop_matcher_destroy(struct stop_matcher **matcher);

/* Adds a stop string (copied), before anything is pushed. STATUS_INVALID if it is empty or no
 * UTF-8, STATUS_LIMIT above STOP_MAX. */
NODISCARD enum status stop_matcher_add(struct stop_matcher *matcher, const char *text, size_t n,
                                       struct err *err);

/* Appends to out what can be released. True once a stop string has matched; what follows it in the
 * text, in this push and later ones, is dropped. */
bool stop_matcher_push(struct stop_matcher *matcher, const char *text, size_t n, struct buf *out);

/* The same for text in which no stop string may end: one that is complete in it is text like any
 * other, but one may begin in it and end in what is pushed later. */
void stop_matcher_pass(struct stop_matcher *matcher, const char *text, size_t n, struct buf *out);

/* The end of the text: appends what was held back. */
void stop_matcher_finish(struct stop_matcher *matcher, struct buf *out);

/* Which stop string has matched, in the order of adding; -1: none. */
int stop_matcher_matched(const struct stop_matcher *matcher);
