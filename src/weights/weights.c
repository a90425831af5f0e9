/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/weights.h"

#include <sys/stat.h>

#include "base/mem.h"
#include "weights/path.h"
#include "weights/weights_priv.h"

bool weights_grow(void **array, size_t n, size_t *cap, size_t item_bytes)
{
    size_t new_cap = *cap == 0 ? 16 : *cap * 2;
    void *grown;

    if (n < *cap) {
        return true;
    }
    grown = mem_alloc(new_cap, item_bytes);
    if (grown == NULL) {
        return false;
    }
    if (n > 0) {
        memcpy(grown, *array, n * item_bytes);
    }
    free(*array);
    *array = grown;
    *cap = new_cap;
    return true;
}

enum status weights_add_file(struct weights *weights, struct source *source, uint32_t *ret_file,
                             struct err *err)
{
    enum status status = STATUS_OK;

    if (weights->n_files >= WEIGHTS_MAX_FILES) {
        status =
            err_set(err, STATUS_LIMIT, "%s: more than %d files", weights->path, WEIGHTS_MAX_FILES);
    } else if (!weights_grow((void **)&weights->files, weights->n_files, &weights->cap_files,
                             sizeof(*weights->files))) {
        status = err_set(err, STATUS_NO_MEMORY, "%s: out of memory", weights->path);
    }
    if (status != STATUS_OK) {
        source_release(source);
        return status;
    }
    *ret_file = (uint32_t)weights->n_files;
    weights->files[weights->n_files++] = *source;
    return STATUS_OK;
}

enum status weights_add_tensor(struct weights *weights, struct weights_tensor *tensor,
                               const char *name, size_t name_bytes, struct err *err)
{
    const char *file = weights->files[tensor->file].name;

    if (name_bytes == 0 || memchr(name, '\0', name_bytes) != NULL) {
        return err_set(err, STATUS_CORRUPT, "%s: tensor %zu has no name or a zero byte in it", file,
                       weights->n_tensors);
    }
    if (name_bytes > WEIGHTS_MAX_NAME) {
        return err_set(err, STATUS_LIMIT, "%s: tensor '%.*s...': name of %zu bytes", file, 32, name,
                       name_bytes);
    }
    if (weights->n_tensors >= WEIGHTS_MAX_TENSORS) {
        return err_set(err, STATUS_LIMIT, "%s: more than %d tensors", file, WEIGHTS_MAX_TENSORS);
    }
    tensor->name = arena_strndup(&weights->arena, name, name_bytes);
    if (tensor->name == NULL || !weights_grow((void **)&weights->tensors, weights->n_tensors,
                                              &weights->cap_tensors, sizeof(*tensor))) {
        return err_set(err, STATUS_NO_MEMORY, "%s: out of memory for the list of tensors", file);
    }
    weights->tensors[weights->n_tensors++] = *tensor;
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const struct weights_tensor *tensors = context;

    return strcmp(tensors[*(const uint32_t *)a].name, tensors[*(const uint32_t *)b].name);
}

static int compare_offsets(const void *a, const void *b, void *context)
{
    const struct weights_tensor *tensors = context;
    const struct weights_tensor *x = &tensors[*(const uint32_t *)a];
    const struct weights_tensor *y = &tensors[*(const uint32_t *)b];

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->bytes != y->bytes) { /* an empty tensor comes before the one that begins there */
        return x->bytes < y->bytes ? -1 : 1;
    }
    return 0;
}

/* Indices of tensors [first, n_tensors), sorted. NULL when memory is gone. */
static uint32_t *sorted_tensors(const struct weights *weights, size_t first,
                                int (*compare)(const void *, const void *, void *))
{
    size_t n = weights->n_tensors - first;
    uint32_t *order = mem_alloc(n, sizeof(*order));

    if (order != NULL) {
        for (size_t i = 0; i < n; i++) {
            order[i] = (uint32_t)(first + i);
        }
        qsort_r(order, n, sizeof(*order), compare, weights->tensors);
    }
    return order;
}

