/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: exactly once, what must be computed again, memory, and a model replayed through
 * random crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "world/journal.h"

static const int32_t prompt[] = {11, 12, 13, 14, 15};

static struct journal_entry *add(struct journal *journal, uint64_t id, uint32_t max_generated)
{
    const struct journal_request request = {
        .request = id,
        .seed = 1000 + id,
        .choice = 2,
        .params = "params",
        .params_bytes = 6,
        .prompt = prompt,
        .n_prompt = 5,
        .max_generated = max_generated,
    };
    struct journal_entry *entry = NULL;

    assert_int_equal(journal_add(journal, &request, &entry, NULL), STATUS_OK);
    return entry;
}

static enum status commit(struct journal *journal, struct journal_entry *entry, uint64_t step,
                          uint32_t n_positions, int32_t token)
{
    const struct journal_commit what = {
        .step = step, .n_positions = n_positions, .tokens = &token, .n_tokens = token >= 0};

    return journal_commit(journal, entry, &what);
}

static void test_a_request(void **state)
{
    struct journal journal;
    struct journal_entry *entry;
    int32_t copy[3];

    (void)state;
    journal_init(&journal, 1 << 20);
    entry = add(&journal, 7, 4);
    assert_ptr_equal(journal_find(&journal, 7), entry);
    assert_null(journal_find(&journal, 8));
    assert_int_equal(entry->seed, 1007);
    assert_memory_equal(entry->params, "params", 6);
    assert_int_equal(commit(&journal, entry, 3, 3, -1), STATUS_OK); /* a chunk of the prompt */
    assert_int_equal(commit(&journal, entry, 4, 2, 50), STATUS_OK); /* its end, the first token */
    assert_int_equal(commit(&journal, entry, 6, 1, 51), STATUS_OK);
    assert_int_equal(entry->positions, 6);
    assert_int_equal(entry->n_generated, 2);
    journal_copy_tokens(entry, 4, 7, copy);
    assert_int_equal(copy[0], 15);
    assert_int_equal(copy[1], 50);
    assert_int_equal(copy[2], 51);
    journal_remove(&journal, &entry);
    assert_null(entry);
    journal_remove(&journal, &entry);
    journal_release(&journal);
}

static void test_exactly_once(void **state)
{
    struct journal journal;
    struct journal_entry *entry;
    struct journal_entry before;
    const int32_t many[] = {1, 2, 3};

    (void)state;
    journal_init(&journal, 1 << 20);
    entry = add(&journal, 7, 2);
    assert_int_equal(commit(&journal, entry, 10, 5, 50), STATUS_OK);
    before = *entry;
    assert_int_equal(commit(&journal, entry, 10, 1, 50), STATUS_INVALID); /* the same step again */
    assert_int_equal(commit(&journal, entry, 9, 1, 50), STATUS_INVALID);  /* an older one */
    assert_int_equal(commit(&journal, entry, 11, 0, 50), STATUS_INVALID); /* nothing computed */
    assert_int_equal(commit(&journal, entry, 11, 2, 50), STATUS_INVALID); /* unknown tokens */
    assert_int_equal(
        journal_commit(
            &journal, entry,
            &(struct journal_commit){.step = 11, .n_positions = 1, .tokens = many, .n_tokens = 3}),
        STATUS_LIMIT); /* more than there is room for */
    assert_memory_equal(entry, &before, sizeof(before));
    assert_int_equal(journal.n_refused, 5);
    journal_release(&journal);

    journal_init(&journal, 1 << 20);
    entry = add(&journal, 7, 2);
    /* A token before the prompt is through. */
    assert_int_equal(commit(&journal, entry, 1, 4, 50), STATUS_INVALID);
    assert_int_equal(entry->positions, 0);
    journal_release(&journal);
}

