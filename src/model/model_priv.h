/* SPDX-License-Identifier: Apache-2.0 */
/* Private to model/: the model's inside, and the blocks that architectures are made of. */
#pragma once

#include "model/model.h"

/* Activation buffers of a step, rows of OPS_STRIDE elements (the stride of each is kept beside it).
 */
struct model_buffers {
    uint32_t n_tokens; /* rows of all but the last two */
    uint32_t n_wanted;
    size_t x_stride;
    float *x; /* [n_tokens, hidden] the residual stream */
    float *h; /* [n_tokens, hidden] its norm; also a block's output before it is added */
    size_t q_stride;
    float *q; /* [n_tokens, heads, head_dim] */
    size_t a_stride;
    float *a; /* [n_tokens, out_lead + heads, head_dim] what attention returns */
    size_t kv_stride;
    float *k; /* [n_tokens, kv heads, head_dim] */
    float *v;
    size_t ffn_stride;
    float *gate; /* [n_tokens, ffn share]; then silu(gate) * up */
    float *up;
    float *cos; /* [n_tokens, head_dim / 2] */
    float *sin;
    float *partial; /* [roots, n_tokens, x_stride] partial sums of a row-parallel product */
    size_t root_stride;
    float *last;   /* [n_wanted, hidden] rows for the output head */
    float *logits; /* [n_wanted, vocab share] */
    size_t logits_stride;
    void *memory; /* all of them */
    size_t memory_bytes;
};

struct model_storage {
    void *memory;
    size_t bytes; /* address space: plain panels of matrices at 12 bits are touched where needed */
    bool owned;   /* to be released to the device */
};

struct model {
    struct model_config config;
    struct shard_slice slice;
    struct packed head; /* the output head's rows of this rank: of EMBED if tied, else of HEAD */
    enum act act;
    enum kv_type kv;
    bool quantises; /* as in model_load_options */
    enum dtype quant;
    bool bf16_12; /* BF16 at 12 bits */
    const struct ops *ops;
    struct ops_device *device;
    struct comm *comm;
    struct model_layer *layers; /* [n_layers] */
    struct model_layer shared;  /* what is not per layer: EMBED, HEAD, FINAL_NORM */
    uint32_t *kv_head_of;       /* [heads owned] index into the KV heads owned */
    struct rope_table rope;
    struct model_storage stores[MODEL_STORE_COUNT]; /* of all weights */
    uint64_t used[MODEL_STORE_COUNT];               /* bytes of the stores that they take */
    uint64_t identity;
    struct model_buffers buffers;
};

/* The pass of one architecture over one layer, on model->buffers.x. */
typedef enum status model_layer_fn(struct model *model, const struct model_step *step,
                                   uint32_t layer, struct err *err);

model_layer_fn llama_layer;
model_layer_fn qwen2_layer;
model_layer_fn qwen3_layer;

/* h = norm(x) * weight `norm` of the layer. */
void block_norm(struct model *model, const struct model_step *step, uint32_t layer,
                enum model_tensor norm);
/* q, k, v = Wq h, Wk h, Wv h (+ biases). Column-parallel: no collective. */
void block_qkv(struct model *model, const struct model_step *step, uint32_t layer);
/* Norm over each head of q and of k. */
void block_qk_norm(struct model *model, const struct model_step *step, uint32_t layer);
/* Rotates q and k to their positions. */
void block_rope(struct model *model, const struct model_step *step);
/* Appends k and v to the cache; a = attention of q over it. */
void block_attention(struct model *model, const struct model_step *step, uint32_t layer);
/* x += Wo a (+ bias). Row-parallel: the ranks' parts are added. */
NODISCARD enum status block_attn_out(struct model *model, const struct model_step *step,
                                     uint32_t layer, struct err *err);
/* x += Wdown (silu(Wgate h) * Wup h) (+ biases). One collective, behind Wdown. */
NODISCARD enum status block_ffn(struct model *model, const struct model_step *step, uint32_t layer,
                                struct err *err);

/* One tensor of the model as this rank has it; see layout.c. */
struct model_piece {
    struct packed *packed; /* of a matrix: initialised, without storage; NULL for a vector */
    float **vector;        /* of a vector: where its address goes */
    enum model_tensor id;
    uint32_t layer;
    enum model_store store;
    size_t offset;  /* in the store */
    size_t bytes;   /* there */
    size_t plain;   /* offset of the panels of a matrix at 12 bits that lie plain */
    uint32_t begin; /* panels [begin, end) are filled here, all unless the loader narrows it; */
    uint32_t end;   /* a vector is one */
    const struct weights_tensor *tensor; /* NULL: random weights */
    const uint32_t *row_map;             /* NULL: rows as stored */
    uint32_t row_begin;                  /* rows [row_begin, row_begin + n_rows) of the tensor */
    uint32_t n_rows;
    uint32_t col_begin;
};

struct model_layout {
    struct model_piece *pieces;
    size_t n_pieces;
    size_t bytes[MODEL_STORE_COUNT];
    size_t mapped[MODEL_STORE_COUNT];      /* with the address space behind them for plain panels */
    const struct weights_tensor *not_bf16; /* one that enters products and is not stored as BF16, on
                                              any rank; NULL if there is none */
    bool some_bf16_12;                     /* some of this rank's are at 12 bits */
    bool some_quantised;                   /* of those that enter products, as they are packed */
    bool quantises;                        /* some are quantised at load */
    uint32_t *row_maps[2];                 /* of q and k rows, NULL where not needed; owned */
};

/* What is chosen if nobody does: int8 if a matrix is quantised, bf16 if all are BF16, else f32
 * (docs/decisions/0013). */
enum act model_default_act(const struct model_layout *layout);

/* Decides what this rank owns of every tensor and where it goes. weights NULL: all matrices BF16.
 */
NODISCARD enum status model_layout_init(struct model_layout *layout, struct model *model,
                                        const struct weights *weights, struct err *err);
void model_layout_release(struct model_layout *layout);

/* Releases what model_layout_init put into the model. */
void model_layers_release(struct model *model);

/* Of all that the content of a store depends on. That of MODEL_STORE_HOST is the same on every rank
 * and at every number of ranks. */
uint64_t model_store_identity(const struct model *model, const struct model_layout *layout,
                              const struct weights *weights, enum model_store store);

/* Writes random elements (vectors: ones) into panels [begin, end) of a piece whose storage begins
 * at `storage` and is zero. An element depends on its tensor, layer, row and column alone. */
void model_random_fill(const struct model_piece *piece, uint32_t begin, uint32_t end,
                       uint8_t *storage);

/* The embedding matrix, whole on every rank. */
const struct packed *model_embed(const struct model *model);
