/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format, as its documentation defines it: a header length (u64, little endian), a
 * JSON object that maps each tensor's name to {"dtype", "shape", "data_offsets": [begin, end]} with
 * offsets from the end of the header, and the data without gaps. A sharded model has an index file
 * whose "weight_map" maps a tensor's name to the shard that holds it.
 */
#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"
#include "weights/path.h"
#include "weights/weights_priv.h"

enum {
    HEADER_MAX_BYTES = 100 * 1000 * 1000, /* the format's own limit */
    HEADER_MAX_OBJECTS = WEIGHTS_MAX_TENSORS,
    HEADER_MAX_VALUES = 8 * WEIGHTS_MAX_TENSORS,
};

/* Every type the format knows, with its width; those of dtype.def can be read. */
static const struct {
    const char *name;
    uint32_t bits;
} types[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"F64", 64},    {"I64", 64},
    {"I32", 32},    {"I16", 16},    {"I8", 8},      {"U64", 64},    {"U32", 32},
    {"U16", 16},    {"U8", 8},      {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},      {"C64", 64},
};

/* Bounds what parsing may allocate: a value costs up to a hundred times its text. */
static enum status check_density(const char *path, const char *text, size_t size, struct err *err)
{
    bool in_string = false;
    size_t objects = 0;
    size_t values = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') {
            in_string = !in_string;
        } else if (in_string) {
            i += text[i] == '\\';
        } else {
            objects += text[i] == '{';
            values += text[i] == ',' || text[i] == '[';
        }
    }
    if (objects > HEADER_MAX_OBJECTS || values > HEADER_MAX_VALUES) {
        return err_set(err, STATUS_LIMIT, "%s: header with more than %d objects or %d values", path,
                       HEADER_MAX_OBJECTS, HEADER_MAX_VALUES);
    }
    return STATUS_OK;
}

static enum status read_header(const struct source *source, json_t **ret_header,
                               uint64_t *ret_data_begin, struct err *err)
{
    enum status status;
    uint64_t length;
    char *text;

    if (source->size < sizeof(length)) {
        return err_set(err, STATUS_CORRUPT, "%s: %llu bytes, too short for a safetensors header",
                       source->name, (unsigned long long)source->size);
    }
    status = source_read_at(source, 0, sizeof(length), &length, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (length > HEADER_MAX_BYTES) {
        return err_set(err, STATUS_LIMIT,
                       "%s: header of %llu bytes, at most %d are allowed (not a safetensors file?)",
                       source->name, (unsigned long long)length, HEADER_MAX_BYTES);
    }
    if (length > source->size - sizeof(length)) {
        return err_set(err, STATUS_CORRUPT, "%s: file ends at byte %llu, inside the header of %llu",
                       source->name, (unsigned long long)source->size, (unsigned long long)length);
    }
    text = mem_alloc(1, (size_t)length);
    if (text == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "%s: out of memory for the header", source->name);
    }
    status = source_read_at(source, sizeof(length), (size_t)length, text, err);
    if (status == STATUS_OK) {
        status = check_density(source->name, text, (size_t)length, err);
    }
    if (status == STATUS_OK) {
        status = json_parse(text, (size_t)length, ret_header, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s: header", source->name);
        }
    }
    free(text);
    *ret_data_begin = sizeof(length) + length;
    return status;
}

/* A non-negative integer element of an array. */
static bool get_size(const json_t *array, size_t i, uint64_t *ret_value)
{
    const json_t *value = json_array_get(array, i);

    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *ret_value = (uint64_t)json_integer_value(value);
    return true;
}

/* Fills type, shape and the place in the data; returns what is wrong, NULL if nothing is. */
static const char *parse_entry(const json_t *entry, struct weights_tensor *tensor)
{
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    uint64_t bits = 0;
    uint64_t end;

    for (size_t i = 0; dtype != NULL && i < ARRAY_LEN(types); i++) {
        if (strcmp(types[i].name, dtype) == 0) {
            bits = types[i].bits;
            tensor->type_name = types[i].name;
        }
    }
    if (bits == 0) {
        return "dtype is missing or unknown";
    }
    if (!dtype_from_name(tensor->type_name, &tensor->dtype)) {
        tensor->dtype = DTYPE_COUNT;
    }
    if (!json_is_array(shape) || json_array_size(shape) > WEIGHTS_MAX_DIMS) {
        return "shape is not a list of at most 8 sizes";
    }
    tensor->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < tensor->n_dims; i++) {
        if (!get_size(shape, i, &tensor->dims[i])) {
            return "shape is not a list of sizes";
        }
        if (__builtin_mul_overflow(bits, tensor->dims[i], &bits)) {
            return "shape is too large";
        }
    }
    if (json_array_size(offsets) != 2 || !get_size(offsets, 0, &tensor->offset) ||
        !get_size(offsets, 1, &end) || tensor->offset > end) {
        return "data_offsets is not [begin, end]";
    }
    tensor->bytes = end - tensor->offset;
    if (bits % 8 != 0 || bits / 8 != tensor->bytes) {
        return "data_offsets do not match dtype and shape";
    }
    return NULL;
}

/* "__metadata__" may only map strings to strings. */
static bool is_metadata(const json_t *value)
{
    void *iter = json_object_iter((json_t *)value);

    while (iter != NULL) {
        if (!json_is_string(json_object_iter_value(iter))) {
            return false;
        }
        iter = json_object_iter_next((json_t *)value, iter);
    }
    return json_is_object(value);
}

