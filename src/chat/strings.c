/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/strings.h"

#include "base/utf8.h"
#include "chat/unicode.h"

size_t strings_find(struct env *env, const struct str *text, size_t start, size_t end,
                    const struct str *what)
{
    const char *found;

    if (start > end || what->len > end - start) {
        return SIZE_MAX;
    }
    if (what->len == 0) {
        return start;
    }
    work_step(&env->work, 1 + (end - start) / 256);
    found = memmem(text->data + start, end - start, what->data, what->len);
    return found == NULL ? SIZE_MAX : (size_t)(found - text->data);
}

size_t strings_rfind(struct env *env, const struct str *text, size_t start, size_t end,
                     const struct str *what)
{
    if (start > end || what->len > end - start) {
        return SIZE_MAX;
    }
    for (size_t at = end - what->len;; at--) {
        if (what->len == 0 || memcmp(text->data + at, what->data, what->len) == 0) {
            return at;
        }
        work_step(&env->work, at % 64 == 0);
        if (at == start) {
            return SIZE_MAX;
        }
    }
}

static bool is_stripped(struct env *env, const struct str *chars, const char *code, size_t n)
{
    uint32_t c = 0;

    if (chars == NULL) {
        (void)utf8_decode(code, n, &c);
        return unicode_has(c, UNICODE_SPACE);
    }
    work_step(&env->work, chars->len / 256);
    return memmem(chars->data, chars->len, code, n) != NULL;
}

