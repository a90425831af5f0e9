/* SPDX-License-Identifier: Apache-2.0 */
/* Several threads change values while another renders: nothing is lost, every text is consistent.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

#include "metrics/metrics.h"

enum { WRITERS = 4, ROUNDS = 200000 };

static _Atomic uint32_t n_running;
static pthread_barrier_t begin; /* else one has ended before the next has begun */

static void *write_values(void *arg)
{
    struct metrics *m = arg;

    pthread_barrier_wait(&begin);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        metrics_add(m, METRIC_PROMPT_TOKENS_TOTAL, 3);
        metrics_add_label(m, METRIC_FRAMES_DROPPED_TOTAL, i % 8, 1);
        metrics_observe(m, METRIC_INTER_TOKEN_LATENCY_SECONDS, (double)(i % 4));
        metrics_set(m, METRIC_EPOCH, i);
        if (i % 100 == 0) {
            metrics_set_info(m, &(struct metrics_info){.arithmetic = "x", .kv_pages = i});
        }
    }
    atomic_fetch_sub(&n_running, 1);
    return NULL;
}

static double number_after(const struct buf *text, const char *sample)
{
    const char *at = strstr(buf_str(text), sample);

    assert_non_null(at);
    return strtod(at + strlen(sample), NULL);
}

static void check(const struct buf *text)
{
#define N "vllm:inter_token_latency_seconds_"
#define L "{model_name=\"m\",engine=\"0\""
    assert_true(number_after(text, N "bucket" L ",le=\"+Inf\"} ") ==
                number_after(text, N "count" L "} "));
    assert_true(number_after(text, N "bucket" L ",le=\"1.0\"} ") <=
                number_after(text, N "count" L "} "));
#undef N
#undef L
}

static void together(void **state)
{
    struct metrics *m = metrics_create("m");
    pthread_t threads[WRITERS];
    struct buf out = {0};

    (void)state;
    atomic_store(&n_running, WRITERS);
    assert_int_equal(pthread_barrier_init(&begin, NULL, WRITERS), 0);
    for (uint32_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_values, m), 0);
    }
    do {
        buf_clear(&out);
        metrics_render(&m, 1, &out);
        check(&out);
    } while (atomic_load(&n_running) > 0);
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&begin);
    buf_clear(&out);
    metrics_render(&m, 1, &out);
    assert_true(number_after(&out, "\nvllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} ") ==
                3.0 * WRITERS * ROUNDS);
    assert_true(number_after(&out, "_latency_seconds_count{model_name=\"m\",engine=\"0\"} ") ==
                WRITERS * ROUNDS);
    assert_true(number_after(&out, "_latency_seconds_sum{model_name=\"m\",engine=\"0\"} ") ==
                1.5 * WRITERS * ROUNDS);
    assert_true(number_after(&out, "frames_dropped_total{model_name=\"m\",rank=\"7\"} ") ==
                WRITERS * ROUNDS / 8.0);
    buf_release(&out);
    metrics_destroy(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(together)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
