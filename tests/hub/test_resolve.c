/* SPDX-License-Identifier: Apache-2.0 */
/* Finding models in the hub's cache, and what a MODEL argument means, without any network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "hub/cache.h"
#include "hub/hub.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER  "76543210fedcba9876543210fedcba9876543210"

struct place {
    char root[64];
    struct cache cache;
    struct hub_name name;
};

static int set_up(void **state)
{
    struct place *place = xalloc(sizeof(*place));

    snprintf(place->root, sizeof(place->root), "/tmp/lockstep-hub-XXXXXX");
    assert_non_null(mkdtemp(place->root));
    assert_int_equal(hub_name_parse("org/model", &place->name, NULL), STATUS_OK);
    assert_int_equal(cache_init(&place->cache, place->root, &place->name, NULL), STATUS_OK);
    assert_int_equal(cache_make(&place->cache, NULL), STATUS_OK);
    *state = place;
    return 0;
}

static int remove_it(const char *path, const struct stat *info UNUSED, int type UNUSED,
                     struct FTW *ftw UNUSED)
{
    return remove(path);
}

static int tear_down(void **state)
{
    struct place *place = *state;

    nftw(place->root, remove_it, 8, FTW_DEPTH | FTW_PHYS);
    cache_release(&place->cache);
    hub_name_release(&place->name);
    free(place);
    return 0;
}

/* A file of a snapshot as a pull makes it: its blob is named after its content here. */
static void put(struct place *place, const char *commit, const char *path, const char *content)
{
    struct buf hash = {0};
    char *blob;
    FILE *file;

    for (const char *c = path; *c != '\0'; c++) {
        buf_printf(&hash, "%02x", (unsigned char)*c);
    }
    blob = cache_blob(&place->cache, buf_str(&hash));
    file = fopen(blob, "w");
    assert_non_null(file);
    fputs(content, file);
    fclose(file);
    assert_int_equal(cache_link(&place->cache, commit, path, buf_str(&hash), NULL), STATUS_OK);
    free(blob);
    buf_release(&hash);
}

static enum status resolve(struct place *place, const char *name, const char *revision,
                           const char *ret_end)
{
    const struct hub_options options = {.name = name, .revision = revision, .cache = place->root};
    struct err err = {0};
    char *path = NULL;
    enum status status = hub_resolve(&options, &path, &err);

    if (status == STATUS_OK) {
        assert_non_null(ret_end);
        assert_true(hub_ends_with(path, ret_end));
        assert_int_equal(access(path, R_OK), 0);
    } else {
        assert_null(path);
        assert_true(err.text[0] != '\0');
    }
    free(path);
    return status;
}

static void test_resolve(void **state)
{
    struct place *place = *state;

    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND);
    put(place, COMMIT, "config.json", "{}");
    put(place, COMMIT, "model.safetensors", "x");
    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND); /* no ref */
    assert_int_equal(resolve(place, "org/model", COMMIT, "/snapshots/" COMMIT), STATUS_OK);
    assert_int_equal(cache_set_ref(&place->cache, "main", COMMIT, NULL), STATUS_OK);
    assert_int_equal(resolve(place, "org/model", NULL, "/snapshots/" COMMIT), STATUS_OK);
    assert_int_equal(resolve(place, "org/model", "dev", NULL), STATUS_NOT_FOUND);
    assert_int_equal(resolve(place, "org/other", NULL, NULL), STATUS_NOT_FOUND);
    assert_int_equal(resolve(place, "org/model:Q4_0", NULL, NULL), STATUS_NOT_FOUND);
    assert_int_equal(resolve(place, "org", NULL, NULL), STATUS_INVALID);
    assert_int_equal(resolve(place, "org/model", "../x", NULL), STATUS_INVALID);
}

/* A snapshot whose weights have not all come is none. */
static void test_unfinished(void **state)
{
    struct place *place = *state;

    assert_int_equal(cache_set_ref(&place->cache, "main", COMMIT, NULL), STATUS_OK);
    put(place, COMMIT, "config.json", "{}");
    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND);
    put(place, COMMIT, "model.safetensors.index.json",
        "{\"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\"}}");
    put(place, COMMIT, "a.safetensors", "x");
    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND);
    put(place, COMMIT, "b.safetensors", "x");
    assert_int_equal(resolve(place, "org/model", NULL, COMMIT), STATUS_OK);
    /* A link whose blob is gone does not count. */
    assert_int_equal(cache_link(&place->cache, COMMIT, "b.safetensors", "0000", NULL), STATUS_OK);
    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND);
}

