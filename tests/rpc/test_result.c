/* SPDX-License-Identifier: Apache-2.0 */
/* Step results: there and back, and everything that a rank may not report. */
#include "helpers.h"

#include "rpc/result.h"

static const struct result_limits limits = {
    .rank = 2, .max_tokens = 2, .n_slots = 8, .n_layers = 30, .vocab = 100, .max_top = 3};

struct space {
    struct step_result result;
    struct result_token tokens[3];
    struct result_top tops[4];
};

static void make(struct space *space)
{
    *space = (struct space){
        .tokens = {{.slot = 7, .token = 99, .nan_layer = -1, .logprob = -0.5f, .n_top = 1},
                   {.slot = 0, .token = -1, .flags = RESULT_NAN, .nan_layer = 30, .n_top = 0}},
        .tops = {{.token = 99, .logprob = -__builtin_inff()}},
    };
    space->result = (struct step_result){
        .step = 12,
        .plan_hash = UINT64_MAX,
        .state_hash = 3,
        .rank = 2,
        .tokens = space->tokens,
        .tops = space->tops,
        .text = "",
        .n_tokens = 2,
        .n_tops = 1,
    };
}

static enum status there_and_back(const struct space *space, struct step_result *ret, void **bytes,
                                  struct err *err)
{
    size_t n = result_bytes(&space->result);

    *bytes = malloc(n);
    assert_non_null(*bytes);
    assert_int_equal(result_encode(&space->result, *bytes, n, NULL), STATUS_OK);
    return result_decode(*bytes, n, &limits, ret, err);
}

static void test_round_trip(void **state)
{
    struct space space;
    struct step_result back;
    struct err err = {0};
    void *bytes;

    (void)state;
    make(&space);
    assert_int_equal(there_and_back(&space, &back, &bytes, &err), STATUS_OK);
    assert_int_equal(back.step, 12);
    assert_true(back.plan_hash == UINT64_MAX);
    assert_int_equal(back.state_hash, 3);
    assert_int_equal(back.status, STATUS_OK);
    assert_int_equal(back.n_tokens, 2);
    assert_memory_equal(back.tokens, space.tokens, 2 * sizeof(*back.tokens));
    assert_memory_equal(back.tops, space.tops, sizeof(*back.tops));
    assert_int_equal(back.n_text, 0);
    free(bytes);

    make(&space);
    space.result.n_tokens = 0;
    space.result.n_tops = 0;
    space.result.status = STATUS_LINK;
    space.result.text = "rank 1 is gone";
    space.result.n_text = 14;
    assert_int_equal(there_and_back(&space, &back, &bytes, &err), STATUS_OK);
    assert_int_equal(back.status, STATUS_LINK);
    assert_int_equal(back.n_text, 14);
    assert_memory_equal(back.text, "rank 1 is gone", 14);
    free(bytes);
    assert_int_equal(result_encode(&space.result, &space, 10, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "result of "));
}

static void refused(const struct space *space, int line, const char *text)
{
    struct step_result back = {.step = 777};
    struct err err = {0};
    void *bytes;

    if (there_and_back(space, &back, &bytes, &err) != STATUS_CORRUPT ||
        strstr(err.text, text) == NULL) {
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, err.text, text);
    }
    assert_int_equal(back.step, 777);
    free(bytes);
}

#define REFUSED(change, text)            \
    do {                                 \
        make(&space);                    \
        change;                          \
        refused(&space, __LINE__, text); \
    } while (0)

static void test_refused(void **state)
{
    struct space space;
    char long_text[ERR_TEXT_BYTES] = {0};

    (void)state;
    REFUSED(space.result.rank = 1, "result: of rank 1, not of 2");
    REFUSED(space.result.status = 1, "result: status 1");
    REFUSED(space.result.n_tokens = 3, "3 tokens of 2");
    REFUSED(space.result.text = long_text;
            space.result.n_text = sizeof(long_text), "1024 bytes of text");
    REFUSED(space.tokens[0].slot = 8, "tokens[0]: slot is 8");
    REFUSED(space.tokens[0].flags = 2, "tokens[0]: flags is 2");
    REFUSED(space.tokens[0].token = 100, "tokens[0]: token is 100");
    REFUSED(space.tokens[0].token = -1, "tokens[0]: token is -1");
    REFUSED(space.tokens[1].token = 0, "tokens[1]: token is 0");
    REFUSED(space.tokens[0].nan_layer = 0, "tokens[0]: nan_layer is 0");
    REFUSED(space.tokens[1].nan_layer = 31, "tokens[1]: nan_layer is 31");
    REFUSED(space.tokens[1].nan_layer = -1, "tokens[1]: nan_layer is -1");
    REFUSED(space.tokens[0].logprob = __builtin_nanf(""), "logprob is not a number");
    REFUSED(space.tokens[0].n_top = 4; space.result.n_tops = 4, "tokens[0]: n_top is 4");
    REFUSED(space.tokens[1].n_top = 1, "tokens[1]: n_top is 1");
    REFUSED(space.tokens[0].n_top = 0, "tokens have 0 tops of 1");
    REFUSED(space.tops[0].token = 100, "tops[0]: token is 100");
    REFUSED(space.tops[0].logprob = __builtin_nanf(""), "tops[0]: token is 99");
}

static void test_damage(void **state)
{
    struct space space;
    struct step_result back;
    uint8_t *bytes;
    size_t n;

    (void)state;
    make(&space);
    n = result_bytes(&space.result);
    assert_int_equal(there_and_back(&space, &back, (void **)&bytes, NULL), STATUS_OK);
    for (size_t bit = 0; bit < n * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(result_decode(bytes, n, &limits, &back, NULL), STATUS_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t length = 0; length < n; length++) {
        void *cut = exact_copy(bytes, length);

        assert_int_equal(result_decode(cut, length, &limits, &back, NULL), STATUS_CORRUPT);
        free(cut);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
