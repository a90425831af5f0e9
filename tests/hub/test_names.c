/* SPDX-License-Identifier: Apache-2.0 */
/* Names and paths that are accepted, checksums, and which files of a repository are chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "hub/choose.h"
#include "hub/hash.h"
#include "hub/hub.h"

static void test_names(void **state UNUSED)
{
    static const char *const good[] = {
        "Qwen/Qwen3-0.6B", "a/b", "org_1/M.o-d_el", "org/model:Q4_K_M", "org/model/sub/f.gguf",
    };
    static const char *const bad[] = {
        "",          "model",     "org/",       "/model",       "org//model",      "./model",
        "../model",  "org/..",    "org/-m",     "org/m-",       "org/m.",          "org/a--b",
        "org/a..b",  "org/a b",   "org/model/", "org/m/x.bin",  "org/m/../x.gguf", "org/m:",
        "org/m:a/b", "org/m:a:b", "org/m\n",    "o\xc3\xa9g/m", "org:x/m",         "org/m//x.gguf",
    };
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(hub_is_name(good[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct hub_name name = {0};

        if (hub_is_name(bad[i])) {
            fail_msg("%s is accepted", bad[i]);
        }
        assert_int_equal(hub_name_parse(bad[i], &name, &err), STATUS_INVALID);
        assert_null(name.repo);
    }
}

static void test_name_parts(void **state UNUSED)
{
    struct hub_name name = {0};
    char *folder;

    assert_int_equal(hub_name_parse("org/my-model:Q8_0", &name, NULL), STATUS_OK);
    folder = hub_name_folder(&name);
    assert_string_equal(name.repo, "org/my-model");
    assert_string_equal(name.quant, "Q8_0");
    assert_null(name.file);
    assert_string_equal(folder, "models--org--my-model");
    free(folder);
    hub_name_release(&name);

    assert_int_equal(hub_name_parse("org/m/a/b.gguf", &name, NULL), STATUS_OK);
    assert_string_equal(name.repo, "org/m");
    assert_string_equal(name.file, "a/b.gguf");
    assert_null(name.quant);
    hub_name_release(&name);
}

static void test_paths(void **state UNUSED)
{
    static const char *const good[] = {"a",  "a/b.c", "..a/b..", "...", "\xc3\xa9/\xe4\xb8\xad",
                                       "a b"};
    static const char *const bad[] = {
        "",        "/",    "/a",     "a/",   "a//b",     ".",         "..",
        "a/..",    "../a", "a/../b", "./a",  "a/./b",    "a\nb",      "a\x7f",
        "\x1b[2J", "a\\b", "\xff",   "\xc3", "\xc2\x85", "a\xc0\xaf", "\xed\xa0\x80",
    };
    char name[1100];

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(hub_path_is_safe(good[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (hub_path_is_safe(bad[i])) {
            fail_msg("number %zu is accepted", i);
        }
    }
    memset(name, 'a', sizeof(name));
    name[255] = '\0';
    assert_true(hub_path_is_safe(name));
    name[255] = 'a';
    name[256] = '\0';
    assert_false(hub_path_is_safe(name));
    for (size_t i = 0; i < sizeof(name); i++) {
        name[i] = i % 2 == 1 ? '/' : 'a';
    }
    name[999] = '\0';
    assert_true(hub_path_is_safe(name));
    name[999] = 'b';
    name[1000] = 'b';
    name[1001] = '\0';
    assert_false(hub_path_is_safe(name));
}

static void test_revisions(void **state UNUSED)
{
    assert_true(hub_revision_is_safe("main"));
    assert_true(hub_revision_is_safe("refs/pr/1"));
    assert_true(hub_revision_is_safe("v1.0+x"));
    assert_false(hub_revision_is_safe("a?b"));
    assert_false(hub_revision_is_safe("a%2e"));
    assert_false(hub_revision_is_safe("../main"));
    assert_false(hub_revision_is_safe(""));
    assert_true(hub_is_hex("0af", 3));
    assert_false(hub_is_hex("0aF", 3));
    assert_false(hub_is_hex("0a", 3));
}

static void test_hashes(void **state UNUSED)
{
    char text[HASH_TEXT_BYTES];
    struct hash *hash = hash_create(HASH_GIT_DIGITS, 6);

    hash_add(hash, "wrong", 5);
    hash_restart(hash);
    hash_add(hash, "hel", 3);
    hash_add(hash, "lo\n", 3);
    hash_text(hash, text); /* git hash-object */
    assert_string_equal(text, "ce013625030ba8dba906f756967f9e9ca394464a");
    hash_destroy(&hash);

    hash = hash_create(HASH_SHA256_DIGITS, 3);
    hash_add(hash, "abc", 3);
    hash_text(hash, text); /* FIPS 180-4's example */
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_destroy(&hash);
    assert_null(hash);
}

