/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantising rows of plain weights at load (--quant), to records as GGUF files have them. A record
 * depends on its own elements alone, so that every cut of a matrix gives the same model.
 *
 *   Q8_0  d = max |x| / 127, rounded to f16; q = x / d to the nearest
 *   Q4_0  of a handful of scales near those that put the largest element on a code's end, the one
 *         with the least sum of squared errors, each after its least-squares correction
 *
 * Pure; any thread.
 */
#pragma once

#include "tensor/dtype.h"

/* Types that quantise_row makes. */
bool quantise_makes(enum dtype dtype);

/* n elements (a multiple of the type's group) of one row to records at out. False if an element is
 * not finite, or so large that its scale is no finite f16. */
NODISCARD bool quantise_row(enum dtype dtype, const float *x, uint32_t n, uint8_t *out);
