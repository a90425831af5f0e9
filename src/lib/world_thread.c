/* SPDX-License-Identifier: Apache-2.0 */
/* A world's thread: what was noted becomes events of the machine, and its actions are carried out
 * here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/fail.h"
#include "lib/world.h"

enum { EVENTS_MAX = 4 * LOCKSTEP_RANKS_MAX };

/* What the thread has for itself. */
struct driver {
    struct lockstep_world *world;
    struct world_event events[EVENTS_MAX]; /* that actions have brought about */
    size_t n_events;
    bool closing;
};

static void push(struct driver *driver, const struct world_event *event)
{
    ENSURE_OP(driver->n_events, <, EVENTS_MAX);
    driver->events[driver->n_events++] = *event;
}

static void push_of_rank(struct driver *driver, enum world_event_kind kind, uint32_t rank)
{
    push(driver,
         &(struct world_event){.kind = kind, .epoch = driver->world->machine.epoch, .rank = rank});
}

/* --- Building --- */

/* The rank's device is up, in that generation: it is part of the epoch. lock is held. */
static void rank_is_up(struct driver *driver, uint32_t rank, uint64_t generation)
{
    driver->world->ranks[rank].generation = generation;
    push_of_rank(driver, WORLD_EV_SPAWNED, rank);
    push_of_rank(driver, WORLD_EV_HELLO, rank);
}

static void rank_failed(struct driver *driver, uint32_t rank)
{
    push(driver, &(struct world_event){.kind = WORLD_EV_SPAWN_FAILED,
                                       .epoch = driver->world->machine.epoch,
                                       .rank = rank,
                                       .error = ENODEV});
}

/* If the device is up now; otherwise it will tell. lock is held. */
static void look_at_device(struct driver *driver, uint32_t rank)
{
    struct world_rank *self = &driver->world->ranks[rank];
    struct lockstep_device_info info;

    lockstep_device_info(self->device, &info);
    if (info.state == LOCKSTEP_DEVICE_UP) {
        rank_is_up(driver, rank, info.generation);
    } else if (info.state == LOCKSTEP_DEVICE_CLOSED) {
        rank_failed(driver, rank);
    } else {
        device_retry(self->device);
    }
}

static void spawn_all(struct driver *driver, uint64_t epoch)
{
    struct lockstep_world *world = driver->world;

    pthread_mutex_lock(&world->lock);
    ENSURE_OP(world->n_out, ==, 0);
    region_unref(&world->region);
    world->epoch = epoch;
    world->broken = false;
    world->committed = false;
    world->n_kills = 0;
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        world->ranks[r].generation = 0;
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        look_at_device(driver, r);
    }
    pthread_mutex_unlock(&world->lock);
}

/* A rank's part in building has ended. */
static void built(struct task *task, const struct work_result *result)
{
    struct world_rank *self = task->arg;
    struct lockstep_world *world = self->world;
    bool is_join = task->order.join != NULL;
    char text[sizeof(world->broken_text)];

    pthread_mutex_lock(&world->lock);
    if (result->status != LOCKSTEP_OK) {
        lib_text(text, sizeof(text), "rank %u failed to %s: %s", (unsigned)task->rank,
                 is_join ? "join" : "sum ones", result->text);
        lib_world_break(world, task->rank, result->status, result->status == LOCKSTEP_DEVICE, NULL,
                        text);
    } else {
        lib_world_note(world, &(struct world_note){
                                  .kind = is_join ? NOTE_JOINED : NOTE_SUM,
                                  .rank = task->rank,
                                  .epoch = world->epoch,
                                  .sum = result->sum,
                              });
    }
    lib_world_part_ended(world, task->rank);
    pthread_mutex_unlock(&world->lock);
}

/* Posts a rank's part in building. */
static void post(struct lockstep_world *world, uint32_t rank, bool is_join)
{
    struct world_rank *self = &world->ranks[rank];
    struct lockstep_error error;

    self->build_work = (struct work){.kind = WORK_SANITY};
    self->build = (struct task){
        .name = is_join ? "join" : "sanity",
        .order = {.deadline_ns = UINT64_MAX},
        .owner = world,
        .generation = self->generation,
        .done = built,
        .arg = self,
        .rank = rank,
    };
    if (is_join) {
        self->build.order.join = &self->join;
    } else {
        self->build.order.works = self->build_works;
        self->build.order.n_works = 1;
    }
    pthread_mutex_lock(&world->lock);
    self->n_out++;
    world->n_out++;
    pthread_mutex_unlock(&world->lock);
    if (device_post(self->device, &self->build, &error) != LOCKSTEP_OK) {
        struct work_result result = {0};

        work_fail(&result, error.status, "%s", error.text);
        built(&self->build, &result);
    }
}

static void post_all(struct lockstep_world *world, bool is_join)
{
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        post(world, r, is_join);
    }
}

