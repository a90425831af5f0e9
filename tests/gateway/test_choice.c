/* SPDX-License-Identifier: Apache-2.0 */
/* From tokens to text: what is held back, what is told of a token, and when an answer is over. */
#include "gateway/choice.h"

#include "base/mem.h"
#include "tokenizer/fixture.h"

/* What came out of a choice. */
struct heard {
    struct choice choice;
    struct buf content;
    struct buf reasoning;
    struct buf calls;
    uint32_t n_events;
    int32_t told[64]; /* tokens whose log-probability was told */
    uint32_t n_told;
    size_t content_at[64]; /* bytes of content when it was told */
};

static void hear_entries(struct heard *h, const struct token_entry *entries, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_true(h->n_told < 64);
        h->content_at[h->n_told] = h->content.len;
        h->told[h->n_told++] = entries[i].token;
        assert_true(entries[i].logprob == -(float)entries[i].token);
        for (uint32_t j = 0; j < entries[i].n_tops; j++) {
            assert_int_equal(entries[i].tops[j].token, (uint32_t)entries[i].token + j);
        }
    }
}

static void hear(void *arg, const struct output_event *output, const struct token_entry *entries,
                 uint32_t n_entries)
{
    struct heard *h = arg;
    struct buf *to = output->kind == OUTPUT_CONTENT     ? &h->content
                     : output->kind == OUTPUT_REASONING ? &h->reasoning
                                                        : &h->calls;

    buf_append(to, output->text, output->n);
    h->n_events++;
    hear_entries(h, entries, n_entries);
}

/* Pushes the bytes as tokens; the number that were taken before the answer was over. */
static size_t push(struct heard *h, const char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++) {
        int32_t id = (unsigned char)text[i];
        const struct result_top tops[2] = {{(uint32_t)id, -1}, {(uint32_t)id + 1, -2}};
        const struct batch_token token = {id, -(float)id, tops, 2};

        if (choice_push(&h->choice, &token)) {
            return i + 1;
        }
    }
    return strlen(text);
}

static const char *finish(struct heard *h)
{
    const struct token_entry *entries;
    const char *stop;
    uint32_t n;

    choice_finish(&h->choice, &entries, &n, &stop);
    hear_entries(h, entries, n);
    return stop;
}

static void release(struct heard *h, struct request_spec *spec)
{
    struct tokenizer *tokenizer = (struct tokenizer *)spec->tokenizer;

    choice_release(&h->choice);
    buf_release(&h->content);
    buf_release(&h->reasoning);
    buf_release(&h->calls);
    tokenizer_destroy(&tokenizer);
}

static void expect_told(const struct heard *h, const char *text)
{
    assert_int_equal(h->n_told, strlen(text));
    for (uint32_t i = 0; i < h->n_told; i++) {
        assert_int_equal(h->told[i], (unsigned char)text[i]);
    }
}

static void test_plain(void **state)
{
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    push(&h, "gr\xc3\xbc\xc3\x9f");
    assert_int_equal(h.n_events, 4); /* a character of two bytes comes whole */
    assert_null(finish(&h));
    assert_string_equal(buf_str(&h.content), "gr\xc3\xbc\xc3\x9f");
    expect_told(&h, "gr\xc3\xbc\xc3\x9f");
    assert_int_equal(h.choice.n_tokens, 6);
    release(&h, &spec);
}

/* The rest of a character that never comes is not lost. */
static void test_cut_character(void **state)
{
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    push(&h, "a\xe2\x82");
    assert_string_equal(buf_str(&h.content), "a");
    assert_null(finish(&h));
    assert_string_equal(buf_str(&h.content), "a\xe2\x82");
    expect_told(&h, "a\xe2\x82");
    release(&h, &spec);
}

