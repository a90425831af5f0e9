/* SPDX-License-Identifier: Apache-2.0 */
/* Events in, frames out, byte by byte; and a stream's frames against the whole answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "api/messages.h"
#include "api/responses.h"
#include "base/mem.h"

struct fixture {
    struct answer answer;
    struct generation g;
    struct token_ids prompt;
    struct said said;
    struct buf out;
};

static struct fixture *make(const struct format *format, size_t state_bytes)
{
    struct fixture *f = xalloc(sizeof(*f));
    struct generation *g = &f->g;

    snprintf(f->answer.id, sizeof(f->answer.id), "ID");
    f->answer.json = json_pack("{s:s}", "model", "m");
    g->answer = &f->answer;
    g->format = format;
    g->model = xstrdup("m");
    snprintf(g->id, sizeof(g->id), "x_ID");
    f->prompt.n = 7;
    g->prompts = &f->prompt;
    g->spec.n_prompts = 1;
    g->spec.n = 1;
    g->spec.params.temperature = 1;
    g->spec.params.top_p = 1;
    g->said = &f->said;
    g->n_said = 1;
    g->state = xalloc(state_bytes);
    return f;
}

static void release(struct fixture *f)
{
    f->g.format->release(&f->g);
    for (uint32_t i = 0; i < f->said.n_calls; i++) {
        buf_release(&f->said.calls[i].name);
        buf_release(&f->said.calls[i].arguments);
    }
    free(f->said.kinds);
    free(f->said.calls);
    free(f->said.stop_text);
    buf_release(&f->said.content);
    buf_release(&f->said.reasoning);
    buf_release(&f->out);
    json_decref(f->answer.json);
    free(f->g.model);
    free(f);
}

static void say(struct fixture *f, enum output_kind kind, uint32_t index, const char *text)
{
    struct request_event event = {
        .kind = REQUEST_TEXT,
        .output = {.kind = kind, .index = index, .text = text, .n = strlen(text)}};

    f->g.format->event(&f->g, &event, &f->out);
}

static void finish(struct fixture *f, enum finish_reason reason)
{
    struct request_event event = {
        .kind = REQUEST_FINISH, .reason = reason, .stop_token = -1, .stop_text = f->said.stop_text};

    f->said.reason = reason;
    f->g.format->event(&f->g, &event, &f->out);
}

static const struct request_usage usage = {
    .prompt_tokens = 7, .completion_tokens = 5, .cached_tokens = 3, .reasoning_tokens = 2};

/* Thinking, text and two calls: all that an answer can have. */
static void say_all(struct fixture *f)
{
    f->g.format->begin(&f->g, &f->out);
    say(f, OUTPUT_REASONING, 0, "hm");
    say(f, OUTPUT_CONTENT, 0, "a\"");
    say(f, OUTPUT_CONTENT, 0, "");
    say(f, OUTPUT_CONTENT, 0, "b");
    say(f, OUTPUT_TOOL_NAME, 0, "f");
    say(f, OUTPUT_TOOL_ARGUMENTS, 0, "{\"x\":");
    say(f, OUTPUT_TOOL_ARGUMENTS, 0, "1}");
    say(f, OUTPUT_TOOL_END, 0, "");
    say(f, OUTPUT_TOOL_NAME, 1, "g");
    say(f, OUTPUT_TOOL_END, 1, "");
    finish(f, FINISH_TOOL_CALLS);
    f->g.format->end(&f->g, &usage, &f->out);
}

/* The same for a whole answer. */
static void keep_all(struct fixture *f)
{
    buf_append_str(&f->said.reasoning, "hm");
    buf_append_str(&f->said.content, "a\"b");
    f->said.n_calls = 2;
    f->said.calls = xcalloc(2, sizeof(*f->said.calls));
    buf_append_str(&f->said.calls[0].name, "f");
    buf_append_str(&f->said.calls[0].arguments, "{\"x\":1}");
    buf_append_str(&f->said.calls[1].name, "g");
    f->said.reason = FINISH_TOOL_CALLS;
}

/* The next frame, checked to be event: name and one line of data; its data parsed. NULL at the end.
 */
static json_t *next_frame(const char **at, char name[64])
{
    const char *data;
    const char *end;
    json_t *json = NULL;

    if (**at == '\0') {
        return NULL;
    }
    assert_memory_equal(*at, "event: ", 7);
    data = strchr(*at, '\n');
    snprintf(name, 64, "%.*s", (int)(data - *at - 7), *at + 7);
    assert_memory_equal(data, "\ndata: ", 7);
    data += 7;
    end = strstr(data, "\n\n");
    assert_non_null(end);
    assert_ptr_equal(strchr(data, '\n'), end);
    assert_int_equal(json_parse(data, (size_t)(end - data), &json, NULL), STATUS_OK);
    assert_string_equal(json_string_value(json_object_get(json, "type")), name);
    *at = end + 2;
    return json;
}

