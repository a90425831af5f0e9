/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load client for streaming completions: n connections over one epoll, each sending one request
 * after the other and taking the time of every event. Own HTTP and SSE, only as much as this needs,
 * so that its own share of the CPU stays small and known. One thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

struct client_url {
    char host[256]; /* as it stands in Host: */
    char name[256]; /* to look up */
    char port[8];
};

/* "http://HOST[:PORT]" */
NODISCARD enum status client_url_parse(const char *text, struct client_url *ret_url,
                                       struct err *err);

/* Times in nanoseconds, growing. */
struct client_times {
    uint64_t *ns;
    size_t n;
    size_t cap;
};

/* The value below which that share of them lies, in milliseconds (0 if there are none); sorts. */
double client_times_at(struct client_times *times, double share);

struct client_load {
    const struct client_url *url;
    const char *path; /* "/v1/completions" */
    const char *key;  /* or NULL */
    uint32_t n_streams;
    uint32_t n_requests; /* of each stream */
    uint64_t timeout_ns; /* of a request without any event */
    /* Appends the JSON body of a request. */
    void (*body)(void *arg, uint32_t stream, uint32_t request, struct buf *body);
    void *arg;
};

struct client_result {
    uint64_t wall_ns;  /* first request sent to last answer ended */
    uint64_t n_events; /* SSE frames with text */
    uint64_t n_frames; /* all */
    uint64_t n_done;   /* requests that ended well */
    uint64_t n_errors;
    uint64_t n_tokens;         /* generated, as the server counts them */
    uint64_t n_prompt;         /* likewise of the prompts */
    uint64_t n_cached;         /* of those, taken from the prefix cache */
    struct client_times first; /* to the first text */
    struct client_times gaps;  /* between frames with text of a stream */
    char error[256];           /* the first */
};

/* Runs all of it. Errors of requests are counted, not returned; STATUS_IO if nothing could begin.
 * Release the result with client_result_release. */
NODISCARD enum status client_run(const struct client_load *load, struct client_result *ret_result,
                                 struct err *err);
void client_result_release(struct client_result *result);

/* One GET, waiting; the body of a 200. */
NODISCARD enum status client_get(const struct client_url *url, const char *path, const char *key,
                                 struct buf *body, struct err *err);
