/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that a process writes on a stream, cut into log lines. Pure: bytes and times in, lines out
 * by a function. Lines end at a newline; a longer line is cut and its rest dropped; a line without
 * a newline is given out once it has waited for a while or the stream has ended; zero bytes become
 * "\x00". A flood is limited by a bucket of lines that refills with time; what is dropped is
 * counted and said once there is room again. One thread.
 */
#pragma once

#include "base/base.h"

enum {
    CAPTURE_LINE_BYTES = 600, /* of one line given out, without its end */
    CAPTURE_BURST = 200,      /* lines at once */
    CAPTURE_PER_SECOND = 50,  /* lines for ever */
    CAPTURE_PATIENCE_MS = 200,
};

typedef void capture_line_fn(void *arg, const char *line);

struct capture {
    capture_line_fn *emit;
    void *arg;
    char line[CAPTURE_LINE_BYTES + 1];
    size_t len;
    bool skipping;        /* the rest of a line that was too long */
    bool pending;         /* there is a line without an end */
    uint64_t since;       /* when the first of them came */
    uint64_t tokens_ns;   /* the bucket, in nanoseconds of refill */
    uint64_t refilled_at; /* 0: never */
    uint64_t n_dropped;   /* lines since the last one given out */
};

void capture_init(struct capture *capture, capture_line_fn *emit, void *arg);

void capture_feed(struct capture *capture, const char *bytes, size_t n, uint64_t now);

/* When capture_flush must be called for a line without an end; UINT64_MAX: not at all. */
uint64_t capture_wake_at(const struct capture *capture);

/* Gives out the line without an end if it has waited long enough, or at once where the stream has
 * ended; then also says how many lines were dropped. */
void capture_flush(struct capture *capture, uint64_t now, bool ended);
