/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this rank owns of every tensor, and where it lies: in one of two blocks of storage, the
 * embedding's and that of all else, in the order in which a step reads it. Column-parallel matrices
 * (q, k, v, gate, up, head) are cut by rows, row-parallel ones (attn_out, ffn_down) by columns, at
 * leaf boundaries; norms are whole on every rank.
 */
#include "base/mem.h"
#include "model/model_priv.h"
#include "tensor/bf16_12.h"
#include "weights/pack.h"

/* This rank's share of the heads and of the vocabulary. */
static enum status init_slice(struct model *model, struct err *err)
{
    const struct model_config *c = &model->config;
    const struct shard_world world = {.n_ranks = model->comm->n_ranks};
    const struct shard_shape shape = {c->n_heads, c->n_kv_heads, c->vocab};
    enum status status = shard_slice_of(&world, model->comm->rank, &shape, &model->slice, err);

    if (status != STATUS_OK) {
        return status;
    }
    model->kv_head_of = xcalloc(c->n_heads, sizeof(*model->kv_head_of));
    for (uint32_t h = model->slice.head_begin; h < model->slice.head_end; h++) {
        model->kv_head_of[h - model->slice.head_begin] =
            h / (c->n_heads / c->n_kv_heads) - model->slice.kv_begin;
    }
    return STATUS_OK;
}

/* An embedding that is not the head, too, is only looked up. */
static bool enters_products(const struct model *model, enum model_tensor tensor)
{
    return tensor != MODEL_EMBED || model->config.tied;
}

/* The type of a matrix here: as stored, or quantised at load. The output head keeps eight bits: it
 * is what 4-bit weights hurt most. */
static enum dtype packed_type(const struct model *model, enum model_tensor tensor,
                              const struct weights_tensor *stored)
{
    enum dtype dtype = stored == NULL ? DTYPE_BF16 : stored->dtype;
    bool head = tensor == MODEL_HEAD || tensor == MODEL_EMBED;
    enum dtype quant = head ? DTYPE_Q8_0 : model->quant;

    if (!model->quantises || dtype == quant || !pack_makes(quant, dtype) ||
        !enters_products(model, tensor) ||
        model_tensor_shape(&model->config, tensor).cols % dtype_info(quant)->group != 0) {
        return dtype;
    }
    return quant;
}

/* Leaves of one layer's ffn_down, and this rank's share of them. */
static enum status init_ffn_leaves(const struct model *model, struct model_layer *layer,
                                   const struct weights_tensor *down, struct err *err)
{
    const struct shard_world world = {.n_ranks = model->comm->n_ranks};
    uint32_t bounds[LEAVES_FFN_MAX + 1];
    struct shard_cut cut;
    enum status status;

    layer->ffn_unit = dtype_info(packed_type(model, MODEL_FFN_DOWN, down))->group;
    layer->ffn_leaves = leaves_ffn(model->config.ffn, layer->ffn_unit, bounds);
    status = shard_leaves(&world, layer->ffn_leaves, bounds, &cut, err);
    if (status == STATUS_OK) {
        layer->ffn_leaf_begin = cut.bounds[model->comm->rank];
        layer->ffn_leaf_end = cut.bounds[model->comm->rank + 1];
    }
    return status;
}

/* Rows of the tensor that this rank owns. */
static void cut_rows(const struct model *model, const struct model_layer *layer,
                     enum model_tensor tensor, const uint32_t *ffn_bounds,
                     struct model_piece *piece)
{
    const struct shard_slice *s = &model->slice;
    uint32_t dim = model->config.head_dim;
    uint32_t begin = 0;
    uint32_t end = model_tensor_shape(&model->config, tensor).rows;

    switch (tensor) {
    case MODEL_ATTN_Q:
    case MODEL_ATTN_Q_BIAS:
        begin = s->head_begin * dim;
        end = s->head_end * dim;
        break;
    case MODEL_ATTN_K:
    case MODEL_ATTN_K_BIAS:
    case MODEL_ATTN_V:
    case MODEL_ATTN_V_BIAS:
        begin = s->kv_begin * dim;
        end = s->kv_end * dim;
        break;
    case MODEL_FFN_GATE:
    case MODEL_FFN_UP:
    case MODEL_FFN_GATE_BIAS:
    case MODEL_FFN_UP_BIAS:
        begin = ffn_bounds[layer->ffn_leaf_begin];
        end = ffn_bounds[layer->ffn_leaf_end];
        break;
    case MODEL_HEAD: /* a tied one is a part of EMBED, which every rank has whole */
        begin = s->vocab_begin;
        end = s->vocab_end;
        break;
    default:
        break;
    }
    piece->row_begin = begin;
    piece->n_rows = end - begin;
}