/* Chooses among these files (separated by spaces); gives the wanted ones, or the error's text. */
static enum status choose(const char *name_text, const char *files, struct buf *ret_text)
{
    struct hub_listing listing = {0};
    struct hub_choice choice = {0};
    struct hub_name name = {0};
    struct err err = {0};
    enum status status;

    buf_clear(ret_text);
    assert_int_equal(hub_name_parse(name_text, &name, NULL), STATUS_OK);
    while (*files != '\0') {
        size_t n = strcspn(files, " ");
        char *path = xstrndup(files, n);

        assert_int_equal(hub_listing_add(&listing, path, NULL, 1, NULL), STATUS_OK);
        free(path);
        files += n + strspn(files + n, " ");
    }
    status = hub_choose(&listing, &name, &choice, &err);
    for (size_t i = 0; i < listing.n && status == STATUS_OK; i++) {
        if (listing.files[i].wanted) {
            buf_printf(ret_text, "%s%s", ret_text->len > 0 ? " " : "", listing.files[i].path);
        }
    }
    buf_append_str(ret_text, status == STATUS_OK ? "" : err.text);
    hub_listing_release(&listing);
    hub_name_release(&name);
    return status;
}

static void test_choose(void **state UNUSED)
{
    static const struct {
        const char *name;
        const char *files;
        const char *wanted;
    } cases[] = {
        {"o/m", "config.json model.safetensors other.safetensors a.gguf pytorch_model.bin",
         "config.json model.safetensors"},
        {"o/m", "config.json x.safetensors y.safetensors sub/z.safetensors tokenizer.model",
         "config.json x.safetensors y.safetensors"},
        {"o/m", "config.json model.safetensors.index.json x.safetensors tokenizer_config.json",
         "config.json model.safetensors.index.json tokenizer_config.json"},
        {"o/m:q4", "config.json model.safetensors a-Q4.gguf", "a-Q4.gguf"},
        {"o/m", "config.json a.gguf", "a.gguf"},
        {"o/m", "a-00001-of-00002.gguf a-00002-of-00002.gguf",
         "a-00001-of-00002.gguf a-00002-of-00002.gguf"},
        {"o/m/a-00001-of-00001.gguf", "a-00001-of-00001.gguf a.gguf", "a-00001-of-00001.gguf"},
    };
    struct buf text = {0};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(choose(cases[i].name, cases[i].files, &text), STATUS_OK);
        assert_string_equal(buf_str(&text), cases[i].wanted);
    }
    assert_int_equal(choose("o/m", "model.safetensors", &text), STATUS_NOT_FOUND);
    assert_int_equal(choose("o/m", "a-1.gguf a-2.gguf", &text), STATUS_INVALID);
    assert_non_null(strstr(buf_str(&text), "a-1.gguf, a-2.gguf"));
    assert_int_equal(choose("o/m:4", "a-Q4.gguf", &text), STATUS_NOT_FOUND);
    assert_int_equal(choose("o/m:a-Q4", "a-Q4.gguf", &text), STATUS_NOT_FOUND);
    assert_int_equal(choose("o/m", "", &text), STATUS_NOT_FOUND);
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_name_parts),
        cmocka_unit_test(test_paths),  cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_hashes), cmocka_unit_test(test_choose),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
