/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine.h"

#include <xxhash.h>

#include "base/mem.h"
#include "engine/kept.h"

struct engine {
    const struct ops *ops;
    struct ops_device *device;
    struct comm *comm;
    struct comm *own_comm; /* NULL where it was handed in */
    struct model *model;
    bool has_memory;             /* what is below lies in memfds: */
    struct engine_memory memory; /* these */
    struct kept stores[MODEL_STORE_COUNT];
    struct kept kept_kv;
    struct ops_kv kv;
    size_t kv_bytes;
    size_t ahead_bytes; /* of the KV pages, taken before they are used */
    uint32_t max_context;
    uint32_t max_chunk;
    uint32_t max_wants;
    uint64_t load_bytes;
    struct generation_defaults generation;
    char arith_class[64];
};

static enum status create_device(struct engine *engine, const struct engine_options *options,
                                 struct err *err)
{
    enum status status;

    engine->ops = options->ops;
    if (options->comm == NULL) {
        engine->own_comm = comm_self_create();
    }
    engine->comm = options->comm == NULL ? engine->own_comm : options->comm;
    status = engine->ops->create(
        &(struct ops_config){
            .n_threads = options->n_threads,
            .level = options->level,
            .tick = options->tick,
            .tick_arg = options->tick_arg,
        },
        &engine->device, err);
    if (status == STATUS_OK) {
        engine->ops->tune(engine->device, &options->tune);
    }
    return status;
}

/* What KV pages depend on: one of a model that differs in any of it would be read as nonsense. */
static uint64_t kv_identity(const struct engine *engine)
{
    const uint64_t shape[] = {model_identity(engine->model), engine->kv.page_bytes,
                              engine->kv.n_pages};

    return XXH3_64bits_withSeed(engine->arith_class, strlen(engine->arith_class),
                                XXH3_64bits(shape, sizeof(shape)));
}

static enum status create_pages(struct engine *engine, struct err *err)
{
    enum status status;

    if (!engine->has_memory) {
        engine->kv.pages = engine->ops->alloc(engine->device, engine->kv_bytes);
        return engine->kv.pages != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    }
    status = kept_open(
        &(struct kept_options){
            .kind = KEPT_KV,
            .fd = engine->memory.kv_fd,
            .bytes = engine->kv_bytes,
            .identity = kv_identity(engine),
            .rank = engine->comm->rank,
            .n_ranks = engine->comm->n_ranks,
            .keep = engine->memory.keep_kv,
        },
        &engine->kept_kv, err);
    if (status == STATUS_OK) {
        engine->kv.pages = engine->kept_kv.memory;
    }
    return status;
}

/* KV pages, and buffers for steps of max_chunk rows. */
static enum status create_room(struct engine *engine, const struct engine_options *options,
                               struct err *err)
{
    uint32_t limit = engine_config(engine)->max_context;
    enum status status;
    size_t bytes;

    engine->max_context = options->max_context > 0 ? MIN(options->max_context, limit) : limit;
    engine->max_chunk = MIN(MAX(options->max_chunk, 1), engine->max_context);
    engine->max_wants = MAX(options->max_wants, 1);
    snprintf(engine->arith_class, sizeof(engine->arith_class), "%s act %s kv %s",
             engine->ops->arith_class(engine->device), act_name(model_act(engine->model)),
             kv_type_name(model_kv_type(engine->model)));
    engine->kv = model_kv_shape(engine->model);
    engine->kv.n_pages = engine->has_memory && engine->memory.kv_pages > 0
                             ? engine->memory.kv_pages
                             : (uint32_t)div_up(engine->max_context, OPS_PAGE_TOKENS);
    if (!size_mul(engine->kv.page_bytes, engine->kv.n_pages, &bytes)) {
        return err_set(err, STATUS_LIMIT, "a context of %u positions exceeds the address space",
                       engine->max_context);
    }
    engine->kv_bytes = MAX(bytes, CACHE_LINE); /* a rank may own no KV head */
    status = create_pages(engine, err);
    if (status == STATUS_NO_MEMORY) {
        return err_set(err, STATUS_NO_MEMORY,
                       "no memory for a context of %u positions (%.1f MiB); try a smaller --ctx",
                       engine->max_context, (double)engine->kv_bytes / (1 << 20));
    }
    if (status != STATUS_OK) {
        return status;
    }
    return model_reserve(engine->model, engine->max_chunk, engine->max_wants, err);
}

