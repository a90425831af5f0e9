/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing: from stored tensors to the layout of tensor/packed.h, reading only the byte ranges that
 * the wanted part covers, in chunks of a few MB. Types are kept: a quantised block is taken apart
 * and re-laid without loss; or plain elements are quantised on the way (weights/quantise.h). Pure
 * but for reading; any number of threads may pack different panels.
 */
#pragma once

#include "tensor/packed.h"
#include "weights/weights.h"

/* Rows [row_begin, row_begin + n_rows) of a 2-D tensor. If row_map is given, row i of the part is
 * the stored row row_map[row_begin + i] (a permutation of all its rows). */
struct pack_part {
    const struct weights_tensor *tensor;
    uint32_t row_begin;
    uint32_t n_rows;
    const uint32_t *row_map; /* NULL: as stored */
};

/* Several parts stacked along rows, columns [col_begin, col_begin + packed->cols) of each: all of
 * one type, with equal numbers of columns. col_begin is a multiple of the type's group. */
struct pack_matrix {
    const struct pack_part *parts;
    uint32_t n_parts;
    uint32_t col_begin;
    /* NULL, or called before a panel of BF16_12 is written that lies plain (packed->plain): from
     * the thread that is about to. */
    NODISCARD enum status (*reserve)(void *arg, void *at, size_t bytes, struct err *err);
    void *reserve_arg;
};

/* Whether pack_panels makes this type of what is stored as that one: the same, quantised, or BF16
 * at 12 bits of BF16. */
bool pack_makes(enum dtype dtype, enum dtype stored);

/* Writes panels [panel_begin, panel_end) of packed (initialised with packed_init: type, rows = sum
 * of n_rows, cols) into storage (packed_bytes, zeroed, 64-byte aligned; see packed_attach;
 * packed->plain likewise). Errors: STATUS_CORRUPT (a scale that is not finite, or an element that
 * is to be quantised; names tensor and row), STATUS_UNSUPPORTED (type), STATUS_NO_MEMORY, and what
 * weights_read and matrix->reserve report. */
NODISCARD enum status pack_panels(struct weights *weights, const struct pack_matrix *matrix,
                                  const struct packed *packed, uint32_t panel_begin,
                                  uint32_t panel_end, void *storage, struct err *err);

/* Lays out one panel from its rows, as many as there are (the others NULL), as f32, quantised.
 * False if an element is not finite. Storage as in pack_panels. */
NODISCARD bool pack_quantised(const struct packed *packed, uint32_t panel,
                              const float *const rows[PACKED_LANES], void *storage);

/* A whole 1-D (or any) tensor of F32, F16 or BF16 as n floats, n = weights_n_elements. Refuses
 * other types by name. */
NODISCARD enum status pack_floats(struct weights *weights, const struct weights_tensor *tensor,
                                  float *out, struct err *err);
