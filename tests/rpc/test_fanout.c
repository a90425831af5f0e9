/* SPDX-License-Identifier: Apache-2.0 */
/* One request to all ranks: every answer is taken on every path, and the error names each rank. */
#include "helpers.h"

#include <sys/socket.h>

#include "rpc/fanout.h"

enum { MAX_RANKS = 16 };

struct world {
    struct channel leader[MAX_RANKS];
    struct channel rank[MAX_RANKS];
    struct channel *channels[MAX_RANKS];
    struct fanout_reply replies[MAX_RANKS];
    uint32_t n;
    uint32_t fds_before;
};

static void open_world(struct world *world, uint32_t n)
{
    *world = (struct world){.n = n, .fds_before = count_fds()};
    for (uint32_t r = 0; r < n; r++) {
        int fds[2];

        assert_int_equal(channel_pair(fds, NULL), STATUS_OK);
        channel_init(&world->leader[r], fds[0], CHANNEL_LEADER, 1, FRAME_MAX_BODY);
        channel_init(&world->rank[r], fds[1], CHANNEL_RANK, 1, FRAME_MAX_BODY);
        world->leader[r].answer = MESSAGE_NONE;
        world->channels[r] = &world->leader[r];
    }
}

static void close_world(struct world *world)
{
    for (uint32_t r = 0; r < world->n; r++) {
        channel_release(&world->leader[r]);
        channel_release(&world->rank[r]);
    }
    assert_int_equal(count_fds(), world->fds_before);
}

static enum status call(struct world *world, enum message_type type, uint64_t ms, struct err *err)
{
    struct fanout_request request = {.type = type, .deadline_ns = clock_ns() + ms * MS};
    enum status status = fanout_call(world->channels, world->n, &request, world->replies, err);

    fanout_release(world->replies, world->n);
    return status;
}

/* The ranks answer before they are asked, so that one thread can play both sides. */
static void answer(struct world *world, uint32_t rank, uint64_t seq, enum message_type type,
                   const char *body)
{
    struct frame frame = {.type = (uint8_t)type,
                          .epoch = 1,
                          .seq = seq,
                          .body = body,
                          .length = (uint32_t)strlen(body)};
    struct buf out = {0};

    assert_int_equal(frame_append(&frame, &out, NULL), STATUS_OK);
    assert_int_equal(send(world->rank[rank].fd, out.data, out.len, 0), (ssize_t)out.len);
    buf_release(&out);
}

static void test_all_answer(void **state)
{
    struct world world;
    struct err err = {0};

    (void)state;
    for (uint32_t n = 1; n <= MAX_RANKS; n++) {
        open_world(&world, n);
        for (uint32_t r = n; r-- > 0;) {
            answer(&world, r, 1, MESSAGE_DONE, "{}");
        }
        assert_int_equal(call(&world, MESSAGE_UNLOAD, 1000, &err), STATUS_OK);
        for (uint32_t r = 0; r < n; r++) {
            struct message message;

            assert_int_equal(channel_try(&world.rank[r], &message, NULL), STATUS_OK);
            assert_int_equal(message.type, MESSAGE_UNLOAD);
            message_release(&message);
        }
        close_world(&world);
    }
}

/* Errors of several ranks, a dead rank, a silent one: the others' answers are taken all the same,
 * so the next request finds clean channels. */
static void test_drains(void **state)
{
    struct world world;
    struct err err = {0};
    uint64_t start = clock_ns();

    (void)state;
    open_world(&world, 6);
    answer(&world, 0, 1, MESSAGE_DONE, "{}");
    answer(&world, 1, 1, MESSAGE_ERROR, "{\"kind\":4,\"message\":\"rank 3 is gone\"}");
    answer(&world, 2, 1, MESSAGE_ERROR, "{\"kind\":2,\"message\":\"no room\"}");
    channel_release(&world.rank[3]);
    answer(&world, 5, 1, MESSAGE_DONE, "{}");
    assert_int_equal(call(&world, MESSAGE_UNLOAD, 50, &err), STATUS_NO_MEMORY); /* the cause */
    assert_string_equal(err.text,
                        "rank 1: rank 3 is gone; rank 2: no room; rank 3: the peer closed "
                        "the channel; rank 4: no done in time");
    assert_int_equal(err.status, STATUS_NO_MEMORY);
    assert_in_range(clock_ns() - start, 50 * MS, 5000 * MS);
    assert_int_equal(world.replies[0].status, STATUS_OK);
    assert_int_equal(world.replies[1].kind, ERROR_LINK);
    assert_int_equal(world.replies[2].kind, ERROR_MEMORY);
    assert_int_equal(world.replies[3].status, STATUS_LINK);
    assert_int_equal(world.replies[4].status, STATUS_TIMEOUT);
    assert_int_equal(world.replies[4].kind, ERROR_LINK);

    answer(&world, 4, 1, MESSAGE_DONE, "{}"); /* late: answers nothing any more */
    for (uint32_t r = 0; r < 6; r++) {
        if (r != 3) {
            answer(&world, r, 2, MESSAGE_DONE, "{}");
        }
    }
    assert_int_equal(call(&world, MESSAGE_UNLOAD, 50, &err), STATUS_LINK);
    assert_string_equal(err.text, "rank 3: the peer closed the channel");
    assert_int_equal(world.leader[4].counters.dropped_seq, 1);
    assert_int_equal(world.leader[1].counters.dropped_seq, 0);
    close_world(&world);
}