static void test_stop(void **state)
{
    static const char *const stops[] = {"END", "\n\n"};
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true,
                                .stops = stops,
                                .n_stops = 2};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    assert_int_equal(push(&h, "EN ENDless"), 6);
    assert_string_equal(finish(&h), "END");
    assert_string_equal(buf_str(&h.content), "EN ");
    expect_told(&h, "EN ");                   /* nothing is told of the stop string's tokens */
    for (uint32_t i = 0; i < h.n_told; i++) { /* nor of a token before its text */
        assert_true(h.content_at[i] > i);
    }
    release(&h, &spec);
}

static void test_stop_included(void **state)
{
    static const char *const stops[] = {"END"};
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true,
                                .include_stop = true,
                                .stops = stops,
                                .n_stops = 1};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    assert_int_equal(push(&h, "the END."), 7);
    assert_string_equal(finish(&h), "END");
    assert_string_equal(buf_str(&h.content), "the END");
    expect_told(&h, "the END");
    release(&h, &spec);
}

/* A stop string that is complete too early does not end the answer; its last byte must come behind
 * min_tokens. */
static void test_min_tokens(void **state)
{
    static const char *const stops[] = {"END"};
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true,
                                .stops = stops,
                                .n_stops = 1,
                                .min_tokens = 6};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    assert_int_equal(push(&h, "ENDENDEND"), 9); /* the second one ends with token 6 */
    assert_string_equal(finish(&h), "END");
    assert_string_equal(buf_str(&h.content), "ENDEND");
    expect_told(&h, "ENDEND");
    release(&h, &spec);

    spec.tokenizer = fixture_create(&(struct fixture){0});
    spec.min_tokens = 5;
    memset(&h, 0, sizeof(h));
    choice_init(&h.choice, &spec, hear, &h);
    assert_int_equal(push(&h, "ENDENDEND"), 6);
    assert_string_equal(finish(&h), "END");
    assert_string_equal(buf_str(&h.content), "END");
    release(&h, &spec);
}

/* What may begin a stop string comes out when the answer ends. */
static void test_no_stop(void **state)
{
    static const char *const stops[] = {"END"};
    struct request_spec spec = {
        .tokenizer = fixture_create(&(struct fixture){0}), .stops = stops, .n_stops = 1};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    push(&h, "the EN");
    assert_string_equal(buf_str(&h.content), "the ");
    assert_null(finish(&h));
    assert_string_equal(buf_str(&h.content), "the EN");
    assert_int_equal(h.n_told, 0); /* not asked for */
    release(&h, &spec);
}

static void test_reasoning_and_call(void **state)
{
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .logprobs = true,
                                .parse_output = true,
                                .output = {.reasoning = true, .tools = true, .max_calls = 1}};
    struct heard h = {0};
    const char *call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    push(&h, "<think>hm</think>");
    assert_string_equal(buf_str(&h.reasoning), "hm");
    assert_true(h.choice.n_reasoning > 0);
    release(&h, &spec);

    spec.tokenizer = fixture_create(&(struct fixture){0});
    spec.logprobs = false;
    memset(&h, 0, sizeof(h));
    choice_init(&h.choice, &spec, hear, &h);
    assert_true(push(&h, call) <= strlen(call)); /* no other call may follow: over */
    assert_null(finish(&h));
    assert_string_equal(buf_str(&h.calls), "f{}");
    assert_true(h.choice.called);
    release(&h, &spec);
}

static json_t *tools_of(const char *name)
{
    return json_pack("[{s:{s:s}}]", "function", "name", name);
}

