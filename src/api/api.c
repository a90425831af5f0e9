/* SPDX-License-Identifier: Apache-2.0 */
#include "api/api.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "api/access.h"
#include "api/answer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum { TICK_MS = 500 };

static const struct route routes[] = {
#define OPEN   ROUTE_OPEN
#define BODY   ROUTE_BODY
#define WORK   ROUTE_WORK
#define GUARD  ROUTE_GUARD
#define FAULTS ROUTE_FAULTS
#define PAGE   ROUTE_PAGE
#define ROUTE(method, path, handler, flags, summary) \
    {#method, path, &endpoint_##handler, flags, summary},
#include "api/routes.def"
#undef ROUTE
#undef OPEN
#undef BODY
#undef WORK
#undef GUARD
#undef FAULTS
#undef PAGE
};

struct api {
    struct api_config config;
    struct access access;
    struct http_server *server;
    struct answer *answers; /* whose exchange is there */
    uint32_t n_active;
    bool draining;
    uint64_t n_answers;
    uint64_t boot; /* tells the ids of two servers apart */
    uint64_t ticked_ns;
};

/* --- Routes --- */

/* How a route's path meets the request's: 0 not, 1 exactly, 2 with an argument. */
static int match_path(const struct route *route, const char *path)
{
    size_t n = strlen(route->path);
    bool takes_more = n > 1 && route->path[n - 1] == '/';

    if (strcmp(route->path, path) == 0) {
        return takes_more ? 0 : 1;
    }
    return takes_more && strncmp(route->path, path, n) == 0 ? 2 : 0;
}

static bool method_fits(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static const struct route *find_route(const struct api *api, const char *method, const char *path,
                                      bool *ret_path_known)
{
    const struct route *found = NULL;

    *ret_path_known = false;
    for (size_t i = 0; i < ARRAY_LEN(routes) && found == NULL; i++) {
        if (match_path(&routes[i], path) == 0 ||
            ((routes[i].flags & ROUTE_FAULTS) != 0 && !api->config.allow_faults)) {
            continue;
        }
        *ret_path_known = true;
        found = method_fits(&routes[i], method) ? &routes[i] : NULL;
    }
    return found;
}

/* "GET, HEAD": what the path takes, as a 405 must say. */
static void add_allow(const struct api *api, struct http_exchange *x)
{
    struct buf methods = {0};

    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (match_path(&routes[i], http_path(x)) != 0 &&
            ((routes[i].flags & ROUTE_FAULTS) == 0 || api->config.allow_faults)) {
            buf_printf(&methods, "%s%s%s", methods.len > 0 ? ", " : "", routes[i].method,
                       strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
        }
    }
    http_answer_header(x, "Allow", buf_str(&methods));
    buf_release(&methods);
}

/* --- Answers --- */

const struct api_config *answer_config(const struct answer *answer)
{
    return &answer->api->config;
}

bool answer_is_draining(const struct answer *answer)
{
    return answer->api->draining;
}

void answer_json(struct answer *answer, int status, const struct buf *body)
{
    answer->status = status;
    if (answer->exchange != NULL) {
        http_answer(answer->exchange, status, "application/json", buf_str(body), body->len);
    }
}

void answer_value(struct answer *answer, int status, json_t *value)
{
    struct buf body = {0};

    json_write(&body, value, &json_style_compact);
    json_decref(value);
    answer_json(answer, status, &body);
    buf_release(&body);
}

void answer_error(struct answer *answer, const struct api_error *error)
{
    struct buf body = {0};
    char seconds[16];

    if (answer->exchange == NULL) {
        return;
    }
    if (error->retry_after > 0) {
        snprintf(seconds, sizeof(seconds), "%u", error->retry_after);
        http_answer_header(answer->exchange, "Retry-After", seconds);
    }
    if (error->no_retry) {
        http_answer_header(answer->exchange, "x-should-retry", "false");
    }
    if (error->status == 401) {
        http_answer_header(answer->exchange, "WWW-Authenticate",
                           answer->route != NULL && (answer->route->flags & ROUTE_PAGE) != 0
                               ? "Basic realm=\"the API key is the password\""
                               : "Bearer");
    }
    if (answer->route != NULL && answer->route->endpoint->error_body != NULL) {
        answer->route->endpoint->error_body(answer, error, &body);
    } else {
        api_error_body(error, &body);
    }
    answer_json(answer, error->status, &body);
    buf_release(&body);
}

void answer_failed(struct answer *answer)
{
    answer_error(answer, &answer->error);
}

static void free_answer(struct answer *answer)
{
    json_decref(answer->json);
    free(answer->body);
    free((char *)answer->argument);
    free(answer);
}

/* --- Work --- */

static bool parse_body(struct answer *answer)
{
    struct err err = {0};

    if (json_parse(answer->body, answer->body_bytes, &answer->json, &err) != STATUS_OK) {
        return api_error_set(&answer->error, 400, "invalid_json", "the body is no JSON: %s",
                             err.text);
    }
    if (!json_is_object(answer->json)) {
        return api_error_set(&answer->error, 400, "invalid_json",
                             "the body must be a JSON object, not %s",
                             json_is_array(answer->json) ? "an array" : "a single value");
    }
    free(answer->body); /* up to 16 MiB, while it waits and generates */
    answer->body = NULL;
    return true;
}

static void work(struct job *job)
{
    struct answer *answer = (struct answer *)job;
    const struct endpoint *endpoint = answer->route->endpoint;

    if (((answer->route->flags & ROUTE_BODY) != 0 && !parse_body(answer)) ||
        (endpoint->work != NULL && !endpoint->work(answer))) {
        ENSURE(answer->error.status != 0);
    }
}

static void go_on(struct answer *answer)
{
    if (answer->error.status != 0) {
        answer_failed(answer);
    } else {
        answer->route->endpoint->now(answer);
    }
}

static void over(struct answer *answer)
{
    if (answer->route != NULL && answer->route->endpoint->gone != NULL) {
        answer->route->endpoint->gone(answer);
    }
    free_answer(answer);
}

static void deliver(struct mail *mail)
{
    struct answer *answer = (struct answer *)mail;

    answer->working = false;
    if (answer->exchange == NULL) {
        over(answer);
        return;
    }
    go_on(answer);
}

/* --- The server's calls --- */

static void make_id(struct answer *answer, const char *given)
{
    size_t n = given == NULL ? 0
                             : strspn(given, "0123456789abcdefghijklmnopqrstuvwxyz"
                                             "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");

    if (n > 0 && n < sizeof(answer->id) && given[n] == '\0') {
        snprintf(answer->id, sizeof(answer->id), "%s", given);
    } else {
        snprintf(answer->id, sizeof(answer->id), "%08llx%08llx",
                 (unsigned long long)(answer->api->boot & 0xffffffff),
                 (unsigned long long)answer->api->n_answers);
    }
}

static bool is_json_type(const char *type)
{
    static const char json[] = "application/json";
    size_t n = sizeof(json) - 1;

    return type != NULL && strncasecmp(type, json, n) == 0 &&
           (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

/* Nothing of the body is read, so that the model is not known: the first one stands for it. */
static bool refuse_draining(struct answer *answer)
{
    const struct served *served = registry_at(answer->api->config.registry, 0);

    if (served != NULL) {
        metrics_add_label(served->metrics, METRIC_ADMISSION_REJECTIONS_TOTAL,
                          METRICS_REJECTED_DRAINING, 1);
    }
    api_error_set(&answer->error, 503, "draining", "the server is shutting down");
    answer->error.retry_after = 5;
    return false;
}

static bool check_route(struct answer *answer, bool path_known)
{
    struct http_exchange *x = answer->exchange;
    struct api *api = answer->api;
    const struct route *route = answer->route;

    if (route == NULL && path_known) {
        add_allow(api, x);
        return api_error_set(&answer->error, 405, NULL, "%s does not take %s", http_path(x),
                             http_method(x));
    }
    if (route == NULL) {
        return api_error_set(&answer->error, 404, NULL, "there is no %s %s", http_method(x),
                             http_path(x));
    }
    if ((route->flags & ROUTE_GUARD) != 0 && !access_is_own_origin(&api->access, x)) {
        return api_error_set(&answer->error, 403, "foreign_origin",
                             "%s takes no requests from other sites", route->path);
    }
    if ((route->flags & ROUTE_BODY) != 0 && !is_json_type(http_header(x, "content-type"))) {
        return api_error_set(&answer->error, 415, NULL, "Content-Type must be application/json");
    }
    if ((route->flags & ROUTE_WORK) != 0 && api->draining) {
        return refuse_draining(answer);
    }
    return true;
}

static void on_headers(void *arg, struct http_exchange *x)
{
    struct api *api = arg;
    struct answer *answer = xalloc(sizeof(*answer));
    bool path_known;

    answer->api = api;
    answer->exchange = x;
    answer->began_ns = clock_ns();
    api->n_answers++;
    api->n_active++;
    answer->next = api->answers;
    if (api->answers != NULL) {
        api->answers->prev = answer;
    }
    api->answers = answer;
    http_exchange_set(x, answer);
    make_id(answer, http_header(x, "x-request-id"));
    http_answer_header(x, "x-request-id", answer->id);
    access_headers(&api->access, x);
    answer->route = find_route(api, http_method(x), http_path(x), &path_known);
    if (access_is_preflight(&api->access, x)) {
        answer->status = 200;
        access_answer_preflight(&api->access, x);
        return;
    }
    if (!access_check_host(&api->access, x, &answer->error) ||
        ((answer->route == NULL || (answer->route->flags & ROUTE_OPEN) == 0) &&
         !access_check_key(&api->access, x, &answer->tenant, &answer->error)) ||
        !check_route(answer, path_known)) {
        answer_failed(answer);
        return;
    }
    if (match_path(answer->route, http_path(x)) == 2) {
        answer->argument = xstrdup(http_path(x) + strlen(answer->route->path));
    }
}

static void on_request(void *arg, struct http_exchange *x)
{
    struct api *api = arg;
    struct answer *answer = http_exchange_get(x);

    if ((answer->route->flags & ROUTE_BODY) == 0 && answer->route->endpoint->work == NULL) {
        go_on(answer);
        return;
    }
    answer->body = http_body_detach(x, &answer->body_bytes);
    answer->working = true;
    answer->job = (struct job){.mail.deliver = deliver, .run = work, .done = api->config.front};
    workers_give(api->config.workers, &answer->job);
}

static void log_answer(const struct answer *answer, bool complete)
{
    bool works = answer->route != NULL && (answer->route->flags & ROUTE_WORK) != 0;
    bool open = answer->route != NULL && (answer->route->flags & ROUTE_OPEN) != 0;
    /* what polls every second is of no interest; no query is named: it may hold anything */
    enum log_level level = works || (answer->status >= 400 && !open) ? LOG_INFO : LOG_DEBUG;
    bool known = !answer->working; /* what a worker finds out is its own until it is delivered */

    metrics_http_answer((uint32_t)answer->status);
    log_event(level, "request", log_text("id", answer->id),
              log_text("method", http_method(answer->exchange)),
              log_text("path", http_path(answer->exchange)),
              log_text("peer", http_peer(answer->exchange)),
              log_int("code", complete ? answer->status : 499),
              log_text("model", known ? answer->model : NULL),
              log_count("prompt_tokens", known ? answer->prompt_tokens : 0),
              log_count("completion_tokens", known ? answer->completion_tokens : 0),
              log_real("seconds", (double)(clock_ns() - answer->began_ns) * 1e-9),
              log_text("error", known && answer->error.status != 0 ? answer->error.message : NULL));
}

static void on_gone(void *arg, struct http_exchange *x, bool complete)
{
    struct api *api = arg;
    struct answer *answer = http_exchange_get(x);

    if (answer == NULL) {
        return;
    }
    log_answer(answer, complete);
    if (answer->prev != NULL) {
        answer->prev->next = answer->next;
    } else {
        api->answers = answer->next;
    }
    if (answer->next != NULL) {
        answer->next->prev = answer->prev;
    }
    api->n_active--;
    answer->exchange = NULL;
    answer->tick = NULL;
    if (!answer->working) {
        over(answer);
    }
}

static void on_error_body(void *arg, int status, const char *message, struct buf *body,
                          const char **ret_content_type)
{
    struct api_error error = {0};

    (void)arg;
    api_error_set(&error, status, NULL, "%s", message);
    api_error_body(&error, body);
    *ret_content_type = "application/json";
}

/* --- Life --- */

struct api *api_create(const struct api_config *config)
{
    struct api *api = xalloc(sizeof(*api));

    api->config = *config;
    access_init(&api->access, config->host, config->origins, config->n_origins);
    if (getrandom(&api->boot, sizeof(api->boot), 0) != sizeof(api->boot)) {
        api->boot = clock_ns();
    }
    return api;
}

void api_destroy(struct api **api)
{
    if (*api != NULL) {
        access_release(&(*api)->access);
        free(*api);
        *api = NULL;
    }
}

void api_handlers(struct api *api, struct http_handlers *ret_handlers)
{
    *ret_handlers = (struct http_handlers){
        .arg = api,
        .headers = on_headers,
        .request = on_request,
        .gone = on_gone,
        .error_body = on_error_body,
    };
}

void api_attach(struct api *api, struct http_server *server)
{
    api->server = server;
}

void api_set_keys(struct api *api, const char *const *keys, uint32_t n_keys)
{
    access_set_keys(&api->access, keys, n_keys);
}

void api_drain(struct api *api)
{
    api->draining = true;
}

uint32_t api_active(const struct api *api)
{
    return api->n_active;
}

void api_abort(struct api *api, const char *why)
{
    struct answer *next;

    for (struct answer *answer = api->answers; answer != NULL; answer = next) {
        next = answer->next;
        if (answer->abort != NULL) {
            answer->abort(answer, why);
        }
    }
}

uint64_t api_tick(struct api *api, uint64_t now)
{
    uint64_t period = (uint64_t)TICK_MS * 1000000;
    struct answer *next;

    if (now - api->ticked_ns >= period) {
        api->ticked_ns = now;
        for (struct answer *answer = api->answers; answer != NULL; answer = next) {
            next = answer->next;
            if (answer->tick != NULL) {
                answer->tick(answer, now);
            }
        }
    }
    return api->ticked_ns + period;
}
