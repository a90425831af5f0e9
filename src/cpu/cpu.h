/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU back end: the operator table over a pool of threads and the kernels of the best
 * instruction set that this processor has and that has passed its start-up check.
 */
#pragma once

#include "cpu/kernels.h"
#include "ops/ops.h"

extern const struct ops cpu_ops;

/* Instruction set levels, ascending; each includes those before it. */
enum cpu_level { CPU_LEVEL_REF, CPU_LEVEL_AVX2, CPU_LEVEL_AVX512, CPU_LEVEL_COUNT };

const char *cpu_level_name(enum cpu_level level);

/* By name ("ref", "avx2", "avx512") or number; STATUS_INVALID lists the names. */
NODISCARD enum status cpu_level_parse(const char *text, enum cpu_level *ret_level, struct err *err);

/* The highest level the processor and the operating system support. */
enum cpu_level cpu_level_supported(void);

/* Fills the table for the highest level that is supported, at most `most`, and equal to the
 * reference in the start-up check (cpu/selfcheck.h); a level that differs is logged and left out.
 */
enum cpu_level cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_level most);

/* Cores this process may use: the smaller of its affinity and its cgroup's quota, at least 1. */
uint32_t cpu_cores_usable(void);
