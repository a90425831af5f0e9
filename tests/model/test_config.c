/* SPDX-License-Identifier: Apache-2.0 */
/* config.json in both styles, what is refused and by which name, and rotary frequencies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "model/config.h"
#include "model/rope.h"

#define BASE                                                                       \
    "\"num_hidden_layers\": 2, \"hidden_size\": 64, \"num_attention_heads\": 4, "  \
    "\"num_key_value_heads\": 2, \"intermediate_size\": 96, \"vocab_size\": 100, " \
    "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-5"

static enum status parse(const char *text, struct model_config *config, struct err *err)
{
    json_t *json = NULL;
    enum status status = json_parse(text, strlen(text), &json, err);

    assert_int_equal(status, STATUS_OK);
    status = model_config_from_hf(json, config, err);
    json_decref(json);
    return status;
}

static void accepts(const char *text, struct model_config *config)
{
    struct err err = {0};

    if (parse(text, config, &err) != STATUS_OK) {
        fail_msg("%s: %s", text, err.text);
    }
}

/* The error must name `name`. */
static void refuses(const char *text, enum status status, const char *name)
{
    struct model_config config;
    struct err err = {0};

    assert_int_equal(parse(text, &config, &err), status);
    if (strstr(err.text, name) == NULL) {
        fail_msg("'%s' does not name %s", err.text, name);
    }
}

static void test_styles(void **state)
{
    struct model_config old;
    struct model_config new;

    (void)state;
    accepts("{\"model_type\": \"llama\", " BASE
            ", \"rope_theta\": 5000.0, \"torch_dtype\": \"float32\","
            "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}}",
            &old);
    accepts("{\"model_type\": \"llama\", " BASE ", \"dtype\": \"float32\", \"rope_parameters\": "
            "{\"rope_theta\": 5000.0, \"rope_type\": \"linear\", \"factor\": 4.0}}",
            &new);
    assert_memory_equal(&old, &new, sizeof(old));
    assert_int_equal(old.rope.kind, ROPE_LINEAR);
    assert_true(old.rope.theta == 5000.0 && old.rope.factor == 4.0);
    assert_int_equal(old.head_dim, 16);
    assert_false(old.tied);
}

static void test_families(void **state)
{
    struct model_config config;

    (void)state;
    accepts("{\"model_type\": \"qwen2\", " BASE ", \"use_sliding_window\": false}", &config);
    assert_true(config.qkv_bias && !config.out_bias && !config.qk_norm);
    accepts("{\"model_type\": \"qwen3\", " BASE
            ", \"head_dim\": 24, \"tie_word_embeddings\": true}",
            &config);
    assert_true(!config.qkv_bias && config.qk_norm && config.tied);
    assert_int_equal(config.head_dim, 24);
    accepts("{\"model_type\": \"llama\", " BASE ", \"attention_bias\": true, \"mlp_bias\": true}",
            &config);
    assert_true(config.qkv_bias && config.out_bias && config.mlp_bias);
}

static void test_refusals(void **state)
{
    (void)state;
    refuses("{" BASE "}", STATUS_INVALID, "model_type");
    refuses("{\"model_type\": \"mamba\", " BASE "}", STATUS_UNSUPPORTED, "mamba");
    refuses("{\"model_type\": \"llama\"}", STATUS_INVALID, "num_hidden_layers");
    refuses("{\"model_type\": \"llama\", " BASE ", \"hidden_act\": \"gelu\"}", STATUS_UNSUPPORTED,
            "hidden_act");
    refuses("{\"model_type\": \"qwen2\", " BASE
            ", \"use_sliding_window\": true, \"max_window_layers\": 1}",
            STATUS_UNSUPPORTED, "use_sliding_window");
    refuses("{\"model_type\": \"qwen3\", " BASE
            ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}",
            STATUS_UNSUPPORTED, "layer_types");
    refuses("{\"model_type\": \"llama\", " BASE ", \"rope_scaling\": {\"rope_type\": \"dynamic\", "
            "\"factor\": 2.0}}",
            STATUS_UNSUPPORTED, "dynamic");
    refuses("{\"model_type\": \"llama\", " BASE ", \"rope_scaling\": {\"rope_type\": \"llama3\", "
            "\"factor\": 8.0, \"low_freq_factor\": 4.0, \"high_freq_factor\": 4.0}}",
            STATUS_INVALID, "high_freq_factor");
    refuses("{\"model_type\": \"llama\", " BASE ", \"rope_scaling\": {\"type\": \"linear\"}}",
            STATUS_INVALID, "factor");
    refuses("{\"model_type\": \"llama\", " BASE ", \"head_dim\": 15}", STATUS_INVALID, "head_dim");
    refuses("{\"model_type\": \"llama\", " BASE ", \"quantization_config\": "
            "{\"quant_method\": \"gptq\"}}",
            STATUS_UNSUPPORTED, "gptq");
    refuses("{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
            "\"num_attention_heads\": 4, \"num_key_value_heads\": 3, \"intermediate_size\": 96, "
            "\"vocab_size\": 100}",
            STATUS_INVALID, "key/value heads");
    refuses("{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 1e300}",
            STATUS_INVALID, "hidden_size");
    refuses("[]", STATUS_INVALID, "object");
}

/* Default frequencies, and an angle far out, against the C library in double. */
static void test_rope(void **state)
{
    struct rope_config config = {.theta = 10000.0, .factor = 1.0, .attention_factor = 1.0};
    struct rope_table table = {0};
    float cos_row[32];
    float sin_row[32];

    (void)state;
    rope_table_init(&table, &config, 64, NULL);
    rope_table_fill(&table, 100003, 1, cos_row, sin_row);
    for (int j = 0; j < 32; j++) {
        float angle = 100003.0f * table.inv_freq[j];

        assert_true(fabs(table.inv_freq[j] - pow(10000.0, -2.0 * j / 64)) <=
                    ldexp(table.inv_freq[j], -24));
        assert_true(fabs(cos_row[j] - cos((double)angle)) <= ldexp(1.0, -24));
        assert_true(fabs(sin_row[j] - sin((double)angle)) <= ldexp(1.0, -24));
    }
    rope_table_release(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_rope),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
