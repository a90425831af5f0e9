/* SPDX-License-Identifier: Apache-2.0 */
/* A host whose world never comes to be: what is under way when it is taken away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdlib.h>

#include "base/mem.h"
#include "gateway/host.h"

struct heard {
    uint32_t loaded;
    uint32_t stopped;
    uint32_t ended;
    uint32_t called;
};

static enum status open_nothing(void *arg, const struct supervisor_handlers *on,
                                struct host_world *ret_world, struct err *err)
{
    (void)arg;
    (void)on;
    (void)ret_world;
    return err_set(err, STATUS_INVALID, "there is no such model");
}

static void on_loaded(void *arg, struct host *host, enum status status, const char *why)
{
    struct heard *heard = arg;

    (void)host;
    assert_int_equal(status, STATUS_INVALID);
    assert_string_equal(why, "there is no such model");
    heard->loaded++;
}

static void on_stopped(void *arg, struct host *host)
{
    struct heard *heard = arg;

    assert_int_equal(host_phase(host), HOST_DOWN);
    heard->stopped++;
}

static void on_seq(void *arg, struct seq *seq, const struct seq_event *event)
{
    struct heard *heard = arg;

    assert_int_equal(event->kind, SEQ_END);
    assert_int_equal(event->end, BATCH_FAILED);
    assert_int_equal(event->status, STATUS_LINK);
    heard->ended++;
    seq_destroy(&seq);
}

static void run_call(struct host_call *call, struct supervisor *supervisor, struct batch *batch)
{
    (void)call;
    assert_null(supervisor);
    assert_null(batch);
}

struct told_call {
    struct host_call call;
    struct heard *heard;
};

static void call_done(struct host_call *call)
{
    struct told_call *told = (struct told_call *)call;

    told->heard->called++;
    free(told);
}

static void submit(struct host *host, struct heard *heard)
{
    struct seq *seq = xalloc(sizeof(*seq));
    struct told_call *told = xalloc(sizeof(*told));

    seq->event = on_seq;
    seq->arg = heard;
    host_submit(host, seq);
    host_cancel(host, seq->id);
    told->heard = heard;
    told->call.run = run_call;
    told->call.done = call_done;
    host_call(host, &told->call);
}

struct rig {
    struct mailbox front;
    struct turns turns;
    struct heard heard;
    struct metrics *metrics;
    struct host *host;
};

static void rig_init(struct rig *rig)
{
    *rig = (struct rig){0};
    turns_init(&rig->turns);
    assert_int_equal(mailbox_init(&rig->front, NULL), STATUS_OK);
    rig->metrics = metrics_create("m");
    rig->host = host_create(&(struct host_config){
        .name = "m",
        .backend = {.open = open_nothing},
        .on = {.arg = &rig->heard, .loaded = on_loaded, .stopped = on_stopped},
        .front = &rig->front,
        .turns = &rig->turns,
        .metrics = rig->metrics,
    });
}

static void rig_release(struct rig *rig)
{
    host_destroy(&rig->host);
    mailbox_deliver(&rig->front); /* nothing in it may still lead to the host */
    mailbox_release(&rig->front);
    metrics_destroy(&rig->metrics);
}

/* Everything comes to its end, and it can be tried again. */
static void test_failed_load(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig);
    for (uint32_t n = 1; n <= 3; n++) {
        assert_int_equal(host_load(rig.host, NULL), STATUS_OK);
        submit(rig.host, &rig.heard);
        while (rig.heard.stopped < n || rig.heard.ended < n || rig.heard.called < n) {
            struct pollfd fd = {.fd = rig.front.fd, .events = POLLIN};

            assert_int_equal(poll(&fd, 1, 20000), 1);
            mailbox_deliver(&rig.front);
        }
        assert_int_equal(rig.heard.loaded, n);
    }
    submit(rig.host, &rig.heard); /* without a thread it is the same */
    mailbox_deliver(&rig.front);
    assert_int_equal(rig.heard.ended, 4);
    assert_int_equal(rig.heard.called, 4);
    rig_release(&rig);
}

/* Taken away before the front has read its mail: nothing may lead to it any more. */
static void test_destroyed_with_news(void **state)
{
    struct rig rig;

    (void)state;
    for (int i = 0; i < 20; i++) {
        rig_init(&rig);
        assert_int_equal(host_load(rig.host, NULL), STATUS_OK);
        submit(rig.host, &rig.heard);
        host_destroy(&rig.host);
        assert_null(rig.host);
        assert_int_equal(rig.heard.ended, 1);
        assert_int_equal(rig.heard.called, 1);
        assert_int_equal(rig.heard.stopped, 0); /* who destroys it knows */
        rig_release(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_load),
        cmocka_unit_test(test_destroyed_with_news),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
