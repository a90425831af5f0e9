/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers are those of the models' config.json files. */
#include "model/shapes.h"

static const struct {
    const char *name;
    uint32_t n_layers;
    uint32_t hidden;
    uint32_t n_heads;
    uint32_t ffn;
} shapes[] = {
    {"qwen3-0.6b", 28, 1024, 16, 3072},
    {"qwen3-1.7b", 28, 2048, 16, 6144},
    {"qwen3-4b", 36, 2560, 32, 9728},
};

bool shape_find(const char *name, struct model_config *ret_config)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            *ret_config = (struct model_config){
                .arch = MODEL_QWEN3,
                .n_layers = shapes[i].n_layers,
                .hidden = shapes[i].hidden,
                .n_heads = shapes[i].n_heads,
                .n_kv_heads = 8,
                .head_dim = 128,
                .ffn = shapes[i].ffn,
                .vocab = 151936,
                .max_context = 40960,
                .norm_eps = 1e-6f,
                .tied = true,
                .qk_norm = true,
                .rope = {.theta = 1e6, .factor = 1, .attention_factor = 1},
            };
            return true;
        }
    }
    return false;
}
