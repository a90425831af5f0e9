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

static double ref_int8_loop(uint32_t n)
{
    int32_t a = 0;
    int8_t b = 3;

    for (uint32_t i = 0; i < n; i++) {
        a += b * (int8_t)i;
        __asm__ volatile("" : "+m"(a), "+m"(b));
    }
    return 2.0 * n;
}

/* The loop's operations a second, over about ms milliseconds. */
static double rate(double (*loop)(uint32_t), uint32_t ms)
{
    double operations = 0;
    uint64_t start;
    uint64_t end;

    loop(10000); /* wakes the vector units up */
    start = clock_ns();
    do {
        operations += loop(10000);
        end = clock_ns();
    } while (end - start < ms * 1000000ull);
    return operations / ((double)(end - start) * 1e-9);
}

#if defined(__x86_64__)

/* Whether the level is that of tiles, for which a process must have asked: it is the ranks' level,
 * and this may be another process. */
static bool takes_tiles(enum cpu_level level)
{
    return level == CPU_LEVEL_AMX && cpu_level_is_supported(level);
}

#endif

double cpu_peak_flops(enum cpu_level level, uint32_t ms)
{
    double (*loop)(uint32_t) = ref_loop;

#if defined(__x86_64__)
    loop = level >= CPU_LEVEL_AVX512 ? cpu_peak_avx512
           : level >= CPU_LEVEL_AVX2 ? cpu_peak_avx2
                                     : loop;
#else
    loop = level >= CPU_LEVEL_NEON ? cpu_peak_neon : loop;
#endif
    return rate(loop, ms);
}

double cpu_peak_bf16_flops(enum cpu_level level, uint32_t ms)
{
#if defined(__x86_64__)
    if (level == CPU_LEVEL_AVX512BF16) {
        return rate(cpu_peak_avx512bf16, ms);
    }
    if (takes_tiles(level)) {
        return rate(cpu_peak_bf16_amx, ms);
    }
#endif
    return cpu_peak_flops(level, ms);
}

#if defined(__x86_64__)

bool cpu_peak_prefers_pairs(void)
{
    double (*const loops[2])(uint32_t) = {cpu_peak_avx512, cpu_peak_avx512bf16};
    double best[2] = {0, 0};

    cpu_peak_avx512(2000); /* wakes the vector units up */
    for (int turn = 0; turn < 16; turn++) {
        uint64_t start = clock_ns();
        double operations = loops[turn % 2](400);
        uint64_t ns = clock_ns() - start;

        best[turn % 2] = MAX(best[turn % 2], operations / (double)MAX(ns, 1));
    }
    return best[1] > 1.2 * best[0];
}

#endif

double cpu_peak_int8_ops(enum cpu_level level, uint32_t ms)
{
    double (*loop)(uint32_t) = ref_int8_loop;

#if defined(__x86_64__)
    switch (level) {
    case CPU_LEVEL_AMX:
        loop = takes_tiles(level) ? cpu_peak_int8_amx : cpu_peak_int8_avx512vnni;
        break;
    case CPU_LEVEL_AVX512VNNI:
    case CPU_LEVEL_AVX512BF16:
        loop = cpu_peak_int8_avx512vnni;
        break;
    case CPU_LEVEL_AVXVNNI:
        loop = cpu_peak_int8_avxvnni;
        break;
    case CPU_LEVEL_AVX512: /* its integers are those of AVX2 */
    case CPU_LEVEL_AVX2:
        loop = cpu_peak_int8_avx2;
        break;
    default:
        break;
    }
#else
    loop = level >= CPU_LEVEL_NEONDOT ? cpu_peak_int8_neondot
           : level >= CPU_LEVEL_NEON  ? cpu_peak_int8_neon
                                      : loop;
#endif
    return rate(loop, ms);
}
