/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer.json or GGUF metadata can have wrong: an error that names the field each time.
 */
#include "fixture.h"

#define CORE "\"pre_tokenizer\":" FIXTURE_BYTE_LEVEL

static void expect_error(const char *text, size_t size, enum status status, const char *message)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};
    enum status got = fixture_create_text(text, size, &tokenizer, &err);

    assert_null(tokenizer);
    if (strcmp(err.text, message) != 0) {
        fail_msg("got: %s\nnot: %s", err.text, message);
    }
    assert_int_equal(got, status);
}

static void test_whole_files(void **state)
{
    static const struct {
        const char *text;
        enum status status;
        const char *message;
    } cases[] = {
        {"[]", STATUS_INVALID, "must be an object"},
        {"{}", STATUS_UNSUPPORTED,
         "pre_tokenizer: without ByteLevel (only byte-level BPE is supported)"},
        {"{" CORE "}", STATUS_INVALID, "model: must be an object"},
        {"{" CORE ",\"model\":{\"type\":\"WordPiece\"}}", STATUS_UNSUPPORTED,
         "model: type \"WordPiece\" is not supported"},
        {"{" CORE ",\"model\":{\"type\":7}}", STATUS_INVALID, "model: type: must be a string"},
        {"{" CORE ",\"model\":{\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: must be an object that is not empty"},
        {"{" CORE ",\"model\":{\"vocab\":{},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: must be an object that is not empty"},
        {"{" CORE ",\"model\":{\"vocab\":[\"a\"],\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: must be an object that is not empty"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":0}}}", STATUS_INVALID,
         "model.merges: must be an array"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: id 0 is given to \"a\" and to \"b\""},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: \"a\": the id must be an integer from 0 to 4194303"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":2147483648},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: \"a\": the id must be an integer from 0 to 4194303"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":4194304},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: \"a\": the id must be an integer from 0 to 4194303"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":9223372036854775807},\"merges\":[]}}",
         STATUS_INVALID, "model.vocab: \"a\": the id must be an integer from 0 to 4194303"},
        {"{" CORE ",\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", STATUS_INVALID,
         "model.vocab: \"a\": the id must be an integer from 0 to 4194303"},
        {"{" CORE ",\"added_tokens\":{}}", STATUS_INVALID, "added_tokens: must be an array"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect_error(cases[i].text, strlen(cases[i].text), cases[i].status, cases[i].message);
    }
}

static void expect_fixture_error(const struct fixture *f, enum status status, const char *message)
{
    struct buf text = {0};

    fixture_write(f, &text);
    expect_error(text.data, text.len, status, message);
    buf_release(&text);
}

