/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BF16 packed at 12 bits: every element comes back bit for bit, whatever the elements are and
 * however many have to be patched; which panels lie plain; how memory for those is asked for; and
 * what it takes.
 */
#include "image.h"

#include "base/mem.h"
#include "tensor/bf16_12.h"
#include "weights/pack.h"

enum { ROWS = 53, MOST_COLS = 1024 };

struct random {
    uint64_t state;
};

static uint32_t next(struct random *random)
{
    random->state = random->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random->state >> 32);
}

/* What the elements of a matrix are like. */
enum kind {
    NORMAL,   /* as trained weights: a few in a thousand panels' worth need a patch */
    ZERO,     /* of both signs */
    SPECIAL,  /* normal with infinities, NaNs, denormals and zeros */
    SPREAD,   /* every bit random */
    BY_PANEL, /* normal and spread by turns of a panel */
    KINDS
};

static uint16_t normal(struct random *random)
{
    float sum = 0.0f;

    for (int i = 0; i < 4; i++) {
        sum += (float)(int32_t)next(random) * 0x1p-36f;
    }
    return bf16_from_f32(sum);
}

static uint16_t element(struct random *random, enum kind kind, uint32_t row)
{
    static const uint16_t special[] = {0x7f80, 0xff80, 0x7fc1, 0xffff, 0x0001, 0x807f, 0, 0x8000};

    switch (kind) {
    case ZERO:
        return next(random) % 2 == 0 ? 0 : 0x8000;
    case SPECIAL:
        return next(random) % 40 == 0 ? special[next(random) % 8] : normal(random);
    case SPREAD:
        return (uint16_t)next(random);
    case BY_PANEL:
        return row / PACKED_LANES % 2 == 0 ? normal(random) : (uint16_t)next(random);
    default:
        return normal(random);
    }
}

struct fixture {
    struct buf image;
    struct weights *weights;
    const struct weights_tensor *tensor;
    struct packed packed;
    void *storage;
    void *plain;
    size_t reserved;   /* bytes, by calls of reserve */
    size_t fail_after; /* calls of reserve; 0: never */
};

static void open_matrix(struct fixture *f, enum kind kind, uint32_t cols)
{
    struct random random = {kind * 1000 + cols};

    *f = (struct fixture){.image = image_gguf(3, 1, 0)};
    put_gguf_tensor(&f->image, "a", ROWS, cols, 30, 0);
    pad_gguf(&f->image, 32);
    for (size_t i = 0; i < (size_t)ROWS * cols; i++) {
        uint16_t value = element(&random, kind, (uint32_t)(i / cols));
        const char bytes[2] = {(char)value, (char)(value >> 8)};

        buf_append(&f->image, bytes, 2);
    }
    f->weights = open_image(&f->image, WEIGHTS_FORMAT_GGUF);
    f->tensor = weights_find(f->weights, "a");
}

static void release(struct fixture *f)
{
    weights_close(&f->weights);
    buf_release(&f->image);
    mem_unmap(f->storage, packed_bytes(&f->packed));
    mem_unmap(f->plain, packed_plain_bytes(&f->packed));
}

static enum status reserve(void *arg, void *at, size_t bytes, struct err *err)
{
    struct fixture *f = arg;

    assert_true((char *)at >= (char *)f->plain &&
                (char *)at + bytes <= (char *)f->plain + packed_plain_bytes(&f->packed));
    assert_int_equal(((char *)at)[0], 0); /* not yet written */
    f->reserved += bytes;
    if (f->fail_after > 0 && --f->fail_after == 0) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for it");
    }
    return STATUS_OK;
}

/* Columns [begin, end) of the tensor, in steps of two panels. */
static enum status pack(struct fixture *f, uint32_t begin, uint32_t end, struct err *err)
{
    struct pack_part part = {.tensor = f->tensor, .n_rows = ROWS};
    struct pack_matrix matrix = {
        .parts = &part, .n_parts = 1, .col_begin = begin, .reserve = reserve, .reserve_arg = f};
    enum status status = STATUS_OK;

    assert_true(packed_init(&f->packed, DTYPE_BF16_12, ROWS, end - begin));
    f->storage = mem_map(packed_bytes(&f->packed));
    f->plain = mem_map(packed_plain_bytes(&f->packed));
    assert_true(f->storage != NULL && f->plain != NULL);
    f->packed.plain = f->plain;
    for (uint32_t panel = 0; panel < f->packed.n_panels && status == STATUS_OK; panel += 2) {
        status = pack_panels(f->weights, &matrix, &f->packed, panel,
                             MIN(panel + 2, f->packed.n_panels), f->storage, err);
    }
    packed_attach(&f->packed, f->storage);
    return status;
}

/* Bits, not values: a NaN keeps its payload. */
static void assert_elements(const struct fixture *f, uint32_t begin, uint32_t end)
{
    uint32_t n_cols = (uint32_t)f->tensor->dims[1];

    for (uint32_t row = 0; row < ROWS; row++) {
        for (uint32_t col = begin; col < end; col++) {
            const uint8_t *at = (const uint8_t *)f->image.data + f->tensor->offset +
                                ((size_t)row * n_cols + col) * 2;
            float value = packed_value(&f->packed, row, col - begin);
            uint16_t stored = (uint16_t)(at[0] | at[1] << 8);
            uint32_t bits;

            memcpy(&bits, &value, sizeof(bits));
            if (bits != (uint32_t)stored << 16) {
                fail_msg("row %u, column %u: %08x, not %04x", row, col, bits, stored);
            }
        }
    }
    for (uint32_t row = ROWS; row < f->packed.n_panels * PACKED_LANES; row++) {
        assert_true(packed_value(&f->packed, row, 0) == 0.0f);
    }
}

