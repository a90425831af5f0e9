/* SPDX-License-Identifier: Apache-2.0 */
/* The page within the program is the page in the source folder. */
#include "web/web.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define FOLDER TEST_SOURCE_DIR "/src/web/page"

static void expect_same(const struct web_file *file, const char *name)
{
    static unsigned char bytes[1 << 18];
    char path[512];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), FOLDER "/%s", name);
    f = fopen(path, "rb");
    assert_non_null(f);
    n = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    assert_true(n < sizeof(bytes));
    assert_int_equal(file->size, n);
    assert_memory_equal(file->data, bytes, n);
}

static void test_every_file(void **state)
{
    DIR *folder = opendir(FOLDER);
    struct dirent *entry;
    size_t n_found = 0;
    size_t n_files;

    (void)state;
    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL) {
        const struct web_file *file;
        char path[300];

        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "/page/%s", entry->d_name);
        file = web_find(strcmp(entry->d_name, "index.html") == 0 ? "/" : path);
        assert_non_null(file);
        expect_same(file, entry->d_name);
        n_found++;
    }
    closedir(folder);
    web_files(&n_files);
    assert_int_equal(n_found, n_files);
}

static void test_paths(void **state)
{
    static const char *const unknown[] = {"",
                                          "/page",
                                          "/page/",
                                          "/page/index.html",
                                          "/page/none.js",
                                          "page/chat.js",
                                          "//",
                                          "/page/../page/chat.js",
                                          "/PAGE/chat.js"};

    (void)state;
    assert_ptr_equal(web_find("/index.html"), web_find("/"));
    assert_ptr_equal(web_find("/favicon.ico"), web_find("/page/favicon.svg"));
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        assert_null(web_find(unknown[i]));
    }
}

static void test_types(void **state)
{
    (void)state;
    assert_string_equal(web_find("/")->content_type, "text/html; charset=utf-8");
    assert_string_equal(web_find("/page/style.css")->content_type, "text/css; charset=utf-8");
    assert_string_equal(web_find("/page/main.js")->content_type, "text/javascript; charset=utf-8");
    assert_string_equal(web_find("/page/favicon.svg")->content_type, "image/svg+xml");
}

static void test_tags(void **state)
{
    size_t n_files;
    const struct web_file *files = web_files(&n_files);

    (void)state;
    for (size_t i = 0; i < n_files; i++) {
        char list[256];
        size_t n = strlen(files[i].etag);

        assert_true(n > 2 && files[i].etag[0] == '"' && files[i].etag[n - 1] == '"');
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(files[i].etag, files[j].etag);
        }
        assert_true(web_is_known(&files[i], files[i].etag));
        snprintf(list, sizeof(list), "W/%s", files[i].etag);
        assert_true(web_is_known(&files[i], list));
        snprintf(list, sizeof(list), "\"a, b\" ,W/\"c\",  %s", files[i].etag);
        assert_true(web_is_known(&files[i], list));
        assert_true(web_is_known(&files[i], "*"));
        assert_false(web_is_known(&files[i], NULL));
        assert_false(web_is_known(&files[i], ""));
        assert_false(web_is_known(&files[i], "\"other\""));
        assert_false(web_is_known(&files[i], "\"open"));
        assert_false(web_is_known(&files[i], "bare, , W/"));
        snprintf(list, sizeof(list), "%.*s", (int)n - 1, files[i].etag);
        assert_false(web_is_known(&files[i], list));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_file),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_tags),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
