/* SPDX-License-Identifier: Apache-2.0 */
/* Large and hostile bodies: an error that names what is wrong,
 * within time and memory that follow from the body's size. */
#include "body_rig.h"

#include "base/clock.h"

enum { MAX_BODY = 2 << 20 };

static struct rig rig;
static struct api_error last; /* of check */

/* Repeats item up to room bytes, separated by commas. */
static void repeat(struct buf *out, const char *item, size_t room)
{
    size_t end = out->len + room;

    buf_append_str(out, item);
    while (out->len + strlen(item) + 1 < end) {
        buf_append_char(out, ',');
        buf_append_str(out, item);
    }
}

static void check(const struct endpoint *endpoint, struct buf *body, int status, const char *param)
{
    struct api_error error = {0};
    uint64_t begin = clock_ns();
    int got = rig_run(&rig, endpoint, buf_str(body), body->len, &error);

    print_message("%zu bytes, %.0f ms: %d %s %s\n", body->len, (double)(clock_ns() - begin) * 1e-6,
                  got, error.param, error.message);
    last = error;
    assert_int_equal(got, status);
    if (param != NULL) {
        assert_string_equal(error.param, param);
    }
    buf_release(body);
}

/* {"model":"tiny", then head, item over and over, tail. */
static void check_many(const struct endpoint *endpoint, const char *head, const char *item,
                       const char *tail, int status, const char *param)
{
    struct buf body = {0};

    buf_append_str(&body, "{\"model\":\"tiny\",\"max_tokens\":5,");
    buf_append_str(&body, head);
    repeat(&body, item, MAX_BODY - body.len - strlen(tail));
    buf_append_str(&body, tail);
    assert_true(body.len <= MAX_BODY);
    check(endpoint, &body, status, param);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static void test_requests(void **state)
{
    struct buf body = {0};

    (void)state;
    buf_append_str(&body, "{\"model\":\"tiny\"," USER "}");
    check(&endpoint_chat, &body, 0, "");
    buf_append_str(&body, "{\"model\":\"tiny\"," USER ",\"n\":128,\"stream\":true}");
    check(&endpoint_chat, &body, 0, "");
    buf_append_str(&body, "{\"model\":\"other\"," USER "}");
    check(&endpoint_chat, &body, 404, "model");
    buf_append_str(&body, "{" USER "}");
    check(&endpoint_messages, &body, 400, "model");
}

static void test_many_messages(void **state)
{
    (void)state;
    check_many(&endpoint_chat, "\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"}", "]}", 400,
               NULL);
    check_many(&endpoint_messages, "\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"}", "]}",
               400, NULL);
    check_many(&endpoint_responses, "\"input\":[", "{\"role\":\"user\",\"content\":\"x\"}", "]}",
               400, NULL);
}

static void test_long_text(void **state)
{
    struct buf body = {0};
    const char *const heads[] = {
        "{\"model\":\"tiny\",\"prompt\":\"",
        "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\""};
    const char *const tails[] = {"\"}", "\"}]}"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        buf_append_str(&body, heads[i]);
        while (body.len < MAX_BODY - 16) {
            buf_append_char(&body, 'a');
        }
        buf_append_str(&body, tails[i]);
        check(i == 0 ? &endpoint_completions : &endpoint_chat, &body, 400, NULL);
        assert_string_equal(last.code, "context_length_exceeded");
        assert_non_null(strstr(last.message, "more tokens than the context of 4096"));
    }
}

static void test_many_entries(void **state)
{
    (void)state;
    check_many(&endpoint_chat, USER ",\"stop\":[", "\"x\"", "]}", 400, "stop");
    check_many(&endpoint_chat, USER ",\"stop_token_ids\":[", "7", "]}", 400, "stop_token_ids");
    check_many(&endpoint_chat, USER ",\"bad_words\":[", "\"x\"", "]}", 400, "bad_words");
    check_many(&endpoint_chat, USER ",\"n\":128,\"allowed_token_ids\":[", "7", "]}", 0, NULL);
    check_many(&endpoint_chat, USER ",\"modalities\":[", "\"text\"", "]}", 0, NULL);
    check_many(&endpoint_chat, USER ",\"unknown\":[", "0", "]}", 0, NULL);
    check_many(&endpoint_completions, "\"prompt\":[", "7", "]}", 400, NULL);
    check_many(&endpoint_completions, "\"prompt\":[", "[7]", "]}", 400, "prompt");
    check_many(&endpoint_detokenize, "\"tokens\":[", "65", "]}", 0, NULL);
}