/* A model_memory callback: one store of the weights in its memfd. */
static enum status take_store(void *arg, enum model_store store, size_t bytes, uint64_t identity,
                              void **ret_memory, bool *ret_filled, struct err *err)
{
    struct engine *engine = arg;
    bool host = store == MODEL_STORE_HOST;
    struct kept_options options = {
        .kind = host ? KEPT_EMBEDDING : KEPT_WEIGHTS,
        .fd = host ? engine->memory.host_fd : engine->memory.weights_fd,
        .bytes = bytes,
        .identity = identity,
        .rank = engine->comm->rank,
        .n_ranks = engine->comm->n_ranks,
        .keep = host ? engine->memory.keep_host : engine->memory.keep_weights,
    };
    enum status status = kept_open(&options, &engine->stores[store], err);

    if (status == STATUS_OK) {
        *ret_memory = engine->stores[store].memory;
        *ret_filled = options.keep;
    }
    return status;
}

static enum status reserve_store(void *arg, enum model_store store, void *at, size_t bytes,
                                 struct err *err)
{
    const struct engine *engine = arg;

    return kept_reserve(&engine->stores[store], at, bytes, err);
}

/* Loads from weights, or makes random ones where that is NULL. */
static enum status create_model(struct engine *engine, const struct engine_options *options,
                                struct weights *weights, const struct model_config *config,
                                struct err *err)
{
    const struct model_memory memory = {
        .take = take_store, .reserve = reserve_store, .arg = engine, .host_shared = true};
    const struct model_load_options load = {
        .ops = engine->ops,
        .device = engine->device,
        .comm = engine->comm,
        .memory = options->memory == NULL ? NULL : &memory,
        .act_given = options->act_given,
        .act = options->act,
        .kv_given = options->kv_given,
        .kv = options->kv,
        .quantises = options->quantises,
        .quant = options->quant,
        .bf16 = options->bf16,
        .n_threads = engine->ops->n_threads(engine->device),
        .progress = options->progress,
        .progress_arg = options->progress_arg,
    };

    if (options->memory != NULL) {
        engine->has_memory = true;
        engine->memory = *options->memory;
    }
    return weights == NULL ? model_create_random(config, &load, &engine->model, err)
                           : model_load(weights, config, &load, &engine->model, err);
}

enum status engine_create(const struct engine_options *options, struct engine **ret_engine,
                          struct err *err)
{
    struct engine *engine = xalloc(sizeof(*engine));
    struct weights *weights = NULL;
    struct model_config config;
    enum status status;

    if ((status = weights_open(options->path, &weights, err)) != STATUS_OK) {
        goto out; /* the error names the path */
    }
    status = model_config_load(weights, &config, err);
    if (status == STATUS_OK) {
        status = model_tensors_check(&config, weights, err);
    }
    if (status == STATUS_OK) {
        status = generation_defaults_load(weights, &engine->generation, err);
    }
    if (status == STATUS_OK) {
        status = create_device(engine, options, err);
    }
    if (status == STATUS_OK) {
        status = create_model(engine, options, weights, &config, err);
    }
    if (status == STATUS_OK) {
        engine->load_bytes = weights_bytes_read(weights);
        status = create_room(engine, options, err);
    }
    if (status != STATUS_OK && err != NULL &&
        strncmp(err->text, options->path, strlen(options->path)) != 0) { /* no file named yet */
        err_prefix(err, "%s", options->path);
    }
out:
    weights_close(&weights);
    if (status != STATUS_OK) {
        engine_destroy(&engine);
        return status;
    }
    *ret_engine = engine;
    return STATUS_OK;
}

enum status engine_create_random(const struct engine_options *options,
                                 const struct model_config *config, struct engine **ret_engine,
                                 struct err *err)
{
    struct engine *engine = xalloc(sizeof(*engine));
    enum status status = create_device(engine, options, err);

    if (status == STATUS_OK) {
        status = create_model(engine, options, NULL, config, err);
    }
    if (status == STATUS_OK) {
        status = create_room(engine, options, err);
    }
    if (status != STATUS_OK) {
        engine_destroy(&engine);
        return status;
    }
    *ret_engine = engine;
    return STATUS_OK;
}

