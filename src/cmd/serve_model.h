/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of `lockstep serve`: what its entry in the registry needs from the parts that only
 * commands know: files, ranks, devices. Created on the main thread; its world is opened and closed
 * on its host's.
 */
#pragma once

#include "cmd/service.h"
#include "gateway/served.h"

struct serve_model;

struct serve_model_config {
    const struct options *options; /* that hold for it; path is the model's. Outlive it */
    struct registry *registry;
    struct mailbox *front;
    struct turns *turns;
    struct host_handlers on;
};

/* Adds it to the registry under the names that options give it (else what its path is called), not
 * loaded. *ret_model is freed by serve_model_destroy, after the registry. */
NODISCARD enum status serve_model_create(const struct serve_model_config *config,
                                         struct serve_model **ret_model, struct served **ret_served,
                                         struct err *err);
void serve_model_destroy(struct serve_model **model);
