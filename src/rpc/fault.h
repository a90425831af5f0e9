/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fault to be injected, as a person or a script writes it and the leader passes it on:
 *
 *   KIND:rank=R[,step=S][,layer=L][,phase=P][,ms=M][,epoch=E]       kill:rank=1,step=20,layer=3
 *
 * Kinds are in fault.def, phases are those of status_page.def. Every field narrows down where the
 * fault happens; with none it happens at the next opportunity. It happens once, at the first place
 * that fits:
 *
 *   step   not before this step has begun
 *   layer  in this layer
 *   phase  while the rank is in this phase
 *   epoch  in this epoch of the world; otherwise in whichever comes
 *   ms     how late a slow rank is
 *
 * Text and numbers only; who carries it out is engine/fault.h. Pure; any thread.
 */
#pragma once

#include "rpc/status_page.h"

enum fault_kind {
#define FAULT(id, name, help) FAULT_##id,
#include "rpc/fault.def"
#undef FAULT
    FAULT_KINDS,
};

enum { FAULT_MAX_MS = 3600 * 1000 };

struct fault_spec {
    enum fault_kind kind;
    uint32_t rank;
    bool has_step;
    uint64_t step; /* from 1 on */
    bool has_layer;
    uint32_t layer;
    bool has_phase;
    enum status_phase phase;
    uint32_t ms; /* FAULT_SLOW only, at least 1 */
    bool has_epoch;
    uint64_t epoch; /* from 1 on */
};

/* Reads the text form. STATUS_INVALID naming the field; also for one that says nothing for this
 * kind, is given twice, or makes a place that never comes (a layer of a phase without layers). */
NODISCARD enum status fault_parse(const char *text, struct fault_spec *ret_spec, struct err *err);

/* Appends the text form, which fault_parse reads back to the same. */
void fault_format(const struct fault_spec *spec, struct buf *out);

/* "hang-in-collective", and a sentence about it; "unknown" where there is no such kind. Static. */
const char *fault_kind_name(uint32_t kind);
const char *fault_kind_help(uint32_t kind);