/* Sixteen long errors: each rank is named, none crowds out another. */
static void test_long_errors(void **state)
{
    struct world world;
    struct err err = {0};
    struct buf body = {0};

    (void)state;
    open_world(&world, MAX_RANKS);
    buf_append_str(&body, "{\"kind\":3,\"message\":\"");
    for (int i = 0; i < 900; i++) {
        buf_append_char(&body, 'x');
    }
    buf_append_str(&body, "\"}");
    for (uint32_t r = 0; r < MAX_RANKS; r++) {
        answer(&world, r, 1, MESSAGE_ERROR,
               r == 3 ? "{\"kind\":3,\"message\":\"short\"}" : body.data);
    }
    assert_int_equal(call(&world, MESSAGE_UNLOAD, 1000, &err), STATUS_DEVICE);
    for (uint32_t r = 0; r < MAX_RANKS; r++) {
        char name[32];

        snprintf(name, sizeof(name), "%srank %u: %s", r > 0 ? "; " : "", r,
                 r == 3 ? "short" : "xxxxxxxx");
        assert_non_null(strstr(err.text, name));
    }
    buf_release(&body);
    close_world(&world);
}

struct signs {
    uint32_t n[MAX_RANKS];
    uint64_t bytes[MAX_RANKS];
};

static void count_sign(void *arg, uint32_t rank, const struct message *message)
{
    struct signs *signs = arg;

    assert_int_equal(message->type, MESSAGE_LOAD_PROGRESS);
    signs->n[rank]++;
    signs->bytes[rank] = message_uint(message->json, "bytes", 0);
}

/* Bodies of their own, progress, and a body that does not fit the table. */
static void test_bodies_and_progress(void **state)
{
    struct world world;
    struct signs signs = {0};
    struct err err = {0};
    json_t *load[2] = {json_pack("{s:s}", "model", "zero"), json_pack("{s:s}", "model", "one")};
    struct message_out out[3] = {{.json = load[0]}, {.json = load[1]}, {.json = NULL}};
    struct fanout_request request = {.type = MESSAGE_LOAD,
                                     .out = out,
                                     .out_per_rank = true,
                                     .deadline_ns = clock_ns() + 1000 * MS,
                                     .sign = count_sign,
                                     .arg = &signs};
    struct message message;

    (void)state;
    open_world(&world, 3);
    for (uint32_t r = 0; r < 2; r++) {
        answer(&world, r, 1, MESSAGE_LOAD_PROGRESS, "{\"bytes\":1,\"total\":9}");
        answer(&world, r, 1, MESSAGE_LOAD_PROGRESS, "{\"bytes\":9,\"total\":9}");
        answer(&world, r, 1, MESSAGE_LOAD_OK,
               "{\"weight_bytes\":9,\"kv_pages\":2,\"arithmetic\":\"a\"}");
    }
    assert_int_equal(fanout_call(world.channels, 3, &request, world.replies, &err), STATUS_CORRUPT);
    assert_string_equal(err.text, "rank 2: message load: field model is missing");
    assert_int_equal(signs.n[0], 2);
    assert_int_equal(signs.n[1], 2);
    assert_int_equal(signs.bytes[1], 9);
    assert_int_equal(message_uint(world.replies[1].message.json, "kv_pages", 0), 2);
    assert_int_equal(channel_try(&world.rank[1], &message, NULL), STATUS_OK);
    assert_string_equal(message_text(message.json, "model", ""), "one");
    message_release(&message);
    fanout_release(world.replies, 3);
    json_decref(load[0]);
    json_decref(load[1]);
    close_world(&world);
}

/* hello is awaited without being asked for. */
static void test_hello(void **state)
{
    struct world world;
    struct err err = {0};

    (void)state;
    open_world(&world, 2);
    world.leader[0].answer = MESSAGE_HELLO;
    world.leader[1].answer = MESSAGE_HELLO;
    answer(&world, 1, 0, MESSAGE_HELLO, "{\"pid\":1,\"build\":\"b\",\"layout\":1}");
    assert_int_equal(call(&world, MESSAGE_NONE, 20, &err), STATUS_TIMEOUT);
    assert_string_equal(err.text, "rank 0: no hello in time");
    close_world(&world);
}

/* A rank that never stops talking keeps nobody from being heard, and is cut off. */
static void test_flooding_rank(void **state)
{
    struct world world;
    struct err err = {0};
    pid_t child;

    (void)state;
    open_world(&world, 2);
    child = fork_child();
    if (child == 0) {
        struct frame frame = {
            .type = MESSAGE_DONE, .epoch = 1, .seq = 77, .body = "{}", .length = 2};
        struct buf out = {0};

        for (int i = 0; i < 1000; i++) {
            if (frame_append(&frame, &out, NULL) != STATUS_OK) {
                _exit(1);
            }
        }
        while (send(world.rank[0].fd, out.data, out.len, MSG_NOSIGNAL) != 0) {
        }
        _exit(0);
    }
    answer(&world, 1, 1, MESSAGE_DONE, "{}");
    assert_int_equal(call(&world, MESSAGE_UNLOAD, 5000, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "rank 0: the peer floods the channel"));
    assert_int_equal(world.replies[1].status, STATUS_OK);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_answer),  cmocka_unit_test(test_drains),
        cmocka_unit_test(test_long_errors), cmocka_unit_test(test_bodies_and_progress),
        cmocka_unit_test(test_hello),       cmocka_unit_test(test_flooding_rank),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
