/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a tokenizer.json; if one comes of it, some texts through it and back. */
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode_and_decode(const struct tokenizer *tokenizer, const char *text, size_t size)
{
    struct token_ids ids = {0};
    struct detok detok;
    struct buf whole = {0};
    struct buf parts = {0};
    struct err err = {0};

    if (tokenizer_encode(tokenizer, text, size, TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL,
                         &ids, &err) != STATUS_OK) {
        ENSURE(ids.n == 0 && err.text[0] != '\0');
    }
    ENSURE(tokenizer_decode(tokenizer, ids.data, ids.n, 0, &whole, &err) == STATUS_OK);
    detok_init(&detok, tokenizer, 0);
    for (size_t i = 0; i < ids.n; i++) {
        detok_push(&detok, ids.data[i], &parts);
    }
    detok_flush(&detok, &parts);
    ENSURE(parts.len == whole.len && memcmp(buf_str(&parts), buf_str(&whole), whole.len) == 0);
    buf_release(&whole);
    buf_release(&parts);
    token_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "Hello world's  <|x|> 12345\r\n\tabcabcabc e\u0301 \u4e2d\xff\xc3 aaaaaaaaaa";
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};
    json_t *root = NULL;

    if (json_parse((const char *)data, size, &root, &err) == STATUS_OK &&
        tokenizer_create_hf(root, root, &tokenizer, &err) == STATUS_OK) {
        encode_and_decode(tokenizer, text, sizeof(text)); /* with its zero byte */
        encode_and_decode(tokenizer, (const char *)data, MIN(size, 2000));
    }
    ENSURE(tokenizer != NULL || err.text[0] != '\0');
    tokenizer_destroy(&tokenizer);
    json_decref(root);
    return 0;
}
