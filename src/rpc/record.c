/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/record.h"

#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records lie in memory as on the wire");

struct head {
    uint32_t magic;
    uint16_t version;
    uint16_t n_arrays;
    uint32_t bytes;
    uint32_t fixed_bytes;
};

enum { HASH_BYTES = 8 };

static size_t padded(size_t bytes)
{
    return round_up(bytes, 8);
}

static uint32_t count_of(const struct record_array *array, const void *value)
{
    uint32_t n;

    memcpy(&n, (const uint8_t *)value + array->n_at, sizeof(n));
    return n;
}

size_t record_bytes(const struct record_shape *shape, const void *value)
{
    size_t bytes = sizeof(struct head) + shape->fixed_bytes + padded(shape->n_arrays * 4u);

    for (uint32_t i = 0; i < shape->n_arrays; i++) {
        bytes += padded(count_of(&shape->arrays[i], value) * shape->arrays[i].bytes);
    }
    return bytes + HASH_BYTES;
}

/* n bytes and zeros up to a multiple of 8; returns the place after them. */
static uint8_t *put(uint8_t *at, const void *bytes, size_t n)
{
    if (n > 0) {
        memcpy(at, bytes, n);
    }
    memset(at + n, 0, padded(n) - n);
    return at + padded(n);
}

enum status record_encode(const struct record_shape *shape, const void *value, void *out,
                          size_t size, uint64_t *ret_hash, struct err *err)
{
    size_t bytes = record_bytes(shape, value);
    struct head head = {.magic = shape->magic,
                        .version = shape->version,
                        .n_arrays = shape->n_arrays,
                        .bytes = (uint32_t)bytes,
                        .fixed_bytes = (uint32_t)shape->fixed_bytes};
    uint32_t counts[RECORD_MAX_ARRAYS];
    uint8_t *at = out;
    uint64_t hash;

    if (bytes > size || bytes > UINT32_MAX) {
        return err_set(err, STATUS_LIMIT, "%s of %zu bytes where %zu fit", shape->name, bytes,
                       size);
    }
    at = put(at, &head, sizeof(head));
    at = put(at, value, shape->fixed_bytes);
    for (uint32_t i = 0; i < shape->n_arrays; i++) {
        counts[i] = count_of(&shape->arrays[i], value);
    }
    at = put(at, counts, shape->n_arrays * sizeof(*counts));
    for (uint32_t i = 0; i < shape->n_arrays; i++) {
        const void *array;

        memcpy(&array, (const uint8_t *)value + shape->arrays[i].at, sizeof(array));
        at = put(at, array, counts[i] * shape->arrays[i].bytes);
    }
    hash = XXH3_64bits(out, bytes - HASH_BYTES);
    memcpy(at, &hash, sizeof(hash));
    *ret_hash = hash;
    return STATUS_OK;
}

static enum status check_head(const struct record_shape *shape, const void *bytes, size_t n,
                              struct err *err)
{
    size_t least = sizeof(struct head) + shape->fixed_bytes + padded(shape->n_arrays * 4u);
    struct head head;

    if ((uintptr_t)bytes % 8 != 0 || n < least + HASH_BYTES) {
        return err_set(err, STATUS_CORRUPT, "%s: %zu bytes are too few", shape->name, n);
    }
    memcpy(&head, bytes, sizeof(head));
    if (head.magic != shape->magic) {
        return err_set(err, STATUS_CORRUPT, "%s: bad magic %08x", shape->name, head.magic);
    }
    if (head.version != shape->version || head.n_arrays != shape->n_arrays ||
        head.fixed_bytes != shape->fixed_bytes) {
        return err_set(err, STATUS_CORRUPT, "%s: version %u, this program speaks %u", shape->name,
                       head.version, shape->version);
    }
    if (head.bytes != n) {
        return err_set(err, STATUS_CORRUPT, "%s: says %u bytes, has %zu", shape->name, head.bytes,
                       n);
    }
    return STATUS_OK;
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
    uint8_t any = 0;

    for (size_t i = 0; i < n; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

/* Finds the arrays; at is the place after the fixed part, end that of the hash. */
static enum status find_arrays(const struct record_shape *shape, const uint8_t *at,
                               const uint8_t *end, const uint8_t **ret_arrays, uint32_t *ret_counts,
                               struct err *err)
{
    size_t used = shape->n_arrays * sizeof(*ret_counts);

    memcpy(ret_counts, at, used);
    for (uint32_t i = 0; i <= shape->n_arrays; i++) {
        if (!is_zero(at + used, padded(used) - used)) {
            return err_set(err, STATUS_CORRUPT, "%s: padding is not zero", shape->name);
        }
        at += padded(used);
        if (i == shape->n_arrays) {
            break;
        }
        used = ret_counts[i] * shape->arrays[i].bytes; /* below 2^32 * 2^16 */
        if (padded(used) > (size_t)(end - at)) {
            return err_set(err, STATUS_CORRUPT, "%s: %u %s do not fit its length", shape->name,
                           ret_counts[i], shape->arrays[i].name);
        }
        ret_arrays[i] = at;
    }
    if (at != end) {
        return err_set(err, STATUS_CORRUPT, "%s: %zu bytes too many", shape->name,
                       (size_t)(end - at));
    }
    return STATUS_OK;
}

enum status record_decode(const struct record_shape *shape, const void *bytes, size_t n,
                          void *ret_value, uint64_t *ret_hash, struct err *err)
{
    const uint8_t *fixed = (const uint8_t *)bytes + sizeof(struct head);
    const uint8_t *arrays[RECORD_MAX_ARRAYS];
    uint32_t counts[RECORD_MAX_ARRAYS];
    enum status status = check_head(shape, bytes, n, err);
    uint64_t hash;

    if (status == STATUS_OK) {
        memcpy(&hash, (const uint8_t *)bytes + n - HASH_BYTES, sizeof(hash));
        if (XXH3_64bits(bytes, n - HASH_BYTES) != hash) {
            return err_set(err, STATUS_CORRUPT, "%s: wrong hash", shape->name);
        }
        status = find_arrays(shape, fixed + shape->fixed_bytes,
                             (const uint8_t *)bytes + n - HASH_BYTES, arrays, counts, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    memcpy(ret_value, fixed, shape->fixed_bytes);
    for (uint32_t i = 0; i < shape->n_arrays; i++) {
        uint8_t *value = ret_value;

        memcpy(value + shape->arrays[i].at, &arrays[i], sizeof(arrays[i]));
        memcpy(value + shape->arrays[i].n_at, &counts[i], sizeof(counts[i]));
    }
    *ret_hash = hash;
    return STATUS_OK;
}
