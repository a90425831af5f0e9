/* SPDX-License-Identifier: Apache-2.0 */
#include "model/config.h"

#include <math.h>

#include "base/mem.h"
#include "weights/path.h"

static const char *const arch_names[MODEL_ARCH_COUNT] = {"llama", "qwen2", "qwen3"};

const char *model_arch_name(enum model_arch arch)
{
    return arch_names[arch];
}

static enum status check_rope(const struct rope_config *rope, struct err *err)
{
    if (!(rope->theta > 1.0) || !isfinite(rope->theta)) {
        return err_set(err, STATUS_INVALID, "rope_theta: %g is not a finite number above 1",
                       rope->theta);
    }
    if (!(rope->factor >= 1e-3) || !(rope->factor <= 1e6)) {
        return err_set(err, STATUS_INVALID, "rope scaling factor: %g is not in [0.001, 1e6]",
                       rope->factor);
    }
    if (!(rope->attention_factor > 0.0) || !isfinite(rope->attention_factor)) {
        return err_set(err, STATUS_INVALID, "rope attention_factor: %g is not a positive number",
                       rope->attention_factor);
    }
    if (rope->kind == ROPE_LLAMA3 || rope->kind == ROPE_YARN) {
        if (!(rope->original_context >= 1.0) || !(rope->original_context <= 1e9)) {
            return err_set(err, STATUS_INVALID,
                           "rope original_max_position_embeddings: %g is not in [1, 1e9]",
                           rope->original_context);
        }
    }
    if (rope->kind == ROPE_LLAMA3 &&
        !(rope->low_freq_factor > 0.0 && rope->high_freq_factor > rope->low_freq_factor &&
          isfinite(rope->high_freq_factor))) {
        return err_set(err, STATUS_INVALID,
                       "rope high_freq_factor must be greater than low_freq_factor, both above 0");
    }
    if (rope->kind == ROPE_YARN && !(rope->beta_fast > 0.0 && rope->beta_slow > 0.0 &&
                                     isfinite(rope->beta_fast) && isfinite(rope->beta_slow))) {
        return err_set(err, STATUS_INVALID, "rope beta_fast and beta_slow must be above 0");
    }
    return STATUS_OK;
}

enum status model_config_check(const struct model_config *config, struct err *err)
{
    if (config->n_heads % config->n_kv_heads != 0) {
        return err_set(err, STATUS_INVALID,
                       "%u attention heads cannot be shared among %u key/value heads",
                       config->n_heads, config->n_kv_heads);
    }
    if (config->n_heads / config->n_kv_heads > 64) {
        return err_set(err, STATUS_UNSUPPORTED,
                       "%u query heads for each key/value head (at most 64 are supported)",
                       config->n_heads / config->n_kv_heads);
    }
    if (config->head_dim % 2 != 0) {
        return err_set(err, STATUS_INVALID, "head_dim: %u is odd, rotary embedding needs pairs",
                       config->head_dim);
    }
    if ((uint64_t)config->n_heads * config->head_dim > 1u << 20) {
        return err_set(err, STATUS_INVALID, "%u heads of %u dimensions are too many",
                       config->n_heads, config->head_dim);
    }
    if (!(config->norm_eps >= 0.0f) || !(config->norm_eps < 1.0f)) {
        return err_set(err, STATUS_INVALID, "rms_norm_eps: %g is not in [0, 1)",
                       (double)config->norm_eps);
    }
    return check_rope(&config->rope, err);
}

enum status model_config_load(const struct weights *weights, struct model_config *ret_config,
                              struct err *err)
{
    struct buf path = {0};
    json_t *config = NULL;
    enum status status;

    if (weights_format(weights) == WEIGHTS_FORMAT_GGUF) {
        return model_config_from_gguf(weights, ret_config, err);
    }
    buf_printf(&path, "%s/config.json", weights_folder(weights));
    status = json_parse_file(buf_str(&path), 16 << 20, &config, err);
    if (status == STATUS_OK) {
        status = model_config_from_hf(config, ret_config, err);
        if (status != STATUS_OK) {
            err_prefix(err, "config.json");
        }
    }
    json_decref(config);
    buf_release(&path);
    return status;
}
