/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of Hugging Face transformers, in the style up to version 4 (rope_theta, rope_scaling,
 * torch_dtype) and that of version 5 (rope_parameters, dtype).
 */
#include "model/config.h"
#include "tensor/canon.h"

/* What a family has that its config.json does not say, or says under a key of its own. */
static enum status family(const json_t *json, struct model_config *config, struct err *err)
{
    bool attention_bias = false;
    enum status status = json_opt_bool(json, "attention_bias", false, &attention_bias, err);

    if (status != STATUS_OK) {
        return status;
    }
    switch (config->arch) {
    case MODEL_QWEN2:
        config->qkv_bias = true;
        break;
    case MODEL_QWEN3:
        config->qk_norm = true;
        config->qkv_bias = attention_bias;
        config->out_bias = attention_bias;
        break;
    default:
        config->qkv_bias = attention_bias;
        config->out_bias = attention_bias;
        break;
    }
    return config->arch == MODEL_LLAMA
               ? json_opt_bool(json, "mlp_bias", false, &config->mlp_bias, err)
               : STATUS_OK;
}

static enum status find_arch(const json_t *json, enum model_arch *ret_arch, struct err *err)
{
    const char *type = NULL;
    enum status status = json_opt_str(json, "model_type", NULL, &type, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (type == NULL) {
        return err_set(err, STATUS_INVALID, "model_type: missing");
    }
    for (unsigned i = 0; i < MODEL_ARCH_COUNT; i++) {
        if (strcmp(type, model_arch_name((enum model_arch)i)) == 0) {
            *ret_arch = (enum model_arch)i;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_UNSUPPORTED, "model_type: architecture '%s' is not supported", type);
}

/* Refuses what would change the result and that we do not compute. */
static enum status refuse_unknown(const json_t *json, struct err *err)
{
    const json_t *layer_types = json_object_get(json, "layer_types");
    const json_t *quantization = json_object_get(json, "quantization_config");
    const char *act;
    bool sliding;
    double partial;
    enum status status;

    if ((status = json_opt_str(json, "hidden_act", "silu", &act, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "use_sliding_window", false, &sliding, err)) != STATUS_OK ||
        (status = json_opt_real(json, "partial_rotary_factor", 1.0, &partial, err)) != STATUS_OK) {
        return status;
    }
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) {
        return err_set(err, STATUS_UNSUPPORTED, "hidden_act: '%s' is not supported (silu is)", act);
    }
    for (size_t i = 0; i < json_array_size(layer_types); i++) {
        const char *type = json_string_value(json_array_get(layer_types, i));

        if (type == NULL || strcmp(type, "full_attention") != 0) {
            return err_set(err, STATUS_UNSUPPORTED,
                           "layer_types: '%s' in layer %zu is not supported (full_attention is)",
                           type == NULL ? "?" : type, i);
        }
    }
    if (sliding && layer_types == NULL) {
        int64_t n_layers;
        int64_t from;

        if ((status = json_need_int(json, "num_hidden_layers", 1, 10000, &n_layers, err)) !=
                STATUS_OK ||
            (status = json_opt_int(json, "max_window_layers", 0, 10000, 28, &from, err)) !=
                STATUS_OK) {
            return status;
        }
        if (from < n_layers) { /* layers from max_window_layers on would use the window */
            return err_set(err, STATUS_UNSUPPORTED,
                           "use_sliding_window: sliding window attention is not supported");
        }
    }
    if (partial != 1.0) {
        return err_set(err, STATUS_UNSUPPORTED, "partial_rotary_factor: %g is not supported (1 is)",
                       partial);
    }
    if (quantization != NULL && !json_is_null(quantization)) {
        const char *method = json_string_value(json_object_get(quantization, "quant_method"));

        return err_set(err, STATUS_UNSUPPORTED, "quantization_config: method '%s' is not supported",
                       method == NULL ? "?" : method);
    }
    return STATUS_OK;
}

static enum status rope_kind_of(const json_t *rope, enum rope_kind *ret_kind, struct err *err)
{
    static const struct {
        const char *name;
        enum rope_kind kind;
    } kinds[] = {{"default", ROPE_DEFAULT},
                 {"linear", ROPE_LINEAR},
                 {"llama3", ROPE_LLAMA3},
                 {"yarn", ROPE_YARN}};
    const char *old_name;
    const char *name;
    enum status status;

    if ((status = json_opt_str(rope, "type", "default", &old_name, err)) != STATUS_OK ||
        (status = json_opt_str(rope, "rope_type", old_name, &name, err)) != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *ret_kind = kinds[i].kind;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_UNSUPPORTED, "rope_type: '%s' is not supported", name);
}

/* The factor on sine and cosine of yarn: 0.1 mscale ln(scale) + 1 (Peng et al. 2023, section 3.4).
 */
static double yarn_mscale(double scale, double mscale)
{
    return scale <= 1.0 ? 1.0 : 0.1 * mscale * canon_log_f64(scale) + 1.0;
}

static enum status read_yarn(const json_t *rope, struct rope_config *out, struct err *err)
{
    double mscale;
    double mscale_all;
    enum status status;

