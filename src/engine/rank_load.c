/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank builds up before its first step: shared memory and communicator, model and slots. */
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/shm.h"
#include "engine/rank_priv.h"
#include "model/shapes.h"
#include "rpc/region.h"
#include "tune/tune.h"
#include "weights/quantise.h"

enum { PROGRESS_EVERY_MS = 100 };

/* --- comm_init --- */

static enum status parse_id(const char *text, struct comm_id *ret_id, struct err *err)
{
    size_t n = sizeof(ret_id->bytes);

    if (strlen(text) != 2 * n || strspn(text, "0123456789abcdef") != 2 * n) {
        return err_set(err, STATUS_CORRUPT, "comm_init: id is no number of %zu bytes", n);
    }
    for (size_t i = 0; i < n; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

        ret_id->bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return STATUS_OK;
}

/* This process, and so every thread it starts, on the cores that the leader chose. */
static enum status bind_cores(const json_t *cores, struct err *err)
{
    cpu_set_t set;

    if (json_array_size(cores) == 0) {
        return STATUS_OK;
    }
    CPU_ZERO(&set);
    for (size_t i = 0; i < json_array_size(cores); i++) {
        const json_t *core = json_array_get(cores, i);

        if (!json_is_integer(core) || json_integer_value(core) < 0 ||
            json_integer_value(core) >= CPU_SETSIZE) {
            return err_set(err, STATUS_CORRUPT, "comm_init: cores[%zu] is no core", i);
        }
        CPU_SET((size_t)json_integer_value(core), &set);
    }
    (void)sched_setaffinity(0, sizeof(set),
                            &set); /* a core that went offline: the kernel's choice */
    return STATUS_OK;
}

static enum status join(struct rank *rank, struct message *message, struct err *err)
{
    struct comm_shm_member member = {.rank = rank->args->rank, .n_ranks = rank->n_ranks};
    struct comm_id id;
    enum status status;

    rank->comm_region_bytes = comm_shm_region_bytes(rank->n_ranks);
    if (rank->comm_region_bytes == 0) {
        return err_set(err, STATUS_INVALID, "a world of %u ranks, at most %d", rank->n_ranks,
                       COMM_SHM_RANKS_MAX);
    }
    status = parse_id(message_text(message->json, "id", ""), &id, err);
    if (status == STATUS_OK) {
        status =
            region_map(message->fds[1], rank->comm_region_bytes, true, &rank->comm_region, err);
    }
    if (status == STATUS_OK) {
        member.region = rank->comm_region;
        member.region_bytes = rank->comm_region_bytes;
        member.id = &id;
        status = comm_shm_join(&member, &rank->comm, err);
    }
    if (status == STATUS_OK) {
        rank->comm->timeout_ns =
            message_uint(message->json, "timeout_ms", COMM_TIMEOUT_MS) * 1000000;
        rank->watched = watched_comm_create(rank->comm, &rank->wiring.status, &rank->faults);
        watched_comm_trace(rank->watched, &rank->wiring.trace);
    }
    return status;
}

enum status rank_comm_init(struct rank *rank, struct message *message, struct err *err)
{
    struct wiring_shape shape;
    enum status status;

