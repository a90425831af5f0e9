/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BF16 weights, plain or at 12 bits, as products of pairs take them in canonical order: of four
 * columns ("quad") of a panel a word for each lane with the first and the third, and one with the
 * second and the fourth, the earlier column in the upper half (see tile_dot.h).
 */
#pragma once

#include "cpu/x86/bf16_12.h"

#ifdef VEC_DOT_BF16

enum {
    DOT_QUADS = 8, /* in a step of 32 columns */
    DOT_QUAD_BYTES =
        128 /* of a panel: as packed two lines of pairs; or the even columns, the odd */
};

struct dot_words {
    veci even;
    veci odd;
};

/* Where the bytes of the words are in a line of low bytes (0 .. 63) and one of high bytes (64 ..
 * 127) of BF16 at 12 bits: see tensor/bf16_12.h. */
#define DOT_LANE(at)  8 + (at), 64 + 8 + (at), (at), 64 + (at)
#define DOT_LANES(at) DOT_LANE(at), DOT_LANE((at) + 2), DOT_LANE((at) + 4), DOT_LANE((at) + 6)
static const uint8_t dot_places[2][64] = {
    {DOT_LANES(0), DOT_LANES(16), DOT_LANES(32), DOT_LANES(48)},
    {DOT_LANES(1), DOT_LANES(17), DOT_LANES(33), DOT_LANES(49)},
};
#undef DOT_LANES
#undef DOT_LANE

/* The quad at two lines of pairs. */
VEC_INLINE struct dot_words dot_words(const uint8_t *pairs)
{
    veci first = vec_load_words(pairs);
    veci second = vec_load_words(pairs + DOT_QUAD_BYTES / 2);

    return (struct dot_words){vec_lower_halves(first, second), vec_upper_halves(first, second)};
}

/* x's two elements of a word, rounded to bf16. */
static inline uint32_t dot_x_word(uint32_t first, uint32_t second)
{
    return (first & 0xffff0000) | second >> 16;
}

/* Quad 0 or 1 of a unit of BF16 at 12 bits. */
VEC_INLINE struct dot_words dot_words_12(const uint8_t *unit, uint32_t quad, veci table)
{
    veci codes = vec_shr(vec_load_words(unit + 128), quad * 4);
    veci low = vec_load_words(unit + quad * 64);
    veci high = vec_lookup_bytes(table, vec_and(codes, vec_set1_word(0x0f0f0f0f)));

    return (struct dot_words){vec_merge_bytes(low, vec_load_words(dot_places[0]), high),
                              vec_merge_bytes(low, vec_load_words(dot_places[1]), high)};
}

/* Pairs of plain BF16: see gemm_pairs_fn. */
static const uint8_t *dot_plain_pairs(const struct packed *w, uint32_t panel, uint32_t k,
                                      uint32_t n, uint8_t *out)
{
    (void)n;
    (void)out;
    return w->codes + panel * w->panel_code_bytes + (size_t)k * PACKED_LANES * sizeof(uint16_t);
}

/* Room for a step of pairs, and for the first columns of one. */
struct dot_step {
    _Alignas(CACHE_LINE) uint8_t rest[STEP_PAIRS];
    uint8_t pairs[STEP_PAIRS + 4 * PAIR_LINE];
};

/* The step at column k as pairs, or n < 32 columns of it and zeros: where they lie, or in memory.
 */
VEC_INLINE const uint8_t *dot_pairs(gemm_pairs_fn *pairs_fn, const struct packed *w, uint32_t panel,
                                    uint32_t k, uint32_t n, struct dot_step *memory)
{
    const uint8_t *pairs = pairs_fn(w, panel, k, MIN(n, (uint32_t)WEIGHTS_STEP), memory->pairs);

    if (n < WEIGHTS_STEP) {
        pairs_rest(pairs, n, memory->rest);
        pairs = memory->rest;
    }
    return pairs;
}

/* n columns from k on, in whole steps, by way of pairs. */
VEC_INLINE void dot_unpack_pairs(gemm_pairs_fn *pairs_fn, const struct packed *w, uint32_t panel,
                                 uint32_t k, uint32_t n, uint8_t *out)
{
    struct dot_step memory;

    for (; n > 0; n -= MIN(n, (uint32_t)WEIGHTS_STEP), k += WEIGHTS_STEP) {
        const uint8_t *pairs = dot_pairs(pairs_fn, w, panel, k, n, &memory);

        for (uint32_t quad = 0; quad < DOT_QUADS; quad++) {
            const struct dot_words words = dot_words(pairs + quad * DOT_QUAD_BYTES);

            vec_store_words(out, words.even);
            vec_store_words(out + DOT_QUAD_BYTES / 2, words.odd);
            out += DOT_QUAD_BYTES;
        }
    }
}

/* Where the high byte of lane 0 and column c is in words; see place_in_pairs. */
VEC_INLINE size_t dot_place(uint32_t c)
{
    return c / 4 * DOT_QUAD_BYTES + c % 2 * (DOT_QUAD_BYTES / 2) + (c % 4 < 2 ? 3 : 1);
}

/* See gemm_unpack_fn: [quad][even, odd][16 lanes], in whole steps of 32 columns. */
static void dot_unpack_plain(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                             float *out, size_t stride)
{
    (void)stride;
    dot_unpack_pairs(dot_plain_pairs, w, panel, k, n, (uint8_t *)out);
}

static void dot_unpack_12(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                          float *unpacked, size_t stride)
{
    const uint8_t *units =
        w->codes + panel * w->panel_code_bytes + (size_t)(k / BF16_12_UNIT) * BF16_12_UNIT_BYTES;
    const veci table = vec_load_table(bf16_12_head(w, panel)->table);
    uint8_t *out = (uint8_t *)unpacked;
    uint32_t whole = n / WEIGHTS_STEP * WEIGHTS_STEP;

    (void)stride;
    if (is_plain(w, panel) || k % BF16_12_UNIT != 0) {
        whole = 0;
    }
    for (uint32_t quad = 0; quad < whole / 4; quad++) {
        const struct dot_words words =
            dot_words_12(units + quad / 2 * BF16_12_UNIT_BYTES, quad % 2, table);

        vec_store_words(out + quad * DOT_QUAD_BYTES, words.even);
        vec_store_words(out + quad * DOT_QUAD_BYTES + DOT_QUAD_BYTES / 2, words.odd);
    }
    if (whole > 0) {
        put_patches(w, panel, k, whole, dot_place, out);
    }
    dot_unpack_pairs(pairs_bf16_12, w, panel, k + whole, n - whole, out + whole * 32);
}

#endif
