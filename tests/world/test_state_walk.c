/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random walks of the world's machine against a model of processes and requests: whatever happens
 * in whatever order, the invariants of state.h hold after each event, and from wherever a walk
 * ends, ranks that cooperate bring the world up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>

#include "world/machine.h"

enum { N_REQUESTS = 6, N_WALKS = 3000, WALK = 300, CLIMB = 400 };

struct request {
    uint64_t id;   /* 0: none */
    uint64_t step; /* in flight that it is in; 0: none */
    uint32_t lost; /* steps lost in a row to faults that count */
    bool again;    /* computes nothing new for now */
};

/* The outside of the machine. */
struct model {
    struct rig rig;
    uint64_t seed;
    uint64_t walk;

    uint64_t alive; /* processes of the epoch, one bit each */
    bool open;      /* the epoch has not been reported as reaped */
    bool leaving;   /* they were killed or asked to leave */
    struct request requests[N_REQUESTS];
    uint64_t next_id;
    uint64_t committed;
    uint64_t issued;                     /* steps in flight */
    bool progress[FLIGHT_MAX_STEPS + 1]; /* of each of them */
    uint32_t in_a_row;
};

static uint32_t draw(struct model *m, uint32_t below)
{
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->seed >> 33) % below;
}

static void broken(const struct model *m, const char *what)
{
    fail_msg("walk %llu: %s (in %s)", (unsigned long long)m->walk, what,
             world_state_text(m->rig.machine.state));
}

static void need(const struct model *m, bool holds, const char *what)
{
    if (!holds) {
        broken(m, what);
    }
}

static struct request *find(struct model *m, uint64_t id)
{
    for (int i = 0; i < N_REQUESTS; i++) {
        if (m->requests[i].id == id) {
            return &m->requests[i];
        }
    }
    return NULL;
}

/* Steps in flight are lost; the requests in them are to blame if the fault counts. */
static void lose_steps(struct model *m, bool counts)
{
    for (int i = 0; i < N_REQUESTS; i++) {
        m->requests[i].lost += counts && m->requests[i].step != 0;
        m->requests[i].step = 0;
    }
    m->issued = 0;
}

static void apply_failures(struct model *m, const struct world_action *action)
{
    if (action->all) {
        memset(m->requests, 0, sizeof(m->requests));
        m->issued = 0;
    }
    for (size_t i = 0; i < action->n_ids; i++) {
        struct request *request = find(m, action->ids[i]);

        need(m, request != NULL, "a request is failed that has ended");
        need(m, request->lost >= SUSPECT_GIVEN_UP_AT, "an innocent request is given up");
        *request = (struct request){0};
    }
}

static void apply(struct model *m, const struct world_action *action)
{
    enum world_state state = m->rig.machine.state;

    switch (action->kind) {
    case WORLD_DO_SPAWN_ALL:
        need(m, m->alive == 0 && !m->open, "two epochs alive");
        need(m, action->n_ranks >= 1, "a world of no ranks");
        m->alive = ((uint64_t)1 << action->n_ranks) - 1;
        m->open = true;
        m->leaving = false;
        break;
    case WORLD_DO_KILL_ALL:
    case WORLD_DO_SEND_SHUTDOWN:
        m->leaving = true;
        break;
    case WORLD_DO_UNDO_LOAD:
        need(m, m->alive == 0, "memory is dropped under living ranks");
        break;
    case WORLD_DO_FAIL_REQUESTS:
        apply_failures(m, action);
        break;
    case WORLD_DO_RESUME:
        need(m, state == WORLD_READY || state == WORLD_DRAINING, "resume of what is not ready");
        need(m, action->step == m->committed + 1, "resume at a wrong step");
        for (int i = 0; i < N_REQUESTS && !action->keep_kv; i++) {
            m->requests[i].again = true;
        }
        break;
    default:
        break;
    }
}

