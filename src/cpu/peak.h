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

/* The same for integers of 8 bits, both signed, multiplied and summed in 32 bits (a product counts
 * as two operations), by what vectors of the level do that with. Narrower codes can be faster. */
double cpu_peak_int8_ops(enum cpu_level level, uint32_t ms);
