/* SPDX-License-Identifier: Apache-2.0 */
/* What threads say to each other: mail, jobs, turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/turns.h"
#include "gateway/workers.h"

enum { N_SENDERS = 4, N_MAILS = 5000, N_JOBS = 200 };

/* --- Mail --- */

struct numbered {
    struct mail mail;
    uint32_t sender;
    uint32_t number;
};

struct sender {
    struct mailbox *box;
    uint32_t number;
    uint32_t delivered; /* the taker's */
};

static struct sender senders[N_SENDERS];

static void take(struct mail *mail)
{
    struct numbered *n = (struct numbered *)mail;

    assert_int_equal(n->number, senders[n->sender].delivered); /* each sender's in order */
    senders[n->sender].delivered++;
    free(n);
}

static void *send_all(void *arg)
{
    struct sender *sender = arg;

    for (uint32_t i = 0; i < N_MAILS; i++) {
        struct numbered *n = xalloc(sizeof(*n));

        *n = (struct numbered){.mail.deliver = take, .sender = sender->number, .number = i};
        mailbox_put(sender->box, &n->mail);
    }
    return NULL;
}

/* A taker that sleeps on the descriptor alone gets everything. */
static void test_mail(void **state)
{
    struct mailbox box;
    pthread_t threads[N_SENDERS];
    uint64_t limit = clock_ns() + UINT64_C(60000000000);
    uint32_t n = 0;

    (void)state;
    assert_int_equal(mailbox_init(&box, NULL), STATUS_OK);
    assert_false(mailbox_deliver(&box));
    for (uint32_t i = 0; i < N_SENDERS; i++) {
        senders[i] = (struct sender){.box = &box, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    while (n < N_SENDERS * N_MAILS && clock_ns() < limit) {
        struct pollfd fd = {.fd = box.fd, .events = POLLIN};

        assert_int_equal(poll(&fd, 1, 60000), 1);
        mailbox_deliver(&box);
        n = 0;
        for (uint32_t i = 0; i < N_SENDERS; i++) {
            n += senders[i].delivered;
        }
    }
    assert_int_equal(n, N_SENDERS * N_MAILS);
    for (uint32_t i = 0; i < N_SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    mailbox_deliver(&box);
    mailbox_ring(&box);
    assert_int_equal(poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 0), 1);
    assert_true(mailbox_deliver(&box) || true); /* no mail, but quiet again */
    assert_int_equal(poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 0), 0);
    mailbox_release(&box);
}

/* --- Jobs --- */

struct counted {
    struct job job;
    bool ran;
    uint32_t *delivered;
};

static void run_counted(struct job *job)
{
    ((struct counted *)job)->ran = true;
}

static void deliver_counted(struct mail *mail)
{
    struct counted *c = (struct counted *)mail;

    ++*c->delivered;
}

static void test_jobs(void **state)
{
    struct counted *jobs = xcalloc(N_JOBS, sizeof(*jobs));
    struct workers *workers;
    struct mailbox box;
    uint32_t delivered = 0;
    uint32_t ran = 0;

    (void)state;
    assert_int_equal(mailbox_init(&box, NULL), STATUS_OK);
    assert_int_equal(workers_create(3, &workers, NULL), STATUS_OK);
    for (uint32_t i = 0; i < N_JOBS; i++) {
        jobs[i] = (struct counted){
            .job = {.mail.deliver = deliver_counted, .run = run_counted, .done = &box},
            .delivered = &delivered};
        workers_give(workers, &jobs[i].job);
    }
    while (delivered < N_JOBS / 2) {
        struct pollfd fd = {.fd = box.fd, .events = POLLIN};

        assert_int_equal(poll(&fd, 1, 60000), 1);
        mailbox_deliver(&box);
    }
    workers_destroy(&workers); /* all come back, also those that never ran */
    mailbox_deliver(&box);
    assert_int_equal(delivered, N_JOBS);
    for (uint32_t i = 0; i < N_JOBS; i++) {
        ran += jobs[i].ran;
    }
    assert_true(ran >= N_JOBS / 2);
    mailbox_release(&box);
    free(jobs);
}

/* --- Turns --- */

struct player {
    struct turns *turns;
    struct turn turn;
    struct mailbox box;
    uint32_t n; /* turns it had */
    _Atomic uint32_t *inside;
};

static void wake_player(void *arg)
{
    mailbox_ring(&((struct player *)arg)->box);
}

static void *play(void *arg)
{
    struct player *p = arg;

    while (p->n < 300) {
        if (!turns_ask(p->turns, &p->turn)) {
            poll(&(struct pollfd){.fd = p->box.fd, .events = POLLIN}, 1, 60000);
            mailbox_deliver(&p->box);
            continue;
        }
        assert_int_equal(atomic_fetch_add(p->inside, 1), 0); /* nobody else */
        p->n++;
        atomic_fetch_sub(p->inside, 1);
        if (turns_wanted(p->turns)) {
            turns_leave(p->turns, &p->turn);
        }
    }
    turns_leave(p->turns, &p->turn);
    return NULL;
}

static void test_turns(void **state)
{
    struct player players[3];
    pthread_t threads[3];
    _Atomic uint32_t inside = 0;
    struct turns turns;

    (void)state;
    turns_init(&turns);
    for (int i = 0; i < 3; i++) {
        players[i] = (struct player){
            .turns = &turns, .turn = {.wake = wake_player, .arg = &players[i]}, .inside = &inside};
        assert_int_equal(mailbox_init(&players[i].box, NULL), STATUS_OK);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(players[i].n, 300);
        mailbox_release(&players[i].box);
    }
    assert_null(turns.holder);
    assert_null(turns.first);
}

/* First come, first served; one that leaves the line is passed over. */
static void test_order(void **state)
{
    struct mailbox box;
    struct player p[3];
    struct turns turns;

    (void)state;
    turns_init(&turns);
    assert_int_equal(mailbox_init(&box, NULL), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        p[i] = (struct player){.turn = {.wake = wake_player, .arg = &p[i]}};
        assert_int_equal(mailbox_init(&p[i].box, NULL), STATUS_OK);
    }
    assert_true(turns_ask(&turns, &p[0].turn));
    assert_false(turns_wanted(&turns));
    assert_false(turns_ask(&turns, &p[1].turn));
    assert_false(turns_ask(&turns, &p[2].turn));
    assert_false(turns_ask(&turns, &p[1].turn)); /* asking again changes nothing */
    assert_true(turns_wanted(&turns));
    turns_leave(&turns, &p[1].turn);
    turns_leave(&turns, &p[0].turn);
    assert_true(turns_ask(&turns, &p[2].turn));
    assert_false(turns_wanted(&turns));
    turns_leave(&turns, &p[2].turn);
    for (int i = 0; i < 3; i++) {
        mailbox_release(&p[i].box);
    }
    mailbox_release(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mail),
        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
