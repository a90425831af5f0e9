/* SPDX-License-Identifier: Apache-2.0 */
/* A request on a host that only remembers its sequences: what its end is counted as. */
#include "../tokenizer/fixture.h"

#include <math.h>

#include "base/mem.h"

#include "../api/fake_host.h"

struct scene {
    struct request_spec spec;
    struct token_ids prompt;
    int32_t token;
    struct request *request;
    uint32_t ends;
    enum status status;
    enum finish_reason reason;
};

static void on_event(void *arg, const struct request_event *event)
{
    struct scene *scene = arg;

    if (event->kind == REQUEST_FINISH) {
        scene->reason = event->reason;
    }
}

static void on_end(void *arg, const struct request_end *end)
{
    struct scene *scene = arg;

    scene->status = end->status;
    scene->request = NULL;
    scene->ends++;
}

static void scene_begin(struct scene *scene, uint32_t n)
{
    const struct request_sink sink = {.arg = scene, .event = on_event, .end = on_end};

    rig_host.n = 0;
    rig_host.metrics = metrics_create("m");
    scene->token = 'a';
    scene->prompt = (struct token_ids){.data = &scene->token, .n = 1};
    scene->spec.tokenizer = fixture_create(&(struct fixture){0});
    scene->spec.prompts = &scene->prompt;
    scene->spec.n_prompts = 1;
    scene->spec.n = n;
    scene->request = request_start(&rig_host, &scene->spec, &sink);
    assert_int_equal(rig_host.n, n);
}

static void tell(uint32_t choice, const struct seq_event *event)
{
    struct seq *seq = rig_host.seqs[choice];

    seq->event(seq->arg, seq, event);
}

static void say(uint32_t choice, const char *text)
{
    tell(choice, &(struct seq_event){.kind = SEQ_STARTED});
    for (const char *c = text; *c != '\0'; c++) {
        tell(choice, &(struct seq_event){.kind = SEQ_TOKEN, .token.token = (unsigned char)*c});
    }
}

static void end(uint32_t choice, enum batch_end how, enum status status)
{
    tell(choice,
         &(struct seq_event){.kind = SEQ_END, .end = how, .status = status, .end_token = -1});
}

/* The counts of the reasons stop, length, abort, error and tool_calls, in this order. */
static void scene_end(struct scene *scene, const char *counts)
{
    static const char *const reasons[] = {"stop", "length", "abort", "error", "tool_calls"};
    struct tokenizer *tokenizer = (struct tokenizer *)scene->spec.tokenizer;
    struct buf text = {0};

    metrics_render(&rig_host.metrics, 1, &text);
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        char line[128];

        snprintf(line, sizeof(line),
                 "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"%s\"} "
                 "%c\n",
                 reasons[i], counts[i]);
        if (strstr(buf_str(&text), line) == NULL) {
            print_error("%s is not in:\n%s", line, buf_str(&text));
            fail();
        }
    }
    buf_release(&text);
    metrics_destroy(&rig_host.metrics);
    tokenizer_destroy(&tokenizer);
}

static void test_ends(void **state)
{
    struct scene scene = {0};

    (void)state;
    scene_begin(&scene, 2);
    say(0, "a");
    end(0, BATCH_STOP, STATUS_OK);
    say(1, "b");
    end(1, BATCH_LENGTH, STATUS_OK);
    assert_int_equal(scene.ends, 1);
    scene_end(&scene, "11000");
}

/* The sequence is cancelled, and still the answer is a whole one. */
static void test_stop_string(void **state)
{
    static const char *const stops[] = {"END"};
    struct scene scene = {.spec = {.stops = stops, .n_stops = 1}};

    (void)state;
    scene_begin(&scene, 1);
    say(0, "so END");
    assert_int_equal(scene.ends, 1);
    end(0, BATCH_CANCELLED, STATUS_CANCELLED);
    scene_end(&scene, "10000");
}

static void test_tool_calls(void **state)
{
    static const char call[] = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    struct scene scene = {.spec = {.parse_output = true, .output = {.tools = true}}};

    (void)state;
    scene_begin(&scene, 2);
    say(0, call);
    end(0, BATCH_STOP, STATUS_OK);
    assert_int_equal(scene.reason, FINISH_TOOL_CALLS);
    say(1, call);
    end(1, BATCH_LENGTH, STATUS_OK); /* it would have gone on */
    assert_int_equal(scene.reason, FINISH_LENGTH);
    scene_end(&scene, "01001");
}

static void test_cancelled(void **state)
{
    struct scene scene = {0};

    (void)state;
    scene_begin(&scene, 3);
    say(0, "a");
    end(0, BATCH_STOP, STATUS_OK);
    say(1, "b");
    request_cancel(&scene.request);
    end(1, BATCH_CANCELLED, STATUS_CANCELLED);
    end(2, BATCH_CANCELLED, STATUS_CANCELLED);
    assert_int_equal(scene.ends, 0);
    scene_end(&scene, "10200");
}