void engine_destroy(struct engine **engine)
{
    struct engine *e = *engine;

    if (e == NULL) {
        return;
    }
    model_destroy(&e->model);
    for (unsigned i = 0; i < MODEL_STORE_COUNT; i++) {
        kept_close(&e->stores[i]);
    }
    kept_close(&e->kept_kv);
    if (e->kv.pages != NULL && !e->has_memory) {
        e->ops->release(e->device, e->kv.pages, e->kv_bytes);
    }
    if (e->device != NULL) {
        e->ops->destroy(&e->device);
    }
    comm_destroy(&e->own_comm);
    free(e);
    *engine = NULL;
}

enum status engine_memory_finish(struct engine *engine, struct err *err)
{
    enum status status = STATUS_OK;

    for (unsigned i = 0; i < MODEL_STORE_COUNT && status == STATUS_OK; i++) {
        status = kept_finish(&engine->stores[i], err);
    }
    return status;
}

const struct model_config *engine_config(const struct engine *engine)
{
    return model_config(engine->model);
}

const struct generation_defaults *engine_generation(const struct engine *engine)
{
    return &engine->generation;
}

struct model *engine_model(struct engine *engine)
{
    return engine->model;
}

const char *engine_level(const struct engine *engine)
{
    return engine->ops->level(engine->device);
}

const char *engine_arith_class(const struct engine *engine)
{
    return engine->arith_class;
}

uint32_t engine_n_threads(const struct engine *engine)
{
    return engine->ops->n_threads(engine->device);
}

struct mass_table engine_masses(const struct engine *engine)
{
    return engine->ops->masses(engine->device);
}

uint32_t engine_max_context(const struct engine *engine)
{
    return engine->max_context;
}

uint32_t engine_max_chunk(const struct engine *engine)
{
    return engine->max_chunk;
}

uint32_t engine_max_wants(const struct engine *engine)
{
    return engine->max_wants;
}

uint64_t engine_load_bytes(const struct engine *engine)
{
    return engine->load_bytes;
}

uint64_t engine_kv_bytes(const struct engine *engine)
{
    return engine->kv_bytes;
}

uint32_t engine_n_pages(const struct engine *engine)
{
    return engine->kv.n_pages;
}

enum status engine_page_clear(struct engine *engine, uint32_t page, struct err *err)
{
    ENSURE_OP(page, <, engine->kv.n_pages);
    if (engine->has_memory && engine->kv.page_bytes > 0) {
        enum status status =
            kept_reserve(&engine->kept_kv, (char *)engine->kv.pages + page * engine->kv.page_bytes,
                         engine->kv.page_bytes, err);

        if (status != STATUS_OK) {
            return status;
        }
    }
    engine->ops->kv_page_clear(engine->device, &engine->kv, page);
    return STATUS_OK;
}

bool engine_take_ahead(struct engine *engine)
{
    size_t limit = MIN(ENGINE_AHEAD_BYTES / engine->comm->n_ranks, engine->kv_bytes);

    if (!engine->has_memory || engine->kv.page_bytes == 0 || engine->ahead_bytes >= limit ||
        !kept_take_block(&engine->kept_kv, engine->ahead_bytes)) {
        return false;
    }
    engine->ahead_bytes += KEPT_BLOCK_BYTES;
    return true;
}

enum status engine_forward(struct engine *engine, const struct model_step *plan, struct err *err)
{
    struct model_step step = *plan;
    enum status status = model_reserve(engine->model, plan->n_tokens, plan->n_wants, err);

    step.kv = &engine->kv;
    return status == STATUS_OK ? model_forward(engine->model, &step, err) : status;
}

enum status engine_step(struct engine *engine, const struct model_step *plan, struct err *err)
{
    enum status status = engine_forward(engine, plan, err);

    for (uint32_t i = 0; i < plan->n_wants && status == STATUS_OK; i++) {
        if (plan->wants[i].nan_layer >= 0) {
            uint32_t layer = (uint32_t)plan->wants[i].nan_layer;

            return layer == engine_config(engine)->n_layers
                       ? err_set(err, STATUS_NUMERIC,
                                 "the output head gave a result that is not a number")
                       : err_set(err, STATUS_NUMERIC, "layer %u gave a result that is not a number",
                                 layer);
        }
    }
    return status;
}

uint64_t engine_state_hash(const struct engine *engine, uint32_t n_rows)
{
    return model_state_hash(engine->model, n_rows);
}
