/* SPDX-License-Identifier: Apache-2.0 */
/* From a MODEL argument to files: folders, the hub's cache with its symlinks, shards, splits. */
#include "image.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "weights/path.h"

enum { PATH_BYTES = 512 };

static char root[PATH_BYTES / 2]; /* a fresh folder for each test */

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "%s/weights-path-XXXXXX", TEST_BINARY_DIR);
    return mkdtemp(root) == NULL;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path under root; one of four static buffers in turn. */
static const char *at(const char *name)
{
    static char paths[4][PATH_BYTES];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, PATH_BYTES, "%s%s%s", root, name[0] == '\0' ? "" : "/", name);
    return path;
}

static void make_folder(const char *name)
{
    assert_int_equal(mkdir(at(name), 0777), 0);
}

static void write_bytes(const char *name, const void *bytes, size_t n)
{
    FILE *file = fopen(at(name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

/* A safetensors file with one F32 tensor of two elements. */
static void write_shard(const char *file, const char *tensor)
{
    struct buf json = {0};
    struct buf image;

    buf_printf(&json, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", tensor);
    image = image_safetensors(json.data, 8);
    write_bytes(file, image.data, image.len);
    buf_release(&json);
    buf_release(&image);
}

static void expect_tensors(const char *path, size_t n)
{
    struct weights *weights = NULL;
    struct err err = {0};

    if (weights_open(path, &weights, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(weights_n_tensors(weights), n);
    weights_close(&weights);
}

static void expect_refusal(const char *path, enum status status, const char *a, const char *b)
{
    struct weights *weights = NULL;
    struct err err = {0};

    assert_int_equal(weights_open(path, &weights, &err), status);
    assert_null(weights);
    if (strstr(err.text, a) == NULL || strstr(err.text, b) == NULL) {
        fail_msg("'%s' does not mention '%s' and '%s'", err.text, a, b);
    }
}

static void test_folder(void **state)
{
    struct weights_path path = {0};
    char *found;

    (void)state;
    write_text("config.json", "{}");
    expect_refusal(root, STATUS_NOT_FOUND, root, "no weights");
    assert_int_equal(weights_path_resolve(root, &path, NULL), STATUS_OK);
    assert_int_equal(path.kind, WEIGHTS_NONE);
    found = weights_path_find(&path, "config.json");
    assert_string_equal(found, at("config.json"));
    free(found);
    assert_null(weights_path_find(&path, "tokenizer.json"));
    weights_path_release(&path);

    write_shard("other.safetensors", "x");
    expect_tensors(root, 1);
    write_shard("another.safetensors", "x");
    expect_refusal(root, STATUS_INVALID, "several candidates", "other.safetensors");
    write_shard("model.safetensors", "x"); /* wins */
    expect_tensors(root, 1);
    expect_tensors(at("other.safetensors"), 1);
    expect_refusal(at("missing"), STATUS_NOT_FOUND, "missing", "No such file");
    expect_refusal(at("config.json/x"), STATUS_NOT_FOUND, "config.json/x", "Not a directory");
}

static void test_not_regular(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(at("model.safetensors"), 0666), 0);
    expect_refusal(at("model.safetensors"), STATUS_IO, "neither a folder nor a regular file", "");
}

static void test_hub_cache(void **state)
{
    (void)state;
    make_folder("models--o--n");
    make_folder("models--o--n/blobs");
    make_folder("models--o--n/snapshots");
    expect_refusal(at("models--o--n"), STATUS_NOT_FOUND, "models--o--n", "no snapshot");
    make_folder("models--o--n/snapshots/abc");
    make_folder("models--o--n/refs");
    write_shard("models--o--n/blobs/0123", "x");
    assert_int_equal(
        symlink("../../blobs/0123", at("models--o--n/snapshots/abc/model.safetensors")), 0);
    expect_tensors(at("models--o--n"), 1); /* the only snapshot */
    make_folder("models--o--n/snapshots/def");
    expect_refusal(at("models--o--n"), STATUS_INVALID, "several candidates", "");
    write_text("models--o--n/refs/main", "abc\n");
    expect_tensors(at("models--o--n"), 1);
    expect_tensors(at("models--o--n/snapshots/abc"), 1);
    expect_tensors(at("models--o--n/snapshots/abc/model.safetensors"), 1);
    expect_tensors(at("models--o--n/blobs/0123"), 1); /* a name that says nothing */
    write_text("models--o--n/refs/main", "../..");
    expect_refusal(at("models--o--n"), STATUS_CORRUPT, "refs/main", "not the name");
    write_text("models--o--n/refs/main", "gone");
    expect_refusal(at("models--o--n"), STATUS_NOT_FOUND, "no snapshot", "");
}

static void write_index(const char *map)
{
    struct buf json = {0};

    buf_printf(&json, "{\"metadata\":{\"total_size\":8},\"weight_map\":{%s}}", map);
    write_text("model.safetensors.index.json", buf_str(&json));
    buf_release(&json);
}

static void test_shards(void **state)
{
    (void)state;
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    write_index("\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"");
    expect_tensors(root, 2);
    expect_tensors(at("model.safetensors.index.json"), 2);
    write_index("\"a\":\"one.safetensors\"");
    expect_tensors(root, 1);
    write_shard("two.safetensors", "a"); /* the map says which of the two */
    expect_tensors(root, 1);
    write_index("\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"");
    expect_refusal(root, STATUS_CORRUPT, "tensor 'b'", "missing in its shard 'one.safetensors'");
    write_index("\"a\":\"three.safetensors\"");
    expect_refusal(root, STATUS_NOT_FOUND, "three.safetensors", "No such file");
    write_index("");
    expect_refusal(root, STATUS_CORRUPT, "index.json", "weight_map");
    write_index("\"a\":7");
    expect_refusal(root, STATUS_CORRUPT, "tensor 'a'", "not a file of this folder");
    write_text("model.safetensors.index.json", "{");
    expect_refusal(root, STATUS_CORRUPT, "index.json", "JSON");
}

static void test_escapes(void **state)
{
    static const char *const names[] = {
        "../x.safetensors", "/x.safetensors", "a/../../x", "..", "a/..", "", "x\\u0000y"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char map[128];

        snprintf(map, sizeof(map), "\"a\":\"%s\"", names[i]);
        write_index(map);
        expect_refusal(root, STATUS_CORRUPT, "tensor 'a'", "not a file of this folder");
    }
    assert_true(weights_path_is_inside("a..b/c..safetensors"));
    assert_true(weights_path_is_inside("./x"));
}

static void write_gguf_part(const char *name, const char *tensor, uint32_t number)
{
    struct buf image = image_gguf(3, 1, 2);

    put_gguf_u32(&image, "split.no", number);
    put_gguf_u32(&image, "split.count", 2);
    put_gguf_tensor(&image, tensor, 1, 8, 0, 0);
    pad_gguf(&image, 32);
    put_zeros(&image, 32);
    write_bytes(name, image.data, image.len);
    buf_release(&image);
}

static void test_split_gguf(void **state)
{
    (void)state;
    write_gguf_part("m-00001-of-00002.gguf", "a", 0);
    expect_refusal(root, STATUS_NOT_FOUND, "m-00002-of-00002.gguf", "No such file");
    write_gguf_part("m-00002-of-00002.gguf", "b", 1);
    expect_tensors(root, 2);
    expect_tensors(at("m-00001-of-00002.gguf"), 2);
    expect_refusal(at("m-00002-of-00002.gguf"), STATUS_UNSUPPORTED, "split.count", "first");
    write_gguf_part("m-00002-of-00002.gguf", "a", 1);
    expect_refusal(root, STATUS_CORRUPT, "tensor 'a'", "two of that name");
    write_gguf_part("m-00002-of-00002.gguf", "b", 0);
    expect_refusal(root, STATUS_CORRUPT, "m-00002-of-00002.gguf", "split.no");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_folder), TEST(test_not_regular), TEST(test_hub_cache),
        TEST(test_shards), TEST(test_escapes),     TEST(test_split_gguf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
