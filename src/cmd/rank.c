/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep rank: one rank of a world, started by its leader and by nobody else. Its arguments are
 * the supervisor's (world/supervisor_epoch.c), and so are its descriptors: the death pipe, the
 * control channel, its region.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cpu/cpu.h"
#include "engine/rank.h"
#include "world/guard.h"
#include "world/spawner.h"

struct rank_words {
    int64_t rank;
    int64_t epoch;
    int64_t leader;
    struct fault_spec faults[RANK_MAX_FAULTS];
    uint32_t fault_ids[RANK_MAX_FAULTS];
    uint32_t n_faults;
};

static bool read_number(const char *text, int64_t max, int64_t *ret_n)
{
    char *end;

    errno = 0;
    *ret_n = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *ret_n >= 0 && *ret_n <= max;
}

/* ID@SPEC */
static bool read_fault(const char *text, struct rank_words *words)
{
    char *end;
    unsigned long id = strtoul(text, &end, 10);

    if (end == text || *end != '@' || words->n_faults == RANK_MAX_FAULTS) {
        return false;
    }
    words->fault_ids[words->n_faults] = (uint32_t)id;
    return fault_parse(end + 1, &words->faults[words->n_faults++], NULL) == STATUS_OK;
}

static bool read_words(int n, char *const *args, struct rank_words *words)
{
    bool ok = n % 2 == 0;

    words->rank = words->epoch = words->leader = -1;
    for (int i = 0; i + 1 < n && ok; i += 2) {
        const char *value = args[i + 1];

        if (strcmp(args[i], "--rank") == 0) {
            ok = read_number(value, SPAWNER_MAX_RANKS - 1, &words->rank);
        } else if (strcmp(args[i], "--epoch") == 0) {
            ok = read_number(value, INT64_MAX, &words->epoch);
        } else if (strcmp(args[i], "--leader") == 0) {
            ok = read_number(value, INT32_MAX, &words->leader);
        } else {
            ok = strcmp(args[i], "--inject") == 0 && read_fault(value, words);
        }
    }
    return ok && words->rank >= 0 && words->epoch > 0 && words->leader > 0;
}

int cmd_rank(int n, char *const *args)
{
    struct rank_words words = {0};
    struct err err = {0};
    enum status status;

    if (!read_words(n, args, &words)) {
        err_set(&err, STATUS_INVALID,
                "rank: ranks are started by the other commands (try lockstep "
                "run --tp 2)");
        cmd_fail(&err);
        return CMD_USAGE;
    }
    status = world_child_guard((pid_t)words.leader, SPAWNER_FD_DEATH, &err);
    if (status == STATUS_OK) {
        status = rank_run(
            &(struct rank_args){
                .rank = (uint32_t)words.rank,
                .epoch = (uint64_t)words.epoch,
                .channel_fd = SPAWNER_FD_FIRST,
                .region_fd = SPAWNER_FD_FIRST + 1,
                .build = CMD_BUILD,
                .ops = &cpu_ops, /* the place where back ends are wired */
                .faults = words.faults,
                .fault_ids = words.fault_ids,
                .n_faults = words.n_faults,
            },
            &err);
    }
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
