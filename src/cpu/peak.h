/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rate at which one core multiplies and adds from registers alone, at a given instruction set
 * level: the ceiling that products are measured against. For benchmarks and doctor; any thread.
 */
#pragma once

#include "cpu/cpu.h"

/* Runs for about ms milliseconds on the calling thread; floating-point operations a second (a fused
 * multiply-add counts as two). */
double cpu_peak_flops(enum cpu_level level, uint32_t ms);

/* The same for products of BF16 that are summed in f32, where a level has instructions for pairs of
 * them in vectors or tiles, else cpu_peak_flops. */
double cpu_peak_bf16_flops(enum cpu_level level, uint32_t ms);

/* Whether products of BF16 pairs, which the processor has, are faster than multiply-adds (on
 * Intel's they take twice as long for twice as many): measured in a tenth of a millisecond. x86-64
 * alone. */
bool cpu_peak_prefers_pairs(void);

/* The same for integers of 8 bits, both signed, multiplied and summed in 32 bits (a product counts
 * as two operations), by what vectors or tiles of the level do that with. Narrower codes can be
 * faster. */
double cpu_peak_int8_ops(enum cpu_level level, uint32_t ms);
