/* SPDX-License-Identifier: Apache-2.0 */
/* Templates in C: errors and the lines they name, bounds, threads. What they render is compared
 * with jinja2 by test_jinja_equal.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "base/mem.h"
#include "chat/template.h"

/* Renders source with {"x": [1, 2.5], "s": "a\0é"} into out or message; returns the status. */
static enum status render(const char *source, struct buf *out, struct buf *message)
{
    json_t *variables = json_pack("{s:[i,f],s:s%}", "x", 1, 2.5, "s", "a\0\xc3\xa9", 4);
    struct chat_template *template = NULL;
    struct err err = {0};
    enum status status = chat_template_create(source, strlen(source), &template, &err);

    if (status == STATUS_OK) {
        status = chat_template_render(template, variables, out, message);
    } else {
        buf_append_str(message, err.text);
    }
    chat_template_destroy(&template);
    json_decref(variables);
    return status;
}

static void check_text(const char *source, const char *expected)
{
    struct buf out = {0};
    struct buf message = {0};
    enum status status = render(source, &out, &message);

    assert_string_equal(buf_str(&message), "");
    assert_int_equal(status, STATUS_OK);
    assert_string_equal(buf_str(&out), expected);
    buf_release(&out);
    buf_release(&message);
}

static void check_error(const char *source, const char *expected)
{
    struct buf out = {0};
    struct buf message = {0};

    buf_append_str(&out, "before");
    assert_int_equal(render(source, &out, &message), STATUS_INVALID);
    assert_string_equal(buf_str(&message), expected);
    assert_string_equal(buf_str(&out), "before");
    buf_release(&out);
    buf_release(&message);
}

static void test_text(void **state)
{
    (void)state;
    check_text("", "");
    check_text("a\n", "a");
    check_text("{{ x }} {{ x|tojson }} {{ nothing }}", "[1, 2.5] [1, 2.5] ");
    check_text("{%- for i in x %}\n  {{ loop.index }}{{ i }}\n{%- endfor %}", "  11  22.5");
    check_text("{{ s|length }} {{ [s] }}", "3 ['a\\x00\xc3\xa9']");
    check_text("{% set x = 1 %}{% for i in [1, 2] %}{% set x = i %}{% endfor %}{{ x }}", "1");
}

static void test_zeros_are_kept(void **state)
{
    struct buf out = {0};
    struct buf message = {0};

    (void)state;
    assert_int_equal(render("<{{ s }}>", &out, &message), STATUS_OK);
    assert_int_equal(out.len, 6);
    assert_memory_equal(out.data, "<a\0\xc3\xa9>", 6);
    buf_clear(&out);
    assert_int_equal(render("{{ raise_exception(s) }}", &out, &message), STATUS_INVALID);
    assert_int_equal(message.len, 4);
    assert_memory_equal(message.data, "a\0\xc3\xa9", 4);
    buf_release(&out);
    buf_release(&message);
}

