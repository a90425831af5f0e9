/* SPDX-License-Identifier: Apache-2.0 */
/* What a hub says: up to a zero byte the name that a user gives, up to the next the list of files,
 * then an index of shards. Whatever is chosen has a path and a checksum that are safe. */
#include "hub/choose.h"
#include "hub/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void choose(struct hub_listing *listing, const char *name_text, const char *index,
                   size_t index_size)
{
    struct hub_choice choice = {0};
    struct hub_name name = {0};
    struct err err = {0};

    if (hub_name_parse(name_text, &name, &err) != STATUS_OK) {
        return;
    }
    if (hub_choose(listing, &name, &choice, &err) == STATUS_OK &&
        hub_choose_shards(listing, index, index_size, &err) == STATUS_OK) {
        for (size_t i = 0; i < listing->n; i++) {
            const struct hub_file *file = &listing->files[i];
            size_t n = strlen(file->hash);

            ENSURE(hub_path_is_safe(file->path) && file->path[0] != '/');
            ENSURE(strncmp(file->path, "../", 3) != 0 && strstr(file->path, "/../") == NULL);
            ENSURE((n == HASH_GIT_DIGITS || n == HASH_SHA256_DIGITS) && hub_is_hex(file->hash, n));
        }
        ENSURE(choice.gguf == NULL || choice.gguf->wanted);
    }
    hub_name_release(&name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hub_listing listing = {0};
    struct buf text = {0};
    const char *list;
    size_t name_size;
    size_t list_size;
    size_t rest;

    buf_append(&text, data, size);
    buf_append(&text, "\0", 2); /* both separators are there */
    name_size = strlen(text.data) + 1;
    list = text.data + name_size;
    list_size = strnlen(list, text.len - name_size);
    rest = text.len - name_size - list_size;
    if (hub_listing_parse(&listing, list, list_size, NULL) == STATUS_OK) {
        choose(&listing, text.data, rest > 1 ? list + list_size + 1 : "", rest > 1 ? rest - 1 : 0);
    }
    hub_listing_release(&listing);
    buf_release(&text);
    return 0;
}