/* Columns of the tensor that this rank owns, and the leaves along them. */
static uint32_t cut_cols(const struct model *model, struct model_layer *layer,
                         enum model_tensor tensor, const uint32_t *ffn_bounds,
                         struct model_piece *piece, struct leaf_plan *ret_leaves)
{
    uint32_t group = dtype_info(packed_type(model, tensor, piece->tensor))->group;
    const struct shard_slice *s = &model->slice;
    uint32_t heads = model->config.n_heads;
    uint32_t dim = model->config.head_dim;
    uint32_t *bounds;

    switch (tensor) {
    case MODEL_ATTN_OUT: /* one leaf a query head; a head may begin inside a quantisation group */
        bounds = xcalloc(heads + 1, sizeof(*bounds));
        for (uint32_t h = 0; h <= heads; h++) {
            bounds[h] = h * dim;
        }
        leaf_plan_init(ret_leaves, bounds, heads, s->head_begin, s->head_end - s->head_begin);
        free(bounds);
        layer->out_lead = s->head_begin * dim % group;
        for (uint32_t i = 0; i <= ret_leaves->n_leaves; i++) {
            ret_leaves->bounds[i] += layer->out_lead;
        }
        piece->col_begin = s->head_begin * dim - layer->out_lead;
        return s->head_begin == s->head_end
                   ? 0
                   : (uint32_t)round_up(s->head_end * dim, group) - piece->col_begin;
    case MODEL_FFN_DOWN:
        leaf_plan_init(ret_leaves, ffn_bounds, layer->ffn_leaves, layer->ffn_leaf_begin,
                       layer->ffn_leaf_end - layer->ffn_leaf_begin);
        piece->col_begin = ffn_bounds[layer->ffn_leaf_begin];
        return ffn_bounds[layer->ffn_leaf_end] - piece->col_begin;
    default:
        leaf_plan_init_single(ret_leaves, model_tensor_shape(&model->config, tensor).cols);
        return model_tensor_shape(&model->config, tensor).cols;
    }
}

/* Adds the piece and gives it its place in storage. */
static enum status place(struct model_layout *layout, struct model_piece *piece, size_t bytes,
                         struct err *err)
{
    size_t *used = &layout->bytes[piece->store];

    piece->offset = *used;
    piece->bytes = bytes;
    piece->end = piece->packed == NULL ? 1 : piece->packed->n_panels;
    if (!size_add(*used, round_up(bytes, CACHE_LINE), used)) {
        return err_set(err, STATUS_LIMIT, "the model's weights exceed the address space");
    }
    layout->pieces = xrealloc(layout->pieces, layout->n_pieces + 1, sizeof(*layout->pieces));
    layout->pieces[layout->n_pieces++] = *piece;
    return STATUS_OK;
}

