/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/listing.h"

#include "base/mem.h"
#include "hub/hash.h"
#include "hub/name.h"

enum { MAX_FILES = 100000 };

/* Larger than any, and small enough that the sum of MAX_FILES fits. */
static const int64_t MAX_FILE_BYTES = INT64_C(1) << 46;

void hub_listing_release(struct hub_listing *listing)
{
    for (size_t i = 0; i < listing->n; i++) {
        free(listing->files[i].path);
        free(listing->files[i].hash);
    }
    free(listing->files);
    *listing = (struct hub_listing){0};
}

enum status hub_listing_add(struct hub_listing *listing, const char *path, const char *hash,
                            uint64_t bytes, struct err *err)
{
    if (listing->n == MAX_FILES) {
        return err_set(err, STATUS_LIMIT, "more than %d files", MAX_FILES);
    }
    if (listing->n == listing->cap) {
        listing->cap = MAX(64, 2 * listing->cap);
        listing->files = xrealloc(listing->files, listing->cap, sizeof(*listing->files));
    }
    listing->files[listing->n++] = (struct hub_file){
        .path = xstrdup(path), .hash = hash == NULL ? NULL : xstrdup(hash), .bytes = bytes};
    return STATUS_OK;
}

struct hub_file *hub_listing_find(const struct hub_listing *listing, const char *path)
{
    for (size_t i = 0; i < listing->n; i++) {
        if (strcmp(listing->files[i].path, path) == 0) {
            return &listing->files[i];
        }
    }
    return NULL;
}

const char *hub_listing_text(const json_t *value)
{
    const char *text = json_string_value(value);

    return text != NULL && strlen(text) == json_string_length(value) ? text : NULL;
}

static enum status add_entry(struct hub_listing *listing, const json_t *entry, struct err *err)
{
    const json_t *lfs = json_object_get(entry, "lfs");
    bool is_large = json_is_object(lfs);
    const char *type = json_string_value(json_object_get(entry, "type"));
    const char *path = hub_listing_text(json_object_get(entry, "path"));
    const char *hash = hub_listing_text(json_object_get(is_large ? lfs : entry, "oid"));
    int64_t bytes = -1;

    if (type == NULL || path == NULL) {
        return err_set(err, STATUS_CORRUPT, "an entry without a type or a path that is accepted");
    }
    if (strcmp(type, "file") != 0) {
        return STATUS_OK;
    }
    if (!hub_path_is_safe(path)) {
        return err_set(err, STATUS_CORRUPT, "a file named \"%s\", which is not accepted", path);
    }
    if (hash == NULL || !hub_is_hex(hash, is_large ? HASH_SHA256_DIGITS : HASH_GIT_DIGITS)) {
        return err_set(err, STATUS_CORRUPT, "%s: no checksum that we know", path);
    }
    if (json_need_int(is_large ? lfs : entry, "size", 0, MAX_FILE_BYTES, &bytes, err) !=
        STATUS_OK) {
        err_prefix(err, "%s", path);
        return STATUS_CORRUPT;
    }
    return hub_listing_add(listing, path, hash, (uint64_t)bytes, err);
}

enum status hub_listing_parse(struct hub_listing *listing, const char *text, size_t size,
                              struct err *err)
{
    json_t *page = NULL;
    enum status status = json_parse(text, size, &page, err);

    if (status == STATUS_OK && !json_is_array(page)) {
        status = err_set(err, STATUS_CORRUPT, "no array of files");
    }
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(page); i++) {
        status = add_entry(listing, json_array_get(page, i), err);
    }
    json_decref(page);
    return status;
}
