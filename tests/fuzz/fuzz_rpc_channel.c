/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel whose peer sends anything. The first byte says which side reads (bit 0), how the stream
 * is cut (bits 2 to 7) and whether the rest is the stream itself (bit 1 clear) or pieces {type,
 * sequence number, length of the body u16} + body that are put into frames with right checksums, so
 * that what is behind them is reached too.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "rpc/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EPOCH = 3, MAX_STREAM = 32 << 10 };

static void make_frames(const uint8_t *data, size_t size, struct buf *out)
{
    while (size >= 4 && out->len < MAX_STREAM) {
        size_t length = MIN(data[2] | (size_t)data[3] << 8, size - 4);
        struct frame frame = {.type = data[0],
                              .epoch = EPOCH,
                              .seq = data[1],
                              .body = data + 4,
                              .length = (uint32_t)length};

        ENSURE(frame_append(&frame, out, NULL) == STATUS_OK);
        data += 4 + length;
        size -= 4 + length;
    }
}

/* Takes all there is; what comes out is in order and fits the table. */
static void drain(struct channel *channel)
{
    struct message message;
    struct err err = {0};
    enum status status;

    while ((status = channel_try(channel, &message, &err)) == STATUS_OK) {
        const struct message_info *info = message_info(message.type);

        ENSURE(info != NULL && message.seq == channel->seq && message.n_fds == 0);
        ENSURE((info->direction == MESSAGE_TO_RANK) == (channel->side == CHANNEL_RANK));
        if (info->form == MESSAGE_JSON) {
            ENSURE(message_check(message.type, message.json, NULL) == STATUS_OK);
        }
        if (message.type == MESSAGE_ERROR) {
            enum error_kind kind;

            ENSURE(message_error_read(message.json, &kind, &err) < 0 && kind != ERROR_NONE);
        }
        message_release(&message);
    }
    ENSURE(status == STATUS_PENDING || (status == STATUS_LINK && err.text[0] != '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct channel channel;
    struct buf stream = {0};
    size_t piece;
    int fds[2];

    if (size < 1) {
        return 0;
    }
    if ((data[0] & 2) == 0) {
        buf_append(&stream, data + 1, MIN(size - 1, MAX_STREAM));
    } else {
        make_frames(data + 1, size - 1, &stream);
    }
    ENSURE(channel_pair(fds, NULL) == STATUS_OK);
    channel_init(&channel, fds[0], (data[0] & 1) == 0 ? CHANNEL_LEADER : CHANNEL_RANK, EPOCH,
                 MAX_STREAM);
    if (channel.side == CHANNEL_LEADER && (data[0] & 4) != 0) { /* in the middle of a load */
        channel.seq = 1;
        channel.asked = MESSAGE_LOAD;
        channel.answer = MESSAGE_LOAD_OK;
    }
    piece = (data[0] & 8) == 0 ? MAX_STREAM : 1 + (data[0] >> 4) * 7u;
    for (size_t at = 0; at < stream.len && channel.fd >= 0; at += piece) {
        size_t n = MIN(piece, stream.len - at);

        ENSURE(send(fds[1], stream.data + at, n, MSG_NOSIGNAL) == (ssize_t)n);
        drain(&channel);
    }
    close(fds[1]);
    drain(&channel);
    ENSURE(channel.fd == -1 && channel.n_in_fds == 0);
    channel_release(&channel);
    buf_release(&stream);
    return 0;
}
