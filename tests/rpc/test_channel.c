/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: request and answer, what is dropped, who is cut off, descriptors, limits, deadlines. */
#include "helpers.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "rpc/channel.h"

enum { EPOCH = 5 };

struct pair {
    struct channel leader;
    struct channel rank;
    uint32_t fds_before;
};

static void say_hello(struct channel *rank)
{
    json_t *body = json_pack("{s:i, s:s, s:i}", "pid", 1, "build", "b", "layout", 1);
    struct message_out out = {.json = body};

    assert_int_equal(channel_answer(rank, MESSAGE_HELLO, &out, NULL), STATUS_OK);
    json_decref(body);
}

static void open_pair(struct pair *pair)
{
    int fds[2];

    pair->fds_before = count_fds();
    assert_int_equal(channel_pair(fds, NULL), STATUS_OK);
    assert_true((fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_true((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0);
    channel_init(&pair->leader, fds[0], CHANNEL_LEADER, EPOCH, FRAME_MAX_BODY);
    channel_init(&pair->rank, fds[1], CHANNEL_RANK, EPOCH, FRAME_MAX_BODY);
}

static void take(struct channel *channel, enum message_type type)
{
    struct message message;

    assert_int_equal(channel_try(channel, &message, NULL), STATUS_OK);
    assert_int_equal(message.type, type);
    message_release(&message);
}

static void open_greeted(struct pair *pair)
{
    open_pair(pair);
    say_hello(&pair->rank);
    take(&pair->leader, MESSAGE_HELLO);
}

static void close_pair(struct pair *pair)
{
    channel_release(&pair->leader);
    channel_release(&pair->rank);
    assert_int_equal(count_fds(), pair->fds_before); /* no descriptor is left behind */
}

static uint64_t soon(void)
{
    return clock_ns() + 20 * MS;
}

/* A frame as a peer might make it, past all checks of the sending side. */
static void raw(struct channel *to, uint8_t type, uint64_t epoch, uint64_t seq, const char *body)
{
    struct frame frame = {
        .type = type, .epoch = epoch, .seq = seq, .body = body, .length = (uint32_t)strlen(body)};
    struct buf out = {0};

    assert_int_equal(frame_append(&frame, &out, NULL), STATUS_OK);
    assert_int_equal(send(to->fd, out.data, out.len, MSG_NOSIGNAL), (ssize_t)out.len);
    buf_release(&out);
}

static void expect_nothing(struct channel *channel)
{
    struct message message;

    assert_int_equal(channel_try(channel, &message, NULL), STATUS_PENDING);
}

static void expect_cut(struct channel *channel, const char *text)
{
    struct message message;
    struct err err = {0};
    uint64_t epoch = channel->epoch;

    for (int i = 0; i < 2; i++) { /* and the same reason ever after */
        assert_int_equal(channel_receive(channel, soon(), &message, &err), STATUS_LINK);
        if (strstr(err.text, text) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.text, text);
        }
        assert_int_equal(channel->fd, -1);
    }
    if (channel->side == CHANNEL_LEADER) {
        assert_int_equal(channel_request(channel, MESSAGE_PING, NULL, &err), STATUS_LINK);
        assert_non_null(strstr(err.text, text));
    }
    assert_int_equal(channel->epoch, epoch);
}

static void test_requests(void **state)
{
    struct pair pair;

    (void)state;
    open_greeted(&pair);
    for (uint32_t i = 1; i <= 50; i++) {
        json_t *body = json_pack("{s:i, s:i, s:s, s:i}", "rank", 1, "world_size", 2, "device",
                                 "cpu", "generation", (int)i);
        struct message_out out = {.json = body};
        struct message message;

        assert_int_equal(channel_request(&pair.leader, MESSAGE_PING, NULL, NULL), STATUS_OK);
        assert_int_equal(channel_try(&pair.rank, &message, NULL), STATUS_OK);
        assert_int_equal(message.type, MESSAGE_PING);
        assert_int_equal(message.seq, i);
        message_release(&message);
        assert_int_equal(channel_answer(&pair.rank, MESSAGE_PONG, &out, NULL), STATUS_OK);
        assert_int_equal(channel_receive(&pair.leader, soon(), &message, NULL), STATUS_OK);
        assert_int_equal(message.type, MESSAGE_PONG);
        assert_int_equal(message.seq, i);
        assert_int_equal(message_uint(message.json, "generation", 0), i);
        message_release(&message);
        json_decref(body);
    }
    assert_int_equal(pair.leader.counters.frames_in, 51);
    assert_int_equal(pair.leader.counters.frames_out, 50);
    close_pair(&pair);
}

/* An error may answer any request, and signs of life come before the answer. */
static void test_error_and_signs(void **state)
{
    struct pair pair;
    struct err why = {.status = STATUS_NO_MEMORY, .text = "no room for blk.3"};
    json_t *load = json_pack("{s:s}", "model", "m");
    json_t *progress = json_pack("{s:i, s:i}", "bytes", 1, "total", 2);
    struct message_out out = {.json = load};
    struct message message;
    enum error_kind kind;

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_LOAD, &out, NULL), STATUS_OK);
    take(&pair.rank, MESSAGE_LOAD);
    out.json = progress;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(channel_answer(&pair.rank, MESSAGE_LOAD_PROGRESS, &out, NULL), STATUS_OK);
        take(&pair.leader, MESSAGE_LOAD_PROGRESS);
    }
    assert_int_equal(channel_answer_error(&pair.rank, &why, NULL), STATUS_OK);
    assert_int_equal(channel_try(&pair.leader, &message, NULL), STATUS_OK);
    assert_int_equal(message.type, MESSAGE_ERROR);
    assert_int_equal(message_error_read(message.json, &kind, &why), STATUS_NO_MEMORY);
    assert_int_equal(kind, ERROR_MEMORY);
    assert_string_equal(why.text, "no room for blk.3");
    message_release(&message);
    json_decref(load);
    json_decref(progress);
    close_pair(&pair);
}

