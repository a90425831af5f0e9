/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/frame.h"

#include <xxhash.h>

/* Where the fields are; see the header. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_TYPE = 6,
    AT_FDS = 7,
    AT_EPOCH = 8,
    AT_SEQ = 16,
    AT_LENGTH = 24,
    AT_CHECKSUM = 28,
};

static void put(uint8_t *at, uint64_t value, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *at, size_t n_bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static uint32_t checksum(const uint8_t *header, const void *body, size_t length)
{
    XXH64_hash_t seed = XXH3_64bits(header, AT_CHECKSUM);

    return (uint32_t)XXH3_64bits_withSeed(length > 0 ? body : header, length, seed);
}

enum status frame_append(const struct frame *frame, struct buf *out, struct err *err)
{
    uint8_t header[FRAME_HEADER_BYTES];

    if (frame->length > FRAME_MAX_BODY) {
        return err_set(err, STATUS_LIMIT, "frame of %u bytes, at most %u can be sent",
                       frame->length, FRAME_MAX_BODY);
    }
    put(header + AT_MAGIC, FRAME_MAGIC, 4);
    put(header + AT_VERSION, FRAME_VERSION, 2);
    put(header + AT_TYPE, frame->type, 1);
    put(header + AT_FDS, frame->n_fds, 1);
    put(header + AT_EPOCH, frame->epoch, 8);
    put(header + AT_SEQ, frame->seq, 8);
    put(header + AT_LENGTH, frame->length, 4);
    put(header + AT_CHECKSUM, checksum(header, frame->body, frame->length), 4);
    buf_append(out, header, sizeof(header));
    if (frame->length > 0) {
        buf_append(out, frame->body, frame->length);
    }
    return STATUS_OK;
}

void frame_decoder_init(struct frame_decoder *decoder, uint32_t max_body)
{
    ENSURE_OP(max_body, <=, FRAME_MAX_BODY);
    *decoder = (struct frame_decoder){.max_body = max_body};
}

void frame_decoder_release(struct frame_decoder *decoder)
{
    buf_release(&decoder->data);
    decoder->taken = 0;
}

void frame_decoder_push(struct frame_decoder *decoder, const void *bytes, size_t n)
{
    struct buf *data = &decoder->data;

    if (decoder->taken > 0) {
        memmove(data->data, data->data + decoder->taken, data->len - decoder->taken);
        data->len -= decoder->taken;
        decoder->taken = 0;
    }
    if (n > 0 && decoder->fault == FRAME_FAULT_NONE) {
        buf_append(data, bytes, n);
    }
}

/* Says what fault means; values are those of the header at hand, shown where they explain it. */
static enum status report(const struct frame_decoder *decoder, const uint8_t *header,
                          struct err *err)
{
    switch (decoder->fault) {
    case FRAME_FAULT_NONE:
        return STATUS_OK;
    case FRAME_FAULT_MAGIC:
        return err_set(err, STATUS_CORRUPT, "frame: bad magic %08x",
                       (uint32_t)get(header + AT_MAGIC, 4));
    case FRAME_FAULT_VERSION:
        return err_set(err, STATUS_UNSUPPORTED, "frame: version %u, this program speaks %u",
                       (uint32_t)get(header + AT_VERSION, 2), FRAME_VERSION);
    case FRAME_FAULT_LENGTH:
        return err_set(err, STATUS_LIMIT, "frame: length %u, at most %u is taken",
                       (uint32_t)get(header + AT_LENGTH, 4), decoder->max_body);
    case FRAME_FAULT_CHECKSUM:
        return err_set(err, STATUS_CORRUPT, "frame: wrong checksum (type %u, length %u)",
                       header[AT_TYPE], (uint32_t)get(header + AT_LENGTH, 4));
    }
    return STATUS_CORRUPT;
}

/* The header is judged before its body is waited for, so that rubbish cannot ask for patience. */
static enum frame_fault header_fault(const struct frame_decoder *decoder, const uint8_t *header)
{
    if (get(header + AT_MAGIC, 4) != FRAME_MAGIC) {
        return FRAME_FAULT_MAGIC;
    }
    if (get(header + AT_VERSION, 2) != FRAME_VERSION) {
        return FRAME_FAULT_VERSION;
    }
    if (get(header + AT_LENGTH, 4) > decoder->max_body) {
        return FRAME_FAULT_LENGTH;
    }
    return FRAME_FAULT_NONE;
}

enum status frame_decoder_next(struct frame_decoder *decoder, struct frame *ret_frame,
                               struct err *err)
{
    size_t held = frame_decoder_held(decoder);
    const uint8_t *header;
    uint32_t length;

    if (held < FRAME_HEADER_BYTES) {
        return STATUS_PENDING;
    }
    header = (const uint8_t *)decoder->data.data + decoder->taken;
    if (decoder->fault == FRAME_FAULT_NONE) {
        decoder->fault = header_fault(decoder, header);
    }
    if (decoder->fault != FRAME_FAULT_NONE) {
        return report(decoder, header, err);
    }
    length = (uint32_t)get(header + AT_LENGTH, 4);
    if (held - FRAME_HEADER_BYTES < length) {
        return STATUS_PENDING;
    }
    if (checksum(header, header + FRAME_HEADER_BYTES, length) != get(header + AT_CHECKSUM, 4)) {
        decoder->fault = FRAME_FAULT_CHECKSUM;
        return report(decoder, header, err);
    }
    *ret_frame = (struct frame){
        .type = header[AT_TYPE],
        .n_fds = header[AT_FDS],
        .epoch = get(header + AT_EPOCH, 8),
        .seq = get(header + AT_SEQ, 8),
        .body = header + FRAME_HEADER_BYTES,
        .length = length,
    };
    decoder->taken += FRAME_HEADER_BYTES + length;
    return STATUS_OK;
}

size_t frame_decoder_held(const struct frame_decoder *decoder)
{
    return decoder->data.len - decoder->taken;
}
