/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank against its leader's side: its whole life, every request out of its order, bad plans,
 * plans that are long or one step ahead, kept memory, and the end of its leader.
 */
#include "rank_plans.h"

#include <math.h>
#include <sys/stat.h>

#include "sample/sampler.h"

enum { PROMPT = 10, DECODED = 6 };

/* Greedy tokens after the prompt, computed without ranks, and the logits of the prompt's rows. */
static void compute_reference(int32_t *tokens, float *logits)
{
    struct engine *engine;
    struct model_want wants[PROMPT];
    int32_t in[PROMPT];
    uint32_t page = 0;
    uint32_t pos = 0;
    const struct engine_options options = {.path = RIG_MODEL,
                                           .n_threads = 1,
                                           .max_context = RIG_CONTEXT,
                                           .max_chunk = RIG_ROWS,
                                           .max_wants = RIG_ROWS,
                                           .ops = &cpu_ops};

    assert_int_equal(engine_create(&options, &engine, NULL), STATUS_OK);
    assert_int_equal(engine_page_clear(engine, page, NULL), STATUS_OK);
    for (uint32_t k = 0; k < DECODED; k++) {
        uint32_t n = k == 0 ? PROMPT : 1;
        const struct ops_segment segment = {0, n, pos, &page};
        uint32_t best = 0;

        for (uint32_t i = 0; i < n; i++) {
            in[i] = k == 0 ? rig_token(i) : tokens[k - 1];
            wants[i] = (struct model_want){.row = i};
        }
        assert_int_equal(engine_step(engine,
                                     &(struct model_step){.tokens = in,
                                                          .n_tokens = n,
                                                          .segments = &segment,
                                                          .n_segments = 1,
                                                          .wants = wants,
                                                          .n_wants = n},
                                     NULL),
                         STATUS_OK);
        for (uint32_t i = 0; i < n && k == 0; i++) {
            memcpy(logits + (size_t)i * RIG_VOCAB, wants[i].logits, RIG_VOCAB * sizeof(float));
        }
        for (uint32_t v = 1; v < RIG_VOCAB; v++) {
            best = wants[n - 1].logits[v] > wants[n - 1].logits[best] ? v : best;
        }
        tokens[k] = (int32_t)best;
        pos += n;
    }
    engine_destroy(&engine);
}

static void sanity(struct rig *rig)
{
    rig_ask(rig, MESSAGE_SANITY, NULL);
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct message message = rig_answer(rig, r, MESSAGE_SANITY_RESULT);

        assert_int_equal(message_uint(message.json, "observed_sum", 0), rig->n_ranks);
        message_release(&message);
    }
}

/* The prompt, then tokens one by one, each fed back; all must be those of the reference. */
static void decode(struct rig *rig, uint32_t slot, const int32_t *expected)
{
    struct rig_plan p;

    rig_make(&p, slot, 0, PROMPT);
    p.plan.flags = PLAN_HASH_STATE;
    assert_int_equal(rig_step(rig, &p.plan), expected[0]);
    for (uint32_t k = 1; k < DECODED; k++) {
        rig_make(&p, slot, PROMPT + k - 1, 1);
        p.tokens[0] = expected[k - 1];
        p.wants[0].position = k;
        assert_int_equal(rig_step(rig, &p.plan), expected[k]);
    }
}

