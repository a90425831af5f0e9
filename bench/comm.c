/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures collectives over shared memory for 2 and 4 ranks, each pinned to a core, in a loop like
 * that of decoding (comm_loop.c). Where Open MPI is installed (program bench_comm_mpi beside this
 * one, mpirun), the ranks are started by it and its MPI_Allreduce is measured in the same loop.
 *
 *   bench_comm [ROUNDS]     default 2000
 */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "comm/shm.h"
#include "comm_loop.h"

/* One rank, in a process of its own. */
static bool run_rank(void *region, const struct comm_id *id, uint32_t rank, uint32_t n_ranks,
                     uint32_t rounds)
{
    struct comm *comm = NULL;
    struct err err = {0};
    bool good;

    if (comm_shm_join(
            &(struct comm_shm_member){region, comm_shm_region_bytes(n_ranks), id, rank, n_ranks},
            &comm, &err) != STATUS_OK) {
        fprintf(stderr, "bench_comm: %s\n", err.text);
        return false;
    }
    good = comm_loop_run(comm, rounds, NULL);
    comm_destroy(&comm);
    return good;
}

static bool run_forked(uint32_t n_ranks, uint32_t rounds)
{
    size_t bytes = comm_shm_region_bytes(n_ranks);
    void *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct comm_id id;
    bool good = true;

    ENSURE(region != MAP_FAILED);
    comm_id_make(&id);
    comm_shm_region_init(region, n_ranks, &id);
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (fork() == 0) {
            _exit(run_rank(region, &id, r, n_ranks, rounds) ? 0 : 1);
        }
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        int status = 1;

        wait(&status);
        good = good && status == 0;
    }
    munmap(region, bytes);
    return good;
}

/* True if mpirun and the program for it are there and went well. */
static bool run_mpi(uint32_t n_ranks, const char *rounds)
{
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - sizeof("_mpi"));
    char ranks[16];
    int status = 1;
    pid_t pid;

    if (n <= 0) {
        return false;
    }
    memcpy(program + n, "_mpi", sizeof("_mpi"));
    if (access(program, X_OK) != 0) {
        return false;
    }
    snprintf(ranks, sizeof(ranks), "%u", n_ranks);
    pid = fork();
    if (pid == 0) {
        execlp("mpirun", "mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
               "-np", ranks, program, rounds, (char *)NULL);
        _exit(127);
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

int main(int argc, char **argv)
{
    const char *rounds = argc > 1 ? argv[1] : "2000";
    unsigned long n = strtoul(rounds, NULL, 10);

    if (n < 1 || n > 1000000) {
        fprintf(stderr, "usage: bench_comm [ROUNDS], 1 to 1000000\n");
        return 2;
    }
    for (uint32_t n_ranks = 2; n_ranks <= 4; n_ranks += 2) {
        if (!run_mpi(n_ranks, rounds)) {
            printf("without Open MPI:\n");
            fflush(stdout);
            if (!run_forked(n_ranks, (uint32_t)n)) {
                return 1;
            }
        }
    }
    return 0;
}
