/* SPDX-License-Identifier: Apache-2.0 */
/* The man page and docs/options.md: complete, well-formed, and the ones in docs/ are up to date. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "config/options_priv.h"

/* text with the roff escapes that the page uses undone, so that it can be searched. */
static void plain(const char *text, struct buf *out)
{
    static const struct {
        const char *escape;
        const char *text;
    } escapes[] = {{"\\-", "-"}, {"\\(aq", "'"}, {"\\e", "\\"}, {"\\&", ""},
                   {"\\fB", ""}, {"\\fI", ""},   {"\\fR", ""},  {"\\(bu", "*"}};

    while (*text != '\0') {
        size_t i = 0;

        while (i < ARRAY_LEN(escapes) &&
               strncmp(text, escapes[i].escape, strlen(escapes[i].escape)) != 0) {
            i++;
        }
        if (i < ARRAY_LEN(escapes)) {
            buf_append_str(out, escapes[i].text);
            text += strlen(escapes[i].escape);
        } else {
            assert_int_not_equal(*text, '\\'); /* any other escape would show in the page */
            buf_append_char(out, *text++);
        }
    }
}

/* Words compare equal however their lines are broken. */
static void unbreak(struct buf *buf)
{
    for (size_t i = 0; i < buf->len; i++) {
        buf->data[i] = buf->data[i] == '\n' ? ' ' : buf->data[i];
    }
}

static void append_man_body(struct buf *out)
{
    struct buf page = {0};
    const char *body;

    options_man(&page);
    body = strstr(page.data, ".TH"); /* after the comments */
    assert_non_null(body);
    plain(body, out);
    buf_release(&page);
}

static void check_complete(const struct buf *text)
{
    for (unsigned c = 0; c < COMMAND_COUNT; c++) {
        if (strstr(text->data, command_infos[c].summary) == NULL) {
            fail_msg("the command %s is missing", command_infos[c].name);
        }
    }
    for (size_t i = 0; i < n_option_infos; i++) {
        if (strstr(text->data, option_infos[i].flag) == NULL) {
            fail_msg("%s is missing", option_infos[i].flag);
        }
        if (option_infos[i].help != NULL && strstr(text->data, option_infos[i].help) == NULL) {
            fail_msg("the text of %s is missing", option_infos[i].flag);
        }
    }
}

static void test_man_is_complete(void **state)
{
    struct buf text = {0};

    (void)state;
    append_man_body(&text);
    for (const char *at = text.data; *at != '\0'; at += strcspn(at, "\n") + 1) {
        assert_true(strcspn(at, "\n") <= 80);
    }
    unbreak(&text);
    check_complete(&text);
    assert_non_null(strstr(text.data, ".SH FILES "));
    assert_non_null(strstr(text.data, ".SH ENVIRONMENT "));
    assert_non_null(strstr(text.data, ".SH EXIT STATUS "));
    assert_non_null(strstr(text.data, OPTIONS_SYSTEM_FILE));
    buf_release(&text);
}

/* Every line that begins like a request is one, and what is opened is closed. */
static void test_man_is_well_formed(void **state)
{
    static const char *const requests[] = {".TH ",    ".SH ",          ".SS ",  ".TP\n", ".PP\n",
                                           ".br\n",   ".sp\n",         ".nf\n", ".fi\n", ".RE\n",
                                           ".RS 4\n", ".IP \\(bu 2\n", ".\\\" "};
    struct buf page = {0};
    int n_open = 0;
    int n_bold = 0;

    (void)state;
    options_man(&page);
    for (const char *at = page.data; *at != '\0'; at += strcspn(at, "\n") + 1) {
        size_t i = 0;

        assert_int_not_equal(*at, '\'');
        assert_int_not_equal(*at, '\n'); /* an empty line breaks a paragraph */
        if (*at != '.') {
            continue;
        }
        while (i < ARRAY_LEN(requests) && strncmp(at, requests[i], strlen(requests[i])) != 0) {
            i++;
        }
        assert_true(i < ARRAY_LEN(requests));
        n_open += strncmp(at, ".nf", 3) == 0 || strncmp(at, ".RS", 3) == 0;
        n_open -= strncmp(at, ".fi", 3) == 0 || strncmp(at, ".RE", 3) == 0;
    }
    assert_int_equal(n_open, 0);
    for (const char *at = page.data; (at = strstr(at, "\\f")) != NULL; at += 2) {
        n_bold += at[2] == 'R' ? -1 : 1;
        assert_in_range(n_bold, 0, 1);
    }
    assert_int_equal(n_bold, 0);
    buf_release(&page);
}

static void test_markdown_is_complete(void **state)
{
    struct buf text = {0};

    (void)state;
    options_markdown(&text);
    for (const char *at = text.data; *at != '\0'; at += strcspn(at, "\n") + 1) {
        size_t n_bars = 0;

        for (size_t i = 0; i < strcspn(at, "\n"); i++) {
            n_bars += at[i] == '|' && (i == 0 || at[i - 1] != '\\');
        }
        assert_true(*at != '|' || n_bars == 4); /* three cells */
    }
    check_complete(&text);
    buf_release(&text);
}

static void check_file(const char *path, void (*write)(struct buf *buf), const char *command)
{
    struct buf wanted = {0};
    struct buf there = {0};
    struct err err = {0};

    write(&wanted);
    if (file_read_all(path, 1 << 20, &there, &err) != STATUS_OK) {
        fail_msg("%s; write it with: %s", err.text, command);
    }
    if (strcmp(buf_str(&there), buf_str(&wanted)) != 0) {
        fail_msg("%s is not up to date; write it anew with: %s", path, command);
    }
    buf_release(&there);
    buf_release(&wanted);
}

static void test_docs_are_up_to_date(void **state)
{
    (void)state;
    check_file(TEST_SOURCE_DIR "/docs/lockstep.1", options_man, "lockstep --man > docs/lockstep.1");
    check_file(TEST_SOURCE_DIR "/docs/options.md", options_markdown,
               "lockstep --options-md > docs/options.md");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_man_is_complete),
        cmocka_unit_test(test_man_is_well_formed),
        cmocka_unit_test(test_markdown_is_complete),
        cmocka_unit_test(test_docs_are_up_to_date),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