static void test_deadlines(void **state)
{
    struct pair pair;
    struct message message;
    struct err err = {0};
    uint64_t start = clock_ns();

    (void)state;
    open_pair(&pair);
    assert_int_equal(channel_receive(&pair.leader, start + 30 * MS, &message, &err),
                     STATUS_TIMEOUT);
    assert_string_equal(err.text, "no hello in time");
    assert_in_range(clock_ns() - start, 30 * MS, 2000 * MS);
    assert_int_equal(channel_receive(&pair.leader, 0, &message, &err), STATUS_TIMEOUT);
    assert_int_equal(channel_receive(&pair.rank, soon(), &message, &err), STATUS_TIMEOUT);
    assert_string_equal(err.text, "no request in time");
    say_hello(&pair.rank);
    assert_int_equal(channel_receive(&pair.leader, 0, &message, &err), STATUS_OK); /* it is there */
    message_release(&message);
    close_pair(&pair);
}

/* An answer that comes after its deadline does not answer the next request. */
static void test_late_answer(void **state)
{
    struct pair pair;
    struct message message;

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_CLEAR_KV, NULL, NULL), STATUS_OK);
    assert_int_equal(channel_receive(&pair.leader, soon(), &message, NULL), STATUS_TIMEOUT);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_UNLOAD, NULL, NULL), STATUS_OK);
    take(&pair.rank, MESSAGE_CLEAR_KV);
    assert_int_equal(channel_answer(&pair.rank, MESSAGE_DONE, NULL, NULL), STATUS_OK);
    expect_nothing(&pair.leader);
    assert_int_equal(pair.leader.counters.dropped_seq, 1);
    take(&pair.rank, MESSAGE_UNLOAD);
    assert_int_equal(channel_answer(&pair.rank, MESSAGE_DONE, NULL, NULL), STATUS_OK);
    assert_int_equal(channel_try(&pair.leader, &message, NULL), STATUS_OK);
    assert_int_equal(message.seq, 2);
    message_release(&message);
    close_pair(&pair);
}

static void test_dropped(void **state)
{
    struct pair pair;

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_UNLOAD, NULL, NULL), STATUS_OK);
    raw(&pair.rank, MESSAGE_DONE, EPOCH - 1, 1, "{}"); /* of the world before */
    raw(&pair.rank, MESSAGE_DONE, EPOCH + 1, 1, "{}");
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 0, "{}");
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 2, "{}");
    raw(&pair.rank, 200, EPOCH, 2, "not even a message");
    expect_nothing(&pair.leader);
    assert_int_equal(pair.leader.counters.dropped_epoch, 2);
    assert_int_equal(pair.leader.counters.dropped_seq, 3);
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 1, "{}");
    take(&pair.leader, MESSAGE_DONE);
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 1, "{}"); /* a second answer */
    expect_nothing(&pair.leader);
    assert_int_equal(pair.leader.counters.dropped_seq, 4);

    take(&pair.rank, MESSAGE_UNLOAD);
    raw(&pair.leader, MESSAGE_UNLOAD, EPOCH, 1, "{}"); /* repeated */
    raw(&pair.leader, MESSAGE_UNLOAD, EPOCH - 1, 2, "{}");
    expect_nothing(&pair.rank);
    assert_int_equal(pair.rank.counters.dropped_seq, 1);
    assert_int_equal(pair.rank.counters.dropped_epoch, 1);
    raw(&pair.leader, MESSAGE_UNLOAD, EPOCH, 9, "{}"); /* after requests that were lost */
    take(&pair.rank, MESSAGE_UNLOAD);
    close_pair(&pair);
}

