/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cores.h"

#include <hwloc.h>
#include <sched.h>

#include "cpu/cpu.h"

enum { MAX_RANKS = 16 };

static enum status load_topology(hwloc_topology_t *ret_topology, struct err *err)
{
    if (hwloc_topology_init(ret_topology) != 0) {
        return err_set(err, STATUS_NO_MEMORY, "hwloc: no topology");
    }
    hwloc_topology_set_io_types_filter(*ret_topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    if (hwloc_topology_load(*ret_topology) != 0) {
        hwloc_topology_destroy(*ret_topology);
        return err_set(err, STATUS_IO, "hwloc: cannot read this machine's topology");
    }
    return STATUS_OK;
}

/* Numbers of the cores of this process's affinity in topological order; an array. */
static enum status list_cores(json_t **ret_list, struct err *err)
{
    hwloc_topology_t topology;
    hwloc_obj_t pu = NULL;
    cpu_set_t set;
    enum status status = load_topology(&topology, err);

    if (status != STATUS_OK) {
        return status;
    }
    *ret_list = json_array();
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        while ((pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu)) != NULL) {
            if (pu->os_index < CPU_SETSIZE && CPU_ISSET(pu->os_index, &set)) {
                json_array_append_new(*ret_list, json_integer(pu->os_index));
            }
        }
    }
    hwloc_topology_destroy(topology);
    return STATUS_OK;
}

enum status cores_plan(uint32_t n_ranks, uint32_t threads, struct cores_plan *ret_plan,
                       struct err *err)
{
    uint32_t usable = cpu_cores_usable();
    struct cores_plan plan = {.n_threads = threads > 0 ? threads : MAX(usable / n_ranks, 1)};
    json_t *list;
    enum status status;

    if (n_ranks == 1 || n_ranks * plan.n_threads != usable) {
        *ret_plan = plan;
        return STATUS_OK;
    }
    status = list_cores(&list, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (json_array_size(list) >= usable) {
        plan.cores = json_array();
        for (uint32_t r = 0; r < n_ranks; r++) {
            json_t *own = json_array();

            for (uint32_t i = 0; i < plan.n_threads; i++) {
                json_array_append(own, json_array_get(list, (size_t)r * plan.n_threads + i));
            }
            json_array_append_new(plan.cores, own);
        }
    }
    json_decref(list);
    *ret_plan = plan;
    return STATUS_OK;
}

void cores_plan_release(struct cores_plan *plan)
{
    json_decref(plan->cores);
    *plan = (struct cores_plan){0};
}

enum status cores_default_ranks(uint32_t *ret_n_ranks, struct err *err)
{
    hwloc_topology_t topology;
    hwloc_obj_t node = NULL;
    uint32_t n = 0;
    enum status status = load_topology(&topology, err);

    if (status != STATUS_OK) {
        return status;
    }
    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL) {
        n += hwloc_bitmap_weight(node->cpuset) > 0;
    }
    hwloc_topology_destroy(topology);
    *ret_n_ranks = MIN(MAX(n, 1u), MAX_RANKS);
    return STATUS_OK;
}
