/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding, decoding and the streaming decoder. Equality with the reference library is pytest's. */
#include "fixture.h"

#include "base/mem.h"
#include "base/utf8.h"

#define TEXT(s) s, sizeof(s) - 1

static void test_merges(void **state)
{
    static const char *const spellings[] = {
        "[\"a\",\"b\"],[\"c\",\"d\"],[\"ab\",\"cd\"],[\"b\",\"c\"]",
        "\"#version: 0.2\",\"a b\",\"c d\",\"ab cd\",\"b c\"",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        struct fixture f = {.tokens = "\"ab\":256,\"cd\":257,\"abcd\":258,\"bc\":259",
                            .merges = spellings[i]};
        struct tokenizer *tokenizer = fixture_create(&f);

        fixture_expect(tokenizer, TEXT(""), 0, "");
        fixture_expect(tokenizer, TEXT("abcd"), 0, "258");
        fixture_expect(tokenizer, TEXT("abc"), 0, "256 99"); /* the lower rank first */
        fixture_expect(tokenizer, TEXT("xbcd"), 0, "120 98 257");
        fixture_expect(tokenizer, TEXT("ab cd"), 0, "256 32 257"); /* not across words */
        tokenizer_destroy(&tokenizer);
        assert_null(tokenizer);
    }
}

static void test_leftmost_of_equals(void **state)
{
    struct fixture f = {.tokens = "\"aa\":256", .merges = "[\"a\",\"a\"]"};
    struct tokenizer *tokenizer = fixture_create(&f);

    (void)state;
    fixture_expect(tokenizer, TEXT("aaaaa"), 0, "256 256 97");
    tokenizer_destroy(&tokenizer);
}

static void test_ignore_merges(void **state)
{
    struct fixture f = {.tokens = "\"abc\":256", .model_rest = ",\"ignore_merges\":true"};
    struct tokenizer *tokenizer = fixture_create(&f);

    (void)state;
    fixture_expect(tokenizer, TEXT("abc abcd"), 0, "256 32 97 98 99 100");
    tokenizer_destroy(&tokenizer);
    f.model_rest = NULL;
    tokenizer = fixture_create(&f);
    fixture_expect(tokenizer, TEXT("abc"), 0, "97 98 99");
    tokenizer_destroy(&tokenizer);
}

static void test_added_tokens(void **state)
{
    struct fixture f = {
        .added = "{\"id\":256,\"content\":\"<s>\",\"special\":true},"
                 "{\"id\":257,\"content\":\"<think>\",\"special\":false,\"normalized\":false},"
                 "{\"id\":258,\"content\":\"<thi\",\"special\":false},"
                 "{\"id\":97,\"content\":\"a\",\"special\":false,\"single_word\":true}",
    };
    struct tokenizer *tokenizer = fixture_create(&f);

    (void)state;
    fixture_expect(tokenizer, TEXT("x<s><think>"), TOKENIZER_PARSE_SPECIAL, "120 256 257");
    fixture_expect(tokenizer, TEXT("<s><think>"), 0, "60 115 62 257");
    fixture_expect(tokenizer, TEXT("<thin"), TOKENIZER_PARSE_SPECIAL, "258 110");
    assert_true(tokenizer_is_special(tokenizer, 256));
    assert_false(tokenizer_is_special(tokenizer, 257));
    assert_false(tokenizer_is_special(tokenizer, 99999));
    assert_int_equal(tokenizer_id_of(tokenizer, TEXT("<think>")), 257);
    assert_int_equal(tokenizer_id_of(tokenizer, TEXT("<nothing>")), -1);
    assert_int_equal(tokenizer_n_vocab(tokenizer), 259);
    tokenizer_destroy(&tokenizer);
}

