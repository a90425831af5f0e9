/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: several threads take pieces of the layout in turn, read what this rank owns of them
 * (each byte range once) and pack it into place. What already lies in kept memory is left alone.
 * And random weights in the place of a checkpoint.
 */
#include <pthread.h>

#include "base/mem.h"
#include "model/model_priv.h"
#include "tensor/bf16_12.h"
#include "weights/pack.h"

enum { TASK_BYTES = 4 << 20 };

struct loader {
    struct weights *weights; /* NULL: random weights */
    struct model *model;
    const struct model_layout *layout;
    const struct model_load_options *options;
    uint64_t bytes_total;
    pthread_mutex_t lock; /* of all below */
    size_t piece;         /* next piece to hand out, */
    uint32_t panel;       /* and how many of its panels are */
    uint64_t bytes_done;
    enum status status; /* the first failure */
    struct err err;
};

/* A range of panels of one matrix, or a vector. */
struct task {
    const struct model_piece *piece;
    uint32_t begin;
    uint32_t end;
};

static uint64_t task_bytes(const struct task *task)
{
    uint32_t n = task->piece->packed == NULL ? 1 : task->piece->packed->n_panels;

    return task->piece->bytes * task->end / n - task->piece->bytes * task->begin / n;
}

/* False when nothing is left or something has failed. */
static bool take_task(struct loader *loader, struct task *ret_task)
{
    bool got = false;

    pthread_mutex_lock(&loader->lock);
    while (!got && loader->status == STATUS_OK && loader->piece < loader->layout->n_pieces) {
        const struct model_piece *piece = &loader->layout->pieces[loader->piece];
        uint32_t n = piece->packed == NULL ? 1 : piece->packed->n_panels;
        uint32_t step = (uint32_t)MIN(MAX(TASK_BYTES / (piece->bytes / n + 1), 1), n);
        uint32_t begin = piece->begin + loader->panel;

        got = begin < piece->end;
        *ret_task = (struct task){piece, begin, MIN(begin + step, piece->end)};
        loader->panel = ret_task->end - piece->begin;
        if (ret_task->end == piece->end) {
            loader->piece++;
            loader->panel = 0;
        }
    }
    pthread_mutex_unlock(&loader->lock);
    return got;
}

/* A vector, permuted like its matrix where need be. */
static enum status load_vector(struct loader *loader, const struct model_piece *piece, float *out,
                               struct err *err)
{
    size_t n = weights_n_elements(piece->tensor);
    float *all = mem_alloc(n, sizeof(*all));
    enum status status;

    if (all == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "tensor %s: no memory", piece->tensor->name);
    }
    status = pack_floats(loader->weights, piece->tensor, all, err);
    for (uint32_t i = 0; i < piece->n_rows && status == STATUS_OK; i++) {
        uint32_t row = piece->row_begin + i;

        out[i] = all[piece->row_map == NULL ? row : piece->row_map[row]];
    }
    free(all);
    return status;
}

/* Tells the owner of the memory which parts of it are about to be written. */
static enum status reserve_task(struct loader *loader, const struct task *task, uint8_t *storage,
                                struct err *err)
{
    const struct model_memory *memory = loader->options->memory;
    const struct packed *packed = task->piece->packed;
    uint32_t n = task->end - task->begin;
    enum status status;

    if (memory == NULL || memory->reserve == NULL) {
        return STATUS_OK;
    }
    if (packed == NULL) {
        return memory->reserve(memory->arg, task->piece->store, storage, task->piece->bytes, err);
    }
    status = memory->reserve(memory->arg, task->piece->store,
                             storage + task->begin * packed->panel_code_bytes,
                             n * packed->panel_code_bytes, err);
    if (status == STATUS_OK && packed->panel_scale_bytes > 0) {
        status = memory->reserve(memory->arg, task->piece->store,
                                 storage + packed_scale_offset(packed) +
                                     task->begin * packed->panel_scale_bytes,
                                 n * packed->panel_scale_bytes, err);
    }
    return status;
}

/* A panel that lies plain: see struct pack_matrix. */
struct plain_panels {
    const struct model_memory *memory;
    enum model_store store;
};

static enum status reserve_plain(void *arg, void *at, size_t bytes, struct err *err)
{
    const struct plain_panels *plain = arg;

    return plain->memory->reserve(plain->memory->arg, plain->store, at, bytes, err);
}

