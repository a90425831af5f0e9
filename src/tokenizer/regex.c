/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include "base/mem.h"
#include "tokenizer/regex_priv.h"

enum {
    MAX_NESTING = 100,        /* groups in groups */
    STACK_BYTES = 4 << 20,    /* of the JIT, when its 32 KiB on the thread's stack are too few */
    HEAP_KIB = 64 << 10,      /* of the interpreter, where there is no JIT */
    STEPS_FLOOR = 128,        /* a byte of text, and one more for each byte of the pattern; */
    STEPS_PATTERN_MAX = 1024, /* measured: patterns in use take 1 to 13 on any text */
};

struct regex {
    pcre2_code *code;
    size_t pattern_size;
};

/* Compiles a pattern in PCRE2's own dialect. */
static enum status compile(const struct buf *pattern, struct regex **ret_regex, struct err *err)
{
    /* Multi-line because Ruby's ^ and $ always are; callouts for the budget. */
    const uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE | PCRE2_AUTO_CALLOUT;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    struct regex *regex = xalloc(sizeof(*regex));
    PCRE2_SIZE offset;
    int error;

    ENSURE(context != NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, MAX_NESTING);
    regex->pattern_size = pattern->len;
    regex->code = pcre2_compile((PCRE2_SPTR)buf_str(pattern), pattern->len, options, &error,
                                &offset, context);
    pcre2_compile_context_free(context);
    if (regex->code == NULL) {
        PCRE2_UCHAR text[160] = "";

        pcre2_get_error_message(error, text, sizeof(text));
        regex_destroy(&regex);
        return err_set(err, STATUS_INVALID, "%s", (char *)text);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without it the interpreter matches */
    *ret_regex = regex;
    return STATUS_OK;
}

enum status regex_create(const char *pattern, size_t size, struct regex **ret_regex,
                         struct err *err)
{
    struct buf translated = {0};
    enum status status;

    if (size > REGEX_MAX_BYTES) {
        return err_set(err, STATUS_LIMIT, "a pattern of %zu bytes (at most %d)", size,
                       REGEX_MAX_BYTES);
    }
    status = regex_translate(pattern, size, &translated, err);
    if (status == STATUS_OK) {
        status = compile(&translated, ret_regex, err);
    }
    if (status != STATUS_OK) {
        err_prefix(err, "\"%.*s\"", (int)MIN(size, 200), pattern);
    }
    buf_release(&translated);
    return status;
}

enum status regex_create_word(struct regex **ret_regex, struct err *err)
{
    struct buf pattern = {0};
    enum status status;

    buf_append_str(&pattern, "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]");
    status = compile(&pattern, ret_regex, err);
    buf_release(&pattern);
    return status;
}

enum status regex_create_literal(const char *text, size_t size, struct regex **ret_regex,
                                 struct err *err)
{
    struct buf pattern = {0};
    enum status status;

    if (size > REGEX_MAX_BYTES / 2) {
        return err_set(err, STATUS_LIMIT, "a text of %zu bytes (at most %d)", size,
                       REGEX_MAX_BYTES / 2);
    }
    for (size_t i = 0; i < size; i++) {
        char c = text[i];

        if (c > ' ' && c <= '~' && strchr("\\^$.[]|()?*+{}", c) != NULL) {
            buf_append_char(&pattern, '\\');
        }
        buf_append_char(&pattern, c);
    }
    status = regex_create(buf_str(&pattern), pattern.len, ret_regex, err);
    buf_release(&pattern);
    return status;
}

void regex_destroy(struct regex **regex)
{
    if (*regex != NULL) {
        pcre2_code_free((*regex)->code);
        free(*regex);
        *regex = NULL;
    }
}

uint64_t regex_steps_per_byte(const struct regex *regex)
{
    return STEPS_FLOOR + (uint64_t)MIN(regex->pattern_size, (size_t)STEPS_PATTERN_MAX);
}

/* Where a match attempt stands, for the count of what lies between two items. */
struct progress {
    struct regex_run *run;
    size_t at;
};

/* PCRE2 calls it before every item of the pattern. */
static int count_steps(pcre2_callout_block *block, void *data)
{
    struct progress *progress = data;
    struct regex_run *run = progress->run;
    size_t at = block->current_position;
    uint64_t steps = 1 + (at > progress->at ? at - progress->at : progress->at - at);

    progress->at = at;
    if (steps > run->steps_left) {
        run->steps_left = 0;
        return PCRE2_ERROR_MATCHLIMIT;
    }
    run->steps_left -= steps;
    return 0;
}

static enum status prepare(struct regex_run *run)
{
    if (run->match == NULL) {
        run->match = pcre2_match_data_create(1, NULL);
        run->context = pcre2_match_context_create(NULL);
        if (run->match == NULL || run->context == NULL) {
            return STATUS_NO_MEMORY;
        }
        pcre2_set_match_limit(run->context, UINT32_MAX); /* the steps are the limit */
        pcre2_set_heap_limit(run->context, HEAP_KIB);
    }
    return STATUS_OK;
}

enum status regex_search(const struct regex *regex, struct regex_run *run,
                         const struct tokenizer_text *text, size_t start, size_t *ret_start,
                         size_t *ret_end)
{
    struct progress progress = {run, start};
    enum status status = prepare(run);
    const PCRE2_SIZE *ends;
    int n;

    if (status != STATUS_OK) {
        return status;
    }
    pcre2_set_callout(run->context, count_steps, &progress);
    n = pcre2_match(regex->code, (PCRE2_SPTR)text->data, text->size, start, PCRE2_NO_UTF_CHECK,
                    run->match, run->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT && run->stack == NULL) {
        run->stack = pcre2_jit_stack_create(STACK_BYTES / 64, STACK_BYTES, NULL);
        if (run->stack == NULL) {
            return STATUS_NO_MEMORY;
        }
        pcre2_jit_stack_assign(run->context, NULL, run->stack);
        progress.at = start;
        n = pcre2_match(regex->code, (PCRE2_SPTR)text->data, text->size, start, PCRE2_NO_UTF_CHECK,
                        run->match, run->context);
    }
    if (n == PCRE2_ERROR_NOMATCH) {
        return STATUS_NOT_FOUND;
    }
    if (n < 0) {
        return n == PCRE2_ERROR_NOMEMORY ? STATUS_NO_MEMORY : STATUS_LIMIT;
    }
    ends = pcre2_get_ovector_pointer(run->match);
    *ret_start = ends[0];
    *ret_end = ends[1];
    return STATUS_OK;
}

void regex_run_release(struct regex_run *run)
{
    pcre2_match_data_free(run->match);
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->stack);
    *run = (struct regex_run){0};
}
