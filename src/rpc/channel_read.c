/* SPDX-License-Identifier: Apache-2.0 */
/* Which received frames are messages that this side waits for. */
#include "rpc/channel_priv.h"

#include <unistd.h>

#include "base/mem.h"

/* Reads in one call: a peer that never stops must not keep its reader from the others. */
enum { MAX_READS = 16 };

/* The first n queued descriptors, out of the queue. */
static void dequeue_fds(struct channel *channel, uint32_t n, int *ret_fds)
{
    memcpy(ret_fds, channel->in_fds, n * sizeof(int));
    channel->n_in_fds -= n;
    memmove(channel->in_fds, channel->in_fds + n, channel->n_in_fds * sizeof(int));
}

/* True for a frame of this epoch whose number is one that may come now. */
static bool is_expected(struct channel *channel, const struct frame *frame)
{
    if (frame->epoch != channel->epoch) {
        channel->counters.dropped_epoch++;
        return false;
    }
    if (channel->side == CHANNEL_LEADER
            ? frame->seq != channel->seq || channel->answer == MESSAGE_NONE
            : frame->seq <= channel->seq) {
        channel->counters.dropped_seq++;
        return false;
    }
    return true;
}

/* A message of the table, in the right direction, and for the leader one that the request allows.
 * Cuts the peer off otherwise. */
static enum status check_type(struct channel *channel, const struct frame *frame, struct err *err)
{
    const struct message_info *info = message_info(frame->type);
    bool to_rank = channel->side == CHANNEL_RANK;

    if (info == NULL) {
        return channel_cut(channel, err, "the peer sent an unknown message (type %u)", frame->type);
    }
    if ((info->direction == MESSAGE_TO_RANK) != to_rank) {
        return channel_cut(channel, err, "the peer sent %s, which is not its to send", info->name);
    }
    if (frame->n_fds > info->max_fds) {
        return channel_cut(channel, err,
                           "the peer sent %u descriptors with %s, at most %u may come",
                           frame->n_fds, info->name, info->max_fds);
    }
    if (to_rank || info->type == channel->answer || info->type == MESSAGE_ERROR) {
        return STATUS_OK;
    }
    if (info->answer == MESSAGE_NONE || info->answer != channel->asked) {
        return channel_cut(channel, err, "the peer sent %s where %s is due", info->name,
                           message_name(channel->answer));
    }
    channel->signs++;
    if (channel->signs > CHANNEL_MAX_SIGNS) {
        return channel_cut(channel, err, "the peer floods the channel with %s", info->name);
    }
    return STATUS_OK;
}

static enum status read_body(struct channel *channel, const struct frame *frame,
                             struct message *message, struct err *err)
{
    struct err why = {0};

    if (message_info(frame->type)->form == MESSAGE_BINARY) {
        message->bytes = mem_alloc(frame->length, 1);
        if (message->bytes == NULL) {
            return channel_cut(channel, err, "no memory for a message of %u bytes", frame->length);
        }
        memcpy(message->bytes, frame->body, frame->length);
        message->n_bytes = frame->length;
        return STATUS_OK;
    }
    if (json_parse(frame->body, frame->length, &message->json, &why) != STATUS_OK) {
        return channel_cut(channel, err, "message %s: %s", message_name(frame->type), why.text);
    }
    if (message_check((enum message_type)frame->type, message->json, &why) != STATUS_OK) {
        return channel_cut(channel, err, "%s", why.text);
    }
    return STATUS_OK;
}

/* STATUS_PENDING: the frame was not wanted. */
static enum status accept_frame(struct channel *channel, const struct frame *frame,
                                struct message *ret_message, struct err *err)
{
    struct message message = {.type = (enum message_type)frame->type, .seq = frame->seq};
    enum status status;

    if (frame->n_fds > channel->n_in_fds) {
        return channel_cut(channel, err, "the peer announced %u descriptors and sent %u",
                           frame->n_fds, channel->n_in_fds);
    }
    dequeue_fds(channel, frame->n_fds, message.fds);
    message.n_fds = frame->n_fds;
    channel->counters.frames_in++;
    if (!is_expected(channel, frame)) {
        status = STATUS_PENDING;
        channel->dropped++;
        if (channel->dropped > CHANNEL_MAX_DROPPED) {
            status = channel_cut(channel, err,
                                 "the peer floods the channel: %u frames in a row that "
                                 "nobody asked for",
                                 channel->dropped);
        }
        message_release(&message);
        return status;
    }
    status = check_type(channel, frame, err);
    if (status == STATUS_OK) {
        status = read_body(channel, frame, &message, err);
    }
    if (status != STATUS_OK) {
        message_release(&message);
        return status;
    }
    channel->dropped = 0;
    if (channel->side == CHANNEL_RANK) {
        channel->seq = frame->seq;
        channel->asked = message.type;
        channel->answer = message_info(message.type)->answer;
    } else if (message_info(message.type)->answer == MESSAGE_NONE) {
        channel->answer = MESSAGE_NONE;
    }
    *ret_message = message;
    return STATUS_OK;
}

enum status channel_read(struct channel *channel, struct message *ret_message, struct err *err)
{
    uint32_t reads = 0;

    for (;;) {
        struct frame frame;
        struct err why = {0};
        enum status status = frame_decoder_next(&channel->in, &frame, &why);

        if (status == STATUS_OK) {
            status = accept_frame(channel, &frame, ret_message, err);
            if (status != STATUS_PENDING) {
                return status;
            }
            continue;
        }
        if (status != STATUS_PENDING) {
            return channel_cut(channel, err, "the peer sent rubbish: %s", why.text);
        }
        if (reads++ == MAX_READS) {
            return STATUS_PENDING;
        }
        status = channel_receive_part(channel, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}
