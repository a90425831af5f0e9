/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept memory: what a rank needs again after a respawn lies in memfds that outlive it. Their owner
 * (the leader) holds the descriptors and maps nothing; a rank fills one and marks it complete, and
 * its successor maps it after checking that it holds what it would have made itself.
 *
 * One memfd is the data, at offset 0 so that huge pages fit, and behind it one page of header:
 * what the data is, and for each writer a word that it stores last. Weights belong to one rank and
 * have one writer; the embedding is one for all ranks of a host, and each fills a part; KV pages
 * are complete from the start (which positions are valid is the leader's knowledge) and stay
 * writable.
 *
 * Weights and embedding are mapped writable while they are filled. kept_finish puts a read-only
 * mapping in place of that, at the same address, so that the owner can add F_SEAL_WRITE (and
 * F_SEAL_SHRINK: a memfd that shrinks under a mapping kills its readers).
 *
 * The descriptor is borrowed for the life of struct kept. One thread at a time, but for
 * kept_reserve.
 */
#pragma once

#include "base/err.h"

enum { KEPT_RANKS_MAX = 64, KEPT_BLOCK_BYTES = 2 << 20 };

enum kept_kind { KEPT_WEIGHTS, KEPT_EMBEDDING, KEPT_KV };

struct kept_options {
    enum kept_kind kind;
    int fd;
    size_t bytes;      /* of data, at least 1 */
    uint64_t identity; /* of the data: what it was made from, and how */
    uint32_t rank;
    uint32_t n_ranks; /* at most KEPT_RANKS_MAX */
    bool keep;        /* map what is there; false: make it anew */
};

/* Zero: nothing mapped. */
struct kept {
    struct kept_options options;
    void *memory; /* [options.bytes], at a multiple of 2 MiB */
    size_t map_bytes;
    bool writable;
};

/* keep: checks size and header (STATUS_INVALID says what differs, STATUS_CORRUPT that it was never
 * completed) and maps, read-only but for KV pages, in a time that does not depend on the size.
 * Otherwise makes the memfd as large as needed and maps it writable, zeroed: weights and KV pages
 * are emptied first; an embedding must be empty, or of this very load (the ranks that fill it come
 * in any order). STATUS_NO_MEMORY, STATUS_IO. */
NODISCARD enum status kept_open(const struct kept_options *options, struct kept *ret_kept,
                                struct err *err);

/* Takes the pages of [at, at + bytes), a part of the mapping about to be written, so that a lack of
 * memory is STATUS_NO_MEMORY here and not a SIGBUS there. Any thread. */
NODISCARD enum status kept_reserve(const struct kept *kept, const void *at, size_t bytes,
                                   struct err *err);

/* Takes the block of KEPT_BLOCK_BYTES at `offset` of the mapping, a multiple of that, before
 * anybody needs it. False: it is not there, or there is no memory for it, which kept_reserve will
 * report if it is needed. */
NODISCARD bool kept_take_block(const struct kept *kept, size_t offset);

/* This rank's part is written: says so in the header and makes the mapping read-only. Nothing to do
 * for KV pages and for what was kept. On failure the mapping may be gone: close it. */
NODISCARD enum status kept_finish(struct kept *kept, struct err *err);

/* Unmaps; the memfd is left as it is. Accepts a zero struct. */
void kept_close(struct kept *kept);
