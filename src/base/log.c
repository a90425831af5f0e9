/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/err.h"

static _Atomic int sink_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&sink_level, (int)level, memory_order_relaxed);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
    char text[ERR_TEXT_BYTES];
    char escaped[ERR_TEXT_BYTES];
    char line[ERR_TEXT_BYTES + 64];
    va_list args;
    int n;

    if ((int)level > atomic_load_explicit(&sink_level, memory_order_relaxed)) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    n = snprintf(line, sizeof(line), "lockstep: %s%s\n", names[level],
                 err_escape(text, escaped, sizeof(escaped)));
    if (n > 0 && write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1)) < 0) {
        return; /* nowhere left to say it */
    }
}
