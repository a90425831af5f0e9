/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 against the definition itself: the set of valid sequences is the set of encodings of all
 * code points (0 to U+10FFFF without surrogates), so every question can be answered from a table of
 * those.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { CODE_END = 0x110000 };

static bool is_surrogate(uint32_t code)
{
    return code >= 0xd800 && code < 0xe000;
}

/* Bit sets over byte strings of one length, the bytes read as one big-endian number. */
struct sequences {
    uint8_t *valid[5];   /* [n]: whole sequences of n bytes */
    uint8_t *partial[4]; /* [n]: first n bytes of a longer sequence */
};

static void put(uint8_t *set, uint32_t key)
{
    set[key >> 3] |= (uint8_t)(1u << (key & 7));
}

static bool has(const uint8_t *set, uint32_t key)
{
    return (set[key >> 3] >> (key & 7) & 1) != 0;
}

/* Four-byte sequences begin with f0 to f4; the first byte is cut to its low three bits. */
static uint32_t key_of(const unsigned char *bytes, size_t n)
{
    uint32_t key = n == 4 ? bytes[0] & 7u : bytes[0];

    for (size_t i = 1; i < n; i++) {
        key = key << 8 | bytes[i];
    }
    return key;
}

/* The bytes of code, by arithmetic that shares nothing with the code under test. */
static size_t encode_slowly(uint32_t code, unsigned char *out)
{
    static const uint32_t limit[5] = {0, 0x80, 0x800, 0x10000, CODE_END};
    static const unsigned char lead[5] = {0, 0, 192, 224, 240};
    size_t n = 1;

    while (code >= limit[n]) {
        n++;
    }
    for (size_t i = n; i-- > 1;) {
        out[i] = (unsigned char)(128 + code % 64);
        code /= 64;
    }
    out[0] = (unsigned char)(lead[n] + code);
    return n;
}

static int set_up(void **state)
{
    struct sequences *all = xalloc(sizeof(*all));

    for (size_t n = 1; n <= 4; n++) {
        size_t bytes = ((size_t)1 << (n == 4 ? 27 : 8 * n)) / 8;

        all->valid[n] = xcalloc(1, bytes);
        if (n < 4) {
            all->partial[n] = xcalloc(1, bytes);
        }
    }
    for (uint32_t code = 0; code < CODE_END; code++) {
        unsigned char bytes[4];
        size_t n = encode_slowly(code, bytes);

        if (is_surrogate(code)) {
            continue;
        }
        put(all->valid[n], key_of(bytes, n));
        for (size_t part = 1; part < n; part++) {
            put(all->partial[part], key_of(bytes, part));
        }
    }
    *state = all;
    return 0;
}

static int tear_down(void **state)
{
    struct sequences *all = *state;

    for (size_t n = 1; n <= 4; n++) {
        free(all->valid[n]);
        free(n < 4 ? all->partial[n] : NULL);
    }
    free(all);
    return 0;
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < CODE_END; code++) {
        unsigned char expected[4];
        char bytes[4];
        uint32_t back = 0;
        size_t n = encode_slowly(code, expected);

        if (is_surrogate(code)) {
            assert_int_equal(utf8_decode((char *)expected, n, &back), 0);
            assert_int_equal(back, 0); /* untouched */
            continue;
        }
        assert_int_equal(utf8_encode(code, bytes), n);
        assert_memory_equal(bytes, expected, n);
        assert_int_equal(utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, code);
        assert_int_equal(utf8_valid_prefix(bytes, n - 1), 0);
    }
}

/* What utf8_valid_prefix must say about four bytes. */
static size_t expected_prefix(const struct sequences *all, const unsigned char *bytes)
{
    for (size_t n = 1; n <= 3; n++) {
        if (has(all->valid[n], key_of(bytes, n))) {
            return n;
        }
    }
    return (bytes[0] & 0xf8) == 0xf0 && has(all->valid[4], key_of(bytes, 4)) ? 4 : 0;
}

/* All first, second and third bytes, with fourth bytes around the edges. */
static void test_prefix_of_everything(void **state)
{
    static const unsigned char fourth[] = {0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff};

    for (uint32_t head = 0; head < 1u << 24; head++) {
        unsigned char bytes[4] = {(unsigned char)(head >> 16), (unsigned char)(head >> 8),
                                  (unsigned char)head, 0};
        bool is_long = bytes[0] >= 0xf0;

        if (bytes[0] < 0xc0 && bytes[1] % 16 != 0) {
            continue; /* nothing depends on them: a sixteenth is enough */
        }
        for (size_t i = 0; i < (is_long ? ARRAY_LEN(fourth) : 1); i++) {
            bytes[3] = fourth[i];
            if (utf8_valid_prefix((char *)bytes, 4) != expected_prefix(*state, bytes)) {
                fail_msg("%02x %02x %02x %02x", bytes[0], bytes[1], bytes[2], bytes[3]);
            }
        }
    }
}

static size_t expected_tail(const struct sequences *all, const unsigned char *text, size_t size)
{
    for (size_t n = 1; n <= MIN(size, 3); n++) {
        if (has(all->partial[n], key_of(text + size - n, n))) {
            return n;
        }
    }
    return 0;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Random strings of bytes that matter: validity is cutting off valid prefixes, tails are as
 * defined. */
static void test_random_strings(void **state)
{
    static const unsigned char bytes[] = {0x00, 'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                          0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                          0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff};
    uint32_t seed = 12345;

    for (int round = 0; round < 300000; round++) {
        unsigned char text[8 + 4] = {0}; /* four more, so that the reference may look ahead */
        size_t size = next_random(&seed) % 9;
        bool valid = true;

        for (size_t i = 0; i < size; i++) {
            text[i] = bytes[next_random(&seed) % sizeof(bytes)];
        }
        for (size_t i = 0; i < size;) {
            size_t n = expected_prefix(*state, text + i);

            if (n == 0 || n > size - i) {
                valid = false;
                break;
            }
            i += n;
        }
        assert_int_equal(utf8_is_valid((char *)text, size), valid);
        assert_int_equal(utf8_incomplete_tail((char *)text, size),
                         expected_tail(*state, text, size));
    }
}

static void test_edges(void **state)
{
    uint32_t code = 7;

    (void)state;
    assert_int_equal(utf8_valid_prefix("", 0), 0);
    assert_true(utf8_is_valid("", 0));
    assert_true(utf8_is_valid("a\0b", 3));
    assert_int_equal(utf8_incomplete_tail("", 0), 0);
    assert_int_equal(utf8_incomplete_tail("\xf0\x9f\x98\x80", 4), 0);
    assert_int_equal(utf8_incomplete_tail("\xf0\x9f\x98", 3), 3);
    assert_int_equal(utf8_incomplete_tail("\xf0\x9f", 2), 2);
    assert_int_equal(utf8_incomplete_tail("a\xe2", 2), 1);
    assert_int_equal(utf8_incomplete_tail("\xe0\x80", 2), 0); /* overlong: nothing completes it */
    assert_int_equal(utf8_incomplete_tail("\xed\xa0", 2), 0); /* a surrogate */
    assert_int_equal(utf8_decode("", 0, &code), 0);
    assert_int_equal(code, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_prefix_of_everything),
        cmocka_unit_test(test_random_strings),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
