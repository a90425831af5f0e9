/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every reduction: operation, type, reduction, number of ranks, count, in place and not, as threads
 * and as processes, for equality with the reference (reference.h), and with what the back end
 * `self` gives where there is one rank.
 */
#include "cells.h"

#include "reference.h"

struct matrix {
    struct cells cells;
    union reference_value scales[COMM_TYPE_COUNT][COMM_SHM_RANKS_MAX];
    /* [room]: element i of all ranks' inputs reduced */
    void *expected[COMM_TYPE_COUNT][COMM_REDUCTION_COUNT];
};

static union reference_value scale_of(enum comm_type type, uint32_t rank)
{
    union reference_value value = {.u = 3 - 5 * (uint64_t)rank};

    if (type == COMM_F64) {
        value.f64 = 0.3 * (rank + 1);
    } else if (reference_is_float(type)) {
        value.u = 0;
        value.f32 = 0.3f * (float)(rank + 1);
    }
    return value;
}

/* One cell of the expected results. */
static void expect(struct matrix *m, enum comm_type type, enum comm_reduction reduction)
{
    const struct reference reference = {
        .type = type,
        .reduction = reduction,
        .n_ranks = m->cells.n_ranks,
        .in = (const void *const *)m->cells.in[type],
        .scales = m->scales[type],
    };
    size_t bytes = comm_type_bytes(type);
    bool chooses = reduction == COMM_MIN || reduction == COMM_MAX;
    char *out = cells_alloc(type, m->cells.room);
    struct float_env env;

    if (!chooses) {
        float_env_enter(&env);
    }
    for (size_t i = 0; i < m->cells.room; i++) {
        uint64_t bits = reference_reduce(&reference, i);

        memcpy(out + i * bytes, &bits, bytes);
    }
    if (!chooses) {
        float_env_leave(&env);
    }
    m->expected[type][reduction] = out;
}

static void matrix_init(struct matrix *m, uint32_t n_ranks, size_t count)
{
    *m = (struct matrix){0};
    cells_init(&m->cells, n_ranks, count);
    for (unsigned type = 0; type < COMM_TYPE_COUNT; type++) {
        for (uint32_t r = 0; r < n_ranks; r++) {
            m->scales[type][r] = scale_of((enum comm_type)type, r);
        }
        for (unsigned what = 0; what < COMM_REDUCTION_COUNT; what++) {
            expect(m, (enum comm_type)type, (enum comm_reduction)what);
        }
    }
}

static void matrix_release(struct matrix *m)
{
    for (unsigned type = 0; type < COMM_TYPE_COUNT; type++) {
        for (unsigned what = 0; what < COMM_REDUCTION_COUNT; what++) {
            free(m->expected[type][what]);
        }
    }
    cells_release(&m->cells);
}

/* A cell as one rank runs it. */
struct cell {
    struct comm *comm;
    const struct matrix *matrix;
    enum comm_operation operation;
    enum comm_type type;
    enum comm_reduction reduction;
    bool in_place;
    void *work; /* [room] of the type */
    void *out;  /* [count] */
};

static bool check(const struct cell *cell, const void *found, size_t from)
{
    const struct reference reference = {
        .type = cell->type, .reduction = cell->reduction, .n_ranks = cell->comm->n_ranks};
    const void *expected = cell->matrix->expected[cell->type][cell->reduction];

    for (size_t i = 0; i < cell->matrix->cells.count; i++) {
        uint64_t a = reference_bits(cell->type, found, i);
        uint64_t b = reference_bits(cell->type, expected, from + i);

        if (!reference_same(&reference, a, b)) {
            print_error("rank %u of %u, %s (%s) of %zu %s%s, seed %llu: element %zu is %llx, "
                        "expected %llx\n",
                        cell->comm->rank, cell->comm->n_ranks, comm_operation_name(cell->operation),
                        comm_reduction_name(cell->reduction), cell->matrix->cells.count,
                        comm_type_name(cell->type), cell->in_place ? " in place" : "",
                        (unsigned long long)cell->matrix->cells.seed, i, (unsigned long long)a,
                        (unsigned long long)b);
            return false;
        }
    }
    return true;
}

static enum status issue(const struct cell *cell, const struct comm_data *data, uint32_t root,
                         struct err *err)
{
    switch (cell->operation) {
    case COMM_ALL_REDUCE:
        return comm_all_reduce(cell->comm, data, cell->reduction, err);
    case COMM_REDUCE:
        return comm_reduce(cell->comm, data, cell->reduction, root, err);
    default:
        return comm_reduce_scatter(cell->comm, data, cell->reduction, err);
    }
}

