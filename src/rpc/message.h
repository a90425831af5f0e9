/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may be said between leader and rank: the table of messages.def as data, the check of a body
 * against it, and the kinds of error. Not how it travels (frame.h, channel.h).
 *
 * Static tables and pure functions; any thread.
 */
#pragma once

#include "json/json.h"

enum message_type {
    MESSAGE_NONE,
#define MESSAGE(id, number, name, direction, answer, body, max_fds) MESSAGE_##id = (number),
#define FIELD(message, name, type, need)
#include "rpc/messages.def"
#undef MESSAGE
#undef FIELD
    MESSAGE_END, /* one more than the greatest number */
};

enum message_direction { MESSAGE_TO_RANK, MESSAGE_TO_LEADER };
enum message_form { MESSAGE_JSON, MESSAGE_BINARY };

struct message_info {
    enum message_type type;
    const char *name;
    enum message_direction direction;
    enum message_type answer; /* of a request; otherwise the request it is a sign of life for, or
                                 MESSAGE_NONE */
    enum message_form form;
    uint32_t max_fds;
};

/* NULL if there is no such message. */
const struct message_info *message_info(uint32_t type);

/* "ping"; "none" or "unknown" where there is no such message. Static text. */
const char *message_name(uint32_t type);

/* Checks a JSON body: all required fields there, all known ones of the right type. STATUS_CORRUPT,
 * naming message and field. type must be a JSON message. */
NODISCARD enum status message_check(enum message_type type, const json_t *body, struct err *err);

/* Fields of a body that passed the check; fallback where an optional one is absent. Text is
 * borrowed from the body. */
uint64_t message_uint(const json_t *body, const char *field, uint64_t fallback);
const char *message_text(const json_t *body, const char *field, const char *fallback);

enum error_kind {
    ERROR_NONE,
#define KIND(id, number, text, status) ERROR_##id = (number),
#define KIND_OF(status, kind)
#include "rpc/error_kinds.def"
#undef KIND
#undef KIND_OF
};

/* The kind of a failing status; ERROR_NONE for STATUS_OK and STATUS_PENDING, ERROR_BUG for a
 * number that is no status. */
enum error_kind error_kind_of(enum status status);
/* The status that stands for the kind; STATUS_BUG for a number that is no kind. */
enum status error_kind_status(uint32_t kind);
const char *error_kind_text(uint32_t kind); /* "memory"; "unknown kind". Static text */

/* Body of an error message, a new reference. Text that is not UTF-8 is escaped. */
json_t *message_error_body(enum status status, const char *text);
/* The other way: sets err from the body of an error message and returns its status; *ret_kind may
 * differ from the kind of that status only if the peer says so. */
enum status message_error_read(const json_t *body, enum error_kind *ret_kind, struct err *err);
