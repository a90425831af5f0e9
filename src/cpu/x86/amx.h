/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tile registers of AMX under names of our own, of the calling thread. With AMX_EMULATED plain
 * C takes their place, for the tests of machines without them. A tile's number must be a literal.
 * amx_begin before the first use says how many bytes of a row are multiplied (64 or fewer): tiles 0
 * to 3 are sums, 16 rows of 64 bytes; 4 and 5 the first factor, 16 rows of so many bytes; 6 and 7
 * the second, a quarter as many rows of 64 bytes. amx_end after the last use: what follows is not
 * slowed down by tiles that nobody wants any more.
 *
 * amx_dot_bf16(c, a, b): c[i][j] += (even + odd), where over p = 0 .. 15 ascending, from +0,
 *   even = fma(a[i][2 p], b[p][2 j], even)   odd = fma(a[i][2 p + 1], b[p][2 j + 1], odd)
 * with denormals flushed going in and coming out: a step of the canonical chain (cpu/kernels.h).
 * That is for 64 bytes. The instruction (TDPBF16PS) was compared with that on a processor that has
 * it; the start-up check compares it on every one.
 *
 * amx_dot_signed(c, a, b): c[i][j] += the sum over p of a[i][p] b[p / 4][4 j + p % 4], of signed
 * bytes, in 32 bits.
 */
#pragma once

#include "base/base.h"

enum { AMX_TILES = 8, AMX_ROWS = 16, AMX_ROW_BYTES = 64 };

#if defined(AMX_EMULATED)

#include <math.h>

#include "tensor/dtype.h"

static _Thread_local uint8_t amx_tiles[AMX_TILES][AMX_ROWS][AMX_ROW_BYTES];
static _Thread_local uint32_t amx_bytes; /* of a row that are multiplied */

static uint32_t amx_tile_rows(uint32_t tile)
{
    return tile >= 6 ? amx_bytes / 4 : AMX_ROWS;
}

static size_t amx_tile_bytes(uint32_t tile)
{
    return tile == 4 || tile == 5 ? amx_bytes : AMX_ROW_BYTES;
}

static UNUSED void amx_begin(uint32_t bytes)
{
    amx_bytes = bytes;
    memset(amx_tiles, 0xff, sizeof(amx_tiles)); /* not numbers: what is not loaded shows */
}

static void amx_end(void)
{
}

static void amx_zero(uint32_t tile)
{
    memset(amx_tiles[tile], 0, sizeof(amx_tiles[tile]));
}

static void amx_load(uint32_t tile, const void *from, size_t stride)
{
    for (uint32_t row = 0; row < amx_tile_rows(tile); row++) {
        memcpy(amx_tiles[tile][row], (const uint8_t *)from + row * stride, amx_tile_bytes(tile));
    }
}

static void amx_store(uint32_t tile, void *to, size_t stride)
{
    for (uint32_t row = 0; row < amx_tile_rows(tile); row++) {
        memcpy((uint8_t *)to + row * stride, amx_tiles[tile][row], amx_tile_bytes(tile));
    }
}

/* A tile of bf16 as floats. */
static void amx_floats(uint32_t tile, float out[AMX_ROWS][32])
{
    for (uint32_t row = 0; row < AMX_ROWS; row++) {
        for (uint32_t i = 0; i < 32; i++) {
            uint16_t element;

            memcpy(&element, &amx_tiles[tile][row][2 * i], sizeof(element));
            out[row][i] = f32_from_bf16(element);
        }
    }
}

static void amx_dot_bf16(uint32_t c, uint32_t a, uint32_t b)
{
    float x[AMX_ROWS][32];
    float w[AMX_ROWS][32];

    amx_floats(a, x);
    amx_floats(b, w);
    for (uint32_t i = 0; i < AMX_ROWS; i++) {
        for (uint32_t j = 0; j < 16; j++) {
            float even = 0;
            float odd = 0;
            float sum;

            for (uint32_t p = 0; p < 16; p++) {
                even = fmaf(x[i][2 * p], w[p][2 * j], even);
                odd = fmaf(x[i][2 * p + 1], w[p][2 * j + 1], odd);
            }
            memcpy(&sum, &amx_tiles[c][i][4 * j], sizeof(sum));
            sum += even + odd;
            memcpy(&amx_tiles[c][i][4 * j], &sum, sizeof(sum));
        }
    }
}

static UNUSED void amx_dot_signed(uint32_t c, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < AMX_ROWS; i++) {
        for (uint32_t j = 0; j < 16; j++) {
            int32_t sum;

            memcpy(&sum, &amx_tiles[c][i][4 * j], sizeof(sum));
            for (uint32_t p = 0; p < amx_bytes; p++) {
                sum += (int8_t)amx_tiles[a][i][p] * (int8_t)amx_tiles[b][p / 4][4 * j + p % 4];
            }
            memcpy(&amx_tiles[c][i][4 * j], &sum, sizeof(sum));
        }
    }
}

#define AMX_TILES_ARE_THERE

#elif (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)) || \
    (defined(__AMXTILE__) && defined(__AMXBF16__) && defined(__AMXINT8__)) /* clang up to 14 */

#include <immintrin.h>

static inline void amx_begin(uint32_t bytes)
{
    const uint16_t wide = (uint16_t)bytes;
    const uint8_t deep = (uint8_t)(bytes / 4);
    /* palette 1; bytes of a row and rows, for each tile */
    const struct {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, wide, wide, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, deep, deep},
    };

    /* gcc's intrinsic says that it reads eight bytes, and the rest is never written */
    __asm__ volatile("" ::"m"(config));
    _tile_loadconfig(&config);
}

static inline void amx_end(void)
{
    _tile_release();
}

/* The intrinsics do not say what memory they read: it must have been written before them. */
#define amx_zero(tile) _tile_zero(tile)
#define amx_load(tile, from, stride)             \
    do {                                         \
        __asm__ volatile("" ::: "memory");       \
        _tile_loadd(tile, from, (long)(stride)); \
    } while (0)
#define amx_store(tile, to, stride)             \
    do {                                        \
        _tile_stored(tile, to, (long)(stride)); \
        __asm__ volatile("" ::: "memory");      \
    } while (0)
#define amx_dot_bf16(c, a, b)   _tile_dpbf16ps(c, a, b)
#define amx_dot_signed(c, a, b) _tile_dpbssd(c, a, b)

#define AMX_TILES_ARE_THERE

#endif