/* What a rank may not say. */
static void test_cut_off(void **state)
{
    static const struct {
        uint8_t type;
        const char *body;
        const char *text;
    } cases[] = {
        {200, "{}", "unknown message (type 200)"},
        {0, "{}", "unknown message (type 0)"},
        {MESSAGE_PING, "{}", "sent ping, which is not its to send"},
        {MESSAGE_BYE, "{}", "sent bye where done is due"},
        {MESSAGE_LOAD_PROGRESS, "{\"bytes\":1,\"total\":2}",
         "sent load_progress where done is due"},
        {MESSAGE_DONE, "{", "message done: JSON, line 1"},
        {MESSAGE_DONE, "[]", "message done: the body is no JSON object"},
        {MESSAGE_DONE, "", "message done: JSON"},
        {MESSAGE_ERROR, "{\"kind\":1}", "message error: field message is missing"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pair pair;

        open_greeted(&pair);
        assert_int_equal(channel_request(&pair.leader, MESSAGE_UNLOAD, NULL, NULL), STATUS_OK);
        take(&pair.rank, MESSAGE_UNLOAD);
        raw(&pair.rank, cases[i].type, EPOCH, 1, cases[i].body);
        expect_cut(&pair.leader, cases[i].text);
        expect_cut(&pair.rank, "the peer closed the channel");
        close_pair(&pair);
    }
}

static void test_rubbish(void **state)
{
    struct pair pair;
    char rubbish[100];

    (void)state;
    open_greeted(&pair);
    memset(rubbish, 'x', sizeof(rubbish));
    assert_int_equal(send(pair.rank.fd, rubbish, sizeof(rubbish), 0), sizeof(rubbish));
    expect_cut(&pair.leader, "the peer sent rubbish: frame: bad magic 78787878");
    close_pair(&pair);

    open_greeted(&pair);
    assert_int_equal(send(pair.rank.fd, "LSRP", 4, 0), 4);
    channel_release(&pair.rank);
    expect_cut(&pair.leader, "closed the channel in the middle of a frame");
    close_pair(&pair);

    open_greeted(&pair);
    channel_release(&pair.rank);
    expect_cut(&pair.leader, "the peer closed the channel");
    close_pair(&pair);
}

/* A peer that sends without end is cut off after a bounded number of frames. */
static void test_floods(void **state)
{
    struct pair pair;
    struct message message;
    enum status status = STATUS_PENDING;

    (void)state;
    open_greeted(&pair);
    for (int i = 0; i < CHANNEL_MAX_DROPPED; i++) {
        raw(&pair.rank, MESSAGE_DONE, EPOCH, 0, "{}");
    }
    expect_nothing(&pair.leader);
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 0, "{}");
    expect_cut(&pair.leader, "floods the channel: 65 frames in a row that nobody asked for");
    close_pair(&pair);

    open_greeted(&pair);
    pair.leader.asked = MESSAGE_LOAD;
    pair.leader.answer = MESSAGE_LOAD_OK;
    for (uint32_t i = 0; i <= CHANNEL_MAX_SIGNS && status != STATUS_LINK; i++) {
        raw(&pair.rank, MESSAGE_LOAD_PROGRESS, EPOCH, 0, "{\"bytes\":1,\"total\":2}");
        status = channel_try(&pair.leader, &message, NULL);
        if (status == STATUS_OK) {
            message_release(&message);
        }
    }
    expect_cut(&pair.leader, "floods the channel with load_progress");
    close_pair(&pair);
}

/* Bytes beyond what a reader accepts are refused from the header, nothing is allocated for them. */
static void test_long_body(void **state)
{
    struct pair pair;
    struct buf body = {0};

    (void)state;
    open_greeted(&pair);
    pair.leader.in.max_body = 1000;
    for (int i = 0; i < 1001; i++) {
        buf_append_char(&body, ' ');
    }
    raw(&pair.rank, MESSAGE_DONE, EPOCH, 0, body.data);
    expect_cut(&pair.leader, "length 1001, at most 1000");
    buf_release(&body);
    close_pair(&pair);
}

