/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rank side of the engine: a model, its device, its KV pages, and the step that a plan asks
 * for. It decides nothing by itself: which rows are computed, in which pages, is the plan's.
 *
 * An engine is used by one thread at a time.
 */
#pragma once

#include "engine/generation.h"
#include "model/model.h"

enum { ENGINE_AHEAD_BYTES = 512 << 20 }; /* of KV pages, on all ranks together, taken while idle */

struct engine;

/* Where a rank's large memory lies if it is to outlive the rank: memfds, borrowed while the engine
 * lives (engine/kept.h). Only for back ends that compute on host memory. What is kept must be of
 * the same model, rank and world size (the embedding: of the same model), else engine_create fails.
 */
struct engine_memory {
    int weights_fd; /* this rank's share of all weights but the embedding */
    int host_fd;    /* the embedding: one for all ranks of the host, each fills its part */
    int kv_fd;
    bool keep_weights; /* map what is there, read no file; false: load */
    bool keep_host;
    bool keep_kv;
    uint32_t kv_pages; /* 0: as many as max_context needs */
};

struct engine_options {
    const char *path;   /* of the model; see weights/path.h */
    const char *level;  /* highest instruction set level, NULL: best */
    uint32_t n_threads; /* 0: one for each usable core */
    bool act_given;
    enum act act;
    bool kv_given; /* see struct model_load_options */
    enum kv_type kv;
    bool quantises; /* see struct model_load_options */
    enum dtype quant;
    enum model_bf16 bf16;
    struct ops_tune tune;
    uint32_t max_context; /* positions to have pages for; 0, or more than that: the model's limit */
    uint32_t max_chunk;   /* rows in a step, at least 1 */
    uint32_t max_wants;   /* rows of a step whose logits are wanted, at least 1 */
    const struct ops *ops;
    struct comm *comm; /* this rank's place in a world, borrowed; NULL: a world of one */
    const struct engine_memory *memory; /* NULL: the device's own */
    void (*tick)(void *arg);            /* see struct ops_config */
    void *tick_arg;
    model_progress_fn *progress;
    void *progress_arg;
};

/* Opens, checks, loads. Errors name file and tensor. */
NODISCARD enum status engine_create(const struct engine_options *options,
                                    struct engine **ret_engine, struct err *err);

/* The same with random weights of a configuration, for measurements; options->path is not used. */
NODISCARD enum status engine_create_random(const struct engine_options *options,
                                           const struct model_config *config,
                                           struct engine **ret_engine, struct err *err);
void engine_destroy(struct engine **engine);

/* With engine_memory, once after creation: marks this rank's weights complete and gives up the
 * right to write them, so that the owner of the memfds can seal them. No rank may step before all
 * have done so: the embedding is whole only then. */
NODISCARD enum status engine_memory_finish(struct engine *engine, struct err *err);

const struct model_config *engine_config(const struct engine *engine);
const struct generation_defaults *engine_generation(const struct engine *engine);
struct model *engine_model(struct engine *engine);
const char *engine_level(const struct engine *engine);
const char *
engine_arith_class(const struct engine *engine); /* "canonical-x86-64 act int8 kv bf16" */
uint32_t engine_n_threads(const struct engine *engine);
struct mass_table engine_masses(const struct engine *engine); /* as ops->masses */
uint32_t engine_max_context(const struct engine *engine);
uint32_t engine_max_chunk(const struct engine *engine);
uint32_t engine_max_wants(const struct engine *engine);
uint64_t engine_load_bytes(const struct engine *engine); /* read from the model's files */
uint64_t engine_kv_bytes(const struct engine *engine);   /* reserved for KV pages */
uint32_t engine_n_pages(const struct engine *engine);    /* KV pages, numbered from 0 */

/* Zeroes a page by its number, before its first position is written: which page is whose, the plan
 * decides. STATUS_NO_MEMORY: kept KV pages are given memory when they are first used. */
NODISCARD enum status engine_page_clear(struct engine *engine, uint32_t page, struct err *err);

/* Takes the memory of 2 MiB of the KV pages that will be used first, the lowest by number, so that
 * the first requests need not wait for it (a virtual machine may take 5 ms for each). False: there
 * are no more such pages, or they have all they get ahead, ENGINE_AHEAD_BYTES for all ranks. */
NODISCARD bool engine_take_ahead(struct engine *engine);

/* One step. The plan's kv is set here; wants[i].logits is valid until the next step. Buffers are
 * there for max_chunk rows and max_wants wants; a larger step first gets larger ones.
 * STATUS_NUMERIC, naming the layer, if a wanted row is not a number. */
NODISCARD enum status engine_step(struct engine *engine, const struct model_step *plan,
                                  struct err *err);

/* The same, but a row that is not a number is no error: its want says so (nan_layer). */
NODISCARD enum status engine_forward(struct engine *engine, const struct model_step *plan,
                                     struct err *err);

/* Of what the last step left in the first n_rows rows of the residual stream: equal on all ranks of
 * a world, or they have diverged. */
uint64_t engine_state_hash(const struct engine *engine, uint32_t n_rows);