static void test_syntax_errors_name_their_line(void **state)
{
    static const struct {
        const char *source;
        const char *error;
    } cases[] = {
        {"a\n{{ 1 +", "line 2: unexpected 'end of template'"},
        {"\n\n{% if x %}",
         "line 3: Unexpected end of template. Jinja was looking for the tag 'elif'."},
        {"{% if x %}\n{% endfor %}", "line 2: Encountered unknown tag 'endfor'."},
        {"{{ x }\n}", "line 1: unexpected '}'"},
        {"{{ (x] }}", "line 1: unexpected ']', expected ')'"},
        {"{{ x\n\n$ }}", "line 3: unexpected char '$'"},
        {"{# a\n", "line 1: Missing end of comment tag"},
        {"\n{% raw %}\n", "line 2: Missing end of raw directive"},
        {"{% set 1 = 2 %}", "line 1: can't assign to a constant or an expression"},
        {"{% for loop in x %}{% endfor %}",
         "line 1: Can't assign to special loop variable in for-loop target"},
        {"{% break %}", "line 1: 'break' outside loop"},
        {"\n{{ x|nosuch }}", "line 2: No filter named 'nosuch'."},
        {"{{ x is\nnosuch }}", "line 1: No test named 'nosuch'."},
        {"{{ '\\ud800' }}", "line 1: lone surrogate \\ud800 in a string"},
        {"{% macro m(a=1, b) %}{% endmacro %}",
         "line 1: non-default argument follows default argument"},
        {"{{ x[1:2, 3] }}", "line 1: a slice inside of a tuple is not supported"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check_error(cases[i].source, cases[i].error);
    }
}

static void test_run_time_errors_name_their_line(void **state)
{
    static const struct {
        const char *source;
        const char *error;
    } cases[] = {
        {"{% for i in x %}\n{{ i.a.b }}\n{% endfor %}",
         "line 2: 'int object' has no attribute 'a'"},
        {"\n{{ no.way }}", "line 2: 'no' is undefined"},
        {"{{ x[9].a }}", "line 1: list object has no element 9"},
        {"{{ 1 + 'a' }}", "line 1: unsupported operand type(s) for +: 'int' and 'str'"},
        {"{{ 1 < 'a' }}", "line 1: '<' not supported between instances of 'int' and 'str'"},
        {"{{ x.append(1) }}", "line 1: access to attribute 'append' of 'list' object is unsafe."},
        {"{{ x.__class__.mro() }}",
         "line 1: access to attribute '__class__' of 'list' object is unsafe."},
        {"{% if 1 %}\n{{ x|nosuch }}{% endif %}", "line 2: No filter named 'nosuch' found."},
        {"{% macro m() %}\n{{ 1 // 0 }}\n{% endmacro %}\n\n{{ m() }}",
         "line 2: integer division or modulo by zero"},
        {"{{ raise_exception('as it is\\n') }}", "as it is\n"},
        {"{{ {[]: 1} }}", "line 1: unhashable type: 'list'"},
        {"{% set x.a = 1 %}", "line 1: cannot assign attribute on non-namespace object"},
        {"{{ 2 ** 63 }}", "line 1: integer result needs more than 64 bits"},
        {"{{ '%d' % 'a' }}", "line 1: %d format: a real number is required, not str"},
        {"{% for a, b in [[1]] %}{% endfor %}",
         "line 1: not enough values to unpack (expected 2, got 1)"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check_error(cases[i].source, cases[i].error);
    }
}

static void check_repeated(const char *unit, size_t n, const char *error)
{
    struct buf source = {0};

    for (size_t i = 0; i < n; i++) {
        buf_append_str(&source, unit);
    }
    check_error(buf_str(&source), error);
    buf_release(&source);
}

static void test_bounds(void **state)
{
    (void)state;
    check_repeated("{% if 1 %}", 100000, "line 1: template nests deeper than 200 levels");
    check_repeated("{{ (", 100000, "line 1: more than 256 nested brackets");
    check_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                "line 1: template nests deeper than 1500 levels");
    check_error("{% for i in range(9999) %}\n{% for j in range(9999) %}{% endfor %}{% endfor %}",
                "line 2: template needs more than 20000000 steps");
    check_error("{{ 'ab' * 99999999999 }}", "line 1: template makes a text of more than 128 MiB");
    check_error("{% set n = namespace(l=[1]) %}{% for i in range(60) %}\n"
                "{% set n.l = n.l + n.l %}{% endfor %}",
                "line 2: template needs more than 256 MiB of memory");
    check_error("{{ range(100001) }}",
                "line 1: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
}

static void test_bad_sources(void **state)
{
    struct chat_template *template = NULL;
    struct err err = {0};
    char *large = xcalloc(1, CHAT_TEMPLATE_MAX_BYTES + 1);

    (void)state;
    assert_int_equal(chat_template_create("\xff", 1, &template, &err), STATUS_INVALID);
    assert_string_equal(err.text, "template is not valid UTF-8");
    assert_int_equal(chat_template_create(large, CHAT_TEMPLATE_MAX_BYTES + 1, &template, &err),
                     STATUS_LIMIT);
    assert_null(template);
    chat_template_destroy(&template);
    free(large);
}

struct job {
    const struct chat_template *template;
    struct buf out;
};

static void *run_job(void *data)
{
    struct job *job = data;
    json_t *variables = json_pack("{s:[i,i]}", "x", 1, 2);
    struct buf message = {0};

    for (int i = 0; i < 200; i++) {
        buf_clear(&job->out);
        if (chat_template_render(job->template, variables, &job->out, &message) != STATUS_OK) {
            break;
        }
    }
    buf_release(&message);
    json_decref(variables);
    return NULL;
}

static void test_threads_share_a_template(void **state)
{
    static const char source[] = "{% macro m(a, b='c'|upper) %}{{ a }}{{ b }}{% endmacro %}"
                                 "{% for i in x|map('string') %}{{ m(i) }}{% endfor %}";
    struct job jobs[4] = {{0}};
    pthread_t threads[ARRAY_LEN(jobs)];
    struct chat_template *template = NULL;

    (void)state;
    assert_int_equal(chat_template_create(source, strlen(source), &template, NULL), STATUS_OK);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        jobs[i].template = template;
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        pthread_join(threads[i], NULL);
        assert_string_equal(buf_str(&jobs[i].out), "1C2C");
        buf_release(&jobs[i].out);
    }
    chat_template_destroy(&template);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_zeros_are_kept),
        cmocka_unit_test(test_syntax_errors_name_their_line),
        cmocka_unit_test(test_run_time_errors_name_their_line),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_bad_sources),
        cmocka_unit_test(test_threads_share_a_template),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