static void check(struct model *m, enum world_state before, uint64_t rebuilds)
{
    const struct world_machine *machine = &m->rig.machine;
    bool rests = machine->state == WORLD_DOWN || machine->state == WORLD_FAILED;

    if (rests) {
        need(m, m->alive == 0, "ranks are alive though the world is down");
        memset(m->requests, 0, sizeof(m->requests));
    }
    if (machine->n_rebuilds != rebuilds) {
        m->in_a_row += !machine->fault.injected;
        need(m, m->in_a_row <= machine->config.restart_budget, "budget exceeded");
        need(m,
             m->rig.actions.list[0].kind == WORLD_DO_KILL_ALL ||
                 m->rig.actions.list[1].kind == WORLD_DO_KILL_ALL,
             "a rebuild without a kill");
    }
    if (before == WORLD_FAILED && machine->state == WORLD_SPAWNING) {
        m->in_a_row = machine->in_a_row;
    }
    need(m,
         machine->state == WORLD_DOWN || machine->state == WORLD_READY ||
             world_machine_wake_at(machine) != UINT64_MAX || machine->n_ranks == 0 ||
             machine->state == WORLD_DRAINING,
         "a wait without an end");
    need(m, machine->flight.committed == m->committed, "commits lost or made up");
}

static bool send(struct model *m, struct world_event event)
{
    enum world_state before = m->rig.machine.state;
    uint64_t rebuilds = m->rig.machine.n_rebuilds;

    rig_event(&m->rig, event);
    if (m->rig.machine.n_rebuilds != rebuilds) {
        lose_steps(m, !m->rig.machine.fault.injected);
    }
    for (size_t i = 0; i < m->rig.actions.n; i++) {
        apply(m, &m->rig.actions.list[i]);
    }
    if (before != m->rig.machine.state && m->rig.machine.state == WORLD_STOPPING) {
        m->issued = 0;
    }
    check(m, before, rebuilds);
    return m->rig.taken;
}

static uint32_t some_rank(struct model *m)
{
    uint32_t n = m->rig.machine.n_ranks;

    return n == 0 ? 0 : draw(m, n);
}

static void die(struct model *m, uint32_t rank, int signal, bool oom)
{
    m->alive &= ~((uint64_t)1 << rank);
    send(m, (struct world_event){
                .kind = WORLD_EV_RANK_DIED, .rank = rank, .signal = signal, .oom = oom});
}

/* Commits the oldest step. */
static void commit(struct model *m)
{
    m->committed++;
    m->issued--;
    if (m->progress[0]) {
        m->in_a_row = 0;
    }
    m->progress[0] = m->progress[1];
    for (int i = 0; i < N_REQUESTS; i++) {
        struct request *request = &m->requests[i];

        if (request->id != 0 && request->step == m->committed) {
            request->lost = request->again ? request->lost : 0;
            request->again = request->again && draw(m, 2) == 0;
            request->step = 0;
        }
    }
    need(m, send(m, (struct world_event){.kind = WORLD_EV_STEP_COMMITTED, .step = m->committed}),
         "a commit is refused");
}

/* Issues a step of some requests; `only` one of them if not 0. */
static void issue(struct model *m, uint64_t only)
{
    uint64_t number = m->committed + m->issued + 1;
    struct world_part parts[N_REQUESTS];
    bool progress = false;
    size_t n = 0;

    for (int i = 0; i < N_REQUESTS; i++) {
        const struct request *request = &m->requests[i];

        if (request->id != 0 && request->step == 0 && (only == 0 || request->id == only)) {
            parts[n++] = (struct world_part){.request = request->id, .again = request->again};
            progress = progress || !request->again;
        }
    }
    if (!send(m, (struct world_event){
                     .kind = WORLD_EV_STEP_ISSUED, .step = number, .parts = parts, .n_parts = n})) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        find(m, parts[i].request)->step = number;
    }
    need(m, m->issued < FLIGHT_MAX_STEPS, "too many steps in flight");
    m->progress[m->issued++] = progress || n == 0;
}

