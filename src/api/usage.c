/* SPDX-License-Identifier: Apache-2.0 */
#include "api/usage.h"

void usage_write_openai(struct buf *out, const struct request_usage *usage)
{
    buf_printf(
        out,
        "{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
        "\"prompt_tokens_details\":{\"cached_tokens\":%llu},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":%llu}}",
        (unsigned long long)usage->prompt_tokens, (unsigned long long)usage->completion_tokens,
        (unsigned long long)(usage->prompt_tokens + usage->completion_tokens),
        (unsigned long long)usage->cached_tokens, (unsigned long long)usage->reasoning_tokens);
}
