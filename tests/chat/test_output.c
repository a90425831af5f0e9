/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of models taken apart, cut in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "chat/output.h"

struct output_case {
    const char *name;
    struct output_options options;
    const char *text;
    const char *events;
};

#define THINKS .reasoning = true
#define TAGGED .tools = true, .forms = OUTPUT_FORM_TAGGED
#define XML    .tools = true, .forms = OUTPUT_FORM_XML
#define BARE   .tools = true, .forms = OUTPUT_FORM_BARE
#define ARRAY  .tools = true, .forms = OUTPUT_FORM_ARRAY

/* The tools that the XML cases call. */
#define OUTPUT_TOOLS                                                                            \
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": "     \
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"n\": {\"type\": "         \
    "\"integer\"}, \"x\": {\"type\": \"number\"}, \"on\": {\"type\": \"boolean\"}, \"list\": "  \
    "{\"type\": \"array\"}, \"o\": {\"type\": \"object\"}, \"maybe\": {\"anyOf\": [{\"type\": " \
    "\"string\"}, {\"type\": \"null\"}]}, \"either\": {\"type\": [\"integer\", \"string\"]}, "  \
    "\"pick\": {\"enum\": [\"1\", \"2\"]}}}}}, {\"name\": \"flat\", \"input_schema\": "         \
    "{\"properties\": {\"n\": {\"type\": \"number\"}}}}]"

static const struct output_case output_cases[] = {
#include "outputs.def"
};

enum { RANDOM_CUTS = 200, TEXT_MAX = 4096 };

static const char *const kind_names[] = {"content", "reasoning", "name", "arguments", "end"};

/* Events joined. */
struct heard {
    struct buf lines;
    struct buf text;
    enum output_kind kind;
    uint32_t index;
    uint32_t n;
};

static void end_line(struct heard *heard)
{
    if (heard->n++ == 0) {
        return;
    }
    buf_append_str(&heard->lines, kind_names[heard->kind]);
    if (heard->kind >= OUTPUT_TOOL_NAME) {
        buf_printf(&heard->lines, " %u", heard->index);
    }
    if (heard->kind != OUTPUT_TOOL_END) {
        buf_append_char(&heard->lines, ' ');
        json_write_str(&heard->lines, buf_str(&heard->text), heard->text.len, false);
    }
    buf_append_char(&heard->lines, '\n');
    buf_clear(&heard->text);
}

