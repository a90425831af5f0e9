/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary form of plans and results: a few fixed fields and a few arrays, laid out as they lie
 * in memory on the little-endian machines that Lockstep runs on, so that encoding is copying and
 * decoding is checking:
 *
 *   magic u32, version u16, number of arrays u16, bytes in all u32, bytes of the fixed part u32
 *   fixed part             a multiple of 8 bytes
 *   elements u32 [arrays]  then each array; all padded with zeros to a multiple of 8 bytes
 *   hash u64               XXH3-64 of everything before it
 *
 * There is one encoding of a value, so equal hashes mean equal values. What the fields mean, and
 * their limits, is for plan.c and result.c. Pure; any thread.
 */
#pragma once

#include "base/err.h"

enum { RECORD_MAX_ARRAYS = 12 };

/* One array of the struct that is encoded: `const T *x` at offset `at`, its `uint32_t n_x` at
 * `n_at`. T has no padding and needs at most 8-byte alignment. */
struct record_array {
    const char *name;
    size_t at;
    size_t n_at;
    size_t bytes; /* of one T */
};

struct record_shape {
    const char *name;
    uint32_t magic;
    uint16_t version;
    size_t fixed_bytes; /* first bytes of the struct, a multiple of 8 */
    const struct record_array *arrays;
    uint16_t n_arrays;
};

#define RECORD_ARRAY(type, field)                                                       \
    {                                                                                   \
        .name = #field, .at = offsetof(type, field), .n_at = offsetof(type, n_##field), \
        .bytes = sizeof(*((type *)NULL)->field)                                         \
    }

/* Length of the encoding. */
size_t record_bytes(const struct record_shape *shape, const void *value);

/* Writes it to out. STATUS_LIMIT, and nothing written, if it is longer than size. */
NODISCARD enum status record_encode(const struct record_shape *shape, const void *value, void *out,
                                    size_t size, uint64_t *ret_hash, struct err *err);

/* Fills the fixed part and the arrays of *ret_value; arrays point into bytes, which must be 8-byte
 * aligned and outlive it. STATUS_CORRUPT, naming the record and what is wrong; *ret_value is then
 * untouched. */
NODISCARD enum status record_decode(const struct record_shape *shape, const void *bytes, size_t n,
                                    void *ret_value, uint64_t *ret_hash, struct err *err);
