/* SPDX-License-Identifier: Apache-2.0 */
/* The message table is complete and consistent, its check names message and field, kinds of error
 * map both ways. */
#include "helpers.h"

#include "rpc/message.h"

static void test_table(void **state)
{
    uint32_t n = 0;

    (void)state;
#define MESSAGE(id, number, text, to, reply, body, fds)          \
    n++;                                                         \
    assert_int_equal(MESSAGE_##id, n); /* numbers have no gap */ \
    assert_string_equal(message_name(n), text);                  \
    assert_int_equal(message_info(n)->direction, MESSAGE_##to);  \
    assert_int_equal(message_info(n)->answer, MESSAGE_##reply);  \
    assert_int_equal(message_info(n)->form, MESSAGE_##body);     \
    assert_int_equal(message_info(n)->max_fds, fds);
#define FIELD(message, name, type, need)
#include "rpc/messages.def"
#undef MESSAGE
#undef FIELD
    assert_int_equal(n + 1, MESSAGE_END);
    assert_null(message_info(0));
    assert_null(message_info(MESSAGE_END));
    assert_null(message_info(UINT32_MAX));
    assert_string_equal(message_name(0), "none");
    assert_string_equal(message_name(MESSAGE_END), "unknown");
}

static void test_table_consistent(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < MESSAGE_END; i++) {
        const struct message_info *info = message_info(i);

        for (uint32_t j = 1; j < i; j++) {
            assert_string_not_equal(info->name, message_name(j));
        }
        if (info->direction == MESSAGE_TO_RANK) { /* each request has an answer that is one */
            assert_non_null(message_info(info->answer));
            assert_int_equal(message_info(info->answer)->direction, MESSAGE_TO_LEADER);
            assert_int_equal(message_info(info->answer)->answer, MESSAGE_NONE);
        } else if (info->answer != MESSAGE_NONE) { /* a sign of life belongs to a request */
            assert_int_equal(message_info(info->answer)->direction, MESSAGE_TO_RANK);
        }
    }
}

/* A value of the right type for a field. */
static json_t *right(const char *type)
{
    if (strcmp(type, "STR") == 0) {
        return json_string("x");
    }
    if (strcmp(type, "ARRAY") == 0) {
        return json_array();
    }
    return strcmp(type, "OBJECT") == 0 ? json_object() : json_integer(3);
}

struct field {
    enum message_type message;
    const char *name;
    const char *type;
    bool required;
};

enum { REQUIRED = 1, OPTIONAL = 0 };

static const struct field fields[] = {
#define MESSAGE(id, number, text, to, reply, body, fds)
#define FIELD(message, name, type, need) {MESSAGE_##message, name, #type, need},
#include "rpc/messages.def"
#undef MESSAGE
#undef FIELD
};

static json_t *full_body(enum message_type type)
{
    json_t *body = json_object();

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (fields[i].message == type) {
            json_object_set_new(body, fields[i].name, right(fields[i].type));
        }
    }
    return body;
}

static void expect_named(const struct field *field, const json_t *body)
{
    char place[200];
    struct err err = {0};

    snprintf(place, sizeof(place), "message %s: field %s ", message_name(field->message),
             field->name);
    assert_int_equal(message_check(field->message, body, &err), STATUS_CORRUPT);
    assert_int_equal(strncmp(err.text, place, strlen(place)), 0);
}

/* Every field of the table: missing, null, each wrong type; further fields are ignored. */
static void test_every_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct field *field = &fields[i];
        json_t *body = full_body(field->message);
        json_t *wrong[] = {json_true(),   json_real(1.5),   json_integer(-1),       json_array(),
                           json_object(), json_string("y"), json_integer(INT64_MAX)};

        assert_int_equal(message_info(field->message)->form, MESSAGE_JSON);
        json_object_set_new(body, "future", json_integer(1));
        assert_int_equal(message_check(field->message, body, NULL), STATUS_OK);
        for (size_t w = 0; w < ARRAY_LEN(wrong); w++) {
            bool fits = (strcmp(field->type, "STR") == 0 && json_is_string(wrong[w])) ||
                        (strcmp(field->type, "ARRAY") == 0 && json_is_array(wrong[w])) ||
                        (strcmp(field->type, "OBJECT") == 0 && json_is_object(wrong[w])) ||
                        (strcmp(field->type, "U64") == 0 && w == ARRAY_LEN(wrong) - 1);

            json_object_set_new(body, field->name, wrong[w]);
            if (!fits) {
                expect_named(field, body);
            } else {
                assert_int_equal(message_check(field->message, body, NULL), STATUS_OK);
            }
        }
        for (int absent = 0; absent < 2; absent++) {
            if (absent) {
                json_object_del(body, field->name);
            } else {
                json_object_set_new(body, field->name, json_null());
            }
            if (field->required) {
                expect_named(field, body);
            } else {
                assert_int_equal(message_check(field->message, body, NULL), STATUS_OK);
            }
        }
        json_decref(body);
    }
}

