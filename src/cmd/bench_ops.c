/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/bench_ops.h"

#include <stdlib.h>

#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/comm_ops.h"
#include "cmd/comm_ranks.h"
#include "cmd/host.h"
#include "cmd/stats.h"
#include "json/json.h"

enum { ROUNDS_A_REP = 200, MEASURE_S_A_REP = 30 };

/* One line of the table, microseconds; the other's are 0 where it was not measured. */
struct line {
    enum comm_operation operation;
    size_t bytes;
    uint32_t rounds;
    double p50[COMM_OPS_SIDES];
    double p99[COMM_OPS_SIDES];
};

struct bench {
    struct host host;
    double load; /* of the machine, the last minute before we began */
    uint32_t n_ranks;
    struct comm_ranks ranks;
    bool with_mpi;
    uint32_t n_lines;
    struct line lines[COMM_OPERATION_COUNT * COMM_OPS_SIZES];
};

/* send stands for recv, too; sum_tree is what bench comm measures without --op. */
static bool is_measured(enum comm_operation operation, uint32_t n_ranks)
{
    return operation != COMM_NONE && operation != COMM_SUM_TREE && operation != COMM_RECV &&
           (operation != COMM_SEND || n_ranks > 1);
}

/* Bits of the operations that name means; 0: none. */
static uint32_t find_operations(const char *name, uint32_t n_ranks)
{
    uint32_t found = 0;

    for (unsigned i = 0; i < COMM_OPERATION_COUNT; i++) {
        enum comm_operation operation = (enum comm_operation)i;

        if (is_measured(operation, n_ranks) &&
            (strcmp(name, "all") == 0 || strcmp(name, comm_operation_name(operation)) == 0)) {
            found |= 1u << i;
        }
    }
    return found;
}

/* Of each round the slowest rank. */
static void summarize(const struct comm_loop *loop, uint32_t size, enum comm_ops_side side,
                      struct line *line)
{
    double *all = comm_ops_samples_of(loop, line->operation, size, side, 0);

    for (uint32_t r = 1; r < comm_loop_ranks(loop); r++) {
        const double *one = comm_ops_samples_of(loop, line->operation, size, side, r);

        for (uint32_t i = 0; i < line->rounds; i++) {
            all[i] = MAX(all[i], one[i]);
        }
    }
    line->p50[side] = stats_of(all, line->rounds).median;
    line->p99[side] = all[(size_t)line->rounds * 99 / 100];
}

static void collect(struct bench *b, const struct comm_loop *loop)
{
    b->n_lines = 0;
    for (unsigned i = 0; i < COMM_OPERATION_COUNT; i++) {
        bool chosen = (comm_loop_operations(loop) >> i & 1) != 0;

        for (uint32_t size = 0; size < (i == COMM_BARRIER ? 1 : COMM_OPS_SIZES) && chosen; size++) {
            struct line *line = &b->lines[b->n_lines];

            *line = (struct line){
                .operation = (enum comm_operation)i,
                .bytes = i == COMM_BARRIER ? 0 : comm_ops_sizes[size],
                .rounds = comm_ops_rounds(b->n_ranks, comm_loop_rounds(loop), size),
            };
            if (line->rounds > 0) {
                summarize(loop, size, COMM_OPS_OURS, line);
                if (b->with_mpi) {
                    summarize(loop, size, COMM_OPS_OTHER, line);
                }
                if (b->n_ranks == COMM_FLOOR_RANKS) {
                    summarize(loop, size, COMM_OPS_FLOOR, line);
                    summarize(loop, size, COMM_OPS_COPIED, line);
                }
                b->n_lines++;
            }
        }
    }
}

