/* SPDX-License-Identifier: Apache-2.0 */
/* The file: JSON that says in clear what it is for. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "tune/tune.h"

enum { MAX_FILE_BYTES = 64 << 10, MAX_THREADS = 4096 };

static const char *const product_names[OPS_PRODUCTS] = {"plain", "bf16_12", "integers"};

json_t *tune_to_json(const struct ops_tune *tune)
{
    json_t *few = json_object();
    json_t *json;

    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        json_object_set_new(few, product_names[i], json_integer(tune->few_rows[i]));
    }
    json = json_pack("{s:o, s:I}", "few_rows", few, "few_threads", (json_int_t)tune->few_threads);
    ENSURE(json != NULL);
    if (tune->likes_bf16_12 != OPS_UNKNOWN) {
        json_object_set_new(json, "bf16_12", json_boolean(tune->likes_bf16_12 == OPS_YES));
    }
    return json;
}

enum status tune_from_json(const json_t *json, struct ops_tune *ret_tune, struct err *err)
{
    const json_t *few = json_object_get(json, "few_rows");
    const json_t *likes = json_object_get(json, "bf16_12");
    struct ops_tune tune = {0};
    int64_t value;
    enum status status = json_need_int(json, "few_threads", 0, MAX_THREADS, &value, err);

    tune.few_threads = (uint32_t)value;
    for (unsigned i = 0; i < OPS_PRODUCTS && status == STATUS_OK; i++) {
        status = json_need_int(few, product_names[i], 0, OPS_FEW_ROWS_MAX, &value, err);
        tune.few_rows[i] = (uint32_t)value;
    }
    if (status == STATUS_OK && likes != NULL && !json_is_boolean(likes)) {
        status = err_set(err, STATUS_INVALID, "bf16_12 is neither true nor false");
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (likes != NULL) {
        tune.likes_bf16_12 = json_is_true(likes) ? OPS_YES : OPS_NO;
    }
    *ret_tune = tune;
    return STATUS_OK;
}

/* Vendor, family, model and stepping, where the processor tells them. */
static void put_cpu(struct buf *text)
{
#if defined(__x86_64__)
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    char vendor[13] = "";

    if (__get_cpuid(0, &a, &b, &c, &d) != 0) {
        memcpy(vendor, &b, 4);
        memcpy(vendor + 4, &d, 4);
        memcpy(vendor + 8, &c, 4);
    }
    a = 0;
    (void)__get_cpuid(1, &a, &b, &c, &d);
    buf_printf(text, "%s %08x", vendor, a);
#else
    buf_append_str(text, "aarch64");
#endif
}

/* The build: the program's file. */
static void put_build(struct buf *text)
{
    struct stat file = {0};

    (void)!stat("/proc/self/exe", &file);
    buf_printf(text, "%s %lld %lld.%09ld", LOCKSTEP_VERSION, (long long)file.st_size,
               (long long)file.st_mtim.tv_sec, file.st_mtim.tv_nsec);
}

/* {"cpu": ..., "level": ..., "threads": ..., "build": ...} */
static json_t *key_json(const struct tune_key *key)
{
    struct buf cpu = {0};
    struct buf build = {0};
    json_t *json;

    put_cpu(&cpu);
    put_build(&build);
    json = json_pack("{s:s, s:s, s:I, s:s}", "cpu", buf_str(&cpu), "level", key->level, "threads",
                     (json_int_t)key->n_threads, "build", buf_str(&build));
    ENSURE(json != NULL);
    buf_release(&cpu);
    buf_release(&build);
    return json;
}

char *tune_path(const struct tune_key *key)
{
    json_t *json = key_json(key);
    struct buf text = {0};
    char name[40];

    json_write(&text, json, &json_style_compact);
    json_decref(json);
    snprintf(name, sizeof(name), "tune-%016llx.json",
             (unsigned long long)XXH3_64bits(text.data, text.len));
    buf_release(&text);
    return file_cache_path(name);
}

bool tune_read(const struct tune_key *key, struct ops_tune *ret_tune)
{
    char *path = tune_path(key);
    json_t *wanted = key_json(key);
    json_t *json = NULL;
    struct err err = {0};
    enum status status = STATUS_NOT_FOUND;

    *ret_tune = (struct ops_tune){0};
    if (path != NULL && access(path, F_OK) == 0) {
        status = json_parse_file(path, MAX_FILE_BYTES, &json, &err);
        if (status == STATUS_OK && !json_equal(json_object_get(json, "for"), wanted)) {
            status = err_set(&err, STATUS_INVALID, "it is for another machine or build");
        }
        if (status == STATUS_OK) {
            status = tune_from_json(json_object_get(json, "choices"), ret_tune, &err);
        }
        if (status != STATUS_OK) {
            log_info("%s is of no use: %s", path, err.text);
        }
    }
    json_decref(json);
    json_decref(wanted);
    free(path);
    return status == STATUS_OK;
}

enum status tune_write(const struct tune_key *key, const struct ops_tune *tune, struct err *err)
{
    char *path = tune_path(key);
    json_t *json;
    struct buf text = {0};
    enum status status;

    if (path == NULL) {
        return err_set(err, STATUS_IO,
                       "neither XDG_CACHE_HOME nor HOME says where choices are kept");
    }
    json = json_pack("{s:o, s:o}", "for", key_json(key), "choices", tune_to_json(tune));
    ENSURE(json != NULL);
    json_write(&text, json, &json_style_compact);
    json_decref(json);
    file_make_folders(path);
    status = file_replace(path, text.data, text.len, 0600, err);
    buf_release(&text);
    free(path);
    return status;
}