static void hear(void *arg, const struct output_event *event)
{
    struct heard *heard = arg;
    bool goes_on = heard->n > 0 && event->kind == heard->kind && event->index == heard->index &&
                   event->kind != OUTPUT_TOOL_NAME;

    assert_true(event->n > 0 || event->kind == OUTPUT_TOOL_END);
    assert_true(utf8_is_valid(event->text, event->n));
    if (!goes_on) {
        end_line(heard);
    }
    heard->kind = event->kind;
    heard->index = event->index;
    buf_append(&heard->text, event->text, event->n);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static json_t *tools(void)
{
    json_t *value = NULL;

    assert_int_equal(json_parse(OUTPUT_TOOLS, strlen(OUTPUT_TOOLS), &value, NULL), STATUS_OK);
    return value;
}

static bool is_inside(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* How much to push next: all (seed 0), a character (1), else up to some at random. */
static size_t piece(const char *text, size_t left, uint32_t seed, uint32_t *state)
{
    size_t n = seed == 0 ? left : seed == 1 ? 1 : 1 + next_random(state) % (2 + seed % 20);

    n = MIN(n, left);
    while (n < left && is_inside(text[n])) {
        n++;
    }
    return n;
}

static uint32_t run(struct output_options options, const char *text, uint32_t seed,
                    struct buf *ret_lines)
{
    struct output_parser *parser = NULL;
    struct heard heard = {0};
    uint32_t state = seed;
    uint32_t n_calls;
    json_t *schemas = tools();

    options.schemas = schemas;
    assert_int_equal(output_parser_create(&options, &parser, NULL), STATUS_OK);
    for (size_t at = 0, left = strlen(text); left > 0;) {
        /* of its exact size, so that a sanitizer sees a read past the end */
        size_t n = piece(text + at, left, seed, &state);
        char *copy = malloc(n);

        memcpy(copy, text + at, n);
        output_parser_push(parser, copy, n, hear, &heard);
        free(copy);
        at += n;
        left -= n;
    }
    output_parser_finish(parser, hear, &heard);
    end_line(&heard);
    n_calls = output_parser_n_calls(parser);
    output_parser_destroy(&parser);
    assert_null(parser);
    json_decref(schemas);
    buf_release(&heard.text);
    *ret_lines = heard.lines;
    return n_calls;
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(output_cases); i++) {
        const struct output_case *c = &output_cases[i];

        for (uint32_t seed = 0; seed < RANDOM_CUTS; seed++) {
            struct buf lines = {0};

            run(c->options, c->text, seed, &lines);
            if (strcmp(buf_str(&lines), c->events) != 0) {
                print_error("case \"%s\", seed %u\n", c->name, seed);
            }
            assert_string_equal(buf_str(&lines), c->events);
            buf_release(&lines);
        }
    }
}

/* Texts put together from pieces of the cases: cuts must not matter, and without calls and tags
 * nothing may be lost. */
static void test_random(void **state)
{
    static const uint32_t forms[] = {OUTPUT_FORM_TAGGED, OUTPUT_FORM_XML, OUTPUT_FORM_BARE,
                                     OUTPUT_FORM_ARRAY, 15};
    uint32_t random = 7;

    (void)state;
    for (uint32_t round = 0; round < 3000; round++) {
        char text[TEXT_MAX];
        struct buf whole = {0};
        struct buf cut = {0};
        struct output_options options = {.reasoning = round % 2 == 0,
                                         .reasoning_open = round % 4 == 0,
                                         .tools = true,
                                         .forms = forms[round % ARRAY_LEN(forms)]};
        size_t n = 0;

        for (uint32_t i = 1 + next_random(&random) % 6; i > 0; i--) {
            const struct output_case *c =
                &output_cases[next_random(&random) % ARRAY_LEN(output_cases)];
            size_t len = strlen(c->text);
            size_t from = len == 0 ? 0 : next_random(&random) % len;
            size_t to = len == 0 ? 0 : from + next_random(&random) % (len - from + 1);

            while (from < to && is_inside(c->text[from])) {
                from++;
            }
            while (to > from && is_inside(c->text[to])) {
                to--;
            }
            memcpy(text + n, c->text + from, to - from);
            n += to - from;
        }
        text[n] = '\0';
        assert_int_equal(run(options, text, 0, &whole),
                         run(options, text, 1 + next_random(&random) % 50, &cut));
        assert_string_equal(buf_str(&whole), buf_str(&cut));
        buf_release(&whole);
        buf_release(&cut);
    }
}

/* Random values, with all that needs care in strings. */
static json_t *random_value(uint32_t *random, int depth)
{
    static const char *const texts[] = {"",        "x",
                                        "a\nb",    "\"quoted\" \\ back",
                                        "\x01\t",  "K\xc3\xb6ln",
                                        "{[,:]}",  "</tool_call>",
                                        "\\u00e9", "\xf0\x9f\x98\x80",
                                        "null",    "<parameter=a>"};
    json_t *value;

    switch (next_random(random) % (depth < 4 ? 8 : 6)) {
    case 0:
        return json_integer((json_int_t)next_random(random) - 1000000);
    case 1:
        return json_real((double)next_random(random) / 1024 - 7);
    case 2:
        return json_boolean(next_random(random) % 2);
    case 3:
        return json_null();
    case 6:
        value = json_array();
        for (uint32_t n = next_random(random) % 4; n > 0; n--) {
            json_array_append_new(value, random_value(random, depth + 1));
        }
        return value;
    case 7:
        value = json_object();
        for (uint32_t n = next_random(random) % 4; n > 0; n--) {
            json_object_set_new(value, texts[next_random(random) % ARRAY_LEN(texts)],
                                random_value(random, depth + 1));
        }
        return value;
    default:
        return json_string(texts[next_random(random) % ARRAY_LEN(texts)]);
    }
}

static json_t *random_object(uint32_t *random)
{
    json_t *object = json_object();

    for (uint32_t n = next_random(random) % 5; n > 0; n--) {
        char key[8];

        snprintf(key, sizeof(key), "k%u", next_random(random) % 10);
        json_object_set_new(object, key, random_value(random, 0));
    }
    return object;
}

enum { WRITE_OBJECT, WRITE_STRING, WRITE_BEFORE_NAME, WRITE_BARE, WRITE_XML, N_WRITES };

/* A call of f as a model may write it. */
static void write_call(struct buf *text, const json_t *arguments, int how, bool ascii)
{
    struct json_style style = ascii ? json_style_python : json_style_compact;
    struct buf json = {0};
    const char *key;
    json_t *value;

    style.ascii = ascii;
    json_write(&json, arguments, &style);
    if (how == WRITE_OBJECT) {
        buf_printf(text, "<tool_call>{\"name\":\"f\",\"arguments\":%s}</tool_call>", json.data);
    } else if (how == WRITE_STRING) {
        buf_append_str(text, "<tool_call>{\"name\":\"f\",\"arguments\":");
        json_write_str(text, json.data, json.len, ascii);
        buf_append_str(text, "}</tool_call>");
    } else if (how == WRITE_BEFORE_NAME) {
        buf_printf(text, "<tool_call>{\"arguments\":%s ,\"name\":\"f\"}</tool_call>", json.data);
    } else if (how == WRITE_BARE) {
        buf_printf(text, "{\"name\":\"f\",\"parameters\":%s}", json.data);
    } else {
        buf_append_str(text, "<tool_call>\n<function=f>\n");
        json_object_foreach((json_t *)arguments, key, value)
        {
            buf_printf(text, "<parameter=%s>\n", key);
            if (json_is_string(value)) {
                buf_append_str(text, json_string_value(value));
            } else {
                json_write(text, value, &style);
            }
            buf_append_str(text, "\n</parameter>\n");
        }
        buf_append_str(text, "</function>\n</tool_call>");
    }
    buf_release(&json);
}

/* A schema for f that knows the types of arguments; new. */
static json_t *schema_of(const json_t *arguments)
{
    static const char *const types[] = {
        [JSON_OBJECT] = "object", [JSON_ARRAY] = "array",    [JSON_STRING] = "string",
        [JSON_REAL] = "number",   [JSON_INTEGER] = "number", [JSON_TRUE] = "boolean",
        [JSON_FALSE] = "boolean", [JSON_NULL] = "null"};
    json_t *properties = json_object();
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)arguments, key, value)
    {
        json_object_set_new(properties, key, json_pack("{s:s}", "type", types[json_typeof(value)]));
    }
    return json_pack("[{s:{s:s,s:{s:o}}}]", "function", "name", "f", "parameters", "properties",
                     properties);
}

