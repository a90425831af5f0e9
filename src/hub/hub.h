/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models of a hub (Hugging Face's or one with its API), fetched into the hub's own cache, which
 * other programs share:
 *
 *   CACHE/models--ORG--MODEL/blobs/HASH                 a file's content, by its checksum
 *                            blobs/HASH.incomplete      as far as it has come
 *                            snapshots/COMMIT/PATH      links to ../../blobs/HASH
 *                            refs/REVISION              the commit
 *   CACHE/.locks/models--ORG--MODEL/HASH.lock           held (flock) by whoever fetches that blob
 *
 * A name is ORG/MODEL, or for a model of several GGUF files ORG/MODEL:Q4_K_M or
 * ORG/MODEL/FILE.gguf. A pull may be ended at any moment, also by SIGKILL, and goes on where it
 * stood. A blob appears under its name only when its checksum is right, a ref is moved only when
 * everything is there.
 *
 *   name.c      names, and which paths of a server are accepted
 *   listing.c   what a repository holds; choose.c: which of it makes up the model
 *   transfer.c  one GET over libcurl; retry.c: how long to wait before the next
 *   blob.c      one file to its blob; cache.c: folders, links, locks
 *   pull.c      all of it in order
 *
 * The token (HF_TOKEN, else HF_HOME/token) goes to the endpoint's own scheme, host and port, never
 * to where it redirects, and into no message. Any thread; several pulls at once are safe, also in
 * several processes.
 */
#pragma once

#include "base/err.h"

struct hub_progress {
    const char *file; /* path in the repository; NULL before the first */
    uint64_t file_done;
    uint64_t file_bytes;
    uint64_t done; /* of all files, what was there before included */
    uint64_t bytes;
    uint64_t fetched; /* of those that came over the network in this call */
};

struct hub_watch {
    void *arg;
    /* About once a second, also when nothing moves, and at the end of each file (file_done ==
     * file_bytes). False ends the pull: STATUS_CANCELLED. May be NULL. */
    bool (*progress)(void *arg, const struct hub_progress *progress);
    /* What a person may want to know: "waiting for ...", "trying again in ...". May be NULL. */
    void (*note)(void *arg, const char *text);
};

struct hub_options {
    const char *name;
    const char *revision; /* branch, tag or commit; NULL: main */
    const char *cache;    /* NULL: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub */
    const char *endpoint; /* NULL: HF_ENDPOINT, else https://huggingface.co */
    struct hub_watch watch;
};

/* True if text has the form of a name. Looks at nothing else. */
bool hub_is_name(const char *text);

/* The model in the cache, without any network: a snapshot's folder or, for GGUF, the file in it.
 * free() it. Errors: STATUS_NOT_FOUND (not there or not whole), STATUS_INVALID (bad name, or
 * several models to choose from), STATUS_IO. */
NODISCARD enum status hub_resolve(const struct hub_options *options, char **ret_path,
                                  struct err *err);

/* Asks the hub for the revision's commit, fetches what is missing, and gives the path likewise.
 * Errors: STATUS_INVALID (name, revision, endpoint, several GGUF files), STATUS_NOT_FOUND (no such
 * model, revision, or nothing in it that we can serve; gated, private), STATUS_LIMIT (disk full),
 * STATUS_CORRUPT (checksum, nonsense from the server), STATUS_LINK (after several tries),
 * STATUS_CANCELLED, STATUS_IO. */
NODISCARD enum status hub_pull(const struct hub_options *options, char **ret_path, struct err *err);

/* What a MODEL argument means: the path itself if there is such a file or folder, else the model in
 * the cache, else what hub_pull fetches. */
NODISCARD enum status hub_open(const struct hub_options *options, char **ret_path, struct err *err);
