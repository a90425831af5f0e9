/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BF16 at 12 bits, without loss (docs/decisions/0016): an element's low byte (last exponent bit and
 * mantissa) as it is, its high byte (sign and upper exponent bits) as a 4-bit code into the panel's
 * table of sixteen, about the most frequent ones. Elements with another high byte are patched:
 * their codes may be anything, and the panel's record lists what belongs there. A panel with more
 * of them than its record holds lies plain, in memory that is touched for such panels alone.
 *
 * The layout of a panel, beside those of tensor/packed.h:
 *
 *   codes    [k / 8] of a unit, 192 bytes for 8 columns: three lines of 64 bytes, low bytes of
 *            columns 0 .. 3, of columns 4 .. 7, and codes. The byte of lane l and column c (0 .. 3)
 *            of a line is number 16 (l / 4) + 8 (c / 2) + 2 (l % 4) + c % 2: interleaving the bytes
 *            of two vectors, as every instruction set does in blocks of 16 bytes, makes pairs of
 *            elements of it, lanes in order. A byte of codes is that of the first line's element in
 *            its low nibble, that of the second's in its high one.
 *   scales   the record: struct bf16_12_head, then a mark (bit) for each unit that has patches,
 *            then the patches, by units in ascending order.
 *   plain    as BF16, if the record says so
 */
#pragma once

#include "tensor/packed.h"

enum {
    BF16_12_UNIT = 8,
    BF16_12_UNIT_BYTES = 192,
    BF16_12_TABLE = 16,
    BF16_12_COLS_MAX = 1 << 20, /* what a patch can say */
};

#define BF16_12_PLAIN UINT32_MAX

struct bf16_12_head {
    uint8_t table[BF16_12_TABLE]; /* high byte of each code */
    uint32_t n_patches;           /* BF16_12_PLAIN: the panel lies plain */
};

/* A patch is column << 12 | lane << 8 | high byte. */
static inline uint32_t bf16_12_patch(uint32_t col, uint32_t lane, uint8_t high)
{
    return col << 12 | lane << 8 | high;
}

/* Where the patches begin in the record of a panel of cols columns. */
static inline size_t bf16_12_patches_at(uint32_t cols)
{
    size_t marks = div_up(div_up(cols, BF16_12_UNIT), 8) + 1; /* one more: read two at a time */

    return round_up(sizeof(struct bf16_12_head) + marks, sizeof(uint32_t));
}

/* Bytes of a panel's codes and of its record. The two together keep to 1.03 times 12 bits an
 * element where bf16_12_is_compact. */
size_t bf16_12_code_bytes(uint32_t cols);
size_t bf16_12_record_bytes(uint32_t cols);
bool bf16_12_is_compact(uint32_t cols);

static inline const struct bf16_12_head *bf16_12_head(const struct packed *w, uint32_t panel)
{
    return (const void *)(w->scales + panel * w->panel_scale_bytes);
}

/* Whether a unit of columns [k, k + 32) has patches; k is a multiple of BF16_12_UNIT. */
static inline bool bf16_12_is_patched(const struct bf16_12_head *head, uint32_t k)
{
    const uint8_t *marks = (const uint8_t *)(head + 1) + k / BF16_12_UNIT / 8;

    return ((uint32_t)(marks[0] | marks[1] << 8) >> k / BF16_12_UNIT % 8 & 15) != 0;
}

/* The patches of columns [k, k + n), k a multiple of BF16_12_UNIT: the first, and how many. */
const uint32_t *bf16_12_patches(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                                uint32_t *ret_n);

/* Lays out one panel from its rows, NULL past the end (which makes them zero), as files store them
 * (w->cols elements of BF16), into codes and record, which are zero. False if there are too many
 * patches: the record then says that the panel lies plain, and the codes may be anything. */
bool bf16_12_pack(const struct packed *w, const uint8_t *const rows[PACKED_LANES], uint8_t *codes,
                  uint8_t *record);

/* One element. Slow, as packed_value. */
uint16_t bf16_12_element(const struct packed *w, uint32_t row, uint32_t col);
