/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF reader: metadata of every type, tensors, and that each defect is refused by name. */
#include "image.h"

#include "base/mem.h"

enum { TYPE_F32 = 0, TYPE_Q4_1 = 3, TYPE_Q4_K = 12, TYPE_IQ4_XS = 23 };

static void put_all_numbers(struct buf *image)
{
    put_gguf_key(image, "u8", GGUF_U8);
    buf_append_char(image, (char)200);
    put_gguf_key(image, "i8", GGUF_I8);
    buf_append_char(image, (char)-5);
    put_gguf_key(image, "u16", GGUF_U16);
    buf_append(image, "\xff\xff", 2);
    put_gguf_key(image, "i16", GGUF_I16);
    buf_append(image, "\xfe\xff", 2);
    put_gguf_u32(image, "u32", 4000000000u);
    put_gguf_key(image, "i32", GGUF_I32);
    put_u32(image, (uint32_t)-7);
    put_gguf_key(image, "f32", GGUF_F32);
    put_u32(image, 0x3fc00000);
    put_gguf_key(image, "bool", GGUF_BOOL);
    buf_append_char(image, 1);
    put_gguf_key(image, "u64", GGUF_U64);
    put_u64(image, UINT64_MAX);
    put_gguf_key(image, "i64", GGUF_I64);
    put_u64(image, (uint64_t)INT64_MIN);
    put_gguf_key(image, "f64", GGUF_F64);
    put_u64(image, 0x3ff8000000000000);
}

