/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two system calls of a channel. Descriptors travel with the first byte of their frame: the
 * kernel hands them out with the read that touches that byte, and not later than the frame is
 * complete, so a queue in order of arrival and the count in each header pair them up again.
 */
#include "rpc/channel_priv.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10 };

union fd_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(CHANNEL_MAX_FDS * sizeof(int))];
};

ssize_t channel_send_part(struct channel *channel)
{
    size_t end = channel->out.len;
    bool with_fds = channel->n_out_fds > 0 && channel->out_fds_at <= channel->sent;
    union fd_control control = {0};
    struct iovec part = {.iov_base = channel->out.data + channel->sent};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;

    if (channel->n_out_fds > 0 && channel->sent < channel->out_fds_at) {
        end = channel->out_fds_at; /* what comes before the frame they belong to */
    }
    part.iov_len = end - channel->sent;
    if (with_fds) {
        size_t bytes = channel->n_out_fds * sizeof(int);
        struct cmsghdr *item = &control.align;

        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(bytes);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(item), channel->out_fds, bytes);
    }
    n = sendmsg(channel->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0 && with_fds) {
        for (uint32_t i = 0; i < channel->n_out_fds; i++) {
            close(channel->out_fds[i]);
        }
        channel->n_out_fds = 0;
    }
    return n;
}

/* Queues the descriptors of one read; false (and all closed) if they are more than a channel may
 * hold. */
static bool take_fds(struct channel *channel, struct msghdr *header)
{
    bool fits = (header->msg_flags & MSG_CTRUNC) == 0;

    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL;
         item = CMSG_NXTHDR(header, item)) {
        size_t n;

        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        n = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(fd));
            if (channel->n_in_fds < CHANNEL_MAX_FDS) {
                channel->in_fds[channel->n_in_fds++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

enum status channel_receive_part(struct channel *channel, struct err *err)
{
    char bytes[READ_BYTES];
    union fd_control control;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    do {
        n = recvmsg(channel->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return STATUS_PENDING;
    }
    if (n < 0) {
        return channel_cut(channel, err, "cannot read from the peer: %s", strerror(errno));
    }
    if (!take_fds(channel, &header)) {
        return channel_cut(channel, err, "the peer sent more than %d descriptors", CHANNEL_MAX_FDS);
    }
    if (n == 0) {
        return channel_cut(channel, err, "the peer closed the channel%s",
                           frame_decoder_held(&channel->in) > 0 ? " in the middle of a frame" : "");
    }
    frame_decoder_push(&channel->in, bytes, (size_t)n);
    return STATUS_OK;
}
