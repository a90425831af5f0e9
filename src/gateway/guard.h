/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer must be that its client forces to call a tool (tool_choice: required, or a named
 * one): at least one call, each of a tool there is, each with one JSON object for arguments. Told
 * of the parser's events, the guard drops what stands behind a complete object and says at the end
 * what is missing.
 *
 * Where the prompt ends with the object's first byte (request_spec.forced_object), it also says of
 * a token, before it is taken, that it cannot go on with the object; who asks may then have another
 * one sampled in its place.
 *
 * One choice's; one thread.
 */
#pragma once

#include "chat/json_scan.h"
#include "gateway/request.h"

struct call_guard {
    const struct request_spec *spec; /* borrowed */
    struct json_scan scan;           /* of the present call's arguments, as they are told */
    struct json_scan ahead;          /* of the first call's, as they are sampled */
    bool is_ahead;                   /* they have begun and not ended */
    bool is_done;                    /* they have ended */
    bool is_complete;                /* the present call's arguments, as they are told */
    uint32_t n_calls;
    char why[160]; /* what is wrong, "" */
};

void call_guard_init(struct call_guard *guard, const struct request_spec *spec);
void call_guard_release(struct call_guard *guard);

/* True if the answer cannot go on with this token. Otherwise it is taken, and it does. */
NODISCARD bool call_guard_refuses(struct call_guard *guard, int32_t token);
/* Appends the tokens, of so many, that it would refuse now. */
NODISCARD enum status call_guard_refused(const struct call_guard *guard, uint32_t n_tokens,
                                         struct token_ids *out);
/* True if the answer is over once the tokens so far are told: no other call is wanted. */
bool call_guard_is_over(const struct call_guard *guard);

/* Shortens an event of the output to what is to be told. False: nothing of it is. */
NODISCARD bool call_guard_take(struct call_guard *guard, struct output_event *event);

/* Behind the last event: what is wrong with the answer, NULL. */
const char *call_guard_why(struct call_guard *guard);
