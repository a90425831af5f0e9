/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep serve: models behind an HTTP API. This thread is the front: the HTTP server, the API,
 * the text of answers, signals. Each model has a host with a thread of its own, which drives its
 * ranks.
 *
 *   SIGTERM, SIGINT   no new requests; those that run end, at most --drain-timeout; exit
 *   the same again    exit at once
 *   SIGHUP            the file of keys is read again
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/notify.h"
#include "cmd/cmd.h"
#include "cmd/fetch.h"
#include "cmd/port_owner.h"
#include "cmd/serve_model.h"
#include "cmd/tuning.h"
#include "hub/hub.h"
#include "world/guard.h"

enum {
    N_WORKERS = 2,
    MAX_CONNECTIONS = 4096,
    MAX_HEADER_BYTES = 64 << 10,
    MAX_BODY_BYTES = 16 << 20,
    MAX_BODIES_BYTES = 256 << 20, /* of all requests there are */
    MAX_PENDING_BYTES = 8 << 20,
    WRITE_MS = 60 * 1000,
    MAX_KEY_FILE_BYTES = 1 << 20,
    LEAVE_MS = 15000, /* at most, for ranks and connections to go after the drain */
    FORCED_MS = 2000, /* for what is left, once a second signal has come */
};

struct serve {
    const struct options *options; /* own */
    struct options own;            /* as given, the model's path where it came to lie */
    struct options *sections;      /* [own.n_models] likewise */
    char *fetched[1 + SERVED_MAX]; /* paths that these point to; owned */
    uint32_t n_fetched;
    struct notify notify; /* the service manager */
    bool said_ready;      /* to it, once */
    uint64_t fed_ns;      /* its watchdog */
    struct mailbox box;   /* to this thread */
    struct registry registry;
    struct turns turns;
    struct workers *workers;
    struct api *api;
    struct http_server *server;
    struct serve_model *models[SERVED_MAX];
    uint32_t n_models;
    struct options
        *asked[SERVED_MAX]; /* of models that clients asked for; owned, with their paths */
    uint32_t n_asked;
    struct tuning_idle *tuning; /* once said_ready; NULL: nothing to measure */
    int signal_fd;
    uint32_t n_signals; /* that asked to leave */
    int first_signal;
    uint64_t drain_until_ns; /* 0: nobody asked */
    bool stopping;           /* hosts are being unloaded */
    bool incomplete;         /* the drain timeout was not enough */
    uint32_t n_up;           /* hosts that were not stopped yet */
    struct err err;          /* why it ends */
    bool over;
};

/* --- Keys --- */

/* Counts those beyond the most, too. */
static void add_key(const char **keys, uint32_t *n, const char *key)
{
    if (key[0] == '\0') {
        return;
    }
    if (*n < API_MAX_KEYS) {
        keys[*n] = key;
    }
    (*n)++;
}

/* The keys of the options and of the file, one a line, # begins a comment. */
static enum status read_keys(struct serve *s, struct err *err)
{
    const struct options *o = s->options;
    const char *keys[API_MAX_KEYS];
    uint32_t n = 0;
    struct buf text = {0};
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < o->api_key.n; i++) {
        add_key(keys, &n, o->api_key.items[i]);
    }
    if (o->api_key_file != NULL) {
        status = file_read_all(o->api_key_file, MAX_KEY_FILE_BYTES, &text, err);
    }
    for (char *line = text.data; line != NULL && status == STATUS_OK;) {
        char *end = strchr(line, '\n');

        if (end != NULL) {
            *end = '\0';
        }
        line += strspn(line, " \t");
        line[strcspn(line, " \t\r#")] = '\0';
        add_key(keys, &n, line);
        line = end == NULL ? NULL : end + 1;
    }
    if (status == STATUS_OK && n == 0 && (o->api_key.n > 0 || o->api_key_file != NULL)) {
        status = err_set(err, STATUS_INVALID, "%s holds no key",
                         o->api_key_file != NULL ? o->api_key_file : "--api-key");
    }
    if (status == STATUS_OK && n > API_MAX_KEYS) {
        status = err_set(err, STATUS_LIMIT, "there are %u API keys, at most %d", n, API_MAX_KEYS);
    }
    if (status == STATUS_OK) {
        api_set_keys(s->api, keys, n);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.len);
    }
    buf_release(&text);
    return status;
}

