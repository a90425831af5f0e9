/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/service.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/cores.h"
#include "cmd/tuning.h"
#include "cpu/cpu.h"
#include "engine/rank.h"
#include "model/shapes.h"
#include "world/guard.h"

enum {
    STARTING_HANGS = 5, /* limits of answers while the world comes up, in --hang-ms */
    LOADING_HANGS = 10, /* without a sign of progress */
    STOP_MS = 2000,
    CLOSE_MS = 10 * 1000,
    JOURNAL_BYTES = 256 << 20,
};

/* --- What is loaded --- */

/* Reads all that describes the model, so that a bad file is named before a rank is started. */
static enum status read_model(struct service *service, struct err *err)
{
    const char *path = service->options->path;
    struct weights *weights = NULL;
    enum status status;

    if (path == NULL) {
        return shape_find(service->options->shape, &service->config)
                   ? STATUS_OK
                   : err_set(err, STATUS_INVALID, "no shape is called %s", service->options->shape);
    }
    status = weights_open(path, &weights, err);
    if (status != STATUS_OK) {
        return status; /* the error names the path */
    }
    status = model_config_load(weights, &service->config, err);
    if (status == STATUS_OK) {
        status = model_tensors_check(&service->config, weights, err);
    }
    if (status == STATUS_OK) {
        status = generation_defaults_load(weights, &service->generation, err);
    }
    if (status != STATUS_OK && strncmp(err->text, path, strlen(path)) != 0) {
        err_prefix(err, "%s", path);
    }
    weights_close(&weights);
    return status;
}

static json_t *load_body(const struct service *service, const struct service_want *want,
                         uint32_t threads)
{
    const struct options *o = service->options;
    struct ops_tune tune = tuning_find(o, service->n_ranks);
    uint32_t max_wants = want->logits ? service->max_chunk : want->n_slots + want->score_rows;
    json_t *options =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "threads", (json_int_t)threads, "max_context",
                  (json_int_t)service->max_context, "max_chunk", (json_int_t)service->max_chunk,
                  "n_slots", (json_int_t)want->n_slots, "n_pages", (json_int_t)service->n_pages,
                  "max_wants", (json_int_t)max_wants);

    if (o->given.act) {
        json_object_set_new(options, "act", json_string(o->act));
    }
    if (strcmp(o->kv, "auto") != 0) {
        json_object_set_new(options, "kv", json_string(o->kv));
    }
    if (o->given.quant) {
        json_object_set_new(options, "quant", json_string(o->quant));
    }
    json_object_set_new(options, "bf16", json_string(o->bf16));
    json_object_set_new(options, "tune", tune_to_json(&tune));
    if (o->given.cpu_mask) {
        json_object_set_new(options, "level", json_string(o->cpu_mask));
    }
    if (o->path == NULL) {
        json_object_set_new(options, "shape", json_string(o->shape));
    }
    return json_pack("{s:s, s:o}", "model", o->path == NULL ? "" : o->path, "options", options);
}

/* --- The world --- */

static struct world_config world_config_of(const struct options *o)
{
    struct world_config config;
    uint32_t hang_ms = (uint32_t)o->hang_ms;

    world_config_init(&config);
    config.restart_budget = (uint32_t)o->restart_budget;
    config.spawn_ms = STARTING_HANGS * hang_ms;
    config.hello_ms = STARTING_HANGS * hang_ms;
    config.comm_init_ms = STARTING_HANGS * hang_ms;
    config.sanity_ms = STARTING_HANGS * hang_ms;
    config.load_ms = LOADING_HANGS * hang_ms;
    config.stop_ms = MIN(STOP_MS, hang_ms);
    config.keeps_kv = !o->reprefill;
    return config;
}

/* The faults of --fault. */
static enum status read_faults(const struct options *o, uint32_t n_ranks, struct fault_spec *specs,
                               struct err *err)
{
    for (uint32_t i = 0; i < o->fault.n; i++) {
        enum status status = fault_parse(o->fault.items[i], &specs[i], err);

        if (status == STATUS_OK && specs[i].rank >= n_ranks) {
            status = err_set(err, STATUS_INVALID, "there is no rank %u in a world of %u",
                             specs[i].rank, n_ranks);
        }
        if (status != STATUS_OK) {
            return err_prefix(err, "--fault %s", o->fault.items[i]);
        }
    }
    return STATUS_OK;
}