static void test_refused_requests(void **state)
{
    struct journal journal;
    struct journal_request request = {
        .request = 7, .prompt = prompt, .n_prompt = 5, .max_generated = 2};
    struct journal_entry *entry = NULL;
    struct err err = {0};

    (void)state;
    journal_init(&journal, 4096);
    add(&journal, 7, 2);
    assert_int_equal(journal_add(&journal, &request, &entry, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "request 7"));
    request.request = 8;
    request.n_prompt = 0;
    assert_int_equal(journal_add(&journal, &request, &entry, &err), STATUS_INVALID);
    request.n_prompt = 5;
    request.max_generated = UINT32_MAX; /* positions would not fit */
    assert_int_equal(journal_add(&journal, &request, &entry, &err), STATUS_LIMIT);
    request.max_generated = 1100; /* which it would grow to */
    request.params_bytes = 4000;
    assert_int_equal(journal_add(&journal, &request, &entry, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "1100"));
    request.max_generated = 2;
    request.params_bytes = SIZE_MAX - 8;
    assert_int_equal(journal_add(&journal, &request, &entry, &err), STATUS_LIMIT);
    assert_null(entry);
    assert_int_equal(journal.n, 1);
    journal_release(&journal);
}

static void test_accounting(void **state)
{
    struct journal journal;
    struct journal_entry *entries[20];
    size_t one;

    (void)state;
    journal_init(&journal, 1 << 20);
    entries[0] = add(&journal, 0, 50);
    one = journal.bytes;
    assert_int_equal(one, sizeof(struct journal_entry) + 55 * sizeof(int32_t) + 6);
    for (uint64_t i = 1; i < 20; i++) {
        entries[i] = add(&journal, i, 50);
        assert_int_equal(journal.bytes, (i + 1) * one);
    }
    for (int i = 0; i < 20; i += 2) { /* ends, middle */
        journal_remove(&journal, &entries[i]);
    }
    journal_remove(&journal, &entries[19]);
    assert_int_equal(journal.n, 9);
    assert_int_equal(journal.bytes, 9 * one);
    assert_ptr_equal(journal.first, entries[1]);
    assert_ptr_equal(journal.last, entries[17]);
    journal_release(&journal);
    assert_int_equal(journal.bytes, 0);
}

/* Room comes in time, and no more of it than there may be tokens; it is counted, and not refused.
 */
static void test_growth(void **state)
{
    enum { N = 1000 };
    struct journal journal;
    struct journal_entry *entry;
    size_t first;

    (void)state;
    journal_init(&journal, 600);
    entry = add(&journal, 7, N);
    first = journal.bytes;
    assert_int_equal(commit(&journal, entry, 1, 5, 0), STATUS_OK);
    for (uint64_t i = 1; i < N; i++) {
        if (i == JOURNAL_FIRST_ROOM) {
            assert_int_equal(commit(&journal, entry, 1 + i, 1, (int32_t)i), STATUS_LIMIT);
            mem_fail_next(64);
            assert_int_equal(journal_reserve(&journal, entry, 1), STATUS_NO_MEMORY);
        }
        assert_int_equal(journal_reserve(&journal, entry, 1), STATUS_OK);
        assert_int_equal(commit(&journal, entry, 1 + i, 1, (int32_t)i), STATUS_OK);
    }
    assert_int_equal(journal_reserve(&journal, entry, 1), STATUS_OK); /* there is no more */
    assert_int_equal(entry->room, N);
    assert_int_equal(journal.bytes, first + (N - JOURNAL_FIRST_ROOM) * sizeof(int32_t));
    assert_memory_equal(entry->tokens, prompt, sizeof(prompt));
    for (int32_t i = 0; i < N; i++) {
        assert_int_equal(entry->tokens[5 + i], i);
    }
    assert_int_equal(
        journal_add(&journal,
                    &(struct journal_request){.request = 8, .prompt = prompt, .n_prompt = 5},
                    &entry, NULL),
        STATUS_LIMIT);
    journal_release(&journal);
}

/* Other pages: what had been computed is computed again, and known to be nothing new. */
static void test_place(void **state)
{
    struct journal journal;
    struct journal_entry *entry;

    (void)state;
    journal_init(&journal, 1 << 20);
    entry = add(&journal, 7, 9);
    journal_place(entry, 2);
    assert_int_equal(journal_replay(entry).begin, 2);
    assert_int_equal(journal_replay(entry).n_again, 0);
    assert_int_equal(commit(&journal, entry, 1, 3, 50), STATUS_OK);
    assert_int_equal(commit(&journal, entry, 2, 1, 51), STATUS_OK);
    journal_place(entry, 4);
    assert_int_equal(journal_replay(entry).begin, 4);
    assert_int_equal(journal_replay(entry).end, 7);
    assert_int_equal(journal_replay(entry).n_again, 2);
    assert_int_equal(commit(&journal, entry, 3, 3, 52), STATUS_OK);
    assert_int_equal(entry->n_generated, 3);
    journal_release(&journal);
}