static void test_template(void **state)
{
    struct fixture f = {
        .added = "{\"id\":256,\"content\":\"<s>\",\"special\":true},"
                 "{\"id\":257,\"content\":\"</s>\",\"special\":true}",
        .root_rest =
            ",\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
            "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
            "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}}],"
            "\"special_tokens\":{\"<s>\":{\"ids\":[256]},\"</s>\":{\"ids\":[257,257]}}}]}",
    };
    struct tokenizer *tokenizer = fixture_create(&f);

    (void)state;
    fixture_expect(tokenizer, TEXT("b"), TOKENIZER_ADD_SPECIAL, "256 98 257 257");
    fixture_expect(tokenizer, TEXT("b"), 0, "98");
    tokenizer_destroy(&tokenizer);
}

static void test_config(void **state)
{
    static const char config[] = "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\"},"
                                 "\"eos_token\":\"</s>\",\"pad_token\":null}";
    struct fixture f = {.added = "{\"id\":256,\"content\":\"<s>\",\"special\":true},"
                                 "{\"id\":300,\"content\":\"</s>\",\"special\":true}"};
    struct tokenizer *tokenizer = NULL;
    struct buf text = {0};
    struct err err = {0};
    json_t *root = NULL;
    json_t *value = NULL;

    (void)state;
    fixture_write(&f, &text);
    assert_int_equal(json_parse(text.data, text.len, &root, &err), STATUS_OK);
    assert_int_equal(json_parse(config, strlen(config), &value, &err), STATUS_OK);
    assert_int_equal(tokenizer_create_hf(root, value, &tokenizer, &err), STATUS_OK);
    assert_int_equal(tokenizer_bos(tokenizer), 256);
    assert_int_equal(tokenizer_eos(tokenizer), 300);
    assert_int_equal(tokenizer_pad(tokenizer), -1);
    fixture_expect(tokenizer, TEXT("b"), TOKENIZER_ADD_SPECIAL, "256 98");
    tokenizer_destroy(&tokenizer);
    json_decref(root);
    json_decref(value);
    buf_release(&text);
}

/* The ids put together give the text back. */
static void expect_round_trip(const struct tokenizer *tokenizer, const char *text, size_t size,
                              const char *expected, size_t expected_size)
{
    struct token_ids ids = {0};
    struct buf out = {0};
    struct err err = {0};

    assert_int_equal(tokenizer_encode(tokenizer, text, size, 0, &ids, &err), STATUS_OK);
    assert_int_equal(tokenizer_decode(tokenizer, ids.data, ids.n, 0, &out, &err), STATUS_OK);
    assert_int_equal(out.len, expected_size);
    assert_memory_equal(buf_str(&out), expected, expected_size);
    token_ids_release(&ids);
    buf_release(&out);
}

static void test_invalid_utf8(void **state)
{
    struct fixture f = {
        .normalizer = "{\"type\":\"NFC\"}", .tokens = "\"ab\":256", .merges = "\"a b\""};
    struct tokenizer *tokenizer = fixture_create(&f);
    unsigned seed = 1;

    (void)state;
    expect_round_trip(tokenizer,
                      TEXT("e\xcc\x81\xff"
                           "e\xcc\x81"),
                      TEXT("\xc3\xa9\xff\xc3\xa9"));
    expect_round_trip(tokenizer, TEXT("e\xff\xcc\x81"), TEXT("e\xff\xcc\x81"));
    expect_round_trip(tokenizer, TEXT("\xf0\x9f\x98"), TEXT("\xf0\x9f\x98"));
    expect_round_trip(tokenizer, TEXT("a\0b"), TEXT("a\0b"));
    for (int round = 0; round < 2000; round++) {
        char text[24];

        for (size_t i = 0; i < sizeof(text); i++) {
            seed = seed * 1103515245u + 12345u;
            text[i] = (char)(0x80 + (seed >> 16) % 0x80); /* seldom a sequence, never composable */
        }
        if (!utf8_is_valid(text, sizeof(text))) {
            struct token_ids ids = {0};
            struct buf out = {0};

            assert_int_equal(tokenizer_encode(tokenizer, text, sizeof(text), 0, &ids, NULL),
                             STATUS_OK);
            assert_int_equal(tokenizer_decode(tokenizer, ids.data, ids.n, 0, &out, NULL),
                             STATUS_OK);
            assert_int_equal(ids.n, out.len);
            buf_release(&out);
            token_ids_release(&ids);
        }
    }
    tokenizer_destroy(&tokenizer);
}

