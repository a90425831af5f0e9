/* SPDX-License-Identifier: Apache-2.0 */
/* How the ranks of an epoch meet: under an id that no other epoch had. */
#include "fake_sequence.h"

enum { N_EPOCHS = 4 };

static void test_each_epoch_has_its_own_id(void **state)
{
    static const struct comm_id none;
    struct comm_id ids[N_EPOCHS];
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, NULL);
    fake_wait(&w, WORLD_READY);
    for (uint32_t i = 0; i < N_EPOCHS; i++) {
        ids[i] = w.s->id;
        assert_memory_not_equal(&ids[i], &none, sizeof(none));
        for (uint32_t k = 0; k < i; k++) {
            assert_memory_not_equal(&ids[i], &ids[k], sizeof(none));
        }
        if (i + 1 < N_EPOCHS) {
            fake_generate(&w, 1); /* progress, which renews the budget */
            assert_int_equal(kill(supervisor_pid(w.s, i % 2), SIGKILL), 0);
            fake_wait_rebuilt(&w, i + 1);
        }
    }
    fake_stop(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_epoch_has_its_own_id),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
