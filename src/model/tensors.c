/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tensors.h"

static const struct {
    const char *hf;
    const char *gguf;
} names[MODEL_TENSOR_COUNT] = {
#define MATRIX(id, layer, rows, cols, when, hf, gguf) {hf, gguf},
#define VECTOR(id, layer, size, when, hf, gguf)       {hf, gguf},
#include "model/tensors.def"
#undef MATRIX
#undef VECTOR
};

struct model_tensor_shape model_tensor_shape(const struct model_config *c, enum model_tensor tensor)
{
    switch (tensor) {
#define MATRIX(id, layer, rows, cols, when, hf, gguf) \
    case MODEL_##id:                                  \
        return (struct model_tensor_shape){layer, true, when, rows, cols};
#define VECTOR(id, layer, size, when, hf, gguf) \
    case MODEL_##id:                            \
        return (struct model_tensor_shape){layer, false, when, size, 1};
#include "model/tensors.def"
#undef MATRIX
#undef VECTOR
    case MODEL_TENSOR_COUNT:
        break;
    }
    ENSURE(false);
}

static enum status check_shape(const struct weights_tensor *found,
                               const struct model_tensor_shape *shape, struct err *err)
{
    bool fits = shape->matrix ? found->n_dims == 2 && found->dims[0] == shape->rows &&
                                    found->dims[1] == shape->cols
                              : found->n_dims == 1 && found->dims[0] == shape->rows;
    char dims[128] = "";
    size_t used = 0;

    if (fits) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < found->n_dims && used < sizeof(dims); i++) {
        used += (size_t)snprintf(dims + used, sizeof(dims) - used, "%s%llu", i > 0 ? ", " : "",
                                 (unsigned long long)found->dims[i]);
    }
    if (shape->matrix) {
        return err_set(err, STATUS_INVALID,
                       "tensor %s has shape [%s], the configuration says [%u, %u]", found->name,
                       dims, shape->rows, shape->cols);
    }
    return err_set(err, STATUS_INVALID, "tensor %s has shape [%s], the configuration says [%u]",
                   found->name, dims, shape->rows);
}

enum status model_tensor_find(const struct model_config *config, const struct weights *weights,
                              enum model_tensor tensor, uint32_t layer,
                              const struct weights_tensor **ret_tensor, struct err *err)
{
    struct model_tensor_shape shape = model_tensor_shape(config, tensor);
    const char *format =
        weights_format(weights) == WEIGHTS_FORMAT_GGUF ? names[tensor].gguf : names[tensor].hf;
    const char *hole = strstr(format, "%u");
    const struct weights_tensor *found;
    char name[WEIGHTS_MAX_NAME];
    enum status status;

    if (hole != NULL) {
        snprintf(name, sizeof(name), "%.*s%u%s", (int)(hole - format), format, layer, hole + 2);
    } else {
        snprintf(name, sizeof(name), "%s", format);
    }
    found = weights_find(weights, name);
    if (found == NULL) {
        return err_set(err, STATUS_NOT_FOUND, "tensor %s is missing", name);
    }
    status = check_shape(found, &shape, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (found->dtype == DTYPE_COUNT || (!shape.matrix && dtype_is_quantised(found->dtype))) {
        return err_set(err, STATUS_UNSUPPORTED,
                       "tensor %s has type %s, which is not supported here", name,
                       found->type_name);
    }
    *ret_tensor = found;
    return STATUS_OK;
}

enum status model_tensors_check(const struct model_config *config, const struct weights *weights,
                                struct err *err)
{
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        for (unsigned i = 0; i < MODEL_TENSOR_COUNT; i++) {
            struct model_tensor_shape shape = model_tensor_shape(config, (enum model_tensor)i);
            const struct weights_tensor *found;
            enum status status;

            if (!shape.wanted || (!shape.per_layer && layer > 0)) {
                continue;
            }
            status = model_tensor_find(config, weights, (enum model_tensor)i, layer, &found, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

bool model_tensor_is_permuted(const struct model_config *config, const struct weights *weights,
                              enum model_tensor tensor)
{
    return weights_format(weights) == WEIGHTS_FORMAT_GGUF && config->arch == MODEL_LLAMA &&
           (tensor == MODEL_ATTN_Q || tensor == MODEL_ATTN_K || tensor == MODEL_ATTN_Q_BIAS ||
            tensor == MODEL_ATTN_K_BIAS);
}

void model_rope_row_map(uint32_t n_heads, uint32_t head_dim, uint32_t *map)
{
    for (uint32_t row = 0; row < n_heads * head_dim; row++) {
        uint32_t in_head = row % head_dim;
        uint32_t half = in_head / (head_dim / 2);
        uint32_t pair = in_head % (head_dim / 2);

        map[row] = row - in_head + 2 * pair + half;
    }
}
