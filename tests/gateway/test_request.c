/* SPDX-License-Identifier: Apache-2.0 */
/* A request on a host that only remembers its sequences: what its end is counted as. */
#include "../tokenizer/fixture.h"

#include "base/mem.h"

#include "../api/fake_host.h"

struct scene {
    struct request_spec spec;
    struct token_ids prompt;
    int32_t token;
    struct request *request;
    uint32_t ends;
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

    (void)end;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),       cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_tool_calls), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
