/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_weights(data, size, WEIGHTS_FORMAT_GGUF);
}
