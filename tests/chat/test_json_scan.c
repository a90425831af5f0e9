/* SPDX-License-Identifier: Apache-2.0 */
/* The recogniser of JSON against the parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "chat/json_scan.h"
#include "json/json.h"

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* True if text is one value, white space around it allowed. */
static bool scans(const char *text, size_t n)
{
    struct json_scan scan = {0};
    enum json_scan_step step = JSON_SCAN_MORE;
    size_t i = 0;
    bool ok;

    while (i < n && step == JSON_SCAN_MORE) {
        step = json_scan_push(&scan, text[i++]);
    }
    i -= step == JSON_SCAN_AFTER;
    ok = step == JSON_SCAN_END || step == JSON_SCAN_AFTER ||
         (step == JSON_SCAN_MORE && scan.open.len == 0 && json_scan_is_whole_number(&scan));
    while (ok && i < n) {
        ok = json_scan_is_space(text[i++]);
    }
    json_scan_release(&scan);
    return ok;
}

static bool parses(const char *text, size_t n)
{
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY, NULL);

    json_decref(value);
    return value != NULL;
}

static void test_texts(void **state)
{
    static const struct {
        const char *text;
        bool is_json;
    } texts[] = {
        {"", false},
        {" ", false},
        {"0", true},
        {"-0", true},
        {"01", false},
        {"-", false},
        {"1.", false},
        {".5", false},
        {"1.5e+10", true},
        {"1e", false},
        {"1E-2 ", true},
        {"1e5.", false},
        {"tru", false},
        {"true", true},
        {"truee", false},
        {"null\n", true},
        {"\"\"", true},
        {"\"\\x\"", false},
        {"\"\\u00g0\"", false},
        {"\"\\u00e9\"", true},
        {"\"a", false},
        {"[]", true},
        {"[1,]", false},
        {"[,1]", false},
        {"[1 2]", false},
        {"[1}", false},
        {"{}", true},
        {"{\"a\":1}", true},
        {"{\"a\"}", false},
        {"{a:1}", false},
        {"{\"a\":1,}", false},
        {"{1:2}", false},
        {"]", false},
        {"{\"a\":[{}, [0.5 , -1e9]]}", true},
        {"{} x", false},
        {"\"line\nbreak\"", true}, /* the one liberty */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (scans(texts[i].text, strlen(texts[i].text)) != texts[i].is_json) {
            fail_msg("%s", texts[i].text);
        }
    }
}

static void test_random(void **state)
{
    static const char alphabet[] = "{}[]\",:0123-+.eE \\ntrue";
    static const char *const seeds[] = {"{\"a\": [1, -2.5e3, true], \"b\": {\"c\": null}}",
                                        "[0, \"x\\n\\\"\", {}, [], 12]", "-1.5E-2", "\"a\\\\\""};
    uint32_t random = 17;
    int n_valid = 0;

    (void)state;
    for (int round = 0; round < 100000; round++) {
        const char *seed = seeds[next_random(&random) % ARRAY_LEN(seeds)];
        size_t n = strlen(seed);
        char text[64];
        bool is_json;

        memcpy(text, seed, n + 1);
        for (uint32_t k = 1 + next_random(&random) % 3; k > 0; k--) {
            text[next_random(&random) % n] =
                alphabet[next_random(&random) % (sizeof(alphabet) - 1)];
        }
        is_json = parses(text, n);
        n_valid += is_json;
        if (scans(text, n) != is_json) {
            fail_msg("%s", text);
        }
    }
    assert_in_range(n_valid, 1000, 99000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts), cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
