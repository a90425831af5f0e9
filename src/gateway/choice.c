/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/choice.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void feed_forced(struct choice *choice);

void choice_init(struct choice *choice, const struct request_spec *spec,
                 void (*emit)(void *arg, const struct output_event *output,
                              const struct token_entry *entries, uint32_t n_entries),
                 void *arg)
{
    *choice = (struct choice){.spec = spec, .emit = emit, .arg = arg};
    detok_init(&choice->detok, spec->tokenizer, spec->keep_special ? 0 : TOKENIZER_SKIP_SPECIAL);
    if (spec->n_stops > 0) {
        choice->stop = stop_matcher_create(spec->include_stop);
    }
    for (uint32_t i = 0; i < spec->n_stops; i++) { /* checked where the request came in */
        ENSURE_OP(stop_matcher_add(choice->stop, spec->stops[i], strlen(spec->stops[i]), NULL), ==,
                  STATUS_OK);
    }
    if (spec->must_call) {
        call_guard_init(&choice->guard, spec);
    }
    if (spec->parse_output) {
        ENSURE_OP(output_parser_create(&spec->output, &choice->parser, NULL), ==, STATUS_OK);
        feed_forced(choice);
    }
}

void choice_release(struct choice *choice)
{
    for (uint32_t i = 0; i < choice->n_entries; i++) {
        free((void *)choice->entries[i].entry.tops);
    }
    free(choice->entries);
    for (uint32_t i = 0; i < choice->n_told; i++) {
        free((void *)choice->telling[i].tops);
    }
    free(choice->telling);
    stop_matcher_destroy(&choice->stop);
    output_parser_destroy(&choice->parser);
    call_guard_release(&choice->guard);
    buf_release(&choice->piece);
    *choice = (struct choice){0};
}

/* --- Entries --- */

static void add_entry(struct choice *choice, const struct batch_token *token, size_t n_bytes)
{
    struct choice_entry *e;
    struct result_top *tops = NULL;

    if (!choice->spec->logprobs) {
        return;
    }
    if (choice->n_entries == choice->cap_entries) {
        choice->cap_entries = MAX(8u, 2 * choice->cap_entries);
        choice->entries = xrealloc(choice->entries, choice->cap_entries, sizeof(*choice->entries));
    }
    if (token->n_tops > 0) {
        tops = xcalloc(token->n_tops, sizeof(*tops));
        memcpy(tops, token->tops, token->n_tops * sizeof(*tops));
    }
    e = &choice->entries[choice->n_entries++];
    *e = (struct choice_entry){
        .entry = {token->token, token->logprob, tops, token->n_tops},
        .begin = choice->n_text,
        .end = choice->n_text + n_bytes,
    };
}

/* Moves the first n entries to where they are told from. */
static void tell(struct choice *choice, uint32_t n)
{
    for (uint32_t i = 0; i < choice->n_told; i++) {
        free((void *)choice->telling[i].tops);
    }
    choice->n_told = 0;
    if (n == 0) {
        return;
    }
    if (n > choice->cap_telling) {
        choice->cap_telling = 2 * n;
        choice->telling = xrealloc(choice->telling, choice->cap_telling, sizeof(*choice->telling));
    }
    for (uint32_t i = 0; i < n; i++) {
        choice->telling[i] = choice->entries[i].entry;
    }
    memmove(choice->entries, choice->entries + n,
            (choice->n_entries - n) * sizeof(*choice->entries));
    choice->n_entries -= n;
    choice->n_told = n;
}

/* Entries whose text has been released, in whole. */
static uint32_t count_released(const struct choice *choice)
{
    uint32_t n = 0;

    while (n < choice->n_entries && choice->entries[n].end <= choice->n_released) {
        n++;
    }
    return n;
}

/* --- Text --- */