static bool run_cell(const struct cell *cell)
{
    const struct cells *cells = &cell->matrix->cells;
    size_t bytes = comm_type_bytes(cell->type);
    uint32_t rank = cell->comm->rank;
    uint32_t root = (uint32_t)(cells->count + cell->reduction) % cells->n_ranks;
    bool scatters = cell->operation == COMM_REDUCE_SCATTER;
    struct comm_data data = {
        .in = cells->in[cell->type][rank],
        .out = cell->out,
        .count = cells->count,
        .type = cell->type,
        .scale = &cell->matrix->scales[cell->type][rank],
    };
    struct err err = {0};
    enum status status;

    if (cell->in_place) {
        memcpy(cell->work, data.in, (scatters ? cells->room : cells->count) * bytes);
        data.in = cell->work;
        data.out = (char *)cell->work + (scatters ? rank * cells->count * bytes : 0);
    } else {
        memset(data.out, 0x5a, cells->count * bytes);
    }
    if (cell->operation == COMM_REDUCE && rank != root && rank % 2 == 0) {
        data.out = NULL; /* it is not used */
    }
    status = issue(cell, &data, root, &err);
    if (!cells_went_well(cell->comm, cells, cell->operation, cell->type, status, &err)) {
        return false;
    }
    if (cell->operation == COMM_REDUCE && rank != root) {
        return true;
    }
    return check(cell, data.out, scatters ? rank * cells->count : 0);
}

static bool run_rank(struct comm *comm, void *arg)
{
    static const enum comm_operation operations[] = {COMM_ALL_REDUCE, COMM_REDUCE,
                                                     COMM_REDUCE_SCATTER};
    const struct matrix *m = arg;
    void *work = cells_alloc(COMM_F64, m->cells.room);
    void *out = cells_alloc(COMM_F64, m->cells.count);
    bool good = true;

    for (unsigned i = 0; i < 2 * COMM_TYPE_COUNT * COMM_REDUCTION_COUNT && good; i++) {
        for (size_t j = 0; j < ARRAY_LEN(operations) && good; j++) {
            const struct cell cell = {
                .comm = comm,
                .matrix = m,
                .operation = operations[j],
                .type = (enum comm_type)(i / 2 % COMM_TYPE_COUNT),
                .reduction = (enum comm_reduction)(i / 2 / COMM_TYPE_COUNT),
                .in_place = i % 2 == 1,
                .work = work,
                .out = out,
            };

            good = run_cell(&cell);
        }
    }
    free(work);
    free(out);
    return good;
}

static void run_matrix_with(enum world_kind kind, uint32_t n_ranks, size_t count, world_fn *run)
{
    struct matrix matrix;
    struct world world;

    world_init(&world, n_ranks, 60 * 1000);
    matrix_init(&matrix, n_ranks, count);
    assert_int_equal(world_run(&world, kind, run, &matrix), 0);
    matrix_release(&matrix);
    world_release(&world);
}

static void run_matrix(enum world_kind kind, uint32_t n_ranks, size_t count)
{
    run_matrix_with(kind, n_ranks, count, run_rank);
}

static void test_threads(void **state)
{
    (void)state;
    cells_each(run_matrix);
}

static void test_processes(void **state)
{
    (void)state;
    run_matrix(WORLD_PROCESSES, 2, 4097);
    run_matrix(WORLD_PROCESSES, 3, 64);
}

/* A rank whose memory the others cannot find. */
static bool run_hidden(struct comm *comm, void *arg)
{
    cells_hide(comm);
    return run_rank(comm, arg);
}

/* Pieces and shares, and vectors that are read where they lie: counts around and above what one
 * piece holds. */
static void test_pieces(void **state)
{
    (void)state;
    run_matrix_with(WORLD_THREADS, 2, 16 * 1024 + 3, run_rank);
    if (!SANITIZED) {
        run_matrix_with(WORLD_PROCESSES, 2, 33 * 1024 - 1, run_rank);
        run_matrix_with(WORLD_PROCESSES, 2, 100 * 1024 + 5, run_rank);
        run_matrix_with(WORLD_THREADS, 3, 33 * 1024 - 1, run_hidden);
    }
}

static void test_self(void **state)
{
    (void)state;
    for (size_t j = 0; j < ARRAY_LEN(cells_counts); j++) {
        struct comm *self = comm_self_create();
        struct matrix matrix;

        matrix_init(&matrix, 1, cells_counts[j]);
        assert_true(run_rank(self, &matrix));
        matrix_release(&matrix);
        comm_destroy(&self);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
