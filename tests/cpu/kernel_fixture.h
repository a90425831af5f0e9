/* SPDX-License-Identifier: Apache-2.0 */
/* What every test of kernels has: the reference, the levels of this machine, the canonical float
 * environment, scratch memory. */
#pragma once

#include "base/float_env.h"
#include "kernel_data.h"

struct kernel_fixture {
    struct cpu_kernels ref;
    struct cpu_kernels levels[KERNEL_LEVELS_MAX];
    uint32_t n_real; /* levels of this machine */
    uint32_t n_levels;
    struct float_env env;
    float *scratch;
    struct kernel_random random;
};

static int kernel_setup(void **state)
{
    struct kernel_fixture *fixture = xalloc(sizeof(*fixture));

    cpu_kernels_init_ref(&fixture->ref);
    fixture->n_real = kernel_levels(fixture->levels);
    fixture->n_levels = kernel_stand_ins(fixture->levels, fixture->n_real);
    fixture->scratch = mem_map(CPU_SCRATCH_BYTES);
    assert_non_null(fixture->scratch);
    float_env_enter(&fixture->env);
    *state = fixture;
    return 0;
}

static int kernel_teardown(void **state)
{
    struct kernel_fixture *fixture = *state;

    float_env_leave(&fixture->env);
    mem_unmap(fixture->scratch, CPU_SCRATCH_BYTES);
    free(fixture);
    return 0;
}

/* Of what takes long, each how many-th case is to be tested: all, but under an emulator. */
static inline uint32_t kernel_sample(void)
{
    const char *text = getenv("LOCKSTEP_SAMPLE");
    long every = text == NULL ? 1 : strtol(text, NULL, 10);

    return every > 0 && every < 1000 ? (uint32_t)every : 1;
}

/* Seeds the generator and says so. */
static inline void kernel_seed(struct kernel_fixture *fixture, uint64_t seed)
{
    print_message("seed %llu\n", (unsigned long long)seed);
    fixture->random.state = seed;
}

/* Fails, naming the kernel, unless found is expected. */
static inline void kernel_assert_same(const struct cpu_kernels *level, const char *kernel,
                                      const float *expected, const float *found, size_t n)
{
    size_t at = kernel_differs(expected, found, n);

    if (at < n) {
        fail_msg("%s %s: element %zu of %zu is %a, not %a", level->level, kernel, at, n,
                 (double)found[at], (double)expected[at]);
    }
}
