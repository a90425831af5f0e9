/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an epoch consists of. Made in the order in which the ranks come up:
 *
 *   epoch_spawn     a channel and a region for each rank, and its process
 *   epoch_connect   the leader's region with the rings, the communicator's region, comm_init
 *   kept_prepare    memfds for weights, embedding and KV pages: fresh ones, or those that are kept
 *
 * and taken away at once, when all processes are reaped. Only the kept memfds and the logits'
 * memory outlive it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "rpc/region.h"
#include "world/pack_cache.h"
#include "world/supervisor_priv.h"

enum {
    PLAN_BYTES = 64 << 10,     /* longest plan in the ring; longer ones go over the channel */
    COMM_TIMEOUT_HANGS = 10,   /* a collective gives up long after the leader has seen the hang */
    MAX_ARGS = 8 + 2 * 16 + 1, /* with the faults that a rank takes at its start */
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static struct wiring_shape shape_of(const struct supervisor *s)
{
    return (struct wiring_shape){
        .epoch = s->machine.epoch,
        .n_ranks = s->n_members,
        .n_slots = SUPERVISOR_RING_SLOTS,
        .plan_bytes = PLAN_BYTES,
        .result_bytes = s->result_bytes,
    };
}

/* --- Processes --- */

/* The words of a rank's command line; released with free_words. */
static char **make_argv(struct supervisor *s, uint32_t rank)
{
    char **argv = xcalloc(MAX_ARGS, sizeof(*argv));
    uint32_t n = 0;
    struct buf text = {0};

    argv[n++] = xstrdup("lockstep");
    argv[n++] = xstrdup("rank");
    argv[n++] = xstrdup("--rank");
    buf_printf(&text, "%u", rank);
    argv[n++] = xstrdup(buf_str(&text));
    buf_clear(&text);
    buf_printf(&text, "%llu", (unsigned long long)s->machine.epoch);
    argv[n++] = xstrdup("--epoch");
    argv[n++] = xstrdup(buf_str(&text));
    buf_clear(&text);
    buf_printf(&text, "%d", (int)getpid());
    argv[n++] = xstrdup("--leader");
    argv[n++] = xstrdup(buf_str(&text));
    for (uint32_t i = 0; i < s->n_faults; i++) {
        if (s->faults[i].spec.rank == rank) {
            s->faults[i].armed = false;
        }
        if (s->faults[i].spec.rank == rank && watch_is_due(s, &s->faults[i]) && n + 2 < MAX_ARGS) {
            s->faults[i].armed = true;
            buf_clear(&text);
            buf_printf(&text, "%u@", s->faults[i].id);
            fault_format(&s->faults[i].spec, &text);
            argv[n++] = xstrdup("--inject");
            argv[n++] = xstrdup(buf_str(&text));
        }
    }
    buf_release(&text);
    return argv;
}

static void free_words(char **argv)
{
    for (char **word = argv; *word != NULL; word++) {
        free(*word);
    }
    free(argv);
}

/* A channel and a region for one rank; *ret_far is the rank's end. */
static enum status open_member(struct supervisor *s, uint32_t rank, int *ret_far, struct err *err)
{
    struct wiring_shape shape = shape_of(s);
    struct member *member = &s->members[rank];
    int ends[2];
    enum status status = channel_pair(ends, err);

    if (status != STATUS_OK) {
        return status;
    }
    channel_init(&member->channel, ends[0], CHANNEL_LEADER, s->machine.epoch, 1 << 20);
    member->asked = true; /* hello is owed */
    *ret_far = ends[1];
    return region_create("lockstep-rank", wiring_rank_bytes(&shape), &member->region_fd, err);
}

static enum status spawn(struct supervisor *s, struct err *err)
{
    struct spawner_rank ranks[SUPERVISOR_MAX_RANKS] = {0};
    int fds[SUPERVISOR_MAX_RANKS][2];
    enum status status = STATUS_OK;

    for (uint32_t r = 0; r < s->n_members; r++) {
        fds[r][0] = -1;
    }
    for (uint32_t r = 0; r < s->n_members && status == STATUS_OK; r++) {
        status = open_member(s, r, &fds[r][0], err);
        fds[r][1] = s->members[r].region_fd;
        ranks[r] = (struct spawner_rank){.argv = make_argv(s, r), .fds = fds[r], .n_fds = 2};
    }
    if (status == STATUS_OK) {
        status = spawner_spawn(s->spawner, s->machine.epoch, ranks, s->n_members, err);
    }
    for (uint32_t r = 0; r < s->n_members; r++) {
        close_fd(&fds[r][0]);
        if (ranks[r].argv != NULL) {
            free_words((char **)(uintptr_t)ranks[r].argv);
        }
    }
    return status;
}

/* The devices that are left, one a rank. */
static void choose_places(struct supervisor *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->config.n_ranks; i++) {
        if (!s->place_gone[i]) {
            s->places[n++] = i;
        }
    }
    ENSURE_OP(n, ==, s->n_members);
}

