/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/progress.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static const uint64_t BAR_NS = 100 * 1000 * 1000ull;       /* between redraws */
static const uint64_t LINE_NS = 5 * 1000 * 1000 * 1000ull; /* between log lines */
enum { BAR_WIDTH = 30 };

void progress_start(struct progress *progress, const char *what, bool quiet)
{
    *progress = (struct progress){.what = what,
                                  .quiet = quiet,
                                  .terminal = isatty(STDERR_FILENO) == 1,
                                  .start_ns = clock_ns()};
    progress->shown_ns = progress->start_ns;
}

void progress_update(void *arg, uint64_t bytes_done, uint64_t bytes_total)
{
    struct progress *progress = arg;
    uint64_t now = clock_ns();
    double seconds = (double)(now - progress->start_ns) * 1e-9;
    double rate = seconds > 0 ? (double)bytes_done / seconds : 0;
    double left = rate > 0 ? (double)(bytes_total - bytes_done) / rate : 0;
    double share = bytes_total > 0 ? (double)bytes_done / (double)bytes_total : 1;

    if (progress->quiet || now - progress->shown_ns < (progress->terminal ? BAR_NS : LINE_NS)) {
        return;
    }
    progress->shown_ns = now;
    if (progress->terminal) {
        static const char full[] = "##############################";
        int n = (int)(share * BAR_WIDTH);

        progress->drawn = true;
        fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f %%  %.0f of %.0f MiB  %.0f MiB/s  %.0f s left",
                progress->what, n, full, BAR_WIDTH - n, "", share * 100,
                (double)bytes_done / (1 << 20), (double)bytes_total / (1 << 20), rate / (1 << 20),
                left);
        fflush(stderr);
    } else {
        log_info("%s: %.0f %%, %.0f of %.0f MiB, %.0f MiB/s, %.0f s left", progress->what,
                 share * 100, (double)bytes_done / (1 << 20), (double)bytes_total / (1 << 20),
                 rate / (1 << 20), left);
    }
}

void progress_end(struct progress *progress)
{
    if (progress->drawn) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
        progress->drawn = false;
    }
}
