/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation with every type, over devices that are threads and over devices that are
 * processes. What they compute is comm's and tested there in full; here the way there is: handles,
 * shares, counts, in place, groups, calls. */
#include "numbers.h"
#include "scene.h"

enum { N_THREADS = 3, N_PROCESSES = 2, COUNT = 5 };

static enum lockstep_status fill(struct lockstep_call *call)
{
    const unsigned *start = call->args;

    for (size_t i = 0; i < call->tensors[0].count; i++) {
        numbers_set(call->tensors[0].data, call->tensors[0].type, i, *start + (unsigned)(i % 2));
    }
    return LOCKSTEP_OK;
}

static const struct lockstep_function functions[] = {{"fill", fill}};

/* A handle of count elements: rank r's are r + 1, r + 2, r + 1, ...; filled by a call, that is by
 * the device. */
static struct lockstep_tensor *filled(struct scene *scene, uint32_t rank, enum lockstep_type type,
                                      size_t count)
{
    struct lockstep_tensor *tensor = scene_tensor(scene, rank, type, count);
    unsigned start = rank + 1;
    struct lockstep_call_args args = {.bytes = sizeof(args),
                                      .tensors = &tensor,
                                      .n_tensors = 1,
                                      .args = &start,
                                      .args_bytes = sizeof(start)};
    struct lockstep_error error = {0};

    EXPECT(LOCKSTEP_OK, lockstep_call(scene->devices[rank], "fill", &args, NULL, NULL, &error),
           &error);
    return tensor;
}

static unsigned value(uint32_t rank, size_t i)
{
    return rank + 1 + (unsigned)(i % 2);
}

struct pair {
    struct lockstep_tensor *in[LOCKSTEP_RANKS_MAX];
    struct lockstep_tensor *out[LOCKSTEP_RANKS_MAX];
};

static void make_pair(struct scene *scene, enum lockstep_type type, size_t in, size_t out,
                      struct pair *ret_pair)
{
    memset(ret_pair, 0, sizeof(*ret_pair));
    for (uint32_t r = 0; r < scene->n; r++) {
        ret_pair->in[r] = in > 0 ? filled(scene, r, type, in) : NULL;
        ret_pair->out[r] = out > 0 ? filled(scene, r, type, out) : NULL;
    }
}

static void drop_pair(struct scene *scene, struct pair *pair)
{
    scene_drop(scene, pair->in);
    scene_drop(scene, pair->out);
}

/* status is that of the call which filled *op. */
static void finish(struct lockstep_op **op, enum lockstep_status status,
                   struct lockstep_error *error)
{
    EXPECT(LOCKSTEP_OK, status, error);
    EXPECT(LOCKSTEP_OK, lockstep_op_wait(*op, SCENE_WAIT_MS, error), error);
    lockstep_op_release(op);
}

static const void *memory(struct lockstep_tensor *tensor)
{
    struct lockstep_error error = {0};
    const void *data = lockstep_tensor_data(tensor, &error);

    assert_non_null(data);
    return data;
}

static unsigned combined(enum lockstep_reduction reduction, uint32_t n, size_t i)
{
    unsigned sum = 0;
    unsigned premul = 0;
    unsigned prod = 1;

    for (uint32_t r = 0; r < n; r++) {
        sum += value(r, i);
        premul += value(r, i) * (r + 2);
        prod *= value(r, i);
    }
    switch (reduction) {
    case LOCKSTEP_PROD:
        return prod;
    case LOCKSTEP_MIN:
        return value(0, i);
    case LOCKSTEP_MAX:
        return value(n - 1, i);
    case LOCKSTEP_AVG:
        return sum / n;
    case LOCKSTEP_PREMUL_SUM:
        return premul;
    default:
        return sum;
    }
}

/* The factors of premul_sum, rank + 2, as the type needs them. */
static const void *factors(enum lockstep_type type, uint64_t *memory_of)
{
    bool is_half = type == LOCKSTEP_F16 || type == LOCKSTEP_BF16;

    for (uint32_t r = 0; r < LOCKSTEP_RANKS_MAX; r++) {
        numbers_set(memory_of, is_half ? LOCKSTEP_F32 : type, r, r + 2);
    }
    return memory_of;
}

static bool skips(enum lockstep_type type, enum lockstep_reduction reduction, uint32_t n)
{
    bool is_float = type <= LOCKSTEP_BF16;

    /* the mean of 1 and 2 is none of the small whole numbers */
    return reduction == LOCKSTEP_AVG && is_float && n % 2 == 0;
}

static void reductions(struct scene *scene, enum lockstep_type type,
                       enum lockstep_reduction reduction)
{
    uint64_t room[LOCKSTEP_RANKS_MAX];
    struct lockstep_options options = {.bytes = sizeof(options), .factors = factors(type, room)};
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    uint32_t n = scene->n;
    uint32_t root = n - 1;
    struct pair same;
    struct pair scatter;

