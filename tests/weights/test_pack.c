/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing against dequantising the stored rows, for every type: equal bit for bit, over row ranges,
 * permuted rows, stacked tensors, column ranges and panels packed apart; how many bytes are read;
 * and how many the packed matrices of real shapes take.
 */
#include "image.h"

#include "base/mem.h"
#include "dequant.h"
#include "weights/pack.h"

enum { ROWS = 53, COLS = 768 };

/* A model of two matrices of one type, "a" and "b", with random bytes. */
struct fixture {
    struct buf image;
    struct weights *weights;
    const struct weights_tensor *a;
    const struct weights_tensor *b;
    uint32_t cols;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* Where a record's halves are, so that they can be made finite. */
static size_t scale_offset(enum dtype dtype)
{
    return dtype == DTYPE_Q6_K ? 208 : 0;
}

static size_t n_scales(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_F16:
    case DTYPE_BF16:
        return 0;
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        return 2;
    default:
        return 1;
    }
}

/* The type after this one that files have. What packing makes of another one has tests of its own
 * (test_pack_bf16_12.c). */
static unsigned next_stored(unsigned dtype)
{
    do {
        dtype++;
    } while (dtype < DTYPE_COUNT && dtype_info((enum dtype)dtype)->ggml_type < 0);
    return dtype;
}

static void put_random_records(struct buf *image, enum dtype dtype, size_t n, uint64_t *seed)
{
    size_t bytes = dtype_info(dtype)->group_bytes;

    for (size_t i = 0; i < n; i++) {
        unsigned char record[256];

        for (size_t b = 0; b < bytes; b++) {
            record[b] = (unsigned char)next_random(seed);
        }
        for (size_t s = 0; s < n_scales(dtype); s++) {
            unsigned char *high = &record[scale_offset(dtype) + 2 * s + 1];

            if ((*high & 0x7c) == 0x7c) { /* infinite: make it the largest half instead */
                *high = (unsigned char)(*high ^ 0x04);
            }
        }
        if (dtype == DTYPE_F32 && (record[3] & 0x7f) == 0x7f) {
            record[3] = 0;
        }
        if (n_scales(dtype) == 0) { /* no NaNs, which do not compare */
            record[bytes - 1] &= (unsigned char)~0x04;
        }
        buf_append(image, record, bytes);
    }
}

static struct fixture make_fixture(enum dtype dtype, uint32_t cols)
{
    struct fixture f = {.image = image_gguf(3, 2, 0), .cols = cols};
    uint64_t seed = 17 + (uint64_t)dtype;
    size_t bytes = 0;

    assert_true(dtype_bytes(dtype, (size_t)ROWS * cols, &bytes));
    put_gguf_tensor(&f.image, "a", ROWS, cols, (uint32_t)dtype_info(dtype)->ggml_type, 0);
    put_gguf_tensor(&f.image, "b", ROWS, cols, (uint32_t)dtype_info(dtype)->ggml_type,
                    round_up(bytes, 32));
    for (int i = 0; i < 2; i++) {
        pad_gguf(&f.image, 32);
        put_random_records(&f.image, dtype, (size_t)ROWS * cols / dtype_info(dtype)->group, &seed);
    }
    f.weights = open_image(&f.image, WEIGHTS_FORMAT_GGUF);
    f.a = weights_find(f.weights, "a");
    f.b = weights_find(f.weights, "b");
    return f;
}

static void release_fixture(struct fixture *f)
{
    weights_close(&f->weights);
    buf_release(&f->image);
}

static float stored_value(const struct fixture *f, const struct weights_tensor *tensor,
                          uint32_t row, uint32_t col)
{
    size_t stride = 0;

    assert_true(dtype_bytes(tensor->dtype, f->cols, &stride));
    return dequant(tensor->dtype, (const uint8_t *)f->image.data + tensor->offset + row * stride,
                   col);
}

static void assert_same_bits(float x, float y)
{
    assert_memory_equal(&x, &y, sizeof(x));
}

/* Packs the matrix in steps of `step` panels into fresh storage (release with mem_unmap). */
static void *pack(struct fixture *f, const struct pack_matrix *matrix, struct packed *packed,
                  uint32_t rows, uint32_t cols, uint32_t step)
{
    struct err err = {0};
    void *storage;

    assert_true(packed_init(packed, matrix->parts[0].tensor->dtype, rows, cols));
    storage = mem_map(packed_bytes(packed));
    assert_non_null(storage);
    for (uint32_t begin = 0; begin < packed->n_panels; begin += step) {
        if (pack_panels(f->weights, matrix, packed, begin, MIN(begin + step, packed->n_panels),
                        storage, &err) != STATUS_OK) {
            fail_msg("%s", err.text);
        }
    }
    packed_attach(packed, storage);
    return storage;
}

