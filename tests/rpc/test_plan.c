/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: there and back, one encoding each, every limit and every damaged byte noticed. */
#include <xxhash.h>

#include "plans.h"

/* The bytes of a plan on the heap, of their exact length. */
static void *encode(const struct step_plan *plan, size_t *ret_n, uint64_t *ret_hash)
{
    size_t n = plan_bytes(plan);
    void *bytes = malloc(n);

    assert_non_null(bytes);
    assert_int_equal(plan_encode(plan, bytes, n, ret_hash, NULL), STATUS_OK);
    *ret_n = n;
    return bytes;
}

static void test_round_trip(void **state)
{
    struct random random = random_start("round trip");
    struct plan_space *space = xalloc(sizeof(*space));
    uint64_t largest = 0;

    (void)state;
    for (uint32_t i = 0; i < 3000; i++) {
        struct step_plan back;
        struct err err = {0};
        uint64_t hash;
        uint64_t hash_back;
        uint64_t hash_again;
        size_t n;
        size_t n_again;
        void *bytes;
        void *again;

        plans_make(&random, space);
        bytes = encode(&space->plan, &n, &hash);
        largest = MAX(largest, n);
        if (plan_decode(bytes, n, &plans_limits, &back, &hash_back, &err) != STATUS_OK) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(hash, hash_back);
        assert_int_equal(back.step, space->plan.step);
        assert_int_equal(back.n_tokens, space->plan.n_tokens);
        assert_memory_equal(back.tokens, space->tokens, back.n_tokens * sizeof(*back.tokens));
        assert_int_equal(back.n_params, space->plan.n_params);
        assert_memory_equal(back.params, space->params, back.n_params * sizeof(*back.params));
        assert_int_equal(back.n_cleared, space->plan.n_cleared);
        again = encode(&back, &n_again, &hash_again);
        assert_int_equal(n_again, n);
        assert_memory_equal(again, bytes, n);
        free(again);
        free(bytes);
    }
    print_message("longest %llu bytes\n", (unsigned long long)largest);
    free(space);
}

/* A decode step of 64 sequences fits 4 KiB, so a ring slot of that size carries it. */
static void test_size_of_decode(void **state)
{
    struct step_plan plan = {
        .step = 9, .n_tokens = 64, .n_refs = 64, .n_segments = 64, .n_pages = 1, .n_wants = 64};

    (void)state;
    assert_in_range(plan_bytes(&plan), 1, 4096);
}

static void test_size_limit(void **state)
{
    struct random random = {.state = 1};
    struct plan_space *space = xalloc(sizeof(*space));
    uint8_t byte = 77;
    struct err err = {0};
    uint64_t hash = 5;

    (void)state;
    plans_make(&random, space);
    assert_int_equal(plan_encode(&space->plan, &byte, plan_bytes(&space->plan) - 1, &hash, &err),
                     STATUS_LIMIT);
    assert_non_null(strstr(err.text, "plan of "));
    assert_int_equal(byte, 77);
    assert_int_equal(hash, 5);
    free(space);
}