/* Splits --devices at its commas into one name a rank. */
static enum status read_devices(const struct options *o, uint32_t n_ranks, char *text, size_t size,
                                const char **devices, struct err *err)
{
    uint32_t n = 0;

    snprintf(text, size, "%s", o->devices);
    for (char *at = text; at != NULL && n <= n_ranks;) {
        char *comma = strchr(at, ',');

        if (comma != NULL) {
            *comma = '\0';
        }
        if (strcmp(at, "cpu") != 0) {
            return err_set(err, STATUS_INVALID, "--devices: %s is no device here (there is: cpu)",
                           at[0] == '\0' ? "an empty name" : at);
        }
        if (n < n_ranks) {
            devices[n] = at;
        }
        n++;
        at = comma == NULL ? NULL : comma + 1;
    }
    return n == n_ranks ? STATUS_OK
                        : err_set(err, STATUS_INVALID,
                                  "--devices: %s%u named, but there are %u ranks, one each",
                                  n > n_ranks ? "more than " : "", MIN(n, n_ranks), n_ranks);
}

enum status service_columns(const struct service *service, uint32_t rank, uint32_t *ret_begin,
                            uint32_t *ret_end, struct err *err)
{
    const struct shard_world world = {.n_ranks = service->supervisor == NULL
                                                     ? service->n_ranks
                                                     : supervisor_ranks(service->supervisor)};
    const struct shard_shape shape = {service->config.n_heads, service->config.n_kv_heads,
                                      service->config.vocab};
    struct shard_slice slice;
    enum status status = shard_slice_of(&world, rank, &shape, &slice, err);

    if (status == STATUS_OK) {
        *ret_begin = slice.vocab_begin;
        *ret_end = slice.vocab_end;
    }
    return status;
}

static void make_batch(struct service *service, const struct service_want *want,
                       struct supervisor_config *config)
{
    service->batch = batch_create(&(struct batch_config){
        .n_slots = want->n_slots,
        .max_queue = MAX(want->max_queue, want->n_slots),
        .max_top = want->max_top,
        .max_score_rows = want->score_rows,
        .max_rows = service->max_chunk,
        .n_pages = service->n_pages,
        .page_tokens = OPS_PAGE_TOKENS,
        .max_context = service->max_context,
        .vocab = service->config.vocab,
        .hash_state = CMD_HASH_STATE,
        .journal_bytes = JOURNAL_BYTES,
    });
    batch_handle(service->batch, &config->on);
}

/* Where packed weights are kept, owned by the caller; NULL if they are not to be, or there is no
 * place for them. */
static char *pack_cache_folder(const struct options *o)
{
    char *folder = o->pack_cache ? file_cache_path("packed") : NULL;

    if (o->pack_cache && folder == NULL) {
        log_warn("--pack-cache: neither XDG_CACHE_HOME nor HOME says where");
    }
    return folder;
}

static enum status make_world(struct service *service, const struct service_want *want,
                              struct err *err)
{
    const struct options *o = service->options;
    bool smoke = o->command == COMMAND_SMOKE;
    struct fault_spec faults[OPTION_LIST_MAX];
    const char *devices[SUPERVISOR_MAX_RANKS];
    char device_text[512];
    struct cores_plan plan = {0};
    char *packed = NULL;
    struct supervisor_config config = {
        .n_ranks = service->n_ranks,
        .world = world_config_of(o),
        .hang_ms = (uint32_t)o->hang_ms,
        .build = CMD_BUILD,
        .layout = RANK_LAYOUT_VERSION,
        .max_rows = MAX(service->max_chunk, 1u),
        .n_slots = MAX(want->n_slots, 1u),
        .n_layers = service->config.n_layers,
        .vocab = service->config.vocab,
        .faults = faults,
        .n_faults = o->fault.n,
        .on = want->on,
    };
    json_t *load = NULL;
    enum status status = read_faults(o, service->n_ranks, faults, err);

    if (status == STATUS_OK && o->given.devices) {
        status = read_devices(o, service->n_ranks, device_text, sizeof(device_text), devices, err);
        config.devices = devices;
    }
    if (status == STATUS_OK) {
        status = cores_plan(service->n_ranks, (uint32_t)(smoke ? 1 : o->threads), &plan, err);
    }
    if (status != STATUS_OK) {
        cores_plan_release(&plan);
        return status;
    }
    config.cores = plan.cores;
    if (want->logits) { /* room for all columns: there may be fewer ranks one day; only what is
                           written costs memory */
        config.logits_bytes = (size_t)service->max_chunk * service->config.vocab * sizeof(float);
    }
    if (!smoke) {
        load = load_body(service, want, plan.n_threads);
        config.load = load;
        config.pack_cache = packed = pack_cache_folder(o);
    }
    if (!smoke && !want->logits) {
        make_batch(service, want, &config);
    }
    if (config.on.progress == NULL) {
        config.on.progress = progress_update;
        config.on.progress_arg = &service->progress;
    }
    status = supervisor_create(&config, &service->supervisor, err);
    free(packed);
    if (status == STATUS_OK && service->batch != NULL) {
        batch_attach(service->batch, service->supervisor);
    }
    json_decref(load);
    cores_plan_release(&plan);
    return status;
}

