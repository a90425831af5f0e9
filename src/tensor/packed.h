/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed weights: the one layout that every CPU kernel reads, for a matrix of `rows` outputs by
 * `cols` inputs (y = W x). weights/pack writes it, cpu/ reads it; this header is the definition.
 *
 * Rows are grouped into panels of 16 (the last is padded with zero weights). A panel is contiguous
 * over all of K, so that a kernel reads several panels as parallel streams; there are two arrays,
 * codes and scales, each a sequence of panels. "lane" is the row within its panel.
 *
 *   type        codes of a panel                                       k granule  scales of a panel
 *   F32         [k] of 16 float                                        1          none
 *   F16         [k] of 16 half                                         1          none
 *   BF16        [k / 2] of 16 lanes of 2 (k even, k odd)               2          none
 *   BF16_12     see tensor/bf16_12.h                                   8          a record
 *   Q8_0        [k / 32] of B8                                         32         f16 d[16]
 *   Q4_0        [k / 32] of B4                                         32         f16 d[16]
 *   Q4_1        [k / 32] of B4                                         32         f16 d[16], m[16]
 *   Q5_0        [k / 32] of B4, B1                                     32         f16 d[16]
 *   Q5_1        [k / 32] of B4, B1                                     32         f16 d[16], m[16]
 *   Q4_K        [k / 32] of B4                                         256        S4
 *   Q5_K        [k / 32] of B4, B1                                     256        S4
 *   Q6_K        [k / 32] of B4, B2                                     256        S6
 *
 * The blocks, each of 32 k:
 *
 *   - B8 (512 B): byte j*64 + lane*4 + b is the code of k = 4 j + b, j < 8, as an unsigned byte
 *     (value + 128)
 *   - B4 (256 B): byte j*64 + lane*4 + b has k = 8 j + b in its low and k = 8 j + 4 + b in its high
 *     nibble, j < 4
 *   - B1 (64 B): u32 lane, whose bit k is bit 4 of the code of k
 *   - B2 (128 B): u32 h*16 + lane, whose bits 2 t and 2 t + 1 are bits 4 and 5 of the code of
 *     k = 16 h + t
 *
 * Scales without a name are one record for each 32 k. Those of 256 k:
 *
 *   - S4 (256 B): f16 d[16], f16 dmin[16], then 12 planes of 16 bytes: byte p*16 + lane is byte
 *     p of the row's twelve bytes of 6-bit scales and minima, as the file has them
 *   - S6 (288 B): f16 d[16], then i8 [16 sub-blocks of 16 k][16 lanes]
 *
 * The weight is one f32 value, a single fused multiply-add of exactly represented parts:
 *
 *   - Q8_0: fma(c - 128, d, 0)
 *   - Q4_0: fma(c - 8, d, 0)
 *   - Q5_0: fma(c - 16, d, 0)
 *   - Q4_1, Q5_1: fma(c, d, m)
 *   - Q4_K, Q5_K: fma(c, d sc, -(dmin mn))
 *   - Q6_K: fma(c - 32, d sc, 0)
 *
 * with d sc and dmin mn rounded to f32 first (both are exact). Scales are finite (packing refuses
 * others), so that fma(c, d, -8 d) and the like are the same value.
 *
 * Padding along K: BF16 to an even k, nothing else (a quantised K is a multiple of its group). Code
 * bytes of a padded row or column may be anything that makes the value +0: packers write zero
 * scales (quantised) or zero elements.
 */
#pragma once

#include "tensor/dtype.h"
#include "tensor/leaves.h"

enum { PACKED_LANES = 16 };

struct packed {
    enum dtype dtype;
    uint32_t rows;            /* outputs */
    uint32_t cols;            /* inputs, K */
    uint32_t n_panels;        /* ceil(rows / 16) */
    size_t panel_code_bytes;  /* distance between panels in codes */
    size_t panel_scale_bytes; /* and in scales; 0 where the type has none */
    const uint8_t *codes;     /* 64-byte aligned; borrowed from whoever allocated the storage */
    const uint8_t *scales;    /* 32-byte aligned, NULL where the type has none */
    size_t panel_plain_bytes; /* BF16_12: between panels that lie plain, else 0 */
    const uint8_t *plain;     /* where those lie, 64-byte aligned */
    struct leaf_plan leaves;  /* how the product is summed along K; owned */
};

/* Bytes of codes and scales for one panel of cols inputs. False when cols does not fit the type (no
 * multiple of its group) or overflows. */
NODISCARD bool packed_panel_bytes(enum dtype dtype, uint32_t cols, size_t *ret_code_bytes,
                                  size_t *ret_scale_bytes);

/* Fills everything but codes, scales and leaves. False as above, or if rows or cols is 0. */
NODISCARD bool packed_init(struct packed *packed, enum dtype dtype, uint32_t rows, uint32_t cols);

/* Bytes of storage for codes and scales together (codes first, scales at packed_scale_offset). */
size_t packed_bytes(const struct packed *packed);
size_t packed_scale_offset(const struct packed *packed);

/* BF16_12: address space for all panels as BF16, zero and touched only where a panel lies plain; 0
 * for other types. The caller points packed->plain there. */
size_t packed_plain_bytes(const struct packed *packed);

/* Of codes, scales and plain panels, what a product reads. */
size_t packed_read_bytes(const struct packed *packed);

/* Points codes and scales into storage (64-byte aligned, packed_bytes long). */
void packed_attach(struct packed *packed, const void *storage);

/* The value of one weight, as defined above. Slow; for references, tests and single rows. */
float packed_value(const struct packed *packed, uint32_t row, uint32_t col);

/* 32 columns of one row of a quantised matrix, as an integer product takes them: the value of
 * column k is codes[k] d[k / 16] + m. Codes have their offset (128, 8, 16, 32) taken off, so that m
 * is +0 but for the types with a minimum; d[1] is d[0] but for Q6_K. */
struct packed_group {
    int16_t codes[32];
    float d[2];
    float m;
};

/* Columns [col, col + 32), col a multiple of 32. Slow, as packed_value. */
struct packed_group packed_group(const struct packed *packed, uint32_t row, uint32_t col);

/* What is taken off the unsigned codes of a type: its zero. */
static inline int32_t packed_code_zero(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_Q8_0:
        return 128;
    case DTYPE_Q4_0:
        return 8;
    case DTYPE_Q5_0:
        return 16;
    case DTYPE_Q6_K:
        return 32;
    default:
        return 0;
    }
}

/* Types whose weights have a minimum beside the scale. */
static inline bool packed_has_minimum(enum dtype dtype)
{
    return dtype == DTYPE_Q4_1 || dtype == DTYPE_Q5_1 || dtype == DTYPE_Q4_K || dtype == DTYPE_Q5_K;
}
