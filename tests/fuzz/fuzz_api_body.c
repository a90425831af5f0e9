/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of requests, as a worker takes them apart: each ends in a request that keeps the rules or
 * in an error of the client's. The first byte names the endpoint. */
#include "../api/body_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    char letter;
    const struct endpoint *endpoint;
} endpoints[] = {
    {'c', &endpoint_chat},           {'p', &endpoint_completions},
    {'r', &endpoint_responses},      {'R', &endpoint_responses_count},
    {'m', &endpoint_messages},       {'M', &endpoint_messages_count},
    {'t', &endpoint_tokenize},       {'d', &endpoint_detokenize},
    {'a', &endpoint_apply_template},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig rig;

    if (rig.api == NULL) {
        rig_init(&rig);
    }
    for (size_t i = 0; i < ARRAY_LEN(endpoints) && size > 0; i++) {
        if (endpoints[i].letter == (char)data[0]) {
            (void)rig_run(&rig, endpoints[i].endpoint, (const char *)data + 1, size - 1, NULL);
        }
    }
    return 0;
}
