/* SPDX-License-Identifier: Apache-2.0 */
/* Which template is taken and what it is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "chat/prompt.h"

static json_t *parse(const char *text)
{
    json_t *value = NULL;

    assert_int_equal(json_parse(text, strlen(text), &value, NULL), STATUS_OK);
    return value;
}

static void add_config(struct chat_prompt *prompt, const char *text)
{
    json_t *config = parse(text);
    struct err err = {0};

    chat_prompt_set_tokens(prompt, config);
    assert_int_equal(chat_prompt_add_config(prompt, config, &err), STATUS_OK);
    json_decref(config);
}

static void check(const struct chat_prompt *prompt, const char *request, enum status status,
                  const char *expected)
{
    json_t *json = parse(request);
    struct buf message = {0};
    struct buf out = {0};

    assert_int_equal(chat_prompt_render(prompt, json, &out, &message), status);
    assert_string_equal(buf_str(status == STATUS_OK ? &out : &message), expected);
    json_decref(json);
    buf_release(&message);
    buf_release(&out);
}

static void test_named(void **state)
{
    struct chat_prompt *prompt = chat_prompt_new();

    (void)state;
    assert_true(chat_prompt_is_empty(prompt));
    add_config(prompt, "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"},"
                       "{\"name\": \"tool_use\", \"template\": \"T\"}]}");
    assert_false(chat_prompt_is_empty(prompt));
    check(prompt, "{}", STATUS_OK, "D");
    check(prompt, "{\"tools\": null}", STATUS_OK, "D");
    check(prompt, "{\"tools\": []}", STATUS_OK, "T");
    chat_prompt_add(prompt, "tool_use", "{% include %}", 13);
    check(prompt, "{\"tools\": []}", STATUS_INVALID, "line 1: tag 'include' is not supported");
    check(prompt, "[]", STATUS_INVALID, "the request must be an object");
    chat_prompt_destroy(&prompt);
    assert_null(prompt);
}

static void test_without_default(void **state)
{
    struct chat_prompt *prompt = chat_prompt_new();

    (void)state;
    chat_prompt_add(prompt, "tool_use", "T", 1);
    check(prompt, "{\"tools\": [1]}", STATUS_OK, "T");
    check(prompt, "{}", STATUS_INVALID,
          "the model has several chat templates, and none is named default");
    chat_prompt_destroy(&prompt);
}

static void test_variables(void **state)
{
    struct chat_prompt *prompt = chat_prompt_new();

    (void)state;
    add_config(prompt, "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\","
                       "\"unk_token\": null, \"add_bos_token\": true, \"chat_template\": "
                       "\"{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}"
                       "{{ tools is none }}{{ add_generation_prompt }}{{ x }}\"}");
    chat_prompt_set_token(prompt, "pad_token", "\xff", 1);
    check(prompt, "{\"x\": 1}", STATUS_OK, "<s></s>FalseTrueTrue1");
    check(prompt, "{\"eos_token\": \"E\", \"add_generation_prompt\": false}", STATUS_OK,
          "<s>EFalseTrueFalse");
    chat_prompt_destroy(&prompt);
}

static void test_bad_config(void **state)
{
    static const struct {
        const char *config;
        const char *error;
    } cases[] = {
        {"{\"chat_template\": 1}", "chat_template: must be a string or a list"},
        {"{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"}, {\"name\": 1}]}",
         "chat_template[1]: must be {\"name\": string, \"template\": string}"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct chat_prompt *prompt = chat_prompt_new();
        json_t *config = parse(cases[i].config);
        struct err err = {0};

        assert_int_equal(chat_prompt_add_config(prompt, config, &err), STATUS_INVALID);
        assert_string_equal(err.text, cases[i].error);
        json_decref(config);
        chat_prompt_destroy(&prompt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_without_default),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_bad_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
