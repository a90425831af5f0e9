/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to every rank and all their answers, with one deadline. Every rank is asked and every
 * answer is taken, also when one fails early: an answer that is left in a channel would be taken
 * for the next one by a system that counts on order. The combined error names each rank that
 * failed: "rank 1: out of memory; rank 3: no load_ok in time". One thread (that of the channels).
 */
#pragma once

#include "rpc/channel.h"

enum { FANOUT_MAX_RANKS = 64 };

typedef void fanout_sign_fn(void *arg, uint32_t rank, const struct message *message);

struct fanout_request {
    enum message_type type; /* MESSAGE_NONE: nothing is asked, the owed answers are awaited */
    const struct message_out *out; /* NULL; or one for all; or [n] */
    bool out_per_rank;
    uint64_t deadline_ns;
    fanout_sign_fn *sign; /* NULL, or called for each sign of life */
    void *arg;
};

/* What came of one rank. */
struct fanout_reply {
    enum status status;     /* STATUS_OK: message is the answer */
    enum error_kind kind;   /* of the failure */
    struct message message; /* zero if there is none */
    struct err err;
};

/* Asks and waits; ret_replies [n] are always filled (fanout_release). STATUS_OK if all answered.
 * Otherwise err has all the failures, in the order of ranks, each cut to its share of the text, and
 * the status is that of the first rank whose failure is not of kind link, because link errors
 * follow from others; of the first failing rank if there is none such. */
NODISCARD enum status fanout_call(struct channel *const *channels, uint32_t n,
                                  const struct fanout_request *request,
                                  struct fanout_reply *ret_replies, struct err *err);

void fanout_release(struct fanout_reply *replies, uint32_t n);
