/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/serve_model.h"

#include <sys/stat.h>

#include "base/mem.h"
#include "cmd/host.h"
#include "cmd/open_chat.h"
#include "cmd/open_tokenizer.h"
#include "model/shapes.h"

enum {
    MAX_TOP = 20,    /* as the APIs allow */
    SCORE_ROWS = 32, /* of a prompt, in a step */
    CHUNK = 256,     /* rows of a step: how long a prompt may hold up those that decode */
    KV_SHARE = 4,    /* of the memory that is available: one in so many for KV pages, */
    STOP_MS = 3000,
};
#define KV_MOST ((uint64_t)64 << 30) /* unless --kv-memory says more */

struct serve_model {
    struct serve_model_config config;
    struct options options; /* as config's, with defaults of this command */
    struct service service;
    struct served *served;
};

/* --- Text --- */

static uint64_t bytes_on_disk(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

static void add_end(struct served_text *text, int32_t token)
{
    for (uint32_t i = 0; i < text->n_ends; i++) {
        if (text->ends[i] == token) {
            return;
        }
    }
    if (token >= 0 && text->n_ends < SERVED_MAX_ENDS) {
        text->ends[text->n_ends++] = token;
    }
}

static enum status open_text(struct serve_model *m, struct served_text **ret_text, struct err *err)
{
    const struct generation_defaults *d = &m->service.generation;
    struct served_text *text = xalloc(sizeof(*text));
    enum status status = open_tokenizer(m->options.path, &text->tokenizer, err);

    atomic_store(&text->refs, 1);
    if (status == STATUS_OK) {
        status = open_chat(m->options.path, &text->prompt, err);
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    if (status != STATUS_OK) {
        served_text_unref(&text);
        return status;
    }
    text->defaults = d->params;
    for (uint32_t i = 0; i < d->n_end; i++) {
        add_end(text, d->end[i]);
    }
    add_end(text, tokenizer_eos(text->tokenizer));
    text->max_context = m->service.max_context;
    text->vocab = m->service.config.vocab;
    text->file_bytes = bytes_on_disk(m->options.path);
    *ret_text = text;
    return STATUS_OK;
}

/* --- The world --- */

static uint64_t kv_memory(const struct options *o)
{
    struct host host;

    if (o->given.kv_memory) {
        return (uint64_t)o->kv_memory << 20;
    }
    return host_collect(&host, NULL) == STATUS_OK
               ? MIN(host.memory_available_bytes / KV_SHARE, KV_MOST)
               : 0;
}

static enum status open_world(void *arg, const struct supervisor_handlers *on,
                              struct host_world *ret_world, struct err *err)
{
    struct serve_model *m = arg;
    const struct service_want want = {
        .max_context = (uint32_t)m->options.ctx,
        .n_slots = (uint32_t)m->options.max_running,
        .max_queue = (uint32_t)m->options.max_queue,
        .max_top = MAX_TOP,
        .score_rows = SCORE_ROWS,
        .kv_bytes = kv_memory(&m->options),
        .on = *on,
    };
    struct served_text *text = NULL;
    enum status status;

    m->service = (struct service){0};
    status = service_make(&m->service, &m->options, &want, err);
    if (status == STATUS_OK) {
        status = open_text(m, &text, err);
    }
    if (status != STATUS_OK) {
        service_close(&m->service);
        return status;
    }
    served_set_text(m->config.registry, m->served, text);
    *ret_world = (struct host_world){
        .supervisor = m->service.supervisor,
        .batch = m->service.batch,
        .n_ranks = m->service.n_ranks,
        .max_context = m->service.max_context,
        .max_running = want.n_slots,
        .vocab = m->service.config.vocab,
        .page_tokens = OPS_PAGE_TOKENS,
    };
    return STATUS_OK;
}

static void close_world(void *arg, struct host_world *world)
{
    struct serve_model *m = arg;

    (void)world;
    service_close(&m->service);
}

static uint32_t poll_control(void *arg, struct pollfd *fds)
{
    struct serve_model *m = arg;

    return service_control_fds(&m->service, fds);
}

static void run_control(void *arg, struct supervisor *supervisor)
{
    struct serve_model *m = arg;

    (void)supervisor;
    service_control_run(&m->service);
}

/* --- Life --- */

/* What a path is called: its last part, without .gguf. */
static char *name_of(const char *path)
{
    size_t n = strlen(path);
    size_t begin;

    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    begin = n;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    if (n - begin > 5 && strncmp(path + n - 5, ".gguf", 5) == 0) {
        n -= 5;
    }
    return xstrndup(path + begin, n - begin);
}

static enum status add(struct serve_model *m, struct err *err)
{
    const struct options *o = &m->options;
    const char *path = o->path == NULL ? o->shape : o->path;
    char *own = name_of(path);
    const char *own_names[] = {own};
    bool named = o->served_model_name.n > 0;
    enum status status =
        registry_add(m->config.registry, named ? o->served_model_name.items : own_names,
                     named ? o->served_model_name.n : 1, path, &m->served, err);

    free(own);
    return status;
}

enum status serve_model_create(const struct serve_model_config *config,
                               struct serve_model **ret_model, struct served **ret_served,
                               struct err *err)
{
    struct serve_model *m = xalloc(sizeof(*m));
    enum status status;

    m->config = *config;
    m->options = *config->options;
    if (!m->options.given.chunk) {
        m->options.chunk = CHUNK;
    }
    status = add(m, err);
    if (status != STATUS_OK) {
        free(m);
        return status;
    }
    m->served->metrics = metrics_create(m->served->names[0]);
    m->served->host = host_create(&(struct host_config){
        .name = m->served->names[0],
        .backend = {.arg = m,
                    .open = open_world,
                    .close = close_world,
                    .poll = poll_control,
                    .ready = run_control},
        .on = config->on,
        .front = config->front,
        .turns = config->turns,
        .metrics = m->served->metrics,
        .stop_ms = STOP_MS,
    });
    *ret_model = m;
    *ret_served = m->served;
    return STATUS_OK;
}

void serve_model_destroy(struct serve_model **model)
{
    free(*model);
    *model = NULL;
}
