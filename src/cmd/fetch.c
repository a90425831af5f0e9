/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/fetch.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

static const uint64_t BAR_NS = 100 * 1000 * 1000ull;       /* between redraws */
static const uint64_t LINE_NS = 5 * 1000 * 1000 * 1000ull; /* between log lines */
static const uint64_t SAMPLE_NS = 1000 * 1000 * 1000ull;
enum { BAR_WIDTH = 20, NAME_WIDTH = 32, N_SAMPLES = 8, MAX_COLUMNS = 512 };

struct view {
    bool quiet;
    bool terminal;
    bool drawn; /* a bar stands on the terminal */
    uint64_t shown_ns;
    sigset_t watched; /* signals that end it */
    struct {
        uint64_t ns;
        uint64_t fetched;
    } samples[N_SAMPLES]; /* of the last seconds, the newest first, for the rate */
    uint32_t n_samples;
    uint64_t file_start; /* value of fetched when the file began */
    const char *file;
};

static void clear_bar(struct view *view)
{
    if (view->drawn) {
        fputs("\r\033[K", stderr);
        view->drawn = false;
    }
}

/* Bytes a second over the last seconds. */
static double rate_of(struct view *view, uint64_t now, uint64_t fetched)
{
    uint32_t last;

    if (view->n_samples == 0 || now - view->samples[0].ns >= SAMPLE_NS) {
        memmove(view->samples + 1, view->samples, sizeof(view->samples) - sizeof(*view->samples));
        view->samples[0].ns = now;
        view->samples[0].fetched = fetched;
        view->n_samples = MIN(view->n_samples + 1, N_SAMPLES);
    }
    last = view->n_samples - 1;
    return now == view->samples[last].ns ? 0
                                         : (double)(fetched - view->samples[last].fetched) * 1e9 /
                                               (double)(now - view->samples[last].ns);
}

static void put_size(struct buf *buf, uint64_t bytes)
{
    double value = (double)bytes;

    if (bytes >= UINT64_C(1) << 30) {
        buf_printf(buf, "%.2f GiB", value / (1 << 30));
    } else if (bytes >= UINT64_C(1) << 20) {
        buf_printf(buf, "%.1f MiB", value / (1 << 20));
    } else if (bytes >= 1 << 10) {
        buf_printf(buf, "%.1f KiB", value / (1 << 10));
    } else {
        buf_printf(buf, "%u B", (unsigned)bytes);
    }
}

static double percent(uint64_t done, uint64_t bytes)
{
    return bytes > 0 ? 100 * (double)done / (double)bytes : 100;
}

/* "3.1 GiB of 7.5 GiB, 85.0 MiB/s, 52 s left" */
static void put_total(struct buf *buf, const struct hub_progress *progress, double rate)
{
    put_size(buf, progress->done);
    buf_append_str(buf, " of ");
    put_size(buf, progress->bytes);
    if (rate > 0) {
        buf_append_str(buf, ", ");
        put_size(buf, (uint64_t)rate);
        buf_printf(buf, "/s, %.0f s left", (double)(progress->bytes - progress->done) / rate);
    }
}

/* The end of a long name says more than its beginning. */
static void put_name(struct buf *buf, const char *name)
{
    size_t n = strlen(name);

    if (n > NAME_WIDTH) {
        name += n - (NAME_WIDTH - 3);
        while (((unsigned char)*name & 0xc0) == 0x80) { /* in the middle of a character */
            name++;
        }
        buf_append_str(buf, "...");
    }
    buf_append_str(buf, name);
}

static void draw(struct view *view, const struct hub_progress *progress, double rate)
{
    static const char full[] = "####################";
    struct winsize window = {0};
    struct buf line = {0};
    int n = (int)(percent(progress->done, progress->bytes) * BAR_WIDTH / 100);
    size_t columns = MAX_COLUMNS;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1) {
        columns = window.ws_col - 1u;
    }
    put_name(&line, progress->file);
    buf_printf(&line, " %3.0f %%  total [%.*s%*s] %3.0f %%  ",
               percent(progress->file_done, progress->file_bytes), n, full, BAR_WIDTH - n, "",
               percent(progress->done, progress->bytes));
    put_total(&line, progress, rate);
    fprintf(stderr, "\r\033[K%.*s", (int)MIN(line.len, columns), buf_str(&line));
    fflush(stderr);
    view->drawn = true;
    buf_release(&line);
}

