/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pull knows while it runs: its options, the cache, the connection, how far it is. Private
 * to the module; one thread.
 */
#pragma once

#include "base/buf.h"
#include "hub/cache.h"
#include "hub/hub.h"
#include "hub/transfer.h"

struct session {
    const struct hub_options *options;
    struct hub_name name;
    struct cache cache;
    char *endpoint; /* without a slash at its end */
    const char *revision;
    char commit[CACHE_COMMIT_BYTES];
    bool has_token;
    struct transfer *transfer;
    struct hub_progress progress;
};

/* Attempts that failed one after the other. */
struct retry {
    uint32_t n;
};

/* Tells progress; false: the pull is to end. */
bool session_go_on(struct session *session);
void session_note(const struct session *session, const char *format, ...) PRINTF_LIKE(2, 3);

/* Sleeps, and asks meanwhile whether to go on: STATUS_CANCELLED. */
NODISCARD enum status session_sleep(struct session *session, uint32_t ms, struct err *err);

/* True if the answer's code says that trying again may help. */
bool retry_is_temporary(int code);

/* Before another attempt: waits 0.25 s, 0.5 s, ... or as long as the server asks for. err says what
 * went wrong last; when it is too often (5 times) or too long that is what is returned. */
NODISCARD enum status retry_wait(struct retry *retry, struct session *session, uint32_t after_s,
                                 struct err *err);

/* The error for an answer that is not 200 or 206. file: path in the repository, or NULL. */
enum status session_refusal(const struct session *session, const struct transfer_answer *answer,
                            const char *file, struct err *err);

/* Sees to it that the blob of a file is there, whole and checked. */
NODISCARD enum status blob_fetch(struct session *session, const struct hub_file *file,
                                 struct err *err);

/* Bytes of it that still have to come, as far as can be seen from outside. */
uint64_t blob_missing(const struct session *session, const struct hub_file *file);

/* Appends text for a URL's path; slashes stay. */
void session_url_append(struct buf *url, const char *text, bool keep_slashes);