static enum status run(struct bench *b, uint32_t rounds, uint32_t operations, bool with_mpi,
                       struct err *err)
{
    struct comm_loop loop;
    enum status status = comm_loop_create(b->n_ranks, rounds, operations, &loop, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = comm_ranks_run(&b->ranks, &loop, with_mpi, err);
    if (status == STATUS_OK) {
        b->with_mpi = with_mpi;
        collect(b, &loop);
    }
    comm_loop_release(&loop);
    return status;
}

static void print_line(const struct bench *b, const struct line *line)
{
    double ours = line->p50[COMM_OPS_OURS];
    double other = line->p50[COMM_OPS_OTHER];
    double floor = line->p50[COMM_OPS_FLOOR];
    double copied = line->p50[COMM_OPS_COPIED];

    printf("%-15s %9zu %11.2f %11.2f", comm_operation_name(line->operation), line->bytes, ours,
           line->p99[COMM_OPS_OURS]);
    if (b->with_mpi) {
        printf("    %11.2f %11.2f  %6.2f", other, line->p99[COMM_OPS_OTHER], ours / other);
    }
    if (b->n_ranks == COMM_FLOOR_RANKS) {
        printf(" %9.2f %9.2f", floor, copied);
        if (b->with_mpi) {
            printf(" %9.2f %9.2f", floor / other, copied / other);
        }
    }
    printf("\n");
}

static void print_table(const struct bench *b)
{
    bool with_floor = b->n_ranks == COMM_FLOOR_RANKS;

    printf("%s, load average %.2f, %u ranks, %u cores; us until the slowest rank is done\n\n",
           b->host.cpu, b->load, b->n_ranks, MIN(b->n_ranks, b->host.cpus_bound));
    printf("%-15s %9s %11s %11s%s%s%s\n", "operation", "bytes", "p50", "p99",
           b->with_mpi ? "   Open MPI p50         p99   ratio" : "",
           with_floor ? "     floor    copied" : "",
           with_floor && b->with_mpi ? " floor/MPI   cp./MPI" : "");
    for (uint32_t i = 0; i < b->n_lines; i++) {
        print_line(b, &b->lines[i]);
    }
    if (!b->with_mpi) {
        printf("\nwithout Open MPI: %s\n", b->ranks.no_mpi.text);
    }
}

static json_t *line_json(const struct bench *b, const struct line *line)
{
    json_t *json =
        json_pack("{s:s, s:I, s:i, s:f, s:f}", "operation", comm_operation_name(line->operation),
                  "bytes", (json_int_t)line->bytes, "rounds", (int)line->rounds, "p50_us",
                  line->p50[COMM_OPS_OURS], "p99_us", line->p99[COMM_OPS_OURS]);

    if (b->with_mpi) {
        json_object_set_new(json, "mpi_p50_us", json_real(line->p50[COMM_OPS_OTHER]));
        json_object_set_new(json, "mpi_p99_us", json_real(line->p99[COMM_OPS_OTHER]));
        json_object_set_new(json, "ratio",
                            json_real(line->p50[COMM_OPS_OURS] / line->p50[COMM_OPS_OTHER]));
    }
    if (b->n_ranks == COMM_FLOOR_RANKS) {
        json_object_set_new(json, "floor_p50_us", json_real(line->p50[COMM_OPS_FLOOR]));
        json_object_set_new(json, "copied_p50_us", json_real(line->p50[COMM_OPS_COPIED]));
    }
    return json;
}

static void print_json(const struct bench *b)
{
    json_t *lines = json_array();
    struct buf text = {0};
    json_t *all;

    for (uint32_t i = 0; i < b->n_lines; i++) {
        json_array_append_new(lines, line_json(b, &b->lines[i]));
    }
    all = json_pack("{s:s, s:i, s:f, s:i, s:s?, s:o}", "cpu", b->host.cpu, "cores",
                    (int)b->host.cpus_bound, "load_average", b->load, "ranks", (int)b->n_ranks,
                    "without_mpi", b->with_mpi ? NULL : b->ranks.no_mpi.text, "operations", lines);
    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

int bench_ops(const struct options *options)
{
    struct bench *b = xalloc(sizeof(*b));
    uint32_t rounds = (uint32_t)options->reps * ROUNDS_A_REP;
    uint32_t operations;
    struct err err = {0};
    enum status status = host_collect(&b->host, &err);

    b->n_ranks = options->tp > 0 ? (uint32_t)options->tp : 2;
    operations = find_operations(options->op, b->n_ranks);
    if (status == STATUS_OK && operations == 0) {
        free(b);
        return cmd_usage(options, "--op %s: there is no such collective", options->op);
    }
    getloadavg(&b->load, 1);
    comm_ranks_init(&b->ranks, (uint32_t)options->reps * MEASURE_S_A_REP);
    if (status == STATUS_OK && (b->ranks.no_mpi.status != STATUS_OK ||
                                run(b, rounds, operations, true, &b->ranks.no_mpi) != STATUS_OK)) {
        status = run(b, rounds, operations, false, &err);
    }
    if (status == STATUS_OK) {
        (options->json ? print_json : print_table)(b);
    }
    free(b);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
