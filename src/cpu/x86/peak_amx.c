/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/peak_priv.h"
#include "cpu/x86/amx.h"

#ifdef AMX_TILES_ARE_THERE

enum { TILES_OF_SUMS = 4, TILE_OUTPUTS = AMX_ROWS * 16 };

/* Two by two, as the products have it: what one sum waits for, the other three have time to do. */
double cpu_peak_bf16_amx(uint32_t n)
{
    amx_begin(AMX_ROW_BYTES);
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    amx_zero(4);
    amx_zero(5);
    amx_zero(6);
    amx_zero(7);
    for (uint32_t round = 0; round < n; round++) {
        amx_dot_bf16(0, 4, 6);
        amx_dot_bf16(1, 4, 7);
        amx_dot_bf16(2, 5, 6);
        amx_dot_bf16(3, 5, 7);
    }
    amx_end();
    return 2.0 * TILES_OF_SUMS * TILE_OUTPUTS * (AMX_ROW_BYTES / 2) * n;
}

double cpu_peak_int8_amx(uint32_t n)
{
    amx_begin(AMX_ROW_BYTES);
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    amx_zero(4);
    amx_zero(5);
    amx_zero(6);
    amx_zero(7);
    for (uint32_t round = 0; round < n; round++) {
        amx_dot_signed(0, 4, 6);
        amx_dot_signed(1, 4, 7);
        amx_dot_signed(2, 5, 6);
        amx_dot_signed(3, 5, 7);
    }
    amx_end();
    return 2.0 * TILES_OF_SUMS * TILE_OUTPUTS * AMX_ROW_BYTES * n;
}

#endif