static void keep_arguments(void *arg, const struct output_event *event)
{
    assert_true(event->kind >= OUTPUT_TOOL_NAME);
    if (event->kind == OUTPUT_TOOL_ARGUMENTS) {
        buf_append(arg, event->text, event->n);
    }
}

/* What a model means arrives, in every form: the arguments joined are JSON of the same value. */
static void test_arguments(void **state)
{
    uint32_t random = 3;

    (void)state;
    for (int round = 0; round < 4000; round++) {
        int how = round % N_WRITES;
        struct output_options options = {
            .tools = true, .forms = how == WRITE_BARE ? OUTPUT_FORM_BARE : OUTPUT_FORM_TAGGED};
        json_t *arguments = random_object(&random);
        json_t *schemas = schema_of(arguments);
        struct output_parser *parser = NULL;
        struct buf text = {0};
        struct buf joined = {0};
        json_t *value = NULL;

        options.schemas = schemas;
        write_call(&text, arguments, how, round % 3 == 0);
        assert_int_equal(output_parser_create(&options, &parser, NULL), STATUS_OK);
        for (size_t at = 0; at < text.len; at += 7) {
            output_parser_push(parser, text.data + at, MIN(7, text.len - at), keep_arguments,
                               &joined);
        }
        output_parser_finish(parser, keep_arguments, &joined);
        assert_int_equal(output_parser_n_calls(parser), 1);
        assert_int_equal(json_parse(buf_str(&joined), joined.len, &value, NULL), STATUS_OK);
        assert_true(json_equal(value, arguments));
        json_decref(value);
        json_decref(arguments);
        json_decref(schemas);
        output_parser_destroy(&parser);
        buf_release(&text);
        buf_release(&joined);
    }
}

