/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random BF16 weights of about the size that real ones have. Each pair of neighbouring elements of
 * a row comes from a hash of its place in the whole model, so that every division over ranks and
 * threads gives the same model.
 */
#include "model/model_priv.h"

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

/* The rows of one panel; out is zero and [pairs] of 16 lanes. */
static void fill_panel(const struct model_piece *piece, uint32_t panel, uint32_t key, uint32_t *out)
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
            out[(size_t)i * PACKED_LANES + lane] = two_elements(mix(row_keys[lane] + column));
        }
    }
    if (piece->packed->cols % 2 != 0) { /* the last element is padded with zero */
        uint32_t column = (piece->col_begin / 2 + n_pairs) * 0x9e3779b9u;

        for (uint32_t lane = 0; lane < n_lanes; lane++) {
            out[(size_t)n_pairs * PACKED_LANES + lane] =
                two_elements(mix(row_keys[lane] + column)) & 0xffff;
        }
    }
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
    ENSURE_OP(piece->packed->dtype, ==, DTYPE_BF16);
    ENSURE_OP(piece->col_begin % 2, ==, 0); /* cuts are at heads and FFN units, both even */
    for (uint32_t panel = begin; panel < end; panel++) {
        fill_panel(piece, panel, key,
                   (uint32_t *)(storage + panel * piece->packed->panel_code_bytes));
    }
}