static void log_line(const struct hub_progress *progress, double rate)
{
    struct buf line = {0};

    put_total(&line, progress, rate);
    log_info("%s: %.0f %%; total %.0f %%, %s", progress->file,
             percent(progress->file_done, progress->file_bytes),
             percent(progress->done, progress->bytes), buf_str(&line));
    buf_release(&line);
}

/* The line that stays of a file that has come. */
static void show_done(struct view *view, const struct hub_progress *progress)
{
    struct buf size = {0};

    put_size(&size, progress->file_bytes);
    clear_bar(view);
    log_info("%s: %s", progress->file, buf_str(&size));
    buf_release(&size);
}

static bool on_progress(void *arg, const struct hub_progress *progress)
{
    struct view *view = arg;
    uint64_t now = clock_ns();
    sigset_t pending;
    double rate;

    sigemptyset(&pending);
    sigpending(&pending);
    sigandset(&pending, &pending, &view->watched);
    if (!sigisemptyset(&pending)) {
        return false;
    }
    if (view->quiet || progress->file == NULL) {
        return true;
    }
    if (view->file != progress->file) {
        view->file = progress->file;
        view->file_start = progress->fetched;
    }
    rate = rate_of(view, now, progress->fetched);
    if (progress->file_done == progress->file_bytes) {
        if (progress->fetched > view->file_start) {
            show_done(view, progress);
            view->file_start = progress->fetched; /* once */
        }
    } else if (now - view->shown_ns >= (view->terminal ? BAR_NS : LINE_NS)) {
        view->shown_ns = now;
        if (view->terminal) {
            draw(view, progress, rate);
        } else {
            log_line(progress, rate);
        }
    }
    return true;
}

static void on_note(void *arg, const char *text)
{
    clear_bar(arg);
    log_info("%s", text);
}

/* SIGINT and SIGTERM, as far as they are not ignored (a command in the background). */
static void find_watched(sigset_t *ret_set)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    struct sigaction action;

    sigemptyset(ret_set);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            sigaddset(ret_set, numbers[i]);
        }
    }
}

typedef enum status (*hub_fn)(const struct hub_options *, char **, struct err *);

static enum status watched(hub_fn call, const struct hub_options *options, bool quiet,
                           char **ret_path, struct err *err)
{
    struct view view = {
        .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1, .shown_ns = clock_ns()};
    struct hub_options own = *options;
    enum status status;
    sigset_t before;

    own.watch = (struct hub_watch){.arg = &view, .progress = on_progress, .note = on_note};
    find_watched(&view.watched);
    pthread_sigmask(SIG_BLOCK, &view.watched, &before);
    status = call(&own, ret_path, err);
    clear_bar(&view);
    if (status == STATUS_CANCELLED) {
        log_warn("%s: stopped; the next pull goes on from here", options->name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

enum status fetch_pull(const struct hub_options *options, bool quiet, char **ret_path,
                       struct err *err)
{
    return watched(hub_pull, options, quiet, ret_path, err);
}

enum status fetch_open(const struct hub_options *options, bool quiet, char **ret_path,
                       struct err *err)
{
    return watched(hub_open, options, quiet, ret_path, err);
}

enum status fetch_model(struct options *options, char **ret_path, struct err *err)
{
    const struct hub_options hub = {.name = options->path};
    char *path = NULL;
    enum status status;

    if (options->path == NULL) {
        return STATUS_OK;
    }
    status = fetch_open(&hub, options->quiet, &path, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (strcmp(path, options->path) != 0 && options->served_model_name.n == 0) {
        options->served_model_name = (struct option_list){.items = {options->path}, .n = 1};
    }
    if (strcmp(path, options->path) != 0) {
        options->path = path;
        *ret_path = path;
    } else {
        free(path);
    }
    return STATUS_OK;
}
