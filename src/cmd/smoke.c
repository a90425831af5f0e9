/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep smoke: starts the ranks, lets them add a one each, and ends them. Nothing is loaded. */
#include "cmd/cmd.h"
#include "cmd/service.h"

int cmd_smoke(const struct options *options)
{
    struct service service = {0};
    struct err err = {0};
    enum status status =
        service_open(&service, options, &(struct service_want){.n_slots = 1}, &err);
    int exit_status;

    for (uint32_t r = 0; r < service.n_ranks && status == STATUS_OK; r++) {
        const json_t *sum = supervisor_answer(service.supervisor, MESSAGE_SANITY_RESULT, r);

        printf("rank=%u pid=%d device=cpu world_size=%u observed_sum=%llu\n", r,
               (int)supervisor_pid(service.supervisor, r), service.n_ranks,
               (unsigned long long)message_uint(sum, "observed_sum", 0));
    }
    if (status == STATUS_OK) {
        printf("status=ok\n");
    }
    exit_status = service_exit(&service, status, &err);
    service_close(&service);
    return exit_status;
}
