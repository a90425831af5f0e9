/* SPDX-License-Identifier: Apache-2.0 */
/* Images of model files made in memory, for the tests of the readers. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "weights/gguf.h"
#include "weights/weights.h"

static inline void put_u32(struct buf *image, uint32_t value)
{
    buf_append(image, &value, sizeof(value));
}

static inline void put_u64(struct buf *image, uint64_t value)
{
    buf_append(image, &value, sizeof(value));
}

static inline void put_zeros(struct buf *image, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_append_char(image, '\0');
    }
}

/* A safetensors file: its JSON header and data_bytes bytes 0, 1, 2, ... */
static inline struct buf image_safetensors(const char *json, size_t data_bytes)
{
    struct buf image = {0};

    put_u64(&image, strlen(json));
    buf_append_str(&image, json);
    for (size_t i = 0; i < data_bytes; i++) {
        buf_append_char(&image, (char)i);
    }
    return image;
}

/* A GGUF file begins so. */
static inline struct buf image_gguf(uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    struct buf image = {0};

    buf_append(&image, "GGUF", 4);
    put_u32(&image, version);
    put_u64(&image, n_tensors);
    put_u64(&image, n_values);
    return image;
}

static inline void put_gguf_str(struct buf *image, const char *text)
{
    put_u64(image, strlen(text));
    buf_append_str(image, text);
}

static inline void put_gguf_key(struct buf *image, const char *key, enum gguf_type type)
{
    put_gguf_str(image, key);
    put_u32(image, type);
}

static inline void put_gguf_u32(struct buf *image, const char *key, uint32_t value)
{
    put_gguf_key(image, key, GGUF_U32);
    put_u32(image, value);
}

/* A record of a matrix of `rows` rows of `cols` elements. */
static inline void put_gguf_tensor(struct buf *image, const char *name, uint64_t rows,
                                   uint64_t cols, uint32_t ggml_type, uint64_t offset)
{
    put_gguf_str(image, name);
    put_u32(image, 2);
    put_u64(image, cols);
    put_u64(image, rows);
    put_u32(image, ggml_type);
    put_u64(image, offset);
}

static inline void pad_gguf(struct buf *image, size_t alignment)
{
    put_zeros(image, (alignment - image->len % alignment) % alignment);
}

/* Opens the image, which must stay; asserts success. */
static inline struct weights *open_image(const struct buf *image, enum weights_format format)
{
    struct weights *weights = NULL;
    struct err err = {0};

    if (weights_open_memory("image", image->data, image->len, format, &weights, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.text);
    }
    return weights;
}

/* Asserts that opening the image fails with a text that holds every word, and releases it. */
static inline void refuse_image(struct buf *image, enum weights_format format, const char *a,
                                const char *b)
{
    struct weights *weights = NULL;
    struct err err = {0};

    assert_int_not_equal(
        weights_open_memory("image", image->data, image->len, format, &weights, &err), STATUS_OK);
    assert_null(weights);
    if (strstr(err.text, "image") == NULL || strstr(err.text, a) == NULL ||
        strstr(err.text, b) == NULL) {
        fail_msg("'%s' does not mention '%s' and '%s'", err.text, a, b);
    }
    buf_release(image);
}
