/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as clients get them: status, and a body with message, type, param and code. Plain data;
 * any thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

/* Zero: no error. */
struct api_error {
    int status;       /* HTTP; 0: none */
    const char *type; /* static */
    const char *code; /* static; NULL */
    char param[96];   /* the field; "" if none */
    char message[ERR_TEXT_BYTES];
    uint32_t retry_after; /* seconds; 0: not said */
    bool no_retry;        /* clients are told not to send it again */
};

/* All return false, so that a parser can write: return api_error_field(...). */

/* 400: the field's value is wrong. */
bool api_error_field(struct api_error *error, const char *field, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* Any status: type and code follow from it where code is NULL. */
bool api_error_set(struct api_error *error, int status, const char *code, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* {"error":{"message","type","param","code"}} */
void api_error_body(const struct api_error *error, struct buf *out);
