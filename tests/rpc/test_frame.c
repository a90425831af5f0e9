/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: the bytes on the wire, any division of the stream, every corruption named. */
#include "helpers.h"

#include "rpc/frame.h"

static void append(struct buf *out, uint8_t type, uint64_t seq, const void *body, size_t length)
{
    struct frame frame = {
        .type = type, .n_fds = 2, .epoch = 7, .seq = seq, .body = body, .length = (uint32_t)length};

    assert_int_equal(frame_append(&frame, out, NULL), STATUS_OK);
}

/* The layout is a contract between versions: these bytes may not change unless FRAME_VERSION does.
 */
static void test_bytes(void **state)
{
    static const uint8_t expected[] = {
        'L', 'S', 'R', 'P', 1, 0, 5, 2, 7, 0, 0, 0,    0,    0,    0,    0,   8,
        9,   0,   0,   0,   0, 0, 0, 2, 0, 0, 0, 0x46, 0xf5, 0x3f, 0xb5, '{', '}',
    };
    struct buf out = {0};

    (void)state;
    append(&out, 5, 0x0908, "{}", 2);
    assert_int_equal(out.len, sizeof(expected));
    assert_memory_equal(out.data, expected, sizeof(expected));
    buf_release(&out);
}

static void test_too_long(void **state)
{
    struct frame frame = {.type = 1, .body = "", .length = FRAME_MAX_BODY + 1};
    struct buf out = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(frame_append(&frame, &out, &err), STATUS_LIMIT);
    assert_string_equal(err.text, "frame of 16777217 bytes, at most 16777216 can be sent");
    assert_int_equal(out.len, 0);
}

/* A stream of frames of random lengths, pushed in random pieces, comes out the same. */
static void run_split(struct random *random, uint32_t n_frames, size_t max_piece)
{
    struct frame_decoder decoder;
    struct buf stream = {0};
    struct frame frame;
    uint8_t body[700];
    size_t at = 0;
    uint32_t seen = 0;

    for (uint32_t i = 0; i < n_frames; i++) {
        size_t length = random_below(random, i % 3 == 0 ? 3 : sizeof(body));

        memset(body, (int)i, sizeof(body));
        append(&stream, (uint8_t)i, i, body, length);
    }
    frame_decoder_init(&decoder, 1000);
    while (at < stream.len) {
        size_t piece = 1 + random_below(random, max_piece);
        size_t n = MIN(piece, stream.len - at);
        enum status status;

        frame_decoder_push(&decoder, stream.data + at, n);
        at += n;
        while ((status = frame_decoder_next(&decoder, &frame, NULL)) == STATUS_OK) {
            assert_int_equal(frame.type, (uint8_t)seen);
            assert_int_equal(frame.n_fds, 2);
            assert_int_equal(frame.epoch, 7);
            assert_int_equal(frame.seq, seen);
            for (uint32_t i = 0; i < frame.length; i++) {
                assert_int_equal(((const uint8_t *)frame.body)[i], (uint8_t)seen);
            }
            seen++;
        }
        assert_int_equal(status, STATUS_PENDING);
    }
    assert_int_equal(seen, n_frames);
    assert_int_equal(frame_decoder_held(&decoder), 0);
    frame_decoder_release(&decoder);
    buf_release(&stream);
}

static void test_splits(void **state)
{
    struct random random = random_start("splits");

    (void)state;
    run_split(&random, 30, 1);
    for (uint32_t i = 0; i < 200; i++) {
        run_split(&random, 30, 1 + random_below(&random, 2000));
    }
}

static void expect_fault(const struct buf *stream, enum frame_fault fault, enum status status,
                         const char *text)
{
    struct frame_decoder decoder;
    struct frame frame = {.type = 99};
    struct err err = {0};

    frame_decoder_init(&decoder, 100);
    frame_decoder_push(&decoder, stream->data, stream->len);
    for (int i = 0; i < 2; i++) { /* it stays failed, and takes no more */
        assert_int_equal(frame_decoder_next(&decoder, &frame, &err), status);
        assert_int_equal(decoder.fault, fault);
        assert_non_null(strstr(err.text, text));
        assert_int_equal(frame.type, 99);
        frame_decoder_push(&decoder, stream->data, stream->len);
        assert_int_equal(decoder.data.len, stream->len);
    }
    frame_decoder_release(&decoder);
}

static void test_faults(void **state)
{
    struct buf out = {0};

    (void)state;
    append(&out, 1, 1, "0123456789", 10);
    out.data[0] ^= 1;
    expect_fault(&out, FRAME_FAULT_MAGIC, STATUS_CORRUPT, "bad magic 5052534d");
    out.data[0] ^= 1;
    out.data[4] = 9;
    expect_fault(&out, FRAME_FAULT_VERSION, STATUS_UNSUPPORTED, "version 9, this program speaks 1");
    out.data[4] = 1;
    out.data[24] = 101;
    expect_fault(&out, FRAME_FAULT_LENGTH, STATUS_LIMIT, "length 101, at most 100");
    out.data[24] = 9;
    expect_fault(&out, FRAME_FAULT_CHECKSUM, STATUS_CORRUPT, "wrong checksum");
    out.data[24] = 10;
    /* the length is judged from the header alone */
    out.data[27] = 1;
    out.len = FRAME_HEADER_BYTES;
    expect_fault(&out, FRAME_FAULT_LENGTH, STATUS_LIMIT, "length 16777226");
    buf_release(&out);
}

/* No single changed bit goes unnoticed, wherever it is. */
static void test_every_bit(void **state)
{
    struct buf out = {0};

    (void)state;
    append(&out, 3, 4, "{\"a\":1}", 7);
    for (size_t bit = 0; bit < out.len * 8; bit++) {
        struct frame_decoder decoder;
        struct frame frame;
        enum status status;

        out.data[bit / 8] ^= (char)(1 << bit % 8);
        frame_decoder_init(&decoder, 100);
        frame_decoder_push(&decoder, out.data, out.len);
        status = frame_decoder_next(&decoder, &frame, NULL);
        /* a greater length waits for more: the deadline of the reader ends that */
        assert_true(status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED ||
                    status == STATUS_LIMIT || (status == STATUS_PENDING && bit / 8 == 24));
        frame_decoder_release(&decoder);
        out.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    buf_release(&out);
}

static void test_rubbish(void **state)
{
    struct random random = random_start("rubbish");

    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        struct frame_decoder decoder;
        struct frame frame;
        uint64_t bytes[8];

        for (uint32_t w = 0; w < ARRAY_LEN(bytes); w++) {
            bytes[w] = random_next(&random);
        }
        if (i % 2 == 0) { /* past the magic and the version */
            bytes[0] = (bytes[0] & ~UINT64_C(0xffffffffffff)) | UINT64_C(0x15052534c);
        }
        frame_decoder_init(&decoder, FRAME_MAX_BODY);
        frame_decoder_push(&decoder, bytes, random_below(&random, sizeof(bytes)));
        assert_int_not_equal(frame_decoder_next(&decoder, &frame, NULL), STATUS_OK);
        frame_decoder_release(&decoder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),     cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_splits),    cmocka_unit_test(test_faults),
        cmocka_unit_test(test_every_bit), cmocka_unit_test(test_rubbish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