void epoch_spawn(struct supervisor *s, uint32_t n_ranks)
{
    struct err err = {0};

    s->n_members = n_ranks;
    choose_places(s);
    s->refused_ns = 0;
    hang_restart(&s->hang, n_ranks);
    if (spawn(s, &err) != STATUS_OK) {
        struct world_event event = supervisor_event(s, WORLD_EV_SPAWN_FAILED, 0);

        s->members[0].err = err;
        event.error = EMFILE;
        supervisor_post(s, &event);
        /* Nothing was started, so nobody will report the end of the epoch. */
        event = supervisor_event(s, WORLD_EV_ALL_REAPED, 0);
        supervisor_post(s, &event);
    }
}

/* --- Shared memory --- */

static enum status make_comm_region(struct supervisor *s, struct err *err)
{
    enum status status;

    s->comm_region_bytes = comm_shm_region_bytes(s->n_members);
    status = region_create("lockstep-comm", s->comm_region_bytes, &s->comm_fd, err);
    if (status == STATUS_OK) {
        status = region_map(s->comm_fd, s->comm_region_bytes, true, &s->comm_region, err);
    }
    if (status == STATUS_OK) {
        comm_id_make(&s->id);
        comm_shm_region_init(s->comm_region, s->n_members, &s->id);
    }
    return status;
}

static enum status make_rings(struct supervisor *s, struct err *err)
{
    struct wiring_shape shape = shape_of(s);
    int rank_fds[SUPERVISOR_MAX_RANKS];
    enum status status =
        region_create("lockstep-leader", wiring_leader_bytes(&shape), &s->leader_fd, err);

    for (uint32_t r = 0; r < s->n_members; r++) {
        rank_fds[r] = s->members[r].region_fd;
    }
    if (status == STATUS_OK) {
        status = wiring_leader_init(&s->wiring, &shape, s->leader_fd, rank_fds, err);
    }
    s->wired = status == STATUS_OK;
    if (s->wired) {
        trace_epoch_begins(s);
    }
    return status;
}

static json_t *comm_init_body(const struct supervisor *s, uint32_t rank)
{
    struct wiring_shape shape = shape_of(s);
    uint64_t timeout_ms = MAX((uint64_t)s->config.hang_ms * COMM_TIMEOUT_HANGS, COMM_TIMEOUT_MS);
    struct buf id = {0};
    json_t *body;

    for (size_t i = 0; i < sizeof(s->id.bytes); i++) {
        buf_printf(&id, "%02x", s->id.bytes[i]);
    }
    body = json_pack("{s:I, s:I, s:s, s:I, s:s, s:o}", "rank", (json_int_t)rank, "world_size",
                     (json_int_t)s->n_members, "id", buf_str(&id), "timeout_ms",
                     (json_int_t)timeout_ms, "device", s->devices[s->places[rank]], "rings",
                     wiring_to_json(&shape));
    if (s->cores != NULL && json_array_get(s->cores, s->places[rank]) != NULL) {
        json_object_set(body, "cores", json_array_get(s->cores, s->places[rank]));
    }
    buf_release(&id);
    return body;
}

void epoch_connect(struct supervisor *s)
{
    struct message_out outs[SUPERVISOR_MAX_RANKS] = {0};
    json_t *bodies[SUPERVISOR_MAX_RANKS];
    int fds[2];
    struct err err = {0};
    enum status status = make_rings(s, &err);

    if (status == STATUS_OK) {
        status = make_comm_region(s, &err);
    }
    if (status != STATUS_OK) {
        struct world_event event = supervisor_event(s, WORLD_EV_RANK_ERROR, 0);

        s->members[0].err = err;
        event.error = WORLD_ERROR_MEMORY;
        supervisor_post(s, &event);
        return;
    }
    fds[0] = s->leader_fd;
    fds[1] = s->comm_fd;
    for (uint32_t r = 0; r < s->n_members; r++) {
        bodies[r] = comm_init_body(s, r);
        outs[r] = (struct message_out){.json = bodies[r], .fds = fds, .n_fds = 2};
    }
    talk_ask_all(s, MESSAGE_COMM_INIT, outs);
    for (uint32_t r = 0; r < s->n_members; r++) {
        json_decref(bodies[r]);
    }
}

static void member_release(struct member *member)
{
    channel_release(&member->channel);
    close_fd(&member->region_fd);
    for (unsigned i = 0; i < MESSAGE_END; i++) {
        json_decref(member->answers[i]);
    }
    *member = (struct member){.channel = {.fd = -1}, .region_fd = -1};
}

void epoch_release(struct supervisor *s)
{
    trace_epoch_ends(s);
    for (uint32_t r = 0; r < s->n_members; r++) {
        member_release(&s->members[r]);
    }
    s->n_members = 0;
    step_drop_all(s);
    if (s->wired) {
        wiring_leader_release(&s->wiring);
        s->wired = false;
    }
    region_unmap(s->comm_region, s->comm_region_bytes);
    s->comm_region = NULL;
    close_fd(&s->comm_fd);
    close_fd(&s->leader_fd);
    s->asking = false;
    s->unloading = false;
}

/* --- Memory that outlives it --- */