static void work(struct model *m)
{
    if (m->issued > 0 && draw(m, 3) != 0) {
        commit(m);
    } else {
        issue(m, draw(m, 2) == 0 ? 0 : m->requests[draw(m, N_REQUESTS)].id);
    }
}

static void end_request(struct model *m, struct request *request)
{
    uint64_t id = request->id;

    if (id != 0 && request->step == 0) {
        *request = (struct request){0};
        send(m, (struct world_event){.kind = WORLD_EV_REQUEST_ENDED, .request = id});
    }
}

static void new_request(struct model *m)
{
    struct request *request = &m->requests[draw(m, N_REQUESTS)];

    if (m->rig.machine.state == WORLD_READY && request->id == 0) {
        request->id = ++m->next_id;
    }
}

/* The next missing answer on the way up. */
static void answer(struct model *m)
{
    static const enum world_event_kind answers[WORLD_N_STATES] = {
        [WORLD_SPAWNING] = WORLD_EV_SPAWNED,  [WORLD_HELLO] = WORLD_EV_HELLO,
        [WORLD_COMM_INIT] = WORLD_EV_INIT_OK, [WORLD_SANITY] = WORLD_EV_SANITY_RESULT,
        [WORLD_LOADING] = WORLD_EV_LOAD_OK,
    };
    const struct world_machine *machine = &m->rig.machine;
    uint32_t rank = some_rank(m);

    for (uint32_t i = 0; i < machine->n_ranks; i++) {
        if (send(m, (struct world_event){
                        .kind = answers[machine->state], .rank = rank, .sum = machine->n_ranks})) {
            return;
        }
        rank = (rank + 1) % machine->n_ranks;
    }
    broken(m, "nobody is waited for");
}

static void wait_for(struct model *m)
{
    uint64_t at = world_machine_wake_at(&m->rig.machine);

    m->rig.now = at == UINT64_MAX ? m->rig.now + 1000 : MAX(at, m->rig.now);
    send(m, (struct world_event){.kind = WORLD_EV_TICK});
}

