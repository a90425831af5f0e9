/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to ids. The nesting follows the header's order: raw text -> pieces between added tokens ->
 * normalised -> pieces between added tokens -> runs of valid UTF-8 -> words -> ids. Each level
 * hands a piece on as soon as it has one.
 */
#include "base/utf8.h"
#include "tokenizer/normalize.h"
#include "tokenizer/tokenizer_priv.h"

/* Steps of all patterns beyond what the text's size allows, for short texts. */
#define STEPS_BASE 1000000u

struct encoding {
    const struct tokenizer *tokenizer;
    struct token_ids *ids;
    bool skip_special;
    struct buf normalized;
    struct bpe_scratch bpe;
    struct pretok_run pretok;
};

/* True if the word has more tokens than there may be, whatever they are: then its merges need not
 * be computed, which for a text that is one word costs many times its size in memory. */
static bool is_beyond_limit(const struct encoding *e, size_t bytes)
{
    size_t room = e->ids->limit - MIN(e->ids->n, e->ids->limit);
    size_t longest = e->tokenizer->longest;

    return e->ids->limit != 0 && longest != 0 && bytes / longest > room;
}

/* A word of the pre-tokenizer. */
static enum status encode_word(void *data, const struct tokenizer_text *word)
{
    struct encoding *e = data;

    if (is_beyond_limit(e, word->size)) {
        e->ids->full = true;
        return STATUS_LIMIT;
    }
    return bpe_encode(&e->tokenizer->bpe, &e->tokenizer->vocab, word, &e->bpe, e->ids);
}

/* The length of the maximal run at text: of valid UTF-8, or of other bytes. */
static size_t run_length(const struct tokenizer_text *text, bool *ret_valid)
{
    size_t i = 0;

    *ret_valid = utf8_valid_prefix(text->data, text->size) > 0;
    while (i < text->size) {
        size_t n = utf8_valid_prefix(text->data + i, text->size - i);

        if ((n > 0) != *ret_valid) {
            break;
        }
        i += MAX(n, 1);
    }
    return i;
}

/* Normalised text without added tokens. */
static enum status encode_plain(struct encoding *e, const struct tokenizer_text *text)
{
    struct tokenizer_text rest = *text;
    enum status status = STATUS_OK;

    while (rest.size > 0 && status == STATUS_OK) {
        bool valid;
        struct tokenizer_text run = {rest.data, run_length(&rest, &valid)};

        status = valid ? pretok_split(&e->pretok, &run) : encode_word(e, &run);
        rest.data += run.size;
        rest.size -= run.size;
    }
    return status;
}

/* Raw text without the added tokens that are found in raw text. */
static enum status encode_raw(struct encoding *e, const struct tokenizer_text *text)
{
    struct added_scan scan = {&e->tokenizer->added_normalized, *text, e->skip_special};
    struct tokenizer_text piece;
    enum status status = STATUS_OK;
    int32_t id;

    if (e->tokenizer->nfc) {
        status = normalize_nfc(text, &e->normalized, &scan.text);
    }
    while (status == STATUS_OK) {
        bool found = added_next(&scan, &piece, &id);

        status = encode_plain(e, &piece);
        if (!found) {
            break;
        }
        if (status == STATUS_OK) {
            status = token_ids_push(e->ids, id);
        }
    }
    return status;
}

static enum status encode_text(struct encoding *e, const struct tokenizer_text *text)
{
    struct added_scan scan = {&e->tokenizer->added, *text, e->skip_special};
    struct tokenizer_text piece;
    enum status status = STATUS_OK;
    int32_t id;

    while (status == STATUS_OK) {
        bool found = added_next(&scan, &piece, &id);

        status = encode_raw(e, &piece);
        if (!found) {
            break;
        }
        if (status == STATUS_OK) {
            status = token_ids_push(e->ids, id);
        }
    }
    return status;
}

static enum status push_all(struct token_ids *ids, const struct token_ids *more)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < more->n && status == STATUS_OK; i++) {
        status = token_ids_push(ids, more->data[i]);
    }
    return status;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size,
                             unsigned flags, struct token_ids *ids, struct err *err)
{
    struct encoding e = {
        .tokenizer = tokenizer,
        .ids = ids,
        .skip_special = !(flags & TOKENIZER_PARSE_SPECIAL),
        .pretok = {.pretok = &tokenizer->pretok, .word = encode_word, .data = &e},
    };
    struct tokenizer_text whole = {text, size};
    enum status status = STATUS_OK;
    size_t n_before = ids->n;
    uint64_t per_byte = pretok_steps_per_byte(&tokenizer->pretok);

    e.pretok.regex.steps_left =
        STEPS_BASE + (per_byte > 0 ? MIN((uint64_t)size, UINT64_MAX / 2 / per_byte) * per_byte : 0);
    if (flags & TOKENIZER_ADD_SPECIAL) {
        status = push_all(ids, &tokenizer->prefix);
    }
    if (status == STATUS_OK) {
        status = encode_text(&e, &whole);
    }
    if (status == STATUS_OK && (flags & TOKENIZER_ADD_SPECIAL)) {
        status = push_all(ids, &tokenizer->suffix);
    }
    buf_release(&e.normalized);
    bpe_scratch_release(&e.bpe);
    pretok_run_release(&e.pretok);
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    ids->n = n_before;
    if (ids->full) {
        return err_set(err, status, "more than %zu tokens", ids->limit);
    }
    if (status == STATUS_LIMIT) {
        return err_set(err, status,
                       "pre_tokenizer: a pattern takes more steps or memory on this text of %zu "
                       "bytes than allowed",
                       size);
    }
    return err_set(err, status, "no memory to tokenize %zu bytes", size);
}
