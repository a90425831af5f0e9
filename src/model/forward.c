/* SPDX-License-Identifier: Apache-2.0 */
/* The pass over all layers, and the buffers it works in. */
#include <xxhash.h>

#include "base/mem.h"
#include "model/model_priv.h"
#include "tensor/quant.h"

static model_layer_fn *const layer_fns[MODEL_ARCH_COUNT] = {
    [MODEL_LLAMA] = llama_layer,
    [MODEL_QWEN2] = qwen2_layer,
    [MODEL_QWEN3] = qwen3_layer,
};

const struct packed *model_embed(const struct model *model)
{
    return &model->shared.matrix[MODEL_EMBED];
}

/* Cuts the next piece of a buffer's memory; with memory NULL it only counts. */
static float *cut(struct model_buffers *b, size_t *used, size_t floats)
{
    size_t at = *used;

    *used += round_up(floats * sizeof(float), CACHE_LINE);
    return b->memory == NULL ? NULL : (float *)((char *)b->memory + at);
}

/* Most maximal subtrees any row-parallel product leaves here. */
static uint32_t most_roots(const struct model *model)
{
    uint32_t most = 1;

    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        const struct model_layer *layer = &model->layers[i];

        most = MAX(most, layer->matrix[MODEL_ATTN_OUT].leaves.n_roots);
        most = MAX(most, layer->matrix[MODEL_FFN_DOWN].leaves.n_roots);
    }
    return most;
}

/* Most groups of integer activations that one row has in any product. */
static uint32_t most_groups(const struct model *model)
{
    uint32_t most = model->act == ACT_INT8 ? quant_n_groups(&model->head.leaves) : 0;

    for (uint32_t i = 0; model->act == ACT_INT8 && i < model->config.n_layers; i++) {
        for (unsigned t = 0; t < MODEL_TENSOR_COUNT; t++) {
            most = MAX(most, quant_n_groups(&model->layers[i].matrix[t].leaves));
        }
    }
    return most;
}

/* Most FFN columns that any layer has here. */
static uint32_t widest_ffn(const struct model *model)
{
    uint32_t widest = 0;

    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        widest = MAX(widest, model->layers[i].matrix[MODEL_FFN_GATE].rows);
    }
    return widest;
}

static size_t lay_out(const struct model *model, struct model_buffers *b)
{
    const struct model_config *c = &model->config;
    uint32_t heads = model->slice.head_end - model->slice.head_begin;
    uint32_t kv_heads = model->slice.kv_end - model->slice.kv_begin;
    size_t n = b->n_tokens;
    size_t used = 0;

    b->x_stride = OPS_STRIDE(c->hidden);
    b->q_stride = OPS_STRIDE(heads * c->head_dim);
    b->a_stride = OPS_STRIDE(heads * c->head_dim + 2 * DTYPE_GROUP_MAX);
    b->kv_stride = OPS_STRIDE(kv_heads * c->head_dim);
    b->ffn_stride = OPS_STRIDE(widest_ffn(model));
    b->logits_stride = OPS_STRIDE(model->head.rows);
    b->root_stride = n * b->x_stride;
    b->x = cut(b, &used, n * b->x_stride);
    b->h = cut(b, &used, n * b->x_stride);
    b->q = cut(b, &used, n * b->q_stride);
    b->a = cut(b, &used, n * b->a_stride);
    b->k = cut(b, &used, n * b->kv_stride);
    b->v = cut(b, &used, n * b->kv_stride);
    b->gate = cut(b, &used, n * b->ffn_stride);
    b->up = cut(b, &used, n * b->ffn_stride);
    b->cos = cut(b, &used, n * model->rope.half);
    b->sin = cut(b, &used, n * model->rope.half);
    b->partial = cut(b, &used, most_roots(model) * b->root_stride);
    b->last = cut(b, &used, b->n_wanted * b->x_stride);
    b->logits = cut(b, &used, b->n_wanted * b->logits_stride);
    return used;
}

enum status model_reserve(struct model *model, uint32_t n_tokens, uint32_t n_wanted,
                          struct err *err)
{
    struct model_buffers *old = &model->buffers;
    struct model_buffers made = {.n_tokens = MAX(n_tokens, old->n_tokens),
                                 .n_wanted = MAX(n_wanted, old->n_wanted)};
    uint32_t widest = MAX(model->config.hidden, model->config.ffn);
    enum status status;

    if (n_tokens <= old->n_tokens && n_wanted <= old->n_wanted) {
        return STATUS_OK;
    }
    widest = MAX(widest, model->config.n_heads * model->config.head_dim + 2 * DTYPE_GROUP_MAX);
    status = model->ops->reserve(model->device, MAX(made.n_tokens, made.n_wanted), widest,
                                 most_groups(model), err);
    if (status != STATUS_OK) {
        return status;
    }
    made.memory_bytes = lay_out(model, &made);
    made.memory = model->ops->alloc(model->device, made.memory_bytes);
    if (made.memory == NULL) {
        return err_set(err, STATUS_NO_MEMORY,
                       "no memory for the activations of %u tokens (%zu bytes)", made.n_tokens,
                       made.memory_bytes);
    }
    lay_out(model, &made);
    model->ops->release(model->device, old->memory, old->memory_bytes);
    *old = made;
    return STATUS_OK;
}

struct ops_kv model_kv_shape(const struct model *model)
{
    struct ops_kv kv = {
        .n_layers = model->config.n_layers,
        .n_kv_heads = model->slice.kv_end - model->slice.kv_begin,
        .head_dim = model->config.head_dim,
        .type = model->kv,
    };

    kv.page_bytes = model->ops->kv_page_bytes(&kv);
    return kv;
}

