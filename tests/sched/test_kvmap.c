/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages and the prefix cache. The random walk has few hash bits, so that collisions come all the
 * time, and an oracle: what each page held when it was entered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sched/kvmap.h"

enum { PAGE = 4, MAX_TOKENS = 64 };

/* A sequence and its tokens. */
struct text {
    struct kvmap_seq kv;
    int32_t tokens[MAX_TOKENS];
    uint32_t n;
    uint32_t done; /* committed positions */
    bool used;
};

static struct kvmap *make(uint32_t n_pages, uint32_t hash_bits)
{
    return kvmap_create(
        &(struct kvmap_config){.n_pages = n_pages, .page_tokens = PAGE, .hash_bits = hash_bits});
}

static struct text text_of(int32_t first, uint32_t n)
{
    struct text text = {.n = n, .used = true};

    for (uint32_t i = 0; i < n; i++) {
        text.tokens[i] = first + (int32_t)i;
    }
    return text;
}

/* Takes what is cached, all but the last token, and grows to all of it. */
static uint32_t begin(struct kvmap *map, struct text *text)
{
    uint32_t taken;

    kvmap_know(map, &text->kv, text->tokens, text->n);
    taken = kvmap_take(map, &text->kv, text->tokens, (text->n - 1) / PAGE);
    assert_true(kvmap_grow(map, &text->kv, (text->n + PAGE - 1) / PAGE));
    text->done = taken * PAGE;
    return taken;
}

static void expect(const struct kvmap *map, uint32_t used, uint32_t cached, uint32_t free_)
{
    struct kvmap_counts counts = kvmap_counts(map);

    kvmap_audit(map);
    assert_int_equal(counts.used, used);
    assert_int_equal(counts.cached, cached);
    assert_int_equal(counts.free, free_);
}

static void test_life(void **state)
{
    struct kvmap *map = make(8, 0);
    struct text a = text_of(1, 10);
    struct text b = text_of(1, 10);
    struct text c = text_of(1, 8);

    (void)state;
    expect(map, 0, 0, 8);
    assert_int_equal(begin(map, &a), 0);
    expect(map, 3, 0, 5);
    kvmap_commit(map, &a.kv, a.tokens, 3); /* no page is full */
    assert_int_equal(begin(map, &c), 0);
    kvmap_seq_release(map, &c.kv);
    expect(map, 3, 0, 5);
    kvmap_commit(map, &a.kv, a.tokens, 10);
    expect(map, 3, 0, 5);
    assert_int_equal(begin(map, &b), 2);
    assert_int_equal(b.kv.pages[0], a.kv.pages[0]);
    assert_int_equal(b.kv.pages[1], a.kv.pages[1]);
    assert_int_not_equal(b.kv.pages[2], a.kv.pages[2]);
    expect(map, 4, 0, 4);
    kvmap_seq_release(map, &a.kv);
    expect(map, 3, 0, 5); /* the page that was not full is free */
    kvmap_seq_release(map, &b.kv);
    expect(map, 0, 2, 6);
    c = text_of(1, 8);
    assert_int_equal(begin(map, &c), 1); /* its last token must be computed */
    kvmap_seq_release(map, &c.kv);
    kvmap_drop_cached(map);
    expect(map, 0, 0, 8);
    kvmap_destroy(&map);
    kvmap_destroy(&map);
}

/* Another salt, another beginning, the same page somewhere else: no hit. */
static void test_no_hit(void **state)
{
    struct kvmap *map = make(16, 0);
    struct text a = text_of(1, 13);
    struct text salted = text_of(1, 13);
    struct text other = text_of(1, 13);
    struct text shifted = text_of(5, 9); /* pages 1 and 2 of a */

    (void)state;
    begin(map, &a);
    kvmap_commit(map, &a.kv, a.tokens, 13);
    salted.kv.salt = 7;
    assert_int_equal(begin(map, &salted), 0);
    other.tokens[1] = 99;
    assert_int_equal(begin(map, &other), 0);
    assert_int_equal(begin(map, &shifted), 0);
    for (int i = 0; i < 4; i++) {
        struct text *texts[] = {&a, &salted, &other, &shifted};

        kvmap_seq_release(map, &texts[i]->kv);
    }
    kvmap_destroy(&map);
}

