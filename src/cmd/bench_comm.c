/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench comm. Each world of ranks (cmd/comm_ranks.h) runs the loop of cmd/comm_loop.h
 * once: what decoding does, or with --op the operations one by one (cmd/comm_ops.h).
 */
#include "cmd/bench.h"

#include <stdlib.h>

#include "cmd/bench_ops.h"
#include "cmd/cmd.h"
#include "cmd/comm_ranks.h"
#include "cmd/host.h"
#include "cmd/stats.h"
#include "json/json.h"

enum {
    ROUNDS_A_REP = 400,
    MAX_WORLDS = 2,
    ROUNDS_A_S = 5, /* at the least */
};

struct timing { /* microseconds */
    double p50;
    double p99;
    double mean;
};

struct world_result {
    uint32_t n_ranks;
    bool with_mpi;
    struct timing timings[COMM_LOOP_FIGURES][COMM_LOOP_SIZES];
};

struct bench_comm {
    uint32_t rounds;
    struct host host;
    double load; /* of the machine, the last minute before we began */
    struct comm_ranks ranks;
    uint32_t n_worlds;
    struct world_result worlds[MAX_WORLDS];
};

/* yardstick: the figure with which it is compared, or itself. */
static const struct {
    const char *label;
    const char *name; /* in JSON */
    enum comm_loop_figure yardstick;
} figures[COMM_LOOP_FIGURES] = {
    [COMM_LOOP_BARRIER] = {"barrier", "barrier", COMM_LOOP_SLEEPING},
    [COMM_LOOP_SLEEPING] = {"sleeping barrier", "sleeping_barrier", COMM_LOOP_SLEEPING},
    [COMM_LOOP_SUM_TREE] = {"sum_tree", "sum_tree", COMM_LOOP_OTHER},
    [COMM_LOOP_ALL_REDUCE] = {"all_reduce", "all_reduce", COMM_LOOP_OTHER},
    [COMM_LOOP_OTHER] = {"MPI_Allreduce", "mpi_allreduce", COMM_LOOP_OTHER},
};

/* Sorts the samples. */
static struct timing timing_of(double *samples, uint32_t n)
{
    struct timing timing = {.p50 = stats_of(samples, n).median};

    for (uint32_t i = 0; i < n; i++) {
        timing.mean += samples[i] / n;
    }
    timing.p99 = samples[(size_t)n * 99 / 100];
    return timing;
}

static enum status run_world(struct bench_comm *b, uint32_t n_ranks, bool with_mpi, struct err *err)
{
    struct world_result *result = &b->worlds[b->n_worlds];
    struct comm_loop loop;
    enum status status = comm_loop_create(n_ranks, b->rounds, 0, &loop, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = comm_ranks_run(&b->ranks, &loop, with_mpi, err);
    if (status == STATUS_OK) {
        *result = (struct world_result){.n_ranks = n_ranks, .with_mpi = with_mpi};
        for (unsigned f = 0; f < COMM_LOOP_FIGURES; f++) {
            for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
                result->timings[f][size] =
                    timing_of(comm_loop_samples(&loop, (enum comm_loop_figure)f, size), b->rounds);
            }
        }
        b->n_worlds++;
    }
    comm_loop_release(&loop);
    return status;
}

/* With Open MPI if that works, else without. */
static enum status measure(struct bench_comm *b, uint32_t n_ranks, struct err *err)
{
    if (b->ranks.no_mpi.status == STATUS_OK &&
        run_world(b, n_ranks, true, &b->ranks.no_mpi) == STATUS_OK) {
        return STATUS_OK;
    }
    return run_world(b, n_ranks, false, err);
}

/* How long a figure takes beside its yardstick, at the median; 0 if it has none. */
static double ratio(const struct world_result *world, enum comm_loop_figure figure, uint32_t size)
{
    enum comm_loop_figure yardstick = figures[figure].yardstick;

    if (yardstick == figure || (yardstick == COMM_LOOP_OTHER && !world->with_mpi)) {
        return 0;
    }
    return world->timings[figure][size].p50 / world->timings[yardstick][size].p50;
}

static enum comm_loop_figure last_figure(const struct world_result *world)
{
    return world->with_mpi ? COMM_LOOP_OTHER : COMM_LOOP_ALL_REDUCE;
}