/* --- Life --- */

/* The ranks up, or the reason why not. */
static enum status wait_until_ready(struct service *service, struct err *err)
{
    for (;;) {
        enum world_state state = supervisor_state(service->supervisor);
        enum status status;

        if (state == WORLD_READY) {
            return STATUS_OK;
        }
        if (state == WORLD_DOWN || state == WORLD_FAILED) {
            return err_set(err,
                           supervisor_refused(service->supervisor) ? STATUS_INVALID : STATUS_LINK,
                           "%s", supervisor_why(service->supervisor));
        }
        status = service_turn(service, UINT64_MAX, err);
        if (status != STATUS_OK && status != STATUS_LINK) {
            return status;
        }
    }
}

static enum status check_options(const struct options *o, struct err *err)
{
    enum cpu_level level;

    if (o->command == COMMAND_SMOKE || !o->given.cpu_mask) {
        return STATUS_OK;
    }
    return cpu_level_parse(o->cpu_mask, &level, err);
}

/* As many KV pages as the memory for them holds, at least one context, at most all that could be
 * used. Without --kv a page counts as one of f32, so that the number does not depend on --act. */
static uint32_t count_pages(const struct service *service, const struct service_want *want)
{
    const struct model_config *c = &service->config;
    uint64_t context = div_up(service->max_context, OPS_PAGE_TOKENS);
    struct ops_kv kv = {
        .n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim};
    uint64_t page_bytes;
    uint64_t n;

    if (!kv_type_from_name(service->options->kv, &kv.type)) {
        kv.type = KV_F32;
    }
    page_bytes = c->head_dim > 0 ? cpu_ops.kv_page_bytes(&kv) : 0; /* smoke has no model */
    n = page_bytes > 0 ? want->kv_bytes / page_bytes : 0;
    return (uint32_t)MIN(MAX(n, context), context * MAX(want->n_slots, 1u));
}

static enum status choose_sizes(struct service *service, const struct service_want *want,
                                struct err *err)
{
    const struct options *o = service->options;
    uint32_t limit = service->config.max_context;
    enum status status = STATUS_OK;

    service->n_ranks = (uint32_t)o->tp;
    if (!o->given.tp) {
        status = cores_default_ranks(&service->n_ranks, err);
    }
    service->max_context = want->max_context > 0 ? MIN(want->max_context, limit) : limit;
    service->max_chunk = MIN(MAX((uint32_t)o->chunk, want->n_slots), service->max_context);
    service->n_pages = count_pages(service, want);
    return status;
}

enum status service_check(struct service *service, const struct options *options, struct err *err)
{
    enum status status;

    service->options = options;
    service->signal_fd = -1;
    service->wake_fd = -1;
    status = check_options(options, err);
    if (status == STATUS_OK && options->command != COMMAND_SMOKE) {
        status = read_model(service, err);
    }
    return status;
}

enum status service_make(struct service *service, const struct options *options,
                         const struct service_want *want, struct err *err)
{
    enum status status = service_check(service, options, err);

    if (status == STATUS_OK) {
        status = choose_sizes(service, want, err);
    }
    if (status == STATUS_OK && options->allow_faults) {
        status = control_open(NULL, &service->control, err);
    }
    if (status == STATUS_OK) {
        status = make_world(service, want, err);
    }
    return status;
}