static enum status parse_member(struct weights *weights, uint32_t file, uint64_t data_begin,
                                void *member, struct err *err)
{
    const char *name = json_object_iter_key(member);
    const json_t *value = json_object_iter_value(member);
    struct weights_tensor tensor = {.file = file};
    const char *wrong;

    if (strcmp(name, "__metadata__") == 0) {
        wrong = is_metadata(value) ? NULL : "not an object of strings";
    } else {
        wrong = json_is_object(value) ? parse_entry(value, &tensor) : "not an object";
    }
    if (wrong == NULL && tensor.offset > UINT64_MAX - data_begin) {
        wrong = "data_offsets out of range";
    }
    if (wrong != NULL) {
        return err_set(err, STATUS_CORRUPT, "%s: tensor '%.*s': %s", weights->files[file].name,
                       WEIGHTS_MAX_NAME, name, wrong);
    }
    if (tensor.type_name == NULL) {
        return STATUS_OK;
    }
    tensor.offset += data_begin;
    return weights_add_tensor(weights, &tensor, name, strlen(name), err);
}

enum status safetensors_parse(struct weights *weights, uint32_t file, struct err *err)
{
    size_t first = weights->n_tensors;
    json_t *header = NULL;
    uint64_t data_begin = 0;
    enum status status = read_header(&weights->files[file], &header, &data_begin, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (!json_is_object(header)) {
        status = err_set(err, STATUS_CORRUPT, "%s: header is not a JSON object",
                         weights->files[file].name);
    }
    for (void *member = json_object_iter(header); member != NULL && status == STATUS_OK;
         member = json_object_iter_next(header, member)) {
        status = parse_member(weights, file, data_begin, member, err);
    }
    json_decref(header);
    if (status == STATUS_OK) {
        status = weights_check_layout(weights, file, first, data_begin, true, err);
    }
    return status;
}

/* Opens a shard and keeps those of its tensors that the map assigns to it. */
static enum status parse_shard(struct weights *weights, const json_t *map, const char *shard,
                               struct err *err)
{
    size_t first = weights->n_tensors;
    size_t kept = first;
    struct buf path = {0};
    struct source source;
    enum status status;
    uint32_t file;

    buf_append_str(&path, weights->folder);
    buf_append_char(&path, '/');
    buf_append_str(&path, shard);
    status = source_open(&source, buf_str(&path), err);
    buf_release(&path);
    if (status == STATUS_OK) {
        status = weights_add_file(weights, &source, &file, err);
    }
    if (status == STATUS_OK) {
        status = safetensors_parse(weights, file, err);
    }
    for (size_t i = first; i < weights->n_tensors; i++) {
        const char *owner = json_string_value(json_object_get(map, weights->tensors[i].name));

        if (owner != NULL && strcmp(owner, shard) == 0) {
            weights->tensors[kept++] = weights->tensors[i];
        }
    }
    weights->n_tensors = kept;
    return status;
}

static enum status parse_map(struct weights *weights, const char *index_path, json_t *map,
                             struct err *err)
{
    json_t *seen = json_object();
    enum status status = STATUS_OK;

    for (void *member = json_object_iter(map); member != NULL && status == STATUS_OK;
         member = json_object_iter_next(map, member)) {
        const char *name = json_object_iter_key(member);
        const json_t *value = json_object_iter_value(member);
        const char *shard = json_string_value(value);

        if (shard == NULL || strlen(shard) != json_string_length(value) ||
            !weights_path_is_inside(shard)) {
            status = err_set(err, STATUS_CORRUPT,
                             "%s: tensor '%.*s': shard '%.*s' is not a file of this folder",
                             index_path, WEIGHTS_MAX_NAME / 4, name, WEIGHTS_MAX_NAME / 4,
                             shard == NULL ? "" : shard);
        } else if (json_object_get(seen, shard) == NULL) {
            if (json_object_set_new(seen, shard, json_true()) != 0) {
                status = err_set(err, STATUS_NO_MEMORY, "%s: out of memory", index_path);
            } else {
                status = parse_shard(weights, map, shard, err);
            }
        }
    }
    json_decref(seen);
    return status;
}

/* Every tensor of the map was in the shard it names. */
static enum status check_complete(const struct weights *weights, const char *index_path,
                                  json_t *map, struct err *err)
{
    json_t *found = json_object();
    enum status status = STATUS_OK;

    for (size_t i = 0; i < weights->n_tensors; i++) {
        json_object_set_new(found, weights->tensors[i].name, json_true());
    }
    for (void *member = json_object_iter(map); member != NULL && status == STATUS_OK;
         member = json_object_iter_next(map, member)) {
        const char *name = json_object_iter_key(member);

        if (json_object_get(found, name) == NULL) {
            status = err_set(err, STATUS_CORRUPT, "%s: tensor '%.*s': missing in its shard '%s'",
                             index_path, WEIGHTS_MAX_NAME, name,
                             json_string_value(json_object_iter_value(member)));
        }
    }
    json_decref(found);
    return status;
}

enum status safetensors_parse_index(struct weights *weights, const char *index_path,
                                    struct err *err)
{
    struct buf text = {0};
    json_t *index = NULL;
    json_t *map;
    enum status status = file_read_all(index_path, HEADER_MAX_BYTES, &text, err);

    if (status == STATUS_OK) {
        status = check_density(index_path, text.data, text.len, err);
    }
    if (status == STATUS_OK) {
        status = json_parse(buf_str(&text), text.len, &index, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s", index_path);
        }
    }
    if (status != STATUS_OK) {
        goto out;
    }
    map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        status = err_set(err, STATUS_CORRUPT, "%s: weight_map is missing or empty", index_path);
        goto out;
    }
    status = parse_map(weights, index_path, map, err);
    if (status == STATUS_OK) {
        status = check_complete(weights, index_path, map, err);
    }
out:
    json_decref(index);
    buf_release(&text);
    return status;
}
