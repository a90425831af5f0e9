/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model on a world of ranks, as the commands use it: opened from the options, ready, driven turn
 * by turn, closed. The leader (this process) reads only what describes the model; weights are read
 * by the ranks. One thread, the first of the process.
 */
#pragma once

#include <pthread.h>

#include "cmd/progress.h"
#include "config/options.h"
#include "engine/generation.h"
#include "model/model.h"
#include "world/batch.h"
#include "world/control.h"

/* What the command adds to the options. */
struct service_want {
    uint32_t max_context; /* 0: the model's own limit */
    uint32_t n_slots;     /* requests at once */
    uint32_t max_queue;   /* requests that may wait for that */
    uint32_t max_top;     /* likeliest tokens that may be asked for with each */
    uint32_t score_rows;  /* of prompts, in a step, whose tokens are scored */
    uint64_t kv_bytes;    /* memory for KV pages of all ranks; 0: what one context needs */
    bool logits; /* steps that hand out logits: the command issues them, there is no batch */
    struct supervisor_handlers on; /* with logits: who gets what the supervisor says */
};

struct service {
    const struct options *options;
    struct model_config config;
    struct generation_defaults generation; /* zero for a --shape */
    struct supervisor *supervisor;
    struct batch *batch;     /* NULL with logits */
    struct control *control; /* NULL unless --allow-faults */
    struct progress progress;
    uint32_t n_ranks;
    uint32_t max_context;
    uint32_t max_chunk;
    uint32_t n_pages; /* of KV */
    double load_seconds;
    int signal_fd; /* -1: none */
    int wake_fd;   /* ends the idle thread's turn; -1: none */
    bool idling;   /* there is such a thread */
    pthread_t idle;
    int caught_signal; /* that asks to leave; 0: none */
};

/* Checks the model, starts the ranks and waits until they are ready. STATUS_CANCELLED: a signal
 * came (service->caught_signal). Errors of the world, which cmd_fail tells apart, are STATUS_LINK.
 * service_close in any case. */
NODISCARD enum status service_open(struct service *service, const struct options *options,
                                   const struct service_want *want, struct err *err);

/* The first half of it, for who drives the world on a thread of its own: checks the model and makes
 * supervisor and batch. Nothing is started and no signal is taken. want->on.progress, if set, is
 * told of loading. */
NODISCARD enum status service_make(struct service *service, const struct options *options,
                                   const struct service_want *want, struct err *err);

/* What describes the model, checked; ranks and memory are not thought of. Into service->config and
 * generation. */
NODISCARD enum status service_check(struct service *service, const struct options *options,
                                    struct err *err);

/* Descriptors of the control socket (at most CONTROL_MAX_FDS), and what to do when one is ready. */
uint32_t service_control_fds(const struct service *service, struct pollfd *fds);
void service_control_run(struct service *service);

/* Ends the ranks, politely if they are well. Accepts a zeroed service. */
void service_close(struct service *service);

/* One turn of the world: until something has happened, at most until deadline_ns. STATUS_CANCELLED
 * once a signal has come, STATUS_LINK once the world has failed. */
NODISCARD enum status service_turn(struct service *service, uint64_t deadline_ns, struct err *err);

/* From now on signals are the command's own business: they are still blocked, and no turn takes
 * them. */
void service_leave_signals(struct service *service);

/* While the command waits for a person: a thread of its own takes the turns, so that an idle world
 * heals and the control socket answers. Between the two calls nothing else may be called. */
void service_idle_begin(struct service *service);
void service_idle_end(struct service *service);

/* The columns of logits that a rank has. */
NODISCARD enum status service_columns(const struct service *service, uint32_t rank,
                                      uint32_t *ret_begin, uint32_t *ret_end, struct err *err);

/* The exit status of a command that ends with status and err: prints the error, if it is one. */
int service_exit(const struct service *service, enum status status, const struct err *err);