enum status service_open(struct service *service, const struct options *options,
                         const struct service_want *want, struct err *err)
{
    uint64_t start = clock_ns();
    bool smoke = options->command == COMMAND_SMOKE;
    enum status status;

    world_signals_block();
    status = service_make(service, options, want, err);
    if (status == STATUS_OK) {
        status = world_signals_open(&service->signal_fd, err);
    }
    if (status == STATUS_OK) {
        service->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (service->wake_fd < 0) {
            status = err_set(err, STATUS_IO, "no event descriptor: %s", strerror(errno));
        }
    }
    if (status != STATUS_OK) {
        return status;
    }
    progress_start(&service->progress, options->path == NULL ? "making weights" : "loading",
                   options->quiet || smoke);
    supervisor_start(service->supervisor);
    status = wait_until_ready(service, err);
    progress_end(&service->progress);
    service->load_seconds = (double)(clock_ns() - start) * 1e-9;
    return status;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void service_close(struct service *service)
{
    if (service->supervisor != NULL) {
        uint64_t limit = clock_ns() + (uint64_t)CLOSE_MS * 1000000;

        supervisor_stop(service->supervisor);
        while (supervisor_state(service->supervisor) != WORLD_DOWN && clock_ns() < limit) {
            supervisor_turn(service->supervisor, limit, NULL, 0);
        }
    }
    supervisor_destroy(&service->supervisor);
    batch_destroy(&service->batch);
    control_close(&service->control);
    if (service->options != NULL) {
        close_fd(&service->signal_fd);
        close_fd(&service->wake_fd);
    }
}

/* --- Turns --- */

/* What a client of the control socket asks. */
static enum status on_control(void *arg, const json_t *request, json_t *answer, struct err *err)
{
    struct service *service = arg;
    const char *text = NULL;
    struct fault_spec spec;
    enum status status = json_opt_str(request, "fault", NULL, &text, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (text == NULL) {
        json_object_set_new(answer, "world", supervisor_describe(service->supervisor));
        return STATUS_OK;
    }
    status = fault_parse(text, &spec, err);
    if (status == STATUS_OK) {
        status = supervisor_inject(service->supervisor, &spec, err);
    }
    if (status == STATUS_OK) {
        json_object_set_new(answer, "fault", json_string(text));
    }
    return status;
}

uint32_t service_control_fds(const struct service *service, struct pollfd *fds)
{
    return service->control == NULL ? 0 : control_poll_fds(service->control, fds);
}

void service_control_run(struct service *service)
{
    control_run(service->control, on_control, service);
}

enum status service_turn(struct service *service, uint64_t deadline_ns, struct err *err)
{
    struct pollfd fds[2 + CONTROL_MAX_FDS];
    uint32_t n = 0;
    enum world_state state;

    fds[n++] = (struct pollfd){.fd = service->signal_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = service->wake_fd, .events = POLLIN};
    n += service_control_fds(service, fds + n);
    if (service->batch != NULL) {
        batch_turn(service->batch, deadline_ns, fds, n);
    } else {
        supervisor_turn(service->supervisor, deadline_ns, fds, n);
    }
    for (uint32_t i = 2; i < n; i++) {
        if (fds[i].revents != 0) {
            service_control_run(service);
            break;
        }
    }
    if ((fds[0].revents & POLLIN) != 0) {
        int number = world_signals_take(service->signal_fd);

        if (number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT) {
            service->caught_signal = number;
            return err_set(err, STATUS_CANCELLED, "stopped by signal %d", number);
        }
    }
    state = supervisor_state(service->supervisor);
    return state == WORLD_FAILED || state == WORLD_DOWN
               ? err_set(err, STATUS_LINK, "%s", supervisor_why(service->supervisor))
               : STATUS_OK;
}

void service_leave_signals(struct service *service)
{
    close_fd(&service->signal_fd);
}

static void *run_idle(void *arg)
{
    struct service *service = arg;
    struct pollfd wake = {.fd = service->wake_fd, .events = POLLIN};

    while (poll(&wake, 1, 0) == 0 && service_turn(service, UINT64_MAX, NULL) == STATUS_OK) {
    }
    return NULL; /* what ended it, the next turn says again */
}

void service_idle_begin(struct service *service)
{
    sigset_t all;
    sigset_t old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the command's own thread's */
    service->idling = pthread_create(&service->idle, NULL, run_idle, service) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL); /* without a thread the world waits, too */
}

void service_idle_end(struct service *service)
{
    eventfd_t value;

    if (!service->idling) {
        return;
    }
    ENSURE_OP(eventfd_write(service->wake_fd, 1), ==, 0);
    pthread_join(service->idle, NULL);
    ENSURE_OP(eventfd_read(service->wake_fd, &value), ==, 0);
    service->idling = false;
}

int service_exit(const struct service *service, enum status status, const struct err *err)
{
    if (status == STATUS_OK) {
        return CMD_OK;
    }
    if (service->caught_signal != 0) {
        return 128 + service->caught_signal;
    }
    cmd_fail(err);
    return status == STATUS_LINK || status == STATUS_DEVICE || status == STATUS_BUG ? CMD_WORLD
                                                                                    : CMD_FAILED;
}