/* The longest unused goes first, tails before heads, and nothing that has a holder. */
static void test_eviction(void **state)
{
    struct kvmap *map = make(8, 0);
    struct text old = text_of(1, 12);
    struct text young = text_of(100, 12);
    struct text big = text_of(200, 16);
    struct text probe;
    uint32_t idle;

    (void)state;
    begin(map, &old);
    kvmap_commit(map, &old.kv, old.tokens, 12);
    begin(map, &young);
    kvmap_commit(map, &young.kv, young.tokens, 12);
    kvmap_release(map, &old.kv);
    kvmap_release(map, &young.kv);
    expect(map, 0, 6, 2);
    assert_true(kvmap_grow(map, &big.kv, 4)); /* two free ones, two tails of old */
    expect(map, 4, 4, 0);
    assert_int_equal(kvmap_match(map, &old.kv, old.tokens, 3, &idle), 1);
    assert_int_equal(idle, 1);
    assert_int_equal(kvmap_match(map, &young.kv, young.tokens, 3, &idle), 3);
    assert_int_equal(kvmap_match(map, &young.kv, young.tokens, 2, &idle), 2);
    probe = text_of(1, 12);
    kvmap_know(map, &probe.kv, probe.tokens, 12);
    assert_int_equal(kvmap_take(map, &probe.kv, probe.tokens, 2), 1); /* used: it stays */
    assert_false(kvmap_grow(map, &big.kv, 8));
    expect(map, 5, 3, 0);
    assert_true(kvmap_grow(map, &big.kv, 7));
    expect(map, 8, 0, 0);
    assert_false(kvmap_grow(map, &big.kv, 8));
    assert_true(kvmap_grow(map, &big.kv, 5)); /* it has more */
    kvmap_seq_release(map, &big.kv);
    kvmap_seq_release(map, &probe.kv);
    kvmap_seq_release(map, &old.kv);
    kvmap_seq_release(map, &young.kv);
    expect(map, 0, 1, 7);
    kvmap_destroy(&map);
}

/* Two that compute the same: one page is in the cache; the other takes its place once nobody holds
 * it, and what follows is found behind either. */
static void test_twins(void **state)
{
    struct kvmap *map = make(16, 0);
    struct text a = text_of(1, 8);
    struct text b = text_of(1, 12);
    struct text c = text_of(1, 16);

    (void)state;
    begin(map, &a);
    begin(map, &b);
    kvmap_commit(map, &a.kv, a.tokens, 8);
    kvmap_commit(map, &b.kv, b.tokens, 4); /* private, behind a's */
    kvmap_release(map, &a.kv);
    expect(map, 3, 2, 11);
    kvmap_commit(map, &b.kv, b.tokens, 12); /* takes the place of a's second page */
    expect(map, 3, 1, 12);
    assert_int_equal(begin(map, &c), 3);
    kvmap_release(map, &c.kv);
    kvmap_release(map, &b.kv);
    expect(map, 0, 3, 13);
    kvmap_seq_release(map, &a.kv);
    kvmap_seq_release(map, &b.kv);
    kvmap_seq_release(map, &c.kv);
    kvmap_destroy(&map);
}

/* The page that a chain hangs on is gone: what follows is computed, and not found. */
static void test_broken_chain(void **state)
{
    struct kvmap *map = make(8, 0);
    struct text a = text_of(1, 4);
    struct text b = text_of(1, 12);
    struct text c = text_of(1, 12);

    (void)state;
    begin(map, &a);
    begin(map, &b);
    kvmap_commit(map, &a.kv, a.tokens, 4);
    kvmap_commit(map, &b.kv, b.tokens, 4);
    kvmap_release(map, &a.kv);
    kvmap_drop_cached(map);
    kvmap_commit(map, &b.kv, b.tokens, 12);
    assert_true(b.kv.broken);
    assert_int_equal(begin(map, &c), 0);
    kvmap_release(map, &b.kv);
    expect(map, 3, 0, 5);
    kvmap_seq_release(map, &a.kv);
    kvmap_seq_release(map, &b.kv);
    kvmap_seq_release(map, &c.kv);
    kvmap_destroy(&map);
}

/* --- A random walk --- */

enum { N_TEXTS = 6, N_PAGES = 24, N_STEPS = 20000 };

