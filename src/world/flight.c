/* SPDX-License-Identifier: Apache-2.0 */
#include "world/flight.h"

#include <stdlib.h>

#include "base/mem.h"

void flight_release(struct flight *flight)
{
    for (size_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        free(flight->steps[i].parts);
    }
    suspects_release(&flight->suspects);
    *flight = (struct flight){0};
}

uint64_t flight_next(const struct flight *flight)
{
    return flight->committed + flight->n + 1;
}

static bool shares(const struct world_part *parts, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (parts[i].request != parts[0].request) {
            return true;
        }
    }
    return false;
}

static bool has_lone(const struct flight *flight, const struct world_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (suspects_is_alone(&flight->suspects, parts[i].request)) {
            return true;
        }
    }
    return false;
}

static void append(struct flight_step *step, const struct world_part *parts, size_t n)
{
    if (step->cap < step->n_parts + n) {
        step->cap = step->n_parts + n;
        step->parts = xrealloc(step->parts, step->cap, sizeof(*step->parts));
    }
    for (size_t i = 0; i < n; i++) {
        step->parts[step->n_parts++] = parts[i];
    }
}

bool flight_issue(struct flight *flight, uint64_t number, const struct world_part *parts, size_t n)
{
    struct flight_step *step;

    if (flight->n == FLIGHT_MAX_STEPS || number != flight_next(flight)) {
        return false;
    }
    /* Whoever shares the step or the pipeline with a suspect would be blamed for what it does. */
    if (has_lone(flight, parts, n) && (flight->n > 0 || shares(parts, n))) {
        return false;
    }
    if (flight->n > 0 && has_lone(flight, flight->steps[0].parts, flight->steps[0].n_parts)) {
        return false;
    }
    step = &flight->steps[flight->n++];
    step->number = number;
    step->n_parts = 0;
    append(step, parts, n);
    return true;
}

static bool is_progress(const struct flight_step *step)
{
    for (size_t i = 0; i < step->n_parts; i++) {
        if (!step->parts[i].again) {
            return true;
        }
    }
    return step->n_parts == 0;
}

bool flight_commit(struct flight *flight, uint64_t number, bool *ret_progress)
{
    struct flight_step done = flight->steps[0];

    if (flight->n == 0 || number != done.number) {
        return false;
    }
    suspects_commit(&flight->suspects, done.parts, done.n_parts);
    flight->committed = number;
    for (size_t i = 1; i < FLIGHT_MAX_STEPS; i++) { /* the buffers go round */
        flight->steps[i - 1] = flight->steps[i];
    }
    flight->steps[FLIGHT_MAX_STEPS - 1] = done;
    flight->n--;
    *ret_progress = is_progress(&done);
    return true;
}

size_t flight_blame(struct flight *flight, const uint64_t **ret_ids)
{
    struct flight_step *all = &flight->steps[0];

    *ret_ids = NULL;
    if (flight->n == 0) {
        return 0;
    }
    for (size_t i = 1; i < flight->n; i++) { /* one list: a request is blamed once */
        append(all, flight->steps[i].parts, flight->steps[i].n_parts);
    }
    flight->n = 1;
    return suspects_blame(&flight->suspects, all->parts, all->n_parts, ret_ids);
}

void flight_drop(struct flight *flight)
{
    flight->n = 0;
}
