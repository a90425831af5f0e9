/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts lie sorted; a search narrows the range of those that begin with what was read, byte by
 * byte. The first byte is looked up in a table, which settles nearly every position at once.
 */
#include "tokenizer/added.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/regex.h"

void added_release(struct added *added)
{
    for (size_t i = 0; i < added->n; i++) {
        free(added->tokens[i].text);
    }
    free(added->tokens);
    regex_destroy(&added->word);
    *added = (struct added){0};
}

enum status added_add(struct added *added, const struct added_token *token, struct err *err)
{
    struct added_token *copy;

    if (token->size == 0) {
        return err_set(err, STATUS_INVALID, "empty");
    }
    if (token->size > ADDED_MAX_BYTES) {
        return err_set(err, STATUS_LIMIT, "%zu bytes, at most %d are supported", token->size,
                       ADDED_MAX_BYTES);
    }
    if (added->n == added->cap) {
        size_t cap = MAX(added->cap * 2, 64);
        void *grown = reallocarray(added->tokens, cap, sizeof(*added->tokens));

        if (grown == NULL) {
            return err_set(err, STATUS_NO_MEMORY, "no memory for %zu added tokens", cap);
        }
        added->tokens = grown;
        added->cap = cap;
    }
    copy = &added->tokens[added->n++];
    *copy = *token;
    copy->text = xstrndup(token->text, token->size);
    return STATUS_OK;
}

/* By text, a prefix before what it begins. */
static int compare(const struct added_token *a, const struct added_token *b)
{
    int order = memcmp(a->text, b->text, MIN(a->size, b->size));

    if (order != 0 || a->size == b->size) {
        return order;
    }
    return a->size < b->size ? -1 : 1;
}

static int compare_for_qsort(const void *a, const void *b)
{
    const struct added_token *x = a;
    const struct added_token *y = b;
    int order = compare(x, y);

    return order != 0 ? order : (x->id > y->id) - (x->id < y->id);
}

enum status added_finish(struct added *added, struct err *err)
{
    bool single_word = false;
    size_t kept = 0;

    if (added->n > 0) {
        qsort(added->tokens, added->n, sizeof(*added->tokens), compare_for_qsort);
    }
    for (size_t i = 0; i < added->n; i++) {
        if (kept > 0 && compare(&added->tokens[kept - 1], &added->tokens[i]) == 0) {
            free(added->tokens[i].text);
        } else {
            added->tokens[kept++] = added->tokens[i];
            single_word = single_word || added->tokens[kept - 1].single_word;
        }
    }
    added->n = kept;
    for (size_t i = 0; i < kept; i++) {
        added->first[(unsigned char)added->tokens[i].text[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++) {
        added->first[b + 1] += added->first[b];
    }
    return single_word ? regex_create_word(&added->word, err) : STATUS_OK;
}

/* The first of tokens [low, high), which agree in their first depth bytes, whose byte there is at
 * least (after: more than) c. A token that ends there comes first. */
static size_t bound(const struct added *added, size_t low, size_t high, size_t depth,
                    unsigned char c, bool after)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct added_token *token = &added->tokens[middle];
        bool before = token->size == depth || (unsigned char)token->text[depth] < c ||
                      (after && (unsigned char)token->text[depth] == c);

        if (before) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token at text[at], NULL if there is none. */
static const struct added_token *longest_at(const struct added *added,
                                            const struct tokenizer_text *text, size_t at)
{
    unsigned char c = (unsigned char)text->data[at];
    size_t low = added->first[c];
    size_t high = added->first[c + 1];
    const struct added_token *found = NULL;

    for (size_t depth = 1; low < high; depth++) {
        if (added->tokens[low].size == depth) {
            found = &added->tokens[low];
        }
        if (at + depth == text->size) {
            break;
        }
        c = (unsigned char)text->data[at + depth];
        high = bound(added, low, high, depth, c, true);
        low = bound(added, low, high, depth, c, false);
    }
    return found;
}

/* White_Space of the Unicode character database. */
static bool is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* The length of the character that ends at text[end], 0 if there is none or it is no UTF-8. */
static size_t char_before(const struct tokenizer_text *text, size_t end)
{
    for (size_t n = 1; n <= 4 && n <= end; n++) {
        if (utf8_valid_prefix(text->data + end - n, n) == n) {
            return n;
        }
    }
    return 0;
}

static bool is_word(const struct added *added, const char *text, size_t size)
{
    const struct tokenizer_text character = {text, size};
    struct regex_run run = {.steps_left = 100};
    size_t start;
    size_t end;
    bool found =
        size > 0 && regex_search(added->word, &run, &character, 0, &start, &end) == STATUS_OK;

    regex_run_release(&run);
    return found;
}

static bool stands_alone(const struct added *added, const struct tokenizer_text *text, size_t start,
                         size_t end)
{
    size_t before = char_before(text, start);
    size_t after = utf8_valid_prefix(text->data + end, text->size - end);

    return !is_word(added, text->data + start - before, before) &&
           !is_word(added, text->data + end, after);
}

static size_t strip_left(const struct tokenizer_text *text, size_t start, size_t floor)
{
    while (start > floor) {
        size_t n = char_before(text, start);
        uint32_t code = 0;

        if (n == 0 || n > start - floor || utf8_decode(text->data + start - n, n, &code) == 0 ||
            !is_space(code)) {
            break;
        }
        start -= n;
    }
    return start;
}

/* The end of the white space that begins at end. What was found is kept: a text of spaces in which
 * each is a token would be read to its end for each of them. */
static size_t strip_right(struct added_scan *scan, size_t end)
{
    const struct tokenizer_text *text = &scan->text;

    if (end >= scan->space_start && end <= scan->space_end) {
        return scan->space_end;
    }
    scan->space_start = end;
    while (end < text->size) {
        uint32_t code = 0;
        size_t n = utf8_decode(text->data + end, text->size - end, &code);

        if (n == 0 || !is_space(code)) {
            break;
        }
        end += n;
    }
    scan->space_end = end;
    return end;
}

bool added_next(struct added_scan *scan, struct tokenizer_text *ret_before, int32_t *ret_id)
{
    const struct tokenizer_text *text = &scan->text;

    while (scan->added->n > 0 && scan->at < text->size) {
        const struct added_token *token = longest_at(scan->added, text, scan->at);
        size_t start = scan->at;
        size_t end;

        if (token == NULL) {
            scan->at++;
            continue;
        }
        end = start + token->size;
        scan->at = end;
        if ((scan->skip_special && token->special) ||
            (token->single_word && !stands_alone(scan->added, text, start, end))) {
            continue;
        }
        if (token->lstrip) {
            start = MAX(strip_left(text, start, scan->done), scan->done);
        }
        if (token->rstrip) {
            end = strip_right(scan, end);
        }
        if (token->lstrip && start >= end) { /* it lay in white space that was taken along */
            continue;
        }
        *ret_before =
            (struct tokenizer_text){text->data + scan->done, MAX(start, scan->done) - scan->done};
        *ret_id = token->id;
        scan->done = end; /* so white space that was taken along may come again, as it does there */
        return true;
    }
    *ret_before = (struct tokenizer_text){text->data + scan->done, text->size - scan->done};
    scan->done = text->size;
    return false;
}