static void test_life(void **state)
{
    const int32_t *expected = *state;

    for (uint32_t n = 1; n <= RIG_MAX_RANKS; n++) {
        struct status_snapshot *page = xalloc(sizeof(*page));
        struct message message;
        struct rig rig;
        json_t *answer = NULL;

        rig_open(&rig, n);
        rig_do(&rig, MESSAGE_PING, NULL);
        rig_wire(&rig);
        rig_connect(&rig);
        sanity(&rig);
        sanity(&rig);
        rig_load(&rig, false, true, &answer);
        assert_int_equal(message_uint(answer, "kv_pages", 0), RIG_CONTEXT / OPS_PAGE_TOKENS);
        assert_true(message_uint(answer, "weight_bytes", 0) > 0);
        assert_true(message_uint(answer, "read_bytes", 0) > 0);
        assert_non_null(strstr(message_text(answer, "arithmetic", ""), "canonical"));
        json_decref(answer);
        decode(&rig, 0, expected);
        decode(&rig, 1, expected);
        rig_do(&rig, MESSAGE_CLEAR_KV, NULL);
        decode(&rig, 0, expected);
        rig_do(&rig, MESSAGE_PING, NULL);

        rig_ask(&rig, MESSAGE_QUERY, NULL);
        for (uint32_t r = 0; r < n; r++) {
            message = rig_answer(&rig, r, MESSAGE_QUERY_RESULT);
            assert_int_equal(message_uint(json_object_get(message.json, "counters"), "steps", 0),
                             3 * DECODED);
            assert_true(message_uint(json_object_get(message.json, "memory"), "kv_bytes", 0) > 0);
            message_release(&message);
        }
        rig_do(&rig, MESSAGE_UNLOAD, NULL);
        rig_do(&rig, MESSAGE_UNLOAD, NULL); /* nothing more */
        rig_do(&rig, MESSAGE_QUERY, NULL);
        close(rig.host_fd);
        rig.host_fd = rig_memfd(); /* an embedding is filled once */
        rig_load(&rig, false, false, NULL);
        decode(&rig, 1, expected);
        rig_do(&rig, MESSAGE_SHUTDOWN, NULL);
        for (uint32_t r = 0; r < n; r++) {
            pthread_join(rig.ranks[r].thread, NULL);
            rig.ranks[r].runs = false;
            assert_int_equal(rig.ranks[r].status, STATUS_OK);
            assert_int_equal(status_page_read(rig.wiring.ranks[r], r, RIG_EPOCH, page, NULL),
                             STATUS_OK); /* which tells of it afterwards */
            assert_int_equal(page->phase, STATUS_PHASE_SHUTDOWN);
            assert_string_equal(page->error, "");
        }
        rig_close(&rig);
        free(page);
    }
}

/* What a rank has left in kept memory is there for the next, the KV pages too. */
static void test_kept(void **state)
{
    const int32_t *expected = *state;
    struct rig_plan p;
    struct rig rig;
    json_t *answer = NULL;

    rig_up(&rig, 2);
    decode(&rig, 0, expected);
    rig_do(&rig, MESSAGE_UNLOAD, NULL);
    rig_load(&rig, true, false, &answer);
    assert_int_equal(message_uint(answer, "read_bytes", 99), 0);
    json_decref(answer);
    rig_make(&p, 0, 0, PROMPT); /* for its params: a history of all but the last token */
    p.plan.n_params = 1;
    p.params.n_generated = DECODED - 2;
    for (uint32_t k = 0; k < DECODED - 2; k++) {
        p.history[PROMPT + k] = expected[k];
    }
    p.plan.n_history = PROMPT + DECODED - 2;
    p.segment = (struct plan_segment){.n = 1, .pos = PROMPT + DECODED - 3, .n_pages = 1};
    p.tokens[0] = expected[DECODED - 3];
    p.plan.n_tokens = 1;
    p.wants[0] = (struct plan_want){.row = 0, .position = DECODED - 2};
    assert_int_equal(rig_step(&rig, &p.plan), expected[DECODED - 2]);
    rig_close(&rig);
}

static off_t taken(const struct rig *rig, uint32_t rank)
{
    struct stat info;

    assert_int_equal(fstat(rig->ranks[rank].kv_fd, &info), 0);
    return info.st_blocks * 512;
}

/* An idle rank takes the memory of its KV pages before the first step asks for it, and a step finds
 * them as it would have. One that replaces another takes none. */
