/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer's parts put together, and questions to it. */
#include "tokenizer/tokenizer.h"

#include "base/mem.h"
#include "tokenizer/normalize.h"
#include "tokenizer/tokenizer_priv.h"

void token_ids_release(struct token_ids *ids)
{
    free(ids->data);
    *ids = (struct token_ids){0};
}

enum status token_ids_push(struct token_ids *ids, int32_t id)
{
    if (ids->limit != 0 && ids->n >= ids->limit) {
        ids->full = true;
        return STATUS_LIMIT;
    }
    if (ids->n == ids->cap) {
        size_t cap = MAX(ids->cap + ids->cap / 2, 64);
        int32_t *grown = reallocarray(ids->data, cap, sizeof(*grown));

        if (grown == NULL) {
            return STATUS_NO_MEMORY;
        }
        ids->data = grown;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
    return STATUS_OK;
}

struct tokenizer *tokenizer_new(void)
{
    struct tokenizer *tokenizer = xalloc(sizeof(*tokenizer));

    tokenizer->bos = tokenizer->eos = tokenizer->pad = -1;
    return tokenizer;
}

void tokenizer_destroy(struct tokenizer **tokenizer)
{
    struct tokenizer *t = *tokenizer;

    if (t == NULL) {
        return;
    }
    vocab_release(&t->vocab);
    bpe_release(&t->bpe);
    pretok_release(&t->pretok);
    added_release(&t->added);
    added_release(&t->added_normalized);
    token_ids_release(&t->prefix);
    token_ids_release(&t->suffix);
    free(t);
    *tokenizer = NULL;
}

enum status tokenizer_add_pattern(struct tokenizer *tokenizer, const char *pattern,
                                  bool add_prefix_space, struct err *err)
{
    struct pretok_stage stage = {.behavior = PRETOK_ISOLATED, .add_prefix_space = add_prefix_space};
    enum status status = regex_create(pattern, strlen(pattern), &stage.regex, err);

    return status == STATUS_OK ? pretok_add(&tokenizer->pretok, &stage, err) : status;
}

enum status tokenizer_add_added(struct tokenizer *tokenizer, const struct added_token *token,
                                bool normalized, struct err *err)
{
    struct tokenizer_text text = {token->text, token->size};
    struct added_token copy = *token;
    struct buf buf = {0};
    enum status status = STATUS_OK;

    if (!normalized) {
        return added_add(&tokenizer->added, token, err);
    }
    if (tokenizer->nfc) {
        status = normalize_nfc(&text, &buf, &text);
    }
    if (status != STATUS_OK) {
        return err_set(err, status, "no memory to normalise the text");
    }
    copy.text = (char *)text.data; /* copied there */
    copy.size = text.size;
    status = added_add(&tokenizer->added_normalized, &copy, err);
    buf_release(&buf);
    return status;
}

/* Of a word, a token stands for so many bytes at most; 0: there are bytes that get none. */
static size_t longest_token(const struct tokenizer *tokenizer)
{
    size_t longest = 0;

    for (size_t i = 0; i < ARRAY_LEN(tokenizer->bpe.byte_id); i++) {
        if (tokenizer->bpe.byte_id[i] < 0) {
            return 0;
        }
    }
    for (size_t i = 0; i < tokenizer->vocab.n_ids; i++) {
        const struct vocab_token *token = vocab_get(&tokenizer->vocab, (int32_t)i);

        longest = token == NULL ? longest : MAX(longest, (size_t)token->n_bytes);
    }
    return longest;
}

enum status tokenizer_finish(struct tokenizer *tokenizer, struct err *err)
{
    enum status status;

    tokenizer->longest = longest_token(tokenizer);
    status = added_finish(&tokenizer->added, err);

    return status == STATUS_OK ? added_finish(&tokenizer->added_normalized, err) : status;
}

size_t tokenizer_n_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.n_ids;
}

const char *tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *ret_size)
{
    const struct vocab_token *token = vocab_get(&tokenizer->vocab, id);

    if (token == NULL) {
        return NULL;
    }
    *ret_size = token->n_bytes;
    return token->bytes;
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id)
{
    const struct vocab_token *token = vocab_get(&tokenizer->vocab, id);

    return token != NULL && (token->flags & VOCAB_SPECIAL) != 0;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos;
}

int32_t tokenizer_pad(const struct tokenizer *tokenizer)
{
    return tokenizer->pad;
}

int32_t tokenizer_id_of(const struct tokenizer *tokenizer, const char *text, size_t size)
{
    return vocab_find(&tokenizer->vocab, text, size);
}
