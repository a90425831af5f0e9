/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF format, versions 2 and 3, as its specification defines it (all little endian):
 *
 *   "GGUF", u32 version, u64 number of tensors, u64 number of pairs
 *   pairs:    string key, u32 type, value          string: u64 length, bytes
 *   tensors:  string name, u32 number of dimensions, u64 dimensions (innermost first), u32 type,
 *             u64 offset from the start of the data section
 *   padding to general.alignment (32), data section; each tensor begins at a multiple of it
 *
 * A model may be split over files NAME-00001-of-0000N.gguf, of which the first has the metadata.
 *
 * The header is read through a cursor, a window of a few KB: nothing is allocated for what a count
 * promises before as many bytes were found in the file.
 */
#include "weights/gguf.h"

#include "base/mem.h"
#include "weights/weights_priv.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "numbers are taken as they lie in the file");

enum {
    HEADER_MAX_BYTES = 128 << 20, /* the largest vocabularies need a tenth */
    MAX_VALUES = 1 << 16,
    MAX_NESTING = 4,
    MAX_ALIGNMENT = 1 << 20,
    MAX_GGUF_DIMS = 4,
    DEFAULT_ALIGNMENT = 32,
};

/* Bytes of a value in the file, of a string or array at least. */
static const uint8_t widths[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2,    [GGUF_U32] = 4,
    [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_STRING] = 8, [GGUF_ARRAY] = 12,
    [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* Types that exist in GGUF files but not here, for the message. Numbers as in the format's list. */
static const struct {
    uint32_t number;
    const char *name;
} foreign_types[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}, {41, "Q1_0"},
};

struct cursor {
    struct weights *weights;
    const struct source *source;
    uint64_t at;    /* of the next byte in the file */
    uint64_t limit; /* no byte from here on is header */
    size_t begin;   /* unread bytes of the window */
    size_t end;
    struct err *err;
    char what[96]; /* being read, for messages */
    unsigned char window[16384];
};

static enum status fail(struct cursor *c, enum status status, const char *text)
{
    return err_set(c->err, status, "%s: %s: %s", c->source->name, c->what, text);
}

/* At least n more bytes of header exist. */
static enum status need(struct cursor *c, uint64_t n)
{
    if (n <= c->limit - c->at) {
        return STATUS_OK;
    }
    if (c->limit < c->source->size) {
        return fail(c, STATUS_LIMIT, "header of more than 128 MiB");
    }
    return err_set(c->err, STATUS_CORRUPT, "%s: %s: file ends at byte %llu, %llu more are needed",
                   c->source->name, c->what, (unsigned long long)c->source->size,
                   (unsigned long long)(n - (c->limit - c->at)));
}

static enum status take(struct cursor *c, void *out, size_t n)
{
    enum status status = need(c, n);
    char *to = out;

    while (n > 0 && status == STATUS_OK) {
        size_t part = MIN(n, c->end - c->begin);

        memcpy(to, c->window + c->begin, part);
        to += part;
        n -= part;
        c->at += part;
        c->begin += part;
        if (n > 0) {
            c->begin = 0;
            c->end = (size_t)MIN(c->limit - c->at, sizeof(c->window));
            status = source_read_at(c->source, c->at, c->end, c->window, c->err);
        }
    }
    return status;
}

static enum status take_u32(struct cursor *c, uint32_t *ret_value)
{
    return take(c, ret_value, sizeof(*ret_value));
}

static enum status take_u64(struct cursor *c, uint64_t *ret_value)
{
    return take(c, ret_value, sizeof(*ret_value));
}

/* Into the arena, with a zero byte behind it. */
static enum status take_string(struct cursor *c, struct gguf_str *ret_str)
{
    enum status status;
    uint64_t len;
    char *data;

    status = take_u64(c, &len);
    if (status == STATUS_OK) {
        status = need(c, len);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (len == 0) {
        *ret_str = (struct gguf_str){"", 0};
        return STATUS_OK;
    }
    data = arena_alloc(&c->weights->arena, (size_t)len + 1);
    if (data == NULL) {
        return fail(c, STATUS_NO_MEMORY, "out of memory");
    }
    status = take(c, data, (size_t)len);
    *ret_str = (struct gguf_str){data, (size_t)len};
    return status;
}

static enum status take_type(struct cursor *c, enum gguf_type *ret_type)
{
    enum status status;
    uint32_t type;

    status = take_u32(c, &type);
    if (status == STATUS_OK && type >= GGUF_TYPE_COUNT) {
        return fail(c, STATUS_CORRUPT, "unknown type of value");
    }
    if (status == STATUS_OK) {
        *ret_type = (enum gguf_type)type;
    }
    return status;
}

/* Elements of an array of arrays are checked and not kept. */
static enum status take_array(struct cursor *c, unsigned depth, struct gguf_array *array)
{
    enum status status = take_type(c, &array->type);
    uint64_t n;
    char *items;

    if (status == STATUS_OK) {
        status = take_u64(c, &n);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (n > HEADER_MAX_BYTES) { /* so that the product below cannot overflow */
        return fail(c, STATUS_CORRUPT, "array with more elements than a header can hold");
    }
    status = need(c, n * widths[array->type]);
    if (status != STATUS_OK) {
        return status;
    }
    array->n = (size_t)n;
    if (array->type == GGUF_ARRAY) {
        if (depth + 1 >= MAX_NESTING) {
            return fail(c, STATUS_LIMIT, "arrays nested too deeply");
        }
        for (size_t i = 0; i < array->n && status == STATUS_OK; i++) {
            struct gguf_array inner = {0};

            status = take_array(c, depth + 1, &inner);
        }
        return status;
    }
    items = arena_alloc(
        &c->weights->arena,
        array->n * (array->type == GGUF_STRING ? sizeof(struct gguf_str) : widths[array->type]));
    array->items = items;
    if (items == NULL) {
        return fail(c, STATUS_NO_MEMORY, "out of memory");
    }
    if (array->type != GGUF_STRING) {
        return take(c, items, array->n * widths[array->type]);
    }
    for (size_t i = 0; i < array->n && status == STATUS_OK; i++) {
        status = take_string(c, (struct gguf_str *)(void *)items + i);
    }
    return status;
}

static enum status take_number(struct cursor *c, struct gguf_value *value)
{
    unsigned char raw[8] = {0};
    enum status status = take(c, raw, widths[value->type]);
    int32_t i32;
    int16_t i16;
    float f32;

    memcpy(&value->u, raw, sizeof(value->u)); /* right for unsigned, 64 bit and bool */
    memcpy(&i16, raw, sizeof(i16));
    memcpy(&i32, raw, sizeof(i32));
    memcpy(&f32, raw, sizeof(f32));
    if (value->type == GGUF_I8) {
        value->i = (int8_t)raw[0];
    } else if (value->type == GGUF_I16) {
        value->i = i16;
    } else if (value->type == GGUF_I32) {
        value->i = i32;
    } else if (value->type == GGUF_F32) {
        value->f = (double)f32;
    } else if (value->type == GGUF_BOOL && status == STATUS_OK && raw[0] > 1) {
        return fail(c, STATUS_CORRUPT, "a bool that is neither 0 nor 1");
    }
    return status;
}

static enum status take_value(struct cursor *c, struct gguf_value *value)
{
    enum status status = take_type(c, &value->type);

    if (status != STATUS_OK) {
        return status;
    }
    if (value->type == GGUF_STRING) {
        return take_string(c, &value->str);
    }
    if (value->type == GGUF_ARRAY) {
        value->array = (struct gguf_array){0};
        return take_array(c, 0, &value->array);
    }
    return take_number(c, value);
}

/* Sets c->what to "<thing> 'name'", the name cut. */
static void describe(struct cursor *c, const char *thing, const struct gguf_str *name)
{
    snprintf(c->what, sizeof(c->what), "%s '%.*s'", thing, (int)MIN(name->len, 64), name->data);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const struct gguf_value *)a)->key, ((const struct gguf_value *)b)->key);
}

