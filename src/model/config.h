/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model is, apart from its weights: architecture and numbers, from config.json (Hugging
 * Face, both styles) or from GGUF metadata. Everything is checked here, so that the rest can rely
 * on it; what we do not compute (a sliding window in use, another activation, ...) is refused by
 * name. A plain value; no ownership; any thread.
 */
#pragma once

#include "json/json.h"
#include "weights/weights.h"

enum model_arch { MODEL_LLAMA, MODEL_QWEN2, MODEL_QWEN3, MODEL_ARCH_COUNT };

/* Rotary embedding: how the base frequencies theta^(-2 j / head_dim) are changed. */
enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct rope_config {
    enum rope_kind kind;
    double theta;
    double factor;
    double original_context;
    double low_freq_factor; /* llama3 */
    double high_freq_factor;
    double beta_fast; /* yarn */
    double beta_slow;
    double attention_factor; /* on sine and cosine; 1 where the kind has none */
    bool truncate;
};

struct model_config {
    enum model_arch arch;
    uint32_t n_layers;
    uint32_t hidden;
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* even */
    uint32_t ffn;        /* intermediate size */
    uint32_t vocab;
    uint32_t max_context; /* positions the model was made for */
    float norm_eps;
    bool tied; /* the output head is the embedding */
    bool qkv_bias;
    bool out_bias; /* of the attention's output projection */
    bool mlp_bias;
    bool qk_norm;
    struct rope_config rope;
};

/* Name in config.json's model_type ("llama"), which is also GGUF's. */
const char *model_arch_name(enum model_arch arch);

/* From a parsed config.json. Errors name the field: STATUS_INVALID, STATUS_UNSUPPORTED. */
NODISCARD enum status model_config_from_hf(const json_t *config, struct model_config *ret_config,
                                           struct err *err);

/* From the metadata of an opened GGUF file; errors name the key. */
NODISCARD enum status model_config_from_gguf(const struct weights *weights,
                                             struct model_config *ret_config, struct err *err);

/* Whichever the opened model has (config.json in its folder, or its metadata). */
NODISCARD enum status model_config_load(const struct weights *weights,
                                        struct model_config *ret_config, struct err *err);

/* Checks common to both sources: sizes that fit together and limits. */
NODISCARD enum status model_config_check(const struct model_config *config, struct err *err);
