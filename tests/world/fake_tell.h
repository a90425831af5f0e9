/* SPDX-License-Identifier: Apache-2.0 */
/* What a fake rank tells of its time. */
#pragma once

#include "fake_verbs.h"

/* What a rank tells of a step that began at start: its counters and, if it was asked for them then,
 * records of each layer, one collective and the step. */
static inline void fake_tell(struct fake_rank *f, const struct step_plan *plan, uint64_t start,
                             bool traced)
{
    struct trace_record record = {.step = (uint32_t)plan->step, .number = 1};
    uint64_t part = (clock_ns() - start) / (FAKE_LAYERS + 1);

    status_page_count(&f->wiring.status, STATUS_COUNTER_STEPS, 1);
    status_page_count(&f->wiring.status, STATUS_COUNTER_ROWS, plan->n_tokens);
    status_page_count(&f->wiring.status, STATUS_COUNTER_STEP_NS, clock_ns() - start);
    if (!traced) {
        return;
    }
    record.took_ns = part;
    for (uint32_t layer = 0; layer <= FAKE_LAYERS; layer++) {
        record.start_ns = start + layer * part;
        record.layer = layer;
        record.kind = TRACE_LAYER;
        if (layer == 0) {
            record.kind = TRACE_COLLECTIVE;
            record.what = TRACE_SUM_TREE;
            trace_write(&f->wiring.trace, &record);
            record.kind = TRACE_LAYER;
            record.what = TRACE_DECODE;
        }
        trace_write(&f->wiring.trace, &record);
    }
    record.kind = TRACE_STEP;
    record.start_ns = start;
    record.took_ns = part * (FAKE_LAYERS + 1);
    record.layer = plan->n_tokens;
    trace_write(&f->wiring.trace, &record);
}