/* --- Hosts --- */

static struct served *served_of(struct serve *s, const struct host *host)
{
    for (uint32_t i = 0; i < registry_count(&s->registry); i++) {
        if (registry_at(&s->registry, i)->host == host) {
            return registry_at(&s->registry, i);
        }
    }
    return NULL;
}

/* Everything that the server was started for is up. */
static void say_ready(struct serve *s)
{
    for (uint32_t i = 0; i < registry_count(&s->registry); i++) {
        const struct served *served = registry_at(&s->registry, i);

        if (served->starts && host_phase(served->host) != HOST_READY) {
            return;
        }
    }
    if (!s->said_ready) {
        s->tuning = tuning_idle_create(s->options);
    }
    s->said_ready = true;
    (void)!notify_ready(&s->notify, NULL);
}

static void on_loaded(void *arg, struct host *host, enum status status, const char *why)
{
    struct serve *s = arg;
    struct served *served = served_of(s, host);

    if (status == STATUS_OK) {
        struct host_snapshot snapshot;

        host_snapshot(host, &snapshot);
        served->load_ms = (clock_ns() - snapshot.load_start_ns) / 1000000;
        served->why[0] = '\0';
        say_ready(s);
        log_info("%s is loaded: %u rank%s, %s, %llu ms", served->names[0], snapshot.n_ranks,
                 snapshot.n_ranks == 1 ? "" : "s", snapshot.arithmetic,
                 (unsigned long long)served->load_ms);
        return;
    }
    snprintf(served->why, sizeof(served->why), "%s", why);
    if (served->starts && !s->stopping) { /* what the server was started for */
        err_set(&s->err, status, "%s", why);
        s->over = true;
    } else if (!s->stopping) {
        log_error("%s could not be loaded: %s", served->names[0], why);
    }
}

static void on_stopped(void *arg, struct host *host)
{
    struct serve *s = arg;

    (void)host;
    s->n_up--;
}

static enum status add_model(struct serve *s, const struct options *options, bool starts,
                             struct served **ret_served, struct err *err)
{
    const struct serve_model_config config = {
        .options = options,
        .registry = &s->registry,
        .front = &s->box,
        .turns = &s->turns,
        .on = {.arg = s, .loaded = on_loaded, .stopped = on_stopped},
    };
    enum status status = serve_model_create(&config, &s->models[s->n_models], ret_served, err);

    if (status != STATUS_OK) {
        return status;
    }
    s->n_models++;
    (*ret_served)->starts = starts;
    if (starts) {
        status = host_load((*ret_served)->host, err);
        s->n_up += status == STATUS_OK;
    }
    return status;
}

static struct served *find_path(struct serve *s, const char *path)
{
    for (uint32_t i = 0; i < registry_count(&s->registry); i++) {
        if (strcmp(registry_at(&s->registry, i)->path, path) == 0) {
            return registry_at(&s->registry, i);
        }
    }
    return NULL;
}

/* POST /models/load of a path, or of a name in the hub's cache, that no entry has. */
static enum status add_asked(void *arg, const char *path, struct served **ret_served,
                             struct err *err)
{
    struct serve *s = arg;
    const struct hub_options hub = {.name = path};
    struct options *options = NULL;
    struct served *asked_before;
    struct service service = {0};
    char *found = NULL;
    enum status status;