static void send_comm_init(struct lockstep_world *world)
{
    struct region *region = NULL;
    struct comm_id id;
    struct err err = {0};
    enum status status;
    bool broken;

    comm_id_make(&id);
    status = region_create(world->n_ranks, &id, &region, &err);
    pthread_mutex_lock(&world->lock);
    if (status != STATUS_OK) {
        lib_world_break(world, 0, lib_status(status), false, NULL, err.text);
    }
    broken = world->broken;
    if (!broken) {
        world->region = region;
    }
    for (uint32_t r = 0; r < world->n_ranks && !broken; r++) {
        world->ranks[r].join =
            (struct work_join){.id = id, .rank = r, .n_ranks = world->n_ranks, .region = region};
    }
    pthread_mutex_unlock(&world->lock);
    if (broken) {
        region_unref(&region);
    } else {
        post_all(world, true);
    }
}

/* --- Ending --- */

/* Why the machine ends the epoch, where it was not noted before. */
static void say_why(const struct lockstep_world *world, bool closing, char *out, size_t size)
{
    const struct world_fault *fault = &world->machine.fault;

    if (closing) {
        lib_text(out, size, "the world was destroyed");
    } else if (fault->cause == WORLD_CAUSE_SPAWN) {
        struct lockstep_device *device = world->ranks[fault->rank].device;
        struct lockstep_device_info info;

        lockstep_device_info(device, &info);
        lib_text(out, size, "rank %u did not start (device %s): %s", (unsigned)fault->rank,
                 device->name, info.reason);
    } else {
        world_fault_text(fault, out, size);
    }
}

static void kill_all(struct lockstep_world *world, bool closing)
{
    char text[384];

    say_why(world, closing, text, sizeof(text));
    pthread_mutex_lock(&world->lock);
    lib_world_break(world, 0, LOCKSTEP_CANCELLED, false, NULL, text);
    world->n_kills++;
    pthread_mutex_unlock(&world->lock);
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        device_withdraw(world->ranks[r].device, world, NULL);
        device_interrupt(world->ranks[r].device);
    }
    lib_text(text, sizeof(text), "it did not leave epoch %llu within %u ms",
             (unsigned long long)world->epoch, (unsigned)world->leave_ms);
    for (uint32_t r = 0; r < world->n_ranks && world->n_kills > 1; r++) {
        bool lingers;

        pthread_mutex_lock(&world->lock);
        lingers = world->ranks[r].n_out > 0;
        pthread_mutex_unlock(&world->lock);
        if (lingers) {
            device_lose(world->ranks[r].device, world->ranks[r].generation, text);
        }
    }
}

static void left(struct task *task, const struct work_result *result)
{
    (void)result;
    free(task);
}

/* The devices outlive the world and drop its communicator. */
static void leave_all(struct lockstep_world *world)
{
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        struct task *task = xalloc(sizeof(*task));

        *task = (struct task){
            .name = "leave",
            .order = {.leave = true, .deadline_ns = UINT64_MAX},
            .owner = world,
            .generation = world->ranks[r].generation,
            .done = left,
        };
        if (task->generation == 0 ||
            device_post(world->ranks[r].device, task, NULL) != LOCKSTEP_OK) {
            free(task);
        }
    }
}

/* --- Telling --- */

static void report(struct lockstep_world *world, enum world_state state)
{
    struct lockstep_event event;

    pthread_mutex_lock(&world->changing);
    pthread_mutex_lock(&world->lock);
    if (world->broken && (state == WORLD_REBUILDING || state == WORLD_STOPPING)) {
        lib_text(world->reason, sizeof(world->reason), "%s", world->broken_text);
    }
    world->state = (enum lockstep_world_state)state;
    world->n_rebuilds = world->machine.n_rebuilds;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->lock);
    lib_world_event(world, &event);
    watch_tell(&world->watches, &event);
    pthread_mutex_unlock(&world->changing);
}

/* --- The machine --- */

static void act(struct driver *driver, const struct world_action *action)
{
    struct lockstep_world *world = driver->world;

    switch (action->kind) {
    case WORLD_DO_SPAWN_ALL:
        spawn_all(driver, action->epoch);
        break;
    case WORLD_DO_SEND_COMM_INIT:
        send_comm_init(world);
        break;
    case WORLD_DO_SEND_SANITY:
        post_all(world, false);
        break;
    case WORLD_DO_SEND_LOAD: /* nothing is loaded here */
        for (uint32_t r = 0; r < world->n_ranks; r++) {
            push_of_rank(driver, WORLD_EV_LOAD_OK, r);
        }
        break;
    case WORLD_DO_KILL_ALL:
    case WORLD_DO_SEND_SHUTDOWN:
        kill_all(world, driver->closing);
        break;
    case WORLD_DO_REPORT:
        report(world, action->state);
        break;
    default: /* about requests, models, and probes, whose time the machine knows */
        break;
    }
}

static void feed(struct driver *driver, const struct world_event *event)
{
    struct world_actions actions;

    world_machine_event(&driver->world->machine, event, clock_ns(), &actions);
    for (size_t i = 0; i < actions.n; i++) {
        act(driver, &actions.list[i]);
    }
}

static void feed_pushed(struct driver *driver)
{
    while (driver->n_events > 0) {
        struct world_event event = driver->events[0];

        driver->n_events--;
        memmove(driver->events, driver->events + 1, driver->n_events * sizeof(event));
        feed(driver, &event);
    }
}

