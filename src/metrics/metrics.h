/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers about a model for Prometheus: what there is stands in metrics.def. One struct a model,
 * and one page of the process for what belongs to no model (answers by code, the process itself).
 *
 * Any thread may change a value and any thread may render at the same time: a value is one atomic
 * word. A rendered text may show values of slightly different moments, but a histogram in it is
 * always consistent with itself (its count is the sum of its buckets).
 *
 * Values are doubles: counts are exact up to 2^53. A metric used with the wrong function (a gauge
 * that is observed) or a label out of its list is a bug, not input, and aborts.
 */
#pragma once

#include "base/buf.h"

enum metric {
#define METRIC(id, type, label, buckets, name, help) METRIC_##id,
#include "metrics/metrics.def"
    METRICS,
};

/* Values of the label of METRIC_REQUEST_SUCCESS_TOTAL. */
enum metrics_finished {
#define FINISHED(id, name) METRICS_FINISHED_##id,
#include "metrics/metrics.def"
    METRICS_FINISHED,
};

/* Values of the label of METRIC_ADMISSION_REJECTIONS_TOTAL. */
enum metrics_rejected {
#define REJECTED(id, name) METRICS_REJECTED_##id,
#include "metrics/metrics.def"
    METRICS_REJECTED,
};

enum { METRICS_RANKS = 64 }; /* values of a label "rank": 0 up to this */

struct metrics;

/* Never NULL. The name (copied) is the label model_name. */
struct metrics *metrics_create(const char *model_name);
void metrics_destroy(struct metrics **metrics);

/* Counters. */
void metrics_add(struct metrics *metrics, enum metric metric, uint64_t n);
void metrics_add_real(struct metrics *metrics, enum metric metric, double x);
/* A counter that is kept elsewhere; if it falls, it is taken for restarted. */
void metrics_set_counter(struct metrics *metrics, enum metric metric, uint64_t value);

/* Gauges. */
void metrics_set(struct metrics *metrics, enum metric metric, double value);

/* Histograms. What is not a number is left out. */
void metrics_observe(struct metrics *metrics, enum metric metric, double value);

/* Metrics with a second label; label is one of the enums above or a rank. Ranks are rendered from
 * the first time on that they are named, values of other labels always. */
void metrics_add_label(struct metrics *metrics, enum metric metric, uint32_t label, uint64_t n);
void metrics_add_real_label(struct metrics *metrics, enum metric metric, uint32_t label, double x);
void metrics_set_label(struct metrics *metrics, enum metric metric, uint32_t label, double value);

/* What is fixed while a model is loaded; shown as labels of vllm:cache_config_info and
 * lockstep:model_info. Strings are copied, NULL is "". */
struct metrics_info {
    const char *arithmetic; /* class: equal names, equal bits */
    const char *kv_dtype;
    uint32_t kv_page_tokens;
    uint32_t kv_pages;
};
void metrics_set_info(struct metrics *metrics, const struct metrics_info *info);

/* An HTTP answer of the process; codes that are none count as 0. */
void metrics_http_answer(uint32_t code);

/* Appends all (n may be 0) and the process's own in Prometheus text format 0.0.4: each name's HELP
 * and TYPE once, all models below it. */
void metrics_render(struct metrics *const *all, size_t n, struct buf *out);
