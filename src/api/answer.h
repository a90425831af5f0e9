/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer of the API, from its headers to its end; what endpoints are made of. Private to api/.
 *
 *   headers ─▶ route, access ─▶ body ─▶ endpoint.work (on a worker) ─▶ endpoint.now (on the loop)
 *
 * An endpoint answers by answer_json, answer_error or a stream, now or later. When its client has
 * gone the answer has no exchange any more, endpoint.gone is called, and nothing is sent. An answer
 * is freed once its exchange has gone and no worker has it.
 */
#pragma once

#include "api/api.h"
#include "api/error.h"
#include "json/json.h"

struct answer;

struct endpoint {
    /* On a worker, with the body parsed (answer->json): checks, renders, tokenizes. False: error is
     * set. NULL: nothing to do there. May not touch the exchange. */
    bool (*work)(struct answer *answer);
    /* On the loop: answers, or starts what will. */
    void (*now)(struct answer *answer);
    /* The exchange is gone, whatever came of it: stops what runs, frees answer->data. NULL:
     * nothing. */
    void (*gone)(struct answer *answer);
    /* The body of an error in this endpoint's format; NULL: OpenAI's. */
    void (*error_body)(const struct answer *answer, const struct api_error *error, struct buf *out);
};

enum route_flag {
    ROUTE_OPEN = 1,
    ROUTE_BODY = 2,
    ROUTE_WORK = 4,
    ROUTE_GUARD = 8,
    ROUTE_FAULTS = 16,
    ROUTE_PAGE = 32,
};

struct route {
    const char *method;
    const char *path;
    const struct endpoint *endpoint;
    unsigned flags;
    const char *summary;
};

struct answer {
    struct job job; /* first */
    struct api *api;
    struct http_exchange *exchange; /* NULL: the client has gone */
    const struct route *route;
    const char *argument; /* of a path that ends with /; owned */
    char id[40];          /* the request's, for logs and x-request-id */
    uint64_t tenant;
    char *body; /* owned, for the worker */
    size_t body_bytes;
    json_t *json;
    struct api_error error;
    bool working;
    int status;             /* of the answer, once it has begun */
    uint64_t began_ns;      /* clock_ns of its headers */
    const char *model;      /* for the log, as the client named it; endpoint.data's. NULL: none */
    uint64_t prompt_tokens; /* likewise, of what generates */
    uint64_t completion_tokens;
    void *data; /* the endpoint's */
    /* Called every half second on answers whose tick is set. */
    void (*tick)(struct answer *answer, uint64_t now);
    /* Ends it now, for the server does. NULL: it ends soon anyway. */
    void (*abort)(struct answer *answer, const char *why);
    struct answer *next;
    struct answer *prev;
};

const struct api_config *answer_config(const struct answer *answer);
bool answer_is_draining(const struct answer *answer);

void answer_json(struct answer *answer, int status, const struct buf *body);
void answer_value(struct answer *answer, int status, json_t *value); /* takes the reference */
void answer_error(struct answer *answer, const struct api_error *error);
/* answer->error. */
void answer_failed(struct answer *answer);

#define ROUTE(method, path, handler, flags, summary) \
    extern const struct endpoint endpoint_##handler;
#include "api/routes.def"
#undef ROUTE
