/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/choose.h"

#include "base/buf.h"

enum { PART_SUFFIX = 15 /* -00001-of-00002 */, MAX_NAMED = 12 };

static const char index_name[] = "model.safetensors.index.json";

/* Of a GGUF file's path: without .gguf and without the part of a split one. */
struct stem {
    size_t size;
    uint32_t part; /* from 1; 0: not split */
    uint32_t parts;
};

/* Five digits. */
static bool read_part(const char *text, uint32_t *ret_number)
{
    uint32_t number = 0;

    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        number = 10 * number + (uint32_t)(text[i] - '0');
    }
    *ret_number = number;
    return true;
}

static bool stem_of(const char *path, struct stem *ret_stem)
{
    struct stem stem = {0};
    const char *suffix;

    if (!hub_ends_with(path, ".gguf")) {
        return false;
    }
    stem.size = strlen(path) - strlen(".gguf");
    suffix = path + stem.size - MIN(stem.size, PART_SUFFIX);
    if (stem.size > PART_SUFFIX && suffix[0] == '-' && strncmp(suffix + 6, "-of-", 4) == 0 &&
        read_part(suffix + 1, &stem.part) && read_part(suffix + 10, &stem.parts)) {
        stem.size -= PART_SUFFIX;
    } else {
        stem.part = stem.parts = 0;
    }
    *ret_stem = stem;
    return true;
}

static bool same_stem(const char *a, const char *b)
{
    struct stem x;
    struct stem y;

    return stem_of(a, &x) && stem_of(b, &y) && x.size == y.size && x.parts == y.parts &&
           strncmp(a, b, x.size) == 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

/* A file that begins a GGUF model and fits the name. */
static bool is_candidate(const char *path, const struct hub_name *name)
{
    struct stem stem;
    size_t quant;

    if (!stem_of(path, &stem)) {
        return false;
    }
    if (name->file != NULL) { /* any part stands for all */
        return stem.part <= 1 && same_stem(path, name->file);
    }
    if (stem.part > 1 || strncasecmp(base_name(path), "mmproj", 6) == 0) {
        return false; /* images are not for us */
    }
    if (name->quant == NULL) {
        return true;
    }
    quant = strlen(name->quant);
    return stem.size > quant && strncasecmp(path + stem.size - quant, name->quant, quant) == 0 &&
           strchr("-._/", path[stem.size - quant - 1]) != NULL;
}

/* Marks all parts of the model that begins with this file. */
static enum status want_gguf(struct hub_listing *listing, const struct hub_file *first,
                             struct err *err)
{
    struct stem stem;
    uint32_t found = 0;

    ENSURE(stem_of(first->path, &stem));
    for (size_t i = 0; i < listing->n; i++) {
        struct hub_file *file = &listing->files[i];

        if (same_stem(file->path, first->path)) {
            file->wanted = true;
            found++;
        }
    }
    if (stem.parts > 0 && found != stem.parts) {
        return err_set(err, STATUS_NOT_FOUND, "%s: %u of its %u parts are there", first->path,
                       found, stem.parts);
    }
    return STATUS_OK;
}

static enum status several(const struct hub_listing *listing, const struct hub_name *name,
                           struct err *err)
{
    struct buf names = {0};
    enum status status;
    uint32_t n = 0;

    for (size_t i = 0; i < listing->n; i++) {
        const char *path = listing->files[i].path;

        if (is_candidate(path, name) && n++ < MAX_NAMED) {
            buf_printf(&names, "%s%.80s", n == 1 ? "" : ", ", path);
        }
    }
    if (n > MAX_NAMED) {
        buf_printf(&names, " and %u more", n - MAX_NAMED);
    }
    status = err_set(err, STATUS_INVALID,
                     "%s holds %u GGUF models, name one as %s/FILE.gguf or %s:QUANT: %s",
                     name->repo, n, name->repo, name->repo, buf_str(&names));
    buf_release(&names);
    return status;
}

static enum status choose_gguf(struct hub_listing *listing, const struct hub_name *name,
                               struct hub_choice *ret_choice, struct err *err)
{
    const struct hub_file *first = NULL;
    enum status status;

    for (size_t i = 0; i < listing->n; i++) {
        if (is_candidate(listing->files[i].path, name)) {
            if (first != NULL) {
                return several(listing, name, err);
            }
            first = &listing->files[i];
        }
    }
    if (first == NULL && name->file != NULL) {
        return err_set(err, STATUS_NOT_FOUND, "%s: no file %s", name->repo, name->file);
    }
    if (first == NULL && name->quant != NULL) {
        return err_set(err, STATUS_NOT_FOUND, "%s: no GGUF file whose name ends with %s",
                       name->repo, name->quant);
    }
    if (first == NULL) {
        return err_set(err, STATUS_NOT_FOUND, "%s: neither .safetensors nor .gguf weights",
                       name->repo);
    }
    status = want_gguf(listing, first, err);
    if (status == STATUS_OK) {
        *ret_choice = (struct hub_choice){.gguf = first};
    }
    return status;
}

/* What a folder of safetensors needs beside its weights. */
static bool is_companion(const char *path)
{
    static const char *const names[] = {"config.json", "generation_config.json",
                                        "special_tokens_map.json", "chat_template.jinja",
                                        "chat_template.json"};
    static const char templates[] = "additional_chat_templates/";

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(path, names[i]) == 0) {
            return true;
        }
    }
    return (strncmp(path, "tokenizer", 9) == 0 && hub_ends_with(path, ".json") &&
            strchr(path, '/') == NULL) ||
           (strncmp(path, templates, strlen(templates)) == 0 && hub_ends_with(path, ".jinja"));
}

