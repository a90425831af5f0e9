/* SPDX-License-Identifier: Apache-2.0 */
/* What people read of the machine: names, and one sentence for a fault. */
#include "world/state.h"

#include <string.h>

const char *world_state_text(enum world_state state)
{
    static const char *const texts[] = {
#define WORLD_STATE(name, text) text,
#include "world/state.def"
#undef WORLD_STATE
    };

    return texts[state];
}

const char *world_event_text(enum world_event_kind kind)
{
    static const char *const texts[] = {
#define WORLD_EVENT(name, text, of_epoch) text,
#include "world/state.def"
#undef WORLD_EVENT
    };

    return texts[kind];
}

const char *world_action_text(enum world_action_kind kind)
{
    static const char *const texts[] = {
#define WORLD_ACTION(name, text) text,
#include "world/state.def"
#undef WORLD_ACTION
    };

    return texts[kind];
}

static const char *error_text(int64_t error)
{
    switch (error) {
#define WORLD_ERROR(name, value, text) \
    case value:                        \
        return text;
#include "world/state.def"
#undef WORLD_ERROR
    default:
        return "unknown";
    }
}

/* What happened to the rank, after "rank N ". */
static int write_cause(const struct world_fault *fault, char *out, size_t size)
{
    const char *name;

    switch (fault->cause) {
    case WORLD_CAUSE_SPAWN:
        return snprintf(out, size, "could not be started: %s", strerror((int)fault->detail));
    case WORLD_CAUSE_MISMATCH:
        return snprintf(out, size, "is another build than the leader");
    case WORLD_CAUSE_EXIT:
        return snprintf(out, size, "exited with status %d", (int)fault->detail);
    case WORLD_CAUSE_SIGNAL:
        name = sigdescr_np((int)fault->detail);
        return snprintf(out, size, "died of signal %d (%s)", (int)fault->detail,
                        name == NULL ? "unknown" : name);
    case WORLD_CAUSE_OOM:
        return snprintf(out, size, "was killed because memory ran out");
    case WORLD_CAUSE_HUNG:
        return snprintf(out, size, "stopped making progress");
    case WORLD_CAUSE_LATE:
        return snprintf(out, size, "did not answer in time (%s)",
                        world_state_text((enum world_state)fault->detail));
    case WORLD_CAUSE_SANITY:
        return snprintf(out, size, "saw the sum %lld in the sanity all-reduce",
                        (long long)fault->detail);
    case WORLD_CAUSE_PLAN:
        return snprintf(out, size, "disagrees on the plan of a step");
    case WORLD_CAUSE_ERROR:
        return snprintf(out, size, "reported an error (%s)", error_text(fault->detail));
    case WORLD_CAUSE_DEVICE_GONE:
        return snprintf(out, size, "lost its device for good");
    case WORLD_CAUSE_NONE:
        break;
    }
    return snprintf(out, size, "is well");
}

const char *world_cause_word(enum world_cause cause)
{
    static const char *const words[] = {
        [WORLD_CAUSE_SPAWN] = "spawn",
        [WORLD_CAUSE_MISMATCH] = "build",
        [WORLD_CAUSE_EXIT] = "exit",
        [WORLD_CAUSE_SIGNAL] = "signal",
        [WORLD_CAUSE_OOM] = "oom",
        [WORLD_CAUSE_HUNG] = "hang",
        [WORLD_CAUSE_LATE] = "late",
        [WORLD_CAUSE_SANITY] = "sanity",
        [WORLD_CAUSE_PLAN] = "mismatch",
        [WORLD_CAUSE_ERROR] = "error",
        [WORLD_CAUSE_DEVICE_GONE] = "device",
    };

    return (size_t)cause < ARRAY_LEN(words) ? words[cause] : NULL;
}

char *world_fault_text(const struct world_fault *fault, char *out, size_t size)
{
    char cause[256];

    write_cause(fault, cause, sizeof(cause));
    snprintf(out, size, "rank %u %s%s", (unsigned)fault->rank, cause,
             fault->injected ? " (injected)" : "");
    return out;
}
