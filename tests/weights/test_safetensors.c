/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors reader: what it accepts, and that each defect is refused by name. */
#include "image.h"

#include "base/mem.h"

static const char good[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                           "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]},"
                           "\"e\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[20,20]}}   ";

static void test_catalogue(void **state)
{
    struct buf image = image_safetensors(good, 28);
    struct weights *weights = open_image(&image, WEIGHTS_FORMAT_SAFETENSORS);
    const struct weights_tensor *b = weights_find(weights, "b");
    const struct weights_tensor *n = weights_find(weights, "n");
    unsigned char bytes[4];
    struct err err = {0};
    uint32_t ignored;

    (void)state;
    assert_int_equal(weights_n_tensors(weights), 4);
    assert_string_equal(weights_tensor_at(weights, 0)->name, "b"); /* the file's order */
    assert_null(weights_find(weights, "c"));
    assert_null(weights_find(weights, "__metadata__"));
    assert_int_equal(b->dtype, DTYPE_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dims[0], 2);
    assert_int_equal(b->dims[1], 3);
    assert_int_equal(weights_n_elements(b), 6);
    assert_int_equal(weights_read(weights, b, 3, 4, bytes, &err), STATUS_OK);
    assert_memory_equal(bytes, "\x0b\x0c\x0d\x0e", 4);
    assert_int_equal(weights_bytes_read(weights), 4);
    assert_int_equal(n->dtype, DTYPE_COUNT);
    assert_int_equal(weights_read(weights, n, 0, 4, bytes, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'n': type I64"));
    assert_int_equal(gguf_get_u32(weights, "x", &ignored, NULL), STATUS_NOT_FOUND);
    weights_close(&weights);
    assert_null(weights);
    buf_release(&image);
}

static void refuse(const char *json, size_t data_bytes, const char *a, const char *b)
{
    struct buf image = image_safetensors(json, data_bytes);

    refuse_image(&image, WEIGHTS_FORMAT_SAFETENSORS, a, b);
}

#define ENTRY(name, dtype, shape, begin, end)                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end \
    "]}"

static void test_bad_entries(void **state)
{
    (void)state;
    refuse("{" ENTRY("a", "F32", "2", "0", "8") "," ENTRY("b", "F32", "2", "4", "12") "}", 12,
           "tensor 'b'", "overlaps a");
    refuse("{" ENTRY("a", "F32", "2", "4", "12") "}", 12, "tensor 'a'", "4 unused bytes");
    refuse("{" ENTRY("a", "F32", "2", "0", "8") "}", 7, "tensor 'a'", "file ends at byte");
    refuse("{" ENTRY("a", "F32", "2", "0", "8") "}", 9, "1 bytes after", "");
    refuse("{" ENTRY("a", "F32", "2", "0", "4") "}", 4, "tensor 'a'", "do not match");
    refuse("{" ENTRY("a", "F32", "2", "8", "0") "}", 8, "tensor 'a'", "data_offsets");
    refuse("{" ENTRY("a", "F32", "-2", "0", "8") "}", 8, "tensor 'a'", "shape");
    refuse("{" ENTRY("a", "F32", "1152921504606846976", "0", "8") "}", 8, "tensor 'a'",
           "shape is too large");
    refuse("{" ENTRY("a", "F32", "1152921504606846976,1152921504606846976,0", "0", "0") "}", 0,
           "tensor 'a'", "shape is too large");
    refuse("{" ENTRY("a", "F32", "4294967296", "0", "17179869184") "}", 8, "tensor 'a'",
           "file ends at byte");
    refuse("{" ENTRY("a", "F32", "2", "9223372036854775800", "9223372036854775807") "}", 8,
           "tensor 'a'", "do not match");
    refuse("{" ENTRY("a", "F31", "2", "0", "8") "}", 8, "tensor 'a'", "dtype");
    refuse("{" ENTRY("a", "F4", "3", "0", "2") "}", 2, "tensor 'a'", "do not match");
    refuse("{" ENTRY("a", "F32", "1,1,1,1,1,1,1,1,2", "0", "8") "}", 8, "tensor 'a'", "shape");
    refuse("{" ENTRY("a", "F32", "2.0", "0", "8") "}", 8, "tensor 'a'", "shape");
    refuse("{" ENTRY("", "F32", "2", "0", "8") "}", 8, "no name", "");
    refuse("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor 'a'", "dtype");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "tensor 'a'", "data_offsets");
    refuse("{\"a\":7}", 8, "tensor 'a'", "not an object");
    refuse("{\"__metadata__\":{\"n\":1}}", 0, "__metadata__", "strings");
}

static void test_bad_header(void **state)
{
    struct buf image = {0};

    (void)state;
    refuse("{" ENTRY("a", "F32", "2", "0", "8") "," ENTRY("a", "F32", "2", "8", "16") "}", 16,
           "header", "duplicate");
    refuse("[]", 0, "not a JSON object", "");
    refuse("", 0, "header", "");
    refuse("{\"a\":", 0, "header", "JSON");
    refuse("{\"a\xff\":1}", 0, "header", "JSON");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,8]}}", 8,
           "64 bits", "");
    buf_append_str(&image, "short");
    refuse_image(&image, WEIGHTS_FORMAT_SAFETENSORS, "too short", "");
    put_u64(&image, 1000);
    buf_append_str(&image, "{}");
    refuse_image(&image, WEIGHTS_FORMAT_SAFETENSORS, "inside the header of 1000", "");
    put_u64(&image, UINT64_C(1) << 60);
    buf_append_str(&image, "{}");
    refuse_image(&image, WEIGHTS_FORMAT_SAFETENSORS, "1152921504606846976 bytes", "100000000");
}

/* A header of many tiny values must not cost a hundred times its size. */
static void test_dense_header(void **state)
{
    struct buf json = {0};

    (void)state;
    buf_append_str(&json, "{\"a\":[");
    for (size_t i = 0; i < 1100000; i++) {
        buf_append_str(&json, "{},");
    }
    buf_append_str(&json, "{}]}");
    refuse(json.data, 0, "objects", "");
    buf_release(&json);
}

static void test_long_names(void **state)
{
    struct buf json = {0};

    (void)state;
    buf_append_str(&json, "{\"");
    for (int i = 0; i < 600; i++) {
        buf_append_char(&json, 'x');
    }
    buf_append_str(&json, "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}");
    refuse(json.data, 8, "name of 600 bytes", "xxx");
    buf_release(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_catalogue),  cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_bad_header), cmocka_unit_test(test_dense_header),
        cmocka_unit_test(test_long_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