static void test_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i = next_stored(i)) {
        struct fixture f = make_fixture((enum dtype)i, COLS);
        struct pack_part part = {.tensor = f.a, .n_rows = ROWS};
        struct pack_matrix matrix = {.parts = &part, .n_parts = 1};
        struct packed packed;
        void *storage = pack(&f, &matrix, &packed, ROWS, COLS, 64);

        for (uint32_t row = 0; row < ROWS; row++) {
            for (uint32_t col = 0; col < COLS; col++) {
                assert_same_bits(packed_value(&packed, row, col), stored_value(&f, f.a, row, col));
            }
        }
        for (uint32_t row = ROWS; row < packed.n_panels * PACKED_LANES; row++) {
            for (uint32_t col = 0; col < COLS; col++) {
                assert_same_bits(packed_value(&packed, row, col), 0.0f);
            }
        }
        assert_int_equal(weights_bytes_read(f.weights), f.a->bytes);
        mem_unmap(storage, packed_bytes(&packed));
        release_fixture(&f);
    }
}

/* Two tensors stacked, the second one's rows permuted; a column range; one panel a call. */
static void test_parts(void **state)
{
    enum { FIRST = 7, N_A = 21, N_B = 18 };
    uint32_t map[ROWS];

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        map[i] = (i * 22 + 5) % ROWS; /* 53 is a prime */
    }
    for (unsigned i = 0; i < DTYPE_COUNT; i = next_stored(i)) {
        struct fixture f = make_fixture((enum dtype)i, COLS);
        struct pack_part parts[2] = {{.tensor = f.a, .row_begin = FIRST, .n_rows = N_A},
                                     {.tensor = f.b, .n_rows = N_B, .row_map = map}};
        struct pack_matrix matrix = {.parts = parts, .n_parts = 2, .col_begin = 256};
        struct packed packed;
        void *storage = pack(&f, &matrix, &packed, N_A + N_B, 256, 1);

        for (uint32_t row = 0; row < N_A + N_B; row++) {
            for (uint32_t col = 0; col < 256; col++) {
                float expected = row < N_A ? stored_value(&f, f.a, FIRST + row, 256 + col)
                                           : stored_value(&f, f.b, map[row - N_A], 256 + col);

                assert_same_bits(packed_value(&packed, row, col), expected);
            }
        }
        assert_int_equal(weights_bytes_read(f.weights),
                         (N_A + N_B) * (f.a->bytes / ROWS) * 256 / COLS);
        mem_unmap(storage, packed_bytes(&packed));
        release_fixture(&f);
    }
}

/* A permutation whose rows lie side by side, as within a head, is read at once and still in order.
 */
static void test_local_permutation(void **state)
{
    uint32_t map[ROWS];
    struct fixture f = make_fixture(DTYPE_Q4_1, COLS);
    struct pack_part part = {.tensor = f.a, .n_rows = ROWS, .row_map = map};
    struct pack_matrix matrix = {.parts = &part, .n_parts = 1};
    struct packed packed;
    void *storage;

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        map[i] = i < 48 ? i / 16 * 16 + (i % 8 * 2 + i % 16 / 8) : i;
    }
    storage = pack(&f, &matrix, &packed, ROWS, COLS, 2);
    for (uint32_t row = 0; row < ROWS; row++) {
        assert_same_bits(packed_value(&packed, row, 5), stored_value(&f, f.a, map[row], 5));
    }
    assert_int_equal(weights_bytes_read(f.weights), f.a->bytes);
    mem_unmap(storage, packed_bytes(&packed));
    release_fixture(&f);
}

/* Rows that lie apart are read one by one, whole, and no other. */
static void test_scattered_rows(void **state)
{
    enum { N = 11 };
    uint32_t map[ROWS];
    struct fixture f = make_fixture(DTYPE_Q5_1, COLS);
    struct pack_part part = {.tensor = f.b, .row_begin = 3, .n_rows = N, .row_map = map};
    struct pack_matrix matrix = {.parts = &part, .n_parts = 1};
    struct packed packed;
    void *storage;

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        map[i] = (i * 22 + 5) % ROWS;
    }
    storage = pack(&f, &matrix, &packed, N, COLS, 1);
    for (uint32_t row = 0; row < N; row++) {
        assert_same_bits(packed_value(&packed, row, 700), stored_value(&f, f.b, map[3 + row], 700));
    }
    assert_int_equal(weights_bytes_read(f.weights), N * (f.b->bytes / ROWS));
    mem_unmap(storage, packed_bytes(&packed));
    release_fixture(&f);
}