/* The epoch has ended for the reason that the world has noted. */
static void on_broken(struct driver *driver, const struct world_note *note)
{
    struct lockstep_world *world = driver->world;
    struct world_event event = {.kind = WORLD_EV_RANK_ERROR, .epoch = note->epoch};
    bool by_abort;

    pthread_mutex_lock(&world->lock);
    event.rank = world->broken_rank;
    event.error = world->broken_by_device ? WORLD_ERROR_DEVICE : WORLD_ERROR_LINK;
    by_abort = world->broken_by_abort;
    pthread_mutex_unlock(&world->lock);
    if (by_abort) {
        feed(driver, &(struct world_event){.kind = WORLD_EV_FAULT_MARK, .epoch = note->epoch});
    }
    feed(driver, &event);
}

static void on_device(struct driver *driver, const struct world_note *note)
{
    struct lockstep_world *world = driver->world;
    bool awaited;

    pthread_mutex_lock(&world->lock);
    awaited = world->machine.state == WORLD_SPAWNING && world->ranks[note->rank].generation == 0;
    if (awaited && note->kind == NOTE_DEVICE_UP) {
        struct lockstep_device_info info;

        /* It may be down again since: then it will tell anew. */
        lockstep_device_info(world->ranks[note->rank].device, &info);
        if (info.state == LOCKSTEP_DEVICE_UP) {
            rank_is_up(driver, note->rank, info.generation);
        }
    } else if (awaited) {
        rank_failed(driver, note->rank);
    }
    pthread_mutex_unlock(&world->lock);
}

static void on_committed(struct driver *driver, const struct world_note *note)
{
    struct world_event event = {
        .kind = WORLD_EV_STEP_ISSUED,
        .epoch = note->epoch,
        .step = world_machine_next_step(&driver->world->machine),
    };

    feed(driver, &event);
    event.kind = WORLD_EV_STEP_COMMITTED;
    feed(driver, &event);
}

static void handle(struct driver *driver, const struct world_note *note)
{
    switch (note->kind) {
    case NOTE_DEVICE_UP:
    case NOTE_DEVICE_FAILED:
        on_device(driver, note);
        break;
    case NOTE_JOINED:
        feed(driver, &(struct world_event){
                         .kind = WORLD_EV_INIT_OK, .epoch = note->epoch, .rank = note->rank});
        break;
    case NOTE_SUM:
        feed(driver, &(struct world_event){.kind = WORLD_EV_SANITY_RESULT,
                                           .epoch = note->epoch,
                                           .rank = note->rank,
                                           .sum = note->sum});
        break;
    case NOTE_BROKEN:
        on_broken(driver, note);
        break;
    case NOTE_COMMITTED:
        on_committed(driver, note);
        break;
    case NOTE_CLOSE:
        driver->closing = true;
        feed(driver, &(struct world_event){.kind = WORLD_EV_UNLOAD});
        break;
    case NOTE_EMPTY: /* looked at after every note */
        break;
    }
    feed_pushed(driver);
}

/* The epoch is over and nothing of it is under way. */
static bool is_reaped(struct lockstep_world *world)
{
    bool ending = world->machine.state == WORLD_STOPPING ||
                  (world->machine.state == WORLD_REBUILDING && !world->machine.no_ranks);

    return ending && world->n_out == 0;
}

/* Waits for a note until the machine's next tick. lock is held. */
static void wait_for_note(struct driver *driver)
{
    struct lockstep_world *world = driver->world;

    if (threads_cond_wait(&world->noted, &world->lock, world_machine_wake_at(&world->machine))) {
        return;
    }
    pthread_mutex_unlock(&world->lock);
    feed(driver, &(struct world_event){.kind = WORLD_EV_TICK});
    feed_pushed(driver);
    pthread_mutex_lock(&world->lock);
}

void *lib_world_run(void *arg)
{
    struct lockstep_world *world = arg;
    struct driver driver = {.world = world};

    feed(&driver, &(struct world_event){.kind = WORLD_EV_LOAD, .n_ranks = world->n_ranks});
    feed_pushed(&driver);
    pthread_mutex_lock(&world->lock);
    while (!driver.closing || world->machine.state != WORLD_DOWN) {
        if (is_reaped(world)) {
            struct world_event reaped = {.kind = WORLD_EV_ALL_REAPED,
                                         .epoch = world->machine.epoch};

            pthread_mutex_unlock(&world->lock);
            feed(&driver, &reaped);
            feed_pushed(&driver);
            pthread_mutex_lock(&world->lock);
        } else if (world->n_notes > 0) {
            struct world_note note = world->notes[0];

            world->n_notes--;
            memmove(world->notes, world->notes + 1, world->n_notes * sizeof(note));
            pthread_mutex_unlock(&world->lock);
            handle(&driver, &note);
            pthread_mutex_lock(&world->lock);
        } else {
            wait_for_note(&driver);
        }
    }
    pthread_mutex_unlock(&world->lock);
    leave_all(world);
    return NULL;
}