/* What never ran is refused, which the host counts; the others of the request are given up. */
static void test_failed(void **state)
{
    struct scene scene = {0};

    (void)state;
    scene_begin(&scene, 2);
    say(0, "a");
    end(0, BATCH_FAILED, STATUS_NUMERIC);
    assert_int_equal(scene.ends, 1);
    end(1, BATCH_CANCELLED, STATUS_CANCELLED);
    scene_end(&scene, "00110");

    memset(&scene, 0, sizeof(scene));
    scene_begin(&scene, 1);
    end(0, BATCH_FAILED, STATUS_LIMIT);
    assert_int_equal(scene.ends, 1);
    scene_end(&scene, "00000");
}

static const char forced[] = "<tool_call>{\"name\": \"g\", \"arguments\": {";

static struct scene forced_scene(json_t *tools)
{
    return (struct scene){.spec = {.parse_output = true,
                                   .output = {.tools = true, .max_calls = 1, .schemas = tools},
                                   .forced = forced,
                                   .must_call = true,
                                   .forced_object = true,
                                   .max_tokens = 9,
                                   .max_bias = 300}};
}

/* Behind a member's name, all but a colon and white space is impossible, for one token; what the
 * client's biases say stays. */
static void expect_colon(const struct seq *seq)
{
    const struct plan_params *params = &seq->request.params;
    bool possible[300];

    memset(possible, true, sizeof(possible));
    assert_int_equal(params->n_min, 4);
    assert_int_equal(params->n_bias, params->n_min_bias + 1);
    assert_int_equal(seq->bias[params->n_min_bias].token, 5);
    for (uint32_t i = 0; i < params->n_min_bias; i++) {
        assert_true(seq->bias[i].add == -INFINITY);
        possible[seq->bias[i].token] = false;
    }
    for (int i = 0; i < 300; i++) {
        assert_int_equal(possible[i], i != 0 && i < 128 && strchr(": \t\r\n", i) != NULL);
    }
}

/* A token that cannot be in the object, and an end too early: other sequences go on without them.
 */
static void test_goes_on_without(void **state)
{
    static const struct plan_bias bias[] = {{257, -INFINITY}, {5, 1.5f}};
    json_t *tools = json_pack("[{s:{s:s}}]", "function", "name", "g");
    struct scene scene = forced_scene(tools);
    const struct seq *seq;

    (void)state;
    scene.spec.bias = bias;
    scene.spec.params.n_bias = 2;
    scene.spec.params.n_min_bias = 1;
    scene.spec.params.n_min = 7;
    scene_begin(&scene, 1);
    say(0, "\"x\"!: 1}"); /* what was sampled behind the ! is void */
    assert_int_equal(rig_host.n, 2);
    end(0, BATCH_CANCELLED, STATUS_CANCELLED);
    seq = rig_host.seqs[1];
    assert_int_equal(seq->request.n_prompt, 4);
    assert_int_equal(seq->request.n_answered, 3);
    assert_memory_equal(seq->prompt, ((int32_t[]){'a', '"', 'x', '"'}), 16);
    assert_int_equal(seq->request.max_generated, 6);
    expect_colon(seq);
    tell(1, &(struct seq_event){.kind = SEQ_END, .end = BATCH_STOP, .end_token = 257});
    assert_int_equal(rig_host.n, 3); /* at the same place */
    expect_colon(rig_host.seqs[2]);
    assert_int_equal(scene.ends, 0);
    say(2, ":1}");
    assert_int_equal(scene.ends, 1);
    assert_int_equal(scene.reason, FINISH_TOOL_CALLS);
    end(2, BATCH_CANCELLED, STATUS_CANCELLED);
    scene_end(&scene, "00001");
    json_decref(tools);
}

/* A model that never comes to an object: an end with a reason, and not for ever. */
static void test_gives_up(void **state)
{
    json_t *tools = json_pack("[{s:{s:s}}]", "function", "name", "g");
    struct scene scene = forced_scene(tools);
    uint32_t i = 0;

    (void)state;
    scene_begin(&scene, 1);
    for (; scene.ends == 0; i++) {
        assert_true(i < 20);
        say(i, "!");
        if (scene.ends == 0) {
            end(i, BATCH_CANCELLED, STATUS_CANCELLED);
        }
    }
    assert_true(i > 2);
    assert_int_equal(scene.status, STATUS_CORRUPT);
    end(i - 1, BATCH_CANCELLED, STATUS_CANCELLED);
    scene_end(&scene, "00010");
    json_decref(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),       cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_tool_calls), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_failed),     cmocka_unit_test(test_goes_on_without),
        cmocka_unit_test(test_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