static const struct {
    struct fixture fixture;
    enum status status;
    const char *message;
} broken_parts[] = {
    {{.merges = "\"a zz\""}, STATUS_INVALID, "model.merges[0]: \"zz\" is not in the vocabulary"},
    {{.merges = "\"a b\""}, STATUS_INVALID, "model.merges[0]: \"ab\" is not in the vocabulary"},
    {{.merges = "\"a b c\""},
     STATUS_INVALID,
     "model.merges[0]: must be \"left right\" or [\"left\", \"right\"]"},
    {{.merges = "[\"a\"]"},
     STATUS_INVALID,
     "model.merges[0]: must be \"left right\" or [\"left\", \"right\"]"},
    {{.merges = "7"},
     STATUS_INVALID,
     "model.merges[0]: must be \"left right\" or [\"left\", \"right\"]"},
    {{.added = "{\"id\":300}"}, STATUS_INVALID, "added_tokens[0].content: must be a string"},
    {{.added = "{\"content\":\"x\"}"},
     STATUS_INVALID,
     "added_tokens[0].id: must be an integer from 0 to 4194303"},
    {{.added = "{\"id\":3000000000,\"content\":\"x\"}"},
     STATUS_INVALID,
     "added_tokens[0].id: must be an integer from 0 to 4194303"},
    {{.added = "{\"id\":97,\"content\":\"<x>\"}"},
     STATUS_INVALID,
     "added_tokens[0]: id 97 is given to \"a\" and to \"<x>\""},
    {{.added = "{\"id\":300,\"content\":\"a\"}"},
     STATUS_INVALID,
     "added_tokens[0]: \"a\" has the ids 97 and 300"},
    {{.added = "{\"id\":300,\"content\":\"<x>\"},{\"id\":301,\"content\":\"<x>\"}"},
     STATUS_INVALID,
     "added_tokens[1]: \"<x>\" has the ids 300 and 301"},
    {{.added = "{\"id\":300,\"content\":\"<x>\",\"lstrip\":1}"},
     STATUS_INVALID,
     "added_tokens[0]: lstrip: must be true or false"},
    {{.normalizer = "{\"type\":\"NFKC\"}"},
     STATUS_UNSUPPORTED,
     "normalizer: type \"NFKC\" is not supported"},
    {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
                    "{\"type\":\"Lowercase\"}]}"},
     STATUS_UNSUPPORTED,
     "normalizer: normalizers[1]: type \"Lowercase\" is not supported"},
    {{.normalizer = "7"}, STATUS_INVALID, "normalizer: must be an object with a type"},
    {{.pre_tokenizer = "{\"type\":\"Metaspace\"}"},
     STATUS_UNSUPPORTED,
     "pre_tokenizer: type \"Metaspace\" is not supported"},
    {{.pre_tokenizer = "{\"type\":\"Sequence\"}"},
     STATUS_INVALID,
     "pre_tokenizer: pretokenizers: must be an array"},
    {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" FIXTURE_BYTE_LEVEL
                       ",{\"type\":\"Digits\"}]}"},
     STATUS_UNSUPPORTED,
     "pre_tokenizer: pretokenizers[1]: \"Digits\" after ByteLevel is not supported"},
    {{.pre_tokenizer = "{\"type\":\"Split\",\"behavior\":\"Shuffled\"}"},
     STATUS_UNSUPPORTED,
     "pre_tokenizer: Split: behavior: \"Shuffled\" is not supported"},
    {{.pre_tokenizer = "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":\"a\"}"},
     STATUS_INVALID,
     "pre_tokenizer: Split: pattern: must be {\"Regex\": ...} or {\"String\": ...}"},
    {{.pre_tokenizer = "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":"
                       "\"(a\"}}"},
     STATUS_INVALID,
     "pre_tokenizer: Split: pattern: \"(a\": missing closing parenthesis"},
    {{.root_rest = ",\"decoder\":{\"type\":\"WordPiece\"}"},
     STATUS_UNSUPPORTED,
     "decoder: type \"WordPiece\" is not supported"},
    {{.root_rest = ",\"post_processor\":{\"type\":\"BertProcessing\"}"},
     STATUS_UNSUPPORTED,
     "post_processor: type \"BertProcessing\" is not supported"},
    {{.root_rest = ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                   "\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_tokens\":{\"<s>\":{\"ids\":"
                   "[77777]}}}"},
     STATUS_INVALID,
     "post_processor: TemplateProcessing: special_tokens: \"<s>\": ids[0]: no such token"},
    {{.model_rest = ",\"byte_fallback\":true"},
     STATUS_UNSUPPORTED,
     "model: byte_fallback is not supported"},
    {{.model_rest = ",\"dropout\":0.1"}, STATUS_UNSUPPORTED, "model: dropout is not supported"},
    {{.model_rest = ",\"end_of_word_suffix\":\"</w>\""},
     STATUS_UNSUPPORTED,
     "model: end_of_word_suffix is not supported"},
    {{.model_rest = ",\"ignore_merges\":\"yes\""},
     STATUS_INVALID,
     "model: ignore_merges: must be true or false"},
};

static void test_parts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(broken_parts); i++) {
        expect_fixture_error(&broken_parts[i].fixture, broken_parts[i].status,
                             broken_parts[i].message);
    }
}

static void test_long_added_token(void **state)
{
    struct buf added = {0};
    struct fixture f = {0};

    (void)state;
    buf_append_str(&added, "{\"id\":300,\"content\":\"");
    for (int i = 0; i < 1025; i++) {
        buf_append_char(&added, 'x');
    }
    buf_append_str(&added, "\"}");
    f.added = added.data;
    expect_fixture_error(&f, STATUS_LIMIT,
                         "added_tokens[0]: 1025 bytes, at most 1024 are supported");
    buf_release(&added);
}

static void test_nested_sequences(void **state)
{
    struct buf steps = {0};
    struct fixture f = {0};
    struct buf text = {0};
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    (void)state;
    for (int i = 0; i < 500; i++) {
        buf_append_str(&steps, "{\"type\":\"Sequence\",\"normalizers\":[");
    }
    for (int i = 0; i < 500; i++) {
        buf_append_str(&steps, "]}");
    }
    f.normalizer = steps.data;
    fixture_write(&f, &text);
    assert_int_equal(fixture_create_text(text.data, text.len, &tokenizer, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "sequences nested more than 4 deep"));
    buf_release(&steps);
    buf_release(&text);
}

static void test_too_many_stages(void **state)
{
    struct buf steps = {0};
    struct fixture f = {0};

    (void)state;
    buf_append_str(&steps, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 17; i++) {
        buf_append_str(&steps, "{\"type\":\"Digits\"},");
    }
    buf_append_str(&steps, FIXTURE_BYTE_LEVEL "]}");
    f.pre_tokenizer = steps.data;
    expect_fixture_error(&f, STATUS_LIMIT,
                         "pre_tokenizer: pretokenizers[16]: more than 16 splitting steps");
    buf_release(&steps);
}