static enum status check_keys(struct cursor *c)
{
    size_t n = c->weights->n_values;
    struct gguf_value *sorted = mem_alloc(n, sizeof(*sorted));
    enum status status = STATUS_OK;

    if (sorted == NULL) {
        return fail(c, STATUS_NO_MEMORY, "out of memory");
    }
    if (n > 0) {
        memcpy(sorted, c->weights->values, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), compare_keys);
    }
    for (size_t i = 1; i < n && status == STATUS_OK; i++) {
        if (strcmp(sorted[i - 1].key, sorted[i].key) == 0) {
            describe(c, "metadata", &(struct gguf_str){sorted[i].key, strlen(sorted[i].key)});
            status = fail(c, STATUS_CORRUPT, "two of that name");
        }
    }
    free(sorted);
    return status;
}

static enum status take_metadata(struct cursor *c, uint64_t n)
{
    struct weights *weights = c->weights;
    enum status status = STATUS_OK;

    for (uint64_t i = 0; i < n && status == STATUS_OK; i++) {
        struct gguf_value value = {0};
        struct gguf_str key;

        snprintf(c->what, sizeof(c->what), "metadata pair %llu", (unsigned long long)i);
        status = take_string(c, &key);
        if (status != STATUS_OK) {
            break;
        }
        if (key.len == 0 || key.len > WEIGHTS_MAX_NAME || strlen(key.data) != key.len) {
            return fail(c, STATUS_CORRUPT, "key is empty, too long or has a zero byte");
        }
        describe(c, "metadata", &key);
        value.key = key.data;
        status = take_value(c, &value);
        if (status == STATUS_OK && !weights_grow((void **)&weights->values, weights->n_values,
                                                 &weights->cap_values, sizeof(value))) {
            return fail(c, STATUS_NO_MEMORY, "out of memory");
        }
        if (status == STATUS_OK) {
            weights->values[weights->n_values++] = value;
        }
    }
    return status == STATUS_OK ? check_keys(c) : status;
}