static enum status run_task(struct loader *loader, const struct task *task, struct err *err)
{
    const struct model_piece *piece = task->piece;
    uint8_t *storage = (uint8_t *)loader->model->stores[piece->store].memory + piece->offset;
    const struct model_memory *memory = loader->options->memory;
    struct plain_panels plain = {memory, piece->store};
    enum status status = reserve_task(loader, task, storage, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (loader->weights == NULL) {
        model_random_fill(piece, task->begin, task->end, storage);
        return STATUS_OK;
    }
    if (piece->packed == NULL) {
        return load_vector(loader, piece, (float *)storage, err);
    }
    return pack_panels(
        loader->weights,
        &(struct pack_matrix){
            .parts =
                &(struct pack_part){
                    .tensor = piece->tensor,
                    .row_begin = piece->row_begin,
                    .n_rows = piece->n_rows,
                    .row_map = piece->row_map,
                },
            .n_parts = 1,
            .col_begin = piece->col_begin,
            .reserve = memory == NULL || memory->reserve == NULL ? NULL : reserve_plain,
            .reserve_arg = &plain,
        },
        piece->packed, task->begin, task->end, storage, err);
}

static void work(struct loader *loader, bool reports)
{
    struct task task;

    while (take_task(loader, &task)) {
        struct err err = {0};
        enum status status = run_task(loader, &task, &err);
        uint64_t done;

        pthread_mutex_lock(&loader->lock);
        if (status != STATUS_OK && loader->status == STATUS_OK) {
            loader->status = status;
            loader->err = err;
        }
        loader->bytes_done += task_bytes(&task);
        done = loader->bytes_done;
        pthread_mutex_unlock(&loader->lock);
        if (reports && loader->options->progress != NULL) {
            loader->options->progress(loader->options->progress_arg, done, loader->bytes_total);
        }
    }
}

static void *work_main(void *arg)
{
    work(arg, false);
    return NULL;
}

static enum status fill_stores(struct model *model, struct weights *weights,
                               const struct model_layout *layout,
                               const struct model_load_options *options, struct err *err)
{
    struct loader loader = {
        .weights = weights, .model = model, .layout = layout, .options = options};
    uint32_t n = MIN(MAX(options->n_threads, 1), 64);
    pthread_t threads[64];
    uint32_t started = 0;

    for (size_t i = 0; i < layout->n_pieces; i++) {
        const struct model_piece *piece = &layout->pieces[i];

        loader.bytes_total += task_bytes(&(struct task){piece, piece->begin, piece->end});
    }
    pthread_mutex_init(&loader.lock, NULL);
    while (started + 1 < n && pthread_create(&threads[started], NULL, work_main, &loader) == 0) {
        started++;
    }
    work(&loader, true);
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_mutex_destroy(&loader.lock);
    if (loader.status == STATUS_OK && options->progress != NULL) {
        options->progress(options->progress_arg, loader.bytes_total, loader.bytes_total);
    }
    if (loader.status != STATUS_OK && err != NULL) {
        *err = loader.err;
    }
    return loader.status;
}

/* Explicit bf16 needs matrices of that type, int8 quantised ones. */
static enum status choose_act(struct model *model, const struct model_layout *layout,
                              const struct model_load_options *options, struct err *err)
{
    const struct weights_tensor *other = layout->not_bf16;

    if (options->quantises && !layout->quantises) {
        return err_set(err, STATUS_INVALID,
                       "--quant: no matrix of the model can be quantised to %s, which takes plain "
                       "weights in rows of whole groups of %u",
                       dtype_info(options->quant)->name, dtype_info(options->quant)->group);
    }
    model->act = options->act_given ? options->act : model_default_act(layout);
    model->kv = options->kv_given ? options->kv : act_kv_type(model->act);
    if (model->act == ACT_BF16 && layout->some_quantised && other == NULL) {
        return err_set(err, STATUS_INVALID,
                       "--act bf16 needs BF16 weights, which --quant has none of");
    }
    if (model->act == ACT_BF16 && other != NULL) {
        return err_set(err, STATUS_INVALID, "--act bf16 needs BF16 weights, but tensor %s is %s",
                       other->name, other->type_name);
    }
    if (model->act == ACT_INT8 && !layout->some_quantised) {
        return err_set(
            err, STATUS_INVALID,
            "--act int8 needs quantised weights, and no matrix of the model is quantised");
    }
    return STATUS_OK;
}

/* GGUF files keep the factors of llama3 and similar scaling as a tensor of divisors. */
static enum status init_rope(struct model *model, struct weights *weights, struct err *err)
{
    const struct weights_tensor *tensor =
        weights == NULL ? NULL : weights_find(weights, "rope_freqs.weight");
    float factors[512];