    if (rank->connected || message->n_fds != 2) {
        return err_set(err, STATUS_BUG, "comm_init: %s",
                       rank->connected ? "a second one" : "it needs two descriptors");
    }
    if (message_uint(message->json, "rank", UINT32_MAX) != rank->args->rank) {
        return err_set(err, STATUS_BUG, "comm_init: for another rank");
    }
    rank->n_ranks = (uint32_t)message_uint(message->json, "world_size", 0);
    snprintf(rank->device, sizeof(rank->device), "%s",
             message_text(message->json, "device", "cpu"));
    status = wiring_from_json(json_object_get(message->json, "rings"), rank->args->epoch,
                              rank->n_ranks, &shape, err);
    if (status == STATUS_OK) {
        status = bind_cores(json_object_get(message->json, "cores"), err);
    }
    if (status == STATUS_OK) {
        status = wiring_rank_connect(&rank->wiring, &shape, message->fds[0], err);
    }
    if (status == STATUS_OK) {
        status = join(rank, message, err);
    }
    if (status == STATUS_OK) {
        rank->record = aligned_alloc(64, round_up(shape.plan_bytes, 64));
        rank->result = aligned_alloc(64, RANK_RESULT_BYTES);
        status = rank->record == NULL || rank->result == NULL
                     ? err_set(err, STATUS_NO_MEMORY, "no memory for plans and results")
                     : STATUS_OK;
    }
    rank->connected = status == STATUS_OK;
    return status;
}

void rank_comm_release(struct rank *rank)
{
    watched_comm_destroy(&rank->watched);
    comm_destroy(&rank->comm);
    region_unmap(rank->comm_region, rank->comm_region_bytes);
    rank->comm_region = NULL;
}

/* --- load --- */

/* The options of a load message. */
struct load_options {
    struct ops_tune tune;
    const char *shape;
    const char *level;
    const char *act;
    const char *kv;
    const char *quant;
    const char *bf16;
    int64_t threads;
    int64_t max_context;
    int64_t max_chunk;
    int64_t max_wants;
    int64_t n_slots;
    int64_t n_pages;
    bool keep_weights;
    bool keep_kv;
    bool logits;
};

static enum status read_options(const json_t *json, struct load_options *o, struct err *err)
{
    const json_t *tune = json_object_get(json, "tune");
    enum status status;