/* A peer that reads nothing: what is queued for it is bounded, and nobody waits for it. */
static void test_back_pressure(void **state)
{
    struct pair pair;
    uint8_t *plan = mem_alloc(FRAME_MAX_BODY + 1, 1);
    struct message_out out = {.bytes = plan, .n_bytes = FRAME_MAX_BODY};
    struct err err = {0};
    uint64_t start = clock_ns();
    uint32_t accepted = 0;
    struct message message;
    uint64_t deadline;

    (void)state;
    open_greeted(&pair);
    while (channel_request(&pair.leader, MESSAGE_STEP, &out, &err) == STATUS_OK) {
        accepted++;
        assert_in_range(accepted, 1, 3);
    }
    assert_string_equal(err.text, "message step: the peer does not take what is sent to it");
    assert_in_range(pair.leader.out.len, FRAME_MAX_BODY, CHANNEL_MAX_OUT);
    assert_int_equal(channel_flush(&pair.leader, soon(), &err), STATUS_TIMEOUT);
    assert_in_range(clock_ns() - start, 0, 20000 * MS);
    assert_int_equal(pair.leader.seq, accepted); /* a refused request took no number */

    out.n_bytes = FRAME_MAX_BODY + 1;
    assert_int_equal(channel_request(&pair.leader, MESSAGE_STEP, &out, &err), STATUS_LIMIT);
    assert_string_equal(err.text, "message step: 16777217 bytes, at most 16777216 can be sent");
    /* it arrives when the peer reads at last */
    deadline = clock_ns() + 20000 * MS;
    for (uint32_t i = 1; i <= accepted;) {
        enum status status = channel_try(&pair.rank, &message, NULL);

        assert_in_range(clock_ns(), 0, deadline);
        assert_int_not_equal(channel_flush(&pair.leader, 0, NULL), STATUS_LINK);
        if (status == STATUS_OK) {
            assert_int_equal(message.seq, i);
            assert_int_equal(message.n_bytes, FRAME_MAX_BODY);
            message_release(&message);
            i++;
        } else {
            assert_int_equal(status, STATUS_PENDING);
        }
    }
    free(plan);
    close_pair(&pair);
}

static void test_bad_body_is_not_sent(void **state)
{
    struct pair pair;
    struct err err = {0};

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_LOAD, NULL, &err), STATUS_CORRUPT);
    assert_string_equal(err.text, "message load: field model is missing");
    assert_int_equal(pair.leader.seq, 0);
    expect_nothing(&pair.rank);
    close_pair(&pair);
}

/* The last words of a peer that is gone are read before its end is noticed. */
static void test_last_words(void **state)
{
    struct pair pair;
    struct err why = {.status = STATUS_DEVICE, .text = "device lost"};

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_UNLOAD, NULL, NULL), STATUS_OK);
    take(&pair.rank, MESSAGE_UNLOAD);
    assert_int_equal(channel_answer_error(&pair.rank, &why, NULL), STATUS_OK);
    channel_release(&pair.rank);
    assert_int_equal(channel_flush(&pair.leader, soon(), NULL), STATUS_OK);
    take(&pair.leader, MESSAGE_ERROR);
    expect_cut(&pair.leader, "the peer closed the channel");
    close_pair(&pair);

    open_greeted(&pair);
    channel_release(&pair.rank); /* sending to the dead raises no signal */
    assert_int_equal(channel_request(&pair.leader, MESSAGE_PING, NULL, NULL), STATUS_OK);
    expect_cut(&pair.leader, "the peer closed the channel");
    close_pair(&pair);
}

/* ---- descriptors ---- */

/* The read end of a pipe with one byte in it. */
static int pipe_with(char byte)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], &byte, 1), 1);
    close(fds[1]);
    return fds[0];
}

static char byte_of(int fd)
{
    char byte = 0;

    assert_int_equal(read(fd, &byte, 1), 1);
    return byte;
}

static void request_load(struct channel *leader, const int *fds, uint32_t n_fds, uint32_t padding)
{
    json_t *body = json_object();
    struct buf text = {0};
    struct message_out out = {.json = body, .fds = fds, .n_fds = n_fds};

    for (uint32_t i = 0; i < padding; i++) {
        buf_append_char(&text, 'p');
    }
    json_object_set_new(body, "model", json_string(buf_str(&text)));
    assert_int_equal(channel_request(leader, MESSAGE_LOAD, &out, NULL), STATUS_OK);
    json_decref(body);
    buf_release(&text);
}

