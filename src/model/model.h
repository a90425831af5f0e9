/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model on one rank: its share of the weights, packed, and the forward pass over them. The pass
 * of each architecture is in a file of its own (llama.c, qwen2.c, qwen3.c) that reads like the
 * paper; what they share is in blocks.c.
 *
 * A model is created by one thread and used by one thread at a time (its device's). It owns its
 * weights and activation buffers; device and communicator are borrowed.
 */
#pragma once

#include "comm/comm.h"
#include "model/rope.h"
#include "model/tensors.h"
#include "ops/ops.h"
#include "tensor/shard.h"

/* Weights of one layer as this rank has them; a part of which it owns nothing has no rows. */
struct model_layer {
    struct packed matrix[MODEL_TENSOR_COUNT]; /* those of tensors.def that are MATRIX and wanted */
    float *vector[MODEL_TENSOR_COUNT];        /* likewise VECTOR; NULL if not wanted */
    uint32_t ffn_unit;       /* quantisation group of ffn_down, which decides its leaves */
    uint32_t ffn_leaves;     /* of ffn_down, over all ranks */
    uint32_t ffn_leaf_begin; /* this rank's, and so its rows of gate and up */
    uint32_t ffn_leaf_end;
    uint32_t
        out_lead; /* columns of attn_out before this rank's: its type's groups are kept whole */
};

struct model;

typedef void model_progress_fn(void *arg, uint64_t bytes_done, uint64_t bytes_total);

/* What the weights of a model lie in. */
enum model_store {
    MODEL_STORE_RANK, /* this rank's share of everything but the embedding */
    MODEL_STORE_HOST, /* the embedding, whole: the same on every rank of a host */
    MODEL_STORE_COUNT
};

/* Memory for the weights that somebody else owns, in place of the device's: host memory, zeroed,
 * 64-byte aligned, there until the model is destroyed. */
struct model_memory {
    /* Called once for each store. identity is of all that the content depends on: if *ret_filled,
     * the memory holds the content of this very identity and is neither read from files nor
     * written. */
    NODISCARD enum status (*take)(void *arg, enum model_store store, size_t bytes,
                                  uint64_t identity, void **ret_memory, bool *ret_filled,
                                  struct err *err);
    /* Before a part of a store is written, from the thread that is about to; NULL: not needed. */
    NODISCARD enum status (*reserve)(void *arg, enum model_store store, void *at, size_t bytes,
                                     struct err *err);
    void *arg;
    bool host_shared; /* MODEL_STORE_HOST is the same memory on all ranks: each fills the rows of
                         its own vocabulary range, and it is whole when all have loaded */
};

/* How BF16 matrices that enter products are packed: the results are the same bits. */
enum model_bf16 {
    MODEL_BF16_AUTO,  /* as the device likes them best */
    MODEL_BF16_PLAIN, /* 16 bits */
    MODEL_BF16_12, /* at 12 bits (tensor/bf16_12.h), but those that this would not make smaller */
};

/* "12", "plain"; any other name is AUTO. */
enum model_bf16 model_bf16_from_name(const char *name);

struct model_load_options {
    const struct ops *ops;
    struct ops_device *device;
    struct comm *comm;
    const struct model_memory *memory; /* NULL: the device's own */
    bool act_given;                    /* use act; otherwise model_default_act */
    enum act act;
    bool kv_given; /* use kv; otherwise act_kv_type */
    enum kv_type kv;
    bool quantises;   /* plain matrices that enter products become of this type */
    enum dtype quant; /* one that weights/quantise.h makes */
    enum model_bf16 bf16;
    uint32_t n_threads;          /* that read and pack */
    model_progress_fn *progress; /* NULL or called now and then, from the calling thread */
    void *progress_arg;
};

/* Reads and packs this rank's share of an opened checkpoint. Errors name the tensor. */
NODISCARD enum status model_load(struct weights *weights, const struct model_config *config,
                                 const struct model_load_options *options, struct model **ret_model,
                                 struct err *err);

/* A model of the same shape with random BF16 weights, for measurements: the same at every number of
 * ranks. */
NODISCARD enum status model_create_random(const struct model_config *config,
                                          const struct model_load_options *options,
                                          struct model **ret_model, struct err *err);
void model_destroy(struct model **model);

const struct model_config *model_config(const struct model *model);
const struct shard_slice *model_slice(const struct model *model); /* what this rank owns */
enum act model_act(const struct model *model);
enum kv_type model_kv_type(const struct model *model);
uint64_t model_weight_bytes(const struct model *model);    /* packed, all that it can reach */
uint64_t model_host_bytes(const struct model *model);      /* of these, in MODEL_STORE_HOST */
uint64_t model_bytes_per_token(const struct model *model); /* read to decode one token */

/* Of configuration and weights of this rank (a KV cache of one identity is of use in another model
 * of the same). */
uint64_t model_identity(const struct model *model);

/* Whose share of a model is asked for, and how it would be packed. */
struct model_place {
    uint32_t rank;
    uint32_t n_ranks;
    bool bf16_12; /* BF16 at 12 bits */
};

/* What one rank of a world would hold of an opened checkpoint, without loading it. */
struct model_share {
    struct shard_slice slice;
    uint32_t ffn_begin; /* columns of ffn_down in the first layer; others may differ by a group */
    uint32_t ffn_end;
    uint64_t weight_bytes; /* packed, as if no panel at 12 bits lay plain; of a tied embedding only
                              the rows of this rank's head */
    uint64_t embed_bytes; /* an embedding that is not the head, held once for all ranks of a host */
    bool some_bf16_12;    /* BF16 at 12 bits is among them */
    enum act act;         /* what model_load would choose without --quant */
};

NODISCARD enum status model_share_of(const struct weights *weights,
                                     const struct model_config *config,
                                     const struct model_place *place, struct model_share *ret_share,
                                     struct err *err);

/* Whether MODEL_BF16_... means 12 bits on this device. */
bool model_packs_bf16_12(enum model_bf16 bf16, const struct ops *ops,
                         const struct ops_device *device);

/* Makes room for steps of up to n_tokens with logits for up to n_wanted of them. */
NODISCARD enum status model_reserve(struct model *model, uint32_t n_tokens, uint32_t n_wanted,
                                    struct err *err);

/* Shape of the KV cache that the model needs; n_pages and pages are the caller's to set. */
struct ops_kv model_kv_shape(const struct model *model);

/* A row of the step whose logits are wanted. */
struct model_want {
    uint32_t row;      /* of the step's tokens */
    float *logits;     /* set by the pass: [vocab_end - vocab_begin], valid until the next one */
    int32_t nan_layer; /* set by the pass: -1, or the first layer whose output is not a number (the
                          number of layers if only the output head's is) */
};

struct model_step {
    const int32_t *tokens; /* [n_tokens], each below vocab */
    uint32_t n_tokens;
    const struct ops_segment *segments; /* cover the rows in order */
    uint32_t n_segments;
    const struct ops_kv *kv;
    struct model_want *wants;
    uint32_t n_wants;
    /* NULL, or called at the start of each layer, and with the number of layers before the output
     * head, on the thread of the step. */
    void (*watch)(void *arg, uint32_t layer);
    void *watch_arg;
};

/* One pass: embeds, runs every layer (reading and extending the KV cache), writes the wanted
 * logits. Fails only where a collective does. */
NODISCARD enum status model_forward(struct model *model, const struct model_step *step,
                                    struct err *err);

/* XXH3 of the first n_rows rows of the residual stream as the last pass left them, with all NaNs
 * taken as one. */
uint64_t model_state_hash(const struct model *model, uint32_t n_rows);