static uint32_t n_plain(const struct packed *packed)
{
    uint32_t n = 0;

    for (uint32_t panel = 0; panel < packed->n_panels; panel++) {
        n += bf16_12_head(packed, panel)->n_patches == BF16_12_PLAIN;
    }
    return n;
}

static void test_elements_come_back(void **state)
{
    static const uint32_t widths[] = {1, 2, 7, 8, 31, 64, 100, 264, 1000, MOST_COLS};
    uint32_t n_patches = 0;

    (void)state;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
            struct err err = {0};
            struct fixture f;

            open_matrix(&f, (enum kind)kind, widths[i]);
            assert_int_equal(pack(&f, 0, widths[i], &err), STATUS_OK);
            assert_elements(&f, 0, widths[i]);
            assert_int_equal(f.reserved, n_plain(&f.packed) * f.packed.panel_plain_bytes);
            for (uint32_t panel = 0; panel < f.packed.n_panels; panel++) {
                uint32_t n = bf16_12_head(&f.packed, panel)->n_patches;

                n_patches += n == BF16_12_PLAIN ? 0 : n;
            }
            if (widths[i] == MOST_COLS) {
                const uint32_t expected[KINDS] = {0, 0, 0, 4, 2};

                assert_int_equal(n_plain(&f.packed), expected[kind]);
            }
            release(&f);
        }
    }
    assert_true(n_patches > 20); /* both ways of keeping rare elements were used */
}

/* A rank's columns of a row-parallel matrix. */
static void test_columns(void **state)
{
    struct err err = {0};
    struct fixture f;

    (void)state;
    open_matrix(&f, SPECIAL, MOST_COLS);
    assert_int_equal(pack(&f, 352, 800, &err), STATUS_OK);
    assert_elements(&f, 352, 800);
    release(&f);
}

/* Every place of a patch in a unit, and first and last of a panel. */
static void test_patch_anywhere(void **state)
{
    enum { COLS = 96 };
    uint8_t elements[PACKED_LANES][COLS * 2];
    const uint8_t *rows[PACKED_LANES];
    struct packed w;
    uint8_t *storage;

    (void)state;
    assert_true(packed_init(&w, DTYPE_BF16_12, PACKED_LANES, COLS));
    storage = mem_map(packed_bytes(&w));
    assert_non_null(storage);
    packed_attach(&w, storage);
    for (uint32_t lane = 0; lane < PACKED_LANES; lane++) {
        rows[lane] = elements[lane];
    }
    for (uint32_t at = 0; at < PACKED_LANES * COLS; at += at < 160 || at > 1400 ? 1 : 37) {
        /* sixteen common high bytes, and one that occurs once */
        for (uint32_t i = 0; i < PACKED_LANES * COLS; i++) {
            elements[i / COLS][i % COLS * 2] = (uint8_t)(i * 11);
            elements[i / COLS][i % COLS * 2 + 1] = (uint8_t)(i == at ? 0x7f : 0x30 + i % 16);
        }
        memset(storage, 0, packed_bytes(&w));
        assert_true(bf16_12_pack(&w, rows, storage, storage + packed_scale_offset(&w)));
        assert_int_equal(bf16_12_head(&w, 0)->n_patches, 1);
        for (uint32_t i = 0; i < PACKED_LANES * COLS; i++) {
            const uint8_t *element = &elements[i / COLS][i % COLS * 2];

            assert_int_equal(bf16_12_element(&w, i / COLS, i % COLS), element[0] | element[1] << 8);
        }
    }
    mem_unmap(storage, packed_bytes(&w));
}

static void test_no_memory_for_a_plain_panel(void **state)
{
    struct err err = {0};
    struct fixture f;

    (void)state;
    open_matrix(&f, BY_PANEL, MOST_COLS);
    f.fail_after = 2;
    assert_int_equal(pack(&f, 0, MOST_COLS, &err), STATUS_NO_MEMORY);
    assert_non_null(strstr(err.text, "no memory for it"));
    assert_int_equal(f.reserved, 2 * f.packed.panel_plain_bytes);
    release(&f);
}

/* Whoever asks is_compact keeps to 1.03 times 12 bits; and what is read is less than that. */
static void test_bytes(void **state)
{
    struct err err = {0};
    struct fixture f;

    (void)state;
    for (uint32_t cols = 1; cols < 5000; cols++) {
        size_t exact = (size_t)cols * PACKED_LANES * 12 / 8;
        size_t bytes = bf16_12_code_bytes(cols) + bf16_12_record_bytes(cols);

        assert_true(bytes >= exact);
        assert_int_equal(bf16_12_is_compact(cols), bytes <= exact * 103 / 100);
        assert_true(bf16_12_is_compact(cols) || cols < 72 || cols % BF16_12_UNIT != 0);
    }
    assert_true(bf16_12_is_compact(BF16_12_COLS_MAX));
    assert_false(bf16_12_is_compact(BF16_12_COLS_MAX + 1));
    assert_false(packed_init(&f.packed, DTYPE_BF16_12, 16, BF16_12_COLS_MAX + 1));

    open_matrix(&f, NORMAL, MOST_COLS);
    assert_int_equal(pack(&f, 0, MOST_COLS, &err), STATUS_OK);
    assert_true((double)packed_read_bytes(&f.packed) < 0.752 * 64 * MOST_COLS * 2);
    release(&f);
    open_matrix(&f, SPREAD, MOST_COLS);
    assert_int_equal(pack(&f, 0, MOST_COLS, &err), STATUS_OK);
    assert_int_equal(packed_read_bytes(&f.packed), 64 * MOST_COLS * 2);
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_come_back),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_patch_anywhere),
        cmocka_unit_test(test_no_memory_for_a_plain_panel),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
