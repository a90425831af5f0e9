/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fail.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/status.h"

_Static_assert((int)LOCKSTEP_INVALID == (int)STATUS_INVALID, "same numbers");
_Static_assert((int)LOCKSTEP_UNSUPPORTED == (int)STATUS_UNSUPPORTED, "same numbers");
_Static_assert((int)LOCKSTEP_NOT_FOUND == (int)STATUS_NOT_FOUND, "same numbers");
_Static_assert((int)LOCKSTEP_NO_MEMORY == (int)STATUS_NO_MEMORY, "same numbers");
_Static_assert((int)LOCKSTEP_IO == (int)STATUS_IO, "same numbers");
_Static_assert((int)LOCKSTEP_LIMIT == (int)STATUS_LIMIT, "same numbers");
_Static_assert((int)LOCKSTEP_TIMEOUT == (int)STATUS_TIMEOUT, "same numbers");
_Static_assert((int)LOCKSTEP_CANCELLED == (int)STATUS_CANCELLED, "same numbers");
_Static_assert((int)LOCKSTEP_DEVICE == (int)STATUS_DEVICE, "same numbers");
_Static_assert((int)LOCKSTEP_LINK == (int)STATUS_LINK, "same numbers");

/* Of this thread alone, and only while it is inside the user's code. */
static _Thread_local bool in_callback;

enum lockstep_status lib_fail(struct lockstep_error *error, enum lockstep_status status,
                              const char *format, ...)
{
    va_list args;

    if (error != NULL) {
        error->status = status;
        va_start(args, format);
        vsnprintf(error->text, sizeof(error->text), format, args);
        va_end(args);
    }
    return status;
}

enum lockstep_status lib_status(int status)
{
    switch (status) {
    case STATUS_OK:
    case STATUS_INVALID:
    case STATUS_UNSUPPORTED:
    case STATUS_NOT_FOUND:
    case STATUS_NO_MEMORY:
    case STATUS_IO:
    case STATUS_LIMIT:
    case STATUS_TIMEOUT:
    case STATUS_CANCELLED:
    case STATUS_DEVICE:
    case STATUS_LINK:
        return (enum lockstep_status)status;
    default:
        return LOCKSTEP_LINK;
    }
}

char *lib_text(char *out, size_t size, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(out, size, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n >= size) {
        size_t end = size - 1;

        while (end > 0 && ((unsigned char)out[end - 1] & 0xC0) == 0x80) {
            end--;
        }
        if (end > 0 && ((unsigned char)out[end - 1] & 0xC0) == 0xC0) {
            out[end - 1] = '\0';
        }
    }
    return out;
}

bool lib_in_callback(void)
{
    return in_callback;
}

bool lib_callback_enter(void)
{
    bool was = in_callback;

    in_callback = true;
    return was;
}

void lib_callback_leave(bool was)
{
    in_callback = was;
}

enum lockstep_status lib_may_wait(const char *what, struct lockstep_error *error)
{
    if (in_callback) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "%s in a callback or a function of a device would wait for itself", what);
    }
    return LOCKSTEP_OK;
}

uint64_t lib_deadline(uint32_t timeout_ms)
{
    return clock_ns() + (uint64_t)timeout_ms * 1000000;
}

uint32_t lib_ms_left(uint64_t deadline_ns)
{
    uint64_t now = clock_ns();

    return deadline_ns > now ? (uint32_t)((deadline_ns - now + 999999) / 1000000) : 0;
}

const char *lockstep_version(void)
{
    return LOCKSTEP_VERSION;
}

const char *lockstep_status_text(enum lockstep_status status)
{
    switch (status) {
    case LOCKSTEP_OK:
        return "ok";
    case LOCKSTEP_PENDING:
        return "in progress";
    case LOCKSTEP_INVALID:
        return "invalid argument";
    case LOCKSTEP_UNSUPPORTED:
        return "unsupported";
    case LOCKSTEP_NOT_FOUND:
        return "not found";
    case LOCKSTEP_NO_MEMORY:
        return "out of memory";
    case LOCKSTEP_IO:
        return "input/output error";
    case LOCKSTEP_LIMIT:
        return "limit exceeded";
    case LOCKSTEP_TIMEOUT:
        return "deadline passed";
    case LOCKSTEP_CANCELLED:
        return "cancelled";
    case LOCKSTEP_DEVICE:
        return "device lost";
    case LOCKSTEP_LINK:
        return "link fault";
    case LOCKSTEP_CALL_FAILED:
        return "the function failed";
    case LOCKSTEP_STALE:
        return "stale handle";
    case LOCKSTEP_REBUILT:
        return "the world was rebuilt";
    case LOCKSTEP_NOT_READY:
        return "the world is not ready";
    case LOCKSTEP_GIVEN_UP:
        return "the world failed";
    }
    return "unknown status";
}

static const struct {
    const char *text;
    size_t bytes;
} types[] = {
    [LOCKSTEP_F32] = {"f32", 4},   [LOCKSTEP_F64] = {"f64", 8}, [LOCKSTEP_F16] = {"f16", 2},
    [LOCKSTEP_BF16] = {"bf16", 2}, [LOCKSTEP_I8] = {"i8", 1},   [LOCKSTEP_U8] = {"u8", 1},
    [LOCKSTEP_I32] = {"i32", 4},   [LOCKSTEP_U32] = {"u32", 4}, [LOCKSTEP_I64] = {"i64", 8},
    [LOCKSTEP_U64] = {"u64", 8},
};

const char *lockstep_type_text(enum lockstep_type type)
{
    return (unsigned)type < ARRAY_LEN(types) ? types[type].text : "unknown type";
}

size_t lockstep_type_bytes(enum lockstep_type type)
{
    return (unsigned)type < ARRAY_LEN(types) ? types[type].bytes : 0;
}