    if ((status = json_opt_real(rope, "beta_fast", 32.0, &out->beta_fast, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "beta_slow", 1.0, &out->beta_slow, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "mscale", 0.0, &mscale, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "mscale_all_dim", 0.0, &mscale_all, err)) != STATUS_OK ||
        (status = json_opt_bool(rope, "truncate", true, &out->truncate, err)) != STATUS_OK) {
        return status;
    }
    if (mscale != 0.0 && mscale_all != 0.0) {
        out->attention_factor =
            yarn_mscale(out->factor, mscale) / yarn_mscale(out->factor, mscale_all);
    } else {
        out->attention_factor = yarn_mscale(out->factor, 1.0);
    }
    return json_opt_real(rope, "attention_factor", out->attention_factor, &out->attention_factor,
                         err);
}

static enum status read_rope(const json_t *json, struct model_config *config, struct err *err)
{
    const json_t *rope = json_object_get(json, "rope_parameters");
    struct rope_config *out = &config->rope;
    double top_theta;
    double partial;
    double top_original;
    enum status status;

    if (rope == NULL || json_is_null(rope)) {
        rope = json_object_get(json, "rope_scaling");
    }
    if (rope != NULL && !json_is_null(rope) && !json_is_object(rope)) {
        return err_set(err, STATUS_INVALID, "rope_parameters: must be an object");
    }
    *out = (struct rope_config){.attention_factor = 1.0};
    if ((status = rope_kind_of(rope, &out->kind, err)) != STATUS_OK ||
        (status = json_opt_real(json, "rope_theta", 10000.0, &top_theta, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "rope_theta", top_theta, &out->theta, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "partial_rotary_factor", 1.0, &partial, err)) != STATUS_OK ||
        (status = json_opt_real(json, "original_max_position_embeddings",
                                (double)config->max_context, &top_original, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "original_max_position_embeddings", top_original,
                                &out->original_context, err)) != STATUS_OK ||
        (status = json_opt_real(rope, "factor", out->kind == ROPE_DEFAULT ? 1.0 : 0.0, &out->factor,
                                err)) != STATUS_OK ||
        (status = json_opt_real(rope, "low_freq_factor", 0.0, &out->low_freq_factor, err)) !=
            STATUS_OK ||
        (status = json_opt_real(rope, "high_freq_factor", 0.0, &out->high_freq_factor, err)) !=
            STATUS_OK) {
        return status;
    }
    if (partial != 1.0) {
        return err_set(err, STATUS_UNSUPPORTED, "partial_rotary_factor: %g is not supported (1 is)",
                       partial);
    }
    if (out->kind == ROPE_YARN) {
        if (out->factor == 0.0) {
            out->factor = (double)config->max_context / out->original_context;
        }
        return read_yarn(rope, out, err);
    }
    if (out->kind == ROPE_DEFAULT) {
        out->factor = 1.0;
    }
    return STATUS_OK;
}

enum status model_config_from_hf(const json_t *json, struct model_config *ret_config,
                                 struct err *err)
{
    struct model_config config = {0};
    int64_t layers;
    int64_t hidden;
    int64_t heads;
    int64_t kv_heads;
    int64_t head_dim;
    int64_t ffn;
    int64_t vocab;
    int64_t context;
    double eps;
    enum status status;

    if (!json_is_object(json)) {
        return err_set(err, STATUS_INVALID, "must be a JSON object");
    }
    if ((status = find_arch(json, &config.arch, err)) != STATUS_OK ||
        (status = refuse_unknown(json, err)) != STATUS_OK ||
        (status = json_need_int(json, "num_hidden_layers", 1, 10000, &layers, err)) != STATUS_OK ||
        (status = json_need_int(json, "hidden_size", 1, 1 << 18, &hidden, err)) != STATUS_OK ||
        (status = json_need_int(json, "num_attention_heads", 1, 1024, &heads, err)) != STATUS_OK ||
        (status = json_opt_int(json, "num_key_value_heads", 1, 1024, heads, &kv_heads, err)) !=
            STATUS_OK ||
        (status = json_opt_int(json, "head_dim", 2, 1024,
                               config.arch == MODEL_QWEN3 ? 128 : MAX(hidden / heads, 1), &head_dim,
                               err)) != STATUS_OK ||
        (status = json_need_int(json, "intermediate_size", 1, 1 << 20, &ffn, err)) != STATUS_OK ||
        (status = json_need_int(json, "vocab_size", 1, 1 << 24, &vocab, err)) != STATUS_OK ||
        (status = json_opt_int(json, "max_position_embeddings", 1, 1 << 30, 2048, &context, err)) !=
            STATUS_OK ||
        (status = json_opt_real(json, "rms_norm_eps", 1e-6, &eps, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "tie_word_embeddings", false, &config.tied, err)) !=
            STATUS_OK ||
        (status = family(json, &config, err)) != STATUS_OK) {
        return status;
    }
    config.n_layers = (uint32_t)layers;
    config.hidden = (uint32_t)hidden;
    config.n_heads = (uint32_t)heads;
    config.n_kv_heads = (uint32_t)kv_heads;
    config.head_dim = (uint32_t)head_dim;
    config.ffn = (uint32_t)ffn;
    config.vocab = (uint32_t)vocab;
    config.max_context = (uint32_t)context;
    config.norm_eps = (float)eps;
    if ((status = read_rope(json, &config, err)) != STATUS_OK ||
        (status = model_config_check(&config, err)) != STATUS_OK) {
        return status;
    }
    *ret_config = config;
    return STATUS_OK;
}
