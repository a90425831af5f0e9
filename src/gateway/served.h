/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The models that a server knows: their names, the host that runs each, and what of them has to do
 * with text. An entry is made once and lives as long as the server; the text of one that was loaded
 * once stays, so that tokens can be counted while the ranks are away.
 *
 * Entries are added and loaded by the front's thread; any thread may look one up and use its text.
 */
#pragma once

#include "chat/prompt.h"
#include "gateway/host.h"
#include "sample/params.h"
#include "tokenizer/tokenizer.h"

enum { SERVED_MAX = 64, SERVED_MAX_NAMES = 16, SERVED_MAX_ENDS = 64 };

/* Tokenizer, templates, defaults of a model. Immutable; freed with its last reference. */
struct served_text {
    _Atomic uint32_t refs;
    struct tokenizer *tokenizer; /* owned */
    struct chat_prompt *prompt;  /* owned; NULL: the model has no template */
    struct sample_params defaults;
    int32_t ends[SERVED_MAX_ENDS]; /* tokens that end an answer */
    uint32_t n_ends;
    uint32_t max_context;
    uint32_t vocab;        /* of the model; the tokenizer's may be smaller */
    uint64_t n_parameters; /* 0: not known */
    uint64_t file_bytes;
    char architecture[64];
};

struct served_text *served_text_ref(struct served_text *text);
void served_text_unref(struct served_text **text);

struct served {
    const char *names[SERVED_MAX_NAMES]; /* the first is the one that is shown */
    uint32_t n_names;
    const char *path;
    struct host *host;
    struct metrics *metrics;
    int64_t created;          /* seconds since 1970 */
    bool starts;              /* the server loads it by itself */
    char why[ERR_TEXT_BYTES]; /* of the last load that failed; the front's */
    uint64_t load_ms;         /* of the last one that succeeded; the front's */

    struct served_text *text; /* lock */
};

struct registry {
    pthread_mutex_t lock; /* of n, and of each text */
    struct served *models[SERVED_MAX];
    uint32_t n;
};

void registry_init(struct registry *registry);
/* Destroys hosts, metrics and texts. */
void registry_release(struct registry *registry);

/* Adds a model under these names (copied); its host and metrics are the caller's to set before
 * anybody else can know it. STATUS_INVALID: a name is taken or empty. STATUS_LIMIT. */
NODISCARD enum status registry_add(struct registry *registry, const char *const *names,
                                   uint32_t n_names, const char *path, struct served **ret_served,
                                   struct err *err);

/* NULL: no model has that name. */
struct served *registry_find(struct registry *registry, const char *name);
/* Number i of n; models are never taken out. */
struct served *registry_at(struct registry *registry, uint32_t i);
uint32_t registry_count(struct registry *registry);

/* The model's text with a reference of the caller's own; NULL: it was never loaded. */
struct served_text *served_take_text(struct registry *registry, struct served *served);
/* Puts it in place (taking the reference). */
void served_set_text(struct registry *registry, struct served *served, struct served_text *text);