    if (skips(type, reduction, n)) {
        return;
    }
    make_pair(scene, type, COUNT, COUNT, &same);
    make_pair(scene, type, (size_t)n * 2, 2, &scatter);
    finish(&op,
           lockstep_all_reduce(scene->world, same.in, same.out, reduction, &options, &op, &error),
           &error);
    finish(&op,
           lockstep_reduce_scatter(scene->world, scatter.in, scatter.out, reduction, &options, &op,
                                   &error),
           &error);
    for (uint32_t r = 0; r < n; r++) {
        for (size_t i = 0; i < COUNT; i++) {
            assert_true(numbers_is(memory(same.out[r]), type, i, combined(reduction, n, i)));
        }
        for (size_t i = 0; i < 2; i++) {
            assert_true(numbers_is(memory(scatter.out[r]), type, i, combined(reduction, n, i)));
        }
    }
    finish(&op,
           lockstep_reduce(scene->world, same.in, same.in, reduction, root, &options, &op, &error),
           &error);
    finish(&op,
           lockstep_reduce_scatter(scene->world, scatter.in, (struct lockstep_tensor *[16]){0},
                                   reduction, &options, &op, &error),
           &error);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(numbers_is(memory(same.in[root]), type, i, combined(reduction, n, i)));
    }
    assert_true(numbers_is(memory(scatter.in[root]), type, (size_t)root * 2 + 1,
                           combined(reduction, n, 1)));
    drop_pair(scene, &same);
    drop_pair(scene, &scatter);
}

static void moves(struct scene *scene, enum lockstep_type type)
{
    struct lockstep_tensor *none[LOCKSTEP_RANKS_MAX] = {NULL};
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    uint32_t n = scene->n;
    struct pair gather;
    struct pair all;

    make_pair(scene, type, 2, (size_t)n * 2, &gather);
    make_pair(scene, type, n, n, &all);
    finish(&op, lockstep_all_gather(scene->world, gather.in, gather.out, NULL, &op, &error),
           &error);
    finish(&op, lockstep_all_to_all(scene->world, all.in, all.out, NULL, &op, &error), &error);
    for (uint32_t r = 0; r < n; r++) {
        for (uint32_t s = 0; s < n; s++) {
            assert_true(numbers_is(memory(gather.out[r]), type, (size_t)s * 2 + 1, value(s, 1)));
            assert_true(numbers_is(memory(all.out[r]), type, s, value(s, r)));
        }
    }
    finish(&op, lockstep_broadcast(scene->world, gather.in, gather.in, n - 1, NULL, &op, &error),
           &error);
    assert_true(numbers_is(memory(gather.in[0]), type, 1, value(n - 1, 1)));
    drop_pair(scene, &gather);
    make_pair(scene, type, 2, (size_t)n * 2, &gather);
    finish(&op, lockstep_all_gather(scene->world, none, gather.out, NULL, &op, &error), &error);
    assert_true(numbers_is(memory(gather.out[0]), type, (size_t)n * 2 - 1, value(n - 1, 1)));
    drop_pair(scene, &gather);
    drop_pair(scene, &all);
    finish(&op, lockstep_barrier(scene->world, NULL, &op, &error), &error);
}

/* Rank f sends f + t + 1 elements to rank t. */
static void vectors(struct scene *scene, enum lockstep_type type)
{
    size_t count[LOCKSTEP_RANKS_MAX * LOCKSTEP_RANKS_MAX];
    struct lockstep_shares shares = {.bytes = sizeof(shares), .count = count};
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    uint32_t n = scene->n;
    struct pair pair;

    for (uint32_t f = 0; f < n; f++) {
        for (uint32_t t = 0; t < n; t++) {
            count[f * n + t] = f + t + 1;
        }
    }
    make_pair(scene, type, 32, 32, &pair);
    finish(&op, lockstep_all_to_allv(scene->world, pair.in, pair.out, &shares, NULL, &op, &error),
           &error);
    for (uint32_t t = 0; t < n; t++) {
        size_t at = 0;

        for (uint32_t f = 0; f < n; f++) {
            size_t from = 0;

            for (uint32_t before = 0; before < t; before++) {
                from += count[f * n + before];
            }
            for (size_t i = 0; i < count[f * n + t]; i++) {
                assert_true(numbers_is(memory(pair.out[t]), type, at++, value(f, from + i)));
            }
        }
    }
    drop_pair(scene, &pair);
}

/* Each rank sends to the next and receives from the one before: alone and, with receives first, in
 * a group that also has an all_reduce. */
