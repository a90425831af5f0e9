/* SPDX-License-Identifier: Apache-2.0 */
/* What a model's template tells about its output. */
#include "chat/output.h"

static const struct {
    const char *begin;
    const char *end;
} think_tags[] = {
    {"<think>", "</think>"},
    {"<thinking>", "</thinking>"},
    {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"},
    {"\xe2\x97\x81think\xe2\x96\xb7", "\xe2\x97\x81/think\xe2\x96\xb7"},
};

static const struct {
    const char *text;
    uint32_t form;
} form_signs[] = {
    {"<function=", OUTPUT_FORM_XML},
    {"<tool_call>", OUTPUT_FORM_TAGGED},
    {"[TOOL_CALLS]", OUTPUT_FORM_ARRAY},
    {"\"parameters\": ", OUTPUT_FORM_BARE},
};

static bool mentions(const char *text, size_t n, const char *what)
{
    return n > 0 && memmem(text, n, what, strlen(what)) != NULL;
}

void output_options_detect(const struct chat_prompt *prompt, bool has_tools,
                           struct output_options *options)
{
    size_t n = 0;
    const char *text = chat_prompt_source(prompt, has_tools, &n);

    options->reasoning = false;
    options->think_begin = think_tags[0].begin;
    options->think_end = think_tags[0].end;
    for (size_t i = 0; i < ARRAY_LEN(think_tags) && !options->reasoning; i++) {
        if (mentions(text, n, think_tags[i].begin) || mentions(text, n, think_tags[i].end)) {
            options->reasoning = true;
            options->think_begin = think_tags[i].begin;
            options->think_end = think_tags[i].end;
        }
    }
    /* The first that is found: a template may describe its tools with words of another form. */
    options->forms = 0;
    for (size_t i = 0; i < ARRAY_LEN(form_signs) && options->forms == 0; i++) {
        if (mentions(text, n, form_signs[i].text)) {
            options->forms = form_signs[i].form;
        }
    }
    if (options->forms == 0) {
        options->forms = OUTPUT_FORM_TAGGED;
    }
}

void output_options_set_prompt(struct output_options *options, const char *text, size_t n)
{
    const char *begin = options->think_begin != NULL ? options->think_begin : "<think>";
    size_t len = strlen(begin);

    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL && text[n - 1] != '\0') {
        n--;
    }
    options->reasoning_open =
        options->reasoning && n >= len && memcmp(text + n - len, begin, len) == 0;
}

/* A JSON string without its last quote if the name is still to come. */
static void force_object(const char *before, const char *key, const char *name, struct buf *out)
{
    buf_append_str(out, before);
    buf_append_str(out, "{\"name\": ");
    if (name == NULL) {
        buf_append_char(out, '"');
        return;
    }
    json_write_str(out, name, strlen(name), false);
    buf_printf(out, ", \"%s\": {", key); /* arguments are an object */
}

void output_force_prefix(const struct output_options *options, const char *name, struct buf *out)
{
    if (options->reasoning && options->reasoning_open) {
        buf_append_str(out, "\n");
        buf_append_str(out, options->think_end != NULL ? options->think_end : "</think>");
        buf_append_str(out, "\n\n");
    }
    if ((options->forms & OUTPUT_FORM_XML) != 0) {
        buf_append_str(out, "<tool_call>\n<function=");
        if (name != NULL) {
            buf_append_str(out, name);
            buf_append_str(out, ">\n");
        }
    } else if ((options->forms & OUTPUT_FORM_TAGGED) != 0 || options->forms == 0) {
        force_object("<tool_call>\n", "arguments", name, out);
    } else if ((options->forms & OUTPUT_FORM_ARRAY) != 0) {
        force_object("[TOOL_CALLS][", "arguments", name, out);
    } else {
        force_object("", "parameters", name, out);
    }
}