enum status hub_choose(struct hub_listing *listing, const struct hub_name *name,
                       struct hub_choice *ret_choice, struct err *err)
{
    struct hub_file *model = hub_listing_find(listing, "model.safetensors");
    struct hub_file *index = model != NULL ? NULL : hub_listing_find(listing, index_name);
    bool has_weights = model != NULL || index != NULL;

    for (size_t i = 0; i < listing->n && !has_weights; i++) {
        has_weights = hub_ends_with(listing->files[i].path, ".safetensors") &&
                      strchr(listing->files[i].path, '/') == NULL;
    }
    if (!has_weights || name->file != NULL || name->quant != NULL) {
        return choose_gguf(listing, name, ret_choice, err);
    }
    if (hub_listing_find(listing, "config.json") == NULL) {
        return err_set(err, STATUS_NOT_FOUND, "%s: weights without config.json", name->repo);
    }
    for (size_t i = 0; i < listing->n; i++) {
        struct hub_file *file = &listing->files[i];

        file->wanted = file == model || file == index || is_companion(file->path) ||
                       (model == NULL && index == NULL && strchr(file->path, '/') == NULL &&
                        hub_ends_with(file->path, ".safetensors"));
    }
    *ret_choice = (struct hub_choice){.index = index};
    return STATUS_OK;
}

enum status hub_choose_shards(struct hub_listing *listing, const char *text, size_t size,
                              struct err *err)
{
    enum status status;
    json_t *index = NULL;
    json_t *map;
    const char *tensor;
    json_t *shard;

    status = json_parse(text, size, &index, err);
    map = json_object_get(index, "weight_map");
    if (status == STATUS_OK && !json_is_object(map)) {
        status = err_set(err, STATUS_CORRUPT, "no weight_map");
    }
    if (status != STATUS_OK) {
        goto out;
    }
    json_object_foreach(map, tensor, shard)
    {
        const char *path = hub_listing_text(shard);
        struct hub_file *file;

        if (path == NULL) {
            status = err_set(err, STATUS_CORRUPT, "%s: no name of a file", tensor);
            break;
        }
        file = hub_listing_find(listing, path);
        if (file == NULL) {
            status = err_set(err, STATUS_NOT_FOUND, "%s is not there", path);
            break;
        }
        file->wanted = true;
    }
out:
    if (status != STATUS_OK) {
        err_prefix(err, "%s", index_name);
    }
    json_decref(index);
    return status;
}
