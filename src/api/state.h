/* SPDX-License-Identifier: Apache-2.0 */
/* What several endpoints say of a model. Private to api/. */
#pragma once

#include "api/answer.h"

/* The model of ?model=, else the first; NULL: there is none of that name. */
struct served *state_served(const struct answer *answer);

/* A model's world as /world shows it; a new reference. */
json_t *state_world(struct served *served);