static void test_takes_ahead(void **state)
{
    const int32_t *expected = *state;
    struct rig rig;

    rig_up(&rig, 2);
    for (uint32_t r = 0; r < 2; r++) {
        uint64_t end = clock_ns() + (uint64_t)RIG_WAIT_MS * 1000000;
        struct stat info;

        assert_int_equal(fstat(rig.ranks[r].kv_fd, &info), 0);
        while (taken(&rig, r) < info.st_size) {
            assert_true(clock_ns() < end);
            usleep(1000);
        }
    }
    decode(&rig, 0, expected);
    rig_do(&rig, MESSAGE_UNLOAD, NULL);
    usleep(100 * 1000);                /* idle without an engine */
    for (uint32_t r = 0; r < 2; r++) { /* all but the page of the header */
        assert_int_equal(fallocate(rig.ranks[r].kv_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   0, taken(&rig, r) - 4096),
                         0);
    }
    rig_load(&rig, true, false, NULL);
    usleep(200 * 1000);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(taken(&rig, r), 4096);
    }
    rig_close(&rig);
}

/* Logits instead of tokens: those of every row, the same bits. */
static void test_logits(void **state)
{
    static float reference[PROMPT * RIG_VOCAB];
    int32_t tokens[DECODED];
    struct rig_plan p;
    struct rig rig;
    void *memory;
    size_t bytes = (size_t)RIG_ROWS * RIG_VOCAB * sizeof(float);

    (void)state;
    compute_reference(tokens, reference);
    rig_up(&rig, 1);
    rig_make(&p, 0, 0, PROMPT);
    p.plan.flags = PLAN_LOGITS;
    p.plan.n_params = 0;
    p.plan.n_history = 0;
    p.plan.n_wants = PROMPT;
    for (uint32_t i = 0; i < PROMPT; i++) {
        p.wants[i] = (struct plan_want){.row = i};
    }
    assert_int_equal(rig_step(&rig, &p.plan), 0); /* there is no token, and no failure */
    assert_int_equal(region_map(rig.ranks[0].logits_fd, bytes, false, &memory, NULL), STATUS_OK);
    assert_memory_equal(memory, reference, sizeof(reference));
    region_unmap(memory, bytes);

    rig_do(&rig, MESSAGE_UNLOAD, NULL);
    close(rig.host_fd);
    rig.host_fd = rig_memfd();
    rig_load(&rig, false, false, NULL);
    rig_fails(&rig, &p.plan, "no memory for them");
    rig_close(&rig);
}

/* Every token of the prompt scored by the row before it, and a token sampled with a bias that its
 * log-probability does not know. */
static void expect_logprobs(struct rig *rig, const struct rig_plan *p, float *logits)
{
    struct sampler sampler;

    assert_int_equal(sampler_init(&sampler, RIG_VOCAB), STATUS_OK);
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct step_result result = rig_result(rig, r);
        uint32_t at = 0;

        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.n_tokens, PROMPT);
        for (uint32_t i = 0; i < PROMPT; i++) {
            const struct result_token *token = &result.tokens[i];
            uint32_t expected = i < PROMPT - 1 ? p->wants[i].token : p->bias[1].token;
            struct sample_logprob own;
            struct sample_logprob tops[PLAN_MAX_TOP];
            uint32_t n_top;

            assert_int_equal(sampler_logprobs(&sampler,
                                              logits + p->wants[i].row * (size_t)RIG_VOCAB,
                                              expected, p->wants[i].n_top, &own, tops, &n_top),
                             STATUS_OK);
            assert_int_equal(token->token, expected);
            assert_memory_equal(&token->logprob, &own.logprob, sizeof(float));
            assert_int_equal(token->n_top, n_top);
            assert_true(at + n_top <= result.n_tops);
            assert_memory_equal(result.tops + at, tops, n_top * sizeof(*tops));
            at += n_top;
        }
        assert_int_equal(at, result.n_tops);
    }
    sampler_release(&sampler);
}

