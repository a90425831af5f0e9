/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which products a layer consists of: q, k and v are one, and gate and up are one, so that what
 * they have in common is prepared once and threads meet once for them. The CPU's operators,
 * counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "engine/sequence.h"

#define FIXTURE(name) TEST_SOURCE_DIR "/tests/model/golden/" name

enum { MAX_OUT = 4, N_PROMPT = 20, N_TOKENS = 23 };

static uint32_t n_of[MAX_OUT + 1]; /* calls with so many matrices */

static void counted_linear(struct ops_device *device, const struct ops_linear *args)
{
    assert_in_range(args->n_out, 1, MAX_OUT);
    n_of[args->n_out]++;
    cpu_ops.linear(device, args);
}

static void check(const char *path)
{
    struct ops counted = cpu_ops;
    struct engine_options options = {
        .path = path, .n_threads = 2, .max_context = 64, .max_chunk = 32, .ops = &counted};
    struct engine *engine = NULL;
    struct sequence sequence;
    int32_t tokens[N_TOKENS];
    struct err err = {0};
    uint32_t n_layers;

    counted.linear = counted_linear;
    for (int32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = 3 * i;
    }
    if (engine_create(&options, &engine, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    n_layers = engine_config(engine)->n_layers;
    sequence_init(&sequence, engine);
    for (uint32_t at = 0; at < N_TOKENS;) { /* a prompt, then a token a step */
        uint32_t n = at == 0 ? N_PROMPT : 1;
        struct sequence_extend args = {.tokens = tokens + at, .n = n};

        memset(n_of, 0, sizeof(n_of));
        assert_int_equal(sequence_extend(&sequence, &args, &err), STATUS_OK);
        assert_int_equal(n_of[3], n_layers); /* q, k, v */
        assert_int_equal(n_of[2], n_layers); /* gate, up */
        at += n;
    }
    sequence_release(&sequence);
    engine_destroy(&engine);
}

static void test_one_input_is_one_product(void **state)
{
    (void)state;
    check(FIXTURE("llama-bf16"));
    check(FIXTURE("qwen2-bf16"));
    check(FIXTURE("qwen3-bf16"));
    check(FIXTURE("gguf-q4_1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_input_is_one_product),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
