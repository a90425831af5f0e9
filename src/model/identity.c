/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity of a store of weights: a hash of all that decides its bytes, but for the tensors'
 * data itself, which is known by its place in its file and the file's stamp.
 */
#include <xxhash.h>

#include "model/model_priv.h"

/* Raise when packed layouts, the order of pieces or random weights change. */
enum { STORE_VERSION = 2 };

static uint64_t add(uint64_t hash, const void *data, size_t bytes)
{
    return XXH3_64bits_withSeed(data, bytes, hash);
}

/* As numbers, for the struct has padding. */
static uint64_t add_config(uint64_t hash, const struct model_config *c)
{
    const double values[] = {
        c->arch,
        c->n_layers,
        c->hidden,
        c->n_heads,
        c->n_kv_heads,
        c->head_dim,
        c->ffn,
        c->vocab,
        c->max_context,
        (double)c->norm_eps,
        c->tied,
        c->qkv_bias,
        c->out_bias,
        c->mlp_bias,
        c->qk_norm,
        c->rope.kind,
        c->rope.theta,
        c->rope.factor,
        c->rope.original_context,
        c->rope.low_freq_factor,
        c->rope.high_freq_factor,
        c->rope.beta_fast,
        c->rope.beta_slow,
        c->rope.attention_factor,
        c->rope.truncate,
    };

    _Static_assert(sizeof(struct model_config) == 128, "a new field belongs into the hash");
    return add(hash, values, sizeof(values));
}

static uint64_t add_piece(uint64_t hash, const struct model_piece *piece,
                          const struct weights *weights)
{
    const struct weights_tensor *stored = piece->tensor;
    const uint64_t place[] = {
        piece->id,
        piece->layer,
        piece->offset,
        piece->bytes,
        piece->row_begin,
        piece->n_rows,
        piece->col_begin,
        piece->row_map != NULL,
        piece->packed == NULL ? 0 : piece->packed->cols,
        piece->packed == NULL ? DTYPE_F32 : piece->packed->dtype,
    };

    hash = add(hash, place, sizeof(place));
    if (stored != NULL) {
        const uint64_t source[] = {stored->dtype, stored->offset, stored->bytes};
        struct weights_stamp stamp = weights_file_stamp(weights, stored->file);

        hash = add(hash, stored->name, strlen(stored->name));
        hash = add(hash, source, sizeof(source));
        hash = add(hash, &stamp, sizeof(stamp));
    }
    return hash;
}

uint64_t model_store_identity(const struct model *model, const struct model_layout *layout,
                              const struct weights *weights, enum model_store store)
{
    const uint64_t kind[] = {STORE_VERSION, store, weights == NULL};
    uint64_t hash = add_config(add(0, kind, sizeof(kind)), &model->config);

    if (store == MODEL_STORE_RANK) {
        const uint64_t world[] = {model->comm->rank, model->comm->n_ranks};

        hash = add(hash, world, sizeof(world));
    }
    for (size_t i = 0; i < layout->n_pieces; i++) {
        if (layout->pieces[i].store == store) {
            hash = add_piece(hash, &layout->pieces[i], weights);
        }
    }
    return hash;
}
