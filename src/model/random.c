/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random BF16 weights, quantised where --quant wants it, of about the size that real ones have.
 * Each pair of neighbouring elements of a row comes from a hash of its place in the whole model, so
 * that every division over ranks and threads gives the same model.
 */
#include "base/mem.h"
#include "model/model_priv.h"
#include "tensor/bf16_12.h"
#include "weights/pack.h"

/* A bijection whose output bits each depend on all input bits (the shifts and odd factors are those
 * of C. Wellons, "Prospecting for Hash Functions"). */
static inline uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* Two elements, each with a sign and a magnitude of 2^-7 to 2^-5, never a denormal. */
static inline uint32_t two_elements(uint32_t hash)
{
    return (hash & 0x80ff80ffu) + 0x3c003c00u;
}

/* Where a panel's pairs of elements go: pair i of a lane is out[i * pair + lane * lane]. */
struct pairs_layout {
    uint32_t *out;
    size_t pair;
    size_t lane;
};

/* The rows of one panel. */
static void fill_pairs(const struct model_piece *piece, uint32_t panel, uint32_t key,
                       const struct pairs_layout *to)
{
    uint32_t first = panel * PACKED_LANES;
    uint32_t n_lanes = MIN(piece->packed->rows - first, (uint32_t)PACKED_LANES);
    uint32_t n_pairs = piece->packed->cols / 2;
    uint32_t row_keys[PACKED_LANES];

    for (uint32_t lane = 0; lane < PACKED_LANES; lane++) {
        row_keys[lane] = mix(key ^ mix(piece->row_begin + first + lane));
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        uint32_t column = (piece->col_begin / 2 + i) * 0x9e3779b9u;

        for (uint32_t lane = 0; lane < n_lanes; lane++) {
            to->out[i * to->pair + lane * to->lane] = two_elements(mix(row_keys[lane] + column));
        }
    }
    if (piece->packed->cols % 2 != 0) { /* the last element is padded with zero */
        uint32_t column = (piece->col_begin / 2 + n_pairs) * 0x9e3779b9u;

        for (uint32_t lane = 0; lane < n_lanes; lane++) {
            to->out[n_pairs * to->pair + lane * to->lane] =
                two_elements(mix(row_keys[lane] + column)) & 0xffff;
        }
    }
}

/* The same as BF16 lies; out is zero. */
static void fill_panel(const struct model_piece *piece, uint32_t panel, uint32_t key, uint32_t *out)
{
    fill_pairs(piece, panel, key, &(struct pairs_layout){out, PACKED_LANES, 1});
}

/* And at 12 bits: they have two high bytes, so that none is a patch. */
static void fill_bf16_12(const struct model_piece *piece, uint32_t panel, uint32_t key,
                         uint8_t *storage)
{
    const struct packed *packed = piece->packed;
    uint32_t n_lanes = MIN(packed->rows - panel * PACKED_LANES, (uint32_t)PACKED_LANES);
    size_t n_pairs = div_up(packed->cols, 2);
    uint32_t *pairs = xcalloc(n_pairs * PACKED_LANES, sizeof(*pairs));
    const uint8_t *rows[PACKED_LANES] = {NULL};

    fill_pairs(piece, panel, key, &(struct pairs_layout){pairs, 1, n_pairs});
    for (uint32_t lane = 0; lane < n_lanes; lane++) {
        rows[lane] = (const uint8_t *)(pairs + lane * n_pairs);
    }
    ENSURE(bf16_12_pack(packed, rows, storage + panel * packed->panel_code_bytes,
                        storage + packed_scale_offset(packed) + panel * packed->panel_scale_bytes));
    free(pairs);
}

/* The same elements, quantised. */
static void fill_quantised(const struct model_piece *piece, uint32_t panel, uint32_t key,
                           uint8_t *storage)
{
    const struct packed *packed = piece->packed;
    uint32_t n_lanes = MIN(packed->rows - panel * PACKED_LANES, (uint32_t)PACKED_LANES);
    uint32_t *pairs = xcalloc((size_t)packed->cols / 2 * PACKED_LANES, sizeof(*pairs));
    float *values = xcalloc((size_t)packed->cols * PACKED_LANES, sizeof(*values));
    const float *rows[PACKED_LANES] = {NULL};

    fill_panel(piece, panel, key, pairs);
    for (uint32_t lane = 0; lane < n_lanes; lane++) {
        float *row = values + (size_t)lane * packed->cols;

        for (uint32_t k = 0; k < packed->cols; k++) { /* quantised matrices have an even number */
            uint32_t pair = pairs[(size_t)(k / 2) * PACKED_LANES + lane];

            row[k] = f32_from_bf16((uint16_t)(k % 2 == 0 ? pair : pair >> 16));
        }
        rows[lane] = row;
    }
    ENSURE(pack_quantised(packed, panel, rows, storage));
    free(values);
    free(pairs);
}

void model_random_fill(const struct model_piece *piece, uint32_t begin, uint32_t end,
                       uint8_t *storage)
{
    uint32_t key = mix((uint32_t)piece->id + piece->layer * MODEL_TENSOR_COUNT + 1);

    if (piece->packed == NULL) {
        for (uint32_t i = 0; i < piece->n_rows; i++) {
            ((float *)storage)[i] = 1.0f;
        }
        return;
    }
    ENSURE_OP(piece->col_begin % 2, ==, 0); /* cuts are at heads and FFN units, both even */
    for (uint32_t panel = begin; panel < end; panel++) {
        if (piece->packed->dtype == DTYPE_BF16) {
            fill_panel(piece, panel, key,
                       (uint32_t *)(storage + panel * piece->packed->panel_code_bytes));
        } else if (piece->packed->dtype == DTYPE_BF16_12) {
            fill_bf16_12(piece, panel, key, storage);
        } else {
            fill_quantised(piece, panel, key, storage);
        }
    }
}
