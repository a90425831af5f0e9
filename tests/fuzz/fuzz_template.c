/* SPDX-License-Identifier: Apache-2.0 */
/* Templates from outside: the text up to a zero byte is the template, what follows the variables.
 */
#include "chat/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *parse_variables(const char *text, size_t size)
{
    json_t *variables = NULL;

    if (size == 0 || json_parse(text, size, &variables, NULL) != STATUS_OK) {
        variables = json_pack("{s:[{s:s,s:s}],s:n,s:b}", "messages", "role", "user", "content",
                              "Hi \xc3\xa9", "tools", "add_generation_prompt", 1);
    }
    return variables;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t n = size == 0 ? 0 : strnlen(text, size);
    struct chat_template *template = NULL;
    struct buf message = {0};
    struct buf out = {0};
    struct err err = {0};
    json_t *variables;

    if (chat_template_create(text, n, &template, &err) != STATUS_OK) {
        return 0;
    }
    variables = n < size ? parse_variables(text + n + 1, size - n - 1) : parse_variables("", 0);
    if (chat_template_render(template, variables, &out, &message) != STATUS_OK) {
        ENSURE(out.len == 0);
    }
    json_decref(variables);
    chat_template_destroy(&template);
    buf_release(&message);
    buf_release(&out);
    return 0;
}
