/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a repository, as the hub or a snapshot in the cache lists them. Pure. */
#pragma once

#include "json/json.h"

struct hub_file {
    char *path; /* safe (hub/name.h); owned */
    char *hash; /* 64 or 40 digits (hub/hash.h), or NULL: of a snapshot; owned */
    uint64_t bytes;
    bool wanted;
};

struct hub_listing {
    struct hub_file *files; /* [n]; owned */
    size_t n;
    size_t cap;
};

void hub_listing_release(struct hub_listing *listing);

/* Copies path and hash. STATUS_LIMIT above 100,000 files. */
NODISCARD enum status hub_listing_add(struct hub_listing *listing, const char *path,
                                      const char *hash, uint64_t bytes, struct err *err);

/* Adds one page of the answer of /api/models/REPO/tree/REVISION. STATUS_CORRUPT if it is none, or
 * holds a path, size or checksum that is not accepted. */
NODISCARD enum status hub_listing_parse(struct hub_listing *listing, const char *text, size_t size,
                                        struct err *err);

/* NULL if there is none. */
struct hub_file *hub_listing_find(const struct hub_listing *listing, const char *path);

/* The string, or NULL if it is none or holds a zero byte (JSON may, a path may not). */
const char *hub_listing_text(const json_t *value);