static void test_logprobs(void **state)
{
    static float reference[PROMPT * RIG_VOCAB];
    int32_t tokens[DECODED];

    (void)state;
    compute_reference(tokens, reference);
    for (uint32_t n = 1; n <= RIG_MAX_RANKS; n++) {
        struct rig_plan p;
        struct rig rig;

        rig_up(&rig, n);
        rig_make(&p, 0, 0, PROMPT);
        p.plan.n_wants = PROMPT;
        for (uint32_t i = 0; i + 1 < PROMPT; i++) {
            p.wants[i] = (struct plan_want){.row = PROMPT - 2 - i,
                                            .token = (uint32_t)rig_token(PROMPT - 1 - i),
                                            .n_top = (uint16_t)(i % 2 * 5),
                                            .flags = PLAN_WANT_LOGPROB | PLAN_WANT_SCORE};
        }
        p.wants[PROMPT - 1] = (struct plan_want){
            .row = PROMPT - 1, .n_top = PLAN_MAX_TOP, .flags = PLAN_WANT_LOGPROB};
        p.bias[0] = (struct plan_bias){.token = (uint32_t)tokens[0], .add = -INFINITY};
        p.bias[1] = (struct plan_bias){.token = ((uint32_t)tokens[0] + 1) % RIG_VOCAB, .add = -9};
        p.params.n_bias = p.plan.n_bias = 2; /* the likeliest token not now, and one other */
        p.params.n_min = 1;
        p.params.n_min_bias = 1;
        p.params.flags = PLAN_PARAMS_ALLOW;
        rig_send(&rig, &p.plan);
        expect_logprobs(&rig, &p, reference);
        rig_close(&rig);
    }
}

/* A plan whose token the step before it samples, sent before that has been done. */
static void test_one_ahead(void **state)
{
    const int32_t *expected = *state;
    struct rig rig;

    for (uint32_t n = 1; n <= RIG_MAX_RANKS; n++) {
        struct rig_plan p;

        rig_up(&rig, n);
        rig_make(&p, 0, 0, PROMPT);
        rig_send(&rig, &p.plan);
        for (uint32_t k = 1; k <= DECODED; k++) {
            if (k < DECODED) {
                rig_make(&p, 0, PROMPT + k - 1, 1);
                p.tokens[0] = PLAN_TOKEN_REF;
                p.ref = (struct plan_ref){.row = 0, .slot = 0, .step = rig.step};
                p.plan.n_refs = 1;
                p.wants[0].position = k;
                rig_send(&rig, &p.plan);
            }
            for (uint32_t r = 0; r < n; r++) {
                struct step_result result = rig_result(&rig, r);

                assert_int_equal(result.status, STATUS_OK);
                assert_int_equal(result.tokens[0].token, expected[k - 1]);
            }
        }
        rig_close(&rig);
    }
}

/* Ahead of a step that gave no token: there is none either, and nobody else suffers. */
static void test_ahead_of_nothing(void **state)
{
    const int32_t *expected = *state;
    struct step_result result;
    struct rig_plan p;
    struct rig rig;

    rig_up(&rig, 1);
    rig_make(&p, 0, 0, PROMPT);
    p.plan.n_wants = 0; /* as if it had not been a number */
    rig_step(&rig, &p.plan);
    for (int i = 0; i < 2; i++) {
        rig_make(&p, 0, PROMPT + (uint32_t)i, 1);
        p.tokens[0] = PLAN_TOKEN_REF;
        p.ref = (struct plan_ref){.row = 0, .slot = 0, .step = rig.step};
        p.plan.n_refs = 1;
        p.wants[0].position = (uint32_t)i + 1;
        rig_send(&rig, &p.plan);
        result = rig_result(&rig, 0);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.n_tokens, 1);
        assert_int_equal(result.tokens[0].flags, RESULT_NAN);
        assert_int_equal(result.tokens[0].nan_layer, RIG_LAYERS);
    }
    decode(&rig, 1, expected);
    decode(&rig, 0, expected); /* new parameters: all is well again */
    rig_close(&rig);
}

