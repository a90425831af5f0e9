/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks that dense decoders are made of; model_priv.h says what each computes. */
#include "model/model_priv.h"

#include <math.h>

static uint32_t n_heads(const struct model *model)
{
    return model->slice.head_end - model->slice.head_begin;
}

static uint32_t n_kv_heads(const struct model *model)
{
    return model->slice.kv_end - model->slice.kv_begin;
}

void block_norm(struct model *model, const struct model_step *step, uint32_t layer,
                enum model_tensor norm)
{
    struct model_buffers *b = &model->buffers;

    model->ops->rmsnorm(model->device, &(struct ops_rmsnorm){
                                           .x = b->x,
                                           .x_stride = b->x_stride,
                                           .y = b->h,
                                           .y_stride = b->x_stride,
                                           .w = model->layers[layer].vector[norm],
                                           .n = step->n_tokens,
                                           .groups = 1,
                                           .dim = model->config.hidden,
                                           .eps = model->config.norm_eps,
                                       });
}

void block_qkv(struct model *model, const struct model_step *step, uint32_t layer)
{
    struct model_buffers *b = &model->buffers;
    const struct model_layer *w = &model->layers[layer];
    const struct ops_linear_out out[] = {
        {&w->matrix[MODEL_ATTN_Q], w->vector[MODEL_ATTN_Q_BIAS], b->q, b->q_stride, 0, false},
        {&w->matrix[MODEL_ATTN_K], w->vector[MODEL_ATTN_K_BIAS], b->k, b->kv_stride, 0, false},
        {&w->matrix[MODEL_ATTN_V], w->vector[MODEL_ATTN_V_BIAS], b->v, b->kv_stride, 0, true},
    };

    model->ops->linear(model->device, &(struct ops_linear){
                                          .x = b->h,
                                          .x_stride = b->x_stride,
                                          .n = step->n_tokens,
                                          .act = model->act,
                                          .out = out,
                                          .n_out = ARRAY_LEN(out),
                                      });
}

static void norm_heads(struct model *model, const struct model_step *step, float *x, size_t stride,
                       uint32_t heads, const float *weight)
{
    model->ops->rmsnorm(model->device, &(struct ops_rmsnorm){
                                           .x = x,
                                           .x_stride = stride,
                                           .y = x,
                                           .y_stride = stride,
                                           .w = weight,
                                           .n = step->n_tokens,
                                           .groups = heads,
                                           .dim = model->config.head_dim,
                                           .eps = model->config.norm_eps,
                                       });
}

void block_qk_norm(struct model *model, const struct model_step *step, uint32_t layer)
{
    struct model_buffers *b = &model->buffers;
    const struct model_layer *w = &model->layers[layer];

    norm_heads(model, step, b->q, b->q_stride, n_heads(model), w->vector[MODEL_ATTN_Q_NORM]);
    norm_heads(model, step, b->k, b->kv_stride, n_kv_heads(model), w->vector[MODEL_ATTN_K_NORM]);
}

static void rotate(struct model *model, const struct model_step *step, float *x, size_t stride,
                   uint32_t heads)
{
    model->ops->rope(model->device, &(struct ops_rope){
                                        .x = x,
                                        .x_stride = stride,
                                        .cos = model->buffers.cos,
                                        .sin = model->buffers.sin,
                                        .n = step->n_tokens,
                                        .n_heads = heads,
                                        .head_dim = model->config.head_dim,
                                        .rot = model->config.head_dim,
                                    });
}

void block_rope(struct model *model, const struct model_step *step)
{
    struct model_buffers *b = &model->buffers;

    rotate(model, step, b->q, b->q_stride, n_heads(model));
    rotate(model, step, b->k, b->kv_stride, n_kv_heads(model));
}

void block_attention(struct model *model, const struct model_step *step, uint32_t layer)
{
    struct model_buffers *b = &model->buffers;

    model->ops->kv_write(model->device, &(struct ops_kv_write){
                                            .kv = step->kv,
                                            .layer = layer,
                                            .k = b->k,
                                            .v = b->v,
                                            .stride = b->kv_stride,
                                            .segments = step->segments,
                                            .n_segments = step->n_segments,
                                        });
    model->ops->attention(model->device, &(struct ops_attention){
                                             .kv = step->kv,
                                             .layer = layer,
                                             .q = b->q,
                                             .q_stride = b->q_stride,
                                             .out = b->a + model->layers[layer].out_lead,
                                             .out_stride = b->a_stride,
                                             .kv_head_of = model->kv_head_of,
                                             .n_heads = n_heads(model),
                                             .scale = 1.0f / sqrtf((float)model->config.head_dim),
                                             .segments = step->segments,
                                             .n_segments = step->n_segments,
                                         });
}