/* A small plan in which everything occurs; each case changes one thing. */
static void make_small(struct plan_space *space)
{
    memset(space, 0, sizeof(*space));
    space->tokens[0] = 7;
    space->tokens[1] = PLAN_TOKEN_REF;
    space->refs[0] = (struct plan_ref){.row = 1, .slot = 1, .step = 9};
    space->segments[0] = (struct plan_segment){.slot = 0, .n = 1, .pos = 64, .n_pages = 2};
    space->segments[1] = (struct plan_segment){.slot = 1, .n = 1, .pos = 5, .page_first = 1};
    space->pages[0] = 3;
    space->pages[1] = 4;
    space->wants[0] = (struct plan_want){.row = 0, .slot = 0};
    space->wants[1] = (struct plan_want){
        .row = 1, .slot = 1, .position = 3, .n_top = 20, .flags = PLAN_WANT_LOGPROB};
    space->wants[2] = (struct plan_want){.row = 0,
                                         .slot = 1,
                                         .flags = PLAN_WANT_LOGPROB | PLAN_WANT_SCORE,
                                         .token = PLANS_VOCAB - 1};
    space->wants[3] = space->wants[2];
    space->params[0] = (struct plan_params){
        .seed = 1, .slot = 0, .temperature = 1, .top_p = 1, .n_bias = 1, .n_prompt = 1};
    space->params[1] = (struct plan_params){.slot = 1, .n_bias = 1, .n_generated = 2};
    space->bias[0] = (struct plan_bias){.token = 1, .add = 1};
    space->bias[1] = (struct plan_bias){.token = 2, .add = -1};
    space->cleared[0] = 0;
    space->cleared[1] = 5;
    space->plan = (struct step_plan){
        .step = 10,
        .tokens = space->tokens,
        .refs = space->refs,
        .segments = space->segments,
        .pages = space->pages,
        .wants = space->wants,
        .params = space->params,
        .bias = space->bias,
        .history = space->history,
        .cleared = space->cleared,
        .n_tokens = 2,
        .n_refs = 1,
        .n_segments = 2,
        .n_pages = 2,
        .n_wants = 4,
        .n_params = 2,
        .n_bias = 2,
        .n_history = 3,
        .n_cleared = 2,
    };
}

static struct plan_space *small;

/* The change is refused with a text that names the place; without it the plan is right. */
static void refused(int line, const char *text)
{
    struct err err = {0};
    struct step_plan back = {.step = 777};
    uint64_t hash;
    size_t n;
    void *bytes = encode(&small->plan, &n, &hash);

    if (plan_decode(bytes, n, &plans_limits, &back, &hash, &err) != STATUS_CORRUPT ||
        strstr(err.text, text) == NULL) {
        fail_msg("line %d: \"%s\" instead of \"%s\"", line, err.text, text);
    }
    assert_int_equal(back.step, 777);
    free(bytes);
    make_small(small);
    bytes = encode(&small->plan, &n, &hash);
    assert_int_equal(plan_decode(bytes, n, &plans_limits, &back, &hash, NULL), STATUS_OK);
    free(bytes);
}

#define REFUSED(change, text)    \
    do {                         \
        change;                  \
        refused(__LINE__, text); \
    } while (0)

static void test_rows_refused(void **state)
{
    (void)state;
    small = xalloc(sizeof(*small));
    make_small(small);
    REFUSED(small->plan.step = 0, "plan: step 0 with flags 0");
    REFUSED(small->plan.flags = 4, "plan: step 10 with flags 4");
    REFUSED(small->plan.flags = UINT64_C(1) << 40, "with flags 10000000000");
    REFUSED(small->plan.n_tokens = PLANS_ROWS; small->plan.n_tokens++, "plan: 41 rows, at most 40");
    REFUSED(small->tokens[0] = PLANS_VOCAB, "tokens[0]: token is 1000");
    REFUSED(small->tokens[0] = -2, "tokens[0]: token is -2");
    REFUSED(small->tokens[0] = PLAN_TOKEN_REF, "tokens[0]: token is -1");
    REFUSED(small->plan.n_refs = 0, "tokens[1]: token is -1");
    REFUSED(small->tokens[1] = 3, "refs[0]: row is 1");
    REFUSED(small->refs[0].row = 0, "tokens[1]: token is -1");
    REFUSED(small->refs[0].slot = PLANS_SLOTS, "refs[0]: slot is 70");
    REFUSED(small->refs[0].step = 10, "refs[0]: step is 10");
    REFUSED(small->segments[0].slot = PLANS_SLOTS, "segments[0]: slot is 70");
    REFUSED(small->segments[0].slot = UINT32_MAX, "segments[0]: slot is 4294967295");
    REFUSED(small->segments[1].slot = 0, "segments[1]: slot is 0");
    REFUSED(small->segments[0].n = 0, "segments[0]: n is 0");
    REFUSED(small->segments[0].n = 3, "segments[0]: n is 3");
    REFUSED(small->segments[1].n = UINT32_MAX, "segments[1]: n is 4294967295");
    REFUSED(small->plan.n_segments = 1, "plan: segments have 1 rows of 2");
    REFUSED(small->segments[0].pos = PLANS_CONTEXT, "segments[0]: pos is 2048");
    REFUSED(small->segments[0].pos = UINT32_MAX, "segments[0]: pos is 4294967295");
    REFUSED(small->segments[0].pos = 63, "segments[0]: n_pages is 2");
    REFUSED(small->segments[0].page_first = UINT32_MAX, "segments[0]: n_pages is 2");
    REFUSED(small->segments[1].page_first = 0, "segments[1]: n_pages is 0");
    REFUSED(small->segments[1].page_first = 0;
            small->segments[1].n_pages = 1, "segments[1]: n_pages is 1");
    REFUSED(small->plan.n_pages = 1, "segments[0]: n_pages is 2");
    REFUSED(small->plan.n_pages = 3, "segments have 2 rows of 2, 2 pages of 3");
    REFUSED(small->pages[1] = PLANS_PAGES, "pages[1]: page is 200");
    free(small);
}