struct walk {
    uint64_t random;
    struct kvmap *map;
    struct text texts[N_TEXTS];
    uint64_t salts[N_PAGES];
    int32_t held[N_PAGES][MAX_TOKENS]; /* all tokens up to the page's end, when it was committed */
    uint32_t n_held[N_PAGES];
    uint32_t n_hits;
};

static uint32_t below(struct walk *walk, uint32_t n)
{
    walk->random = walk->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(walk->random >> 33) % n;
}

/* What the page holds is what this text has there. */
static void expect_held(struct walk *walk, const struct text *text, uint32_t i)
{
    uint32_t page = text->kv.pages[i];
    uint32_t n = (i + 1) * PAGE;

    assert_int_equal(walk->n_held[page], n);
    assert_int_equal(walk->salts[page], text->kv.salt);
    assert_memory_equal(walk->held[page], text->tokens, n * sizeof(int32_t));
}

static void walk_begin(struct walk *walk, struct text *text)
{
    *text = (struct text){.used = true, .n = 1 + below(walk, MAX_TOKENS)};
    text->kv.salt = below(walk, 2);
    for (uint32_t i = 0; i < text->n; i++) { /* long common beginnings */
        text->tokens[i] = (int32_t)(below(walk, 12) == 0);
    }
    kvmap_know(walk->map, &text->kv, text->tokens, text->n);
    text->done = PAGE * kvmap_take(walk->map, &text->kv, text->tokens, (text->n - 1) / PAGE);
    for (uint32_t i = 0; i < text->kv.n_pages; i++) {
        expect_held(walk, text, i);
        walk->n_hits++;
    }
}

/* Writes some positions; nobody else may have the pages that it writes. */
static void walk_write(struct walk *walk, struct text *text)
{
    uint32_t most = 1 + below(walk, 9);
    uint32_t end = MIN(text->n, text->done + most);

    if (!kvmap_grow(walk->map, &text->kv, (end + PAGE - 1) / PAGE)) {
        kvmap_seq_release(walk->map, &text->kv);
        text->used = false;
        return;
    }
    for (uint32_t i = text->done / PAGE; i < (end + PAGE - 1) / PAGE; i++) {
        for (int k = 0; k < N_TEXTS; k++) {
            const struct text *other = &walk->texts[k];

            for (uint32_t p = 0; other != text && other->used && p < other->kv.n_pages; p++) {
                assert_int_not_equal(other->kv.pages[p], text->kv.pages[i]);
            }
        }
        walk->salts[text->kv.pages[i]] = text->kv.salt;
        walk->n_held[text->kv.pages[i]] = MIN((i + 1) * PAGE, end);
        memcpy(walk->held[text->kv.pages[i]], text->tokens, end * sizeof(int32_t));
    }
    text->done = end;
    kvmap_commit(walk->map, &text->kv, text->tokens, end);
    for (uint32_t i = 0; i < end / PAGE; i++) {
        expect_held(walk, text, i);
    }
}

static void test_walk(void **state)
{
    const char *given = getenv("LOCKSTEP_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : clock_ns();
    struct walk *walk = xalloc(sizeof(*walk));

    (void)state;
    print_message("LOCKSTEP_SEED=%llu\n", (unsigned long long)seed);
    for (uint32_t bits = 0; bits <= 4; bits += 2) {
        *walk = (struct walk){.random = seed + bits, .map = make(N_PAGES, bits)};
        for (int step = 0; step < N_STEPS; step++) {
            struct text *text = &walk->texts[below(walk, N_TEXTS)];

            if (!text->used) {
                walk_begin(walk, text);
            } else if (text->done < text->n) {
                walk_write(walk, text);
            } else {
                kvmap_seq_release(walk->map, &text->kv);
                text->used = false;
            }
            if (below(walk, 500) == 0) {
                kvmap_drop_cached(walk->map);
            }
            kvmap_audit(walk->map);
        }
        assert_true(walk->n_hits > N_STEPS / 100);
        for (int i = 0; i < N_TEXTS; i++) {
            kvmap_seq_release(walk->map, &walk->texts[i].kv);
        }
        assert_int_equal(kvmap_counts(walk->map).used, 0);
        kvmap_destroy(&walk->map);
    }
    free(walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),         cmocka_unit_test(test_no_hit),
        cmocka_unit_test(test_eviction),     cmocka_unit_test(test_twins),
        cmocka_unit_test(test_broken_chain), cmocka_unit_test(test_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