static void test_numbers(void **state)
{
    struct buf image = image_gguf(3, 0, 11);
    struct weights *weights;
    struct err err = {0};
    uint32_t u32 = 1;
    int64_t i64 = 1;
    double f64 = 0;
    bool flag = false;

    (void)state;
    put_all_numbers(&image);
    weights = open_image(&image, WEIGHTS_FORMAT_GGUF);
    assert_int_equal(gguf_n_values(weights), 11);
    assert_int_equal(gguf_get_u32(weights, "u8", &u32, NULL), STATUS_OK);
    assert_int_equal(u32, 200);
    assert_int_equal(gguf_get_i64(weights, "i8", &i64, NULL), STATUS_OK);
    assert_int_equal(i64, -5);
    assert_int_equal(gguf_get_u32(weights, "u16", &u32, NULL), STATUS_OK);
    assert_int_equal(u32, 65535);
    assert_int_equal(gguf_get_i64(weights, "i16", &i64, NULL), STATUS_OK);
    assert_int_equal(i64, -2);
    assert_int_equal(gguf_get_u32(weights, "u32", &u32, NULL), STATUS_OK);
    assert_int_equal(u32, 4000000000u);
    assert_int_equal(gguf_get_i64(weights, "i32", &i64, NULL), STATUS_OK);
    assert_int_equal(i64, -7);
    assert_int_equal(gguf_get_i64(weights, "i64", &i64, NULL), STATUS_OK);
    assert_true(i64 == INT64_MIN);
    assert_int_equal(gguf_get_f64(weights, "f32", &f64, NULL), STATUS_OK);
    assert_true(f64 == 1.5);
    assert_int_equal(gguf_get_f64(weights, "f64", &f64, NULL), STATUS_OK);
    assert_true(f64 == 1.5);
    assert_int_equal(gguf_get_bool(weights, "bool", &flag, NULL), STATUS_OK);
    assert_true(flag);

    assert_int_equal(gguf_get_i64(weights, "u64", &i64, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_u32(weights, "i32", &u32, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "i32: -7"));
    assert_int_equal(gguf_get_u32(weights, "f32", &u32, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "f32: must be an integer, is of type f32"));
    assert_int_equal(gguf_get_bool(weights, "u8", &flag, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_f64(weights, "none", &f64, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "none: missing"));
    assert_int_equal(u32, 4000000000u); /* untouched by failures */
    weights_close(&weights);
    buf_release(&image);
}

static void test_strings_and_arrays(void **state)
{
    struct buf image = image_gguf(2, 0, 4);
    const struct gguf_str *strings;
    struct gguf_array array;
    struct weights *weights;
    struct gguf_str text;
    struct err err = {0};

    (void)state;
    put_gguf_key(&image, "text", GGUF_STRING);
    put_u64(&image, 3);
    buf_append(&image, "a\0b", 3);
    put_gguf_key(&image, "words", GGUF_ARRAY);
    put_u32(&image, GGUF_STRING);
    put_u64(&image, 2);
    put_gguf_str(&image, "one");
    put_gguf_str(&image, "");
    put_gguf_key(&image, "numbers", GGUF_ARRAY);
    put_u32(&image, GGUF_I32);
    put_u64(&image, 3);
    put_u32(&image, 4);
    put_u32(&image, 5);
    put_u32(&image, (uint32_t)-6);
    put_gguf_key(&image, "nested", GGUF_ARRAY);
    put_u32(&image, GGUF_ARRAY);
    put_u64(&image, 2);
    put_u32(&image, GGUF_U8);
    put_u64(&image, 1);
    buf_append_char(&image, 9);
    put_u32(&image, GGUF_STRING);
    put_u64(&image, 0);
    weights = open_image(&image, WEIGHTS_FORMAT_GGUF);

    assert_int_equal(gguf_get_str(weights, "text", &text, NULL), STATUS_OK);
    assert_int_equal(text.len, 3);
    assert_memory_equal(text.data, "a\0b", 4);
    assert_int_equal(gguf_get_array(weights, "words", GGUF_STRING, &array, NULL), STATUS_OK);
    strings = array.items;
    assert_int_equal(array.n, 2);
    assert_string_equal(strings[0].data, "one");
    assert_string_equal(strings[1].data, "");
    assert_int_equal(gguf_get_array(weights, "numbers", GGUF_I32, &array, NULL), STATUS_OK);
    assert_int_equal(array.n, 3);
    assert_int_equal(((const int32_t *)array.items)[2], -6);
    assert_int_equal(gguf_get_array(weights, "nested", GGUF_ARRAY, &array, NULL), STATUS_OK);
    assert_int_equal(array.n, 2);
    assert_null(array.items);
    assert_int_equal(gguf_get_array(weights, "numbers", GGUF_U32, &array, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "numbers: must be an array of u32, is one of i32"));
    assert_int_equal(gguf_get_array(weights, "text", GGUF_U32, &array, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_str(weights, "words", &text, &err), STATUS_INVALID);
    weights_close(&weights);
    buf_release(&image);
}

static void test_tensors(void **state)
{
    struct buf image = image_gguf(3, 2, 1);
    const struct weights_tensor *tensor;
    struct weights *weights;
    unsigned char bytes[2];
    size_t data;

    (void)state;
    put_gguf_u32(&image, "general.alignment", 64);
    put_gguf_tensor(&image, "q", 3, 64, TYPE_Q4_1, 64);
    put_gguf_tensor(&image, "f", 2, 4, TYPE_F32, 0);
    pad_gguf(&image, 64);
    data = image.len;
    put_zeros(&image, 64 + 3 * 40);
    image.data[data + 64 + 41] = 7;
    weights = open_image(&image, WEIGHTS_FORMAT_GGUF);
    tensor = weights_find(weights, "q");
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, DTYPE_Q4_1);
    assert_string_equal(tensor->type_name, "Q4_1");
    assert_int_equal(tensor->dims[0], 3);
    assert_int_equal(tensor->dims[1], 64);
    assert_int_equal(tensor->bytes, 120);
    assert_int_equal(tensor->offset, data + 64);
    assert_int_equal(weights_read(weights, tensor, 40, 2, bytes, NULL), STATUS_OK);
    assert_int_equal(bytes[1], 7);
    weights_close(&weights);
    buf_release(&image);
}

/* A file with one tensor whose record and data length are given. */
static void refuse_tensor(uint64_t rows, uint64_t cols, uint32_t type, uint64_t offset,
                          size_t data_bytes, const char *text)
{
    struct buf image = image_gguf(3, 1, 0);

    put_gguf_tensor(&image, "t", rows, cols, type, offset);
    pad_gguf(&image, 32);
    put_zeros(&image, data_bytes);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "tensor 't'", text);
}

static void test_bad_tensors(void **state)
{
    struct buf image;

    (void)state;
    refuse_tensor(2, 4, TYPE_F32, 0, 31, "file ends at byte");
    refuse_tensor(2, 4, TYPE_F32, 16, 64, "offset 16 is no multiple of 32");
    refuse_tensor(2, 4, TYPE_F32, UINT64_MAX - 31, 64, "out of range");
    refuse_tensor(2, 4, TYPE_F32, UINT64_C(1) << 62, 64, "file ends at byte");
    refuse_tensor(UINT64_C(1) << 60, 1, TYPE_F32, 0, 64, "file ends at byte");
    refuse_tensor(UINT64_C(1) << 40, UINT64_C(1) << 40, TYPE_F32, 0, 64, "shape is too large");
    refuse_tensor(UINT64_C(1) << 62, 1, TYPE_F32, 0, 64, "shape is too large");
    refuse_tensor(2, 48, TYPE_Q4_1, 0, 64, "Q4_1 has groups of 32");
    refuse_tensor(2, 128, TYPE_Q4_K, 0, 4096, "Q4_K has groups of 256");
    refuse_tensor(2, 256, TYPE_IQ4_XS, 0, 4096, "type IQ4_XS is not supported");
    refuse_tensor(2, 256, 77, 0, 4096, "unknown type 77");

    image = image_gguf(3, 2, 0);
    put_gguf_tensor(&image, "t", 2, 8, TYPE_F32, 0);
    put_gguf_tensor(&image, "u", 2, 8, TYPE_F32, 32);
    pad_gguf(&image, 32);
    put_zeros(&image, 256);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "tensor 'u'", "overlaps t");

    image = image_gguf(3, 2, 0);
    put_gguf_tensor(&image, "t", 1, 8, TYPE_F32, 0);
    put_gguf_tensor(&image, "t", 1, 8, TYPE_F32, 32);
    pad_gguf(&image, 32);
    put_zeros(&image, 64);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "tensor 't'", "two of that name");

    image = image_gguf(3, 1, 0);
    put_gguf_str(&image, "deep");
    put_u32(&image, 5);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "tensor 'deep'", "dimensions");

    image = image_gguf(3, 1, 0);
    put_u64(&image, 3);
    buf_append(&image, "a\0b", 3);
    put_zeros(&image, 64);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "zero byte", "");
}

