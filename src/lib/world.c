/* SPDX-License-Identifier: Apache-2.0 */
/* A world seen from other threads: the program's and the devices'. */
#include "lib/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "lib/fail.h"

enum { PROBE_MS = 30000, LEAVE_MS = 2000, IN_FLIGHT_LIMIT = 1024, RESTART_BUDGET = 3 };

#define SAME_STATE(name) \
    _Static_assert((int)LOCKSTEP_WORLD_##name == (int)WORLD_##name, "same numbers")
SAME_STATE(DOWN);
SAME_STATE(SPAWNING);
SAME_STATE(HELLO);
SAME_STATE(COMM_INIT);
SAME_STATE(SANITY);
SAME_STATE(LOADING);
SAME_STATE(READY);
SAME_STATE(REBUILDING);
SAME_STATE(DRAINING);
SAME_STATE(STOPPING);
SAME_STATE(FAILED);

void lib_world_note(struct lockstep_world *world, const struct world_note *note)
{
    if (world->n_notes == world->notes_cap) {
        world->notes_cap = MAX(world->notes_cap * 2, (size_t)16);
        world->notes = xrealloc(world->notes, world->notes_cap, sizeof(*world->notes));
    }
    world->notes[world->n_notes++] = *note;
    pthread_cond_signal(&world->noted);
}

void lib_world_break(struct lockstep_world *world, uint32_t rank, enum lockstep_status status,
                     bool by_device, const struct lockstep_op *op, const char *text)
{
    if (world->broken) {
        return;
    }
    world->broken = true;
    world->broken_rank = rank;
    world->broken_status = status;
    world->broken_by_device = by_device;
    world->broken_by_abort = status == LOCKSTEP_CANCELLED && op == NULL && !by_device;
    world->broken_op = op;
    lib_text(world->broken_text, sizeof(world->broken_text), "%s", text);
    if (world->region != NULL) {
        comm_shm_abort(region_memory(world->region));
    }
    lib_world_note(world, &(struct world_note){.kind = NOTE_BROKEN, .epoch = world->epoch});
}

void lib_world_part_ended(struct lockstep_world *world, uint32_t rank)
{
    ENSURE_OP(world->ranks[rank].n_out, >, 0);
    world->ranks[rank].n_out--;
    world->n_out--;
    if (world->n_out == 0 && world->broken) {
        lib_world_note(world, &(struct world_note){.kind = NOTE_EMPTY, .epoch = world->epoch});
    }
}

/* A device tells a change. */
static void device_changed(void *arg, uint32_t rank, enum lockstep_device_state state,
                           uint64_t generation, const char *reason)
{
    struct lockstep_world *world = arg;
    struct world_rank *self = &world->ranks[rank];
    char text[sizeof(world->broken_text)];

    pthread_mutex_lock(&world->lock);
    if (state == LOCKSTEP_DEVICE_UP) {
        lib_world_note(world, &(struct world_note){
                                  .kind = NOTE_DEVICE_UP, .rank = rank, .generation = generation});
    } else {
        if (self->generation != 0 && self->generation == generation) {
            lib_text(text, sizeof(text),
                     "rank %u lost its context (device %s, generation %llu): %s", (unsigned)rank,
                     self->device->name, (unsigned long long)generation, reason);
            lib_world_break(world, rank, LOCKSTEP_DEVICE, true, NULL, text);
        }
        if (state != LOCKSTEP_DEVICE_STARTING) {
            lib_world_note(world, &(struct world_note){.kind = NOTE_DEVICE_FAILED, .rank = rank});
        }
    }
    pthread_mutex_unlock(&world->lock);
}

/* --- Operations --- */

enum lockstep_status lib_world_check_ready(struct lockstep_world *world, const char *name,
                                           struct lockstep_error *error)
{
    if (world->state == LOCKSTEP_WORLD_FAILED) {
        return lib_fail(error, LOCKSTEP_GIVEN_UP, "%s: the world failed: %s", name, world->reason);
    }
    if (world->state != LOCKSTEP_WORLD_READY || world->broken) {
        return lib_fail(error, LOCKSTEP_NOT_READY, "%s: the world is %s%s%s", name,
                        world->broken ? "rebuilding"
                                      : world_state_text((enum world_state)world->state),
                        world->broken ? ": " : "", world->broken ? world->broken_text : "");
    }
    return LOCKSTEP_OK;
}

/* How an operation ends whose parts have, with lock held. Returns the text. */
static const char *join(struct lockstep_world *world, const struct lockstep_op *op,
                        enum lockstep_status *ret_status, char *text, size_t size)
{
    const struct op_part *failure = op_first_failure(op);

    if (failure == NULL) {
        *ret_status = LOCKSTEP_OK;
        if (!world->committed && !world->broken) {
            world->committed = true;
            lib_world_note(world, &(struct world_note){.kind = NOTE_COMMITTED, .epoch = op->epoch});
        }
        return "";
    }
    if (world->broken_by_abort) {
        *ret_status = LOCKSTEP_CANCELLED;
        return lib_text(text, size, "%s", world->broken_text);
    }
    if (world->broken_op == op) {
        *ret_status = world->broken_status;
        return "it failed";
    }
    *ret_status = LOCKSTEP_REBUILT;
    return lib_text(text, size, "the world was rebuilt, because %s", world->broken_text);
}

void lib_world_op_part_done(struct op_part *part, const struct work_result *result)
{
    struct lockstep_op *op = part->op;
    struct lockstep_world *world = op->world;
    char text[sizeof(world->broken_text) + 64];
    enum lockstep_status status;
    const char *why;

    part->result = *result;
    pthread_mutex_lock(&world->lock);
    if (result->status != LOCKSTEP_OK) {
        lib_text(text, sizeof(text), "rank %u failed in %s: %s", (unsigned)part->task.rank,
                 op->name, result->text);
        lib_world_break(world, part->task.rank, result->status, result->status == LOCKSTEP_DEVICE,
                        op, text);
    }
    if (atomic_fetch_sub(&op->n_left, 1) != 1) {
        lib_world_part_ended(world, part->task.rank);
        pthread_mutex_unlock(&world->lock);
        return;
    }
    why = join(world, op, &status, text, sizeof(text));
    lib_world_part_ended(world, part->task.rank);
    pthread_mutex_unlock(&world->lock);
    op_end(op, status, why);
    pthread_mutex_lock(&world->lock);
    world->n_in_flight--;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->lock);
}