    if (access(path, F_OK) == 0) {
        found = xstrdup(path);
    } else if (!hub_is_name(path) || hub_resolve(&hub, &found, err) != STATUS_OK) {
        return err_set(err, STATUS_NOT_FOUND, "%s is no model here", path);
    }
    asked_before = find_path(s, found);
    if (asked_before != NULL) {
        *ret_served = asked_before;
        free(found);
        return STATUS_OK;
    }
    if (s->n_models == SERVED_MAX) {
        free(found);
        return err_set(err, STATUS_LIMIT, "at most %d models", SERVED_MAX);
    }
    options = xalloc(sizeof(*options));
    *options = *s->options;
    options->path = found;
    options->served_model_name.n = 0;
    status = service_check(&service, options, err);
    if (status == STATUS_OK) {
        status = add_model(s, options, false, ret_served, err);
    }
    if (status != STATUS_OK) {
        free(found);
        free(options);
        return status;
    }
    s->asked[s->n_asked++] = options;
    return STATUS_OK;
}

static enum status load_asked(void *arg, struct served *served, struct err *err)
{
    struct serve *s = arg;
    enum status status = host_load(served->host, err);

    s->n_up += status == STATUS_OK;
    return status;
}

/* --- Signals --- */

static void on_signal(void *arg)
{
    struct serve *s = arg;
    struct err err = {0};
    int number;

    while ((number = world_signals_take(s->signal_fd)) != 0) {
        if (number == SIGHUP) {
            if (s->said_ready) { /* else it is no reload yet, and its end no readiness */
                (void)!notify_reloading(&s->notify);
            }
            if (read_keys(s, &err) == STATUS_OK) {
                log_info("keys are read again");
            } else {
                log_error("keys stay as they were: %s", err.text);
            }
            if (s->said_ready) {
                (void)!notify_ready(&s->notify, NULL);
            }
        } else if (number == SIGTERM || number == SIGINT || number == SIGQUIT) {
            s->n_signals += number == SIGQUIT ? 2 : 1;
            s->first_signal = s->first_signal == 0 ? number : s->first_signal;
        }
    }
}

static void on_mail(void *arg)
{
    struct serve *s = arg;

    mailbox_deliver(&s->box);
}

static void begin_drain(struct serve *s)
{
    s->drain_until_ns = clock_ns() + (uint64_t)(s->options->drain_timeout * 1e9);
    api_drain(s->api);
    (void)!notify_stopping(&s->notify, "draining");
    (void)!notify_extend(&s->notify, (uint64_t)(s->options->drain_timeout * 1e9) +
                                         (uint64_t)LEAVE_MS * 1000000);
    if (api_active(s->api) > 0) {
        log_info(
            "shutting down: %u answers are under way, at most %.0f s; a second signal ends at once",
            api_active(s->api), s->options->drain_timeout);
    }
}

static void stop_hosts(struct serve *s)
{
    s->stopping = true;
    for (uint32_t i = 0; i < registry_count(&s->registry); i++) {
        struct err err = {0};

        (void)!host_unload(registry_at(&s->registry, i)->host, 0, &err);
    }
}

/* What signals asked for, step by step. */
static void mind_signals(struct serve *s, uint64_t now)
{
    if (s->n_signals == 0) {
        return;
    }
    if (s->drain_until_ns == 0) {
        begin_drain(s);
    }
    if (!s->stopping && (api_active(s->api) == 0 || now >= s->drain_until_ns || s->n_signals > 1)) {
        s->incomplete = api_active(s->api) > 0;
        api_abort(s->api, "the server was shut down");
        stop_hosts(s);
    }
    if (s->stopping && s->n_up == 0) {
        s->over = true;
    }
}

/* --- Life --- */

static void print_address(const struct serve *s)
{
    const char *host = s->options->host;
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    bool six = strchr(host, ':') != NULL && !any;
    const struct served *served = registry_at((struct registry *)&s->registry, 0);
    uint16_t port = http_server_port(s->server);

    printf("lockstep: serving %s at http://%s%s%s:%u\n", served->names[0], six ? "[" : "",
           any ? "127.0.0.1" : host, six ? "]" : "", port);
    printf("  curl http://%s%s%s:%u/v1/chat/completions -H 'Content-Type: application/json' -d "
           "'{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n",
           six ? "[" : "", any ? "127.0.0.1" : host, six ? "]" : "", port, served->names[0]);
    fflush(stdout);
}

