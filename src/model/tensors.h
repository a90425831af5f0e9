/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binding between a model's parts and the tensors of a checkpoint: names, shapes, and which a
 * configuration has. The list is tensors.def. Pure; any thread.
 */
#pragma once

#include "model/config.h"

enum model_tensor {
#define MATRIX(id, layer, rows, cols, when, hf, gguf) MODEL_##id,
#define VECTOR(id, layer, size, when, hf, gguf)       MODEL_##id,
#include "model/tensors.def"
#undef MATRIX
#undef VECTOR
    MODEL_TENSOR_COUNT
};

struct model_tensor_shape {
    bool per_layer;
    bool matrix;
    bool wanted;   /* does this configuration have it? */
    uint32_t rows; /* of a vector: its size */
    uint32_t cols; /* of a vector: 1 */
};

struct model_tensor_shape model_tensor_shape(const struct model_config *config,
                                             enum model_tensor tensor);

/* Finds a wanted tensor of an opened checkpoint and checks its shape. Errors name the tensor:
 * STATUS_NOT_FOUND, STATUS_INVALID (shape), STATUS_UNSUPPORTED (type). */
NODISCARD enum status model_tensor_find(const struct model_config *config,
                                        const struct weights *weights, enum model_tensor tensor,
                                        uint32_t layer, const struct weights_tensor **ret_tensor,
                                        struct err *err);

/* model_tensor_find for everything the configuration wants: the check of `inspect`. */
NODISCARD enum status model_tensors_check(const struct model_config *config,
                                          const struct weights *weights, struct err *err);

/* GGUF files of the llama family keep the rows of q and k in the order of interleaved rotary pairs.
 * Writes, for each row of our order (halves, as in Hugging Face checkpoints), the stored row. */
void model_rope_row_map(uint32_t n_heads, uint32_t head_dim, uint32_t *map);
bool model_tensor_is_permuted(const struct model_config *config, const struct weights *weights,
                              enum model_tensor tensor);
