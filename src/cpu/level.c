/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels to use: levels, detection, the start-up check. */
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/log.h"
#include "cpu/cpu.h"
#include "base/float_env.h"
#include "cpu/selfcheck.h"

static const char *const names[CPU_LEVEL_COUNT] = {"ref", "avx2", "avx512"};

const char *cpu_level_name(enum cpu_level level)
{
    return names[level];
}

enum status cpu_level_parse(const char *text, enum cpu_level *ret_level, struct err *err)
{
    for (unsigned i = 0; i < CPU_LEVEL_COUNT; i++) {
        if (strcasecmp(text, names[i]) == 0 || (text[0] == (char)('0' + i) && text[1] == '\0')) {
            *ret_level = (enum cpu_level)i;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_INVALID, "--cpu-mask: '%s' is none of ref, avx2, avx512", text);
}

#if defined(__x86_64__)

/* F16C, which not every compiler's run-time support knows by name: leaf 1, ECX bit 29. */
static bool has_f16c(void)
{
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;

    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & 1u << 29) != 0;
}

#endif

enum cpu_level cpu_level_supported(void)
{
#if defined(__x86_64__)
    /* the compiler's run-time support checks that the operating system saves the registers */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c() ||
        !__builtin_cpu_supports("bmi2")) {
        return CPU_LEVEL_REF;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
        return CPU_LEVEL_AVX2;
    }
    return CPU_LEVEL_AVX512;
#else
    return CPU_LEVEL_REF;
#endif
}

#if defined(__x86_64__)

/* Adds one level to the table if it gives the reference's bits. */
static bool add_level(struct cpu_kernels *kernels, const struct cpu_kernels *ref,
                      void (*init)(struct cpu_kernels *))
{
    struct cpu_kernels candidate = *kernels;
    const char *differs;

    init(&candidate);
    differs = cpu_selfcheck(&candidate, ref);
    if (differs != NULL) {
        log_warn("%s kernels are not used on this processor: %s differs from the reference",
                 candidate.level, differs);
        return false;
    }
    *kernels = candidate;
    return true;
}

static enum cpu_level add_levels(struct cpu_kernels *kernels, enum cpu_level limit)
{
    const struct cpu_kernels ref = *kernels;
    enum cpu_level level = CPU_LEVEL_REF;

    if (limit >= CPU_LEVEL_AVX2 && add_level(kernels, &ref, cpu_kernels_init_avx2)) {
        level = CPU_LEVEL_AVX2;
    }
    if (limit >= CPU_LEVEL_AVX512 && add_level(kernels, &ref, cpu_kernels_init_avx512)) {
        level = CPU_LEVEL_AVX512;
    }
    return level;
}

#else

/* Other processors have the reference alone so far. */
static enum cpu_level add_levels(struct cpu_kernels *kernels, enum cpu_level limit)
{
    (void)kernels;
    (void)limit;
    return CPU_LEVEL_REF;
}

#endif

enum cpu_level cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_level most)
{
    struct float_env fenv;
    enum cpu_level level;

    cpu_kernels_init_ref(kernels);
    float_env_enter(&fenv);
    level = add_levels(kernels, MIN(most, cpu_level_supported()));
    float_env_leave(&fenv);
    return level;
}