static void test_not_an_object(void **state)
{
    json_t *body = json_array();
    struct err err = {0};

    (void)state;
    assert_int_equal(message_check(MESSAGE_PING, body, &err), STATUS_CORRUPT);
    assert_string_equal(err.text, "message ping: the body is no JSON object");
    assert_int_equal(message_check(MESSAGE_PING, NULL, &err), STATUS_CORRUPT);
    json_decref(body);
}

static void test_kinds(void **state)
{
    static const enum status all[] = {
#define STATUS(name, value, text) STATUS_##name,
#include "base/status.def"
#undef STATUS
    };
    uint32_t n = 0;

    (void)state;
#define KIND(id, number, text, status)              \
    n++;                                            \
    assert_int_equal(ERROR_##id, n);                \
    assert_string_equal(error_kind_text(n), text);  \
    assert_int_equal(error_kind_status(n), status); \
    assert_int_equal(error_kind_of(status), n); /* there and back */
#define KIND_OF(status, kind)
#include "rpc/error_kinds.def"
#undef KIND
#undef KIND_OF
    assert_int_equal(n, 5);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        assert_int_equal(error_kind_of(all[i]) == ERROR_NONE, all[i] >= 0);
        /* only what is meant to be a bug is counted as one: each status was thought about */
        assert_int_equal(error_kind_of(all[i]) == ERROR_BUG, all[i] == STATUS_BUG);
    }
    assert_int_equal(error_kind_of((enum status) - 99), ERROR_BUG);
    assert_int_equal(error_kind_status(77), STATUS_BUG);
    assert_string_equal(error_kind_text(0), "unknown kind");
}

static void test_error_body(void **state)
{
    (void)state;
#define STATUS(name, value, words)                                                  \
    if ((value) < 0) {                                                              \
        json_t *body = message_error_body(STATUS_##name, "file \x01 \xff: " words); \
        struct err err = {0};                                                       \
        enum error_kind kind;                                                       \
                                                                                    \
        assert_int_equal(message_check(MESSAGE_ERROR, body, NULL), STATUS_OK);      \
        assert_int_equal(message_error_read(body, &kind, &err), STATUS_##name);     \
        assert_int_equal(err.status, STATUS_##name);                                \
        assert_int_equal(kind, error_kind_of(STATUS_##name));                       \
        assert_string_equal(err.text, "file \\x01 \\xff: " words);                  \
        json_decref(body);                                                          \
    }
#include "base/status.def"
#undef STATUS
}

/* A peer that says more, less or other than this version: the kind decides. */
static void test_error_foreign(void **state)
{
    static const struct {
        int64_t kind;
        int64_t status;
        enum status expected;
        enum error_kind expected_kind;
    } cases[] = {
        {ERROR_MEMORY, -99, STATUS_NO_MEMORY, ERROR_MEMORY},
        {ERROR_MEMORY, STATUS_LINK, STATUS_NO_MEMORY, ERROR_MEMORY},
        {ERROR_USER, STATUS_NOT_FOUND, STATUS_NOT_FOUND, ERROR_USER},
        {ERROR_USER, 0, STATUS_INVALID, ERROR_USER},
        {ERROR_BUG, -99, STATUS_BUG, ERROR_BUG},
        {ERROR_USER, INT64_MIN, STATUS_INVALID, ERROR_USER},
        {77, -1, STATUS_BUG, ERROR_BUG},
        {0, 0, STATUS_BUG, ERROR_BUG},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *body = json_pack("{s:I, s:I, s:s}", "kind", (json_int_t)cases[i].kind, "status",
                                 (json_int_t)cases[i].status, "message", "m");
        struct err err = {0};
        enum error_kind kind;

        assert_int_equal(message_error_read(body, &kind, &err), cases[i].expected);
        assert_int_equal(kind, cases[i].expected_kind);
        assert_string_equal(err.text, "m");
        json_decref(body);
    }
}

static void test_fields(void **state)
{
    json_t *body = json_pack("{s:i, s:s}", "n", 5, "t", "x");

    (void)state;
    assert_int_equal(message_uint(body, "n", 7), 5);
    assert_int_equal(message_uint(body, "m", 7), 7);
    assert_string_equal(message_text(body, "t", "d"), "x");
    assert_null(message_text(body, "u", NULL));
    json_decref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),         cmocka_unit_test(test_table_consistent),
        cmocka_unit_test(test_every_field),   cmocka_unit_test(test_not_an_object),
        cmocka_unit_test(test_kinds),         cmocka_unit_test(test_error_body),
        cmocka_unit_test(test_error_foreign), cmocka_unit_test(test_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