static enum status set_type(struct cursor *c, struct weights_tensor *tensor, uint32_t type)
{
    const char *name = NULL;

    if (dtype_from_ggml(type, &tensor->dtype)) {
        tensor->type_name = dtype_info(tensor->dtype)->name;
        return STATUS_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(foreign_types); i++) {
        if (foreign_types[i].number == type) {
            name = foreign_types[i].name;
        }
    }
    if (name == NULL) {
        return err_set(c->err, STATUS_UNSUPPORTED, "%s: %s: unknown type %u", c->source->name,
                       c->what, type);
    }
    return err_set(c->err, STATUS_UNSUPPORTED, "%s: %s: type %s is not supported", c->source->name,
                   c->what, name);
}

/* Sizes from the file's dimensions: n_dims of them, innermost first. */
static enum status set_shape(struct cursor *c, struct weights_tensor *tensor, const uint64_t *dims)
{
    uint64_t n = 1;
    size_t bytes;

    for (uint32_t i = 0; i < tensor->n_dims; i++) {
        tensor->dims[tensor->n_dims - 1 - i] = dims[i];
        if (__builtin_mul_overflow(n, dims[i], &n)) {
            return fail(c, STATUS_CORRUPT, "shape is too large");
        }
    }
    if (dims[0] % dtype_info(tensor->dtype)->group != 0) {
        return err_set(c->err, STATUS_CORRUPT, "%s: %s: rows of %llu elements, %s has groups of %u",
                       c->source->name, c->what, (unsigned long long)dims[0], tensor->type_name,
                       dtype_info(tensor->dtype)->group);
    }
    if (!dtype_bytes(tensor->dtype, n, &bytes)) {
        return fail(c, STATUS_CORRUPT, "shape is too large");
    }
    tensor->bytes = bytes;
    return STATUS_OK;
}

/* One tensor's record; its offset is still relative to the data section. */
static enum status take_tensor(struct cursor *c, uint64_t i, uint32_t file)
{
    struct weights_tensor tensor = {.file = file};
    uint64_t dims[MAX_GGUF_DIMS] = {1};
    struct gguf_str name;
    enum status status;
    uint32_t type;

    snprintf(c->what, sizeof(c->what), "tensor %llu", (unsigned long long)i);
    status = take_string(c, &name);
    if (status != STATUS_OK) {
        return status;
    }
    describe(c, "tensor", &name);
    status = take_u32(c, &tensor.n_dims);
    if (status == STATUS_OK && tensor.n_dims > MAX_GGUF_DIMS) {
        return fail(c, STATUS_CORRUPT, "more than 4 dimensions");
    }
    if (status == STATUS_OK) {
        status = take(c, dims, tensor.n_dims * sizeof(*dims));
    }
    if (status == STATUS_OK) {
        status = take_u32(c, &type);
    }
    if (status == STATUS_OK) {
        status = take_u64(c, &tensor.offset);
    }
    if (status == STATUS_OK) {
        status = set_type(c, &tensor, type);
    }
    if (status == STATUS_OK) {
        status = set_shape(c, &tensor, dims);
    }
    if (status == STATUS_OK) {
        status = weights_add_tensor(c->weights, &tensor, name.data, name.len, c->err);
    }
    return status;
}

