/* SPDX-License-Identifier: Apache-2.0 */
/* Look-ups in the metadata that gguf_parse has collected. */
#include "weights/gguf.h"

#include "weights/weights_priv.h"

static const char *const type_names[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = "u8",   [GGUF_I8] = "i8",         [GGUF_U16] = "u16",     [GGUF_I16] = "i16",
    [GGUF_U32] = "u32", [GGUF_I32] = "i32",       [GGUF_F32] = "f32",     [GGUF_BOOL] = "bool",
    [GGUF_U64] = "u64", [GGUF_STRING] = "string", [GGUF_ARRAY] = "array", [GGUF_I64] = "i64",
    [GGUF_F64] = "f64",
};

const char *gguf_type_name(enum gguf_type type)
{
    ENSURE_OP(type, <, GGUF_TYPE_COUNT);
    return type_names[type];
}

const struct gguf_value *gguf_find(const struct weights *weights, const char *key)
{
    for (size_t i = 0; i < weights->n_values;
         i++) { /* a few dozen pairs, looked up while loading */
        if (strcmp(weights->values[i].key, key) == 0) {
            return &weights->values[i];
        }
    }
    return NULL;
}

size_t gguf_n_values(const struct weights *weights)
{
    return weights->n_values;
}

const struct gguf_value *gguf_value_at(const struct weights *weights, size_t i)
{
    ENSURE_OP(i, <, weights->n_values);
    return &weights->values[i];
}

/* NULL, with the error set to STATUS_NOT_FOUND, if absent. */
static const struct gguf_value *find(const struct weights *weights, const char *key,
                                     struct err *err)
{
    const struct gguf_value *value = gguf_find(weights, key);

    if (value == NULL) {
        err_set(err, STATUS_NOT_FOUND, "%s: %s: missing", weights->path, key);
    }
    return value;
}

static enum status wrong_type(const struct weights *weights, const struct gguf_value *value,
                              const char *wanted, struct err *err)
{
    return err_set(err, STATUS_INVALID, "%s: %s: must be %s, is of type %s", weights->path,
                   value->key, wanted, type_names[value->type]);
}

static bool is_unsigned(enum gguf_type type)
{
    return type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 || type == GGUF_U64;
}

static bool is_signed(enum gguf_type type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

enum status gguf_get_i64(const struct weights *weights, const char *key, int64_t *ret_value,
                         struct err *err)
{
    const struct gguf_value *value = find(weights, key, err);

    if (value == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (!is_signed(value->type) && !is_unsigned(value->type)) {
        return wrong_type(weights, value, "an integer", err);
    }
    if (is_unsigned(value->type) && value->u > INT64_MAX) {
        return err_set(err, STATUS_INVALID, "%s: %s: %llu is too large", weights->path, key,
                       (unsigned long long)value->u);
    }
    *ret_value = value->i; /* the same bits as u */
    return STATUS_OK;
}

enum status gguf_get_u32(const struct weights *weights, const char *key, uint32_t *ret_value,
                         struct err *err)
{
    enum status status;
    int64_t value;

    status = gguf_get_i64(weights, key, &value, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (value < 0 || value > UINT32_MAX) {
        return err_set(err, STATUS_INVALID, "%s: %s: %lld is not in [0, 4294967295]", weights->path,
                       key, (long long)value);
    }
    *ret_value = (uint32_t)value;
    return STATUS_OK;
}

enum status gguf_get_f64(const struct weights *weights, const char *key, double *ret_value,
                         struct err *err)
{
    const struct gguf_value *value = find(weights, key, err);

    if (value == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (value->type != GGUF_F32 && value->type != GGUF_F64) {
        return wrong_type(weights, value, "a float", err);
    }
    *ret_value = value->f;
    return STATUS_OK;
}

enum status gguf_get_bool(const struct weights *weights, const char *key, bool *ret_value,
                          struct err *err)
{
    const struct gguf_value *value = find(weights, key, err);

    if (value == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (value->type != GGUF_BOOL) {
        return wrong_type(weights, value, "a bool", err);
    }
    *ret_value = value->u != 0;
    return STATUS_OK;
}

enum status gguf_get_str(const struct weights *weights, const char *key, struct gguf_str *ret_value,
                         struct err *err)
{
    const struct gguf_value *value = find(weights, key, err);

    if (value == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (value->type != GGUF_STRING) {
        return wrong_type(weights, value, "a string", err);
    }
    *ret_value = value->str;
    return STATUS_OK;
}

enum status gguf_get_array(const struct weights *weights, const char *key, enum gguf_type type,
                           struct gguf_array *ret_value, struct err *err)
{
    const struct gguf_value *value = find(weights, key, err);

    if (value == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (value->type != GGUF_ARRAY) {
        return wrong_type(weights, value, "an array", err);
    }
    if (value->array.type != type) {
        return err_set(err, STATUS_INVALID, "%s: %s: must be an array of %s, is one of %s",
                       weights->path, key, type_names[type], type_names[value->array.type]);
    }
    *ret_value = value->array;
    return STATUS_OK;
}
