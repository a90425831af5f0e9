/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/host_meter.h"

#include "base/clock.h"

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

void meter_started(struct seq *seq, uint32_t n_cached)
{
    struct metrics *m = seq->host->config.metrics;

    seq->started_ns = clock_ns();
    metrics_observe(m, METRIC_REQUEST_QUEUE_TIME_SECONDS,
                    seconds(seq->submitted_ns, seq->started_ns));
    metrics_observe(m, METRIC_REQUEST_PROMPT_TOKENS, seq->request.n_prompt);
    metrics_observe(m, METRIC_REQUEST_PREFILL_KV_COMPUTED_TOKENS, seq->request.n_prompt - n_cached);
}

void meter_token(struct seq *seq)
{
    struct metrics *m = seq->host->config.metrics;
    uint64_t now = clock_ns();

    seq->n_generated++;
    if (seq->first_ns == 0) {
        seq->first_ns = now;
        metrics_observe(m, METRIC_TIME_TO_FIRST_TOKEN_SECONDS, seconds(seq->submitted_ns, now));
        metrics_observe(m, METRIC_REQUEST_PREFILL_TIME_SECONDS, seconds(seq->started_ns, now));
    } else {
        metrics_observe(m, METRIC_INTER_TOKEN_LATENCY_SECONDS, seconds(seq->last_ns, now));
    }
    seq->last_ns = now;
}

/* Of a sequence that never ran. */
static void meter_refusal(const struct host *host, enum status status)
{
    struct metrics *m = host->config.metrics;

    switch ((int)status) {
    case STATUS_LIMIT:
        metrics_add_label(m, METRIC_ADMISSION_REJECTIONS_TOTAL, METRICS_REJECTED_QUEUE_FULL, 1);
        break;
    case STATUS_INVALID:
        metrics_add_label(m, METRIC_ADMISSION_REJECTIONS_TOTAL, METRICS_REJECTED_TOO_LONG, 1);
        break;
    case STATUS_LINK:
        metrics_add_label(
            m, METRIC_ADMISSION_REJECTIONS_TOTAL,
            atomic_load(&host->refuse) ? METRICS_REJECTED_DRAINING : METRICS_REJECTED_FAILED, 1);
        break;
    default:
        break;
    }
}

void meter_end(const struct seq *seq, const struct seq_event *end)
{
    struct metrics *m = seq->host->config.metrics;
    uint64_t now = clock_ns();

    if (seq->started_ns == 0 && end->end == BATCH_FAILED) {
        meter_refusal(seq->host, end->status);
        return;
    }
    if (end->status == STATUS_NUMERIC) {
        metrics_add(m, METRIC_CORRUPTED_REQUESTS_TOTAL, 1);
    }
    metrics_observe(m, METRIC_E2E_REQUEST_LATENCY_SECONDS, seconds(seq->submitted_ns, now));
    metrics_observe(m, METRIC_REQUEST_GENERATION_TOKENS, seq->n_generated);
    metrics_observe(m, METRIC_REQUEST_MAX_NUM_GENERATION_TOKENS, seq->n_generated);
    if (seq->request.max_generated != UINT32_MAX) {
        metrics_observe(m, METRIC_REQUEST_PARAMS_MAX_TOKENS, seq->request.max_generated);
    }
    if (seq->started_ns != 0) {
        metrics_observe(m, METRIC_REQUEST_INFERENCE_TIME_SECONDS, seconds(seq->started_ns, now));
    }
    if (seq->first_ns != 0) {
        metrics_observe(m, METRIC_REQUEST_DECODE_TIME_SECONDS, seconds(seq->first_ns, now));
    }
    if (seq->n_generated > 1) {
        metrics_observe(m, METRIC_REQUEST_TIME_PER_OUTPUT_TOKEN_SECONDS,
                        seconds(seq->first_ns, seq->last_ns) / (seq->n_generated - 1));
    }
}

/* A rebuild that is over, once. */
static void meter_rebuild(struct host *h, const struct host_snapshot *s)
{
    if (s->rebuilds == h->metered_rebuilds || s->phase != HOST_READY) {
        return;
    }
    h->metered_rebuilds = s->rebuilds;
    metrics_observe(h->config.metrics, METRIC_DETECTION_SECONDS,
                    (double)supervisor_detection_ns(h->world.supervisor) * 1e-9);
    metrics_observe(h->config.metrics, METRIC_RECOVERY_SECONDS,
                    seconds(supervisor_fault_ns(h->world.supervisor),
                            supervisor_ready_ns(h->world.supervisor)));
}

