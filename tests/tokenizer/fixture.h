/* SPDX-License-Identifier: Apache-2.0 */
/* A small tokenizer.json for the tests: all 256 byte tokens and whatever a test adds. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tokenizer/tokenizer_priv.h"

#define FIXTURE_BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"

/* What a test wants; NULL: the default. Tokens and merges are JSON members and items. */
struct fixture {
    const char *tokens;        /* "\"ab\":256" */
    const char *merges;        /* "[\"a\",\"b\"]" */
    const char *added;         /* "{\"id\":300,\"content\":\"<x>\"}" */
    const char *normalizer;    /* a JSON value, default null */
    const char *pre_tokenizer; /* default FIXTURE_BYTE_LEVEL */
    const char *model_rest;    /* ",\"ignore_merges\":true" */
    const char *root_rest;     /* ",\"post_processor\":..." */
};

/* Byte b has id b. */
static inline void fixture_write(const struct fixture *f, struct buf *out)
{
    struct vocab alphabet = {0};

    assert_int_equal(vocab_init(&alphabet, 1, 1, 1, NULL), STATUS_OK);
    buf_printf(out, "{\"normalizer\":%s,\"pre_tokenizer\":%s,\"added_tokens\":[%s]%s,",
               f->normalizer != NULL ? f->normalizer : "null",
               f->pre_tokenizer != NULL ? f->pre_tokenizer : FIXTURE_BYTE_LEVEL,
               f->added != NULL ? f->added : "", f->root_rest != NULL ? f->root_rest : "");
    buf_append_str(out, "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        char text[2];

        json_write_str(out, text, vocab_spell(&alphabet, &byte, 1, text), true);
        buf_printf(out, ":%d%s", b, b < 255 ? "," : "");
    }
    buf_printf(out, "%s%s},\"merges\":[%s]%s}}", f->tokens != NULL ? "," : "",
               f->tokens != NULL ? f->tokens : "", f->merges != NULL ? f->merges : "",
               f->model_rest != NULL ? f->model_rest : "");
    vocab_release(&alphabet);
}

/* From the text of a tokenizer.json. */
static inline enum status fixture_create_text(const char *text, size_t size,
                                              struct tokenizer **ret_tokenizer, struct err *err)
{
    json_t *root = NULL;
    enum status status = json_parse(text, size, &root, err);

    if (status == STATUS_OK) {
        status = tokenizer_create_hf(root, NULL, ret_tokenizer, err);
    }
    json_decref(root);
    return status;
}

/* Fails the test, with the error, if it cannot be made. */
static inline struct tokenizer *fixture_create(const struct fixture *f)
{
    struct tokenizer *tokenizer = NULL;
    struct buf text = {0};
    struct err err = {0};

    fixture_write(f, &text);
    if (fixture_create_text(text.data, text.len, &tokenizer, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    buf_release(&text);
    return tokenizer;
}

/* text is encoded to "1 2 3". */
static inline void fixture_expect(const struct tokenizer *tokenizer, const char *text, size_t size,
                                  unsigned flags, const char *expected)
{
    struct token_ids ids = {0};
    struct buf out = {0};
    struct err err = {0};

    if (tokenizer_encode(tokenizer, text, size, flags, &ids, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < ids.n; i++) {
        buf_printf(&out, i == 0 ? "%d" : " %d", ids.data[i]);
    }
    assert_string_equal(buf_str(&out), expected);
    buf_release(&out);
    token_ids_release(&ids);
}
