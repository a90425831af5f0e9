/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/tuning.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cmd/bandwidth.h"
#include "cmd/host.h"
#include "cpu/cpu.h"

enum { IDLE_NS = 1000 * 1000 * 1000, MOST_BYTES = 256 << 20 };

static struct tune_key key_of(const struct options *options)
{
    enum cpu_level level = cpu_level_supported();
    enum cpu_level most;

    if (options->given.cpu_mask && cpu_level_parse(options->cpu_mask, &most, NULL) == STATUS_OK) {
        level = MIN(level, most);
    }
    return (struct tune_key){cpu_level_name(level), cpu_cores_usable()};
}

/* The reference is for tests; measuring it would take minutes. */
static bool has_choices(const struct tune_key *key)
{
    return strcmp(key->level, cpu_level_name(CPU_LEVEL_REF)) != 0;
}

char *tuning_path(const struct options *options)
{
    const struct tune_key key = key_of(options);

    return tune_path(&key);
}

struct ops_tune tuning_find(const struct options *options, uint32_t n_ranks)
{
    const struct tune_key key = key_of(options);
    struct ops_tune tune;

    (void)!tune_read(&key, &tune);
    if (n_ranks > 1 || options->given.threads) {
        tune.few_threads = 0; /* it is for one rank with all threads */
    }
    return tune;
}

enum status tuning_make(const struct options *options, struct tune_result *ret_result,
                        struct err *err)
{
    struct tune_job job = {.ops = &cpu_ops, .key = key_of(options)};
    struct host host;
    enum status status = host_collect(&host, err);

    if (status == STATUS_OK && !has_choices(&job.key)) {
        status = err_set(err, STATUS_UNSUPPORTED, "the reference kernels have none");
    }
    if (status != STATUS_OK) {
        return status;
    }
    job.bytes = MIN(bandwidth_bytes(host_cache_bytes(&host), host.memory_available_bytes),
                    (size_t)MOST_BYTES);
    status = tune_measure(&job, ret_result, err);
    return status == STATUS_OK ? tune_write(&job.key, &ret_result->tune, err) : status;
}

/* Whether choices could be kept and are not, and nobody forbids it. */
static bool is_missing(const struct options *options)
{
    const struct tune_key key = key_of(options);
    const char *wish = getenv("LOCKSTEP_TUNE");
    char *path = tune_path(&key);
    struct ops_tune tune;
    bool missing = (wish == NULL || strcmp(wish, "off") != 0) && path != NULL &&
                   has_choices(&key) && !tune_read(&key, &tune);

    free(path);
    return missing;
}

void tuning_make_once(const struct options *options)
{
    struct tune_result result;
    struct err err = {0};

    if (is_missing(options) && tuning_make(options, &result, &err) != STATUS_OK) {
        log_info("choices of speed are not kept: %s", err.text);
    }
}

struct tuning_idle {
    const struct options *options;
    uint64_t since_ns; /* there have been no requests; 0: there are, or it has not been asked */
    pid_t pid;         /* of who measures; 0: nobody does */
    bool done;         /* nothing more to do */
};

struct tuning_idle *tuning_idle_create(const struct options *options)
{
    struct tuning_idle *idle;

    if (!is_missing(options)) {
        return NULL;
    }
    idle = xalloc(sizeof(*idle));
    idle->options = options;
    return idle;
}

/* Reaps it. */
static void stop(struct tuning_idle *idle)
{
    kill(idle->pid, SIGKILL);
    (void)!waitpid(idle->pid, NULL, 0);
    idle->pid = 0;
    idle->since_ns = 0;
}

void tuning_idle_destroy(struct tuning_idle **idle)
{
    if (*idle != NULL && (*idle)->pid != 0) {
        stop(*idle);
    }
    free(*idle);
    *idle = NULL;
}

/* `lockstep doctor`, without a word. */
static bool start(struct tuning_idle *idle)
{
    char *argv[] = {"lockstep", "doctor", NULL, NULL, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    bool started;

    if (idle->options->given.cpu_mask) {
        argv[2] = "--cpu-mask";
        argv[3] = (char *)idle->options->cpu_mask;
    }
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&files);
    for (int fd = 0; fd <= 2; fd++) {
        posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    }
    started = posix_spawn(&idle->pid, "/proc/self/exe", &files, &attributes, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (started) {
        (void)!setpriority(PRIO_PROCESS, (id_t)idle->pid, 19);
    } else {
        idle->pid = 0;
    }
    return started;
}

uint64_t tuning_idle_turn(struct tuning_idle *idle, uint64_t now, bool busy)
{
    if (idle == NULL || idle->done) {
        return UINT64_MAX;
    }
    if (idle->pid != 0) {
        if (busy) {
            stop(idle);
        } else if (waitpid(idle->pid, NULL, WNOHANG) != 0) {
            idle->pid = 0;
            idle->done = true;
        }
    } else if (busy || idle->since_ns == 0) {
        idle->since_ns = busy ? 0 : now;
    } else if (now - idle->since_ns >= IDLE_NS) {
        idle->done = !start(idle);
    }
    return now + IDLE_NS / 10;
}
