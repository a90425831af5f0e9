/* SPDX-License-Identifier: Apache-2.0 */
/* Translation of patterns, and patterns that want to hang or to exhaust memory. */
#include "fixture.h"

#include "base/clock.h"
#include "tokenizer/normalize.h"
#include "tokenizer/regex.h"
#include "tokenizer/regex_priv.h"

static void test_translation(void **state)
{
    static const char *const cases[][2] = {
        {"\\s+(?!\\S)", "\\p{wspace}+(?!\\P{wspace})"},
        {"[^\\s\\p{L}]", "[^\\p{wspace}\\p{L}]"},
        {"\\p{Han}\\P{Lu}\\p{^N}", "\\p{sc:Han}\\P{Lu}\\P{N}"},
        {"(a|b)", "(?:a|b)"},
        {"\\d{1,3}", "\\p{Nd}{1,3}"},
        {"\\u4e00\\x41", "\\x{4e00}\\x{41}"},
        {"(?i:'s)\\/", "(?i:'s)\\/"},
        {"[\\w']", "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}']"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out = {0};

        assert_int_equal(regex_translate(cases[i][0], strlen(cases[i][0]), &out, NULL), STATUS_OK);
        assert_string_equal(out.data, cases[i][1]);
        buf_release(&out);
    }
}

static void test_refused(void **state)
{
    static const char *const cases[][2] = {
        {"a\\b", "\"a\\b\": \"\\b\" at byte 1 is not supported"},
        {"(a)\\1", "\"(a)\\1\": \"\\1\" at byte 3 is not supported"},
        {"(?R)", "\"(?R)\": \"(?R)\" at byte 0 is not supported"},
        {"(?i)a", "\"(?i)a\": \"(?i)\" at byte 0 is not supported"},
        {"(?<n>a)", "\"(?<n>a)\": \"(?<n\" at byte 0 is not supported"},
        {"(*COMMIT)a", "\"(*COMMIT)a\": "},
        {"a{1,2}+", "\"a{1,2}+\": \"{1,2}+\" at byte 1 is not supported"},
        {"a{,2}", "\"a{,2}\": \"{,2}\" at byte 1 is not supported"},
        {"[a[b]]", "\"[a[b]]\": \"[b\" at byte 2 is not supported"},
        {"[a&&b]", "\"[a&&b]\": \"&&\" at byte 2 is not supported"},
        {"[\\W]", "\"[\\W]\": \"\\W\" at byte 1 is not supported"},
        {"[a", "\"[a\": the class at byte 0 is not closed"},
        {"\\", "\"\\\": \"\\\" at byte 0 is not supported"},
        {"\\p{Klingon}", "\"\\p{Klingon}\": "}, /* the rest is PCRE2's own and changes */
        {"\\p{1}", "\"\\p{1}\": the property at byte 3 is not supported"},
        {"\xff", "\"\xff\": not UTF-8"},
        {"(?:(?:a{1000}){1000}){1000}", "\"(?:(?:a{1000}){1000}){1000}\": "},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct regex *regex = NULL;
        struct err err = {0};

        assert_int_not_equal(regex_create(cases[i][0], strlen(cases[i][0]), &regex, &err),
                             STATUS_OK);
        assert_null(regex);
        if (strncmp(err.text, cases[i][1], strlen(cases[i][1])) != 0) {
            fail_msg("got: %s\nnot: %s", err.text, cases[i][1]);
        }
    }
}

static void test_sizes_are_bounded(void **state)
{
    static char pattern[REGEX_MAX_BYTES + 1];
    struct regex *regex = NULL;

    (void)state;
    memset(pattern, '(', sizeof(pattern));
    assert_int_equal(regex_create(pattern, sizeof(pattern), &regex, NULL), STATUS_LIMIT);
    assert_int_equal(regex_create(pattern, sizeof(pattern) - 1, &regex, NULL), STATUS_INVALID);
    memset(pattern, 'a', sizeof(pattern)); /* too much for PCRE2 once compiled */
    assert_int_equal(regex_create(pattern, sizeof(pattern) - 1, &regex, NULL), STATUS_INVALID);
    assert_int_equal(regex_create(pattern, 2000, &regex, NULL), STATUS_OK);
    regex_destroy(&regex);
    assert_int_equal(regex_create_literal(pattern, sizeof(pattern) - 1, &regex, NULL),
                     STATUS_LIMIT);
}

/* Each would take from minutes to the age of the universe. */
static void test_hostile_patterns_end(void **state)
{
    static const char *const patterns[] = {
        "(?:a+)+[bc]",    "(?:a|a)*[bc]",          "(?:a|aa)+$[bc]",    "a*b|a",
        "(?=.*+[bc])a|.", "(?:a*)*[bc]",           "(?=.*[bc])a|.",     "(?:(?=.*+)a)*[bc]",
        "a*a*a*a*a*[bc]", "(?:(?:(?:a*)*)*)*[bc]", "(?<=a)(?:a+)+[bc]",
    };
    enum { SIZE = 200000 };
    char *text = test_malloc(SIZE);

    (void)state;
    memset(text, 'a', SIZE);
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        struct fixture f = {0};
        struct tokenizer *tokenizer;
        struct token_ids ids = {0};
        struct buf step = {0};
        struct err err = {0};
        uint64_t start = clock_ns();

        buf_printf(&step,
                   "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
                   "\"Regex\":\"%s\"},\"behavior\":\"Isolated\"}," FIXTURE_BYTE_LEVEL "]}",
                   patterns[i]);
        f.pre_tokenizer = step.data;
        tokenizer = fixture_create(&f);
        assert_int_equal(tokenizer_encode(tokenizer, text, SIZE, 0, &ids, &err), STATUS_LIMIT);
        assert_string_equal(err.text, "pre_tokenizer: a pattern takes more steps or memory on this "
                                      "text of 200000 bytes than allowed");
        assert_int_equal(ids.n, 0);
        assert_true(clock_ns() - start < 30000000000u);
        token_ids_release(&ids);
        tokenizer_destroy(&tokenizer);
        buf_release(&step);
    }
    test_free(text);
}