/* Each frame has its own descriptors, however the stream is cut; those of dropped frames are
 * closed. */
static void test_descriptors(void **state)
{
    struct pair pair;
    struct message message;

    (void)state;
    open_greeted(&pair);
    for (uint32_t i = 0; i < 40; i++) {
        int fds[3] = {pipe_with((char)('a' + i % 20)), pipe_with('A'), pipe_with('B')};
        uint32_t n = i % 4;
        uint32_t padding = i % 5 == 0 ? 300000 : i; /* more than a socket buffer */
        enum status status = STATUS_PENDING;

        if (i % 7 == 6) { /* something before it in the queue */
            assert_int_equal(channel_request(&pair.leader, MESSAGE_PING, NULL, NULL), STATUS_OK);
        }
        if (i % 6 == 5) { /* this one will be dropped, with its descriptors */
            pair.leader.epoch--;
            request_load(&pair.leader, fds, 2, 10);
            pair.leader.epoch++;
        }
        request_load(&pair.leader, fds, n, padding);
        if (i % 7 == 6) {
            take(&pair.rank, MESSAGE_PING);
        }
        while ((status = channel_try(&pair.rank, &message, NULL)) == STATUS_PENDING) {
            assert_int_not_equal(channel_flush(&pair.leader, 0, NULL), STATUS_LINK);
        }
        assert_int_equal(status, STATUS_OK);
        assert_int_equal(message.n_fds, n);
        for (uint32_t k = 0; k < n; k++) {
            assert_true((fcntl(message.fds[k], F_GETFD) & FD_CLOEXEC) != 0);
            assert_int_equal(byte_of(message.fds[k]),
                             k == 0 ? 'a' + (char)(i % 20) : 'A' + (int)k - 1);
        }
        for (uint32_t k = 0; k < 3; k++) {
            close(fds[k]);
        }
        message_release(&message);
    }
    assert_int_equal(pair.rank.counters.dropped_epoch, 6);
    close_pair(&pair);
}

/* They wait for their frame when the socket is full of what comes before it. */
static void test_descriptors_queued(void **state)
{
    uint32_t n = 4 << 20;
    uint8_t *plan = mem_alloc(n, 1);
    struct message_out out = {.bytes = plan, .n_bytes = n};
    int fd = pipe_with('q');
    struct err err = {0};
    struct message message;
    struct pair pair;

    (void)state;
    open_greeted(&pair);
    assert_int_equal(channel_request(&pair.leader, MESSAGE_STEP, &out, NULL), STATUS_OK);
    request_load(&pair.leader, &fd, 1, 10);
    out = (struct message_out){.fds = &fd, .n_fds = 1};
    out.json = json_pack("{s:s}", "model", "m");
    assert_int_equal(channel_request(&pair.leader, MESSAGE_LOAD, &out, &err), STATUS_LIMIT);
    assert_string_equal(err.text, "message load: descriptors still wait for the peer");
    json_decref((json_t *)out.json);
    for (uint32_t seq = 1; seq <= 2;) {
        enum status status = channel_try(&pair.rank, &message, &err);

        assert_int_not_equal(channel_flush(&pair.leader, 0, NULL), STATUS_LINK);
        if (status == STATUS_OK) {
            assert_int_equal(message.seq, seq);
            assert_int_equal(message.n_fds, seq - 1);
            if (seq == 2) {
                assert_int_equal(byte_of(message.fds[0]), 'q');
            }
            message_release(&message);
            seq++;
        } else if (status != STATUS_PENDING) {
            fail_msg("%s", err.text);
        }
    }
    free(plan);
    close_pair(&pair);
    close(fd);
}

