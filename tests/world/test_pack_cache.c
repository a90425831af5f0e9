/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of packed weights: saved, found, damaged, refused by the disk, removed for newer ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "world/pack_cache.h"

enum { N_RANKS = 2, N_FILES = N_RANKS + 2, BYTES = (2 << 20) + 4096 }; /* three chunks each */

struct scene {
    char root[64];
    char folder[80];
    char model[80];
    json_t *load;
    struct pack_cache *cache;
    struct pack_cache_files memory;
};

static int make_memory(unsigned seed)
{
    int fd = memfd_create("test-pack", MFD_CLOEXEC);
    unsigned char *data = malloc(BYTES);

    assert_true(fd >= 0);
    for (size_t i = 0; i < BYTES; i++) {
        data[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
    }
    assert_int_equal(write(fd, data, BYTES), BYTES);
    free(data);
    return fd;
}

static void write_model(const struct scene *scene, const char *text)
{
    FILE *file = fopen(scene->model, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    snprintf(scene->root, sizeof(scene->root), "/tmp/test-pack-XXXXXX");
    assert_non_null(mkdtemp(scene->root));
    snprintf(scene->folder, sizeof(scene->folder), "%s/a/b", scene->root);
    snprintf(scene->model, sizeof(scene->model), "%s/model", scene->root);
    write_model(scene, "weights");
    scene->load = json_pack("{s:s, s:{s:s, s:i}}", "model", scene->model, "options", "quant",
                            "q8_0", "n_pages", 1);
    scene->cache = pack_cache_create(scene->folder);
    scene->memory.host = make_memory(0);
    for (unsigned r = 0; r < N_RANKS; r++) {
        scene->memory.ranks[r] = make_memory(r + 1);
    }
    *state = scene;
    return 0;
}

static struct pack_cache_key key_of(const struct scene *scene)
{
    return (struct pack_cache_key){
        .build = "test", .layout = 1, .n_ranks = N_RANKS, .load = scene->load};
}

/* Names of the folder, each but . and .. handed to visit; how many. */
static unsigned each_file(const char *folder, void (*visit)(const char *path))
{
    DIR *entries = opendir(folder);
    unsigned n = 0;
    char path[400];

    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (entry->d_name[0] != '.') {
            n++;
            snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
            if (visit != NULL) {
                visit(path);
            }
        }
    }
    if (entries != NULL) {
        closedir(entries);
    }
    return n;
}

static void remove_file(const char *path)
{
    assert_int_equal(remove(path), 0);
}

static int tear_down(void **state)
{
    struct scene *scene = *state;
    char path[100];

    pack_cache_destroy(&scene->cache);
    close(scene->memory.host);
    for (unsigned r = 0; r < N_RANKS; r++) {
        close(scene->memory.ranks[r]);
    }
    each_file(scene->folder, remove_file);
    rmdir(scene->folder);
    snprintf(path, sizeof(path), "%s/a", scene->root);
    rmdir(path);
    unlink(scene->model);
    assert_int_equal(rmdir(scene->root), 0); /* so there was nothing else */
    json_decref(scene->load);
    free(scene);
    return 0;
}

static void save(struct scene *scene)
{
    struct pack_cache_key key = key_of(scene);

    pack_cache_save(scene->cache, &key, &scene->memory);
    pack_cache_destroy(&scene->cache); /* waits */
    scene->cache = pack_cache_create(scene->folder);
}

static bool same(int fd, int other)
{
    char *a = malloc(BYTES + 1);
    char *b = malloc(BYTES + 1);
    bool is_same = pread(fd, a, BYTES + 1, 0) == BYTES && pread(other, b, BYTES + 1, 0) == BYTES &&
                   memcmp(a, b, BYTES) == 0;

    free(a);
    free(b);
    return is_same;
}

/* Whether there is a set; it must be what was saved, and not to be written to. */
static bool finds(struct scene *scene)
{
    struct pack_cache_key key = key_of(scene);
    struct pack_cache_files files;

    if (!pack_cache_find(scene->cache, &key, &files)) {
        return false;
    }
    assert_true(same(files.host, scene->memory.host));
    assert_int_equal(write(files.host, "x", 1), -1);
    close(files.host);
    for (unsigned r = 0; r < N_RANKS; r++) {
        assert_true(same(files.ranks[r], scene->memory.ranks[r]));
        close(files.ranks[r]);
    }
    return true;
}

static void test_saved_and_found(void **state)
{
    struct scene *scene = *state;
    struct stat info;

    assert_false(finds(scene));
    save(scene);
    assert_int_equal(each_file(scene->folder, NULL), N_FILES);
    assert_int_equal(stat(scene->folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_true(finds(scene));
    assert_true(finds(scene));
    save(scene); /* over what is there */
    assert_int_equal(each_file(scene->folder, NULL), N_FILES);
    assert_true(finds(scene));
}

/* What the set is for: the model's file and the options that make weights, and no others. */
static void test_keys(void **state)
{
    struct scene *scene = *state;
    json_t *options = json_object_get(scene->load, "options");

    save(scene);
    json_object_set_new(options, "n_pages", json_integer(7));
    assert_true(finds(scene));
    json_object_set_new(options, "quant", json_string("q4_0"));
    assert_false(finds(scene));
    json_object_set_new(options, "quant", json_string("q8_0"));
    assert_true(finds(scene));
    write_model(scene, "other weights");
    assert_false(finds(scene));
}

static void flip(const char *path)
{
    struct stat info;
    int fd = open(path, O_RDWR);
    char byte;

    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(pread(fd, &byte, 1, info.st_size - 1), 1);
    byte = (char)(byte ^ 4);
    assert_int_equal(pwrite(fd, &byte, 1, info.st_size - 1), 1);
    close(fd);
}

static void cut(const char *path)
{
    struct stat info;

    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - 1), 0);
}

static void grow(const char *path)
{
    struct stat info;

    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size + 4096), 0);
}