/* Rows of the steps since the last look, as if they had been alike. */
static void meter_steps(struct host *h, const struct batch_stats *b)
{
    uint64_t steps = b->steps - MIN(h->metered.steps, b->steps);
    uint64_t rows = b->step_rows - MIN(h->metered.step_rows, b->step_rows);

    for (uint64_t i = 0; i < MIN(steps, UINT64_C(4096)); i++) {
        metrics_observe(h->config.metrics, METRIC_ITERATION_TOKENS_TOTAL,
                        (double)rows / (double)steps);
    }
}

static void add_since(struct metrics *m, enum metric metric, uint64_t before, uint64_t now)
{
    metrics_add(m, metric, now - MIN(before, now));
}

/* What the batch counts since it was created, and the metrics since the server began: they outlive
 * the world, so that a counter never falls. */
static void meter_counts(struct host *h, const struct host_snapshot *s)
{
    struct metrics *m = h->config.metrics;
    const struct batch_stats *was = &h->metered;
    const struct batch_stats *b = &s->batch;

    add_since(m, METRIC_REBUILDS_TOTAL, h->counted_rebuilds, s->rebuilds);
    add_since(m, METRIC_PREFIX_CACHE_QUERIES_TOTAL, was->prefix_queries, b->prefix_queries);
    add_since(m, METRIC_PREFIX_CACHE_HITS_TOTAL, was->prefix_hits, b->prefix_hits);
    add_since(m, METRIC_NUM_PREEMPTIONS_TOTAL, was->preemptions, b->preemptions);
    add_since(m, METRIC_PROMPT_TOKENS_TOTAL, was->prompt_tokens, b->prompt_tokens);
    add_since(m, METRIC_PROMPT_TOKENS_CACHED_TOTAL, was->prefix_hits, b->prefix_hits);
    add_since(m, METRIC_GENERATION_TOKENS_TOTAL, was->generated_tokens, b->generated_tokens);
    meter_steps(h, b);
    h->counted_rebuilds = s->rebuilds;
    h->metered = *b;
}

/* What each rank has done since the last look. */
static void meter_ranks(struct host *h, uint32_t n_ranks)
{
    struct metrics *m = h->config.metrics;

    for (uint32_t r = 0; r < n_ranks; r++) {
        struct supervisor_counters *before = &h->metered_ranks[r];
        struct supervisor_counters now;

        supervisor_rank_counters(h->world.supervisor, r, &now);
        metrics_add_real_label(m, METRIC_RANK_STEP_SECONDS_TOTAL, r,
                               seconds(before->step_ns, now.step_ns));
        metrics_add_real_label(m, METRIC_COLLECTIVE_SECONDS_TOTAL, r,
                               seconds(before->collective_ns, now.collective_ns));
        metrics_add_real_label(m, METRIC_RANK_WAIT_SECONDS_TOTAL, r,
                               seconds(before->wait_ns, now.wait_ns));
        metrics_add_label(m, METRIC_FRAMES_DROPPED_TOTAL, r,
                          now.frames_dropped - MIN(before->frames_dropped, now.frames_dropped));
        *before = now;
    }
}

/* The last word of a class such as "canonical-x86-64 act int8 kv bf16". */
static const char *kv_dtype(const struct host_snapshot *snapshot)
{
    const char *kv = strstr(snapshot->arithmetic, " kv ");

    return kv == NULL ? "" : kv + 4;
}

void meter_world(struct host *host, const struct host_snapshot *snapshot)
{
    struct metrics *m = host->config.metrics;
    const struct batch_stats *b = &snapshot->batch;

    metrics_set(m, METRIC_NUM_REQUESTS_RUNNING, b->running);
    metrics_set(m, METRIC_NUM_REQUESTS_WAITING, b->waiting);
    metrics_set(m, METRIC_KV_CACHE_USAGE_PERC,
                b->kv_total > 0 ? (double)b->kv_used / b->kv_total : 0);
    metrics_set(m, METRIC_EPOCH, (double)snapshot->epoch);
    meter_counts(host, snapshot);
    meter_rebuild(host, snapshot);
    meter_ranks(host, snapshot->n_ranks);
    metrics_set_info(m, &(struct metrics_info){
                            .arithmetic = snapshot->arithmetic,
                            .kv_dtype = kv_dtype(snapshot),
                            .kv_page_tokens = host->world.page_tokens,
                            .kv_pages = b->kv_total,
                        });
}

void meter_gone(struct host *host)
{
    static const enum metric gauges[] = {METRIC_NUM_REQUESTS_RUNNING, METRIC_NUM_REQUESTS_WAITING,
                                         METRIC_KV_CACHE_USAGE_PERC};

    for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
        metrics_set(host->config.metrics, gauges[i], 0);
    }
}
