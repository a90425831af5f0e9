/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One GET of the hub over libcurl. Redirects are followed here and not by libcurl, because the
 * token must not go with them: it is sent only to the endpoint's scheme, host and port. From https
 * nothing leads back to http. Certificates are checked, proxies are taken from the usual
 * environment. A transfer keeps its connections; one thread at a time.
 */
#pragma once

#include "base/err.h"

struct transfer;

struct transfer_config {
    const char *endpoint; /* "https://host[:port][/path]" */
    const char *token;    /* or NULL */
    /* Asked about once a second; false ends the request. */
    bool (*go_on)(void *arg);
    void *arg;
};

enum { TRANSFER_TEXT_BYTES = 128, TRANSFER_URL_BYTES = 8192 };

/* What the last server said, after redirects. */
struct transfer_answer {
    int code;
    bool has_length;
    uint64_t length;
    uint64_t first;         /* of Content-Range, with 206 */
    uint64_t total;         /* of Content-Range; 0: not told */
    uint32_t retry_after_s; /* 0: not told */
    bool from_endpoint;     /* not from where it has redirected */
    char etag[TRANSFER_TEXT_BYTES];
    char error_code[TRANSFER_TEXT_BYTES]; /* X-Error-Code: "GatedRepo" */
    char next[TRANSFER_URL_BYTES];        /* Link: <...>; rel="next" */
};

struct transfer_request {
    const char *url;
    uint64_t offset;      /* > 0: Range */
    const char *if_range; /* checksum for If-Range, or NULL */
    /* With 200 and 206 only: begin once, then the body. A status that is not OK ends the request
     * and is what transfer_get returns. */
    enum status (*begin)(void *arg, const struct transfer_answer *answer);
    enum status (*write)(void *arg, const void *bytes, size_t n);
    void *arg;
};

/* Errors: STATUS_INVALID, the endpoint is no such URL. */
NODISCARD enum status transfer_create(const struct transfer_config *config,
                                      struct transfer **ret_transfer, struct err *err);
void transfer_destroy(struct transfer **transfer);

/* STATUS_OK: there is a whole answer, whatever its code. STATUS_LINK: no connection, or it broke,
 * stalled or ended early; trying again may help. STATUS_CANCELLED. STATUS_CORRUPT: a redirect that
 * is not followed. STATUS_IO: anything else (a certificate that is not trusted). */
NODISCARD enum status transfer_get(struct transfer *transfer,
                                   const struct transfer_request *request,
                                   struct transfer_answer *ret_answer, struct err *err);
