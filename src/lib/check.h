/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused before anything of a collective is sent, with the rank's name. */
#pragma once

#include "lib/world.h"

/* What the handles of a collective must be. Counts: elements = share x (1 or n_ranks). */
struct check_shape {
    const char *name;
    bool in_all;         /* in[r] has a share for every rank */
    bool out_all;        /* likewise out[r] */
    bool in_place_share; /* the one with one share may be NULL: it is a share of the other */
    uint32_t only_in;    /* the one rank that has in, if < n_ranks; UINT32_MAX: all */
    uint32_t only_out;
};

/* With the world's lock held and the world ready: checks all handles; the share's count and type go
 * into the works of op's parts, with their references and addresses. */
enum lockstep_status check_fill(struct lockstep_world *world, struct lockstep_op *op,
                                const struct check_shape *shape, struct lockstep_tensor *const *in,
                                struct lockstep_tensor *const *out, struct lockstep_error *error);

/* One handle on one rank. type and count: NULL, or what they must be (count: in elements). */
enum lockstep_status check_tensor(struct lockstep_world *world, const char *name, uint32_t rank,
                                  const char *which, const struct lockstep_tensor *tensor,
                                  struct lockstep_error *error);

enum lockstep_status check_reduction(const char *name, enum lockstep_reduction reduction,
                                     const struct lockstep_options *options,
                                     struct lockstep_error *error);

enum lockstep_status check_rank(const struct lockstep_world *world, const char *name,
                                const char *what, uint32_t rank, struct lockstep_error *error);

/* Gives a part its memory. */
void check_fill_part(struct op_part *part, struct lockstep_tensor *in, struct lockstep_tensor *out);