/* --- Watching --- */

struct watch_list *lib_world_watches(struct lockstep_world *world, pthread_mutex_t **ret_lock)
{
    *ret_lock = &world->changing;
    return &world->watches;
}

void lib_world_event(struct lockstep_world *world, struct lockstep_event *ret_event)
{
    pthread_mutex_lock(&world->lock);
    *ret_event = (struct lockstep_event){
        .world = world,
        .world_state = world->state,
        .epoch = world->epoch,
    };
    lib_text(ret_event->reason, sizeof(ret_event->reason), "%s", world->reason);
    pthread_mutex_unlock(&world->lock);
}

/* --- What the public header promises --- */

static enum lockstep_status check_config(struct lockstep_device *const *devices, uint32_t n_ranks,
                                         const struct lockstep_world_config *config,
                                         struct lockstep_error *error)
{
    if (n_ranks == 0 || n_ranks > LOCKSTEP_RANKS_MAX || devices == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "a world has 1 to %d devices, not %u",
                        LOCKSTEP_RANKS_MAX, (unsigned)n_ranks);
    }
    if (config != NULL && config->bytes != sizeof(*config)) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "lockstep_world_config.bytes is %zu, not its size (%zu)", config->bytes,
                        sizeof(*config));
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (devices[r] == NULL) {
            return lib_fail(error, LOCKSTEP_INVALID, "rank %u: the device is NULL", (unsigned)r);
        }
    }
    return LOCKSTEP_OK;
}

static void set_config(struct lockstep_world *world, const struct lockstep_world_config *config)
{
    const struct lockstep_world_config none = {0};
    struct world_config machine = {0};

    config = config != NULL ? config : &none;
    world->in_flight_limit =
        config->in_flight_limit != 0 ? config->in_flight_limit : (uint32_t)IN_FLIGHT_LIMIT;
    world->leave_ms = config->leave_ms != 0 ? config->leave_ms : (uint32_t)LEAVE_MS;
    machine.restart_budget =
        config->restart_budget != 0 ? config->restart_budget : (uint32_t)RESTART_BUDGET;
    machine.probe_ms = config->probe_ms == 0            ? (uint32_t)PROBE_MS
                       : config->probe_ms == UINT32_MAX ? 0
                                                        : config->probe_ms;
    machine.spawn_ms = config->build_ms;
    machine.hello_ms = config->build_ms;
    machine.comm_init_ms = config->build_ms;
    machine.sanity_ms = config->build_ms;
    machine.load_ms = config->build_ms;
    machine.stop_ms = world->leave_ms;
    machine.reap_ms = world->leave_ms;
    world_machine_init(&world->machine, &machine);
}

static void release(struct lockstep_world *world, uint32_t n_attached)
{
    for (uint32_t r = 0; r < n_attached; r++) {
        device_detach(world->ranks[r].device);
        device_unref(&world->ranks[r].device);
    }
    region_unref(&world->region);
    world_machine_release(&world->machine);
    pthread_cond_destroy(&world->noted);
    pthread_cond_destroy(&world->changed);
    pthread_mutex_destroy(&world->lock);
    pthread_mutex_destroy(&world->changing);
    free(world->notes);
    free(world);
}

