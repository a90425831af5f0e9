/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of an opened model, for the parsers of the formats. Filled by one thread, then immutable.
 */
#pragma once

#include <stdatomic.h>

#include "weights/arena.h"
#include "weights/gguf.h"
#include "weights/source.h"
#include "weights/weights.h"

enum { WEIGHTS_MAX_FILES = 4096, WEIGHTS_MAX_TENSORS = 1 << 20 };

struct weights {
    enum weights_format format;
    char *path;
    char *folder;
    struct source *files;
    size_t n_files;
    size_t cap_files;
    struct weights_tensor *tensors;
    size_t n_tensors;
    size_t cap_tensors;
    uint32_t *by_name; /* indices of tensors, sorted by name */
    struct gguf_value *values;
    size_t n_values;
    size_t cap_values;
    struct arena arena; /* names, metadata */
    _Atomic uint64_t bytes_read;
};

/* Takes source; *ret_file is its number. */
NODISCARD enum status weights_add_file(struct weights *weights, struct source *source,
                                       uint32_t *ret_file, struct err *err);

/* Copies *tensor, and its name (name_bytes long; refused if empty, too long or with a zero byte)
 * into the catalogue. The type's name must be static or in the arena. */
NODISCARD enum status weights_add_tensor(struct weights *weights, struct weights_tensor *tensor,
                                         const char *name, size_t name_bytes, struct err *err);

/* Refuses tensors of a file, those from index `first` on, that overlap, leave [begin, file size),
 * or (dense) do not follow one another without a gap up to the end of the file. */
NODISCARD enum status weights_check_layout(const struct weights *weights, uint32_t file,
                                           size_t first, uint64_t begin, bool dense,
                                           struct err *err);

/* Fills by_name; refuses two tensors of one name. */
NODISCARD enum status weights_index_names(struct weights *weights, struct err *err);

/* Makes room for one more element of *array (n of *cap used): a doubling mem_alloc'ed array. */
NODISCARD bool weights_grow(void **array, size_t n, size_t *cap, size_t item_bytes);

/* Parse the header of weights->files[file] and append what it holds. */
NODISCARD enum status safetensors_parse(struct weights *weights, uint32_t file, struct err *err);
NODISCARD enum status gguf_parse(struct weights *weights, uint32_t file, struct err *err);

/* Opens the shards that an index names, and keeps the tensors it assigns to each. */
NODISCARD enum status safetensors_parse_index(struct weights *weights, const char *index_path,
                                              struct err *err);

/* After gguf_parse of a file that is part of a split set: opens and parses the other parts. */
NODISCARD enum status gguf_parse_split(struct weights *weights, struct err *err);