/* Longer than a slot of the ring: over the channel, with the same result. */
static void test_long_plan(void **state)
{
    const int32_t *expected = *state;
    struct message message;
    struct step_result result;
    struct rig_plan p;
    struct rig rig;
    uint64_t hash;
    size_t n;

    rig_up(&rig, 1);
    rig_make(&p, 0, 0, PROMPT);
    p.plan.step = ++rig.step;
    p.params.n_bias = p.plan.n_bias = ARRAY_LEN(p.bias);
    for (uint32_t i = 0; i < p.plan.n_bias; i++) {
        p.bias[i] = (struct plan_bias){.token = i, .add = 0};
    }
    n = plan_bytes(&p.plan);
    assert_true(n > RIG_PLAN_BYTES);
    assert_int_equal(plan_encode(&p.plan, rig.bytes, sizeof(rig.bytes), &hash, NULL), STATUS_OK);
    rig_ask(&rig, MESSAGE_STEP, &(struct message_out){.bytes = rig.bytes, .n_bytes = (uint32_t)n});
    message = rig_answer(&rig, 0, MESSAGE_STEP_OK);
    memcpy(rig.bytes, message.bytes, message.n_bytes);
    result = rig_decode(&rig, 0, message.n_bytes);
    message_release(&message);
    assert_int_equal(result.status, STATUS_OK);
    assert_int_equal(result.plan_hash, hash);
    assert_int_equal(result.tokens[0].token, expected[0]);
    rig_make(&p, 0, PROMPT, 1); /* and on through the ring */
    p.tokens[0] = expected[0];
    p.wants[0].position = 1;
    assert_int_equal(rig_step(&rig, &p.plan), expected[1]);
    rig_close(&rig);
}

/* --- What must be refused --- */

/* Each spoils a good plan for the next position of slot 0. */
static void spoil(struct rig_plan *p, int how)
{
    switch (how) {
    case 0:
        p->tokens[0] = RIG_VOCAB;
        break;
    case 1:
        p->segment.slot = RIG_SLOTS;
        break;
    case 2:
        p->pages[0] = RIG_CONTEXT / OPS_PAGE_TOKENS;
        break;
    case 3:
        p->segment.pos = RIG_CONTEXT;
        break;
    case 4:
        p->wants[0].row = 1;
        break;
    case 5:
        p->wants[0].position = 5;
        break;
    case 6:
        p->wants[0].slot = 1;
        break;
    case 7:
        p->tokens[0] = PLAN_TOKEN_REF;
        break;
    case 8:
        p->plan.flags = 1u << 20;
        break;
    case 9: /* a page that does not follow those it has */
        p->segment.pos = OPS_PAGE_TOKENS;
        p->segment.page_first = 1;
        p->segment.slot = 1;
        p->wants[0].slot = 1;
        break;
    case 10: /* sampled in an older step than the slot's last one */
        p->tokens[0] = PLAN_TOKEN_REF;
        p->ref = (struct plan_ref){.row = 0, .slot = 0, .step = 0};
        p->plan.n_refs = 1;
        break;
    default: /* parameters that no sampler takes */
        p->plan.n_params = 1;
        p->params.temperature = -1;
        break;
    }
}

static void test_bad_plans(void **state)
{
    static const char *const words[] = {
        "token",
        "segments[0]: slot",
        "page",
        "pos",
        "row",
        "token 5 of slot 0",
        "not set",
        "token",
        "flags",
        "its pages from 1 on, but it has 0",
        "sampled in step",
        "temperature",
    };
    const int32_t *expected = *state;
    struct wait wait;
    struct rig_plan p;
    struct rig rig;
    uint64_t number;

    rig_up(&rig, 1);
    rig_make(&p, 0, 0, PROMPT);
    assert_int_equal(rig_step(&rig, &p.plan), expected[0]);
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        rig_make(&p, 0, PROMPT, 1);
        p.tokens[0] = expected[0];
        p.wants[0].position = 1;
        spoil(&p, (int)i);
        rig_fails(&rig, &p.plan, words[i]);
    }
    memset(rig.bytes, 0x77, 64); /* no plan at all */
    assert_int_equal(ring_publish(&rig.wiring.plans, RING_PLAN, rig.bytes, 64, &number, NULL),
                     STATUS_OK);
    assert_int_equal(rig_result(&rig, 0).status, STATUS_BUG);
    rig_make(&p, 0, PROMPT, 1); /* after all that the right one */
    p.tokens[0] = expected[0];
    p.wants[0].position = 1;
    assert_int_equal(rig_step(&rig, &p.plan), expected[1]);
    p.plan = (struct step_plan){.cleared = p.cleared, .n_cleared = 1}; /* nothing to compute */
    assert_int_equal(rig_step(&rig, &p.plan), -1);
    wait = wait_leader(rig_deadline());
    assert_int_equal(ring_wait_acked(&rig.wiring.plans, rig.wiring.plans.newest, &wait, NULL),
                     STATUS_OK);
    rig_close(&rig);
}

