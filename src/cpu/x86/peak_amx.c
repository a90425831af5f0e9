/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/peak_priv.h"
#include "cpu/x86/amx.h"

#ifdef AMX_TILES_ARE_THERE

static void begin(void)
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
}

/* Two by two, as the products have it: what one sum waits for, the other three have time to do. */
#define PEAK_AMX(dot, columns, n)                    \
    begin();                                         \
    for (uint32_t round = 0; round < (n); round++) { \
        dot(0, 4, 6);                                \
        dot(1, 4, 7);                                \
        dot(2, 5, 6);                                \
        dot(3, 5, 7);                                \
    }                                                \
    amx_end();                                       \
    return 2.0 * 4 * AMX_ROWS * 16 * (columns) * (n)

double cpu_peak_bf16_amx(uint32_t n)
{
    PEAK_AMX(amx_dot_bf16, AMX_ROW_BYTES / 2, n);
}

double cpu_peak_int8_amx(uint32_t n)
{
    PEAK_AMX(amx_dot_signed, AMX_ROW_BYTES, n);
}

#endif