/* One row-parallel product: which matrix, its input, and which of its leaves are here. */
struct row_parallel {
    const struct packed *w;
    const float *bias;
    const float *x;
    size_t x_stride;
    uint32_t n_leaves; /* of the whole product */
    uint32_t first;
};

/* x += W input (+ bias). Every rank has the sums over its own leaves; they are added along the tree
 * so that all ranks hold the same bits, whatever their number. */
static enum status add_row_parallel(struct model *model, const struct model_step *step,
                                    const struct row_parallel *args, struct err *err)
{
    struct model_buffers *b = &model->buffers;
    size_t count = step->n_tokens * b->x_stride;
    uint32_t n_roots = args->w->leaves.n_roots;
    size_t root_stride = b->root_stride;
    float *slot = comm_partial_buffer(model->comm, count, n_roots, &root_stride);
    float *partial = slot == NULL ? b->partial : slot;
    /* small products go from the slots straight into the residual stream, in one pass */
    bool fused = slot != NULL && args->bias == NULL;
    const struct ops_linear_out out = {args->w, NULL, partial, b->x_stride, root_stride, false};
    enum status status;

    model->ops->linear(model->device, &(struct ops_linear){
                                          .x = args->x,
                                          .x_stride = args->x_stride,
                                          .n = step->n_tokens,
                                          .act = model->act,
                                          .out = &out,
                                          .n_out = 1,
                                      });
    if (model->comm->n_ranks > 1 || slot != NULL) { /* else the sum is where it belongs, unread */
        model->ops->sync(model->device);
    }
    status = comm_sum_tree(model->comm,
                           &(struct comm_tree){
                               .n_leaves = args->n_leaves,
                               .first = args->first,
                               .n_owned = args->w->leaves.n_leaves,
                               .n_roots = n_roots,
                               .partial = partial,
                               .root_stride = root_stride,
                               .count = count,
                               .sum = fused ? NULL : b->partial,
                               .add_to = fused ? b->x : NULL,
                           },
                           err);
    if (status != STATUS_OK || fused) {
        return status;
    }
    if (args->bias != NULL) {
        model->ops->add(model->device, b->partial, b->x_stride, args->bias, 0, step->n_tokens,
                        model->config.hidden);
    }
    model->ops->add(model->device, b->x, b->x_stride, b->partial, b->x_stride, step->n_tokens,
                    model->config.hidden);
    return STATUS_OK;
}

enum status block_attn_out(struct model *model, const struct model_step *step, uint32_t layer,
                           struct err *err)
{
    const struct model_layer *w = &model->layers[layer];

    return add_row_parallel(model, step,
                            &(struct row_parallel){
                                .w = &w->matrix[MODEL_ATTN_OUT],
                                .bias = w->vector[MODEL_ATTN_OUT_BIAS],
                                .x = model->buffers.a,
                                .x_stride = model->buffers.a_stride,
                                .n_leaves = model->config.n_heads,
                                .first = model->slice.head_begin,
                            },
                            err);
}

enum status block_ffn(struct model *model, const struct model_step *step, uint32_t layer,
                      struct err *err)
{
    struct model_buffers *b = &model->buffers;
    const struct model_layer *w = &model->layers[layer];
    const struct ops_linear_out out[] = {
        {&w->matrix[MODEL_FFN_GATE], w->vector[MODEL_FFN_GATE_BIAS], b->gate, b->ffn_stride, 0,
         false},
        {&w->matrix[MODEL_FFN_UP], w->vector[MODEL_FFN_UP_BIAS], b->up, b->ffn_stride, 0, false},
    };

    model->ops->linear(model->device, &(struct ops_linear){
                                          .x = b->h,
                                          .x_stride = b->x_stride,
                                          .n = step->n_tokens,
                                          .act = model->act,
                                          .out = out,
                                          .n_out = ARRAY_LEN(out),
                                      });
    model->ops->silu_mul(model->device, b->gate, b->up, b->ffn_stride, b->gate, b->ffn_stride,
                         step->n_tokens, w->matrix[MODEL_FFN_GATE].rows);
    return add_row_parallel(model, step,
                            &(struct row_parallel){
                                .w = &w->matrix[MODEL_FFN_DOWN],
                                .bias = w->vector[MODEL_FFN_DOWN_BIAS],
                                .x = b->gate,
                                .x_stride = b->ffn_stride,
                                .n_leaves = w->ffn_leaves,
                                .first = w->ffn_leaf_begin,
                            },
                            err);
}
