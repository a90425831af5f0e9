/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "rpc/channel_priv.h"

enum status channel_pair(int ret_fds[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0) {
        return err_set(err, STATUS_IO, "cannot make a socket pair: %s", strerror(errno));
    }
    return STATUS_OK;
}

void channel_init(struct channel *channel, int fd, enum channel_side side, uint64_t epoch,
                  uint32_t max_body)
{
    *channel = (struct channel){
        .fd = fd, .side = side, .epoch = epoch, .asked = MESSAGE_NONE, .answer = MESSAGE_HELLO};
    frame_decoder_init(&channel->in, max_body);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        channel_cut(channel, NULL, "descriptor %d: %s", fd, strerror(errno));
    }
}

static void close_all(int *fds, uint32_t *n_fds)
{
    for (uint32_t i = 0; i < *n_fds; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    *n_fds = 0;
}

static void close_ends(struct channel *channel)
{
    if (channel->fd >= 0) {
        close(channel->fd);
    }
    channel->fd = -1;
    close_all(channel->in_fds, &channel->n_in_fds);
    close_all(channel->out_fds, &channel->n_out_fds);
    frame_decoder_release(&channel->in);
    buf_release(&channel->out);
    channel->sent = 0;
}

void channel_release(struct channel *channel)
{
    close_ends(channel);
    *channel = (struct channel){.fd = -1};
}

enum status channel_cut(struct channel *channel, struct err *err, const char *format, ...)
{
    if (channel->cut.status == STATUS_OK) {
        char text[ERR_TEXT_BYTES];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        err_set(&channel->cut, STATUS_LINK, "%s", text);
        close_ends(channel);
    }
    return err_set(err, STATUS_LINK, "%s", channel->cut.text);
}

void message_release(struct message *message)
{
    json_decref(message->json);
    free(message->bytes);
    close_all(message->fds, &message->n_fds);
    *message = (struct message){0};
}

/* ---- sending ---- */

/* Sends as much as the socket takes; what a peer that is gone would have got is forgotten.
 * STATUS_PENDING: not all. */
static enum status send_some(struct channel *channel, struct err *err)
{
    struct buf *out = &channel->out;

    while (channel->sent < out->len) {
        ssize_t n = channel_send_part(channel);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return STATUS_PENDING;
        }
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            break; /* its last words may still be there to read; the end is noticed after them */
        }
        if (n < 0) {
            return channel_cut(channel, err, "cannot send to the peer: %s", strerror(errno));
        }
        channel->sent += (size_t)n;
    }
    buf_clear(out);
    channel->sent = 0;
    close_all(channel->out_fds, &channel->n_out_fds);
    return STATUS_OK;
}

static enum status keep_fds(struct channel *channel, const struct message_out *out, struct err *err)
{
    channel->out_fds_at = channel->out.len;
    for (uint32_t i = 0; i < out->n_fds; i++) {
        int fd = fcntl(out->fds[i], F_DUPFD_CLOEXEC, 0);

        if (fd < 0) {
            close_all(channel->out_fds, &channel->n_out_fds);
            return err_set(err, STATUS_IO, "cannot pass descriptor %d: %s", out->fds[i],
                           strerror(errno));
        }
        channel->out_fds[channel->n_out_fds++] = fd;
    }
    return STATUS_OK;
}

/* Puts one frame into the queue. Nothing is queued on failure. */
static enum status queue_frame(struct channel *channel, const struct message_info *info,
                               const struct message_out *out, uint64_t seq, struct err *err)
{
    struct buf text = {0};
    struct frame frame = {.type = (uint8_t)info->type,
                          .n_fds = (uint8_t)out->n_fds,
                          .epoch = channel->epoch,
                          .seq = seq,
                          .body = out->bytes,
                          .length = out->n_bytes};
    enum status status = STATUS_OK;

    if (info->form == MESSAGE_JSON) {
        if (out->json != NULL) {
            json_write(&text, out->json, &json_style_compact);
        } else {
            buf_append_str(&text, "{}");
        }
        frame.body = text.data;
        frame.length = (uint32_t)MIN(text.len, UINT32_MAX);
    }
    if (out->n_fds > 0 && channel->n_out_fds > 0) {
        status = err_set(err, STATUS_LIMIT, "message %s: descriptors still wait for the peer",
                         info->name);
    } else if (frame.length > FRAME_MAX_BODY) {
        status = err_set(err, STATUS_LIMIT, "message %s: %u bytes, at most %u can be sent",
                         info->name, frame.length, FRAME_MAX_BODY);
    } else if (channel->out.len + frame.length > CHANNEL_MAX_OUT) {
        status = err_set(err, STATUS_LIMIT, "message %s: the peer does not take what is sent to it",
                         info->name);
    } else if (out->n_fds > 0) {
        status = keep_fds(channel, out, err);
    }
    if (status == STATUS_OK) {
        status = frame_append(&frame, &channel->out, err);
        channel->counters.frames_out++;
    }
    buf_release(&text);
    return status;
}