    if ((status = json_opt_str(json, "shape", NULL, &o->shape, err)) != STATUS_OK ||
        (status = json_opt_str(json, "level", NULL, &o->level, err)) != STATUS_OK ||
        (status = json_opt_str(json, "act", NULL, &o->act, err)) != STATUS_OK ||
        (status = json_opt_str(json, "kv", NULL, &o->kv, err)) != STATUS_OK ||
        (status = json_opt_str(json, "quant", NULL, &o->quant, err)) != STATUS_OK ||
        (status = json_opt_str(json, "bf16", "auto", &o->bf16, err)) != STATUS_OK ||
        (status = json_opt_int(json, "threads", 0, 1024, 0, &o->threads, err)) != STATUS_OK ||
        (status = json_need_int(json, "max_context", 1, INT32_MAX, &o->max_context, err)) !=
            STATUS_OK ||
        (status = json_need_int(json, "max_chunk", 1, 1 << 20, &o->max_chunk, err)) != STATUS_OK ||
        (status = json_opt_int(json, "max_wants", 1, 1 << 20, 1, &o->max_wants, err)) !=
            STATUS_OK ||
        (status = json_opt_int(json, "n_slots", 1, PLAN_MAX_SLOTS, 1, &o->n_slots, err)) !=
            STATUS_OK ||
        (status = json_opt_int(json, "n_pages", 0, INT32_MAX, 0, &o->n_pages, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "keep_weights", false, &o->keep_weights, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "keep_kv", false, &o->keep_kv, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "logits", false, &o->logits, err)) != STATUS_OK) {
        return status;
    }
    return tune == NULL ? STATUS_OK : tune_from_json(tune, &o->tune, err);
}

/* Signs of life while the model is read: from the thread that loads, not more than ten a second. */
static void say_progress(void *arg, uint64_t bytes, uint64_t total)
{
    struct rank *rank = arg;
    uint64_t now = clock_ns();
    json_t *body;

    if (now - rank->load_said_ns < (uint64_t)PROGRESS_EVERY_MS * 1000000 && bytes < total) {
        return;
    }
    rank->load_said_ns = now;
    status_page_beat(&rank->wiring.status);
    body = json_pack("{s:I, s:I}", "bytes", (json_int_t)bytes, "total", (json_int_t)total);
    if (channel_answer(&rank->channel, MESSAGE_LOAD_PROGRESS, &(struct message_out){.json = body},
                       NULL) != STATUS_OK) {
        rank->load_said_ns = now; /* it is only a sign of life; a cut channel shows in the answer */
    }
    json_decref(body);
}

/* From inside a long operator. */
static void show_life(void *arg)
{
    struct rank *rank = arg;

    watched_comm_tick(rank->watched);
}

static enum status open_engine(struct rank *rank, const struct message *message,
                               const struct load_options *o, struct err *err)
{
    enum act act = ACT_F32;
    bool act_given = o->act != NULL && act_from_name(o->act, &act);
    enum kv_type kv = KV_F32;
    bool kv_given = o->kv != NULL && kv_type_from_name(o->kv, &kv);
    enum dtype quant = DTYPE_COUNT;
    bool quantises = o->quant != NULL && dtype_from_name(o->quant, &quant) && quantise_makes(quant);
    const struct engine_memory memory = {
        .weights_fd = rank->memory_fds[0],
        .host_fd = rank->memory_fds[1],
        .kv_fd = rank->memory_fds[2],
        .keep_weights = o->keep_weights,
        .keep_host = o->keep_weights,
        .keep_kv = o->keep_kv,
        .kv_pages = (uint32_t)o->n_pages,
    };
    const struct engine_options options = {
        .path = message_text(message->json, "model", ""),
        .level = o->level,
        .n_threads = (uint32_t)o->threads,
        .act_given = act_given,
        .act = act,
        .kv_given = kv_given,
        .kv = kv,
        .quantises = quantises,
        .quant = quant,
        .bf16 = model_bf16_from_name(o->bf16),
        .tune = o->tune,
        .max_context = (uint32_t)o->max_context,
        .max_chunk = (uint32_t)o->max_chunk,
        .max_wants = (uint32_t)o->max_wants,
        .ops = rank->args->ops,
        .comm = &rank->watched->comm,
        .memory = &memory,
        .tick = show_life,
        .tick_arg = rank,
        .progress = say_progress,
        .progress_arg = rank,
    };
    struct model_config config;

    if (o->act != NULL && !act_given) {
        return err_set(err, STATUS_INVALID, "no type of activations is called %s", o->act);
    }
    if (o->kv != NULL && !kv_given) {
        return err_set(err, STATUS_INVALID, "no type of the KV cache is called %s", o->kv);
    }
    if (o->quant != NULL && !quantises) {
        return err_set(err, STATUS_INVALID, "weights are not quantised to %s", o->quant);
    }
    if (o->shape == NULL) {
        return engine_create(&options, &rank->engine, err);
    }
    if (!shape_find(o->shape, &config)) {
        return err_set(err, STATUS_INVALID, "no shape is called %s", o->shape);
    }
    return engine_create_random(&options, &config, &rank->engine, err);
}

/* The slots, and room for a step's arrays. */
static enum status make_slots(struct rank *rank, const struct load_options *o, struct err *err)
{
    const struct shard_slice *slice = model_slice(engine_model(rank->engine));
    const struct mass_table masses = engine_masses(rank->engine);
    struct plan_limits *limits = &rank->limits;
    uint32_t most_pages;