static void test_out_of_order(void **state)
{
    const int32_t *expected = *state;
    json_t *load = rig_load_body(false, false);
    json_t *fault = json_pack("{s:s, s:i}", "what", "no such thing", "id", 1);
    struct message_out load_out = {.json = load};
    struct rig rig;
    int fds[3];

    rig_open(&rig, 1);
    rig_refused(&rig, MESSAGE_SANITY, NULL, ERROR_BUG, "before comm_init");
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_BUG, "before comm_init");
    rig_refused(&rig, MESSAGE_STEP, &(struct message_out){.bytes = "12345678", .n_bytes = 8},
                ERROR_BUG, "before a model");
    rig_do(&rig, MESSAGE_CLEAR_KV, NULL);
    rig_do(&rig, MESSAGE_UNLOAD, NULL);
    rig_do(&rig, MESSAGE_QUERY, NULL);
    rig_wire(&rig);
    rig_connect(&rig);
    sanity(&rig);
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_BUG, "0 descriptors");
    rig_refused(&rig, MESSAGE_FAULT, &(struct message_out){.json = fault}, ERROR_USER, "no such");
    fds[0] = rig.ranks[0].weights_fd;
    fds[1] = rig.host_fd;
    fds[2] = rig.ranks[0].kv_fd;
    load_out.fds = fds;
    load_out.n_fds = 3;
    json_object_set_new(load, "model", json_string("/no/such/model"));
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_USER, "/no/such/model");
    json_object_set_new(load, "model", json_string(RIG_MODEL));
    json_object_del(json_object_get(load, "options"), "max_chunk");
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_USER, "max_chunk");
    json_object_set_new(json_object_get(load, "options"), "max_chunk", json_integer(4));
    json_object_set_new(json_object_get(load, "options"), "keep_weights", json_true());
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_USER, "");
    rig_load(&rig, false, false, NULL);
    rig_refused(&rig, MESSAGE_LOAD, &load_out, ERROR_BUG, "while a model is loaded");
    decode(&rig, 0, expected);
    rig_do(&rig, MESSAGE_UNLOAD, NULL);
    rig_do(&rig, MESSAGE_CLEAR_KV, NULL); /* of nothing */
    rig_do(&rig, MESSAGE_PING, NULL);
    rig_close(&rig);
    json_decref(load);
    json_decref(fault);
}

