/* SPDX-License-Identifier: Apache-2.0 */
/* Where a device is, and what a world can do. */
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/fail.h"
#include "lib/world.h"

enum { LIST_BYTES = 4096 };

/* One number below CPU_SETSIZE. */
static bool parse_number(const char **text, unsigned long *ret_number)
{
    char *end;

    if (**text < '0' || **text > '9') {
        return false;
    }
    *ret_number = strtoul(*text, &end, 10);
    *text = end;
    return *ret_number < CPU_SETSIZE;
}

bool context_cores_parse(const char *cores, void *ret_set, size_t set_bytes)
{
    cpu_set_t *set = ret_set;
    unsigned long first;
    unsigned long last;

    ENSURE_OP(set_bytes, ==, sizeof(*set));
    CPU_ZERO(set);
    for (const char *text = cores;; text++) {
        if (!parse_number(&text, &first)) {
            return false;
        }
        last = first;
        if (*text == '-') {
            text++;
            if (!parse_number(&text, &last) || last < first) {
                return false;
            }
        }
        for (unsigned long core = first; core <= last; core++) {
            CPU_SET(core, set);
        }
        if (*text == '\0' || *text == '\n') {
            return true;
        }
        if (*text != ',') {
            return false;
        }
    }
}

static void cores_of(const struct lockstep_device *device, cpu_set_t *ret_set)
{
    CPU_ZERO(ret_set);
    if (device->cores == NULL || !context_cores_parse(device->cores, ret_set, sizeof(*ret_set))) {
        sched_getaffinity(getpid(), sizeof(*ret_set), ret_set);
    }
}

/* The cores of a NUMA node. */
static bool node_cores(int node, cpu_set_t *ret_set)
{
    char path[64];
    char list[LIST_BYTES];
    FILE *file;
    bool good;

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
    file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    good = fgets(list, sizeof(list), file) != NULL &&
           context_cores_parse(list, ret_set, sizeof(*ret_set));
    fclose(file);
    return good;
}

/* The node that has all of these cores; -1: none, or the system does not say. */
static int node_of(const cpu_set_t *cores)
{
    DIR *folder = opendir("/sys/devices/system/node");
    const struct dirent *entry;
    int found = -1;

    while (folder != NULL && found < 0 && (entry = readdir(folder)) != NULL) {
        cpu_set_t of_node;
        cpu_set_t both;
        int node;

        if (sscanf(entry->d_name, "node%d", &node) == 1 && node_cores(node, &of_node)) {
            CPU_AND(&both, cores, &of_node);
            found = CPU_EQUAL(&both, cores) ? node : -1;
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return found;
}

void lockstep_device_place(struct lockstep_device *device, struct lockstep_place *ret_place)
{
    cpu_set_t cores;

    *ret_place = (struct lockstep_place){0};
    cores_of(device, &cores);
    if (gethostname(ret_place->host, sizeof(ret_place->host) - 1) != 0) {
        lib_text(ret_place->host, sizeof(ret_place->host), "localhost");
    }
    ret_place->node = node_of(&cores);
    ret_place->n_cores = (uint32_t)CPU_COUNT(&cores);
}

enum lockstep_distance lockstep_device_distance(struct lockstep_device *a,
                                                struct lockstep_device *b)
{
    struct lockstep_place place_a;
    struct lockstep_place place_b;

    if (a == b) {
        return LOCKSTEP_SAME_DEVICE;
    }
    lockstep_device_place(a, &place_a);
    lockstep_device_place(b, &place_b);
    return place_a.node >= 0 && place_a.node == place_b.node ? LOCKSTEP_SAME_NODE
                                                             : LOCKSTEP_SAME_HOST;
}

enum lockstep_status lockstep_world_capabilities(struct lockstep_world *world, uint32_t rank,
                                                 struct lockstep_capabilities *ret_capabilities,
                                                 struct lockstep_error *error)
{
    struct comm_capabilities comm;
    struct comm *self;
    uint32_t reachable = 0;

    if (world == NULL || ret_capabilities == NULL || rank >= world->n_ranks) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "lockstep_world_capabilities: an argument is NULL, or there is no rank %u",
                        (unsigned)rank);
    }
    self = comm_self_create(); /* all back ends here share one arithmetic */
    comm_capabilities(self, &comm);
    comm_destroy(&self);
    pthread_mutex_lock(&world->lock);
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        bool is_up = world->state == LOCKSTEP_WORLD_READY && !world->broken;

        reachable |= is_up || r == rank ? 1u << r : 0;
    }
    pthread_mutex_unlock(&world->lock);
    *ret_capabilities = (struct lockstep_capabilities){
        .types = comm.types,
        .reductions = comm.reductions,
        .operations = (1u << (LOCKSTEP_CALL + 1)) - 1,
        .reachable = reachable,
        .class_name = comm.arithmetic,
    };
    return LOCKSTEP_OK;
}
