/* SPDX-License-Identifier: Apache-2.0 */
/* config.json from outside: whatever is accepted must be usable for shapes, leaves and rotary
 * tables. */
#include <math.h>

#include "model/config.h"
#include "model/rope.h"
#include "model/tensors.h"
#include "tensor/packed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config config;
    struct rope_table table = {0};
    uint32_t bounds[LEAVES_FFN_MAX + 1];
    json_t *json = NULL;
    float cos_row[1024];
    float sin_row[1024];
    struct err err = {0};

    if (json_parse((const char *)data, size, &json, &err) != STATUS_OK) {
        return 0;
    }
    if (model_config_from_hf(json, &config, &err) == STATUS_OK) {
        for (unsigned i = 0; i < MODEL_TENSOR_COUNT; i++) {
            struct model_tensor_shape shape = model_tensor_shape(&config, (enum model_tensor)i);
            size_t code_bytes;
            size_t scale_bytes;

            ENSURE(shape.rows > 0 && shape.cols > 0);
            ENSURE(packed_panel_bytes(DTYPE_BF16, shape.cols, &code_bytes, &scale_bytes));
        }
        ENSURE_OP(leaves_ffn(config.ffn, 32, bounds), >=, 1);
        rope_table_init(&table, &config.rope, config.head_dim, NULL);
        rope_table_fill(&table, config.max_context - 1, 1, cos_row, sin_row);
        for (uint32_t j = 0; j < table.half; j++) {
            ENSURE(isfinite(cos_row[j]) && isfinite(sin_row[j]));
        }
        rope_table_release(&table);
    } else {
        ENSURE(err.text[0] != '\0');
    }
    json_decref(json);
    return 0;
}