/* A field of comm_init that is wrong is named, and a right one is taken after it. */
static void test_bad_comm_init(void **state)
{
    static const struct {
        const char *field;
        const char *value;
        const char *words;
    } rows[] = {
        {"rank", "1", "another rank"},
        {"world_size", "0", "ranks"},
        {"world_size", "17", "shared memory has"}, /* no room for so many lines */
        {"id", "\"abc\"", "id"},
        {"id", "\"zz112233445566778899aabbccddeeff\"", "id"},
        {"cores", "[-1]", "cores[0]"},
        {"cores", "[\"one\"]", "cores[0]"},
        {"rings", "{}", "slots"},
        {"rings", "{\"slots\": 8, \"plan_bytes\": 1024, \"result_bytes\": 1000000}", "do not fit"},
        {"rings", "{\"slots\": 8, \"plan_bytes\": 100000, \"result_bytes\": 2048}",
         "shared memory"},
    };
    json_t *right;
    struct rig rig;
    int fds[2];

    (void)state;
    rig_open(&rig, 1);
    rig_wire(&rig);
    fds[0] = rig.leader_fd;
    fds[1] = rig.comm_fd;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *body = rig_comm_body(&rig, 0);
        const struct message_out out = {.json = body, .fds = fds, .n_fds = 2};
        struct message message;

        json_object_set_new(body, rows[i].field, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        rig_ask(&rig, MESSAGE_COMM_INIT, &out);
        message = rig_answer(&rig, 0, MESSAGE_ERROR);
        if (strstr(message_text(message.json, "message", ""), rows[i].words) == NULL) {
            fail_msg("%s: \"%s\"", rows[i].field, message_text(message.json, "message", ""));
        }
        message_release(&message);
        json_decref(body);
    }
    right = rig_comm_body(&rig, 0);
    rig_refused(&rig, MESSAGE_COMM_INIT, &(struct message_out){.json = right}, ERROR_BUG,
                "two descriptors");
    json_decref(right);
    rig_connect(&rig);
    sanity(&rig);
    rig_close(&rig);
}

/* --- The end of the leader --- */

static enum status join(struct rig *rig)
{
    pthread_join(rig->ranks[0].thread, NULL);
    rig->ranks[0].runs = false;
    return rig->ranks[0].status;
}

static void test_leader_gone(void **state)
{
    struct rig rig;

    (void)state;
    rig_open(&rig, 1);
    channel_release(&rig.ranks[0].channel);
    assert_int_equal(join(&rig), STATUS_LINK);
    assert_non_null(strstr(rig.ranks[0].err.text, "closed"));
    rig_close(&rig);

    rig_up(&rig, 1); /* it waits at the ring, and looks when it is told to */
    channel_release(&rig.ranks[0].channel);
    rig_bell(&rig);
    assert_int_equal(join(&rig), STATUS_LINK);
    rig_close(&rig);

    rig_up(&rig, 1);
    assert_int_equal(write(rig.ranks[0].channel.fd, "this is no frame, and it is long enough", 39),
                     39);
    rig_bell(&rig);
    assert_int_equal(join(&rig), STATUS_LINK);
    assert_non_null(strstr(rig.ranks[0].err.text, "rubbish"));
    rig_close(&rig);
}

/* Descriptors that are nothing: an error, and both are closed. */
static void test_no_region(void **state)
{
    int n_fds = rig_count_fds();
    struct err err = {0};
    int ends[2];

    (void)state;
    assert_int_equal(channel_pair(ends, NULL), STATUS_OK);
    assert_int_equal(rank_run(&(struct rank_args){.channel_fd = ends[1],
                                                  .region_fd = rig_memfd(),
                                                  .epoch = 1,
                                                  .build = RIG_BUILD,
                                                  .ops = &cpu_ops},
                              &err),
                     STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "no region of a rank"));
    close(ends[0]);
    assert_int_equal(rig_count_fds(), n_fds);
}

int main(void)
{
    static float logits[PROMPT * RIG_VOCAB];
    static int32_t tokens[DECODED];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_life, tokens),
        cmocka_unit_test_prestate(test_kept, tokens),
        cmocka_unit_test_prestate(test_takes_ahead, tokens),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test_prestate(test_one_ahead, tokens),
        cmocka_unit_test_prestate(test_ahead_of_nothing, tokens),
        cmocka_unit_test_prestate(test_long_plan, tokens),
        cmocka_unit_test_prestate(test_bad_plans, tokens),
        cmocka_unit_test_prestate(test_out_of_order, tokens),
        cmocka_unit_test(test_bad_comm_init),
        cmocka_unit_test(test_leader_gone),
        cmocka_unit_test(test_no_region),
    };

    compute_reference(tokens, logits);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