static void logits_release(struct supervisor *s)
{
    for (uint32_t r = 0; r < SUPERVISOR_MAX_RANKS; r++) {
        region_unmap((void *)(uintptr_t)s->logits[r], s->config.logits_bytes);
        s->logits[r] = NULL;
        close_fd(&s->logits_fds[r]);
    }
}

static void weights_release(struct supervisor *s)
{
    for (uint32_t r = 0; r < SUPERVISOR_MAX_RANKS; r++) {
        close_fd(&s->kept.weights[r]);
    }
    close_fd(&s->kept.host);
    s->kept.from_files = false;
    s->kept.unsaved = false;
}

static void kv_release(struct supervisor *s)
{
    for (uint32_t r = 0; r < SUPERVISOR_MAX_RANKS; r++) {
        close_fd(&s->kept.kv[r]);
    }
}

void kept_release(struct supervisor *s)
{
    weights_release(s);
    kv_release(s);
    logits_release(s);
}

/* An empty memfd, which a rank makes as large as it needs. */
static enum status make_memory(const char *name, int *ret_fd, struct err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        return err_set(err, STATUS_IO, "memory for %s: %s", name, strerror(errno));
    }
    *ret_fd = fd;
    return STATUS_OK;
}

/* Shared memory for the logits: written by a rank, mapped by the leader. */
static enum status make_logits(struct supervisor *s, uint32_t rank, struct err *err)
{
    void *memory;
    enum status status;

    if (s->config.logits_bytes == 0) {
        return STATUS_OK;
    }
    status = region_create("lockstep-logits", s->config.logits_bytes, &s->logits_fds[rank], err);
    if (status == STATUS_OK) {
        status = region_map(s->logits_fds[rank], s->config.logits_bytes, false, &memory, err);
    }
    if (status == STATUS_OK) {
        s->logits[rank] = memory;
    }
    return status;
}

enum status kept_prepare(struct supervisor *s, bool keep_weights, bool keep_kv, struct err *err)
{
    enum status status = STATUS_OK;

    if (!keep_weights) {
        weights_release(s);
        status = make_memory("lockstep-embedding", &s->kept.host, err);
        s->kept.unsaved = true;
    }
    if (!keep_kv) {
        kv_release(s);
    }
    logits_release(s);
    for (uint32_t r = 0; r < s->n_members && status == STATUS_OK; r++) {
        if (!keep_weights) {
            status = make_memory("lockstep-weights", &s->kept.weights[r], err);
        }
        if (!keep_kv && status == STATUS_OK) {
            status = make_memory("lockstep-kv", &s->kept.kv[r], err);
        }
        if (status == STATUS_OK) {
            status = make_logits(s, r, err);
        }
    }
    return status;
}

void supervisor_drop_page(struct supervisor *supervisor, uint32_t page)
{
    struct kept_fds *kept = &supervisor->kept;

    for (uint32_t r = 0; r < SUPERVISOR_MAX_RANKS; r++) {
        uint64_t bytes = kept->kv_page_bytes[r];

        if (kept->kv[r] >= 0 && bytes > 0 &&
            fallocate(kept->kv[r], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(page * bytes), (off_t)bytes) != 0) {
            log_debug("page %u of rank %u keeps its memory: %s", page, r, strerror(errno));
        }
    }
}

static void seal(int fd)
{
    if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) != 0 &&
        errno != EPERM) { /* EPERM: sealed already */
        log_warn("kept weights could not be sealed: %s", strerror(errno));
    }
}

void kept_seal(struct supervisor *s, uint32_t rank)
{
    if (!s->kept.from_files) {
        seal(s->kept.weights[rank]);
    }
}

void kept_seal_host(struct supervisor *s)
{
    if (!s->kept.from_files) {
        seal(s->kept.host);
    }
}

/* --- Weights on disk --- */

static struct pack_cache_key pack_key(const struct supervisor *s, uint32_t n_ranks)
{
    return (struct pack_cache_key){
        .build = s->config.build, .layout = s->config.layout, .n_ranks = n_ranks, .load = s->load};
}

void kept_find(struct supervisor *s)
{
    struct pack_cache_key key = pack_key(s, s->config.n_ranks);
    struct pack_cache_files files;

    if (s->pack_cache == NULL || s->load == NULL || s->machine.weights_valid ||
        !pack_cache_find(s->pack_cache, &key, &files)) {
        return;
    }
    weights_release(s);
    s->kept.host = files.host;
    memcpy(s->kept.weights, files.ranks, s->config.n_ranks * sizeof(int));
    s->kept.from_files = true;
    s->machine.weights_valid = true;
}

void kept_refused(struct supervisor *s)
{
    struct pack_cache_key key = pack_key(s, s->n_members);

    if (s->kept.from_files) {
        pack_cache_discard(s->pack_cache, &key);
    }
}

void kept_save(struct supervisor *s)
{
    struct pack_cache_key key = pack_key(s, s->n_members);
    struct pack_cache_files files = {.host = s->kept.host};

    if (s->pack_cache != NULL && s->kept.unsaved) {
        memcpy(files.ranks, s->kept.weights, s->n_members * sizeof(int));
        pack_cache_save(s->pack_cache, &key, &files);
        s->kept.unsaved = false;
    }
}