/* What comes out at once: only what may still become a tag is held back. */
static void test_prompt_release(void **state)
{
    static const struct {
        const char *push;
        const char *events; /* joined so far */
    } steps[] = {
        {"Hello", "content \"Hello\"\n"},
        {" wor", "content \"Hello wor\"\n"},
        {"ld\n", "content \"Hello world\"\n"},
        {"<", "content \"Hello world\"\n"},
        {"b", "content \"Hello world\\n<b\"\n"},
        {"<tool_call>{\"name\": \"f\"", "content \"Hello world\\n<b\"\nname 0 \"f\"\n"},
        {", \"arguments\": {\"a", "content \"Hello world\\n<b\"\nname 0 \"f\"\narguments 0 "
                                  "\"{\\\"a\"\n"},
        {"\": 1", "content \"Hello world\\n<b\"\nname 0 \"f\"\narguments 0 \"{\\\"a\\\": 1\"\n"},
        {"}}", "content \"Hello world\\n<b\"\nname 0 \"f\"\narguments 0 \"{\\\"a\\\": 1}\"\nend "
               "0\n"},
    };
    struct output_options options = {THINKS, TAGGED, .max_calls = 1};
    struct output_parser *parser = NULL;
    struct heard heard = {0};

    (void)state;
    assert_int_equal(output_parser_create(&options, &parser, NULL), STATUS_OK);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct heard now;

        assert_false(output_parser_is_full(parser));
        output_parser_push(parser, steps[i].push, strlen(steps[i].push), hear, &heard);
        now = (struct heard){.kind = heard.kind, .index = heard.index, .n = heard.n};
        buf_append(&now.lines, buf_str(&heard.lines), heard.lines.len);
        buf_append(&now.text, buf_str(&heard.text), heard.text.len);
        end_line(&now);
        assert_string_equal(buf_str(&now.lines), steps[i].events);
        buf_release(&now.lines);
        buf_release(&now.text);
    }
    assert_true(output_parser_is_full(parser));
    assert_int_equal(output_parser_n_calls(parser), 1);
    output_parser_destroy(&parser);
    output_parser_destroy(&parser);
    buf_release(&heard.lines);
    buf_release(&heard.text);
}

static void test_deep(void **state)
{
    enum { DEPTH = 200000 };
    struct output_options options = {TAGGED};
    struct buf text = {0};
    struct buf lines = {0};

    (void)state;
    buf_append_str(&text, "<tool_call>{\"name\": \"f\", \"arguments\": ");
    for (int i = 0; i < DEPTH; i++) {
        buf_append_char(&text, '[');
    }
    for (int i = 0; i < DEPTH; i++) {
        buf_append_char(&text, ']');
    }
    buf_append_str(&text, "}</tool_call>");
    assert_int_equal(run(options, text.data, 0, &lines), 1);
    assert_int_equal(strncmp(lines.data, "name 0 \"f\"\narguments 0 \"[[[", 25), 0);
    assert_non_null(strstr(lines.data, "]]]\"\nend 0\n"));
    buf_release(&lines);
    buf_clear(&text);
    for (int i = 0; i < DEPTH; i++) {
        buf_append_str(&text, "<tool_call>");
    }
    assert_int_equal(run(options, text.data, 0, &lines), 0);
    assert_int_equal(lines.len, text.len + strlen("content \"\"\n"));
    buf_release(&lines);
    buf_release(&text);
}

static void test_refused(void **state)
{
    struct output_options options = {THINKS, .think_end = ""};
    struct output_parser *parser = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(output_parser_create(&options, &parser, &err), STATUS_INVALID);
    assert_string_equal(err.text, "reasoning: a tag is empty");
    assert_null(parser);
}

static void check_detected(const char *template, bool reasoning, uint32_t forms)
{
    struct chat_prompt *prompt = chat_prompt_new();
    struct output_options options = {.tools = true, .max_calls = 3};

    chat_prompt_add(prompt, "default", template, strlen(template));
    output_options_detect(prompt, true, &options);
    assert_int_equal(options.reasoning, reasoning);
    assert_int_equal(options.forms, forms);
    assert_true(options.tools);
    assert_int_equal(options.max_calls, 3);
    chat_prompt_destroy(&prompt);
}

