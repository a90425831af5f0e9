/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For each stop string the matcher knows how many of its first bytes the text ends with (Knuth,
 * Morris and Pratt). The largest of these numbers is the length of the tail that is held back.
 */
#include "chat/stop.h"

#include "base/mem.h"
#include "base/utf8.h"

struct stop {
    char *text;
    size_t n;
    size_t *border; /* [i]: the longest proper prefix of the first i + 1 bytes that ends them too */
    size_t matched; /* the text ends with that many of the first bytes */
};

struct stop_matcher {
    struct stop stops[STOP_MAX];
    size_t n;
    bool include_stop;
    int found; /* -1: none yet */
    struct buf held;
};

struct stop_matcher *stop_matcher_create(bool include_stop)
{
    struct stop_matcher *matcher = xalloc(sizeof(*matcher));

    matcher->include_stop = include_stop;
    matcher->found = -1;
    return matcher;
}

void stop_matcher_destroy(struct stop_matcher **matcher)
{
    if (*matcher == NULL) {
        return;
    }
    for (size_t i = 0; i < (*matcher)->n; i++) {
        free((*matcher)->stops[i].text);
        free((*matcher)->stops[i].border);
    }
    buf_release(&(*matcher)->held);
    free(*matcher);
    *matcher = NULL;
}

/* matched, after one more byte of text. */
static size_t advance(const struct stop *stop, size_t matched, char c)
{
    while (matched > 0 && stop->text[matched] != c) {
        matched = stop->border[matched - 1];
    }
    return stop->text[matched] == c ? matched + 1 : 0;
}

enum status stop_matcher_add(struct stop_matcher *matcher, const char *text, size_t n,
                             struct err *err)
{
    struct stop *stop;
    size_t *border;
    char *copy;

    if (matcher->n == STOP_MAX) {
        return err_set(err, STATUS_LIMIT, "stop: at most %d strings", STOP_MAX);
    }
    if (n == 0) {
        return err_set(err, STATUS_INVALID, "stop: string %zu is empty", matcher->n);
    }
    if (!utf8_is_valid(text, n)) {
        return err_set(err, STATUS_INVALID, "stop: string %zu is no UTF-8", matcher->n);
    }
    border = mem_alloc(n, sizeof(*border));
    copy = mem_alloc(n, 1);
    if (border == NULL || copy == NULL) {
        free(border);
        free(copy);
        return err_set(err, STATUS_NO_MEMORY, "stop: no memory for %zu bytes", n);
    }
    memcpy(copy, text, n);
    stop = &matcher->stops[matcher->n++];
    *stop = (struct stop){.text = copy, .n = n, .border = border};
    for (size_t i = 1; i < n; i++) {
        border[i] = advance(stop, border[i - 1], text[i]);
    }
    return STATUS_OK;
}

/* Takes one byte into every stop string; the index of the longest that is complete, -1 if none.
 * ret_tail: how many bytes at the end of the text may begin one. */
static int step(struct stop_matcher *matcher, char c, size_t *ret_tail)
{
    size_t tail = 0;
    int found = -1;

    for (size_t i = 0; i < matcher->n; i++) {
        struct stop *stop = &matcher->stops[i];

        stop->matched = advance(stop, stop->matched, c);
        tail = MAX(tail, stop->matched);
        if (stop->matched == stop->n && (found < 0 || stop->n > matcher->stops[found].n)) {
            found = (int)i;
        }
    }
    *ret_tail = tail;
    return found;
}

/* What is held but for the last tail bytes comes out. */
static void release(struct stop_matcher *matcher, size_t tail, struct buf *out)
{
    struct buf *held = &matcher->held;

    if (held->len == tail) {
        return;
    }
    buf_append(out, buf_str(held), held->len - tail);
    memmove(held->data, held->data + held->len - tail, tail);
    held->len = tail;
    held->data[tail] = '\0';
}

bool stop_matcher_push(struct stop_matcher *matcher, const char *text, size_t n, struct buf *out)
{
    size_t tail = matcher->held.len;

    if (matcher->found >= 0) {
        return true;
    }
    for (size_t i = 0; i < n && matcher->found < 0; i++) {
        buf_append_char(&matcher->held, text[i]);
        matcher->found = step(matcher, text[i], &tail);
    }
    if (matcher->found >= 0) {
        tail = matcher->include_stop ? 0 : matcher->stops[matcher->found].n;
    }
    release(matcher, tail, out);
    if (matcher->found >= 0) {
        buf_clear(&matcher->held);
        return true;
    }
    return false;
}

/* Stop strings that are complete are not; the length of the tail that may begin one. */
static size_t pass_over(struct stop_matcher *matcher)
{
    size_t tail = 0;

    for (size_t i = 0; i < matcher->n; i++) {
        struct stop *stop = &matcher->stops[i];

        if (stop->matched == stop->n) {
            stop->matched = stop->border[stop->n - 1];
        }
        tail = MAX(tail, stop->matched);
    }
    return tail;
}

void stop_matcher_pass(struct stop_matcher *matcher, const char *text, size_t n, struct buf *out)
{
    size_t tail = matcher->held.len;

    if (matcher->found >= 0) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        buf_append_char(&matcher->held, text[i]);
        if (step(matcher, text[i], &tail) >= 0) {
            tail = pass_over(matcher);
        }
    }
    release(matcher, tail, out);
}

void stop_matcher_finish(struct stop_matcher *matcher, struct buf *out)
{
    buf_append(out, buf_str(&matcher->held), matcher->held.len);
    buf_clear(&matcher->held);
}

int stop_matcher_matched(const struct stop_matcher *matcher)
{
    return matcher->found;
}
