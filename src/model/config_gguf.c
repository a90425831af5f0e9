/* SPDX-License-Identifier: Apache-2.0 */
/* A model's configuration from GGUF metadata: keys are "<architecture>.<name>". */
#include "model/config.h"
#include "tensor/canon.h"
#include "weights/gguf.h"

struct reader {
    const struct weights *weights;
    const char *arch;
    struct err *err;
    enum status status; /* the first failure; later reads do nothing */
};

static const char *full_key(const struct reader *reader, const char *name, char *key, size_t size)
{
    snprintf(key, size, "%s.%s", reader->arch, name);
    return key;
}

/* An integer in [1, max]; fallback 0 means that it must be there. */
static uint32_t read_u32(struct reader *reader, const char *name, uint32_t max, uint32_t fallback)
{
    char key[128];
    uint32_t value = fallback;
    enum status status;

    if (reader->status != STATUS_OK) {
        return 1;
    }
    status = gguf_get_u32(reader->weights, full_key(reader, name, key, sizeof(key)), &value,
                          reader->err);
    if (status == STATUS_OK || (status == STATUS_NOT_FOUND && fallback != 0)) {
        if (value >= 1 && value <= max) {
            return value;
        }
        status = err_set(reader->err, STATUS_INVALID, "metadata %s: %u is not in [1, %u]", key,
                         value, max);
    } else if (status == STATUS_NOT_FOUND) {
        err_set(reader->err, STATUS_NOT_FOUND, "metadata %s is missing", key);
    }
    reader->status = status;
    return 1;
}

static double read_real(struct reader *reader, const char *name, double fallback)
{
    char key[128];
    double value = fallback;
    enum status status;

    if (reader->status != STATUS_OK) {
        return fallback;
    }
    status = gguf_get_f64(reader->weights, full_key(reader, name, key, sizeof(key)), &value,
                          reader->err);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        reader->status = status;
    }
    return value;
}

static bool str_is(struct gguf_str str, const char *text)
{
    return str.len == strlen(text) && memcmp(str.data, text, str.len) == 0;
}

static enum status find_arch(const struct weights *weights, enum model_arch *ret_arch,
                             struct err *err)
{
    struct gguf_str name;
    enum status status = gguf_get_str(weights, "general.architecture", &name, err);

    if (status == STATUS_NOT_FOUND) {
        return err_set(err, STATUS_INVALID, "metadata general.architecture is missing");
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (unsigned i = 0; i < MODEL_ARCH_COUNT; i++) {
        if (str_is(name, model_arch_name((enum model_arch)i))) {
            *ret_arch = (enum model_arch)i;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_UNSUPPORTED,
                   "metadata general.architecture: '%.*s' is not supported",
                   (int)MIN(name.len, 100), name.data);
}

/* rope.scaling.*: what llama.cpp's converter writes for "linear" and "yarn"; llama3 scaling comes
 * as the tensor rope_freqs.weight instead. */
static enum status read_rope(struct reader *reader, struct model_config *config)
{
    struct rope_config *rope = &config->rope;
    uint32_t rotary = read_u32(reader, "rope.dimension_count", 1 << 16, config->head_dim);
    struct gguf_str type = {"none", 4};
    char key[128];
    enum status status;

    *rope = (struct rope_config){.factor = 1.0, .attention_factor = 1.0, .truncate = true};
    rope->theta = read_real(reader, "rope.freq_base", 10000.0);
    if (reader->status != STATUS_OK) {
        return reader->status;
    }
    if (rotary != config->head_dim) {
        return err_set(reader->err, STATUS_UNSUPPORTED,
                       "metadata %s.rope.dimension_count: %u of %u dimensions is not supported",
                       reader->arch, rotary, config->head_dim);
    }
    status = gguf_get_str(reader->weights, full_key(reader, "rope.scaling.type", key, sizeof(key)),
                          &type, reader->err);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        return status;
    }
    if (str_is(type, "linear")) {
        rope->kind = ROPE_LINEAR;
    } else if (str_is(type, "yarn")) {
        rope->kind = ROPE_YARN;
    } else if (!str_is(type, "none")) {
        return err_set(reader->err, STATUS_UNSUPPORTED, "metadata %s: '%.*s' is not supported", key,
                       (int)MIN(type.len, 100), type.data);
    }
    if (rope->kind != ROPE_DEFAULT) {
        rope->factor = read_real(reader, "rope.scaling.factor", 1.0);
    }
    if (rope->kind == ROPE_YARN) {
        rope->original_context =
            read_u32(reader, "rope.scaling.original_context_length", 1 << 30, config->max_context);
        rope->beta_fast = read_real(reader, "rope.scaling.yarn_beta_fast", 32.0);
        rope->beta_slow = read_real(reader, "rope.scaling.yarn_beta_slow", 1.0);
        /* the converter's attn_factor multiplies yarn's own magnitude */
        rope->attention_factor = read_real(reader, "rope.scaling.attn_factor", 1.0);
        if (rope->factor > 1.0) {
            rope->attention_factor *= 0.1 * canon_log_f64(rope->factor) + 1.0;
        }
    }
    return reader->status;
}

static enum status refuse_unknown(struct reader *reader, const struct model_config *config)
{
    uint32_t window = 0;
    uint32_t value_length;
    char key[128];
    enum status status = gguf_get_u32(
        reader->weights, full_key(reader, "attention.sliding_window", key, sizeof(key)), &window,
        reader->err);

