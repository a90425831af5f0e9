/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An opened model: the catalogue of its tensors, which lie in one or several safetensors or GGUF
 * files, and (GGUF) its metadata (gguf.h). Opening reads headers only; tensor data is read by byte
 * range when asked for, never mapped and never whole. It does not know what a tensor is for.
 *
 * Everything in a file is checked when it is opened: a tensor in the catalogue lies inside its
 * file, its bytes fit its type and shape, and no two tensors of a file overlap. Immutable once open
 * (but for an atomic counter), so any thread may look up and read.
 */
#pragma once

#include "base/err.h"
#include "tensor/dtype.h"

struct weights;

enum weights_format { WEIGHTS_FORMAT_SAFETENSORS, WEIGHTS_FORMAT_GGUF };

enum { WEIGHTS_MAX_DIMS = 8, WEIGHTS_MAX_NAME = 512 };

struct weights_tensor {
    const char *name;      /* borrowed from struct weights, as all pointers here */
    enum dtype dtype;      /* DTYPE_COUNT: of a type we do not compute with, cannot be read */
    const char *type_name; /* "BF16", "I64", ... */
    uint32_t n_dims;
    uint64_t dims[WEIGHTS_MAX_DIMS]; /* outermost first: [rows, cols] in either format */
    uint32_t file;                   /* see weights_file_name */
    uint64_t offset;                 /* from the start of the file */
    uint64_t bytes;
};

/* path: whatever weights_path_resolve accepts. Errors name file and tensor or field; *ret_weights
 * is destroyed with weights_close. */
NODISCARD enum status weights_open(const char *path, struct weights **ret_weights, struct err *err);

/* A single file's bytes in memory (borrowed until weights_close), under a name for messages. */
NODISCARD enum status weights_open_memory(const char *name, const void *bytes, size_t size,
                                          enum weights_format format, struct weights **ret_weights,
                                          struct err *err);
void weights_close(struct weights **weights);

enum weights_format weights_format(const struct weights *weights);

/* The folder of config.json and the tokenizer's files; "" when opened from memory. */
const char *weights_folder(const struct weights *weights);

/* The path given to weights_open, or the name given to weights_open_memory. */
const char *weights_path(const struct weights *weights);

/* In the order of the files. */
size_t weights_n_tensors(const struct weights *weights);
const struct weights_tensor *weights_tensor_at(const struct weights *weights, size_t i);

/* NULL if there is no tensor of that name. */
const struct weights_tensor *weights_find(const struct weights *weights, const char *name);

/* Number of elements: the product of dims. */
uint64_t weights_n_elements(const struct weights_tensor *tensor);

size_t weights_n_files(const struct weights *weights);
const char *weights_file_name(const struct weights *weights, uint32_t file); /* its path */

/* Tells whether a file is still the one that was opened: one that has been written to or replaced
 * has another stamp. No padding. */
struct weights_stamp {
    uint64_t bytes;
    uint64_t inode; /* 0: in memory, as the next */
    uint64_t modified_ns;
};

struct weights_stamp weights_file_stamp(const struct weights *weights, uint32_t file);

/* Reads bytes [offset, offset + bytes) of the tensor's data, a range inside the tensor. Errors:
 * STATUS_UNSUPPORTED (its type), STATUS_CORRUPT (the file got shorter), STATUS_IO. */
NODISCARD enum status weights_read(struct weights *weights, const struct weights_tensor *tensor,
                                   uint64_t offset, size_t bytes, void *out, struct err *err);

/* Bytes of tensor data that weights_read has delivered so far. */
uint64_t weights_bytes_read(const struct weights *weights);