/* Many added tokens, of which each is the beginning of the next: found at once, and the longest. */
static void test_many_added_tokens(void **state)
{
    struct buf added = {0};
    struct fixture f = {0};
    struct tokenizer *tokenizer;
    struct token_ids ids = {0};
    char text[1000];

    (void)state;
    for (int i = 2; i <= 900; i++) {
        buf_printf(&added, "%s{\"id\":%d,\"content\":\"%0*d\"}", i == 2 ? "" : ",", 300 + i, i, 0);
    }
    f.added = added.data;
    tokenizer = fixture_create(&f);
    memset(text, '0', sizeof(text));
    assert_int_equal(tokenizer_encode(tokenizer, text, sizeof(text), 0, &ids, NULL), STATUS_OK);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 1200);
    assert_int_equal(ids.data[1], 400);
    token_ids_release(&ids);
    tokenizer_destroy(&tokenizer);
    buf_release(&added);
}

#define T(s)             \
    {                    \
        s, sizeof(s) - 1 \
    }

static void expect_gguf_error(const struct tokenizer_gguf *gguf, const char *message)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    assert_int_not_equal(tokenizer_create_gguf(gguf, &tokenizer, &err), STATUS_OK);
    assert_null(tokenizer);
    assert_string_equal(err.text, message);
}

static const struct tokenizer_text tokens[] = {T("a"),   T("b"),        T("ab"),
                                               T("<s>"), T("\xc4\xa0"), T("bb")};
static const struct tokenizer_text twice[] = {T("a"), T("a")};
static const struct tokenizer_text merges[] = {T("a b")};
static const struct tokenizer_text bad_merges[] = {T("a b"), T("ab")};
static const int32_t types[] = {1, 1, 1, 3, 1, 1};
static const int32_t bad_types[] = {1, 1, 1, 9, 1, 1};
static const struct tokenizer_gguf good = {.model = "gpt2",
                                           .pre = "smollm",
                                           .tokens = tokens,
                                           .token_types = types,
                                           .n_tokens = 6,
                                           .merges = merges,
                                           .n_merges = 1,
                                           .bos = 3,
                                           .eos = -1,
                                           .pad = -1,
                                           .add_bos = true};

static void test_gguf_kinds(void **state)
{
    static const char *const kinds[] = {"smollm", "gpt-2",    "qwen2",     "llama-bpe",
                                        "llama3", "llama-v3", "starcoder", "deepseek-v3"};
    struct tokenizer_gguf gguf = good;
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        gguf.pre = kinds[i];
        assert_int_equal(tokenizer_create_gguf(&gguf, &tokenizer, &err), STATUS_OK);
        fixture_expect(tokenizer, "ab<s> zb", 8, TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL,
                       "3 2 3 4 1");
        fixture_expect(tokenizer, "bb", 2, 0, strstr(kinds[i], "llama") != NULL ? "5" : "1 1");
        assert_int_equal(tokenizer_bos(tokenizer), 3);
        tokenizer_destroy(&tokenizer);
    }
}

static void test_gguf(void **state)
{
    struct tokenizer_gguf gguf = good;

    (void)state;
    gguf.model = "llama";
    expect_gguf_error(&gguf, "tokenizer.ggml.model: \"llama\" is not supported (only \"gpt2\" is)");
    gguf.model = NULL;
    expect_gguf_error(&gguf, "tokenizer.ggml.model: missing");
    gguf = good;
    gguf.pre = "klingon";
    expect_gguf_error(&gguf, "tokenizer.ggml.pre: \"klingon\" is not supported");
    gguf.pre = NULL;
    expect_gguf_error(&gguf, "tokenizer.ggml.pre: missing");
    gguf = good;
    gguf.n_tokens = 0;
    expect_gguf_error(&gguf, "tokenizer.ggml.tokens: missing or empty");
    gguf = good;
    gguf.n_merges = 0;
    expect_gguf_error(&gguf, "tokenizer.ggml.merges: missing or empty");
    gguf = good;
    gguf.merges = bad_merges;
    gguf.n_merges = 2;
    expect_gguf_error(&gguf, "tokenizer.ggml.merges[1]: must be \"left right\"");
    gguf = good;
    gguf.token_types = bad_types;
    expect_gguf_error(&gguf, "tokenizer.ggml.token_type[3]: 9 is not supported");
    gguf = good;
    gguf.tokens = twice;
    gguf.n_tokens = 2;
    expect_gguf_error(&gguf, "tokenizer.ggml.tokens[1]: \"a\" has the ids 0 and 1");
    gguf = good;
    gguf.eos = 6;
    expect_gguf_error(&gguf, "tokenizer.ggml.eos_token_id: 6 has no token");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_files),      cmocka_unit_test(test_parts),
        cmocka_unit_test(test_long_added_token), cmocka_unit_test(test_nested_sequences),
        cmocka_unit_test(test_too_many_stages),  cmocka_unit_test(test_many_added_tokens),
        cmocka_unit_test(test_gguf_kinds),       cmocka_unit_test(test_gguf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
