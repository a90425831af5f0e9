/* SPDX-License-Identifier: Apache-2.0 */
#include "json/json.h"

#include <math.h>

#include "base/file.h"

enum status json_parse(const char *text, size_t size, json_t **ret_value, struct err *err)
{
    json_error_t error;
    json_t *value =
        json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);

    if (value == NULL) {
        if (json_error_code(&error) == json_error_numeric_overflow) {
            return err_set(err, STATUS_CORRUPT,
                           "JSON, line %d column %d: number needs more than 64 bits (%s)",
                           error.line, error.column, error.text);
        }
        return err_set(err, STATUS_CORRUPT, "JSON, line %d column %d: %s", error.line, error.column,
                       error.text);
    }
    *ret_value = value;
    return STATUS_OK;
}

enum status json_parse_file(const char *path, size_t max_bytes, json_t **ret_value, struct err *err)
{
    struct buf text = {0};
    enum status status = file_read_all(path, max_bytes, &text, err);

    if (status == STATUS_OK) {
        status = json_parse(buf_str(&text), text.len, ret_value, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s", path);
        }
    }
    buf_release(&text);
    return status;
}

/* The member, NULL if it is absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

enum status json_opt_int(const json_t *object, const char *key, int64_t min, int64_t max,
                         int64_t fallback, int64_t *ret_value, struct err *err)
{
    const json_t *value = member(object, key);
    int64_t n = fallback;

    if (value != NULL && json_is_integer(value)) {
        n = json_integer_value(value);
    } else if (value != NULL && json_is_real(value) && fabs(json_real_value(value)) < 9e15 &&
               trunc(json_real_value(value)) == json_real_value(value)) {
        n = (int64_t)json_real_value(value);
    } else if (value != NULL) {
        return err_set(err, STATUS_INVALID, "%s: must be an integer", key);
    }
    if (value != NULL && (n < min || n > max)) {
        return err_set(err, STATUS_INVALID, "%s: %lld is not in [%lld, %lld]", key, (long long)n,
                       (long long)min, (long long)max);
    }
    *ret_value = n;
    return STATUS_OK;
}

enum status json_need_int(const json_t *object, const char *key, int64_t min, int64_t max,
                          int64_t *ret_value, struct err *err)
{
    if (member(object, key) == NULL) {
        return err_set(err, STATUS_INVALID, "%s: missing", key);
    }
    return json_opt_int(object, key, min, max, 0, ret_value, err);
}

enum status json_opt_real(const json_t *object, const char *key, double fallback, double *ret_value,
                          struct err *err)
{
    const json_t *value = member(object, key);

    if (value != NULL && !json_is_number(value)) {
        return err_set(err, STATUS_INVALID, "%s: must be a number", key);
    }
    *ret_value = value == NULL ? fallback : json_number_value(value);
    return STATUS_OK;
}

enum status json_opt_bool(const json_t *object, const char *key, bool fallback, bool *ret_value,
                          struct err *err)
{
    const json_t *value = member(object, key);

    if (value != NULL && !json_is_boolean(value)) {
        return err_set(err, STATUS_INVALID, "%s: must be true or false", key);
    }
    *ret_value = value == NULL ? fallback : json_is_true(value);
    return STATUS_OK;
}

enum status json_opt_str(const json_t *object, const char *key, const char *fallback,
                         const char **ret_value, struct err *err)
{
    const json_t *value = member(object, key);

    if (value != NULL && !json_is_string(value)) {
        return err_set(err, STATUS_INVALID, "%s: must be a string", key);
    }
    *ret_value = value == NULL ? fallback : json_string_value(value);
    return STATUS_OK;
}
