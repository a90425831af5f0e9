/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP API: which path does what (routes.def), who may call it, and the adapters between the
 * bodies that clients send and gateway/request.h. It gives the handlers for an http server and runs
 * on that server's thread; bodies are parsed and tokenized on workers.
 *
 *   api.c       life, routing, access, the order of things of one answer
 *   fields.c    members of a body, with errors that name them
 *   sampling.c  the members that all generating endpoints share
 *   generate.c  from a parsed body to a request, and from its events to an answer
 *   chat.c, completions.c, responses.c, messages.c: one format each
 *   state.c     health, world, models, metrics, version, discovery
 *   manage.c    loading and unloading, faults
 */
#pragma once

#include "gateway/served.h"
#include "gateway/workers.h"
#include "http/server.h"

struct api;

enum { API_MAX_KEYS = 256, API_MAX_ORIGINS = 16 };

struct api_config {
    struct registry *registry;
    struct workers *workers;
    struct mailbox *front;      /* where workers' jobs come back */
    const char *host;           /* the address that is bound: a Host that is allowed */
    const char *const *origins; /* [n_origins] of --cors-origin, "*": any */
    uint32_t n_origins;
    bool allow_faults;
    const char *version;
    /* Makes an entry for a path or an org/model that is not served yet, after a look at its files;
     * NULL: not possible. On the front's thread. */
    enum status (*add_model)(void *arg, const char *path, struct served **ret_served,
                             struct err *err);
    /* Begins to load it, likewise. */
    enum status (*load_model)(void *arg, struct served *served, struct err *err);
    void *arg;
};

/* Copies what it is given, but for the registry and the workers. */
struct api *api_create(const struct api_config *config);
/* Nothing may be in flight: the server is destroyed before, and workers are done. */
void api_destroy(struct api **api);

/* The handlers to create the http server with; then that server. */
void api_handlers(struct api *api, struct http_handlers *ret_handlers);
void api_attach(struct api *api, struct http_server *server);

/* The keys that are accepted from now on (copied); none: everybody may call. */
void api_set_keys(struct api *api, const char *const *keys, uint32_t n_keys);

/* From now on what generates or loads is refused with 503; what runs goes on. */
void api_drain(struct api *api);
/* Answers that are not finished. */
uint32_t api_active(const struct api *api);
/* They end now, streams with an error frame. */
void api_abort(struct api *api, const char *why);

/* To be called once every turn: keeps silent streams alive. When it next has something to do: */
uint64_t api_tick(struct api *api, uint64_t now);
