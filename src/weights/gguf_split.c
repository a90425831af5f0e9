/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GGUF model split over files NAME-00001-of-0000N.gguf: the first holds the metadata and some of
 * the tensors, the others little metadata ("split.no") and more tensors.
 */
#include "base/buf.h"
#include "base/mem.h"
#include "weights/weights_priv.h"

enum { SUFFIX_LEN = sizeof("-00001-of-00001.gguf") - 1 };

/* A key that a file without it means to be 0. */
static enum status get_or_zero(const struct weights *weights, const char *key, uint32_t *ret_value,
                               struct err *err)
{
    enum status status = gguf_get_u32(weights, key, ret_value, err);

    if (status == STATUS_NOT_FOUND) {
        *ret_value = 0;
        return STATUS_OK;
    }
    return status;
}

/* Adds part number `part` (from 1); the metadata stays that of the first file. */
static enum status parse_part(struct weights *weights, const char *stem, uint32_t part,
                              uint32_t count, struct err *err)
{
    struct gguf_value *values = weights->values;
    size_t n_values = weights->n_values;
    size_t cap_values = weights->cap_values;
    struct buf path = {0};
    struct source source;
    enum status status;
    uint32_t file;
    uint32_t number;

    weights->values = NULL;
    weights->n_values = 0;
    weights->cap_values = 0;
    buf_printf(&path, "%s-%05u-of-%05u.gguf", stem, part, count);
    status = source_open(&source, buf_str(&path), err);
    if (status == STATUS_OK) {
        status = weights_add_file(weights, &source, &file, err);
    }
    if (status == STATUS_OK) {
        status = gguf_parse(weights, file, err);
    }
    if (status == STATUS_OK) {
        status = get_or_zero(weights, "split.no", &number, err);
    }
    if (status == STATUS_OK && number != part - 1) {
        status = err_set(err, STATUS_CORRUPT, "%s: split.no: is %u, its name says %u",
                         buf_str(&path), number, part - 1);
    }
    free(weights->values);
    weights->values = values;
    weights->n_values = n_values;
    weights->cap_values = cap_values;
    buf_release(&path);
    return status;
}

enum status gguf_parse_split(struct weights *weights, struct err *err)
{
    const char *first = weights->files[0].name;
    size_t len = strlen(first);
    char suffix[SUFFIX_LEN + 1];
    uint32_t number;
    uint32_t count;
    enum status status;
    char *stem;

    status = get_or_zero(weights, "split.count", &count, err);
    if (status == STATUS_OK) {
        status = get_or_zero(weights, "split.no", &number, err);
    }
    if (status != STATUS_OK || count <= 1) {
        return status;
    }
    if (count > WEIGHTS_MAX_FILES) {
        return err_set(err, STATUS_LIMIT, "%s: split.count: more than %d files", first,
                       WEIGHTS_MAX_FILES);
    }
    snprintf(suffix, sizeof(suffix), "-00001-of-%05u.gguf", count);
    if (number != 0 || len <= SUFFIX_LEN || strcmp(first + len - SUFFIX_LEN, suffix) != 0) {
        return err_set(err, STATUS_UNSUPPORTED,
                       "%s: split.count: one of %u files, give the first (its name must end in %s)",
                       first, count, suffix);
    }
    stem = xstrndup(first, len - SUFFIX_LEN);
    for (uint32_t part = 2; part <= count && status == STATUS_OK; part++) {
        status = parse_part(weights, stem, part, count, err);
    }
    free(stem);
    return status;
}