static void test_wants_refused(void **state)
{
    (void)state;
    small = xalloc(sizeof(*small));
    make_small(small);
    REFUSED(small->wants[1].row = 2, "wants[1]: row is 2");
    REFUSED(small->wants[1].slot = 0, "wants[1]: slot is 0");
    REFUSED(small->wants[0].slot = PLANS_SLOTS, "wants[0]: slot is 70");
    REFUSED(small->wants[0].position = PLANS_CONTEXT, "wants[0]: position is 2048");
    REFUSED(small->wants[0].n_top = 1, "wants[0]: n_top is 1");
    REFUSED(small->wants[1].n_top = PLANS_TOP + 1, "wants[1]: n_top is 21");
    REFUSED(small->wants[1].flags = 4, "wants[1]: flags is 4");
    REFUSED(small->wants[2].flags = PLAN_WANT_SCORE, "wants[2]: flags is 2");
    REFUSED(small->wants[2].flags = PLAN_WANT_LOGPROB, "wants[2]: slot is 1");
    REFUSED(small->wants[2].slot = PLANS_SLOTS, "wants[2]: slot is 70");
    REFUSED(small->wants[3].row = 2, "wants[3]: row is 2");
    REFUSED(small->wants[3].n_top = PLANS_TOP + 1, "wants[3]: n_top is 21");
    REFUSED(small->wants[3].token = PLANS_VOCAB, "wants[3]: token is 1000");
    REFUSED(small->plan.flags = PLAN_LOGITS, "wants[2]: flags is 3");
    REFUSED(small->plan.n_wants = PLANS_ROWS + 1, "plan: 41 wants, at most 40");
    free(small);
}

static void test_params_refused(void **state)
{
    (void)state;
    small = xalloc(sizeof(*small));
    make_small(small);
    REFUSED(small->params[1].slot = 0, "params[1]: slot is 0");
    REFUSED(small->params[1].slot = PLANS_SLOTS, "params[1]: slot is 70");
    REFUSED(small->params[0].flags = 2, "params[0]: flags is 2");
    REFUSED(small->params[0].n_min_bias = 2, "params[0]: n_min_bias is 2");
    REFUSED(small->params[0].flags = PLAN_PARAMS_ALLOW;
            small->params[0].n_min_bias = 1, "params[0]: n_min_bias is 1");
    REFUSED(small->params[0].n_phrase_bias = 2, "params[0]: n_min_bias is 0");
    REFUSED(small->params[0].n_phrase_bias = 1;
            small->params[0].n_min_bias = 1, "params[0]: n_min_bias is 1");
    REFUSED(small->params[0].n_phrase_bias = 1;
            small->params[0].flags = PLAN_PARAMS_ALLOW, "params[0]: n_min_bias is 0");
    REFUSED(small->params[1].n_phrase_bias = 1;
            small->bias[1].add = 0, "params[1]: n_min_bias is 0");
    REFUSED(small->params[0].temperature = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].top_p = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].min_p = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].repetition_penalty = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].presence_penalty = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].frequency_penalty = __builtin_nanf(""), "params[0]: not a number");
    REFUSED(small->params[0].n_bias = PLANS_BIAS + 1, "params[0]: n_bias is 31");
    REFUSED(small->params[1].n_bias = 2, "params[1]: n_bias is 2");
    REFUSED(small->params[1].n_bias = 0, "plan: params have 1 biases of 2");
    REFUSED(small->params[0].n_prompt = UINT32_MAX, "params[0]: n_prompt is 4294967295");
    REFUSED(small->params[1].n_prompt = UINT32_MAX;
            small->params[1].n_generated = 3, "params[1]: n_prompt is 4294967295");
    REFUSED(small->params[1].n_generated = 1, "2 tokens of history of 3");
    REFUSED(small->bias[1].token = PLANS_VOCAB, "bias[1]: token is 1000");
    REFUSED(small->bias[1].add = __builtin_nanf(""), "bias[1]: token is 2");
    REFUSED(small->bias[1].add = __builtin_inff(), "bias[1]: token is 2");
    REFUSED(small->history[2] = -1, "history[2]: token is -1");
    REFUSED(small->history[0] = PLANS_VOCAB, "history[0]: token is 1000");
    REFUSED(small->cleared[1] = 0, "cleared[1]: slot is 0");
    REFUSED(small->cleared[1] = PLANS_SLOTS, "cleared[1]: slot is 70");
    free(small);
}