static void test_descriptor_limits(void **state)
{
    struct pair pair;
    struct err err = {0};
    int fds[CHANNEL_MAX_FDS + 1];
    json_t *body = json_pack("{s:s}", "model", "m");
    struct message_out out = {.json = body, .fds = fds, .n_fds = 1};

    (void)state;
    for (int i = 0; i <= CHANNEL_MAX_FDS; i++) {
        fds[i] = STDERR_FILENO;
    }
    /* announced and not sent */
    open_greeted(&pair);
    struct frame frame = {
        .type = MESSAGE_LOAD, .n_fds = 1, .epoch = EPOCH, .seq = 1, .body = "{}", .length = 2};
    struct buf bytes = {0};
    assert_int_equal(frame_append(&frame, &bytes, NULL), STATUS_OK);
    assert_int_equal(send(pair.leader.fd, bytes.data, bytes.len, 0), (ssize_t)bytes.len);
    expect_cut(&pair.rank, "announced 1 descriptors and sent 0");
    buf_release(&bytes);
    close_pair(&pair);

    /* sent and never claimed: a second frame's worth does not fit */
    open_greeted(&pair);
    for (int i = 0; i < 2; i++) {
        pair.leader.n_out_fds = CHANNEL_MAX_FDS;
        for (int k = 0; k < CHANNEL_MAX_FDS; k++) {
            pair.leader.out_fds[k] = dup(STDERR_FILENO);
        }
        pair.leader.out_fds_at = 0;
        assert_int_equal(channel_request(&pair.leader, MESSAGE_PING, NULL, NULL), STATUS_OK);
        if (i == 0) {
            take(&pair.rank, MESSAGE_PING);
        }
    }
    expect_cut(&pair.rank, "more than 8 descriptors");
    close_pair(&pair);

    /* a closed descriptor cannot be passed, and nothing is sent */
    open_greeted(&pair);
    fds[0] = 999;
    assert_int_equal(channel_request(&pair.leader, MESSAGE_LOAD, &out, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "cannot pass descriptor 999"));
    expect_nothing(&pair.rank);
    json_decref(body);
    close_pair(&pair);
}

/* ---- a peer that is killed, or writes anything ---- */

static NORETURN void flood_child(int fd, uint64_t seed)
{
    struct random random = {.state = seed};
    struct buf out = {0};
    uint64_t rubbish = random_next(&random);

    for (uint32_t i = 0; i < 2000; i++) {
        char body[400];
        int n = snprintf(body, sizeof(body), "{\"bytes\":%u,\"total\":%*u}", i,
                         1 + (int)random_below(&random, 18), 7);
        struct frame frame = {.type = MESSAGE_LOAD_PROGRESS,
                              .epoch = EPOCH,
                              .seq = 1,
                              .body = body,
                              .length = (uint32_t)n};

        buf_clear(&out);
        if (frame_append(&frame, &out, NULL) != STATUS_OK) {
            _exit(1);
        }
        if (rubbish % 3 == 0 && i == rubbish % 1000) { /* one byte of the stream is wrong */
            out.data[rubbish % out.len] ^= 0x10;
        }
        for (size_t at = 0; at < out.len;) {
            size_t piece = 1 + random_below(&random, 200);
            ssize_t sent = send(fd, out.data + at, MIN(piece, out.len - at), MSG_NOSIGNAL);

            if (sent < 0) {
                _exit(1);
            }
            at += (size_t)sent;
        }
    }
    _exit(0);
}

/* The child is killed at a random moment: whole frames are read, then the end is reported. */
static void test_killed_peer(void **state)
{
    struct random random = random_start("killed peer");

    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 15 : 60); round++) {
        uint64_t deadline = clock_ns() + 10000 * MS;
        uint64_t seed = random_next(&random);
        struct message message;
        struct err err = {0};
        struct channel leader;
        enum status status;
        uint64_t next = 0;
        int fds[2];
        pid_t child;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        child = fork_child();
        if (child == 0) {
            close(fds[0]);
            flood_child(fds[1], seed);
        }
        close(fds[1]);
        channel_init(&leader, fds[0], CHANNEL_LEADER, EPOCH, FRAME_MAX_BODY);
        leader.seq = 1;
        leader.asked = MESSAGE_LOAD;
        leader.answer = MESSAGE_LOAD_OK;
        if (round % 2 == 0) {
            usleep(random_below(&random, 3000));
            kill(child, SIGKILL);
        }
        while ((status = channel_receive(&leader, deadline, &message, &err)) == STATUS_OK) {
            assert_int_equal(message_uint(message.json, "bytes", 0), next);
            next++;
            message_release(&message);
        }
        assert_int_equal(status, STATUS_LINK);
        assert_true(strstr(err.text, "closed the channel") != NULL ||
                    strstr(err.text, "rubbish") != NULL);
        channel_release(&leader);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_error_and_signs),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_late_answer),
        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_long_body),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_bad_body_is_not_sent),
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_descriptors_queued),
        cmocka_unit_test(test_descriptor_limits),
        cmocka_unit_test(test_killed_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