static void messages(struct scene *scene, enum lockstep_type type)
{
    struct lockstep_op *ops[2 * LOCKSTEP_RANKS_MAX + 1] = {NULL};
    struct lockstep_options options = {.bytes = sizeof(options)};
    struct lockstep_error error = {0};
    uint32_t n = scene->n;
    uint32_t n_ops = 0;
    struct pair pair;
    struct pair other;

    make_pair(scene, type, 3, 3, &pair);
    make_pair(scene, type, 3, 0, &other);
    EXPECT(LOCKSTEP_OK, lockstep_group_begin(scene->world, &options.group, &error), &error);
    for (uint32_t r = 0; r < n; r++) {
        EXPECT(LOCKSTEP_OK,
               lockstep_recv(scene->world, (r + 1) % n, r, pair.out[(r + 1) % n], &options,
                             &ops[n_ops++], &error),
               &error);
    }
    for (uint32_t r = 0; r < n; r++) {
        EXPECT(LOCKSTEP_OK,
               lockstep_send(scene->world, r, (r + 1) % n, pair.in[r], &options, &ops[n_ops++],
                             &error),
               &error);
    }
    EXPECT(LOCKSTEP_OK,
           lockstep_all_reduce(scene->world, other.in, other.in, LOCKSTEP_MAX, &options,
                               &ops[n_ops++], &error),
           &error);
    assert_int_equal(lockstep_op_poll(ops[0], NULL), LOCKSTEP_PENDING);
    EXPECT(LOCKSTEP_OK, lockstep_group_end(&options.group, &error), &error);
    assert_null(options.group);
    for (uint32_t i = 0; i < n_ops; i++) {
        finish(&ops[i], LOCKSTEP_OK, &error);
    }
    for (uint32_t r = 0; r < n; r++) {
        assert_true(numbers_is(memory(pair.out[(r + 1) % n]), type, 1, value(r, 1)));
        assert_true(numbers_is(memory(other.in[r]), type, 0, value(n - 1, 0)));
    }
    drop_pair(scene, &pair);
    drop_pair(scene, &other);
}

static void one_message(struct scene *scene)
{
    struct lockstep_error error = {0};
    struct lockstep_op *sent = NULL;
    struct lockstep_op *received = NULL;
    struct lockstep_tensor *from = filled(scene, 0, LOCKSTEP_I32, 4);
    struct lockstep_tensor *to = filled(scene, 1, LOCKSTEP_I32, 4);
    struct lockstep_tensor *slice = NULL;

    EXPECT(LOCKSTEP_OK, lockstep_tensor_slice(to, 1, 4 - 1, &slice, &error), &error);
    lockstep_tensor_destroy(&slice);
    EXPECT(LOCKSTEP_OK, lockstep_recv(scene->world, 1, 0, to, NULL, &received, &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_send(scene->world, 0, 1, from, NULL, &sent, &error), &error);
    assert_int_equal(lockstep_op_rank(received, 0, NULL), LOCKSTEP_INVALID);
    finish(&sent, LOCKSTEP_OK, &error);
    finish(&received, LOCKSTEP_OK, &error);
    assert_true(numbers_is(memory(to), LOCKSTEP_I32, 3, value(0, 3)));
    lockstep_tensor_destroy(&from);
    lockstep_tensor_destroy(&to);
}

static void all_cells(struct scene *scene)
{
    for (int type = LOCKSTEP_F32; type <= LOCKSTEP_U64; type++) {
        for (int reduction = LOCKSTEP_SUM; reduction <= LOCKSTEP_PREMUL_SUM; reduction++) {
            reductions(scene, (enum lockstep_type)type, (enum lockstep_reduction)reduction);
        }
        moves(scene, (enum lockstep_type)type);
        vectors(scene, (enum lockstep_type)type);
        messages(scene, (enum lockstep_type)type);
    }
    one_message(scene);
}

static void make(struct scene *scene, uint32_t n, bool own_process)
{
    scene_devices(scene, n,
                  &(struct lockstep_device_config){
                      .own_process = own_process, .functions = functions, .n_functions = 1});
    scene_world(scene, &(struct lockstep_world_config){0});
    scene_ready(scene, 1);
}

static void test_threads(void **state)
{
    struct scene scene = {0};

    (void)state;
    make(&scene, N_THREADS, false);
    all_cells(&scene);
    scene_release(&scene);
}

static void test_processes(void **state)
{
    struct scene scene = {0};

    (void)state;
    make(&scene, N_PROCESSES, true);
    all_cells(&scene);
    scene_release(&scene);
}

/* A large one, which goes in pieces, and none at all. */
static void test_sizes(void **state)
{
    static const size_t counts[] = {0, 1, 4097, 300000};
    struct lockstep_error error = {0};

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct scene scene = {0};

        make(&scene, N_PROCESSES, kind == 1);
        for (size_t c = 0; c < 4; c++) {
            struct lockstep_op *op = NULL;
            struct pair pair = {0};

            for (uint32_t r = 0; r < scene.n; r++) {
                pair.in[r] = filled(&scene, r, LOCKSTEP_U32, counts[c]);
                pair.out[r] = scene_tensor(&scene, r, LOCKSTEP_U32, counts[c]);
            }
            finish(&op,
                   lockstep_all_reduce(scene.world, pair.in, pair.out, LOCKSTEP_SUM, NULL, &op,
                                       &error),
                   &error);
            for (size_t i = 0; i < counts[c]; i++) {
                assert_true(numbers_is(memory(pair.out[1]), LOCKSTEP_U32, i,
                                       combined(LOCKSTEP_SUM, scene.n, i)));
            }
            drop_pair(&scene, &pair);
        }
        scene_release(&scene);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_sizes),
    };

    lockstep_device_main(argc, argv, functions, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
