/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/peak.h"

#include <math.h>

#include "base/clock.h"
#include "cpu/peak_priv.h"

static double ref_loop(uint32_t n)
{
    float a = 1.0f;

    for (uint32_t i = 0; i < n; i++) {
        a = fmaf(a, 0.5f, 0.5f);
        __asm__ volatile("" : "+m"(a));
    }
    return 2.0 * n;
}

double cpu_peak_flops(enum cpu_level level, uint32_t ms)
{
    double (*loop)(uint32_t) = ref_loop;
    uint64_t start;
    uint64_t end;
    double flops = 0;

#if defined(__x86_64__)
    loop = level >= CPU_LEVEL_AVX512 ? cpu_peak_avx512
           : level >= CPU_LEVEL_AVX2 ? cpu_peak_avx2
                                     : loop;
#else
    loop = level >= CPU_LEVEL_NEON ? cpu_peak_neon : loop;
#endif
    loop(10000); /* wakes the vector units up */
    start = clock_ns();
    do {
        flops += loop(10000);
        end = clock_ns();
    } while (end - start < ms * 1000000ull);
    return flops / ((double)(end - start) * 1e-9);
}
