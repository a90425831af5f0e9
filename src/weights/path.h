/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a MODEL argument means: which folder holds the model's files and which file its weights.
 * Accepted are a model folder, a folder of the Hugging Face hub's cache (models--org--name, whose
 * refs/main names the revision under snapshots/; the snapshot's symlinks are simply followed), and
 * a .safetensors, .safetensors.index.json or .gguf file. A folder may lack weights (a tokenizer
 * alone). Pure look-ups in the file system; any thread.
 */
#pragma once

#include "base/err.h"

enum weights_kind { WEIGHTS_NONE, WEIGHTS_SAFETENSORS, WEIGHTS_SAFETENSORS_INDEX, WEIGHTS_GGUF };

struct weights_path {
    char *folder; /* of config.json, tokenizer.json, ...; owned */
    char *file;   /* of the weights; NULL if kind is WEIGHTS_NONE; owned */
    enum weights_kind kind;
};

/* In a folder model.safetensors wins over its index, that over a single other *.safetensors, that
 * over a *.gguf (the only one, or the first of the only split set). Errors: STATUS_NOT_FOUND (no
 * such path; a cache folder without its snapshot), STATUS_INVALID (several candidates), STATUS_IO.
 */
NODISCARD enum status weights_path_resolve(const char *path, struct weights_path *ret_path,
                                           struct err *err);
void weights_path_release(struct weights_path *path);

/* The path (free() it) of a companion file such as "config.json", NULL if there is none. A GGUF
 * file carries everything in its metadata: it has no companions. */
char *weights_path_find(const struct weights_path *path, const char *name);

/* True if a shard's name from an index stays inside the model's folder: not empty or absolute, and
 * without a ".." component. */
bool weights_path_is_inside(const char *name);
