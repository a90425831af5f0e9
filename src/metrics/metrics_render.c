/* SPDX-License-Identifier: Apache-2.0 */
/* Values as Prometheus text. */
#include <math.h>
#include <stdlib.h>

#include "metrics/metrics_priv.h"

static const char *const type_names[] = {"counter", "gauge", "histogram"};

static const char *const finished_names[] = {
#define FINISHED(id, name) name,
#include "metrics/metrics.def"
};

static const char *const rejected_names[] = {
#define REJECTED(id, name) name,
#include "metrics/metrics.def"
};

static const struct {
    enum metric metric;
    const char *name;
    const char *help;
} aliases[] = {
#define ALIAS(id, name, help) {METRIC_##id, name, help},
#include "metrics/metrics.def"
};

void metrics_number(struct buf *out, double value)
{
    char text[32];

    if (isnan(value) || isinf(value)) {
        buf_append_str(out, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back the same */
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    buf_append_str(out, text);
}

/* A bucket's bound as vLLM writes it: whole ones with ".0". */
static void append_bound(struct buf *out, double bound)
{
    metrics_number(out, bound);
    if (bound == floor(bound)) {
        buf_append_str(out, ".0");
    }
}

/* The value of a label: backslash, quote and line feed are escaped. */
static void append_label(struct buf *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\n') {
            buf_append_str(out, "\\n");
            continue;
        }
        if (*c == '\\' || *c == '"') {
            buf_append_char(out, '\\');
        }
        buf_append_char(out, *c);
    }
}

static void append_head(struct buf *out, const char *name, const char *help, const char *type)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{model_name="...",engine="0" with further labels to come. */
static void begin_sample(struct buf *out, const char *name, const char *suffix,
                         const struct metrics *m)
{
    buf_printf(out, "%s%s{model_name=\"", name, suffix);
    append_label(out, m->model_name);
    buf_append_char(out, '"');
    if (strncmp(name, "vllm:", 5) == 0) {
        buf_append_str(out, ",engine=\"0\"");
    }
}

static void end_sample(struct buf *out, double value)
{
    buf_append_str(out, "} ");
    metrics_number(out, value);
    buf_append_char(out, '\n');
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void append_histogram(struct buf *out, const struct metric_row *row, const char *name,
                             const struct metrics *m, uint32_t first)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i <= row->n_bounds; i++) {
        n += load(&m->words[first + i]);
        begin_sample(out, name, "_bucket", m);
        buf_append_str(out, ",le=\"");
        if (i < row->n_bounds) {
            append_bound(out, row->bounds[i]);
        } else {
            buf_append_str(out, "+Inf");
        }
        buf_append_char(out, '"');
        end_sample(out, (double)n);
    }
    begin_sample(out, name, "_sum", m);
    end_sample(out, metrics_double(load(&m->words[first + row->n_bounds + 1])));
    begin_sample(out, name, "_count", m);
    end_sample(out, (double)n);
}

static void append_values(struct buf *out, const struct metric_row *row, const struct metrics *m,
                          uint32_t first)
{
    uint32_t n = row->label == LABEL_RANK ? atomic_load_explicit(&m->n_ranks, memory_order_relaxed)
                                          : metric_label_count(row->label);

    for (uint32_t i = 0; i < n; i++) {
        begin_sample(out, row->name, "", m);
        switch (row->label) {
        case LABEL_FINISHED:
            buf_printf(out, ",finished_reason=\"%s\"", finished_names[i]);
            break;
        case LABEL_REJECTED:
            buf_printf(out, ",reason=\"%s\"", rejected_names[i]);
            break;
        case LABEL_RANK:
            buf_printf(out, ",rank=\"%u\"", i);
            break;
        case LABEL_NONE:
            break;
        }
        end_sample(out, metrics_double(load(&m->words[first + i])));
    }
}

static void append_cache_info(struct buf *out, struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    if (m->has_info) {
        begin_sample(out, "vllm:cache_config_info", "", m);
        buf_printf(out, ",block_size=\"%u\",num_gpu_blocks=\"%u\",enable_prefix_caching=\"True\"",
                   m->info.kv_page_tokens, m->info.kv_pages);
        buf_append_str(out, ",cache_dtype=\"");
        append_label(out, m->info.kv_dtype);
        buf_append_char(out, '"');
        end_sample(out, 1);
    }
    pthread_mutex_unlock(&m->lock);
}

static void append_model_info(struct buf *out, struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    if (m->has_info) {
        begin_sample(out, "lockstep:model_info", "", m);
        buf_append_str(out, ",version=\"" LOCKSTEP_VERSION "\",arithmetic=\"");
        append_label(out, m->info.arithmetic);
        buf_append_char(out, '"');
        end_sample(out, 1);
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_render(struct metrics *const *all, size_t n, struct buf *out)
{
    for (uint32_t i = 0; i < METRICS; i++) {
        const struct metric_row *row = &metric_rows[i];

        append_head(out, row->name, row->help, type_names[row->type]);
        for (size_t k = 0; k < n; k++) {
            if (row->type == TYPE_HISTOGRAM) {
                append_histogram(out, row, row->name, all[k], all[k]->first[i]);
            } else {
                append_values(out, row, all[k], all[k]->first[i]);
            }
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        const struct metric_row *row = &metric_rows[aliases[i].metric];

        append_head(out, aliases[i].name, aliases[i].help, type_names[row->type]);
        for (size_t k = 0; k < n; k++) {
            append_histogram(out, row, aliases[i].name, all[k], all[k]->first[aliases[i].metric]);
        }
    }
    append_head(out, "vllm:cache_config_info", "How the KV cache is laid out.", "gauge");
    for (size_t k = 0; k < n; k++) {
        append_cache_info(out, all[k]);
    }
    append_head(out, "lockstep:model_info", "Version and arithmetic of the model.", "gauge");
    for (size_t k = 0; k < n; k++) {
        append_model_info(out, all[k]);
    }
    metrics_render_process(out);
}
