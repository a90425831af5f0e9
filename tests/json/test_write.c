/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer: numbers as Python's repr spells them, strings, styles, round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>

#include "json/json.h"

static void check_real(double value, const char *expected)
{
    struct buf buf = {0};

    json_write_real(&buf, value);
    assert_string_equal(buf_str(&buf), expected);
    buf_release(&buf);
}

/* The right column is what repr() of Python 3.11 printed. */
static void test_reals_as_repr(void **state)
{
    (void)state;
    check_real(0.0, "0.0");
    check_real(-0.0, "-0.0");
    check_real(1.0, "1.0");
    check_real(-1.5, "-1.5");
    check_real(0.1, "0.1");
    check_real(0.1 + 0.2, "0.30000000000000004");
    check_real(100.0, "100.0");
    check_real(0.0001, "0.0001");
    check_real(0.00012345, "0.00012345");
    check_real(0.00001, "1e-05");
    check_real(1.5e-7, "1.5e-07");
    check_real(1e15, "1000000000000000.0");
    check_real(9999999999999998.0, "9999999999999998.0");
    check_real(1e16, "1e+16");
    check_real(1.2345678901234568e17, "1.2345678901234568e+17");
    check_real(123456.789, "123456.789");
    check_real(9007199254740992.0, "9007199254740992.0");
    check_real(5e-324, "5e-324");
    check_real(DBL_MIN, "2.2250738585072014e-308");
    check_real(DBL_MAX, "1.7976931348623157e+308");
    check_real(1e100, "1e+100");
    check_real(1.0 / 3.0, "0.3333333333333333");
    check_real(INFINITY, "inf");
    check_real(-INFINITY, "-inf");
    check_real(NAN, "nan");
}

/* Powers of two whose nearest 16-digit decimal reads back as another number. */
static void test_reals_at_binade_edges(void **state)
{
    (void)state;
    check_real(ldexp(1, -44), "5.684341886080802e-14");
    check_real(ldexp(1, -1017), "7.120236347223045e-307");
    check_real(ldexp(1, -808), "5.858190679279809e-244");
    check_real(ldexp(1, -1022), "2.2250738585072014e-308");
    check_real(ldexp(1, 70), "1.1805916207174113e+21");
    check_real(ldexp(1, 1023), "8.98846567431158e+307");
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever is written reads back as the same bits, and never with more than 17 digits. */
static void test_reals_round_trip(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = next_random(&seed);
        struct buf buf = {0};
        double value;
        double back;

        memcpy(&value, &bits, sizeof(value));
        if (!isfinite(value)) {
            continue;
        }
        json_write_real(&buf, value);
        back = strtod(buf_str(&buf), NULL);
        assert_memory_equal(&back, &value, sizeof(value));
        assert_true(buf.len <= 24);
        buf_release(&buf);
    }
}

static void check_round_trip(const char *text, const struct json_style *style, const char *expected)
{
    struct err err = {0};
    struct buf buf = {0};
    json_t *value = NULL;

    assert_int_equal(json_parse(text, strlen(text), &value, &err), STATUS_OK);
    json_write(&buf, value, style);
    assert_string_equal(buf_str(&buf), expected);
    json_decref(value);
    buf_release(&buf);
}

static void test_styles(void **state)
{
    static const struct json_style indented = {.indent = 2, .item_sep = ",", .key_sep = ": "};
    static const struct json_style sorted = {
        .indent = -1, .item_sep = ",", .key_sep = ":", .sort_keys = true, .ascii = true};
    const char *text = "{\"b\":[1,2.0,{}],\"a\":null,\"\\u00e9\":[]}";

    (void)state;
    check_round_trip(text, &json_style_compact, "{\"b\":[1,2.0,{}],\"a\":null,\"\xc3\xa9\":[]}");
    check_round_trip(text, &json_style_python,
                     "{\"b\": [1, 2.0, {}], \"a\": null, \"\xc3\xa9\": []}");
    check_round_trip(text, &sorted, "{\"a\":null,\"b\":[1,2.0,{}],\"\\u00e9\":[]}");
    check_round_trip(text, &indented,
                     "{\n  \"b\": [\n    1,\n    2.0,\n    {}\n  ],\n  \"a\": null,\n"
                     "  \"\xc3\xa9\": []\n}");
}

static void test_integer_limits(void **state)
{
    (void)state;
    check_round_trip("[9223372036854775807,-9223372036854775808,0,-1]", &json_style_compact,
                     "[9223372036854775807,-9223372036854775808,0,-1]");
}

static void check_str(const char *text, size_t size, bool ascii, const char *expected)
{
    struct buf buf = {0};

    json_write_str(&buf, text, size, ascii);
    assert_string_equal(buf_str(&buf), expected);
    buf_release(&buf);
}

static void test_strings(void **state)
{
    (void)state;
    check_str("", 0, false, "\"\"");
    check_str("a\"\\\b\f\n\r\t/", 9, false, "\"a\\\"\\\\\\b\\f\\n\\r\\t/\"");
    check_str("\0\x01\x1f\x7f", 4, false, "\"\\u0000\\u0001\\u001f\x7f\"");
    check_str("\0\x01\x1f\x7f", 4, true, "\"\\u0000\\u0001\\u001f\\u007f\"");
    check_str("\xc3\xa9\xf0\x9f\x98\x80", 6, false, "\"\xc3\xa9\xf0\x9f\x98\x80\"");
    check_str("\xc3\xa9\xf0\x9f\x98\x80", 6, true, "\"\\u00e9\\ud83d\\ude00\"");
    check_str("a\xff\xc3", 3, false, "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    check_str("\xff", 1, true, "\"\\ufffd\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reals_as_repr),    cmocka_unit_test(test_reals_at_binade_edges),
        cmocka_unit_test(test_reals_round_trip), cmocka_unit_test(test_styles),
        cmocka_unit_test(test_integer_limits),   cmocka_unit_test(test_strings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
