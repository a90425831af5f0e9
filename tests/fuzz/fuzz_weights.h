/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets of both formats do with a file: open it, look up and read every tensor. */
#pragma once

#include "base/mem.h"
#include "weights/gguf.h"
#include "weights/pack.h"

static inline void fuzz_read_all(struct weights *weights)
{
    for (size_t i = 0; i < weights_n_tensors(weights); i++) {
        const struct weights_tensor *tensor = weights_tensor_at(weights, i);
        uint64_t n = weights_n_elements(tensor);
        float *floats;

        ENSURE(weights_find(weights, tensor->name) == tensor);
        if (tensor->bytes == 0 || (floats = mem_alloc((size_t)n, sizeof(*floats))) == NULL) {
            continue;
        }
        if (pack_floats(weights, tensor, floats, NULL) != STATUS_OK) {
            ENSURE(tensor->dtype == DTYPE_COUNT || dtype_is_quantised(tensor->dtype));
        }
        free(floats);
    }
}

static inline int fuzz_weights(const uint8_t *data, size_t size, enum weights_format format)
{
    struct weights *weights;
    struct err err = {0};

    if (weights_open_memory("input", data, size, format, &weights, &err) != STATUS_OK) {
        ENSURE(err.status != STATUS_OK && strstr(err.text, "input") != NULL);
        return 0;
    }
    fuzz_read_all(weights);
    for (size_t i = 0; i < gguf_n_values(weights); i++) {
        const struct gguf_value *value = gguf_value_at(weights, i);

        ENSURE(gguf_find(weights, value->key) == value);
        ENSURE(value->type != GGUF_STRING || value->str.data[value->str.len] == '\0');
    }
    weights_close(&weights);
    return 0;
}
