/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/hash.h"

#include <openssl/evp.h>

#include "base/mem.h"

struct hash {
    EVP_MD_CTX *context;
    bool git;
    uint64_t bytes;
};

void hash_restart(struct hash *hash)
{
    char head[32];
    int n;

    ENSURE(EVP_DigestInit_ex(hash->context, hash->git ? EVP_sha1() : EVP_sha256(), NULL) == 1);
    if (hash->git) {
        n = snprintf(head, sizeof(head), "blob %llu", (unsigned long long)hash->bytes);
        hash_add(hash, head, (size_t)n + 1);
    }
}

struct hash *hash_create(size_t n_digits, uint64_t bytes)
{
    struct hash *hash = xalloc(sizeof(*hash));

    ENSURE(n_digits == HASH_GIT_DIGITS || n_digits == HASH_SHA256_DIGITS);
    hash->context = EVP_MD_CTX_new();
    hash->git = n_digits == HASH_GIT_DIGITS;
    hash->bytes = bytes;
    ENSURE(hash->context != NULL);
    hash_restart(hash);
    return hash;
}

void hash_destroy(struct hash **hash)
{
    if (*hash != NULL) {
        EVP_MD_CTX_free((*hash)->context);
        free(*hash);
        *hash = NULL;
    }
}

void hash_add(struct hash *hash, const void *bytes, size_t n)
{
    ENSURE(EVP_DigestUpdate(hash->context, bytes, n) == 1);
}

void hash_text(struct hash *hash, char ret_text[HASH_TEXT_BYTES])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n;

    ENSURE(EVP_DigestFinal_ex(hash->context, digest, &n) == 1);
    ENSURE_OP(n * 2, <, HASH_TEXT_BYTES);
    for (unsigned int i = 0; i < n; i++) {
        snprintf(ret_text + 2 * (size_t)i, 3, "%02x", digest[i]);
    }
}