/* Notes, for every wanted row that has no note yet, whether x is not a number after this layer. */
static void note_nan(struct model *model, const struct model_step *step, const float *x,
                     size_t stride, uint32_t dim, uint32_t layer)
{
    for (uint32_t i = 0; i < step->n_wants; i++) {
        struct model_want *want = &step->wants[i];

        if (want->nan_layer < 0 &&
            model->ops->has_nan(model->device, x + want->row * stride, stride, 1, dim)) {
            want->nan_layer = (int32_t)layer;
        }
    }
}

static void embed(struct model *model, const struct model_step *step)
{
    struct model_buffers *b = &model->buffers;

    model->ops->embed(model->device, model_embed(model), step->tokens, step->n_tokens, b->x,
                      b->x_stride);
    for (uint32_t i = 0; i < step->n_segments; i++) {
        const struct ops_segment *segment = &step->segments[i];

        rope_table_fill(&model->rope, segment->pos, segment->n,
                        b->cos + (size_t)segment->row * model->rope.half,
                        b->sin + (size_t)segment->row * model->rope.half);
    }
}

static void watch(const struct model_step *step, uint32_t layer)
{
    if (step->watch != NULL) {
        step->watch(step->watch_arg, layer);
    }
}

/* All layers; with look_for_nan the wanted rows are examined after each. */
static enum status run_layers(struct model *model, const struct model_step *step, bool look_for_nan,
                              struct err *err)
{
    struct model_buffers *b = &model->buffers;

    embed(model, step);
    for (uint32_t layer = 0; layer < model->config.n_layers; layer++) {
        enum status status;

        watch(step, layer);
        status = layer_fns[model->config.arch](model, step, layer, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (look_for_nan) {
            note_nan(model, step, b->x, b->x_stride, model->config.hidden, layer);
        }
    }
    return STATUS_OK;
}

/* logits = Whead norm(x) of the wanted rows. Vocabulary-parallel: each rank has its own rows of it.
 */
static void output_head(struct model *model, const struct model_step *step)
{
    struct model_buffers *b = &model->buffers;
    const struct ops_linear_out out = {&model->head, NULL, b->logits, b->logits_stride, 0, true};

    for (uint32_t i = 0; i < step->n_wants; i++) {
        model->ops->rmsnorm(model->device, &(struct ops_rmsnorm){
                                               .x = b->x + step->wants[i].row * b->x_stride,
                                               .x_stride = b->x_stride,
                                               .y = b->last + i * b->x_stride,
                                               .y_stride = b->x_stride,
                                               .w = model->shared.vector[MODEL_FINAL_NORM],
                                               .n = 1,
                                               .groups = 1,
                                               .dim = model->config.hidden,
                                               .eps = model->config.norm_eps,
                                           });
        step->wants[i].logits = b->logits + i * b->logits_stride;
        step->wants[i].nan_layer = -1;
    }
    model->ops->linear(model->device, &(struct ops_linear){
                                          .x = b->last,
                                          .x_stride = b->x_stride,
                                          .n = step->n_wants,
                                          .act = model->act,
                                          .out = &out,
                                          .n_out = 1,
                                      });
}

/* Results that are not numbers are rare: only then is the pass run again to find the layer (the KV
 * cache gets the same values a second time). Whether it is run depends on the residual stream
 * alone, which is the same on every rank, for all must take part; logits are each rank's own. */
static enum status find_nan(struct model *model, const struct model_step *step, struct err *err)
{
    struct model_buffers *b = &model->buffers;
    enum status status = STATUS_OK;
    bool in_layers = false;

    for (uint32_t i = 0; i < step->n_wants; i++) {
        in_layers |= model->ops->has_nan(model->device, b->x + step->wants[i].row * b->x_stride,
                                         b->x_stride, 1, model->config.hidden);
    }
    if (in_layers) {
        status = run_layers(model, step, true, err);
    }
    if (!model->ops->has_nan(model->device, b->logits, b->logits_stride, step->n_wants,
                             model->head.rows)) {
        return status;
    }
    for (uint32_t i = 0; i < step->n_wants; i++) {
        struct model_want *want = &step->wants[i];

        if (want->nan_layer < 0 && model->ops->has_nan(model->device, want->logits,
                                                       b->logits_stride, 1, model->head.rows)) {
            want->nan_layer = (int32_t)model->config.n_layers;
        }
    }
    return status;
}

enum status model_forward(struct model *model, const struct model_step *step, struct err *err)
{
    enum status status;

    ENSURE_OP(step->n_tokens, <=, model->buffers.n_tokens);
    ENSURE_OP(step->n_wants, <=, model->buffers.n_wanted);
    model->ops->step_enter(model->device);
    status = run_layers(model, step, false, err);
    if (status == STATUS_OK) {
        watch(step, model->config.n_layers);
    }
    if (status == STATUS_OK && step->n_wants > 0) {
        output_head(model, step);
        status = find_nan(model, step, err);
    }
    model->ops->step_leave(model->device);
    return status;
}

uint64_t model_state_hash(const struct model *model, uint32_t n_rows)
{
    const struct model_buffers *b = &model->buffers;
    uint64_t hash = 0;

    ENSURE_OP(n_rows, <=, b->n_tokens);
    for (uint32_t row = 0; row < n_rows; row++) {
        for (uint32_t begin = 0; begin < model->config.hidden; begin += 64) {
            uint32_t n = MIN(model->config.hidden - begin, 64u);
            uint32_t bits[64];

            memcpy(bits, b->x + row * b->x_stride + begin, n * sizeof(*bits));
            for (uint32_t i = 0; i < n; i++) {
                bits[i] = (bits[i] & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : bits[i];
            }
            hash = XXH3_64bits_withSeed(bits, n * sizeof(*bits), hash);
        }
    }
    return hash;
}
