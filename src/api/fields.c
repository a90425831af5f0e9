/* SPDX-License-Identifier: Apache-2.0 */
#include "api/fields.h"

#include <math.h>
#include <string.h>

const json_t *field_get(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    return json_is_null(value) ? NULL : value;
}

bool field_int(const json_t *object, const char *name, int64_t min, int64_t max, int64_t *value,
               bool *ret_given, struct api_error *error)
{
    const json_t *member = field_get(object, name);
    int64_t n;

    if (member == NULL) {
        return true;
    }
    if (json_is_integer(member)) {
        n = json_integer_value(member);
    } else if (json_is_real(member) && json_real_value(member) == floor(json_real_value(member)) &&
               fabs(json_real_value(member)) < 9e15) {
        n = (int64_t)json_real_value(member);
    } else {
        return api_error_field(error, name, "must be an integer");
    }
    if (n < min || n > max) {
        return api_error_field(error, name, "%lld is not between %lld and %lld", (long long)n,
                               (long long)min, (long long)max);
    }
    *value = n;
    if (ret_given != NULL) {
        *ret_given = true;
    }
    return true;
}

bool field_real(const json_t *object, const char *name, double min, double max, double *value,
                bool *ret_given, struct api_error *error)
{
    const json_t *member = field_get(object, name);
    double x;

    if (member == NULL) {
        return true;
    }
    if (!json_is_number(member)) {
        return api_error_field(error, name, "must be a number");
    }
    x = json_number_value(member);
    if (!(x >= min && x <= max)) {
        return api_error_field(error, name, "%g is not between %g and %g", x, min, max);
    }
    *value = x;
    if (ret_given != NULL) {
        *ret_given = true;
    }
    return true;
}

bool field_bool(const json_t *object, const char *name, bool *value, struct api_error *error)
{
    const json_t *member = field_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_boolean(member)) {
        return api_error_field(error, name, "must be true or false");
    }
    *value = json_is_true(member);
    return true;
}

bool field_text(const json_t *object, const char *name, const char **value, struct api_error *error)
{
    const json_t *member = field_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_string(member)) {
        return api_error_field(error, name, "must be a string");
    }
    if (strlen(json_string_value(member)) != json_string_length(member)) {
        return api_error_field(error, name, "must not contain the character U+0000");
    }
    *value = json_string_value(member);
    return true;
}

bool field_array(const json_t *object, const char *name, const json_t **value,
                 struct api_error *error)
{
    const json_t *member = field_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_array(member)) {
        return api_error_field(error, name, "must be an array");
    }
    *value = member;
    return true;
}

bool field_object(const json_t *object, const char *name, const json_t **value,
                  struct api_error *error)
{
    const json_t *member = field_get(object, name);

    if (member == NULL) {
        return true;
    }
    if (!json_is_object(member)) {
        return api_error_field(error, name, "must be an object");
    }
    *value = member;
    return true;
}
