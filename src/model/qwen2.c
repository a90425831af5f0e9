/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's layer, with biases on q, k and v (which the binding
 * table brings in). Sliding windows are refused by the configuration.
 *
 *   x -> norm -> q + bq, k + bk, v + bv -> rope(q, k) -> attention -> out -> + x
 *     -> norm -> gate, up -> silu(gate) * up -> down -> + x
 */
#include "model/model_priv.h"

enum status qwen2_layer(struct model *model, const struct model_step *step, uint32_t layer,
                        struct err *err)
{
    return llama_layer(model, step, layer, err);
}
