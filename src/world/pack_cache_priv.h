/* SPDX-License-Identifier: Apache-2.0 */
/* What finding and saving of packed weights share: names, folder, the file of hashes. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "world/pack_cache.h"

enum {
    PACK_CACHE_CHUNK = 1 << 20, /* of one hash; read, hashed and written within a core's cache */
    PACK_CACHE_NAME_BYTES = 32,
};

/* As a file's number; 0 is the embedding, rank r is 1 + r. */
#define PACK_CACHE_SUMS UINT32_MAX

struct pack_cache {
    char *folder;
    bool has_thread;
    pthread_t thread;
    _Atomic bool done; /* the thread's last act */
};

uint64_t pack_cache_hash(const struct pack_cache_key *key);
void pack_cache_name(char name[PACK_CACHE_NAME_BYTES], uint64_t hash, uint32_t file);
/* -1 and errno: not there, or others may write to it. */
int pack_cache_open_folder(const struct pack_cache *cache);
/* Removes all sets but the PACK_CACHE_SETS used last. */
void pack_cache_evict(const struct pack_cache *cache, int folder);
/* All of bytes; false and errno. */
bool pack_cache_read(int fd, void *out, size_t bytes, uint64_t offset);
/* The content of a sums file, owned by the caller, with zero hashes at *ret_sums. */
uint64_t *pack_cache_sums(uint64_t hash, const uint64_t *bytes, uint32_t n_files,
                          uint64_t **ret_sums, size_t *ret_bytes);
/* The hashes are all there. */
void pack_cache_sums_close(uint64_t *words, size_t bytes);
/* Until the thread that saves is done. */
void pack_cache_wait(struct pack_cache *cache);