/* Magic, version and the two counts, which the rest of the file must be able to hold. */
static enum status take_start(struct cursor *c, uint64_t *ret_n_tensors, uint64_t *ret_n_values)
{
    enum status status;
    char magic[4];
    uint32_t version;

    snprintf(c->what, sizeof(c->what), "header");
    status = take(c, magic, sizeof(magic));
    if (status == STATUS_OK && memcmp(magic, "GGUF", sizeof(magic)) != 0) {
        return fail(c, STATUS_CORRUPT, "not a GGUF file (wrong magic number)");
    }
    if (status == STATUS_OK) {
        status = take_u32(c, &version);
    }
    if (status == STATUS_OK && version != 0 && (version & 0xffff) == 0) {
        return fail(c, STATUS_UNSUPPORTED, "big-endian GGUF files are not supported");
    }
    if (status == STATUS_OK && version != 2 && version != 3) {
        return err_set(c->err, STATUS_UNSUPPORTED,
                       "%s: GGUF version %u is not supported (2 and 3 are)", c->source->name,
                       version);
    }
    if (status == STATUS_OK) {
        status = take_u64(c, ret_n_tensors);
    }
    if (status == STATUS_OK) {
        status = take_u64(c, ret_n_values);
    }
    if (status == STATUS_OK && *ret_n_tensors > WEIGHTS_MAX_TENSORS) {
        return fail(c, STATUS_LIMIT, "promises more than 1048576 tensors");
    }
    if (status == STATUS_OK && *ret_n_values > MAX_VALUES) {
        return fail(c, STATUS_LIMIT, "promises more than 65536 metadata pairs");
    }
    return status;
}

static enum status get_alignment(const struct weights *weights, uint32_t *ret_alignment,
                                 struct err *err)
{
    enum status status = gguf_get_u32(weights, "general.alignment", ret_alignment, err);

    if (status == STATUS_NOT_FOUND) {
        *ret_alignment = DEFAULT_ALIGNMENT;
        return STATUS_OK;
    }
    if (status == STATUS_OK && (*ret_alignment == 0 || *ret_alignment > MAX_ALIGNMENT ||
                                (*ret_alignment & (*ret_alignment - 1)) != 0)) {
        return err_set(err, STATUS_CORRUPT, "%s: general.alignment: %u is no power of two",
                       weights->path, *ret_alignment);
    }
    return status;
}

/* Makes the offsets of the tensors from `first` on absolute, and checks them. */
static enum status place_tensors(struct cursor *c, uint32_t file, size_t first)
{
    struct weights *weights = c->weights;
    enum status status;
    uint32_t alignment;
    uint64_t begin;

    status = get_alignment(weights, &alignment, c->err);
    if (status != STATUS_OK) {
        return status;
    }
    begin = round_up(c->at, alignment);
    for (size_t i = first; i < weights->n_tensors; i++) {
        struct weights_tensor *tensor = &weights->tensors[i];

        if (tensor->offset % alignment != 0 || tensor->offset > UINT64_MAX - begin) {
            return err_set(c->err, STATUS_CORRUPT,
                           "%s: tensor '%s': offset %llu is no multiple of %u or out of range",
                           c->source->name, tensor->name, (unsigned long long)tensor->offset,
                           alignment);
        }
        tensor->offset += begin;
    }
    return weights_check_layout(weights, file, first, begin, false, c->err);
}

enum status gguf_parse(struct weights *weights, uint32_t file, struct err *err)
{
    struct cursor *c = xalloc(sizeof(*c));
    size_t first = weights->n_tensors;
    uint64_t n_tensors;
    uint64_t n_values;
    enum status status;

    c->weights = weights;
    c->source = &weights->files[file];
    c->limit = MIN(c->source->size, (uint64_t)HEADER_MAX_BYTES);
    c->err = err;
    status = take_start(c, &n_tensors, &n_values);
    if (status == STATUS_OK) {
        status = take_metadata(c, n_values);
    }
    for (uint64_t i = 0; status == STATUS_OK && i < n_tensors; i++) {
        status = take_tensor(c, i, file);
    }
    if (status == STATUS_OK) {
        status = place_tensors(c, file, first);
    }
    free(c);
    return status;
}
