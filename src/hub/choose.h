/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a repository make up the model that a name asks for. Weights as weights_path takes
 * them from a folder: model.safetensors, else what its index lists, else the other *.safetensors,
 * each with configuration, tokenizer and chat templates; else one GGUF file (all parts of a split
 * one), which needs nothing beside it. Pure.
 */
#pragma once

#include "hub/listing.h"
#include "hub/name.h"

struct hub_choice {
    const struct hub_file *gguf;  /* the file, or the first part; NULL: the folder is the model */
    const struct hub_file *index; /* whose shards are not marked yet; NULL: there is none */
};

/* Marks the files as wanted. Errors: STATUS_NOT_FOUND (nothing there, or not all of it),
 * STATUS_INVALID (several GGUF models: the text lists them). */
NODISCARD enum status hub_choose(struct hub_listing *listing, const struct hub_name *name,
                                 struct hub_choice *ret_choice, struct err *err);

/* Marks the shards that the index (its text) lists. STATUS_CORRUPT if it is no index,
 * STATUS_NOT_FOUND if one of them is not in the listing. */
NODISCARD enum status hub_choose_shards(struct hub_listing *listing, const char *text, size_t size,
                                        struct err *err);
