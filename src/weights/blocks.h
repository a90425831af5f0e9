/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of quantised GGUF types taken apart: 32 codes at a time, as unsigned numbers of their
 * full width. The layouts are those of the GGUF format. Pure; any thread.
 */
#pragma once

#include "tensor/dtype.h"

/* Codes of elements [32 i, 32 i + 32) of a stored row of a quantised type (Q8_0: value + 128). */
void blocks_codes(enum dtype dtype, const uint8_t *row, size_t i, uint8_t codes[32]);