/* One thing that happens where everybody does what he should. */
static void cooperate(struct model *m)
{
    if (m->leaving && m->alive != 0) {
        die(m, (uint32_t)__builtin_ctzll(m->alive), SIGKILL, false);
        return;
    }
    if (m->open && m->alive == 0) {
        m->open = false;
        send(m, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
        return;
    }
    switch (m->rig.machine.state) {
    case WORLD_DOWN:
        m->in_a_row = 0;
        send(m, (struct world_event){.kind = WORLD_EV_LOAD, .n_ranks = 1 + draw(m, 4)});
        break;
    case WORLD_FAILED:
        if (m->rig.machine.n_ranks == 0) {
            m->in_a_row = 0;
            send(m, (struct world_event){.kind = WORLD_EV_LOAD, .n_ranks = 2});
            break;
        }
        wait_for(m);
        break;
    case WORLD_REBUILDING:
        wait_for(m);
        break;
    case WORLD_DRAINING:
        send(m, (struct world_event){.kind = WORLD_EV_DRAINED});
        break;
    case WORLD_READY:
        new_request(m);
        work(m);
        break;
    case WORLD_STOPPING:
        broken(m, "stopping without ranks");
        break;
    default:
        answer(m);
    }
}

/* One thing that goes wrong; most only where a rank is alive to do it. */
static void misbehave(struct model *m)
{
    static const int signals[] = {SIGKILL, SIGKILL, SIGSEGV, 0};
    uint32_t rank = some_rank(m);
    struct world_event event = {.rank = rank, .error = 1 + (int)draw(m, 5)};

    if ((m->alive & ((uint64_t)1 << rank)) == 0) {
        return;
    }
    switch (draw(m, 12)) {
    case 0:
    case 1:
    case 2:
        die(m, rank, signals[draw(m, 4)], false);
        return;
    case 3:
        die(m, rank, SIGKILL, true);
        return;
    case 4:
        event.kind = WORLD_EV_RANK_HUNG;
        break;
    case 5:
        event.kind = WORLD_EV_RANK_ERROR;
        break;
    case 6:
        event.kind = WORLD_EV_PLAN_MISMATCH;
        break;
    case 7:
        event.kind = WORLD_EV_LOAD_ERROR;
        break;
    case 8:
        event.kind = WORLD_EV_SANITY_RESULT;
        event.sum = 77;
        break;
    case 9:
        event.kind = draw(m, 4) == 0 ? WORLD_EV_DEVICE_GONE : WORLD_EV_RANK_HUNG;
        break;
    case 10:
        event.kind = WORLD_EV_HELLO;
        event.mismatch = draw(m, 4) == 0;
        break;
    default:
        if (m->rig.machine.state == WORLD_SPAWNING) {
            m->alive &= ~((uint64_t)1 << rank);
            event.kind = WORLD_EV_SPAWN_FAILED;
        } else {
            event.kind = WORLD_EV_FAULT_MARK;
        }
    }
    send(m, event);
}

/* Events of old epochs, out of order, twice: nothing may come of them. */
static void babble(struct model *m)
{
    static const enum world_event_kind kinds[] = {WORLD_EV_INIT_OK, WORLD_EV_SPAWNED,
                                                  WORLD_EV_STEP_COMMITTED, WORLD_EV_LOAD_OK};
    struct world_event event = {.kind = kinds[draw(m, 4)], .rank = some_rank(m)};

    if (draw(m, 2) == 0) {
        event.epoch = m->rig.machine.epoch + 5 + draw(m, 3);
        event.kind =
            (enum world_event_kind)(WORLD_EV_SPAWNED + draw(m, WORLD_N_EVENTS - WORLD_EV_SPAWNED));
        need(m, !send(m, event), "a stale event is taken");
    } else if (event.kind == WORLD_EV_STEP_COMMITTED) {
        event.step = m->committed;
        need(m, !send(m, event), "a step is committed twice");
    }
}

static void wish(struct model *m)
{
    switch (draw(m, 8)) {
    case 0:
        send(m, (struct world_event){.kind = WORLD_EV_UNLOAD});
        break;
    case 1:
        send(m, (struct world_event){.kind = WORLD_EV_DRAIN});
        break;
    case 2:
        send(m, (struct world_event){.kind = WORLD_EV_DRAINED});
        break;
    case 3:
        m->rig.now += draw(m, 3000) * (uint64_t)MS;
        send(m, (struct world_event){.kind = WORLD_EV_TICK});
        break;
    default:
        end_request(m, &m->requests[draw(m, N_REQUESTS)]);
    }
}

static void walk(struct model *m)
{
    int i;

    rig_init(&m->rig, NULL);
    for (i = 0; i < WALK; i++) {
        switch (draw(m, 16)) {
        case 0:
            misbehave(m);
            break;
        case 1:
            wish(m);
            break;
        case 2:
            babble(m);
            break;
        default:
            cooperate(m);
        }
    }
    for (i = 0; i < CLIMB && m->rig.machine.state != WORLD_READY; i++) {
        cooperate(m);
    }
    need(m, m->rig.machine.state == WORLD_READY, "cooperation does not make it ready");
    for (i = 0; i < CLIMB; i++) { /* and ready it stays, and works */
        cooperate(m);
        need(m, m->rig.machine.state == WORLD_READY, "it does not stay ready");
    }
    world_machine_release(&m->rig.machine);
}

static void test_walks(void **state)
{
    uint64_t rebuilds = 0;
    uint64_t commits = 0;

    (void)state;
    for (uint64_t n = 0; n < N_WALKS; n++) {
        struct model m = {.seed = n * 7919 + 1, .walk = n};

        walk(&m);
        rebuilds += m.rig.machine.n_rebuilds;
        commits += m.committed;
    }
    print_message("%d walks: %llu rebuilds, %llu committed steps\n", N_WALKS,
                  (unsigned long long)rebuilds, (unsigned long long)commits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