static void test_replay(void **state)
{
    struct journal journal;
    struct journal_entry *entry;
    struct journal_replay replay;

    (void)state;
    journal_init(&journal, 1 << 20);
    entry = add(&journal, 7, 9);
    replay = journal_replay(entry);
    assert_int_equal(replay.begin, 0);
    assert_int_equal(replay.end, 5);
    assert_int_equal(replay.n_again, 0);
    assert_false(journal_is_again(entry, 1));
    assert_int_equal(commit(&journal, entry, 1, 5, 50), STATUS_OK);
    assert_int_equal(commit(&journal, entry, 2, 1, 51), STATUS_OK);

    replay = journal_replay(entry); /* with kept KV pages: only what comes next */
    assert_int_equal(replay.begin, 6);
    assert_int_equal(replay.end, 7);
    assert_int_equal(replay.n_again, 0);

    journal_rewind(&journal);
    replay = journal_replay(entry);
    assert_int_equal(replay.begin, 0);
    assert_int_equal(replay.end, 7);
    assert_int_equal(replay.n_again, 6);
    assert_true(journal_is_again(entry, 6));
    assert_false(journal_is_again(entry, 7)); /* the seventh was never computed */
    assert_int_equal(commit(&journal, entry, 3, 4, -1), STATUS_OK);
    assert_true(journal_is_again(entry, 2));
    assert_int_equal(commit(&journal, entry, 4, 2, 99), STATUS_INVALID); /* not the end yet */
    assert_int_equal(commit(&journal, entry, 4, 3, 52), STATUS_OK);
    assert_int_equal(entry->n_generated, 3);
    assert_false(journal_is_again(entry, 1));
    journal_release(&journal);
}

/* A model whose next token depends on all before: whatever crashes, by both ways of resuming, the
 * text is the undisturbed one. */
static int32_t next_token(const int32_t *tokens, uint32_t n)
{
    uint32_t hash = 2166136261u;

    for (uint32_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 16777619u;
    }
    return (int32_t)(hash >> 8);
}

static uint32_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static void test_crashes_do_not_show(void **state)
{
    enum { N = 200 };

    (void)state;
    for (uint64_t round = 0; round < 200; round++) {
        uint64_t seed = round;
        struct journal journal;
        struct journal_entry *entry;
        int32_t kv[5 + N]; /* what the ranks hold */
        int32_t want[5 + N];
        uint64_t step = 0;

        memcpy(want, prompt, sizeof(prompt));
        for (uint32_t i = 5; i < 5 + N; i++) {
            want[i] = next_token(want, i);
        }
        journal_init(&journal, 1 << 20);
        entry = add(&journal, 1, N);
        while (entry->n_generated < N) {
            struct journal_replay todo = journal_replay(entry);
            uint32_t chunk = 1 + draw(&seed) % 7;
            uint32_t n = MIN(todo.end - todo.begin, chunk);
            bool last = todo.begin + n == todo.end;

            assert_int_equal(journal_reserve(&journal, entry, 1), STATUS_OK);
            journal_copy_tokens(entry, todo.begin, todo.begin + n, kv + todo.begin);
            step++;
            switch (draw(&seed) % 8) {
            case 0: /* killed in the step: its number goes to the next one */
                step--;
                break;
            case 1: /* killed, and the pages are lost */
                journal_rewind(&journal);
                memset(kv, 0xff, sizeof(kv));
                step--;
                break;
            default:
                assert_int_equal(
                    commit(&journal, entry, step, n, last ? next_token(kv, todo.end) : -1),
                    STATUS_OK);
            }
        }
        assert_memory_equal(entry->tokens, want, (5 + N) * sizeof(int32_t));
        journal_release(&journal);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request),        cmocka_unit_test(test_exactly_once),
        cmocka_unit_test(test_refused_requests), cmocka_unit_test(test_accounting),
        cmocka_unit_test(test_growth),           cmocka_unit_test(test_place),
        cmocka_unit_test(test_replay),           cmocka_unit_test(test_crashes_do_not_show),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