static void test_decode(void **state)
{
    struct fixture f = {.added = "{\"id\":260,\"content\":\"<s>\",\"special\":true},"
                                 "{\"id\":261,\"content\":\"<t>\",\"special\":false}"};
    struct tokenizer *tokenizer = fixture_create(&f);
    const int32_t ids[] = {97, 260, 261, 98};
    const int32_t bad[] = {97, 258};
    struct buf out = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(tokenizer_decode(tokenizer, ids, 4, 0, &out, &err), STATUS_OK);
    assert_string_equal(out.data, "a<s><t>b");
    buf_clear(&out);
    assert_int_equal(tokenizer_decode(tokenizer, ids, 4, TOKENIZER_SKIP_SPECIAL, &out, &err),
                     STATUS_OK);
    assert_string_equal(out.data, "a<t>b");
    assert_int_equal(tokenizer_decode(tokenizer, bad, 2, 0, &out, &err), STATUS_INVALID);
    assert_string_equal(err.text, "id 258 (at index 1) has no token");
    assert_string_equal(out.data, "a<t>b");
    assert_int_equal(tokenizer_decode(tokenizer, (const int32_t[]){-1}, 1, 0, &out, &err),
                     STATUS_INVALID);
    assert_int_equal(tokenizer_decode(tokenizer, (const int32_t[]){INT32_MAX}, 1, 0, &out, &err),
                     STATUS_INVALID);
    buf_release(&out);
    tokenizer_destroy(&tokenizer);
}

/* Every cut of a text into two tokens and every cut into single bytes gives whole sequences only.
 */
static void test_stream_never_splits(void **state)
{
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z";
    struct fixture f = {0};
    struct tokenizer *tokenizer = fixture_create(&f);
    size_t size = sizeof(text) - 1;

    (void)state;
    for (size_t from = 0; from < size; from++) { /* also texts that begin inside a sequence */
        struct detok detok;
        struct buf out = {0};

        detok_init(&detok, tokenizer, 0);
        for (size_t i = from; i < size; i++) {
            size_t before = out.len;

            detok_push(&detok, (unsigned char)text[i], &out);
            assert_int_equal(utf8_incomplete_tail(buf_str(&out) + before, out.len - before), 0);
            detok_push(&detok, 99999, &out); /* no token: no text */
        }
        detok_flush(&detok, &out);
        assert_int_equal(out.len, size - from);
        assert_memory_equal(out.data, text + from, size - from);
        buf_release(&out);
    }
    tokenizer_destroy(&tokenizer);
}

static void test_stream_of_broken_text(void **state)
{
    struct fixture f = {0};
    struct tokenizer *tokenizer = fixture_create(&f);
    struct detok detok;
    struct buf out = {0};

    (void)state;
    detok_init(&detok, tokenizer, 0);
    detok_push(&detok, 0xe4, &out);
    detok_push(&detok, 0xb8, &out);
    assert_int_equal(out.len, 0);
    detok_push(&detok, 'x', &out); /* it was none */
    assert_string_equal(out.data, "\xe4\xb8x");
    detok_push(&detok, 0xf0, &out);
    assert_int_equal(out.len, 3);
    detok_flush(&detok, &out);
    assert_string_equal(out.data, "\xe4\xb8x\xf0");
    detok_flush(&detok, &out);
    assert_int_equal(out.len, 4);
    buf_release(&out);
    tokenizer_destroy(&tokenizer);
}

