/* SPDX-License-Identifier: Apache-2.0 */
/* The table and the values. */
#include "metrics/metrics.h"

#include <stdlib.h>

#include "base/mem.h"
#include "metrics/metrics_priv.h"

#define BUCKETS(id, ...) static const double bounds_##id[] = {__VA_ARGS__};
#include "metrics/metrics.def"

const struct metric_row metric_rows[METRICS] = {
#define METRIC(id, type_, label_, buckets, name_, help_) \
    [METRIC_##                                           \
        id] = {.name = (name_),                          \
               .help = (help_),                          \
               .type = TYPE_##type_,                     \
               .label = LABEL_##label_,                  \
               .bounds = bounds_##buckets,               \
               .n_bounds = TYPE_##type_ == TYPE_HISTOGRAM ? ARRAY_LEN(bounds_##buckets) : 0},
#include "metrics/metrics.def"
};

uint32_t metric_label_count(enum metric_label label)
{
    switch (label) {
    case LABEL_FINISHED:
        return METRICS_FINISHED;
    case LABEL_REJECTED:
        return METRICS_REJECTED;
    case LABEL_RANK:
        return METRICS_RANKS;
    case LABEL_NONE:
        break;
    }
    return 1;
}

double metrics_double(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

struct metrics *metrics_create(const char *model_name)
{
    struct metrics *metrics;
    uint32_t first[METRICS];
    uint32_t n = 0;

    for (uint32_t i = 0; i < METRICS; i++) {
        const struct metric_row *row = &metric_rows[i];

        first[i] = n;
        n += row->type == TYPE_HISTOGRAM ? row->n_bounds + 2 : metric_label_count(row->label);
    }
    metrics = xalloc(sizeof(*metrics) + n * sizeof(metrics->words[0]));
    memcpy(metrics->first, first, sizeof(first));
    metrics->model_name = xstrdup(model_name);
    pthread_mutex_init(&metrics->lock, NULL);
    return metrics;
}

void metrics_destroy(struct metrics **metrics)
{
    struct metrics *m = *metrics;

    if (m == NULL) {
        return;
    }
    pthread_mutex_destroy(&m->lock);
    free(m->info.arithmetic);
    free(m->info.kv_dtype);
    free(m->model_name);
    free(m);
    *metrics = NULL;
}

static void add_to(_Atomic uint64_t *word, double x)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);

    while (!atomic_compare_exchange_weak_explicit(word, &old, bits_of(metrics_double(old) + x),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* The word of a counter or gauge. */
static _Atomic uint64_t *word_of(struct metrics *metrics, enum metric metric, enum metric_type type)
{
    ENSURE_OP(metric, <, METRICS);
    ENSURE(metric_rows[metric].type == type && metric_rows[metric].label == LABEL_NONE);
    return &metrics->words[metrics->first[metric]];
}

static _Atomic uint64_t *word_of_label(struct metrics *metrics, enum metric metric, uint32_t label)
{
    const struct metric_row *row;

    ENSURE_OP(metric, <, METRICS);
    row = &metric_rows[metric];
    ENSURE(row->type != TYPE_HISTOGRAM && row->label != LABEL_NONE);
    ENSURE_OP(label, <, metric_label_count(row->label));
    if (row->label == LABEL_RANK) {
        uint32_t n = atomic_load_explicit(&metrics->n_ranks, memory_order_relaxed);

        while (n <= label &&
               !atomic_compare_exchange_weak_explicit(&metrics->n_ranks, &n, label + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
        }
    }
    return &metrics->words[metrics->first[metric] + label];
}

void metrics_add(struct metrics *metrics, enum metric metric, uint64_t n)
{
    add_to(word_of(metrics, metric, TYPE_COUNTER), (double)n);
}

void metrics_add_real(struct metrics *metrics, enum metric metric, double x)
{
    add_to(word_of(metrics, metric, TYPE_COUNTER), x);
}

void metrics_set_counter(struct metrics *metrics, enum metric metric, uint64_t value)
{
    atomic_store_explicit(word_of(metrics, metric, TYPE_COUNTER), bits_of((double)value),
                          memory_order_relaxed);
}

void metrics_set(struct metrics *metrics, enum metric metric, double value)
{
    atomic_store_explicit(word_of(metrics, metric, TYPE_GAUGE), bits_of(value),
                          memory_order_relaxed);
}

void metrics_add_label(struct metrics *metrics, enum metric metric, uint32_t label, uint64_t n)
{
    add_to(word_of_label(metrics, metric, label), (double)n);
}

void metrics_add_real_label(struct metrics *metrics, enum metric metric, uint32_t label, double x)
{
    add_to(word_of_label(metrics, metric, label), x);
}

void metrics_set_label(struct metrics *metrics, enum metric metric, uint32_t label, double value)
{
    atomic_store_explicit(word_of_label(metrics, metric, label), bits_of(value),
                          memory_order_relaxed);
}

void metrics_observe(struct metrics *metrics, enum metric metric, double value)
{
    const struct metric_row *row;
    _Atomic uint64_t *words;
    uint32_t bucket = 0;

    ENSURE_OP(metric, <, METRICS);
    row = &metric_rows[metric];
    ENSURE(row->type == TYPE_HISTOGRAM);
    if (value != value) {
        return;
    }
    while (bucket < row->n_bounds && value > row->bounds[bucket]) {
        bucket++;
    }
    words = &metrics->words[metrics->first[metric]];
    atomic_fetch_add_explicit(&words[bucket], 1, memory_order_relaxed);
    add_to(&words[row->n_bounds + 1], value);
}

void metrics_set_info(struct metrics *metrics, const struct metrics_info *info)
{
    struct metrics_label_text text = {
        .arithmetic = xstrdup(info->arithmetic == NULL ? "" : info->arithmetic),
        .kv_dtype = xstrdup(info->kv_dtype == NULL ? "" : info->kv_dtype),
        .kv_page_tokens = info->kv_page_tokens,
        .kv_pages = info->kv_pages,
    };
    struct metrics_label_text old;

    pthread_mutex_lock(&metrics->lock);
    old = metrics->info;
    metrics->info = text;
    metrics->has_info = true;
    pthread_mutex_unlock(&metrics->lock);
    free(old.arithmetic);
    free(old.kv_dtype);
}
