/* SPDX-License-Identifier: Apache-2.0 */
#include "world/spawner.h"

enum status spawner_spawn(struct spawner *spawner, uint64_t epoch, const struct spawner_rank *ranks,
                          uint32_t n_ranks, struct err *err)
{
    ENSURE_OP(n_ranks, >, 0);
    ENSURE_OP(n_ranks, <=, SPAWNER_MAX_RANKS);
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (ranks[r].n_fds > SPAWNER_MAX_FDS) {
            return err_set(err, STATUS_INVALID, "rank %u: %u descriptors to pass, at most %d",
                           (unsigned)r, (unsigned)ranks[r].n_fds, SPAWNER_MAX_FDS);
        }
    }
    return spawner->backend->spawn(spawner, epoch, ranks, n_ranks, err);
}

void spawner_kill(struct spawner *spawner)
{
    spawner->backend->kill(spawner);
}

bool spawner_next(struct spawner *spawner, struct spawner_event *ret_event)
{
    return spawner->backend->next(spawner, ret_event);
}

void spawner_destroy(struct spawner **spawner)
{
    if (*spawner != NULL) {
        (*spawner)->backend->destroy(spawner);
    }
}
