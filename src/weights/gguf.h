/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata of an opened GGUF model: typed look-ups by key. A safetensors model has none: every
 * key is absent. Everything is borrowed from struct weights and immutable; any thread.
 *
 * The getters return STATUS_NOT_FOUND when the key is absent and STATUS_INVALID when its value has
 * another type or does not fit; *ret_x is then untouched and err (may be NULL) names file and key.
 */
#pragma once

#include "base/err.h"

struct weights;

/* Numbers as in the file. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf_str {
    const char *data; /* a zero byte follows; may hold zero bytes and invalid UTF-8 */
    size_t len;
};

struct gguf_array {
    enum gguf_type type; /* of the elements */
    size_t n;
    const void *items; /* [n] of uint8_t (also for bool), ..., double, struct gguf_str; NULL for
                          nested arrays, which are checked but not kept */
};

struct gguf_value {
    const char *key;
    enum gguf_type type;
    union {
        uint64_t u; /* U8 to U64, BOOL */
        int64_t i;  /* I8 to I64 */
        double f;   /* F32, F64 */
        struct gguf_str str;
        struct gguf_array array;
    };
};

/* NULL if absent. */
const struct gguf_value *gguf_find(const struct weights *weights, const char *key);

/* All pairs in the order of the file. */
size_t gguf_n_values(const struct weights *weights);
const struct gguf_value *gguf_value_at(const struct weights *weights, size_t i);

/* Any integer type whose value fits. */
NODISCARD enum status gguf_get_u32(const struct weights *weights, const char *key,
                                   uint32_t *ret_value, struct err *err);
NODISCARD enum status gguf_get_i64(const struct weights *weights, const char *key,
                                   int64_t *ret_value, struct err *err);

/* F32 or F64. */
NODISCARD enum status gguf_get_f64(const struct weights *weights, const char *key,
                                   double *ret_value, struct err *err);
NODISCARD enum status gguf_get_bool(const struct weights *weights, const char *key, bool *ret_value,
                                    struct err *err);
NODISCARD enum status gguf_get_str(const struct weights *weights, const char *key,
                                   struct gguf_str *ret_value, struct err *err);

/* An array with elements of that type. */
NODISCARD enum status gguf_get_array(const struct weights *weights, const char *key,
                                     enum gguf_type type, struct gguf_array *ret_value,
                                     struct err *err);

/* "u32", "string", ... */
const char *gguf_type_name(enum gguf_type type);