static enum status add_matrix(struct model_layout *layout, struct model *model,
                              struct model_layer *layer, enum model_tensor tensor,
                              const struct weights_tensor *stored, struct err *err)
{
    enum dtype dtype = packed_type(model, tensor, stored);
    uint32_t ffn_bounds[LEAVES_FFN_MAX + 1] = {0};
    struct packed *packed = &layer->matrix[tensor];
    enum model_store store = tensor == MODEL_EMBED ? MODEL_STORE_HOST : MODEL_STORE_RANK;
    struct model_piece piece = {.packed = packed, .store = store, .tensor = stored};
    struct leaf_plan leaves;
    uint32_t cols;

    if (enters_products(model, tensor)) {
        if (stored != NULL && stored->dtype != DTYPE_BF16 && layout->not_bf16 == NULL) {
            layout->not_bf16 = stored;
        }
        layout->some_quantised = layout->some_quantised || dtype_is_quantised(dtype);
        layout->quantises =
            layout->quantises || dtype != (stored == NULL ? DTYPE_BF16 : stored->dtype);
    }
    if (layer->ffn_leaves > 0) {
        leaves_ffn(model->config.ffn, layer->ffn_unit, ffn_bounds);
    }
    cut_rows(model, layer, tensor, ffn_bounds, &piece);
    cols = cut_cols(model, layer, tensor, ffn_bounds, &piece, &leaves);
    if (piece.n_rows == 0 || cols == 0) { /* another rank's */
        leaf_plan_release(&leaves);
        return STATUS_OK;
    }
    if (dtype == DTYPE_BF16 && model->bf16_12 && enters_products(model, tensor) &&
        bf16_12_is_compact(cols)) {
        dtype = DTYPE_BF16_12;
        layout->some_bf16_12 = true;
    }
    if (!packed_init(packed, dtype, piece.n_rows, cols)) {
        leaf_plan_release(&leaves);
        return err_set(err, STATUS_INVALID, "tensor %s: rows of %u elements do not fit type %s",
                       stored == NULL ? "?" : stored->name, cols, dtype_info(dtype)->name);
    }
    packed->leaves = leaves;
    return place(layout, &piece, packed_bytes(packed), err);
}

static enum status add_vector(struct model_layout *layout, struct model *model,
                              struct model_layer *layer, enum model_tensor tensor,
                              const struct weights_tensor *stored, struct err *err)
{
    uint32_t ffn_bounds[LEAVES_FFN_MAX + 1] = {0};
    struct model_piece piece = {.vector = &layer->vector[tensor], .tensor = stored};

    if (layer->ffn_leaves > 0) {
        leaves_ffn(model->config.ffn, layer->ffn_unit, ffn_bounds);
    }
    cut_rows(model, layer, tensor, ffn_bounds, &piece);
    return piece.n_rows == 0 ? STATUS_OK : place(layout, &piece, piece.n_rows * sizeof(float), err);
}

/* All wanted tensors of one layer, or (per_layer false) those that are not per layer. */
static enum status add_tensors(struct model_layout *layout, struct model *model,
                               const struct weights *weights, bool per_layer, uint32_t number,
                               struct err *err)
{
    struct model_layer *layer = per_layer ? &model->layers[number] : &model->shared;
    const struct weights_tensor *stored = NULL;
    enum status status = STATUS_OK;

    if (per_layer) {
        if (weights != NULL) {
            status =
                model_tensor_find(&model->config, weights, MODEL_FFN_DOWN, number, &stored, err);
        }
        if (status == STATUS_OK) {
            status = init_ffn_leaves(model, layer, stored, err);
        }
    }
    for (unsigned i = 0; i < MODEL_TENSOR_COUNT && status == STATUS_OK; i++) {
        enum model_tensor tensor = (enum model_tensor)i;
        struct model_tensor_shape shape = model_tensor_shape(&model->config, tensor);
        size_t before = layout->n_pieces;

        if (!shape.wanted || shape.per_layer != per_layer) {
            continue;
        }
        if (weights != NULL) {
            status = model_tensor_find(&model->config, weights, tensor, number, &stored, err);
        }
        if (status == STATUS_OK) {
            status = shape.matrix ? add_matrix(layout, model, layer, tensor, stored, err)
                                  : add_vector(layout, model, layer, tensor, stored, err);
        }
        if (status == STATUS_OK && layout->n_pieces > before) {
            struct model_piece *piece = &layout->pieces[before];

            piece->id = tensor;
            piece->layer = number;
            if (weights != NULL && model_tensor_is_permuted(&model->config, weights, tensor)) {
                bool is_q = tensor == MODEL_ATTN_Q || tensor == MODEL_ATTN_Q_BIAS;

                piece->row_map = layout->row_maps[is_q ? 0 : 1];
            }
        }
    }
    return status;
}

/* Address space behind all else for what may lie plain of matrices at 12 bits. */
static enum status place_plain(struct model_layout *layout, struct err *err)
{
    memcpy(layout->mapped, layout->bytes, sizeof(layout->mapped));
    for (size_t i = 0; i < layout->n_pieces; i++) {
        struct model_piece *piece = &layout->pieces[i];
        size_t *used = &layout->mapped[piece->store];
        size_t bytes = piece->packed == NULL ? 0 : packed_plain_bytes(piece->packed);

        piece->plain = *used;
        if (!size_add(*used, round_up(bytes, CACHE_LINE), used)) {
            return err_set(err, STATUS_LIMIT, "the model's weights exceed the address space");
        }
    }
    return STATUS_OK;
}

