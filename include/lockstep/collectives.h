/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of a world (world.h says what all have in common). c is the count of a share.
 */
#pragma once

#include <lockstep/world.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[r] = all in combined; [c] each. */
LOCKSTEP_API enum lockstep_status
lockstep_all_reduce(struct lockstep_world *world, struct lockstep_tensor *const *in,
                    struct lockstep_tensor *const *out, enum lockstep_reduction reduction,
                    const struct lockstep_options *options, struct lockstep_op **ret_op,
                    struct lockstep_error *error);

/* out[r] [N * c] = every in [c], by rank. in[r] NULL: the own share of out[r]. */
LOCKSTEP_API enum lockstep_status
lockstep_all_gather(struct lockstep_world *world, struct lockstep_tensor *const *in,
                    struct lockstep_tensor *const *out, const struct lockstep_options *options,
                    struct lockstep_op **ret_op, struct lockstep_error *error);

/* out[r] [c] = share r of all in [N * c] combined. out[r] NULL: the own share of in[r]. */
LOCKSTEP_API enum lockstep_status
lockstep_reduce_scatter(struct lockstep_world *world, struct lockstep_tensor *const *in,
                        struct lockstep_tensor *const *out, enum lockstep_reduction reduction,
                        const struct lockstep_options *options, struct lockstep_op **ret_op,
                        struct lockstep_error *error);

/* out[r] = in[root]; in of other ranks is not used and may be NULL. */
LOCKSTEP_API enum lockstep_status
lockstep_broadcast(struct lockstep_world *world, struct lockstep_tensor *const *in,
                   struct lockstep_tensor *const *out, uint32_t root,
                   const struct lockstep_options *options, struct lockstep_op **ret_op,
                   struct lockstep_error *error);

/* out[root] = all in combined; out of other ranks is not used and may be NULL. */
LOCKSTEP_API enum lockstep_status
lockstep_reduce(struct lockstep_world *world, struct lockstep_tensor *const *in,
                struct lockstep_tensor *const *out, enum lockstep_reduction reduction,
                uint32_t root, const struct lockstep_options *options, struct lockstep_op **ret_op,
                struct lockstep_error *error);

/* Share s of out[r] = share r of in[s]; [N * c] each. */
LOCKSTEP_API enum lockstep_status
lockstep_all_to_all(struct lockstep_world *world, struct lockstep_tensor *const *in,
                    struct lockstep_tensor *const *out, const struct lockstep_options *options,
                    struct lockstep_op **ret_op, struct lockstep_error *error);

/* Who gets how much of what: entries [from * n_ranks + to], in elements. */
struct lockstep_shares {
    size_t bytes;         /* sizeof(struct lockstep_shares) */
    const size_t *count;  /* of the piece */
    const size_t *in_at;  /* where it begins in in[from]; NULL: one after the other */
    const size_t *out_at; /* where it goes in out[to]; NULL: one after the other */
};

/* Pieces of any size from every rank to every rank. Not in place. */
LOCKSTEP_API enum lockstep_status
lockstep_all_to_allv(struct lockstep_world *world, struct lockstep_tensor *const *in,
                     struct lockstep_tensor *const *out, const struct lockstep_shares *shares,
                     const struct lockstep_options *options, struct lockstep_op **ret_op,
                     struct lockstep_error *error);

/* Rank sends to peer, which must receive as much of the same type. The result is rank's alone. */
LOCKSTEP_API enum lockstep_status lockstep_send(struct lockstep_world *world, uint32_t rank,
                                                uint32_t peer, struct lockstep_tensor *in,
                                                const struct lockstep_options *options,
                                                struct lockstep_op **ret_op,
                                                struct lockstep_error *error);

/* Rank receives from peer. */
LOCKSTEP_API enum lockstep_status lockstep_recv(struct lockstep_world *world, uint32_t rank,
                                                uint32_t peer, struct lockstep_tensor *out,
                                                const struct lockstep_options *options,
                                                struct lockstep_op **ret_op,
                                                struct lockstep_error *error);

/* Complete when every rank has come to it. */
LOCKSTEP_API enum lockstep_status lockstep_barrier(struct lockstep_world *world,
                                                   const struct lockstep_options *options,
                                                   struct lockstep_op **ret_op,
                                                   struct lockstep_error *error);

/* Operations whose options name the group are sent together by group_end, as if at once, so that
 * sends and receives in any order cannot wait for each other in a circle. Each has its own result,
 * and none may need what another of the group writes. The world's operations of others may come
 * before or after the group, never inside. */
LOCKSTEP_API enum lockstep_status lockstep_group_begin(struct lockstep_world *world,
                                                       struct lockstep_group **ret_group,
                                                       struct lockstep_error *error);

/* Sends the group. Takes it, also on failure: then its operations end with that status. */
LOCKSTEP_API enum lockstep_status lockstep_group_end(struct lockstep_group **group,
                                                     struct lockstep_error *error);

#ifdef __cplusplus
}
#endif
