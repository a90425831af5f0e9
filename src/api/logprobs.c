/* SPDX-License-Identifier: Apache-2.0 */
#include "api/logprobs.h"

#include <math.h>

void logprob_write(struct buf *out, float logprob)
{
    if (!(logprob > -INFINITY)) {
        buf_append_str(out, "-9999.0");
    } else {
        buf_printf(out, "%.9g", (double)logprob + 0.0); /* no -0 */
    }
}

static const char *bytes_of(const struct tokenizer *tokenizer, int32_t token, size_t *ret_n)
{
    const char *bytes = tokenizer_token_bytes(tokenizer, token, ret_n);

    if (bytes == NULL) {
        *ret_n = 0;
    }
    return bytes == NULL ? "" : bytes;
}

void logprob_write_token(struct buf *out, const struct tokenizer *tokenizer, int32_t token)
{
    size_t n;
    const char *bytes = bytes_of(tokenizer, token, &n);

    json_write_str(out, bytes, n, false);
}

void logprob_write_name(struct buf *out, const struct generation *g, int32_t token)
{
    if (g->tokens_as_ids) {
        buf_printf(out, "\"token_id:%d\"", token);
    } else {
        logprob_write_token(out, g->text->tokenizer, token);
    }
}

/* Up to its closing brace. */
static void write_one(struct buf *out, const struct generation *g, int32_t token, float logprob)
{
    size_t n;
    const char *bytes = bytes_of(g->text->tokenizer, token, &n);

    buf_append_str(out, "{\"token\":");
    logprob_write_name(out, g, token);
    buf_append_str(out, ",\"logprob\":");
    logprob_write(out, logprob);
    buf_append_str(out, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s%u", i > 0 ? "," : "", (unsigned)(unsigned char)bytes[i]);
    }
    buf_append_char(out, ']');
}

void logprobs_write_chat(struct buf *out, const struct generation *g,
                         const struct token_entry *entries, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct token_entry *e = &entries[i];

        buf_append(out, ",", i > 0);
        write_one(out, g, e->token, e->logprob);
        buf_append_str(out, ",\"top_logprobs\":[");
        for (uint32_t j = 0; j < e->n_tops; j++) {
            buf_append(out, ",", j > 0);
            write_one(out, g, (int32_t)e->tops[j].token, e->tops[j].logprob);
            buf_append_char(out, '}');
        }
        buf_append_str(out, "]}");
    }
}

/* rank 0: not known. */
static void write_ranked(struct buf *out, const struct generation *g, int32_t token, float logprob,
                         uint32_t rank)
{
    buf_printf(out, "\"%d\":{\"logprob\":", token);
    logprob_write(out, logprob);
    if (rank > 0) {
        buf_printf(out, ",\"rank\":%u", rank);
    } else {
        buf_append_str(out, ",\"rank\":null");
    }
    buf_append_str(out, ",\"decoded_token\":");
    logprob_write_token(out, g->text->tokenizer, token);
    buf_append_char(out, '}');
}

void logprobs_write_prompt(struct buf *out, const struct generation *g, uint32_t prompt)
{
    uint32_t n = 0;
    const struct token_entry *entries = generation_prompt_entries(g, prompt, &n);

    buf_append_str(out, "[null");
    for (uint32_t i = 0; i < n; i++) {
        const struct token_entry *e = &entries[i];
        bool among = false;

        buf_append_str(out, ",{");
        for (uint32_t j = 0; j < e->n_tops; j++) {
            buf_append(out, ",", j > 0);
            write_ranked(out, g, (int32_t)e->tops[j].token, e->tops[j].logprob, j + 1);
            among = among || (int32_t)e->tops[j].token == e->token;
        }
        if (!among) {
            buf_append(out, ",", e->n_tops > 0);
            write_ranked(out, g, e->token, e->logprob, 0);
        }
        buf_append_char(out, '}');
    }
    buf_append_char(out, ']');
}