static void test_normalize(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"abc", "abc"},
        {"e\u0301", "\u00e9"},
        {"\u00e9", "\u00e9"},
        {"a\u0301\u0323", "\u1ea1\u0301"},
        {"\u1100\u1161\u11a8", "\uac01"},
        {"\uac00\u11a7", "\uac00\u11a7"},   /* no trailing consonant */
        {"\u212b", "\u00c5"},               /* a singleton */
        {"\u0915\u093c", "\u0915\u093c"},   /* excluded from composition */
        {"a\u1ac0\u0323", "a\u1ac0\u0323"}, /* a mark of Unicode 13: inert */
        {"a\u0323\u0345\u0301", "\u1ea1\u0301\u0345"},
        {">\u0338", "\u226f"},
        {"e\xff\u0301", "e\xff\u0301"},
        {"e\u0301\xff"
         "e\u0301",
         "\u00e9\xff\u00e9"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tokenizer_text text = {cases[i][0], strlen(cases[i][0])};
        struct buf buf = {0};

        assert_int_equal(normalize_nfc(&text, &buf, &text), STATUS_OK);
        assert_int_equal(text.size, strlen(cases[i][1]));
        assert_memory_equal(text.data, cases[i][1], text.size);
        buf_release(&buf);
    }
}

/* Half a million marks in the wrong order: sorting by exchange would take hours. */
static void test_normalize_many_marks(void **state)
{
    enum { MARKS = 250000 };
    struct tokenizer_text text;
    struct buf in = {0};
    struct buf out = {0};

    (void)state;
    buf_append_char(&in, 'x');
    for (int i = 0; i < MARKS; i++) {
        buf_append_str(&in, "\u0345");
    }
    for (int i = 0; i < MARKS; i++) {
        buf_append_str(&in, "\u0334");
    }
    text = (struct tokenizer_text){in.data, in.len};
    assert_int_equal(normalize_nfc(&text, &out, &text), STATUS_OK);
    assert_int_equal(text.size, in.len);
    assert_memory_equal(text.data, "x\u0334\u0334", 5);
    assert_memory_equal(text.data + text.size - 4, "\u0345\u0345", 4);
    buf_release(&in);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translation),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_sizes_are_bounded), cmocka_unit_test(test_hostile_patterns_end),
        cmocka_unit_test(test_normalize),         cmocka_unit_test(test_normalize_many_marks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