enum status model_layout_init(struct model_layout *layout, struct model *model,
                              const struct weights *weights, struct err *err)
{
    const struct model_config *c = &model->config;
    enum status status;

    *layout = (struct model_layout){0};
    status = init_slice(model, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (weights != NULL && model_tensor_is_permuted(c, weights, MODEL_ATTN_Q)) {
        layout->row_maps[0] = xcalloc((size_t)c->n_heads * c->head_dim, sizeof(uint32_t));
        layout->row_maps[1] = xcalloc((size_t)c->n_kv_heads * c->head_dim, sizeof(uint32_t));
        model_rope_row_map(c->n_heads, c->head_dim, layout->row_maps[0]);
        model_rope_row_map(c->n_kv_heads, c->head_dim, layout->row_maps[1]);
    }
    model->layers = mem_alloc(c->n_layers, sizeof(*model->layers));
    if (model->layers == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %u layers", c->n_layers);
    }
    status = add_tensors(layout, model, weights, false, 0, err);
    for (uint32_t layer = 0; layer < c->n_layers && status == STATUS_OK; layer++) {
        status = add_tensors(layout, model, weights, true, layer, err);
    }
    return status == STATUS_OK ? place_plain(layout, err) : status;
}

enum act model_default_act(const struct model_layout *layout)
{
    return layout->some_quantised ? ACT_INT8 : layout->not_bf16 == NULL ? ACT_BF16 : ACT_F32;
}

void model_layout_release(struct model_layout *layout)
{
    free(layout->pieces);
    free(layout->row_maps[0]);
    free(layout->row_maps[1]);
    *layout = (struct model_layout){0};
}

static void release_leaves(struct model_layer *layer)
{
    for (unsigned i = 0; i < MODEL_TENSOR_COUNT; i++) {
        leaf_plan_release(&layer->matrix[i].leaves);
    }
}

void model_layers_release(struct model *model)
{
    for (uint32_t i = 0; model->layers != NULL && i < model->config.n_layers; i++) {
        release_leaves(&model->layers[i]);
    }
    release_leaves(&model->shared);
    free(model->layers);
    free(model->kv_head_of);
    model->layers = NULL;
    model->kv_head_of = NULL;
}

/* Bytes of a tied embedding that belong to this rank's head; all others are held whole. */
static uint64_t head_bytes(const struct model *model)
{
    struct packed head = *model_embed(model);

    head.rows = model->slice.vocab_end - model->slice.vocab_begin;
    head.n_panels = (uint32_t)div_up(head.rows, PACKED_LANES);
    return packed_bytes(&head);
}

enum status model_share_of(const struct weights *weights, const struct model_config *config,
                           const struct model_place *place, struct model_share *ret_share,
                           struct err *err)
{
    struct comm comm = {.rank = place->rank, .n_ranks = place->n_ranks};
    struct model model = {.config = *config, .comm = &comm, .bf16_12 = place->bf16_12};
    uint32_t ffn_bounds[LEAVES_FFN_MAX + 1];
    struct model_layout layout;
    enum status status = model_layout_init(&layout, &model, weights, err);

    if (status == STATUS_OK) {
        const struct packed *embed = model_embed(&model);
        const struct model_layer *first = &model.layers[0];
        struct model_share share = {.slice = model.slice,
                                    .weight_bytes = layout.bytes[MODEL_STORE_RANK]};

        if (config->tied) {
            share.weight_bytes += head_bytes(&model);
        } else {
            share.embed_bytes = packed_bytes(embed);
        }
        leaves_ffn(config->ffn, first->ffn_unit, ffn_bounds);
        share.ffn_begin = ffn_bounds[first->ffn_leaf_begin];
        share.ffn_end = ffn_bounds[first->ffn_leaf_end];
        share.act = model_default_act(&layout);
        share.some_bf16_12 = layout.some_bf16_12;
        *ret_share = share;
    }
    model_layout_release(&layout);
    model_layers_release(&model);
    return status;
}