static void test_odd_columns(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        for (uint32_t cols = 1; cols < 140; cols += 23) {
            struct fixture f = make_fixture(dtypes[i], cols);
            struct pack_part part = {.tensor = f.a, .n_rows = ROWS};
            struct pack_matrix matrix = {.parts = &part, .n_parts = 1};
            struct packed packed;
            void *storage = pack(&f, &matrix, &packed, ROWS, cols, 64);

            for (uint32_t row = 0; row < ROWS; row++) {
                for (uint32_t col = 0; col < cols; col++) {
                    assert_same_bits(packed_value(&packed, row, col),
                                     stored_value(&f, f.a, row, col));
                }
                if (dtypes[i] == DTYPE_BF16 && cols % 2 != 0) {
                    assert_same_bits(packed_value(&packed, row, cols), 0.0f);
                }
            }
            mem_unmap(storage, packed_bytes(&packed));
            release_fixture(&f);
        }
    }
}

static void test_infinite_scales(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i = next_stored(i)) {
        enum dtype dtype = (enum dtype)i;
        struct fixture f = make_fixture(dtype, COLS);
        struct pack_part part = {.tensor = f.a, .n_rows = ROWS};
        struct pack_matrix matrix = {.parts = &part, .n_parts = 1};
        struct packed packed;
        void *storage;

        assert_true(packed_init(&packed, dtype, ROWS, COLS));
        storage = mem_map(packed_bytes(&packed));
        for (size_t s = 0; s < n_scales(dtype); s++) {
            char *half = f.image.data + f.a->offset + 20 * (f.a->bytes / ROWS) +
                         dtype_info(dtype)->group_bytes + scale_offset(dtype) + 2 * s;
            char kept[2] = {half[0], half[1]};
            struct err err = {0};

            memcpy(half, "\x00\x7c", 2);
            assert_int_equal(
                pack_panels(f.weights, &matrix, &packed, 0, packed.n_panels, storage, &err),
                STATUS_CORRUPT);
            assert_non_null(strstr(err.text, "tensor 'a': row 20"));
            memcpy(half, kept, 2);
        }
        mem_unmap(storage, packed_bytes(&packed));
        release_fixture(&f);
    }
}

static void test_floats(void **state)
{
    struct err err = {0};

    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i = next_stored(i)) {
        struct fixture f = make_fixture((enum dtype)i, COLS);
        float *floats = mem_alloc((size_t)ROWS * COLS, sizeof(*floats));
        enum status status = pack_floats(f.weights, f.a, floats, &err);

        if (dtype_is_quantised((enum dtype)i)) {
            assert_int_equal(status, STATUS_UNSUPPORTED);
            assert_non_null(strstr(err.text, "tensor 'a'"));
            assert_non_null(strstr(err.text, dtype_info((enum dtype)i)->name));
        } else {
            assert_int_equal(status, STATUS_OK);
            for (uint32_t n = 0; n < ROWS * COLS; n++) {
                assert_same_bits(floats[n], stored_value(&f, f.a, n / COLS, n % COLS));
            }
        }
        free(floats);
        release_fixture(&f);
    }
}

/* Matrices of the default model and of a few others take at most 3 % more than the stored bits. */
static void test_size(void **state)
{
    static const uint32_t shapes[][2] = {{576, 576},     {192, 576},    {1536, 576},  {576, 1536},
                                         {49152, 576},   {1024, 1024},  {3072, 1024}, {1024, 3072},
                                         {151936, 1024}, {2048, 256},   {4096, 4096}, {1024, 2560},
                                         {14336, 4096},  {128256, 2048}};

    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            struct packed packed;
            size_t stored = 0;

            if (!packed_init(&packed, (enum dtype)i, shapes[s][0], shapes[s][1])) {
                assert_int_not_equal(shapes[s][1] % dtype_info((enum dtype)i)->group, 0);
                continue;
            }
            assert_true(dtype_bytes((enum dtype)i, (size_t)shapes[s][0] * shapes[s][1], &stored));
            stored = i == DTYPE_BF16_12 ? stored / 16 * 12 : stored;
            assert_true(packed_bytes(&packed) >= stored);
            assert_true((double)packed_bytes(&packed) <= 1.03 * (double)stored);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_local_permutation),
        cmocka_unit_test(test_scattered_rows),
        cmocka_unit_test(test_odd_columns),
        cmocka_unit_test(test_infinite_scales),
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