static enum lockstep_status attach(struct lockstep_world *world,
                                   struct lockstep_device *const *devices, uint32_t *ret_n,
                                   struct lockstep_error *error)
{
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        const struct device_listener listener = {
            .changed = device_changed, .arg = world, .rank = r};

        world->ranks[r].world = world;
        world->ranks[r].device = devices[r];
        world->ranks[r].build_works[0] = &world->ranks[r].build_work;
        if (!device_attach(devices[r], world, &listener)) {
            return lib_fail(error, LOCKSTEP_INVALID, "rank %u: device %s is in a world already",
                            (unsigned)r, devices[r]->name);
        }
        device_ref(devices[r]);
        *ret_n = r + 1;
    }
    return LOCKSTEP_OK;
}

enum lockstep_status lockstep_world_create(struct lockstep_device *const *devices, uint32_t n_ranks,
                                           const struct lockstep_world_config *config,
                                           struct lockstep_world **ret_world,
                                           struct lockstep_error *error)
{
    enum lockstep_status status = check_config(devices, n_ranks, config, error);
    struct lockstep_world *world;
    uint32_t n_attached = 0;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (ret_world == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_world_create: ret_world is NULL");
    }
    world = xalloc(sizeof(*world));
    world->n_ranks = n_ranks;
    set_config(world, config);
    pthread_mutex_init(&world->changing, NULL);
    pthread_mutex_init(&world->lock, NULL);
    threads_cond_init(&world->noted);
    threads_cond_init(&world->changed);
    status = attach(world, devices, &n_attached, error);
    if (status == LOCKSTEP_OK) {
        int code = threads_start(&world->thread, lib_world_run, world);

        if (code != 0) {
            status = lib_fail(error, LOCKSTEP_IO, "no thread for a world: %s", strerror(code));
        }
    }
    if (status != LOCKSTEP_OK) {
        release(world, n_attached);
        return status;
    }
    *ret_world = world;
    return LOCKSTEP_OK;
}

void lockstep_world_destroy(struct lockstep_world **world)
{
    struct lockstep_world *w = world == NULL ? NULL : *world;

    if (w == NULL) {
        return;
    }
    *world = NULL;
    pthread_mutex_lock(&w->lock);
    lib_world_note(w, &(struct world_note){.kind = NOTE_CLOSE});
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_lock(&w->lock);
    while (w->n_in_flight > 0) { /* the last one's callback */
        threads_cond_wait(&w->changed, &w->lock, UINT64_MAX);
    }
    pthread_mutex_unlock(&w->lock);
    release(w, w->n_ranks);
}

void lockstep_world_info(struct lockstep_world *world, struct lockstep_world_info *ret_info)
{
    pthread_mutex_lock(&world->lock);
    *ret_info = (struct lockstep_world_info){
        .state = world->state,
        .epoch = world->epoch,
        .n_ranks = world->n_ranks,
        .n_in_flight = world->n_in_flight,
        .n_rebuilds = world->n_rebuilds,
    };
    lib_text(ret_info->reason, sizeof(ret_info->reason), "%s", world->reason);
    pthread_mutex_unlock(&world->lock);
}

enum lockstep_status lockstep_world_wait(struct lockstep_world *world, uint64_t epoch,
                                         uint32_t timeout_ms, struct lockstep_error *error)
{
    uint64_t deadline = lib_deadline(timeout_ms);
    enum lockstep_status status = timeout_ms > 0 ? lib_may_wait(__func__, error) : LOCKSTEP_OK;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    pthread_mutex_lock(&world->lock);
    for (status = LOCKSTEP_PENDING; status == LOCKSTEP_PENDING;) {
        if (world->state == LOCKSTEP_WORLD_READY && !world->broken && world->epoch >= epoch) {
            status = LOCKSTEP_OK;
        } else if (world->state == LOCKSTEP_WORLD_FAILED) {
            status = lib_fail(error, LOCKSTEP_GIVEN_UP, "the world failed: %s", world->reason);
        } else if (!threads_cond_wait(&world->changed, &world->lock, deadline)) {
            status = lib_fail(
                error, LOCKSTEP_TIMEOUT, "the world was not ready within %u ms: it is %s%s%s",
                (unsigned)timeout_ms, world_state_text((enum world_state)world->state),
                world->reason[0] != '\0' ? ": " : "", world->reason);
        }
    }
    pthread_mutex_unlock(&world->lock);
    return status;
}

void lockstep_world_abort(struct lockstep_world *world)
{
    pthread_mutex_lock(&world->lock);
    if (world->state == LOCKSTEP_WORLD_READY) {
        lib_world_break(world, 0, LOCKSTEP_CANCELLED, false, NULL, "the world was aborted");
    }
    pthread_mutex_unlock(&world->lock);
}
