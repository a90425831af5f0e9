/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of a file as the hub names it: SHA-256 of the content for large files, Git's SHA-1
 * of "blob SIZE\0" and the content for those that lie in the repository itself. One thread at a
 * time.
 */
#pragma once

#include "base/base.h"

enum { HASH_SHA256_DIGITS = 64, HASH_GIT_DIGITS = 40, HASH_TEXT_BYTES = 65 };

struct hash;

/* Of a file of that many bytes; the length of its expected checksum says which of the two. */
struct hash *hash_create(size_t n_digits, uint64_t bytes);
void hash_destroy(struct hash **hash);
void hash_add(struct hash *hash, const void *bytes, size_t n);
/* Forgets what was added. */
void hash_restart(struct hash *hash);
/* Lower-case hexadecimal digits; afterwards only hash_restart and hash_destroy are allowed. */
void hash_text(struct hash *hash, char ret_text[HASH_TEXT_BYTES]);
