/* SPDX-License-Identifier: Apache-2.0 */
/* A rank of bench_comm that mpirun has started: measures MPI_Allreduce beside ours. */
#include <fcntl.h>
#include <mpi.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "comm/shm.h"
#include "comm_loop.h"

static void all_reduce(float *x, size_t n)
{
    MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* The region: rank 0's memfd, which the others open through its process. */
static void *map_region(uint32_t rank, uint32_t n_ranks, struct comm_id *id)
{
    size_t bytes = comm_shm_region_bytes(n_ranks);
    char path[64] = "";
    void *region;
    int fd = -1;

    if (rank == 0) {
        fd = memfd_create("bench_comm", MFD_CLOEXEC);
        ENSURE(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
        comm_id_make(id);
    }
    MPI_Bcast(path, sizeof(path), MPI_CHAR, 0, MPI_COMM_WORLD);
    MPI_Bcast(id, sizeof(*id), MPI_CHAR, 0, MPI_COMM_WORLD);
    if (rank != 0) {
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ENSURE(region != MAP_FAILED);
    if (rank == 0) {
        comm_shm_region_init(region, n_ranks, id);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    return region;
}

int main(int argc, char **argv)
{
    const struct comm_loop_other other = {"MPI_Allreduce", all_reduce};
    struct comm_shm_member member = {0};
    struct comm *comm = NULL;
    struct comm_id id;
    struct err err = {0};
    int rank;
    int n_ranks;
    bool good = false;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    member.region = map_region((uint32_t)rank, (uint32_t)n_ranks, &id);
    member.region_bytes = comm_shm_region_bytes((uint32_t)n_ranks);
    member.id = &id;
    member.rank = (uint32_t)rank;
    member.n_ranks = (uint32_t)n_ranks;
    if (comm_shm_join(&member, &comm, &err) == STATUS_OK) {
        good = comm_loop_run(comm, argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 2000, &other);
        comm_destroy(&comm);
    } else {
        fprintf(stderr, "bench_comm: %s\n", err.text);
    }
    MPI_Finalize();
    return good ? 0 : 1;
}
