/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: how messages travel on a byte stream between two processes. All numbers are little
 * endian:
 *
 *   0  magic u32 "LSRP"      16  sequence number u64
 *   4  version u16           24  length of the body u32
 *   6  type u8               28  checksum u32: low half of XXH3-64 of the body, seeded with the
 *   7  descriptors u8            XXH3-64 of the header's first 28 bytes
 *   8  world epoch u64       32  body, at most FRAME_MAX_BODY bytes
 *
 * `descriptors` counts the file descriptors that came with the frame's first byte. A decoder takes
 * the stream in pieces of any size. A stream whose frames are wrong once has lost its place: the
 * decoder says what was wrong and stays failed. Epoch and sequence number are the channel's
 * business (channel.h), meaning and form of the body the message table's (message.h).
 *
 * No I/O; one thread at a time.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum { FRAME_HEADER_BYTES = 32, FRAME_VERSION = 1, FRAME_MAX_BODY = 16 << 20 };

#define FRAME_MAGIC UINT32_C(0x5052534c)

struct frame {
    uint8_t type;
    uint8_t n_fds;
    uint64_t epoch;
    uint64_t seq;
    const void *body; /* borrowed */
    uint32_t length;
};

/* Appends the frame's bytes. STATUS_LIMIT, and nothing appended, if the body is too long. */
NODISCARD enum status frame_append(const struct frame *frame, struct buf *out, struct err *err);

/* What was wrong with a stream. */
enum frame_fault {
    FRAME_FAULT_NONE,
    FRAME_FAULT_MAGIC,    /* STATUS_CORRUPT */
    FRAME_FAULT_VERSION,  /* STATUS_UNSUPPORTED */
    FRAME_FAULT_LENGTH,   /* STATUS_LIMIT */
    FRAME_FAULT_CHECKSUM, /* STATUS_CORRUPT */
};

struct frame_decoder {
    struct buf data;
    size_t taken; /* bytes of data that earlier frames used */
    uint32_t max_body;
    enum frame_fault fault;
};

/* max_body: at most FRAME_MAX_BODY. A decoder never holds more than one such frame and one push, if
 * the caller takes every frame before it pushes again. */
void frame_decoder_init(struct frame_decoder *decoder, uint32_t max_body);
void frame_decoder_release(struct frame_decoder *decoder);

/* Adds n bytes of the stream; ends the life of the body last returned. */
void frame_decoder_push(struct frame_decoder *decoder, const void *bytes, size_t n);

/* The next frame, its body valid until the next push. STATUS_PENDING: more bytes are needed.
 * Errors as enum frame_fault says; the same again on every later call. */
NODISCARD enum status frame_decoder_next(struct frame_decoder *decoder, struct frame *ret_frame,
                                         struct err *err);

/* Bytes that belong to no complete frame yet. */
size_t frame_decoder_held(const struct frame_decoder *decoder);
