/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qwen3, dense (Yang et al. 2025): every head of q and k is normed before it is rotated, which
 * takes the place of Qwen2's biases.
 *
 *   x -> norm -> q, k, v -> norm each head of q, k -> rope(q, k) -> attention -> out -> + x
 *     -> norm -> gate, up -> silu(gate) * up -> down -> + x
 */
#include "model/model_priv.h"

enum status qwen3_layer(struct model *model, const struct model_step *step, uint32_t layer,
                        struct err *err)
{
    enum status status;

    block_norm(model, step, layer, MODEL_ATTN_NORM);
    block_qkv(model, step, layer);
    block_qk_norm(model, step, layer);
    block_rope(model, step);
    block_attention(model, step, layer);
    status = block_attn_out(model, step, layer, err);
    if (status != STATUS_OK) {
        return status;
    }
    block_norm(model, step, layer, MODEL_FFN_NORM);
    return block_ffn(model, step, layer, err);
}
