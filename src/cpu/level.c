/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels to use: levels, detection, the start-up check. */
#if defined(__x86_64__)
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/log.h"
#include "cpu/cpu.h"
#include "base/float_env.h"
#include "cpu/peak.h"
#include "cpu/selfcheck.h"

static const char *const names[CPU_LEVEL_COUNT] = {
    "ref", "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx", "neon", "neon-dot"};

#if defined(__x86_64__)
#define BUILT_NAMES "ref, avx2, avx-vnni, avx512, avx512-vnni, avx512-bf16, amx"
#else
#define BUILT_NAMES "ref, neon, neon-dot"
#endif

/* Whether there are kernels for the level in this program. */
static bool is_built(enum cpu_level level)
{
#if defined(__x86_64__)
    return level <= CPU_LEVEL_AMX;
#else
    return level == CPU_LEVEL_REF || level >= CPU_LEVEL_NEON;
#endif
}

const char *cpu_level_name(enum cpu_level level)
{
    return names[level];
}

enum status cpu_level_parse(const char *text, enum cpu_level *ret_level, struct err *err)
{
    for (unsigned i = 0; i < CPU_LEVEL_COUNT; i++) {
        bool fits =
            strcasecmp(text, names[i]) == 0 || (text[0] == (char)('0' + i) && text[1] == '\0');

        if (fits && is_built((enum cpu_level)i)) {
            *ret_level = (enum cpu_level)i;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_INVALID, "--cpu-mask: '%s' is none of " BUILT_NAMES, text);
}

#if defined(__x86_64__)

/* One bit of what the processor says of itself; for those that not every compiler's run-time
 * support knows by name. */
static bool has_bit(unsigned leaf, unsigned subleaf, unsigned reg, unsigned bit)
{
    unsigned found[4] = {0};

    return __get_cpuid_count(leaf, subleaf, &found[0], &found[1], &found[2], &found[3]) != 0 &&
           (found[reg] >> bit & 1) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && has_bit(1, 0, 2, 29) /* F16C */;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* Tile registers, and their products of BF16 and of bytes. */
static bool has_tiles(void)
{
    return has_bit(7, 0, 3, 24) && has_bit(7, 0, 3, 22) && has_bit(7, 0, 3, 25);
}

/* A process must ask before it uses tile registers; its threads may then, too. */
static bool may_use_tiles(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, asm/prctl.h */

    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool prefers_pairs;

static void measure_pairs(void)
{
    prefers_pairs = cpu_peak_prefers_pairs();
}

/* Products of BF16 pairs, where they gain anything. */
static bool has_fast_pairs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    if (!has_bit(7, 1, 0, 5)) {
        return false;
    }
    pthread_once(&once, measure_pairs);
    return prefers_pairs;
}

bool cpu_level_is_supported(enum cpu_level level)
{
    /* the compiler's run-time support checks that the operating system saves the registers */
    __builtin_cpu_init();
    switch (level) {
    case CPU_LEVEL_REF:
        return true;
    case CPU_LEVEL_AVX2:
        return has_avx2();
    case CPU_LEVEL_AVXVNNI:
        return has_avx2() && has_bit(7, 1, 0, 4);
    case CPU_LEVEL_AVX512:
        return has_avx512();
    case CPU_LEVEL_AVX512VNNI:
        return has_avx512() && __builtin_cpu_supports("avx512vnni");
    case CPU_LEVEL_AVX512BF16:
        return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx512vbmi") && has_fast_pairs();
    case CPU_LEVEL_AMX:
        return has_avx512() && __builtin_cpu_supports("avx512vnni") && has_tiles() &&
               may_use_tiles();
    default:
        return false;
    }
}

void cpu_kernels_add_level(struct cpu_kernels *kernels, enum cpu_level level)
{
    static void (*const inits[CPU_LEVEL_COUNT])(struct cpu_kernels *) = {
        [CPU_LEVEL_AVX2] = cpu_kernels_init_avx2,
        [CPU_LEVEL_AVXVNNI] = cpu_kernels_init_avxvnni,
        [CPU_LEVEL_AVX512] = cpu_kernels_init_avx512,
        [CPU_LEVEL_AVX512VNNI] = cpu_kernels_init_avx512vnni,
        [CPU_LEVEL_AVX512BF16] = cpu_kernels_init_avx512bf16,
        [CPU_LEVEL_AMX] = cpu_kernels_init_amx,
    };

    inits[level](kernels);
}

#else

bool cpu_level_is_supported(enum cpu_level level)
{
    unsigned long has = getauxval(AT_HWCAP);

    switch (level) {
    case CPU_LEVEL_REF:
        return true;
    case CPU_LEVEL_NEON:
        return (has & HWCAP_ASIMD) != 0;
    case CPU_LEVEL_NEONDOT:
        return (has & HWCAP_ASIMD) != 0 && (has & HWCAP_ASIMDDP) != 0;
    default:
        return false;
    }
}

void cpu_kernels_add_level(struct cpu_kernels *kernels, enum cpu_level level)
{
    if (level == CPU_LEVEL_NEON) {
        cpu_kernels_init_neon(kernels);
    } else {
        cpu_kernels_init_neondot(kernels);
    }
}

#endif

enum cpu_level cpu_level_supported(void)
{
    enum cpu_level level = CPU_LEVEL_COUNT - 1;

    while (!cpu_level_is_supported(level)) {
        level--;
    }
    return level;
}

/* Adds one level to the table if it gives the reference's bits. */
static bool add_level(struct cpu_kernels *kernels, const struct cpu_kernels *ref,
                      enum cpu_level level)
{
    struct cpu_kernels candidate = *kernels;
    const char *differs;

    cpu_kernels_add_level(&candidate, level);
    differs = cpu_selfcheck(&candidate, ref);
    if (differs != NULL) {
        log_warn("%s kernels are not used on this processor: %s differs from the reference",
                 candidate.level, differs);
        return false;
    }
    *kernels = candidate;
    return true;
}

static enum cpu_level add_levels(struct cpu_kernels *kernels, enum cpu_level most)
{
    const struct cpu_kernels ref = *kernels;
    enum cpu_level level = CPU_LEVEL_REF;

    for (enum cpu_level at = CPU_LEVEL_REF + 1; at <= most; at++) {
        if (cpu_level_is_supported(at) && add_level(kernels, &ref, at)) {
            level = at;
        }
    }
    return level;
}

enum cpu_level cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_level most)
{
    struct float_env fenv;
    enum cpu_level level;

    cpu_kernels_init_ref(kernels);
    float_env_enter(&fenv);
    level = add_levels(kernels, most);
    float_env_leave(&fenv);
    return level;
}