enum status weights_check_layout(const struct weights *weights, uint32_t file, size_t first,
                                 uint64_t begin, bool dense, struct err *err)
{
    const struct source *source = &weights->files[file];
    size_t n = weights->n_tensors - first;
    uint32_t *order = sorted_tensors(weights, first, compare_offsets);
    const char *before = "the header";
    enum status status = STATUS_OK;
    uint64_t end = begin;

    if (order == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "%s: out of memory", source->name);
    }
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        const struct weights_tensor *tensor = &weights->tensors[order[i]];

        if (tensor->offset > source->size || tensor->bytes > source->size - tensor->offset) {
            status = err_set(err, STATUS_CORRUPT,
                             "%s: tensor '%s': file ends at byte %llu, its data needs bytes %llu "
                             "to %llu",
                             source->name, tensor->name, (unsigned long long)source->size,
                             (unsigned long long)tensor->offset,
                             (unsigned long long)tensor->offset + tensor->bytes);
        } else if (tensor->offset < end) {
            status = err_set(err, STATUS_CORRUPT, "%s: tensor '%s': its data overlaps %s",
                             source->name, tensor->name, before);
        } else if (dense && tensor->offset > end) {
            status =
                err_set(err, STATUS_CORRUPT, "%s: tensor '%s': %llu unused bytes before its data",
                        source->name, tensor->name, (unsigned long long)(tensor->offset - end));
        }
        end = tensor->offset + tensor->bytes;
        before = tensor->name;
    }
    if (status == STATUS_OK && dense && end != source->size) {
        status = err_set(err, STATUS_CORRUPT, "%s: %llu bytes after the last tensor's data",
                         source->name, (unsigned long long)(source->size - end));
    }
    free(order);
    return status;
}

enum status weights_index_names(struct weights *weights, struct err *err)
{
    weights->by_name = sorted_tensors(weights, 0, compare_names);
    if (weights->by_name == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "%s: out of memory", weights->path);
    }
    for (size_t i = 1; i < weights->n_tensors; i++) {
        const struct weights_tensor *tensor = &weights->tensors[weights->by_name[i]];

        if (strcmp(tensor->name, weights->tensors[weights->by_name[i - 1]].name) == 0) {
            return err_set(err, STATUS_CORRUPT, "%s: tensor '%s': two of that name",
                           weights->files[tensor->file].name, tensor->name);
        }
    }
    return STATUS_OK;
}

static enum status open_file(struct weights *weights, struct source *source, struct err *err)
{
    enum status status;
    uint32_t file;

    status = weights_add_file(weights, source, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (weights->format == WEIGHTS_FORMAT_SAFETENSORS) {
        return safetensors_parse(weights, file, err);
    }
    return gguf_parse(weights, file, err);
}

static enum status open_path(struct weights *weights, const struct weights_path *path,
                             struct err *err)
{
    struct source source;
    enum status status;

    if (path->kind == WEIGHTS_NONE) {
        return err_set(
            err, STATUS_NOT_FOUND,
            "%s: no weights (model.safetensors, its index, or a GGUF file) in this folder",
            weights->path);
    }
    weights->format = path->kind == WEIGHTS_GGUF ? WEIGHTS_FORMAT_GGUF : WEIGHTS_FORMAT_SAFETENSORS;
    if (path->kind == WEIGHTS_SAFETENSORS_INDEX) {
        return safetensors_parse_index(weights, path->file, err);
    }
    status = source_open(&source, path->file, err);
    if (status == STATUS_OK) {
        status = open_file(weights, &source, err);
    }
    if (status == STATUS_OK && weights->format == WEIGHTS_FORMAT_GGUF) {
        status = gguf_parse_split(weights, err);
    }
    return status;
}

enum status weights_open(const char *path, struct weights **ret_weights, struct err *err)
{
    struct weights_path resolved;
    struct weights *weights;
    enum status status = weights_path_resolve(path, &resolved, err);