static void refuse_start(uint32_t version, uint64_t n_tensors, uint64_t n_values, const char *text)
{
    struct buf image = image_gguf(version, n_tensors, n_values);

    refuse_image(&image, WEIGHTS_FORMAT_GGUF, text, "");
}

static void test_bad_start(void **state)
{
    struct buf image = {0};

    (void)state;
    buf_append_str(&image, "GGU");
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "file ends at byte 3", "header");
    buf_append_str(&image, "GGMLxxxxxxxxxxxxxxxxxxxxxxxx");
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "not a GGUF file", "");
    refuse_start(1, 0, 0, "version 1 is not supported");
    refuse_start(0x03000000, 0, 0, "big-endian");
    refuse_start(3, UINT64_C(1) << 60, 0, "promises more than 1048576 tensors");
    refuse_start(3, 0, UINT64_C(1) << 60, "promises more than 65536 metadata pairs");
    refuse_start(3, 0, 1, "metadata pair 0: file ends");
    refuse_start(3, 1, 0, "tensor 0: file ends");
}

static void test_bad_metadata(void **state)
{
    struct buf image = image_gguf(3, 0, 1);

    (void)state;
    put_gguf_key(&image, "k", GGUF_STRING);
    put_u64(&image, UINT64_C(1) << 60);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "file ends");

    image = image_gguf(3, 0, 1);
    put_gguf_key(&image, "k", GGUF_ARRAY);
    put_u32(&image, GGUF_U64);
    put_u64(&image, UINT64_C(1) << 60);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "array");

    image = image_gguf(3, 0, 1);
    put_gguf_key(&image, "k", GGUF_ARRAY);
    put_u32(&image, GGUF_STRING);
    put_u64(&image, 100000000);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "file ends");

    image = image_gguf(3, 0, 1);
    put_gguf_key(&image, "k", GGUF_ARRAY);
    for (int i = 0; i < 10; i++) { /* an array in an array in ... */
        put_u32(&image, GGUF_ARRAY);
        put_u64(&image, 1);
    }
    put_zeros(&image, 64);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "nested too deeply");

    image = image_gguf(3, 0, 1);
    put_gguf_key(&image, "k", (enum gguf_type)13);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "unknown type");

    image = image_gguf(3, 0, 1);
    put_gguf_key(&image, "k", GGUF_BOOL);
    buf_append_char(&image, 2);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'k'", "bool");

    image = image_gguf(3, 0, 2);
    put_gguf_u32(&image, "twice", 1);
    put_gguf_u32(&image, "twice", 2);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata 'twice'", "two of that name");

    image = image_gguf(3, 0, 1);
    put_gguf_u32(&image, "", 1);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "metadata pair 0", "empty");

    image = image_gguf(3, 0, 1);
    put_gguf_u32(&image, "general.alignment", 24);
    refuse_image(&image, WEIGHTS_FORMAT_GGUF, "general.alignment", "24");
}

/* Longer than the cursor's window, so that pieces are put together. */
static void test_long_metadata(void **state)
{
    enum { N = 50000 };
    struct buf image = image_gguf(3, 0, 1);
    struct gguf_array array;
    struct weights *weights;

    (void)state;
    put_gguf_key(&image, "k", GGUF_ARRAY);
    put_u32(&image, GGUF_STRING);
    put_u64(&image, N);
    for (int i = 0; i < N; i++) {
        char text[16];

        snprintf(text, sizeof(text), "token%d", i);
        put_gguf_str(&image, text);
    }
    weights = open_image(&image, WEIGHTS_FORMAT_GGUF);
    assert_int_equal(gguf_get_array(weights, "k", GGUF_STRING, &array, NULL), STATUS_OK);
    for (int i = 0; i < N; i++) {
        char text[16];

        snprintf(text, sizeof(text), "token%d", i);
        assert_string_equal(((const struct gguf_str *)array.items)[i].data, text);
    }
    weights_close(&weights);
    buf_release(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_strings_and_arrays),
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_bad_start),     cmocka_unit_test(test_bad_metadata),
        cmocka_unit_test(test_long_metadata),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
