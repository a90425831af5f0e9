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