    if (tensor != NULL) {
        enum status status;

        if (weights_n_elements(tensor) != model->config.head_dim / 2) {
            return err_set(err, STATUS_INVALID,
                           "tensor %s has %llu elements, not head_dim / 2 = %u", tensor->name,
                           (unsigned long long)weights_n_elements(tensor),
                           model->config.head_dim / 2);
        }
        status = pack_floats(weights, tensor, factors, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    rope_table_init(&model->rope, &model->config.rope, model->config.head_dim,
                    tensor == NULL ? NULL : factors);
    return STATUS_OK;
}

/* The output head of this rank: its rows of the tied embedding (whole blocks, so whole panels), or
 * the matrix of its own. */
static void attach_head(struct model *model)
{
    const struct packed *embed = model_embed(model);
    size_t panel = model->slice.vocab_begin / PACKED_LANES;

    if (!model->config.tied) {
        model->head = model->shared.matrix[MODEL_HEAD];
        return;
    }
    model->head = *embed;
    model->head.rows = model->slice.vocab_end - model->slice.vocab_begin;
    model->head.n_panels = (uint32_t)div_up(model->head.rows, PACKED_LANES);
    model->head.codes += panel * embed->panel_code_bytes;
    model->head.plain += panel * embed->panel_plain_bytes;
    if (embed->scales != NULL) {
        model->head.scales += panel * embed->panel_scale_bytes;
    }
}

static void attach(struct model *model, const struct model_layout *layout)
{
    for (size_t i = 0; i < layout->n_pieces; i++) {
        const struct model_piece *piece = &layout->pieces[i];
        char *at = (char *)model->stores[piece->store].memory + piece->offset;

        if (piece->packed != NULL) {
            packed_attach(piece->packed, at);
            piece->packed->plain = (uint8_t *)model->stores[piece->store].memory + piece->plain;
        } else {
            *piece->vector = (float *)at;
        }
    }
    attach_head(model);
}

/* Memory for one store: the device's, or that of options->memory, which may hold the content. */
static enum status take_store(struct model *model, enum model_store store, uint64_t identity,
                              const struct model_load_options *options, bool *ret_filled,
                              struct err *err)
{
    struct model_storage *storage = &model->stores[store];

    *ret_filled = false;
    if (options->memory != NULL) {
        return options->memory->take(options->memory->arg, store, storage->bytes, identity,
                                     &storage->memory, ret_filled, err);
    }
    storage->owned = true;
    storage->memory = model->ops->alloc(model->device, storage->bytes);
    if (storage->memory == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %.1f MiB of weights",
                       (double)storage->bytes / (1 << 20));
    }
    return STATUS_OK;
}

/* What is left to fill of the pieces of one store: nothing if it has its content, of a shared
 * embedding the rows of this rank's vocabulary range (whole blocks, so whole panels). */
static void narrow(struct model_layout *layout, const struct model *model, enum model_store store,
                   bool filled, bool shared)
{
    const struct shard_slice *s = &model->slice;

    for (size_t i = 0; i < layout->n_pieces; i++) {
        struct model_piece *piece = &layout->pieces[i];

        if (piece->store != store) {
            continue;
        }
        if (filled) {
            piece->end = piece->begin;
        } else if (shared) {
            piece->begin = s->vocab_begin / PACKED_LANES;
            piece->end = s->vocab_begin == s->vocab_end
                             ? piece->begin
                             : (uint32_t)div_up(s->vocab_end, PACKED_LANES);
        }
    }
}

static enum status take_stores(struct model *model, struct model_layout *layout,
                               const struct weights *weights,
                               const struct model_load_options *options, struct err *err)
{
    for (unsigned i = 0; i < MODEL_STORE_COUNT; i++) {
        enum model_store store = (enum model_store)i;
        uint64_t identity = model_store_identity(model, layout, weights, store);
        enum status status;
        bool filled;

        model->stores[store].bytes = layout->mapped[store];
        model->identity = model->identity * 31 + identity;
        status = take_store(model, store, identity, options, &filled, err);
        if (status != STATUS_OK) {
            return status;
        }
        narrow(layout, model, store, filled,
               store == MODEL_STORE_HOST && options->memory != NULL &&
                   options->memory->host_shared);
    }
    return STATUS_OK;
}

/* Bytes that the weights take of each store, with the panels that lie plain beside their place at
 * 12 bits. Of an embedding that the ranks fill together, other ranks' panels may not have been
 * written: they count as if they were at 12 bits. */
static void count_used(struct model *model, const struct model_layout *layout)
{
    memcpy(model->used, layout->bytes, sizeof(model->used));
    for (size_t i = 0; i < layout->n_pieces; i++) {
        const struct packed *packed = layout->pieces[i].packed;

        for (uint32_t panel = 0;
             packed != NULL && packed->dtype == DTYPE_BF16_12 && panel < packed->n_panels;
             panel++) {
            if (bf16_12_head(packed, panel)->n_patches == BF16_12_PLAIN) {
                model->used[layout->pieces[i].store] += packed->panel_plain_bytes;
            }
        }
    }
}

enum model_bf16 model_bf16_from_name(const char *name)
{
    return strcmp(name, "12") == 0      ? MODEL_BF16_12
           : strcmp(name, "plain") == 0 ? MODEL_BF16_PLAIN
                                        : MODEL_BF16_AUTO;
}

bool model_packs_bf16_12(enum model_bf16 bf16, const struct ops *ops,
                         const struct ops_device *device)
{
    return bf16 == MODEL_BF16_12 || (bf16 == MODEL_BF16_AUTO && ops->likes_bf16_12(device));
}

static enum status build(struct weights *weights, const struct model_config *config,
                         const struct model_load_options *options, struct model **ret_model,
                         struct err *err)
{
    struct model *model = xalloc(sizeof(*model));
    struct model_layout layout = {0};
    enum status status;

