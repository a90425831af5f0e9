/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/message.h"

enum field_type { FIELD_U32, FIELD_U64, FIELD_STR, FIELD_ARRAY, FIELD_OBJECT };
enum field_need { FIELD_REQUIRED, FIELD_OPTIONAL };

struct field {
    enum message_type message;
    const char *name;
    enum field_type type;
    enum field_need need;
};

static const struct message_info messages[MESSAGE_END] = {
#define MESSAGE(id, number, text, to, reply, body, fds) \
    [MESSAGE_##id] = {.type = MESSAGE_##id,             \
                      .name = (text),                   \
                      .direction = MESSAGE_##to,        \
                      .answer = MESSAGE_##reply,        \
                      .form = MESSAGE_##body,           \
                      .max_fds = (fds)},
#define FIELD(message, name, type, need)
#include "rpc/messages.def"
#undef MESSAGE
#undef FIELD
};

static const struct field fields[] = {
#define MESSAGE(id, number, name, direction, answer, body, max_fds)
#define FIELD(id, text, kind, presence) \
    {.message = MESSAGE_##id, .name = (text), .type = FIELD_##kind, .need = FIELD_##presence},
#include "rpc/messages.def"
#undef MESSAGE
#undef FIELD
};

static const char *const type_texts[] = {
    [FIELD_U32] = "an integer in [0, 4294967295]",
    [FIELD_U64] = "an integer that is not negative",
    [FIELD_STR] = "a string",
    [FIELD_ARRAY] = "an array",
    [FIELD_OBJECT] = "an object",
};

const struct message_info *message_info(uint32_t type)
{
    return type < MESSAGE_END && messages[type].name != NULL ? &messages[type] : NULL;
}

const char *message_name(uint32_t type)
{
    const struct message_info *info = message_info(type);

    if (type == MESSAGE_NONE) {
        return "none";
    }
    return info != NULL ? info->name : "unknown";
}

static bool has_type(const json_t *value, enum field_type type)
{
    switch (type) {
    case FIELD_U32:
        return json_is_integer(value) && json_integer_value(value) >= 0 &&
               json_integer_value(value) <= UINT32_MAX;
    case FIELD_U64:
        return json_is_integer(value) && json_integer_value(value) >= 0;
    case FIELD_STR:
        return json_is_string(value);
    case FIELD_ARRAY:
        return json_is_array(value);
    case FIELD_OBJECT:
        return json_is_object(value);
    }
    return false;
}

enum status message_check(enum message_type type, const json_t *body, struct err *err)
{
    const struct message_info *info = message_info(type);

    ENSURE(info != NULL && info->form == MESSAGE_JSON);
    if (!json_is_object(body)) {
        return err_set(err, STATUS_CORRUPT, "message %s: the body is no JSON object", info->name);
    }
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct field *field = &fields[i];
        const json_t *value;

        if (field->message != type) {
            continue;
        }
        value = json_object_get(body, field->name);
        if (value == NULL || json_is_null(value)) {
            if (field->need == FIELD_REQUIRED) {
                return err_set(err, STATUS_CORRUPT, "message %s: field %s is missing", info->name,
                               field->name);
            }
        } else if (!has_type(value, field->type)) {
            return err_set(err, STATUS_CORRUPT, "message %s: field %s must be %s", info->name,
                           field->name, type_texts[field->type]);
        }
    }
    return STATUS_OK;
}

uint64_t message_uint(const json_t *body, const char *field, uint64_t fallback)
{
    const json_t *value = json_object_get(body, field);

    return json_is_integer(value) ? (uint64_t)json_integer_value(value) : fallback;
}

const char *message_text(const json_t *body, const char *field, const char *fallback)
{
    const json_t *value = json_object_get(body, field);

    return json_is_string(value) ? json_string_value(value) : fallback;
}

enum error_kind error_kind_of(enum status status)
{
    switch ((int)status) {
    case STATUS_OK:
    case STATUS_PENDING:
        return ERROR_NONE;
#define KIND(id, number, text, status)
#define KIND_OF(which, kind) \
    case which:              \
        return ERROR_##kind;
#include "rpc/error_kinds.def"
#undef KIND
#undef KIND_OF
    default:
        return ERROR_BUG;
    }
}

enum status error_kind_status(uint32_t kind)
{
    switch (kind) {
#define KIND(id, number, text, status) \
    case ERROR_##id:                   \
        return status;
#define KIND_OF(status, kind)
#include "rpc/error_kinds.def"
#undef KIND
#undef KIND_OF
    default:
        return STATUS_BUG;
    }
}

const char *error_kind_text(uint32_t kind)
{
    switch (kind) {
#define KIND(id, number, text, status) \
    case ERROR_##id:                   \
        return text;
#define KIND_OF(status, kind)
#include "rpc/error_kinds.def"
#undef KIND
#undef KIND_OF
    default:
        return "unknown kind";
    }
}

json_t *message_error_body(enum status status, const char *text)
{
    char escaped[ERR_TEXT_BYTES];
    json_t *body = json_object();
    enum error_kind kind = error_kind_of(status);

    /* out of memory inside: the check of the body refuses what is then missing */
    json_object_set_new(body, "kind", json_integer(kind == ERROR_NONE ? ERROR_BUG : kind));
    json_object_set_new(body, "status", json_integer(status));
    json_object_set_new(body, "message", json_string(err_escape(text, escaped, sizeof(escaped))));
    return body;
}

enum status message_error_read(const json_t *body, enum error_kind *ret_kind, struct err *err)
{
    uint64_t kind = message_uint(body, "kind", ERROR_BUG);
    const json_t *number = json_object_get(body, "status");
    json_int_t value = json_integer_value(number); /* 0 where it is none */
    enum status status = error_kind_status((uint32_t)kind);

    if (kind < ERROR_USER || kind > ERROR_BUG) {
        kind = ERROR_BUG;
    }
    /* the peer's own status, where it is one and of that kind */
    if (json_is_integer(number) && value >= -INT32_MAX && value <= INT32_MAX && kind != ERROR_BUG) {
        enum status exact = (enum status)value;

        status = error_kind_of(exact) == kind ? exact : status;
    }
    *ret_kind = (enum error_kind)kind;
    return err_set(err, status, "%s", message_text(body, "message", "no message"));
}