static void empty(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static const struct {
    const char *end;
    void (*harm)(const char *path);
} harms[] = {
    {".0", flip},     {".1", flip},        {".host", flip},        {".sums", flip}, {".0", cut},
    {".host", cut},   {".sums", cut},      {".1", grow},           {".sums", grow}, {".0", empty},
    {".sums", empty}, {".1", remove_file}, {".host", remove_file},
};

static size_t harm;

static void do_harm(const char *path)
{
    if (strcmp(strrchr(path, '.'), harms[harm].end) == 0) {
        harms[harm].harm(path);
    }
}

/* Whatever is damaged is no set, and goes; the next one is as good as new. */
static void test_damage(void **state)
{
    struct scene *scene = *state;

    for (harm = 0; harm < ARRAY_LEN(harms); harm++) {
        save(scene);
        assert_true(finds(scene));
        assert_int_equal(each_file(scene->folder, do_harm), N_FILES);
        assert_false(finds(scene));
        assert_int_equal(each_file(scene->folder, NULL), 0);
    }
    save(scene);
    assert_true(finds(scene));
}

static void test_discarded(void **state)
{
    struct scene *scene = *state;
    struct pack_cache_key key = key_of(scene);

    save(scene);
    pack_cache_discard(scene->cache, &key);
    assert_int_equal(each_file(scene->folder, NULL), 0);
    assert_false(finds(scene));
}

/* A file that must not grow so large: nothing is left, nothing dies. */
static void test_full_disk(void **state)
{
    struct scene *scene = *state;
    struct rlimit was;
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    limit = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    save(scene);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(each_file(scene->folder, NULL), 0);
    assert_false(finds(scene));
}

/* A file where the folder should be; a folder in which others may write. */
static void test_bad_folder(void **state)
{
    struct scene *scene = *state;
    char path[100];
    int fd;

    snprintf(path, sizeof(path), "%s/a", scene->root);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    save(scene);
    assert_false(finds(scene));
    close(fd);
    assert_int_equal(unlink(path), 0);
    save(scene);
    assert_true(finds(scene));
    assert_int_equal(chmod(scene->folder, 0777), 0);
    assert_false(finds(scene));
}

/* Two that save the same at once. */
static void test_two_at_once(void **state)
{
    struct scene *scene = *state;
    struct pack_cache *other = pack_cache_create(scene->folder);
    struct pack_cache_key key = key_of(scene);

    for (unsigned i = 0; i < 10; i++) {
        pack_cache_save(other, &key, &scene->memory);
        save(scene);
    }
    pack_cache_destroy(&other);
    if (!finds(scene)) { /* one removed a name that the other had just made: the next start packs */
        save(scene);
    }
    assert_true(finds(scene));
    assert_int_equal(each_file(scene->folder, NULL), N_FILES);
}

/* The sets used last stay. */
static void test_removed_for_newer(void **state)
{
    struct scene *scene = *state;
    json_t *options = json_object_get(scene->load, "options");

    for (int i = 0; i <= PACK_CACHE_SETS; i++) {
        json_object_set_new(options, "level", json_integer(i));
        save(scene);
        usleep(20000); /* file systems count time in ticks */
        json_object_set_new(options, "level", json_integer(0));
        assert_true(finds(scene)); /* used again and again */
        usleep(20000);
    }
    assert_int_equal(each_file(scene->folder, NULL), PACK_CACHE_SETS * N_FILES);
    json_object_set_new(options, "level", json_integer(1));
    assert_false(finds(scene));
    json_object_set_new(options, "level", json_integer(2));
    assert_true(finds(scene));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_saved_and_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_discarded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_removed_for_newer, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