/* A call that must be: tokens that cannot be in the object are refused, and it is over with it. */
static void test_forced_object(void **state)
{
    json_t *tools = tools_of("g");
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .parse_output = true,
                                .must_call = true,
                                .forced_object = true,
                                .output = {.tools = true, .max_calls = 1, .schemas = tools},
                                .forced = "<tool_call>\n{\"name\": \"g\", \"arguments\": {"};
    const char *text = "x\"x\": [1}, {]}]}more";
    const char *told = "g{\"x\": [1, {}]}";
    struct heard h = {0};
    enum choice_step step = CHOICE_MORE;
    struct buf refused = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    for (const char *c = text; step != CHOICE_OVER; c++) {
        step = choice_push(&h.choice, &(struct batch_token){.token = (unsigned char)*c});
        if (step == CHOICE_REFUSED) {
            buf_append_char(&refused, *c);
        }
        assert_int_equal(step == CHOICE_OVER, strcmp(c, "}more") == 0);
        assert_int_equal(choice_must_go_on(&h.choice), step != CHOICE_OVER);
    }
    assert_null(finish(&h));
    assert_string_equal(buf_str(&refused), "x}]");
    assert_string_equal(buf_str(&h.calls), told);
    assert_int_equal(h.choice.n_tokens, strlen("\"x\": [1, {}]}"));
    assert_null(choice_why(&h.choice));
    buf_release(&refused);
    json_decref(tools);
    release(&h, &spec);
}

/* The same where the model writes all of the call: what is wrong is said, and not told. */
static void test_must_call(void **state)
{
    static const struct {
        const char *text;
        const char *calls;
        const char *why; /* NULL: nothing is wrong */
    } cases[] = {
        {"{\"name\": \"g\", \"arguments\": {\"a\": 1}}", "g{\"a\": 1}", NULL},
        {"{\"name\": \"g\", \"arguments\": {\"a\": 1} and so on", "g{\"a\": 1}", NULL},
        {"{\"name\": \"g\"}", "g{}", NULL},
        {"{\"name\": \"g\", \"arguments\": [1]}", "g", "no JSON object"},
        {"{\"name\": \"g\", \"arguments\": {\"a\": b", "g{\"a\": ", "no JSON object"},
        {"{\"name\": \"g\", \"arguments\": {\"a\": \"b", "g{\"a\": \"b", "no JSON object"},
        {"{\"name\": \"h\", \"arguments\": {}}", "", "\"h\", which is no tool"},
        {"I had rather not.", "", "called no tool"},
    };
    json_t *tools = tools_of("g");
    struct request_spec spec = {
        .parse_output = true, .must_call = true, .output = {.tools = true, .schemas = tools}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct heard h = {0};
        const char *why;

        spec.tokenizer = fixture_create(&(struct fixture){0});
        choice_init(&h.choice, &spec, hear, &h);
        push(&h, "<tool_call>");
        push(&h, cases[i].text);
        assert_null(finish(&h));
        assert_string_equal(buf_str(&h.calls), cases[i].calls);
        why = choice_why(&h.choice);
        assert_int_equal(why == NULL, cases[i].why == NULL);
        assert_true(why == NULL || strstr(why, cases[i].why) != NULL);
        release(&h, &spec);
    }
    json_decref(tools);
}

/* What the prompt was made to end with belongs to the answer. */
static void test_forced(void **state)
{
    struct request_spec spec = {.tokenizer = fixture_create(&(struct fixture){0}),
                                .parse_output = true,
                                .output = {.tools = true},
                                .forced = "<tool_call>\n{\"name\": \"g\", \"arguments\": "};
    struct heard h = {0};

    (void)state;
    choice_init(&h.choice, &spec, hear, &h);
    push(&h, "{\"x\": 1}}\n</tool_call>");
    assert_null(finish(&h));
    assert_string_equal(buf_str(&h.calls), "g{\"x\": 1}");
    assert_string_equal(buf_str(&h.content), "");
    release(&h, &spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_cut_character),
        cmocka_unit_test(test_stop),          cmocka_unit_test(test_stop_included),
        cmocka_unit_test(test_no_stop),       cmocka_unit_test(test_reasoning_and_call),
        cmocka_unit_test(test_forced),        cmocka_unit_test(test_min_tokens),
        cmocka_unit_test(test_forced_object), cmocka_unit_test(test_must_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