    if (status == STATUS_OK && window > 0 && window < config->max_context) {
        return err_set(reader->err, STATUS_UNSUPPORTED,
                       "metadata %s: sliding window attention is not supported", key);
    }
    value_length = read_u32(reader, "attention.value_length", 1024, config->head_dim);
    if (reader->status == STATUS_OK && value_length != config->head_dim) {
        return err_set(reader->err, STATUS_UNSUPPORTED,
                       "metadata %s.attention.value_length: %u differs from the keys' %u",
                       reader->arch, value_length, config->head_dim);
    }
    return reader->status;
}

/* The number of tokens: vocab_size if it is there, else the rows of the embedding. */
static void read_vocab(struct reader *reader, struct model_config *config)
{
    const struct weights_tensor *embed = weights_find(reader->weights, "token_embd.weight");
    uint32_t rows = embed != NULL && embed->n_dims == 2 && embed->dims[0] <= 1u << 24
                        ? (uint32_t)embed->dims[0]
                        : 0;

    config->vocab = rows > 0 ? rows : read_u32(reader, "vocab_size", 1 << 24, 0);
}

enum status model_config_from_gguf(const struct weights *weights, struct model_config *ret_config,
                                   struct err *err)
{
    struct reader reader = {.weights = weights, .err = err};
    struct model_config config = {0};
    enum status status = find_arch(weights, &config.arch, err);

    if (status != STATUS_OK) {
        return status;
    }
    reader.arch = model_arch_name(config.arch);
    config.n_layers = read_u32(&reader, "block_count", 10000, 0);
    config.hidden = read_u32(&reader, "embedding_length", 1 << 18, 0);
    config.ffn = read_u32(&reader, "feed_forward_length", 1 << 20, 0);
    config.n_heads = read_u32(&reader, "attention.head_count", 1024, 0);
    config.n_kv_heads = read_u32(&reader, "attention.head_count_kv", 1024, config.n_heads);
    config.head_dim =
        read_u32(&reader, "attention.key_length", 1024, MAX(config.hidden / config.n_heads, 1));
    config.max_context = read_u32(&reader, "context_length", 1 << 30, 2048);
    config.norm_eps = (float)read_real(&reader, "attention.layer_norm_rms_epsilon", 1e-5);
    read_vocab(&reader, &config);
    if (reader.status != STATUS_OK) {
        return reader.status;
    }
    config.tied = weights_find(weights, "output.weight") == NULL;
    config.qkv_bias = weights_find(weights, "blk.0.attn_q.bias") != NULL;
    config.out_bias = weights_find(weights, "blk.0.attn_output.bias") != NULL;
    config.mlp_bias = weights_find(weights, "blk.0.ffn_up.bias") != NULL;
    config.qk_norm = config.arch == MODEL_QWEN3;
    if ((status = read_rope(&reader, &config)) != STATUS_OK ||
        (status = refuse_unknown(&reader, &config)) != STATUS_OK ||
        (status = model_config_check(&config, err)) != STATUS_OK) {
        return status;
    }
    *ret_config = config;
    return STATUS_OK;
}
