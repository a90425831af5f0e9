/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of a JSON object from outside, by name: absent and null leave the value as it is. False:
 * the member is wrong, and error names it. Texts are borrowed from the object. Private to api/.
 */
#pragma once

#include "api/error.h"
#include "json/json.h"

/* ret_given (may be NULL) is set to true where the member is there. */
NODISCARD bool field_int(const json_t *object, const char *name, int64_t min, int64_t max,
                         int64_t *value, bool *ret_given, struct api_error *error);
NODISCARD bool field_real(const json_t *object, const char *name, double min, double max,
                          double *value, bool *ret_given, struct api_error *error);
NODISCARD bool field_bool(const json_t *object, const char *name, bool *value,
                          struct api_error *error);
NODISCARD bool field_text(const json_t *object, const char *name, const char **value,
                          struct api_error *error);
NODISCARD bool field_array(const json_t *object, const char *name, const json_t **value,
                           struct api_error *error);
NODISCARD bool field_object(const json_t *object, const char *name, const json_t **value,
                            struct api_error *error);

/* The member, NULL if it is absent or null. */
const json_t *field_get(const json_t *object, const char *name);