/* As the definition says: the lowest rank, then the leftmost, one at a time. */
static size_t merge_naive(const struct bpe *bpe, const struct vocab *vocab, int32_t *ids, size_t n)
{
    for (;;) {
        size_t best = n;
        uint32_t best_rank = UINT32_MAX;
        int32_t merged = -1;

        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t slot = 0; slot <= bpe->mask; slot++) {
                const struct bpe_merge *merge = &bpe->merges[slot];

                if (merge->pair == ((uint64_t)ids[i] << 32 | (uint32_t)ids[i + 1]) &&
                    merge->rank < best_rank) {
                    best = i;
                    best_rank = merge->rank;
                    merged = merge->id;
                }
            }
        }
        if (best == n) {
            return n;
        }
        assert_true(merged >= 0 && (size_t)merged < vocab->n_ids);
        ids[best] = merged;
        memmove(&ids[best + 1], &ids[best + 2], (n - best - 2) * sizeof(*ids));
        n--;
    }
}

static void test_words_of_every_length(void **state)
{
    struct fixture f = {
        .tokens = "\"ab\":256,\"ba\":257,\"aba\":258,\"abab\":259,\"bb\":260,\"aab\":261",
        .merges = "\"b b\",\"a b\",\"ab ab\",\"b a\",\"a ab\",\"ab a\"",
        .pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
    };
    struct tokenizer *tokenizer = fixture_create(&f);
    struct bpe_scratch scratch = {0};
    unsigned seed = 5;

    (void)state;
    for (size_t size = 0; size < 200; size++) {
        char text[200];
        int32_t naive[200];
        struct token_ids ids = {0};
        struct tokenizer_text word = {text, size};
        size_t n;

        for (size_t i = 0; i < size; i++) {
            seed = seed * 1103515245u + 12345u;
            text[i] = (seed >> 16) % 3 == 0 ? 'b' : 'a';
            naive[i] = text[i];
        }
        n = merge_naive(&tokenizer->bpe, &tokenizer->vocab, naive, size);
        assert_int_equal(bpe_encode(&tokenizer->bpe, &tokenizer->vocab, &word, &scratch, &ids),
                         STATUS_OK);
        assert_int_equal(ids.n, n);
        assert_memory_equal(ids.data != NULL ? ids.data : naive, naive, n * sizeof(*naive));
        token_ids_release(&ids);
    }
    bpe_scratch_release(&scratch);
    tokenizer_destroy(&tokenizer);
}

/* As many ids as there may be, and no more; a word that cannot but be too many is not even tried.
 */
static void test_limit(void **state)
{
    const struct fixture f = {.tokens = "\"aaaa\":256",
                              .added = "{\"id\":300,\"content\":\"<x>\"}"};
    struct tokenizer *tokenizer = fixture_create(&f);
    char text[64];

    (void)state;
    memset(text, 'b', sizeof(text));
    assert_int_equal(tokenizer->longest, 4);
    for (size_t n = 1; n <= sizeof(text); n++) {
        struct token_ids ids = {.limit = 9};
        struct err err = {0};
        enum status status = tokenizer_encode(tokenizer, text, n, 0, &ids, &err);

        assert_int_equal(status, n <= 9 ? STATUS_OK : STATUS_LIMIT);
        assert_int_equal(ids.full, n > 9);
        assert_int_equal(ids.n, n <= 9 ? n : 0);
        assert_true(n <= 9 || strcmp(err.text, "more than 9 tokens") == 0);
        assert_true(n < 40 || ids.cap == 0); /* 9 tokens have 36 bytes at most, and some to spare */
        token_ids_release(&ids);
    }
    tokenizer_destroy(&tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_leftmost_of_equals),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_stream_never_splits),
        cmocka_unit_test(test_stream_of_broken_text),
        cmocka_unit_test(test_words_of_every_length),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
