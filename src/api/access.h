/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may call: API keys (Bearer, x-api-key, or as the password of Basic; compared in constant
 * time), the Host header (so that no name of somebody else's leads a browser here), and Origin.
 * Private to api/; the loop's thread.
 */
#pragma once

#include "api/error.h"
#include "http/server.h"

struct access {
    char *host; /* that is bound */
    bool loopback;
    char **keys; /* [n_keys] */
    uint32_t n_keys;
    char **origins; /* [n_origins] */
    uint32_t n_origins;
};

void access_init(struct access *access, const char *host, const char *const *origins,
                 uint32_t n_origins);
void access_release(struct access *access);
void access_set_keys(struct access *access, const char *const *keys, uint32_t n_keys);

/* False: 401, the key is missing or wrong. *ret_tenant tells keys apart; 0 without keys. */
NODISCARD bool access_check_key(const struct access *access, const struct http_exchange *exchange,
                                uint64_t *ret_tenant, struct api_error *error);
/* False: 421. Bound to the loopback: only its names and numbers; otherwise also any number, and
 * the name that was bound. */
NODISCARD bool access_check_host(const struct access *access, const struct http_exchange *exchange,
                                 struct api_error *error);
/* True without an Origin, or with one that is this very server. */
bool access_is_own_origin(const struct access *access, const struct http_exchange *exchange);

/* Adds what every answer to an allowed Origin carries. */
void access_headers(const struct access *access, struct http_exchange *exchange);
/* An OPTIONS request of a browser that asks before it sends. */
bool access_is_preflight(const struct access *access, const struct http_exchange *exchange);
void access_answer_preflight(const struct access *access, struct http_exchange *exchange);
