/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU back end: the operator table over a pool of threads and the kernels of the best
 * instruction set that this processor has and that has passed its start-up check.
 */
#pragma once

#include "cpu/kernels.h"
#include "ops/ops.h"

extern const struct ops cpu_ops;

/* Instruction set levels, ascending. Each takes over what it computes faster; a processor may lack
 * one in the middle (no AVX-512 processor before Granite Rapids has AVX-VNNI). Those of x86-64 are
 * not built for arm64, nor the other way round. */
enum cpu_level {
    CPU_LEVEL_REF,
    CPU_LEVEL_AVX2,
    CPU_LEVEL_AVXVNNI,
    CPU_LEVEL_AVX512,
    CPU_LEVEL_AVX512VNNI,
    CPU_LEVEL_AVX512BF16,
    CPU_LEVEL_AMX,
    CPU_LEVEL_NEON,
    CPU_LEVEL_NEONDOT,
    CPU_LEVEL_COUNT
};

/* "ref"; "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx";
 * "neon", "neon-dot" */
const char *cpu_level_name(enum cpu_level level);

/* By name or number, of those built for this kind of processor; STATUS_INVALID lists the names. */
NODISCARD enum status cpu_level_parse(const char *text, enum cpu_level *ret_level, struct err *err);

/* Whether the processor and the operating system support a level and what it builds on. */
bool cpu_level_is_supported(enum cpu_level level);

/* The highest that is supported. */
enum cpu_level cpu_level_supported(void);

/* Overrides in the table what one level computes faster; the level is supported and not REF. */
void cpu_kernels_add_level(struct cpu_kernels *kernels, enum cpu_level level);

/* Fills the table for the highest level that is supported, at most `most`, and equal to the
 * reference in the start-up check (cpu/selfcheck.h); a level that differs is logged and left out.
 */
enum cpu_level cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_level most);

/* Cores this process may use: the smaller of its affinity and its cgroup's quota, at least 1. */
uint32_t cpu_cores_usable(void);
