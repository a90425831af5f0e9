/* SPDX-License-Identifier: Apache-2.0 */
/* Ids to bytes, at once or one by one. */
#include "base/utf8.h"
#include "tokenizer/tokenizer_priv.h"

static void append_token(const struct vocab_token *token, unsigned flags, struct buf *text)
{
    if (!((flags & TOKENIZER_SKIP_SPECIAL) && (token->flags & VOCAB_SPECIAL))) {
        buf_append(text, token->bytes, token->n_bytes);
    }
}

enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n,
                             unsigned flags, struct buf *text, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (vocab_get(&tokenizer->vocab, ids[i]) == NULL) {
            return err_set(err, STATUS_INVALID, "id %d (at index %zu) has no token", ids[i], i);
        }
    }
    for (size_t i = 0; i < n; i++) {
        append_token(vocab_get(&tokenizer->vocab, ids[i]), flags, text);
    }
    return STATUS_OK;
}

void detok_init(struct detok *detok, const struct tokenizer *tokenizer, unsigned flags)
{
    *detok = (struct detok){.tokenizer = tokenizer, .flags = flags};
}

void detok_push(struct detok *detok, int32_t id, struct buf *text)
{
    const struct vocab_token *token = vocab_get(&detok->tokenizer->vocab, id);
    size_t start = text->len;
    size_t n_tail;

    if (token == NULL) {
        return;
    }
    buf_append(text, detok->tail, detok->n_tail);
    append_token(token, detok->flags, text);
    n_tail = utf8_incomplete_tail(buf_str(text) + start, text->len - start);
    memcpy(detok->tail, buf_str(text) + text->len - n_tail, n_tail);
    detok->n_tail = n_tail;
    if (n_tail > 0) {
        text->len -= n_tail;
        text->data[text->len] = '\0';
    }
}

void detok_flush(struct detok *detok, struct buf *text)
{
    buf_append(text, detok->tail, detok->n_tail);
    detok->n_tail = 0;
}
