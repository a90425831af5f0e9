/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records, in bytes (h: f16):
 *   Q8_0  h d, i8 q[32]                        Q4_K  h d, h dmin, 12 scales, q[128]
 *   Q4_0  h d, q[16]                           Q5_K  h d, h dmin, 12 scales, high[32], q[128]
 *   Q4_1  h d, h m, q[16]                      Q6_K  q[128], high[64], i8 scales[16], h d
 *   Q5_0  h d, u32 high, q[16]
 *   Q5_1  h d, h m, u32 high, q[16]
 * Nibbles of q[i] in a group of 32: low is element i, high element i + 16. In a K-quant, 32 bytes
 * of q hold the low nibbles of one sub-block of 32 and the high ones of the next (Q4_K, Q5_K) or of
 * the next but one (Q6_K).
 */
#include "weights/blocks.h"

static void nibbles_of_32(const uint8_t *q, uint8_t codes[32])
{
    for (unsigned i = 0; i < 16; i++) {
        codes[i] = q[i] & 15;
        codes[i + 16] = q[i] >> 4;
    }
}

/* Eight at a time: each byte of `spread` keeps its own one of the eight bits, and adding 127
 * carries it, wherever it is, into the top bit. */
static void add_fifth_bits(const uint8_t *high, uint8_t codes[32])
{
    for (unsigned i = 0; i < 4; i++) {
        uint64_t spread = high[i] * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
        uint64_t eight;

        memcpy(&eight, codes + 8 * i, sizeof(eight));
        eight |= (spread + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 3 & UINT64_C(0x1010101010101010);
        memcpy(codes + 8 * i, &eight, sizeof(eight));
    }
}

/* Sub-block s (of 8) of a Q4_K or Q5_K record. */
static void nibbles_of_k(const uint8_t *q, unsigned s, uint8_t codes[32])
{
    for (unsigned i = 0; i < 32; i++) {
        codes[i] = (uint8_t)(q[s / 2 * 32 + i] >> (s % 2 * 4)) & 15;
    }
}

/* Sub-block s (of 8): halves of 128 elements; in each, 64 bytes of nibbles and 32 of bit pairs. */
static void codes_q6_k(const uint8_t *record, unsigned s, uint8_t codes[32])
{
    const uint8_t *q = record + s / 4 * 64 + s % 2 * 32;
    const uint8_t *high = record + 128 + s / 4 * 32;
    unsigned part = s % 4;

    for (unsigned i = 0; i < 32; i++) {
        unsigned low = q[i] >> (part / 2 * 4) & 15u;

        codes[i] = (uint8_t)(low | (high[i] >> (2 * part) & 3u) << 4);
    }
}

void blocks_codes(enum dtype dtype, const uint8_t *row, size_t i, uint8_t codes[32])
{
    const struct dtype_info *info = dtype_info(dtype);
    const uint8_t *record = row + i * 32 / info->group * info->group_bytes;
    unsigned s = i % 8;

    switch (dtype) {
    case DTYPE_Q8_0:
        for (unsigned k = 0; k < 32; k++) {
            codes[k] = record[2 + k] ^ 0x80; /* two's complement plus 128 */
        }
        break;
    case DTYPE_Q4_0:
        nibbles_of_32(record + 2, codes);
        break;
    case DTYPE_Q4_1:
        nibbles_of_32(record + 4, codes);
        break;
    case DTYPE_Q5_0:
        nibbles_of_32(record + 6, codes);
        add_fifth_bits(record + 2, codes);
        break;
    case DTYPE_Q5_1:
        nibbles_of_32(record + 8, codes);
        add_fifth_bits(record + 4, codes);
        break;
    case DTYPE_Q4_K:
        nibbles_of_k(record + 16, s, codes);
        break;
    case DTYPE_Q5_K:
        nibbles_of_k(record + 48, s, codes);
        for (unsigned k = 0; k < 32; k++) {
            codes[k] = (uint8_t)(codes[k] | (record[16 + k] >> s & 1) << 4);
        }
        break;
    default:
        ENSURE_OP(dtype, ==, DTYPE_Q6_K);
        codes_q6_k(record, s, codes);
        break;
    }
}