    *limits = (struct plan_limits){
        .max_rows = engine_max_chunk(rank->engine),
        .n_slots = (uint32_t)o->n_slots,
        .n_pages = engine_n_pages(rank->engine),
        .page_tokens = OPS_PAGE_TOKENS,
        .max_context = engine_max_context(rank->engine),
        .vocab = engine_config(rank->engine)->vocab,
        .max_top = PLAN_MAX_TOP,
        .max_bias = engine_config(rank->engine)->vocab,
    };
    most_pages = (uint32_t)div_up(limits->max_context, OPS_PAGE_TOKENS);
    rank->slots = xcalloc(limits->n_slots, sizeof(*rank->slots));
    for (uint32_t i = 0; i < limits->n_slots; i++) {
        rank->slots[i].pages = xcalloc(most_pages, sizeof(uint32_t));
    }
    rank->wants = xcalloc(limits->max_rows, sizeof(*rank->wants));
    rank->model_wants = xcalloc(limits->max_rows, sizeof(*rank->model_wants));
    rank->tokens = xcalloc(limits->max_rows, sizeof(*rank->tokens));
    rank->tops = xcalloc(limits->max_rows, PLAN_MAX_TOP * sizeof(*rank->tops));
    rank->result_tops = xcalloc(limits->max_rows, PLAN_MAX_TOP * sizeof(*rank->result_tops));
    rank->segments = xcalloc(limits->max_rows, sizeof(*rank->segments));
    rank->step_tokens = xcalloc(limits->max_rows, sizeof(*rank->step_tokens));
    return draw_create(
        &(struct draw_config){
            .comm = &rank->watched->comm,
            .vocab = limits->vocab,
            .vocab_begin = slice->vocab_begin,
            .vocab_end = slice->vocab_end,
            .n_slots = limits->n_slots,
            .masses = &masses,
        },
        &rank->draw, err);
}

/* Maps the memory through which logits go to the leader. */
static enum status map_logits(struct rank *rank, int fd, struct err *err)
{
    const struct shard_slice *slice = model_slice(engine_model(rank->engine));
    void *memory;
    enum status status;

    rank->logits_bytes =
        (size_t)rank->limits.max_rows * (slice->vocab_end - slice->vocab_begin) * sizeof(float);
    if (rank->logits_bytes == 0) {
        return STATUS_OK;
    }
    status = region_map(fd, rank->logits_bytes, true, &memory, err);
    if (status == STATUS_OK) {
        rank->logits = memory;
    }
    return status;
}

enum status rank_load(struct rank *rank, struct message *message, struct err *err)
{
    struct load_options options = {0};
    enum status status = read_options(json_object_get(message->json, "options"), &options, err);

    if (status == STATUS_OK && message->n_fds != (options.logits ? 4 : 3)) {
        status = err_set(err, STATUS_BUG, "load: %u descriptors", message->n_fds);
    }
    for (uint32_t i = 0; i < message->n_fds; i++) {
        rank->memory_fds[rank->n_memory_fds++] = message->fds[i];
        message->fds[i] = -1;
    }
    if (status == STATUS_OK) {
        status = open_engine(rank, message, &options, err);
    }
    if (status == STATUS_OK) {
        status = make_slots(rank, &options, err);
    }
    if (status == STATUS_OK && options.logits) {
        status = map_logits(rank, rank->memory_fds[3], err);
    }
    if (status == STATUS_OK) {
        status = engine_memory_finish(rank->engine, err);
    }
    /* not in place of one that may have died of a lack of memory */
    rank->takes_ahead = status == STATUS_OK && !options.keep_weights;
    return status;
}

void rank_unload(struct rank *rank)
{
    for (uint32_t i = 0; rank->slots != NULL && i < rank->limits.n_slots; i++) {
        free(rank->slots[i].pages);
    }
    free(rank->slots);
    free(rank->wants);
    free(rank->model_wants);
    free(rank->tokens);
    free(rank->tops);
    free(rank->result_tops);
    free(rank->segments);
    free(rank->step_tokens);
    rank->slots = NULL;
    rank->wants = NULL;
    rank->model_wants = NULL;
    rank->tokens = NULL;
    rank->tops = NULL;
    rank->result_tops = NULL;
    rank->segments = NULL;
    rank->step_tokens = NULL;
    region_unmap(rank->logits, rank->logits_bytes);
    rank->logits = NULL;
    rank->takes_ahead = false;
    draw_destroy(&rank->draw);
    engine_destroy(&rank->engine);
    while (rank->n_memory_fds > 0) {
        close(rank->memory_fds[--rank->n_memory_fds]);
    }
}