/* No changed bit and no other length passes. */
static void test_damage(void **state)
{
    struct plan_space *space = xalloc(sizeof(*space));
    struct step_plan back;
    uint64_t hash;
    size_t n;
    uint8_t *bytes;

    (void)state;
    make_small(space);
    bytes = encode(&space->plan, &n, &hash);
    for (size_t bit = 0; bit < n * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(plan_decode(bytes, n, &plans_limits, &back, &hash, NULL), STATUS_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t length = 0; length < n; length++) {
        void *cut = exact_copy(bytes, length);

        assert_int_equal(plan_decode(cut, length, &plans_limits, &back, &hash, NULL),
                         STATUS_CORRUPT);
        free(cut);
    }
    assert_int_equal(plan_decode(bytes + 4, n - 4, &plans_limits, &back, &hash, NULL),
                     STATUS_CORRUPT); /* not aligned */
    free(bytes);
    free(space);
}

/* Changed bits under a hash made right: refused, or another plan with that very encoding. */
static void test_one_encoding(void **state)
{
    struct plan_space *space = xalloc(sizeof(*space));
    uint32_t n_accepted = 0;
    uint64_t hash;
    uint8_t *bytes;
    size_t n;

    (void)state;
    make_small(space);
    space->plan.n_cleared = 1; /* an odd number, so that there is padding */
    bytes = encode(&space->plan, &n, &hash);
    for (size_t bit = 0; bit < (n - 8) * 8; bit++) {
        struct step_plan back;
        uint64_t right;

        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        right = XXH3_64bits(bytes, n - 8);
        memcpy(bytes + n - 8, &right, sizeof(right));
        if (plan_decode(bytes, n, &plans_limits, &back, &hash, NULL) == STATUS_OK) {
            size_t n_again;
            uint8_t *again = encode(&back, &n_again, &hash);

            assert_int_equal(n_again, n);
            assert_memory_equal(again, bytes, n);
            free(again);
            n_accepted++;
        }
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(n_accepted > 0);
    free(bytes);
    free(space);
}

/* Plans that differ anywhere differ in their hash. */
static void test_hash(void **state)
{
    struct plan_space *space = xalloc(sizeof(*space));
    uint64_t first;
    uint64_t second;
    size_t n;

    (void)state;
    make_small(space);
    free(encode(&space->plan, &n, &first));
    free(encode(&space->plan, &n, &second));
    assert_int_equal(first, second);
    space->params[1].seed ^= UINT64_C(1) << 63;
    free(encode(&space->plan, &n, &second));
    assert_int_not_equal(first, second);
    free(space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_size_of_decode),
        cmocka_unit_test(test_size_limit),    cmocka_unit_test(test_rows_refused),
        cmocka_unit_test(test_wants_refused), cmocka_unit_test(test_params_refused),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_one_encoding),
        cmocka_unit_test(test_hash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
