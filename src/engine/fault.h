/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults in a rank on purpose: the leader sends specifications (rpc/fault.h), the rank's loop tells
 * where it is, and what fits is carried out there. Each fault is carried out once. Before that it
 * is recorded in the status page under its id (STATUS_EVENT_FAULT: id, step), so that the leader
 * can read after the rank's death which one it was and does not send it to the next epoch.
 *
 * A fault that waits for no place happens at the next call that can carry it out: kill, stop and
 * oom at faults_at_*, hang-in-collective and slow at faults_at_collective, drop-frame and
 * corrupt-frame at the next answer. A step that has passed counts as begun.
 *
 * Without armed faults every call is a comparison. A plain struct; the rank's main thread. The
 * status page is borrowed.
 */
#pragma once

#include "rpc/fault.h"

enum {
    FAULTS_MAX = 16,
    FAULTS_OOM_BYTES = 64 << 10, /* the least size of the allocation that an oom makes fail */
};

struct faults_armed {
    uint32_t id;
    struct fault_spec spec;
};

struct faults {
    struct status_writer *status;
    enum status_phase phase;
    uint64_t step; /* the newest */
    uint32_t n;    /* still to be carried out, in the order in which they came */
    struct faults_armed armed[FAULTS_MAX];
    uint32_t slow_ms; /* from now on, before every collective; 0: none */
    bool oom;         /* the process is to die */
};

void faults_init(struct faults *faults, struct status_writer *status);

/* Adds one; false if there are FAULTS_MAX. */
bool faults_arm(struct faults *faults, uint32_t id, const struct fault_spec *spec);

/* The rank is in a phase: on entering it, and also when it has answered the request that armed a
 * fault, because that may be due now. It stays the phase until another is told, so tell it only
 * after the answer that still belongs to the old one is sent. May not return. */
void faults_at_phase(struct faults *faults, enum status_phase phase);

/* A step begins, in the phase last told. May not return. */
void faults_at_step(struct faults *faults, uint64_t step);

/* A layer of the step begins. May not return. */
void faults_at_layer(struct faults *faults, uint64_t step, uint32_t layer);

/* The rank is about to enter a collective and does not yet show as waiting. It may come late, or
 * never: then the progress word stands still. */
void faults_at_collective(struct faults *faults, uint64_t step, uint32_t layer);

/* An answer or result is about to be sent: true if it is to be swallowed, or damaged. */
bool faults_take_drop(struct faults *faults);
bool faults_take_corrupt(struct faults *faults);

/* A request or step is done: true if it is to be answered with an error of the device. */
bool faults_take_device(struct faults *faults);

/* A step or request is done, well or badly, and not yet answered: does not return if an oom has
 * made an allocation in it fail, or could not because there was none. */
void faults_alloc(struct faults *faults);