static void test_gguf(void **state)
{
    struct place *place = *state;

    assert_int_equal(cache_set_ref(&place->cache, "main", OTHER, NULL), STATUS_OK);
    put(place, OTHER, "m-Q4_0.gguf", "x");
    assert_int_equal(resolve(place, "org/model", NULL, OTHER "/m-Q4_0.gguf"), STATUS_OK);
    put(place, OTHER, "big/m-Q8_0-00001-of-00002.gguf", "x");
    assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_INVALID);
    assert_int_equal(resolve(place, "org/model:Q4_0", NULL, OTHER "/m-Q4_0.gguf"), STATUS_OK);
    assert_int_equal(resolve(place, "org/model:Q8_0", NULL, NULL), STATUS_NOT_FOUND);
    put(place, OTHER, "big/m-Q8_0-00002-of-00002.gguf", "x");
    assert_int_equal(
        resolve(place, "org/model:Q8_0", NULL, OTHER "/big/m-Q8_0-00001-of-00002.gguf"), STATUS_OK);
}

/* Others write the cache too. */
static void test_damaged(void **state)
{
    struct place *place = *state;
    static const char *const refs[] = {"", "x", "../../..", "/", COMMIT "0"};
    char path[256];

    put(place, COMMIT, "config.json", "{}");
    put(place, COMMIT, "model.safetensors", "x");
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        assert_int_equal(cache_set_ref(&place->cache, "main", refs[i], NULL), STATUS_OK);
        assert_int_equal(resolve(place, "org/model", NULL, NULL), STATUS_NOT_FOUND);
    }
    assert_int_equal(cache_set_ref(&place->cache, "main", COMMIT "\n", NULL), STATUS_OK);
    assert_int_equal(resolve(place, "org/model", NULL, COMMIT), STATUS_OK);
    /* A circle of folders ends. */
    snprintf(path, sizeof(path), "%s/snapshots/" COMMIT "/again", place->cache.folder);
    assert_int_equal(symlink(".", path), 0);
    assert_int_equal(resolve(place, "org/model", NULL, COMMIT), STATUS_OK);
}

static void test_open(void **state)
{
    struct place *place = *state;
    struct hub_options options = {
        .name = place->root, .cache = place->root, .endpoint = "http://127.0.0.1:1"};
    struct err err = {0};
    char *path = NULL;

    assert_int_equal(hub_open(&options, &path, &err), STATUS_OK);
    assert_string_equal(path, place->root);
    free(path);
    options.name = "no/such/path/here";
    assert_int_equal(hub_open(&options, &path, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "no such file or folder"));
    put(place, COMMIT, "config.json", "{}");
    put(place, COMMIT, "model.safetensors", "x");
    assert_int_equal(cache_set_ref(&place->cache, "main", COMMIT, NULL), STATUS_OK);
    options.name = "org/model"; /* nobody is asked: nobody is there */
    assert_int_equal(hub_open(&options, &path, &err), STATUS_OK);
    assert_true(hub_ends_with(path, "/snapshots/" COMMIT));
    free(path);
}

/* A lock holds off others, and not after its holder is gone. */
static void test_locks(void **state)
{
    struct place *place = *state;
    int first;
    int second;

    assert_int_equal(cache_lock(&place->cache, "00", &first, NULL), STATUS_OK);
    assert_int_equal(cache_lock(&place->cache, "00", &second, NULL), STATUS_PENDING);
    assert_int_equal(cache_lock(&place->cache, "01", &second, NULL), STATUS_OK);
    close(second);
    close(first);
    assert_int_equal(cache_lock(&place->cache, "00", &second, NULL), STATUS_OK);
    close(second);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_resolve), TEST(test_unfinished), TEST(test_gguf),
        TEST(test_damaged), TEST(test_open),       TEST(test_locks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
