/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/fault.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

/* Where the rank says it is. */
struct place {
    enum { AT_PHASE, AT_STEP, AT_LAYER, AT_COLLECTIVE, AT_DROP, AT_CORRUPT, AT_DEVICE } what;
    uint32_t layer;
};

void faults_init(struct faults *faults, struct status_writer *status)
{
    *faults = (struct faults){.status = status};
}

bool faults_arm(struct faults *faults, uint32_t id, const struct fault_spec *spec)
{
    if (faults->n == FAULTS_MAX) {
        return false;
    }
    faults->armed[faults->n++] = (struct faults_armed){.id = id, .spec = *spec};
    return true;
}

/* Whether a fault of that kind can be carried out at such a place at all. */
static bool kind_fits(enum fault_kind kind, const struct place *place)
{
    switch (kind) {
    case FAULT_HANG:
    case FAULT_SLOW:
        return place->what == AT_COLLECTIVE;
    case FAULT_DROP:
        return place->what == AT_DROP;
    case FAULT_CORRUPT:
        return place->what == AT_CORRUPT;
    case FAULT_DEVICE:
        return place->what == AT_DEVICE;
    default:
        return place->what <= AT_COLLECTIVE;
    }
}

static bool fits(const struct faults *faults, const struct fault_spec *spec,
                 const struct place *place)
{
    bool in_layer = place->what == AT_LAYER || place->what == AT_COLLECTIVE;

    return kind_fits(spec->kind, place) && (!spec->has_phase || spec->phase == faults->phase) &&
           (!spec->has_step || faults->step >= spec->step) &&
           (!spec->has_layer || (in_layer && place->layer == spec->layer));
}

static void sleep_ms(uint32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&left, &left) != 0) {
    }
}

static NORETURN void die(void)
{
    for (;;) {
        kill(getpid(), SIGKILL);
    }
}

static NORETURN void hang(void)
{
    for (;;) {
        sleep_ms(1000);
    }
}

static void carry_out(struct faults *faults, const struct faults_armed *armed)
{
    struct buf text = {0};

    status_page_event(faults->status, STATUS_EVENT_FAULT, armed->id, faults->step);
    fault_format(&armed->spec, &text);
    log_warn("injected fault %u in step %llu: %s", armed->id, (unsigned long long)faults->step,
             buf_str(&text));
    buf_release(&text);
    switch (armed->spec.kind) {
    case FAULT_KILL:
        die();
    case FAULT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case FAULT_HANG:
        hang();
    case FAULT_SLOW:
        faults->slow_ms = armed->spec.ms;
        break;
    case FAULT_OOM:
        mem_fail_next(FAULTS_OOM_BYTES);
        faults->oom = true;
        break;
    case FAULT_DROP: /* the caller's part */
    case FAULT_CORRUPT:
    case FAULT_DEVICE:
    case FAULT_KINDS:
        break;
    }
}

/* Carries out the first fault that fits, which is then armed no more; false if none does. */
static bool take(struct faults *faults, const struct place *place)
{
    for (uint32_t i = 0; i < faults->n; i++) {
        struct faults_armed armed = faults->armed[i];

        if (fits(faults, &armed.spec, place)) {
            faults->n--;
            memmove(&faults->armed[i], &faults->armed[i + 1],
                    (faults->n - i) * sizeof(faults->armed[0]));
            carry_out(faults, &armed);
            return true;
        }
    }
    return false;
}

static void take_all(struct faults *faults, const struct place *place)
{
    while (take(faults, place)) {
    }
}

void faults_at_phase(struct faults *faults, enum status_phase phase)
{
    faults->phase = phase;
    take_all(faults, &(struct place){.what = AT_PHASE});
}

void faults_at_step(struct faults *faults, uint64_t step)
{
    faults->step = step;
    take_all(faults, &(struct place){.what = AT_STEP});
}

void faults_at_layer(struct faults *faults, uint64_t step, uint32_t layer)
{
    faults->step = step;
    take_all(faults, &(struct place){.what = AT_LAYER, .layer = layer});
}

void faults_at_collective(struct faults *faults, uint64_t step, uint32_t layer)
{
    if (faults->n > 0) {
        faults->step = step;
        take_all(faults, &(struct place){.what = AT_COLLECTIVE, .layer = layer});
    }
    if (faults->slow_ms > 0) {
        sleep_ms(faults->slow_ms);
    }
}

bool faults_take_drop(struct faults *faults)
{
    return take(faults, &(struct place){.what = AT_DROP});
}

bool faults_take_corrupt(struct faults *faults)
{
    return take(faults, &(struct place){.what = AT_CORRUPT});
}

bool faults_take_device(struct faults *faults)
{
    return take(faults, &(struct place){.what = AT_DEVICE});
}

void faults_alloc(struct faults *faults)
{
    if (faults->oom) {
        log_error("out of memory, as injected%s",
                  mem_fail_pending() ? " (although nothing large was asked for)" : "");
        die();
    }
}
