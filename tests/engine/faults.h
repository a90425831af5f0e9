/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of fault injection share: a status page that outlives a child, and the child. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/fault.h"

#define MS UINT64_C(1000000)

/* A rank under test. Its page is shared with the child that plays it. */
struct drill {
    void *page;
    struct status_writer status;
    struct faults faults;
    struct status_snapshot seen;
};

static inline void drill_begin(struct drill *drill)
{
    drill->page =
        mmap(NULL, STATUS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(drill->page != MAP_FAILED);
    status_page_init(&drill->status, drill->page, 3, 1);
    faults_init(&drill->faults, &drill->status);
    log_set_level(LOG_ERROR);
}

static inline void drill_end(struct drill *drill)
{
    munmap(drill->page, STATUS_PAGE_BYTES);
}

static inline void drill_arm(struct drill *drill, uint32_t id, const char *text)
{
    struct fault_spec spec;
    struct err err = {0};

    if (fault_parse(text, &spec, &err) != STATUS_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    assert_true(faults_arm(&drill->faults, id, &spec));
}

/* Recorded faults with that id (0: any); *ret_step is the last one's. */
static inline uint32_t drill_recorded(struct drill *drill, uint32_t id, uint64_t *ret_step)
{
    uint32_t n = 0;

    assert_int_equal(status_page_read(drill->page, 3, 1, &drill->seen, NULL), STATUS_OK);
    for (uint32_t i = 0; i < drill->seen.n_events; i++) {
        const struct status_record *event = &drill->seen.events[i];

        if (event->type == STATUS_EVENT_FAULT && (id == 0 || event->a == id)) {
            *ret_step = event->b;
            n++;
        }
    }
    return n;
}

/* Plays the rank in a child, which does not outlive a test that fails. */
static inline pid_t drill_fork(struct drill *drill, void (*play)(struct drill *))
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        play(drill);
        _exit(0);
    }
    return child;
}

/* The signal that ended the child; 0 if it came to the end of its play. */
static inline int drill_wait(pid_t child)
{
    int how;

    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFSIGNALED(how)) {
        return WTERMSIG(how);
    }
    assert_int_equal(WEXITSTATUS(how), 0);
    return 0;
}

static inline void drill_sleep(uint64_t ns)
{
    struct timespec time = {.tv_nsec = (long)ns};

    nanosleep(&time, NULL);
}

static inline void drill_step(struct drill *drill, uint64_t step, enum status_phase phase)
{
    faults_at_phase(&drill->faults, phase);
    faults_at_step(&drill->faults, step);
}
