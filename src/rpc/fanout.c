/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/fanout.h"

#include "base/clock.h"

static void fail(struct fanout_reply *reply, enum status status)
{
    reply->status = status;
    reply->kind = error_kind_of(status);
}

static void ask(struct channel *const *channels, uint32_t n, const struct fanout_request *request,
                struct fanout_reply *replies)
{
    for (uint32_t r = 0; r < n; r++) {
        const struct message_out *out =
            request->out_per_rank && request->out != NULL ? &request->out[r] : request->out;
        enum status status = STATUS_OK;

        replies[r] = (struct fanout_reply){.status = STATUS_PENDING};
        if (request->type != MESSAGE_NONE) {
            status = channel_request(channels[r], request->type, out, &replies[r].err);
        }
        if (status != STATUS_OK) {
            fail(&replies[r], status);
        }
    }
}

/* Takes what has come from one rank. */
static void collect(struct channel *channel, uint32_t rank, const struct fanout_request *request,
                    struct fanout_reply *reply)
{
    while (reply->status == STATUS_PENDING) {
        struct message message = {0};
        enum status status = channel_try(channel, &message, &reply->err);

        if (status == STATUS_PENDING) {
            return;
        }
        if (status != STATUS_OK) {
            fail(reply, status);
        } else if (message.type == MESSAGE_ERROR) {
            reply->status = message_error_read(message.json, &reply->kind, &reply->err);
            reply->message = message;
        } else if (message_info(message.type)->answer != MESSAGE_NONE) {
            if (request->sign != NULL) {
                request->sign(request->arg, rank, &message);
            }
            message_release(&message);
        } else {
            reply->status = STATUS_OK;
            reply->message = message;
        }
    }
}

/* The ranks' failures in one text; see the header. */
static enum status combine(const struct fanout_reply *replies, uint32_t n, struct err *err)
{
    enum status status = STATUS_OK;
    bool is_cause = false;
    struct err all = {0};
    size_t used = 0;
    size_t left = 0;

    for (uint32_t r = 0; r < n; r++) {
        left += replies[r].status != STATUS_OK;
    }
    for (uint32_t r = 0; r < n; r++) {
        const struct fanout_reply *reply = &replies[r];
        size_t share;
        int wrote;

        if (reply->status == STATUS_OK) {
            continue;
        }
        share = (sizeof(all.text) - used) / left;
        wrote = snprintf(all.text + used, share, "%srank %u: %s", used > 0 ? "; " : "", r,
                         reply->err.text);
        used += MIN((size_t)MAX(wrote, 0), share - 1);
        left--;
        if (status == STATUS_OK || (!is_cause && reply->kind != ERROR_LINK)) {
            status = reply->status;
            is_cause = reply->kind != ERROR_LINK;
        }
    }
    return status == STATUS_OK ? STATUS_OK : err_set(err, status, "%s", all.text);
}

enum status fanout_call(struct channel *const *channels, uint32_t n,
                        const struct fanout_request *request, struct fanout_reply *ret_replies,
                        struct err *err)
{
    struct pollfd fds[FANOUT_MAX_RANKS];

    ENSURE_OP(n, <=, FANOUT_MAX_RANKS);
    ask(channels, n, request, ret_replies);
    for (;;) {
        uint32_t n_waiting = 0;

        for (uint32_t r = 0; r < n; r++) {
            collect(channels[r], r, request, &ret_replies[r]);
            if (ret_replies[r].status == STATUS_PENDING) {
                fds[n_waiting++] = channel_poll(channels[r]);
            }
        }
        if (n_waiting == 0) {
            break;
        }
        if (clock_ns() >= request->deadline_ns ||
            !channel_wait(fds, n_waiting, request->deadline_ns)) {
            break;
        }
    }
    for (uint32_t r = 0; r < n; r++) {
        if (ret_replies[r].status == STATUS_PENDING) {
            fail(&ret_replies[r], err_set(&ret_replies[r].err, STATUS_TIMEOUT, "no %s in time",
                                          message_name(channels[r]->answer)));
        }
    }
    return combine(ret_replies, n, err);
}

void fanout_release(struct fanout_reply *replies, uint32_t n)
{
    for (uint32_t r = 0; r < n; r++) {
        message_release(&replies[r].message);
    }
}