static enum status send_message(struct channel *channel, enum message_type type,
                                const struct message_out *given, uint64_t seq, struct err *err)
{
    static const struct message_out nothing;
    const struct message_info *info = message_info(type);
    const struct message_out *out = given != NULL ? given : &nothing;
    json_t *empty = NULL;
    enum status status = STATUS_OK;

    ENSURE(info != NULL);
    ENSURE((info->direction == MESSAGE_TO_RANK) == (channel->side == CHANNEL_LEADER));
    ENSURE_OP(out->n_fds, <=, MIN(info->max_fds, CHANNEL_MAX_FDS));
    if (channel->fd < 0) {
        return channel_cut(channel, err, "closed");
    }
    if (info->form == MESSAGE_JSON) {
        empty = json_object();
        status = message_check(type, out->json != NULL ? out->json : empty, err);
        json_decref(empty);
    }
    if (status == STATUS_OK) {
        status = queue_frame(channel, info, out, seq, err);
    }
    if (status == STATUS_OK && send_some(channel, err) == STATUS_LINK) {
        status = STATUS_LINK;
    }
    return status;
}

enum status channel_request(struct channel *channel, enum message_type type,
                            const struct message_out *out, struct err *err)
{
    enum status status = send_message(channel, type, out, channel->seq + 1, err);

    if (status == STATUS_OK) {
        channel->seq++;
        channel->asked = type;
        channel->answer = message_info(type)->answer;
        channel->signs = 0;
    }
    return status;
}

enum status channel_answer(struct channel *channel, enum message_type type,
                           const struct message_out *out, struct err *err)
{
    bool sign = message_info(type) != NULL && message_info(type)->answer != MESSAGE_NONE;
    enum status status;

    ENSURE(sign ? message_info(type)->answer == channel->asked
                : type == channel->answer ||
                      (type == MESSAGE_ERROR && channel->answer != MESSAGE_NONE));
    status = send_message(channel, type, out, channel->seq, err);
    if (status == STATUS_OK && !sign) {
        channel->answer = MESSAGE_NONE;
    }
    return status;
}

enum status channel_answer_error(struct channel *channel, const struct err *why, struct err *err)
{
    json_t *body = message_error_body(why->status, why->text);
    struct message_out out = {.json = body};
    enum status status = channel_answer(channel, MESSAGE_ERROR, &out, err);

    json_decref(body);
    return status;
}

/* ---- waiting ---- */

enum status channel_try(struct channel *channel, struct message *ret_message, struct err *err)
{
    if (channel->fd < 0) {
        return channel_cut(channel, err, "closed");
    }
    if (send_some(channel, err) == STATUS_LINK) {
        return STATUS_LINK;
    }
    return channel_read(channel, ret_message, err);
}

struct pollfd channel_poll(const struct channel *channel)
{
    bool more = channel->sent < channel->out.len;

    return (struct pollfd){.fd = channel->fd, .events = (short)(more ? POLLIN | POLLOUT : POLLIN)};
}

bool channel_wait(struct pollfd *fds, uint32_t n, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = clock_ns();
        uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
        struct timespec limit = {.tv_sec = (time_t)(left / 1000000000u),
                                 .tv_nsec = (long)(left % 1000000000u)};
        int ready = ppoll(fds, n, &limit, NULL);

        if (ready > 0) {
            return true;
        }
        if (ready == 0 || errno != EINTR) {
            return false;
        }
    }
}

enum status channel_receive(struct channel *channel, uint64_t deadline_ns,
                            struct message *ret_message, struct err *err)
{
    for (;;) {
        enum status status = channel_try(channel, ret_message, err);
        struct pollfd fd = channel_poll(channel);

        if (status != STATUS_PENDING) {
            return status;
        }
        if (clock_ns() >= deadline_ns || !channel_wait(&fd, 1, deadline_ns)) {
            return err_set(err, STATUS_TIMEOUT, "no %s in time",
                           channel->side == CHANNEL_RANK ? "request"
                                                         : message_name(channel->answer));
        }
    }
}

enum status channel_flush(struct channel *channel, uint64_t deadline_ns, struct err *err)
{
    for (;;) {
        struct pollfd fd = {.fd = channel->fd, .events = POLLOUT};
        enum status status =
            channel->fd < 0 ? channel_cut(channel, err, "closed") : send_some(channel, err);

        if (status != STATUS_PENDING) {
            return status;
        }
        if (clock_ns() >= deadline_ns || !channel_wait(&fd, 1, deadline_ns)) {
            return err_set(err, STATUS_TIMEOUT, "the peer does not take what is sent to it");
        }
    }
}