    if (status != STATUS_OK) {
        return status;
    }
    weights = xalloc(sizeof(*weights));
    weights->path = xstrdup(path);
    weights->folder = xstrdup(resolved.folder);
    status = open_path(weights, &resolved, err);
    if (status == STATUS_OK) {
        status = weights_index_names(weights, err);
    }
    weights_path_release(&resolved);
    if (status != STATUS_OK) {
        weights_close(&weights);
        return status;
    }
    *ret_weights = weights;
    return STATUS_OK;
}

enum status weights_open_memory(const char *name, const void *bytes, size_t size,
                                enum weights_format format, struct weights **ret_weights,
                                struct err *err)
{
    struct weights *weights = xalloc(sizeof(*weights));
    struct source source;
    enum status status;

    weights->path = xstrdup(name);
    weights->folder = xstrdup("");
    weights->format = format;
    source_from_memory(&source, name, bytes, size);
    status = open_file(weights, &source, err);
    if (status == STATUS_OK) {
        status = weights_index_names(weights, err);
    }
    if (status != STATUS_OK) {
        weights_close(&weights);
        return status;
    }
    *ret_weights = weights;
    return STATUS_OK;
}

void weights_close(struct weights **weights)
{
    struct weights *w = *weights;

    if (w == NULL) {
        return;
    }
    for (size_t i = 0; i < w->n_files; i++) {
        source_release(&w->files[i]);
    }
    free(w->files);
    free(w->tensors);
    free(w->by_name);
    free(w->values);
    arena_release(&w->arena);
    free(w->folder);
    free(w->path);
    free(w);
    *weights = NULL;
}

enum weights_format weights_format(const struct weights *weights)
{
    return weights->format;
}

const char *weights_folder(const struct weights *weights)
{
    return weights->folder;
}

const char *weights_path(const struct weights *weights)
{
    return weights->path;
}

size_t weights_n_tensors(const struct weights *weights)
{
    return weights->n_tensors;
}

const struct weights_tensor *weights_tensor_at(const struct weights *weights, size_t i)
{
    ENSURE_OP(i, <, weights->n_tensors);
    return &weights->tensors[i];
}

const struct weights_tensor *weights_find(const struct weights *weights, const char *name)
{
    size_t low = 0;
    size_t high = weights->n_tensors;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct weights_tensor *tensor = &weights->tensors[weights->by_name[middle]];
        int order = strcmp(name, tensor->name);

        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

uint64_t weights_n_elements(const struct weights_tensor *tensor)
{
    uint64_t n = 1;

    for (uint32_t i = 0; i < tensor->n_dims; i++) {
        n *= tensor->dims[i]; /* the parsers refuse shapes that overflow */
    }
    return n;
}

size_t weights_n_files(const struct weights *weights)
{
    return weights->n_files;
}

const char *weights_file_name(const struct weights *weights, uint32_t file)
{
    ENSURE_OP(file, <, weights->n_files);
    return weights->files[file].name;
}

struct weights_stamp weights_file_stamp(const struct weights *weights, uint32_t file)
{
    struct weights_stamp stamp = {0};
    struct stat info;

    ENSURE_OP(file, <, weights->n_files);
    stamp.bytes = weights->files[file].size;
    if (weights->files[file].fd >= 0 && fstat(weights->files[file].fd, &info) == 0) {
        stamp.inode = info.st_ino;
        stamp.modified_ns =
            (uint64_t)info.st_mtim.tv_sec * 1000000000u + (uint64_t)info.st_mtim.tv_nsec;
    }
    return stamp;
}

enum status weights_read(struct weights *weights, const struct weights_tensor *tensor,
                         uint64_t offset, size_t bytes, void *out, struct err *err)
{
    const struct source *source = &weights->files[tensor->file];
    enum status status;

    if (tensor->dtype == DTYPE_COUNT) {
        return err_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s': type %s is not supported",
                       source->name, tensor->name, tensor->type_name);
    }
    ENSURE(offset <= tensor->bytes && bytes <= tensor->bytes - offset);
    status = source_read_at(source, tensor->offset + offset, bytes, out, err);
    if (status != STATUS_OK) {
        return err_prefix(err, "tensor '%s'", tensor->name);
    }
    atomic_fetch_add_explicit(&weights->bytes_read, bytes, memory_order_relaxed);
    return STATUS_OK;
}

uint64_t weights_bytes_read(const struct weights *weights)
{
    return atomic_load_explicit(&weights->bytes_read, memory_order_relaxed);
}
