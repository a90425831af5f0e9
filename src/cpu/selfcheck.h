/* SPDX-License-Identifier: Apache-2.0 */
/* The start-up check of canonical arithmetic. */
#pragma once

#include "cpu/kernels.h"

/* Computes 80 tiles (products of every type, norms, attention; denormals included) with both
 * tables. Returns the name of the first entry whose bits differ, NULL if none. Takes under 2 ms.
 * The caller has entered the canonical float environment. */
const char *cpu_selfcheck(const struct cpu_kernels *kernels, const struct cpu_kernels *ref);
