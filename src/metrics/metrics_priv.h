/* SPDX-License-Identifier: Apache-2.0 */
/* Private to metrics/: the table and how values lie in memory. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "metrics/metrics.h"

enum metric_type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM };
enum metric_label { LABEL_NONE, LABEL_FINISHED, LABEL_REJECTED, LABEL_RANK };

struct metric_row {
    const char *name;
    const char *help;
    enum metric_type type;
    enum metric_label label;
    const double *bounds;
    uint32_t n_bounds; /* of a histogram: it has one bucket more */
};

extern const struct metric_row metric_rows[METRICS];

/* Values of a label; 1 without one. */
uint32_t metric_label_count(enum metric_label label);

struct metrics_label_text {
    char *arithmetic;
    char *kv_dtype;
    uint32_t kv_page_tokens;
    uint32_t kv_pages;
};

/* Words of metric i begin at first[i]: one for each value of its label, with the bits of a double;
 * of a histogram the counts of its buckets (integers, each bucket for itself), then the sum (a
 * double). */
struct metrics {
    char *model_name;
    uint32_t first[METRICS];
    _Atomic uint32_t n_ranks; /* that were named so far: 1 + the highest */
    pthread_mutex_t lock;     /* of info */
    bool has_info;
    struct metrics_label_text info;
    _Atomic uint64_t words[];
};

double metrics_double(uint64_t bits);

/* metrics_process.c: the process's own page. */
void metrics_render_process(struct buf *out);

/* metrics_render.c: a number as Prometheus reads it back to the same bits. */
void metrics_number(struct buf *out, double value);