static void test_logit_bias(void **state)
{
    struct buf body = {0};

    (void)state;
    buf_append_str(&body, "{\"model\":\"tiny\"," USER ",\"logit_bias\":{\"0\":0");
    for (int i = 1; body.len < MAX_BODY - 64; i++) {
        buf_printf(&body, ",\"%d\":1", i);
    }
    buf_append_str(&body, "}}");
    check(&endpoint_chat, &body, 400, "logit_bias");
}

/* Every allowed tool is looked up among all tools. */
static void test_tools(void **state)
{
    struct buf body = {0};

    (void)state;
    buf_append_str(&body, "{\"model\":\"tiny\"," USER ",\"tools\":[");
    repeat(&body, "{\"function\":{\"name\":\"f\"}}", MAX_BODY / 2);
    buf_append_str(&body, ",{\"function\":{\"name\":\"g\"}}],\"tool_choice\":{\"type\":"
                          "\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[");
    repeat(&body, "{\"function\":{\"name\":\"g\"}}", MAX_BODY / 2 - 1024);
    buf_append_str(&body, "]}}}");
    check(&endpoint_chat, &body, 400, "tools");
}

/* The last message's text is looked for in the prompt, which is full of it. */
static void test_continued(void **state)
{
    struct buf body = {0};

    (void)state;
    buf_append_str(&body, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (size_t i = 0; i < MAX_BODY / 2; i++) {
        buf_append_char(&body, 'a');
    }
    buf_append_str(&body, "\"},{\"role\":\"assistant\",\"content\":\"");
    for (size_t i = 0; i < MAX_BODY / 4; i++) {
        buf_append_char(&body, 'a');
    }
    buf_append_str(&body, "\"}],\"continue_final_message\":true}");
    check(&endpoint_chat, &body, 400, NULL);
}

static void test_deep(void **state)
{
    static const char *const heads[] = {"\"messages\":", USER ",\"tools\":", USER ",\"x\":"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct buf body = {0};

        buf_printf(&body, "{\"model\":\"tiny\",%s", heads[i]);
        for (int j = 0; j < 5000; j++) {
            buf_append_char(&body, '[');
        }
        for (int j = 0; j < 5000; j++) {
            buf_append_char(&body, ']');
        }
        buf_append_char(&body, '}');
        check(&endpoint_chat, &body, 400, NULL);
    }
}

static void nest(struct buf *out, int n)
{
    for (int i = 0; i < n; i++) {
        buf_append_str(out, "{\"a\":");
    }
    buf_append_char(out, '1');
    for (int i = 0; i < n; i++) {
        buf_append_char(out, '}');
    }
}

/* A conversation up to the arguments of a call. */
#define CALL "\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","

/* What the parser still takes is copied, rendered and freed within a thread's stack. */
static void test_nested(void **state)
{
    static const char *const heads[] = {
        USER ",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":",
        USER ",\"chat_template_kwargs\":{\"x\":",
        CALL "\"arguments\":",
    };
    static const char *const tails[] = {"}}]}", "}}", "}}]}]}"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        for (int depth = 100; depth < 2100; depth += 137) {
            struct buf body = {0};
            struct api_error error = {0};

            buf_printf(&body, "{\"model\":\"tiny\",%s", heads[i]);
            nest(&body, depth);
            buf_append_str(&body, tails[i]);
            (void)rig_run(&rig, &endpoint_chat, buf_str(&body), body.len, &error);
            assert_true(depth > 100 || error.status == 0 || error.param[0] != '\0');
            buf_release(&body);
        }
    }
}

/* Names in errors are cut where they are long, and stay text. */
static void test_long_names(void **state)
{
    struct buf body = {0};

    (void)state;
    buf_append_str(&body, "{" USER ",\"model\":\"");
    for (size_t i = 0; i < MAX_BODY / 4; i++) {
        buf_append_str(&body, "\xc3\xa9");
    }
    buf_append_str(&body, "\"}");
    check(&endpoint_chat, &body, 404, "model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),   cmocka_unit_test(test_many_messages),
        cmocka_unit_test(test_long_text),  cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_logit_bias), cmocka_unit_test(test_tools),
        cmocka_unit_test(test_continued),  cmocka_unit_test(test_deep),
        cmocka_unit_test(test_nested),     cmocka_unit_test(test_long_names),
    };
    int failed;

    rig_init(&rig);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rig_release(&rig);
    return failed;
}