static void test_detect(void **state)
{
    struct chat_prompt *prompt = chat_prompt_new();
    struct output_options options = {0};

    (void)state;
    check_detected("{{ '<tool_call>' }}<think>", true, OUTPUT_FORM_TAGGED);
    check_detected("{% if '</think>' in content %}", true, OUTPUT_FORM_TAGGED);
    check_detected("{{ 'hi' }}", false, OUTPUT_FORM_TAGGED);
    check_detected("<tool_call>\n<function=", false, OUTPUT_FORM_XML);
    check_detected("[TOOL_CALLS]", false, OUTPUT_FORM_ARRAY);
    check_detected("{{- '\"parameters\": ' }}", false, OUTPUT_FORM_BARE);
    check_detected("\"parameters\": <tool_call>", false, OUTPUT_FORM_TAGGED);
    output_options_detect(prompt, false, &options);
    assert_false(options.reasoning);
    chat_prompt_add(prompt, "default", "plain", 5);
    chat_prompt_add(prompt, "tool_use", "[TOOL_CALLS][THINK]", 19);
    output_options_detect(prompt, false, &options);
    assert_false(options.reasoning);
    output_options_detect(prompt, true, &options);
    assert_true(options.reasoning);
    assert_string_equal(options.think_end, "[/THINK]");
    assert_int_equal(options.forms, OUTPUT_FORM_ARRAY);
    chat_prompt_destroy(&prompt);
}

static void test_prompt_opens(void **state)
{
    static const struct {
        const char *text;
        bool is_open;
    } prompts[] = {
        {"", false},
        {"<|Assistant|>", false},
        {"<|Assistant|><think>\n", true},
        {"<|Assistant|><think>", true},
        {"<think>\n\n</think>\n\n", false},
        {"think>\n", false},
        {"\n \n", false},
    };
    struct output_options options = {THINKS};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(prompts); i++) {
        output_options_set_prompt(&options, prompts[i].text, strlen(prompts[i].text));
        assert_int_equal(options.reasoning_open, prompts[i].is_open);
    }
    options.reasoning = false;
    output_options_set_prompt(&options, "<think>", 7);
    assert_false(options.reasoning_open);
}

static void check_forced(struct output_options options, const char *name, const char *prefix,
                         const char *rest, const char *events)
{
    struct buf text = {0};
    struct buf lines = {0};

    output_force_prefix(&options, name, &text);
    assert_string_equal(buf_str(&text), prefix);
    buf_append_str(&text, rest);
    run(options, text.data, 1, &lines);
    assert_string_equal(buf_str(&lines), events);
    buf_release(&text);
    buf_release(&lines);
}

static void test_force(void **state)
{
    static const char called[] = "name 0 \"f\"\narguments 0 \"{}\"\nend 0\n";

    (void)state;
    check_forced((struct output_options){TAGGED}, "f",
                 "<tool_call>\n{\"name\": \"f\", \"arguments\": {", "}}\n</tool_call>", called);
    check_forced((struct output_options){TAGGED}, NULL, "<tool_call>\n{\"name\": \"",
                 "f\", \"arguments\": {}}\n</tool_call>", called);
    check_forced((struct output_options){THINKS, TAGGED, .reasoning_open = true}, "f",
                 "\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {", "}}", called);
    check_forced((struct output_options){XML}, "f", "<tool_call>\n<function=f>\n",
                 "</function></tool_call>", called);
    check_forced((struct output_options){XML}, NULL,
                 "<tool_call>\n<function=", "f>\n</function></tool_call>", called);
    check_forced((struct output_options){BARE}, "f", "{\"name\": \"f\", \"parameters\": {", "}}",
                 called);
    check_forced((struct output_options){ARRAY}, "f",
                 "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {", "}}]", called);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),     cmocka_unit_test(test_random),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_prompt_release),
        cmocka_unit_test(test_deep),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_detect),    cmocka_unit_test(test_prompt_opens),
        cmocka_unit_test(test_force),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