static void expect_names(const struct buf *out, const char *wanted)
{
    const char *at = buf_str(out);
    struct buf names = {0};
    char name[64];
    json_t *json;

    while ((json = next_frame(&at, name)) != NULL) {
        buf_printf(&names, "%s\n", name);
        json_decref(json);
    }
    assert_string_equal(buf_str(&names), wanted);
    buf_release(&names);
}

/* --- messages --- */

#define DELTA(index, kind, member, text)                                                   \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":" index \
    ",\"delta\":{\"type\":\"" kind "\",\"" member "\":" text "}}\n\n"
#define START(index, block)                                                                \
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":" index \
    ",\"content_block\":" block "}\n\n"
#define STOP(index) \
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":" index "}\n\n"
#define USE(id, name)                                                                       \
    "{\"type\":\"tool_use\",\"id\":\"toolu_" id "\",\"name\":\"" name "\",\"caller\":null," \
    "\"toolset_name\":null,\"input\":{}}"

static void test_messages_stream(void **state)
{
    static const char wanted[] =
        START("0", "{\"type\":\"thinking\",\"thinking\":\"\","
                   "\"signature\":\"\"}") DELTA("0", "thinking_delta", "thinking", "\"hm\"")
            DELTA("0", "signature_delta", "signature", "\"\"") STOP("0")
                START("1", "{\"type\":\"text\",\"text\":\"\",\"citations\":null}")
                    DELTA("1", "text_delta", "text", "\"a\\\"\"")
                        DELTA("1", "text_delta", "text", "\"b\"") STOP("1")
                            START("2", USE("ID000", "f"))
                                DELTA("2", "input_json_delta", "partial_json", "\"{\\\"x\\\":\"")
                                    DELTA("2", "input_json_delta", "partial_json", "\"1}\"")
                                        STOP("2") START("3", USE("ID001", "g")) STOP("3");
    struct fixture *f = make(&messages_format, sizeof(struct messages_state));
    const char *body;
    const char *rest;

    (void)state;
    say_all(f);
    body = strstr(buf_str(&f->out), "event: content_block_start");
    rest = strstr(buf_str(&f->out), "event: message_delta");
    assert_non_null(body);
    assert_non_null(rest);
    assert_int_equal(rest - body, sizeof(wanted) - 1);
    assert_memory_equal(body, wanted, sizeof(wanted) - 1);
    assert_non_null(strstr(buf_str(&f->out), "\"usage\":{\"input_tokens\":7,\"output_tokens\":0,"));
    assert_non_null(strstr(rest, "\"stop_reason\":\"tool_use\",\"stop_sequence\":null"));
    assert_non_null(strstr(rest, "\"usage\":{\"input_tokens\":7,\"output_tokens\":5,"));
    assert_non_null(strstr(rest, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    assert_null(strstr(rest, "DONE"));
    release(f);
}

static void test_messages_whole(void **state)
{
    static const char content[] =
        "\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"\"},"
        "{\"type\":\"text\",\"text\":\"a\\\"b\",\"citations\":null},"
        "{\"type\":\"tool_use\",\"id\":\"toolu_ID000\",\"name\":\"f\",\"caller\":null,"
        "\"toolset_name\":null,\"input\":{\"x\":1}},"
        "{\"type\":\"tool_use\",\"id\":\"toolu_ID001\",\"name\":\"g\",\"caller\":null,"
        "\"toolset_name\":null,\"input\":{}}],";
    struct fixture *f = make(&messages_format, sizeof(struct messages_state));

    (void)state;
    keep_all(f);
    f->g.format->whole(&f->g, &usage, &f->out);
    assert_non_null(strstr(buf_str(&f->out), content));
    assert_non_null(strstr(buf_str(&f->out), "\"output_tokens_details\":{\"thinking_tokens\":2}"));
    buf_clear(&f->out);
    buf_clear(&f->said.calls[0].arguments);
    buf_append_str(&f->said.calls[0].arguments, "{\"x\":");
    f->g.format->whole(&f->g, &usage, &f->out);
    assert_non_null(strstr(buf_str(&f->out), "\"input\":{\"INVALID_JSON\":\"{\\\"x\\\":\"}"));
    release(f);
}

static void test_messages_stops(void **state)
{
    static const struct {
        enum finish_reason reason;
        const char *stop;
        const char *wanted;
    } cases[] = {
        {FINISH_STOP, NULL, "\"stop_reason\":\"end_turn\",\"stop_sequence\":null"},
        {FINISH_STOP, "x", "\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"x\""},
        {FINISH_LENGTH, NULL, "\"stop_reason\":\"max_tokens\",\"stop_sequence\":null"},
        {FINISH_TOOL_CALLS, NULL, "\"stop_reason\":\"tool_use\",\"stop_sequence\":null"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *f = make(&messages_format, sizeof(struct messages_state));

        f->said.stop_text = cases[i].stop == NULL ? NULL : xstrdup(cases[i].stop);
        finish(f, cases[i].reason);
        f->g.format->end(&f->g, &usage, &f->out);
        assert_non_null(strstr(buf_str(&f->out), cases[i].wanted));
        release(f);
    }
}

static void test_messages_errors(void **state)
{
    static const struct {
        int status;
        const char *type;
    } cases[] = {{400, "invalid_request_error"}, {401, "authentication_error"},
                 {403, "permission_error"},      {404, "not_found_error"},
                 {413, "request_too_large"},     {415, "invalid_request_error"},
                 {429, "rate_limit_error"},      {500, "api_error"},
                 {503, "overloaded_error"}};
    struct fixture *f = make(&messages_format, sizeof(struct messages_state));
    struct api_error error = {0};
    char wanted[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        api_error_set(&error, cases[i].status, NULL, "why");
        snprintf(wanted, sizeof(wanted),
                 "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"%s\","
                 "\"message\":\"why\"},\"request_id\":\"ID\"}\n\n",
                 cases[i].type);
        (f->g.format->fail)(&f->g, &error, &f->out);
        assert_string_equal(buf_str(&f->out), wanted);
        buf_clear(&f->out);
    }
    release(f);
}

/* --- responses --- */

static void test_responses_stream(void **state)
{
    struct fixture *f = make(&responses_format, sizeof(struct responses_state));
    struct fixture *g = make(&responses_format, sizeof(struct responses_state));
    const char *at;
    json_t *json;
    json_t *last = NULL;
    json_t *whole = NULL;
    char name[64];
    int64_t n = 0;

    (void)state;
    say_all(f);
    expect_names(&f->out, "response.created\nresponse.in_progress\n"
                          "response.output_item.added\nresponse.content_part.added\n"
                          "response.reasoning_text.delta\nresponse.reasoning_text.done\n"
                          "response.content_part.done\nresponse.output_item.done\n"
                          "response.output_item.added\nresponse.content_part.added\n"
                          "response.output_text.delta\nresponse.output_text.delta\n"
                          "response.output_text.done\nresponse.content_part.done\n"
                          "response.output_item.done\n"
                          "response.output_item.added\n"
                          "response.function_call_arguments.delta\n"
                          "response.function_call_arguments.delta\n"
                          "response.function_call_arguments.done\nresponse.output_item.done\n"
                          "response.output_item.added\nresponse.function_call_arguments.done\n"
                          "response.output_item.done\nresponse.completed\n");
    at = buf_str(&f->out);
    while ((json = next_frame(&at, name)) != NULL) {
        assert_int_equal(json_integer_value(json_object_get(json, "sequence_number")), n++);
        json_decref(last);
        last = json;
    }
    keep_all(g);
    g->g.format->whole(&g->g, &usage, &g->out);
    assert_int_equal(json_parse(buf_str(&g->out), g->out.len, &whole, NULL), STATUS_OK);
    json = json_object_get(last, "response");
    assert_int_equal(json_array_size(json_object_get(json, "output")), 4);
    assert_true(json_equal(json_object_get(json, "output"), json_object_get(whole, "output")));
    assert_true(json_equal(json_object_get(json, "usage"), json_object_get(whole, "usage")));
    assert_true(json_equal(json_object_get(json, "status"), json_object_get(whole, "status")));
    json_decref(last);
    json_decref(whole);
    release(f);
    release(g);
}

static void test_responses_cut(void **state)
{
    struct fixture *f = make(&responses_format, sizeof(struct responses_state));

    (void)state;
    say(f, OUTPUT_CONTENT, 0, "a");
    finish(f, FINISH_LENGTH);
    f->g.format->end(&f->g, &usage, &f->out);
    assert_non_null(strstr(buf_str(&f->out), "event: response.incomplete\n"));
    assert_non_null(strstr(buf_str(&f->out), "{\"reason\":\"max_output_tokens\"}"));
    assert_non_null(
        strstr(buf_str(&f->out), "\"item\":{\"id\":\"msg_ID000\",\"status\":\"incomplete\""));
    release(f);
}

static void test_responses_fail(void **state)
{
    struct fixture *f = make(&responses_format, sizeof(struct responses_state));
    struct api_error error = {0};

    (void)state;
    api_error_set(&error, 503, "world_failed", "why");
    say(f, OUTPUT_CONTENT, 0, "a");
    buf_clear(&f->out);
    (f->g.format->fail)(&f->g, &error, &f->out);
    expect_names(&f->out, "error\nresponse.failed\n");
    assert_ptr_equal(strstr(buf_str(&f->out),
                            "event: error\ndata: {\"type\":\"error\",\"sequence_number\":3,"
                            "\"code\":\"world_failed\",\"message\":\"why\",\"param\":null}\n\n"),
                     buf_str(&f->out));
    assert_non_null(strstr(buf_str(&f->out), "\"status\":\"failed\""));
    assert_non_null(
        strstr(buf_str(&f->out), "\"error\":{\"code\":\"server_error\",\"message\":\"why\"}"));
    release(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_stream),  cmocka_unit_test(test_messages_whole),
        cmocka_unit_test(test_messages_stops),   cmocka_unit_test(test_messages_errors),
        cmocka_unit_test(test_responses_stream), cmocka_unit_test(test_responses_cut),
        cmocka_unit_test(test_responses_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