static enum status listen_on_port(struct serve *s, struct err *err)
{
    const struct options *o = s->options;
    const struct http_config config = {
        .host = o->host,
        .port = (uint16_t)o->port,
        .header_ms = (uint32_t)(o->header_timeout * 1e3),
        .body_ms = (uint32_t)(o->body_timeout * 1e3),
        .idle_ms = (uint32_t)(o->idle_timeout * 1e3),
        .write_ms = WRITE_MS,
        .max_header_bytes = MAX_HEADER_BYTES,
        .max_body_bytes = MAX_BODY_BYTES,
        .max_bodies_bytes = MAX_BODIES_BYTES,
        .max_pending_bytes = MAX_PENDING_BYTES,
        .max_connections = MAX_CONNECTIONS,
    };
    struct http_handlers handlers;
    struct buf owner = {0};
    enum status status;

    api_handlers(s->api, &handlers);
    status = http_server_create(&config, &handlers, &s->server, err);
    if (status == STATUS_LIMIT) {
        port_owner_find((uint16_t)o->port, &owner);
        err_set(err, STATUS_LIMIT, "port %u is taken%s%s: choose another with --port", config.port,
                owner.len > 0 ? " by " : "", buf_str(&owner));
        buf_release(&owner);
    }
    if (status == STATUS_OK) {
        api_attach(s->api, s->server);
        status = http_server_watch(s->server, s->box.fd, on_mail, s, err);
    }
    if (status == STATUS_OK) {
        status = http_server_watch(s->server, s->signal_fd, on_signal, s, err);
    }
    return status;
}

static enum status make_api(struct serve *s, struct err *err)
{
    const struct options *o = s->options;

    s->api = api_create(&(struct api_config){
        .registry = &s->registry,
        .workers = s->workers,
        .front = &s->box,
        .host = o->host,
        .origins = o->cors_origin.items,
        .n_origins = o->cors_origin.n,
        .allow_faults = o->allow_faults,
        .version = LOCKSTEP_VERSION,
        .add_model = add_asked,
        .load_model = load_asked,
        .arg = s,
    });
    return read_keys(s, err);
}

/* The models of the command line and of the file; bad ones are named before anything listens. */
static enum status add_models(struct serve *s, struct err *err)
{
    const struct options *o = s->options;
    struct served *served;
    struct service service = {0};
    enum status status = STATUS_OK;

    if (o->path != NULL) {
        status = service_check(&service, o, err);
        if (status == STATUS_OK) {
            status = add_model(s, o, true, &served, err);
        }
    }
    for (uint32_t i = 0; i < o->n_models && status == STATUS_OK; i++) {
        if (o->model_name == NULL || strcmp(o->model_name, o->models[i].name) != 0) {
            status = add_model(s, &s->sections[i], o->path == NULL && i == 0, &served, err);
        }
    }
    if (status == STATUS_OK && s->n_models == 0) {
        status = err_set(err, STATUS_INVALID,
                         "a MODEL is needed, or a [model NAME] section in lockstep.conf");
    }
    return status;
}

static void feed_watchdog(struct serve *s, uint64_t now)
{
    if (s->notify.watchdog_ns > 0 && now - s->fed_ns >= s->notify.watchdog_ns / 4) {
        s->fed_ns = now;
        (void)!notify_alive(&s->notify);
    }
}

static void run(struct serve *s)
{
    while (!s->over) {
        uint64_t now = clock_ns();
        uint64_t wake = api_tick(s->api, now);

        feed_watchdog(s, now);
        wake =
            MIN(wake, tuning_idle_turn(s->tuning, now, api_active(s->api) > 0 || s->n_signals > 0));
        if (s->n_signals > 0) {
            mind_signals(s, now);
            wake = MIN(wake, now + 20 * 1000000);
        }
        if (!s->over) {
            http_server_turn(s->server, wake);
        }
        if (s->n_signals > 1 && s->stopping) { /* forced: what the ranks do does not matter */
            s->over = true;
        }
    }
}

