/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

/* The value of the only line that begins with sample and a space; fails if there is none. */
static double value_of(const struct buf *text, const char *sample)
{
    size_t n = strlen(sample);
    const char *line = buf_str(text);
    const char *found = NULL;

    while (line != NULL && *line != '\0') {
        if (strncmp(line, sample, n) == 0 && line[n] == ' ') {
            assert_null(found);
            found = line + n + 1;
        }
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    if (found == NULL) {
        fail_msg("no sample %s", sample);
    }
    return strtod(found, NULL);
}

static uint32_t count_of(const struct buf *text, const char *part)
{
    uint32_t n = 0;

    for (const char *at = strstr(buf_str(text), part); at != NULL; at = strstr(at + 1, part)) {
        n++;
    }
    return n;
}

static void values(void **state)
{
    struct metrics *m = metrics_create("tiny");
    struct buf out = {0};

    (void)state;
    metrics_add(m, METRIC_PROMPT_TOKENS_TOTAL, 5);
    metrics_add(m, METRIC_PROMPT_TOKENS_TOTAL, 7);
    metrics_add_real(m, METRIC_GENERATION_TOKENS_TOTAL, 0.5);
    metrics_set_counter(m, METRIC_REBUILDS_TOTAL, 3);
    metrics_set_counter(m, METRIC_REBUILDS_TOTAL, (uint64_t)1 << 53);
    metrics_set(m, METRIC_KV_CACHE_USAGE_PERC, 0.1);
    metrics_add_label(m, METRIC_REQUEST_SUCCESS_TOTAL, METRICS_FINISHED_ABORT, 2);
    metrics_add_real_label(m, METRIC_RANK_STEP_SECONDS_TOTAL, 1, 1.25);
    metrics_set_label(m, METRIC_RANK_WAIT_SECONDS_TOTAL, 0, 2.5);
    metrics_render(&m, 1, &out);
#define V(name, labels) value_of(&out, name "{model_name=\"tiny\"" labels "}")
    assert_true(V("vllm:prompt_tokens_total", ",engine=\"0\"") == 12);
    assert_true(V("vllm:generation_tokens_total", ",engine=\"0\"") == 0.5);
    assert_true(V("lockstep:rebuilds_total", "") == 9007199254740992.0);
    assert_true(V("vllm:kv_cache_usage_perc", ",engine=\"0\"") == 0.1);
    assert_true(V("vllm:request_success_total", ",engine=\"0\",finished_reason=\"abort\"") == 2);
    assert_true(V("vllm:request_success_total", ",engine=\"0\",finished_reason=\"stop\"") == 0);
    assert_true(V("lockstep:rank_step_seconds_total", ",rank=\"1\"") == 1.25);
    assert_true(V("lockstep:rank_step_seconds_total", ",rank=\"0\"") == 0);
    assert_true(V("lockstep:rank_wait_seconds_total", ",rank=\"0\"") == 2.5);
#undef V
    assert_int_equal(count_of(&out, "rank=\"2\""), 0);
    buf_release(&out);
    metrics_destroy(&m);
    assert_null(m);
    metrics_destroy(&m);
}

/* A bound belongs to its bucket, buckets are cumulative, the last one has all. */
static void histograms(void **state)
{
    struct metrics *m = metrics_create("tiny");
    struct buf out = {0};

    (void)state;
    metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, 0.005);
    metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, 0.0051);
    metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, 1);
    metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, 1e6);
    metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, __builtin_nan(""));
    metrics_render(&m, 1, &out);
#define N "vllm:time_to_first_token_seconds"
#define L "{model_name=\"tiny\",engine=\"0\""
    assert_true(value_of(&out, N "_bucket" L ",le=\"0.001\"}") == 0);
    assert_true(value_of(&out, N "_bucket" L ",le=\"0.005\"}") == 1);
    assert_true(value_of(&out, N "_bucket" L ",le=\"0.01\"}") == 2);
    assert_true(value_of(&out, N "_bucket" L ",le=\"0.75\"}") == 2);
    assert_true(value_of(&out, N "_bucket" L ",le=\"1.0\"}") == 3);
    assert_true(value_of(&out, N "_bucket" L ",le=\"2560.0\"}") == 3);
    assert_true(value_of(&out, N "_bucket" L ",le=\"+Inf\"}") == 4);
    assert_true(value_of(&out, N "_count" L "}") == 4);
    assert_true(value_of(&out, N "_sum" L "}") == 0.005 + 0.0051 + 1 + 1e6);
#undef N
#undef L
    buf_release(&out);
    metrics_destroy(&m);
}

static void models_share_heads(void **state)
{
    struct metrics *all[] = {metrics_create("a"), metrics_create("b\\\"\n")};
    struct metrics_info info = {.arithmetic = "x86/\"1\"", .kv_page_tokens = 64, .kv_pages = 9};
    struct buf out = {0};

    (void)state;
    metrics_set_info(all[1], &info);
    metrics_set_info(all[1], &info);
    metrics_http_answer(404);
    metrics_http_answer(404);
    metrics_http_answer(70000);
    metrics_render(all, 2, &out);
    assert_int_equal(count_of(&out, "# TYPE vllm:num_requests_running gauge\n"), 1);
    assert_int_equal(count_of(&out, "\nvllm:num_requests_running{"), 2);
    assert_int_equal(count_of(&out, "{model_name=\"b\\\\\\\"\\n\""),
                     count_of(&out, "{model_name=\"a\"") + 2);
    assert_true(value_of(&out, "lockstep:http_requests_total{code=\"404\"}") == 2);
    assert_true(value_of(&out, "lockstep:http_requests_total{code=\"0\"}") == 1);
    assert_true(value_of(&out, "lockstep:http_requests_total{code=\"200\"}") == 0);
    assert_true(value_of(&out, "process_open_fds") >= 3);
    assert_true(value_of(&out, "process_resident_memory_bytes") > 0);
    assert_int_equal(count_of(&out, "arithmetic=\"x86/\\\"1\\\"\""), 1);
    buf_release(&out);
    metrics_render(NULL, 0, &out);
    assert_int_equal(count_of(&out, "model_name"), 0);
    buf_release(&out);
    metrics_destroy(&all[0]);
    metrics_destroy(&all[1]);
}

/* For the parser on the other side (test_text.py). */
static void write_sample(void **state)
{
    struct metrics *all[] = {metrics_create("org/tiny"), metrics_create("o\\dd \"name\"\n")};
    const char *path = getenv("METRICS_SAMPLE");
    struct buf out = {0};
    FILE *file;

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        metrics_observe(all[i % 2], METRIC_E2E_REQUEST_LATENCY_SECONDS, 0.1 * i);
        metrics_observe(all[i % 2], METRIC_DETECTION_SECONDS, 0.001 * i);
    }
    metrics_set_label(all[0], METRIC_FRAMES_DROPPED_TOTAL, 3, 1e15);
    metrics_set(all[1], METRIC_EPOCH, 7);
    metrics_set_info(all[0], &(struct metrics_info){.arithmetic = "x", .kv_dtype = "bf16"});
    metrics_render(all, 2, &out);
    if (path != NULL) {
        file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fwrite(out.data, 1, out.len, file), out.len);
        assert_int_equal(fclose(file), 0);
    }
    buf_release(&out);
    metrics_destroy(&all[0]);
    metrics_destroy(&all[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(histograms),
        cmocka_unit_test(models_share_heads),
        cmocka_unit_test(write_sample),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
