/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Llama (Touvron et al. 2023; Grattafiori et al. 2024), a pre-norm decoder with grouped-query
 * attention and rotary embedding. One layer:
 *
 *   x -> norm -> q, k, v -> rope(q, k) -> attention -> out -> + x
 *     -> norm -> gate, up -> silu(gate) * up -> down -> + x
 */
#include "model/model_priv.h"

enum status llama_layer(struct model *model, const struct model_step *step, uint32_t layer,
                        struct err *err)
{
    enum status status;

    block_norm(model, step, layer, MODEL_ATTN_NORM);
    block_qkv(model, step, layer);
    block_rope(model, step);
    block_attention(model, step, layer);
    status = block_attn_out(model, step, layer, err);
    if (status != STATUS_OK) {
        return status;
    }
    block_norm(model, step, layer, MODEL_FFN_NORM);
    return block_ffn(model, step, layer, err);
}