static void print_line(const struct world_result *world, enum comm_loop_figure figure,
                       uint32_t size)
{
    const struct timing *t = &world->timings[figure][size];
    double beside = ratio(world, figure, size);

    printf("%-16s %10.2f %10.2f %10.2f", figures[figure].label, t->p50, t->p99, t->mean);
    if (beside > 0) {
        printf("   %.2f x %s", beside, figures[figures[figure].yardstick].label);
    }
    printf("\n");
}

static void print_world(const struct world_result *world, uint32_t cores)
{
    printf("\n%2u ranks, %2u cores, us %18s %10s %10s\n", world->n_ranks,
           MIN(world->n_ranks, cores), "p50", "p99", "mean");
    for (unsigned f = COMM_LOOP_BARRIER; f <= COMM_LOOP_SLEEPING; f++) {
        printf("%13s", "");
        print_line(world, (enum comm_loop_figure)f, 0);
    }
    for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
        for (unsigned f = COMM_LOOP_SUM_TREE; f <= last_figure(world); f++) {
            printf("%5zu floats ", comm_loop_sizes[size]);
            print_line(world, (enum comm_loop_figure)f, size);
        }
    }
}

static void print_table(const struct bench_comm *b)
{
    printf("%s, load average %.2f, %u rounds\n", b->host.cpu, b->load, b->rounds);
    for (uint32_t w = 0; w < b->n_worlds; w++) {
        print_world(&b->worlds[w], b->host.cpus_bound);
    }
    if (b->ranks.no_mpi.status != STATUS_OK) {
        printf("\nwithout Open MPI: %s\n", b->ranks.no_mpi.text);
    }
}

static json_t *timing_json(const struct world_result *world, enum comm_loop_figure figure,
                           uint32_t size)
{
    const struct timing *t = &world->timings[figure][size];
    double beside = ratio(world, figure, size);
    json_t *json =
        json_pack("{s:f, s:f, s:f}", "p50_us", t->p50, "p99_us", t->p99, "mean_us", t->mean);

    if (beside > 0) {
        json_object_set_new(json, "ratio", json_real(beside));
    }
    return json;
}

static json_t *world_json(const struct world_result *world)
{
    json_t *json = json_pack("{s:i}", "ranks", (int)world->n_ranks);
    json_t *sizes = json_array();

    for (unsigned f = COMM_LOOP_BARRIER; f <= COMM_LOOP_SLEEPING; f++) {
        json_object_set_new(json, figures[f].name, timing_json(world, (enum comm_loop_figure)f, 0));
    }
    for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
        json_t *one = json_pack("{s:I}", "floats", (json_int_t)comm_loop_sizes[size]);

        for (unsigned f = COMM_LOOP_SUM_TREE; f <= last_figure(world); f++) {
            json_object_set_new(one, figures[f].name,
                                timing_json(world, (enum comm_loop_figure)f, size));
        }
        json_array_append_new(sizes, one);
    }
    json_object_set_new(json, "sizes", sizes);
    return json;
}

static void print_json(const struct bench_comm *b)
{
    const char *no_mpi = b->ranks.no_mpi.status == STATUS_OK ? NULL : b->ranks.no_mpi.text;
    json_t *worlds = json_array();
    struct buf text = {0};
    json_t *all;

    for (uint32_t w = 0; w < b->n_worlds; w++) {
        json_array_append_new(worlds, world_json(&b->worlds[w]));
    }
    all = json_pack("{s:s, s:i, s:f, s:i, s:s?, s:o}", "cpu", b->host.cpu, "cores",
                    (int)b->host.cpus_bound, "load_average", b->load, "rounds", (int)b->rounds,
                    "without_mpi", no_mpi, "worlds", worlds);
    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

int bench_comm(const struct options *options)
{
    static const uint32_t usual[] = {2, 4};
    uint32_t chosen = (uint32_t)options->tp;
    const uint32_t *n_ranks = options->tp > 0 ? &chosen : usual;
    size_t n = options->tp > 0 ? 1 : ARRAY_LEN(usual);
    struct bench_comm b = {.rounds = (uint32_t)options->reps * ROUNDS_A_REP};
    struct err err = {0};
    enum status status;

    if (options->given.op) {
        return bench_ops(options);
    }
    status = host_collect(&b.host, &err);
    getloadavg(&b.load, 1);
    comm_ranks_init(&b.ranks, b.rounds / ROUNDS_A_S);
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = measure(&b, n_ranks[i], &err);
    }
    if (status != STATUS_OK) {
        return cmd_fail(&err);
    }
    (options->json ? print_json : print_table)(&b);
    return CMD_OK;
}