static void on_output(void *arg, const struct output_event *output)
{
    struct choice *choice = arg;
    struct output_event told = *output;
    const struct output_event *event = &told;

    if (choice->spec->must_call && !call_guard_take(&choice->guard, &told)) {
        return;
    }
    choice->reasoning = event->kind == OUTPUT_REASONING;
    choice->called = choice->called || event->kind == OUTPUT_TOOL_NAME;
    tell(choice, count_released(choice));
    choice->emit(choice->arg, event, choice->telling, choice->n_told);
}

static void feed(struct choice *choice, const char *text, size_t n)
{
    if (n == 0) {
        return;
    }
    if (choice->parser != NULL) {
        output_parser_push(choice->parser, text, n, on_output, choice);
        return;
    }
    on_output(choice, &(struct output_event){.kind = OUTPUT_CONTENT, .text = text, .n = n});
}

static void feed_forced(struct choice *choice)
{
    if (choice->spec->forced != NULL) {
        feed(choice, choice->spec->forced, strlen(choice->spec->forced));
    }
}

/* Decoded text through the stop strings. True: one is complete. None may be before min_tokens. */
static bool release_text(struct choice *choice, bool last)
{
    bool early = choice->n_tokens <= choice->spec->min_tokens && choice->spec->min_tokens > 0;
    struct buf out = {0};
    bool matched = false;

    if (choice->stop == NULL) {
        choice->n_released = choice->n_text;
        feed(choice, buf_str(&choice->piece), choice->piece.len);
        return false;
    }
    if (early) {
        stop_matcher_pass(choice->stop, buf_str(&choice->piece), choice->piece.len, &out);
    } else {
        matched = stop_matcher_push(choice->stop, buf_str(&choice->piece), choice->piece.len, &out);
    }
    if (last && !matched) {
        stop_matcher_finish(choice->stop, &out);
    }
    choice->n_released += out.len;
    feed(choice, buf_str(&out), out.len);
    buf_release(&out);
    return matched;
}

enum choice_step choice_push(struct choice *choice, const struct batch_token *token)
{
    bool over;

    if (choice->spec->must_call && call_guard_refuses(&choice->guard, token->token)) {
        return CHOICE_REFUSED;
    }
    buf_clear(&choice->piece);
    detok_push(&choice->detok, token->token, &choice->piece);
    add_entry(choice, token, choice->piece.len);
    choice->n_text += choice->piece.len;
    choice->n_tokens++;
    over = release_text(choice, false);
    choice->n_reasoning += choice->reasoning;
    over = over || (choice->parser != NULL &&
                    output_parser_is_full(choice->parser)); /* no call may follow */
    over = over || (choice->spec->must_call && call_guard_is_over(&choice->guard));
    return over ? CHOICE_OVER : CHOICE_MORE;
}

bool choice_must_go_on(const struct choice *choice)
{
    return choice->spec->must_call && choice->guard.is_ahead;
}

const char *choice_why(struct choice *choice)
{
    return choice->spec->must_call ? call_guard_why(&choice->guard) : NULL;
}

/* The stop string that has matched, NULL. */
static const char *stop_text(const struct choice *choice)
{
    int which = choice->stop == NULL ? -1 : stop_matcher_matched(choice->stop);

    return which < 0 ? NULL : choice->spec->stops[which];
}

void choice_finish(struct choice *choice, const struct token_entry **ret_entries,
                   uint32_t *ret_n_entries, const char **ret_stop)
{
    uint32_t n = 0;

    *ret_stop = stop_text(choice);
    if (*ret_stop == NULL) {
        buf_clear(&choice->piece);
        detok_flush(&choice->detok, &choice->piece);
        choice->n_text += choice->piece.len;
        if (release_text(choice, true)) {
            *ret_stop = stop_text(choice);
        }
    }
    if (choice->parser != NULL) {
        output_parser_finish(choice->parser, on_output, choice);
    }
    /* a token whose text began before the stop string is part of the answer */
    while (n < choice->n_entries &&
           (*ret_stop == NULL || choice->entries[n].begin < choice->n_released)) {
        n++;
    }
    tell(choice, n);
    *ret_entries = choice->telling;
    *ret_n_entries = choice->n_told;
}