    model->config = *config;
    model->ops = options->ops;
    model->device = options->device;
    model->comm = options->comm;
    model->quantises = options->quantises;
    model->quant = options->quant;
    model->bf16_12 = model_packs_bf16_12(options->bf16, options->ops, options->device);
    if ((status = model_layout_init(&layout, model, weights, err)) != STATUS_OK ||
        (status = choose_act(model, &layout, options, err)) != STATUS_OK ||
        (status = init_rope(model, weights, err)) != STATUS_OK ||
        (status = take_stores(model, &layout, weights, options, err)) != STATUS_OK) {
        goto out;
    }
    attach(model, &layout);
    status = fill_stores(model, weights, &layout, options, err);
    count_used(model, &layout);
out:
    model_layout_release(&layout);
    if (status != STATUS_OK) {
        model_destroy(&model);
        return status;
    }
    *ret_model = model;
    return STATUS_OK;
}

enum status model_load(struct weights *weights, const struct model_config *config,
                       const struct model_load_options *options, struct model **ret_model,
                       struct err *err)
{
    return build(weights, config, options, ret_model, err);
}

enum status model_create_random(const struct model_config *config,
                                const struct model_load_options *options, struct model **ret_model,
                                struct err *err)
{
    return build(NULL, config, options, ret_model, err);
}

void model_destroy(struct model **model)
{
    struct model *m = *model;

    if (m == NULL) {
        return;
    }
    model_layers_release(m);
    rope_table_release(&m->rope);
    for (unsigned i = 0; i < MODEL_STORE_COUNT; i++) {
        if (m->stores[i].owned) {
            m->ops->release(m->device, m->stores[i].memory, m->stores[i].bytes);
        }
    }
    m->ops->release(m->device, m->buffers.memory, m->buffers.memory_bytes);
    free(m);
    *model = NULL;
}

const struct model_config *model_config(const struct model *model)
{
    return &model->config;
}

const struct shard_slice *model_slice(const struct model *model)
{
    return &model->slice;
}

enum act model_act(const struct model *model)
{
    return model->act;
}

enum kv_type model_kv_type(const struct model *model)
{
    return model->kv;
}

uint64_t model_weight_bytes(const struct model *model)
{
    return model->used[MODEL_STORE_RANK] + model->used[MODEL_STORE_HOST];
}

uint64_t model_host_bytes(const struct model *model)
{
    return model->used[MODEL_STORE_HOST];
}

uint64_t model_identity(const struct model *model)
{
    return model->identity;
}

uint64_t model_bytes_per_token(const struct model *model)
{
    uint64_t bytes = model->head.rows > 0 ? packed_read_bytes(&model->head) : 0;

    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        for (unsigned j = 0; j < MODEL_TENSOR_COUNT; j++) {
            if (model->layers[i].matrix[j].rows > 0) {
                bytes += packed_read_bytes(&model->layers[i].matrix[j]);
            }
        }
    }
    return bytes;
}