/* The length of the code point before end. */
static size_t last_code(const char *data, size_t end)
{
    size_t n = 1;

    while (n < end && ((unsigned char)data[end - n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

struct value strings_strip(struct env *env, const struct str *text, const struct str *chars,
                           enum strings_side side)
{
    size_t start = 0;
    size_t end = text->len;

    while ((side & STRINGS_LEFT) != 0 && start < end) {
        size_t n = utf8_valid_prefix(text->data + start, end - start);

        if (!is_stripped(env, chars, text->data + start, n)) {
            break;
        }
        start += n;
    }
    while ((side & STRINGS_RIGHT) != 0 && end > start) {
        size_t n = last_code(text->data, end);

        if (!is_stripped(env, chars, text->data + end - n, n)) {
            break;
        }
        end -= n;
    }
    return value_substr(&env->work, text, start, end);
}

/* A capital sigma at codes[i] ends a word: a cased letter before it and none after it, both with
 * case-ignorable characters in between. */
static bool is_final_sigma(struct env *env, const uint32_t *codes, size_t n, size_t i)
{
    size_t before = i;
    size_t after = i + 1;

    while (before > 0 && unicode_has(codes[before - 1], UNICODE_IGNORABLE)) {
        before--;
    }
    while (after < n && unicode_has(codes[after], UNICODE_IGNORABLE)) {
        after++;
    }
    work_step(&env->work, (after - before) / 16);
    return before > 0 && unicode_has(codes[before - 1], UNICODE_CASED) &&
           !(after < n && unicode_has(codes[after], UNICODE_CASED));
}

static void add_cased(struct env *env, struct text *out, const uint32_t *codes, size_t n, size_t i,
                      enum unicode_case to)
{
    uint32_t mapped[UNICODE_CASE_CODES];
    size_t n_mapped;

    if (to == UNICODE_TO_LOWER && codes[i] == 0x3a3) {
        text_add_code(out, is_final_sigma(env, codes, n, i) ? 0x3c2 : 0x3c3);
        return;
    }
    n_mapped = unicode_map(codes[i], to, mapped);
    for (size_t j = 0; j < n_mapped; j++) {
        text_add_code(out, mapped[j]);
    }
}

struct value strings_case(struct env *env, const struct str *text, enum strings_case to)
{
    uint32_t *codes = work_alloc(&env->work, text->n_codes, sizeof(*codes));
    struct text out = {.work = &env->work};
    bool after_cased = false;
    size_t at = 0;

    for (size_t i = 0; i < text->n_codes; i++) {
        at += utf8_decode(text->data + at, text->len - at, &codes[i]);
    }
    work_step(&env->work, text->n_codes / 16);
    for (size_t i = 0; i < text->n_codes; i++) {
        enum unicode_case unicode = to == CASE_UPPER ? UNICODE_TO_UPPER : UNICODE_TO_LOWER;

        if (to == CASE_TITLE || to == CASE_CAPITAL) {
            bool first = to == CASE_TITLE ? !after_cased : i == 0;

            unicode = first ? UNICODE_TO_TITLE : UNICODE_TO_LOWER;
            after_cased = unicode_has(codes[i], UNICODE_CASED);
        } else if (to == CASE_SWAP) {
            unicode = unicode_has(codes[i], UNICODE_UPPER) ? UNICODE_TO_LOWER : UNICODE_TO_UPPER;
            if (!unicode_has(codes[i], UNICODE_UPPER | UNICODE_LOWER)) {
                text_add_code(&out, codes[i]);
                continue;
            }
        }
        add_cased(env, &out, codes, text->n_codes, i, unicode);
    }
    return text_value(&out);
}

/* new before each character and at the end. */
static struct value replace_between(struct env *env, const struct str *text, const struct str *new,
                                    int64_t count)
{
    struct text out = {.work = &env->work};
    size_t at = 0;

    while (count != 0) {
        size_t n = utf8_valid_prefix(text->data + at, text->len - at);

        text_add(&out, new->data, new->len);
        text_add(&out, text->data + at, n);
        at += n;
        count--;
        if (n == 0) {
            break;
        }
    }
    text_add(&out, text->data + at, text->len - at);
    return text_value(&out);
}

struct value strings_replace(struct env *env, const struct str *text, const struct str *old,
                             const struct str *new, int64_t count)
{
    struct text out = {.work = &env->work};
    size_t at = 0;
    size_t found;

    if (old->len == 0) {
        return replace_between(env, text, new, count);
    }
    while (count != 0 && (found = strings_find(env, text, at, text->len, old)) != SIZE_MAX) {
        text_add(&out, text->data + at, found - at);
        text_add(&out, new->data, new->len);
        at = found + old->len;
        count--;
    }
    if (at == 0) {
        return value_of_str(text);
    }
    text_add(&out, text->data + at, text->len - at);
    return text_value(&out);
}

/* Does the code point end a line? */
static bool ends_line(uint32_t code)
{
    return (code >= '\n' && code <= '\r') || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

struct list *strings_lines(struct env *env, const struct str *text, bool keep_ends)
{
    struct list *lines = list_new(&env->work, 0);
    size_t start = 0;

    for (size_t at = 0; at < text->len;) {
        uint32_t code = 0;
        size_t n = utf8_decode(text->data + at, text->len - at, &code);
        size_t end = at;

        at += n;
        if (!ends_line(code)) {
            continue;
        }
        if (code == '\r' && at < text->len && text->data[at] == '\n') {
            at++;
        }
        work_step(&env->work, 1);
        list_append(&env->work, lines, value_substr(&env->work, text, start, keep_ends ? at : end));
        start = at;
    }
    if (start < text->len) {
        list_append(&env->work, lines, value_substr(&env->work, text, start, text->len));
    }
    return lines;
}

struct value strings_pad(struct env *env, const struct str *text, int64_t width, const char *fill,
                         size_t fill_len, enum strings_side side)
{
    size_t pad = width > (int64_t)text->n_codes ? (size_t)width - text->n_codes : 0;
    struct text out = {.work = &env->work};
    size_t left = side == STRINGS_LEFT    ? pad
                  : side == STRINGS_RIGHT ? 0
                                          : pad / 2 + (pad & (size_t)width & 1);

    if (pad == 0) {
        return value_of_str(text);
    }
    text_add_chars(&out, fill, fill_len, left);
    text_add(&out, text->data, text->len);
    text_add_chars(&out, fill, fill_len, pad - left);
    return text_value(&out);
}

struct value strings_mark(struct env *env, struct value text)
{
    struct str *str = work_alloc(&env->work, 1, sizeof(*str));

    *str = *text.str;
    str->markup = true;
    return value_of_str(str);
}

struct value strings_escape(struct env *env, struct value value)
{
    struct text out = {.work = &env->work};
    const struct str *text = text_of(&env->work, value).str;

    if (text->markup) {
        return value_of_str(text);
    }
    for (size_t i = 0; i < text->len; i++) {
        char c = text->data[i];

        if (c == '&') {
            text_add_c(&out, "&amp;");
        } else if (c == '<') {
            text_add_c(&out, "&lt;");
        } else if (c == '>') {
            text_add_c(&out, "&gt;");
        } else if (c == '\'') {
            text_add_c(&out, "&#39;");
        } else if (c == '"') {
            text_add_c(&out, "&#34;");
        } else {
            text_add_char(&out, c);
        }
    }
    return strings_mark(env, text_value(&out));
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* Takes a prefix such as 0x where base allows it; base 0 takes what the prefix says. */
static size_t number_prefix(const struct str *s, size_t at, int *base)
{
    char kind = at + 1 < s->len && s->data[at] == '0' ? (char)(s->data[at + 1] | 0x20) : '\0';
    int prefix = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;

    if (prefix != 0 && (*base == 0 || *base == prefix)) {
        *base = prefix;
        at += 2;
        return at + (at < s->len && s->data[at] == '_');
    }
    if (*base == 0) {
        *base = 10;
    }
    return at;
}

bool strings_to_int(struct env *env, const struct str *text, int base, int64_t *ret_integer)
{
    const struct str *s = strings_strip(env, text, NULL, STRINGS_BOTH).str;
    bool negative = s->len > 0 && s->data[0] == '-';
    size_t at = negative || (s->len > 0 && s->data[0] == '+');
    bool any_base = base == 0;
    size_t start;
    int64_t n = 0;

    at = number_prefix(s, at, &base);
    for (start = at; at < s->len; at++) {
        int digit = digit_value(s->data[at]);

        if (s->data[at] == '_' && at > start && s->data[at - 1] != '_' && at + 1 < s->len) {
            continue;
        }
        if (digit >= base) {
            return false;
        }
        if (__builtin_mul_overflow(n, base, &n) ||
            __builtin_sub_overflow(n, (int64_t)digit, &n)) { /* negative, for INT64_MIN */
            work_fail(&env->work, "integer '%.*s' needs more than 64 bits",
                      (int)MIN(s->len, (size_t)100), s->data);
        }
    }
    if (at == start || s->data[at - 1] == '_') {
        return false;
    }
    if (any_base && base == 10 && s->data[start] == '0' && n != 0) {
        return false;
    }
    if (!negative && n == INT64_MIN) {
        work_fail(&env->work, "integer '%.*s' needs more than 64 bits",
                  (int)MIN(s->len, (size_t)100), s->data);
    }
    *ret_integer = negative ? n : -n;
    return true;
}

/* Is the text what a decimal number may look like, so that strtod may read it? */
static bool looks_decimal(const char *text)
{
    size_t digits = 0;

    text += *text == '-' || *text == '+';
    for (; (*text >= '0' && *text <= '9') || (*text == '.'); text++) {
        digits += *text != '.';
    }
    if (digits == 0) {
        return strcasecmp(text, "inf") == 0 || strcasecmp(text, "infinity") == 0 ||
               strcasecmp(text, "nan") == 0;
    }
    return *text == '\0' || *text == 'e' || *text == 'E';
}

bool strings_to_float(struct env *env, const struct str *text, double *ret_real)
{
    const struct str *s = strings_strip(env, text, NULL, STRINGS_BOTH).str;
    struct text plain = {.work = &env->work};
    char *end;
    double real;

    for (size_t i = 0; i < s->len; i++) {
        bool between_digits = i > 0 && i + 1 < s->len && digit_value(s->data[i - 1]) < 10 &&
                              digit_value(s->data[i + 1]) < 10;

        if (s->data[i] == '\0' || (s->data[i] == '_' && !between_digits)) {
            return false;
        }
        if (s->data[i] != '_') {
            text_add_char(&plain, s->data[i]);
        }
    }
    text_add_char(&plain, '\0');
    if (!looks_decimal(plain.data)) {
        return false;
    }
    real = strtod(plain.data, &end);
    if (end == plain.data || *end != '\0') {
        return false;
    }
    *ret_real = real;
    return true;
}
