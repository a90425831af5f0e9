/* SPDX-License-Identifier: Apache-2.0 */
#include "api/error.h"

#include <stdarg.h>
#include <string.h>

#include "json/json.h"

/* What a status means to a client. */
static const struct {
    int status;
    const char *type;
    const char *code;
} kinds[] = {
    {400, "invalid_request_error", "invalid_request"},
    {401, "authentication_error", "invalid_api_key"},
    {403, "permission_error", "forbidden"},
    {404, "not_found_error", "not_found"},
    {405, "invalid_request_error", "method_not_allowed"},
    {408, "invalid_request_error", "request_timeout"},
    {409, "conflict_error", "conflict"},
    {413, "invalid_request_error", "request_too_large"},
    {415, "invalid_request_error", "unsupported_media_type"},
    {421, "invalid_request_error", "wrong_host"},
    {429, "rate_limit_error", "queue_full"},
    {431, "invalid_request_error", "headers_too_large"},
    {500, "server_error", "internal_error"},
    {501, "invalid_request_error", "not_supported"},
    {503, "unavailable_error", "unavailable"},
};

static void set(struct api_error *error, int status, const char *code)
{
    *error = (struct api_error){.status = status, .type = "server_error", .code = "internal_error"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].status == status) {
            error->type = kinds[i].type;
            error->code = kinds[i].code;
        }
    }
    error->code = code == NULL ? error->code : code;
}

bool api_error_field(struct api_error *error, const char *field, const char *format, ...)
{
    va_list args;
    int n;

    set(error, 400, "invalid_value");
    snprintf(error->param, sizeof(error->param), "%s", field);
    n = snprintf(error->message, sizeof(error->message), "%s: ", field);
    va_start(args, format);
    vsnprintf(error->message + n, sizeof(error->message) - (size_t)n, format, args);
    va_end(args);
    return false;
}

bool api_error_set(struct api_error *error, int status, const char *code, const char *format, ...)
{
    va_list args;

    set(error, status, code);
    va_start(args, format);
    vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);
    return false;
}

static void text_or_null(struct buf *out, const char *text)
{
    if (text == NULL || text[0] == '\0') {
        buf_append_str(out, "null");
    } else {
        json_write_str(out, text, strlen(text), false);
    }
}

void api_error_body(const struct api_error *error, struct buf *out)
{
    buf_append_str(out, "{\"error\":{\"message\":");
    json_write_str(out, error->message, strlen(error->message), false);
    buf_append_str(out, ",\"type\":");
    text_or_null(out, error->type);
    buf_append_str(out, ",\"param\":");
    text_or_null(out, error->param);
    buf_append_str(out, ",\"code\":");
    text_or_null(out, error->code);
    buf_append_str(out, "}}");
}