static void release(struct serve *s)
{
    tuning_idle_destroy(&s->tuning);
    http_server_destroy(&s->server);
    workers_destroy(&s->workers);
    mailbox_deliver(&s->box);
    registry_release(&s->registry);
    mailbox_deliver(&s->box); /* the ends of what ran */
    api_destroy(&s->api);
    for (uint32_t i = 0; i < s->n_models; i++) {
        serve_model_destroy(&s->models[i]);
    }
    for (uint32_t i = 0; i < s->n_asked; i++) {
        free((char *)s->asked[i]->path);
        free(s->asked[i]);
    }
    for (uint32_t i = 0; i < s->n_fetched; i++) {
        free(s->fetched[i]);
    }
    free(s->sections);
    notify_close(&s->notify);
    mailbox_release(&s->box);
    if (s->signal_fd >= 0) {
        close(s->signal_fd);
    }
}

/* A model is known by the name of its section, unless it has others. */
static void name_after(struct options *options, const char *section)
{
    if (section != NULL && options->served_model_name.n == 0) {
        options->served_model_name = (struct option_list){.items = {section}, .n = 1};
    }
}

/* Where the models lie; the one that is loaded at once is fetched from the hub if it must be. */
static enum status find_models(struct serve *s, struct err *err)
{
    enum status status;

    name_after(&s->own, s->own.model_name);
    status = fetch_model(&s->own, &s->fetched[s->n_fetched++], err);
    s->sections = xcalloc(MAX(s->own.n_models, 1u), sizeof(*s->sections));
    if (s->own.n_models > SERVED_MAX - 1) {
        return err_set(err, STATUS_LIMIT, "at most %d models are served", SERVED_MAX - 1);
    }
    for (uint32_t i = 0; i < s->own.n_models && status == STATUS_OK; i++) {
        struct options *options = &s->sections[i];
        const struct hub_options hub = {.name = s->own.models[i].path};
        char **path = &s->fetched[s->n_fetched++];

        *options = s->own.models[i].options;
        options->path = s->own.models[i].path;
        name_after(options, s->own.models[i].name);
        if (i == 0 && s->own.path == NULL) {
            status = fetch_model(options, path, err);
        } else if (access(options->path, F_OK) != 0 && hub_is_name(options->path) &&
                   hub_resolve(&hub, path, NULL) == STATUS_OK) {
            options->path = *path;
        }
    }
    return status;
}

static enum status start(struct serve *s, struct err *err)
{
    enum status status = mailbox_init(&s->box, err);

    registry_init(&s->registry);
    turns_init(&s->turns);
    if (status == STATUS_OK && notify_open(&s->notify, err) != STATUS_OK) {
        log_warn("%s", err->text);
    }
    if (status == STATUS_OK) {
        status = find_models(s, err);
    }
    if (status != STATUS_OK || (status = world_signals_open(&s->signal_fd, err)) != STATUS_OK ||
        (status = workers_create(N_WORKERS, &s->workers, err)) != STATUS_OK ||
        (status = make_api(s, err)) != STATUS_OK ||
        (status = listen_on_port(s, err)) != STATUS_OK ||
        (status = add_models(s, err)) != STATUS_OK) {
        return status;
    }
    print_address(s);
    return STATUS_OK;
}

static int exit_status(const struct serve *s, enum status status, const struct err *err)
{
    if (status != STATUS_OK) {
        cmd_fail(err);
        return status == STATUS_LINK || status == STATUS_DEVICE || status == STATUS_BUG
                   ? CMD_WORLD
                   : CMD_FAILED;
    }
    if (s->n_signals > 1) {
        return 128 + s->first_signal;
    }
    return s->incomplete ? CMD_FAILED : CMD_OK;
}

int cmd_serve(const struct options *options)
{
    struct serve s = {.own = *options, .notify.fd = -1, .signal_fd = -1};
    struct err err = {0};
    enum status status;
    int result;

    s.options = &s.own;
    log_set_format(strcmp(options->log_format, "json") == 0 ? LOG_JSON : LOG_TEXT);
    world_signals_block();
    status = start(&s, &err);
    if (status == STATUS_OK) {
        run(&s);
        err = s.err;
        status = s.err.status;
    }
    result = exit_status(&s, status, &err);
    release(&s);
    return result;
}
