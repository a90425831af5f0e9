/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/request.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/choice.h"

/* One choice, and its sequence on the host. */
struct part {
    struct request *request;
    struct choice choice;
    struct seq *seq; /* NULL once it has ended */
    uint32_t index;
    bool started;
    bool finished;
    bool counted;                       /* in the metrics, by how it ended */
    struct token_entry *prompt_entries; /* [n_prompt_entries]; of choice 0 of a prompt */
    uint32_t n_prompt_entries;
};

struct request {
    struct host *host;
    struct request_spec spec; /* a copy, with arrays of its own */
    struct request_sink sink;
    struct part *parts; /* [n_parts] */
    uint32_t n_parts;
    uint32_t n_live;     /* sequences that have not ended */
    uint32_t n_finished; /* choices */
    uint32_t n_prompt_tokens;
    uint64_t n_cached;
    uint32_t busy; /* calls into the sink under way */
    bool over;     /* end was called, or it was cancelled */
};

/* --- Copies --- */

static void copy_spec(struct request *r, const struct request_spec *spec)
{
    const char **stops = xcalloc(MAX(spec->n_stops, 1u), sizeof(*stops));

    r->spec = *spec;
    for (uint32_t i = 0; i < spec->n_stops; i++) {
        stops[i] = xstrdup(spec->stops[i]);
    }
    r->spec.stops = stops;
    r->spec.prompts = NULL;
    r->spec.bias = NULL;
    r->spec.ends = NULL;
    r->spec.forced = spec->forced == NULL ? NULL : xstrdup(spec->forced);
}

static void destroy(struct request *r)
{
    for (uint32_t i = 0; i < r->n_parts; i++) {
        struct part *part = &r->parts[i];

        choice_release(&part->choice);
        for (uint32_t j = 0; j < part->n_prompt_entries; j++) {
            free((void *)part->prompt_entries[j].tops);
        }
        free(part->prompt_entries);
    }
    for (uint32_t i = 0; i < r->spec.n_stops; i++) {
        free((char *)r->spec.stops[i]);
    }
    free((void *)r->spec.stops);
    free((char *)r->spec.forced);
    free(r->parts);
    free(r);
}

static void destroy_if_over(struct request *r)
{
    if (r->over && r->n_live == 0 && r->busy == 0) {
        destroy(r);
    }
}

static void *copy(const void *from, size_t n, size_t bytes)
{
    void *to = xcalloc(MAX(n, (size_t)1), bytes);

    if (n > 0) {
        memcpy(to, from, n * bytes);
    }
    return to;
}

/* --- The sink --- */

static void tell(struct part *part, struct request_event *event)
{
    struct request *r = part->request;

    if (r->over) {
        return;
    }
    event->choice = part->index;
    r->busy++;
    r->sink.event(r->sink.arg, event);
    r->busy--;
}

static void on_text(void *arg, const struct output_event *output, const struct token_entry *entries,
                    uint32_t n_entries)
{
    tell(arg,
         &(struct request_event){
             .kind = REQUEST_TEXT, .output = *output, .entries = entries, .n_entries = n_entries});
}

struct request_usage request_usage(const struct request *request)
{
    struct request_usage usage = {.prompt_tokens = request->n_prompt_tokens,
                                  .cached_tokens = request->n_cached};

    for (uint32_t i = 0; i < request->n_parts; i++) {
        usage.completion_tokens += request->parts[i].choice.n_tokens;
        usage.reasoning_tokens += request->parts[i].choice.n_reasoning;
    }
    return usage;
}

/* Once: what became of a choice. Only here is it known, as the world sees no stop strings and no
 * tool calls. */
static void count(struct part *part, enum metrics_finished how)
{
    if (!part->counted) {
        part->counted = true;
        metrics_add_label(host_metrics(part->request->host), METRIC_REQUEST_SUCCESS_TOTAL, how, 1);
    }
}

static void cancel_rest(struct request *r)
{
    for (uint32_t i = 0; i < r->n_parts; i++) {
        if (r->parts[i].seq != NULL) {
            count(&r->parts[i], METRICS_FINISHED_ABORT);
            host_cancel(r->host, r->parts[i].seq->id);
        }
    }
}

static void end(struct request *r, enum status status, const char *why)
{
    struct request_end event = {.status = status, .why = why, .usage = request_usage(r)};

    if (r->over) {
        return;
    }
    r->over = true;
    cancel_rest(r);
    r->busy++;
    r->sink.end(r->sink.arg, &event);
    r->busy--;
}

static void finish(struct part *part, enum finish_reason reason, int32_t stop_token)
{
    static const enum metrics_finished counts[] = {
        [FINISH_STOP] = METRICS_FINISHED_STOP,
        [FINISH_LENGTH] = METRICS_FINISHED_LENGTH,
        [FINISH_TOOL_CALLS] = METRICS_FINISHED_TOOL_CALLS,
    };
    struct request *r = part->request;
    struct request_event event = {
        .kind = REQUEST_FINISH, .reason = reason, .stop_token = stop_token};

    if (part->finished) {
        return;
    }
    part->finished = true;
    choice_finish(&part->choice, &event.entries, &event.n_entries, &event.stop_text);
    if (event.stop_text != NULL) {
        event.reason = FINISH_STOP;
    }
    if (event.reason == FINISH_STOP && part->choice.called) {
        event.reason = FINISH_TOOL_CALLS;
    }
    count(part, counts[event.reason]);
    tell(part, &event);
    r->n_finished++;
    if (r->n_finished == r->n_parts) {
        end(r, STATUS_OK, "");
    }
}

/* --- Events of sequences --- */

static void add_prompt_entry(struct part *part, const struct batch_token *token)
{
    struct token_entry *e;

    if ((part->n_prompt_entries & (part->n_prompt_entries - 1)) == 0) { /* grows by doubling */
        part->prompt_entries = xrealloc(part->prompt_entries, MAX(1u, 2 * part->n_prompt_entries),
                                        sizeof(*part->prompt_entries));
    }
    e = &part->prompt_entries[part->n_prompt_entries++];
    *e = (struct token_entry){
        .token = token->token, .logprob = token->logprob, .n_tops = token->n_tops};
    e->tops = token->n_tops > 0 ? copy(token->tops, token->n_tops, sizeof(*token->tops)) : NULL;
}

static void on_seq_end(struct part *part, const struct seq_event *event)
{
    struct request *r = part->request;
    enum status status = event->status;

    r->n_live--;
    seq_destroy(&part->seq);
    if (part->finished || r->over) {
        return;
    }
    switch (event->end) {
    case BATCH_STOP:
        part->choice.n_tokens++; /* the end token was generated, too */
        finish(part, FINISH_STOP, event->end_token);
        break;
    case BATCH_LENGTH:
        finish(part, FINISH_LENGTH, -1);
        break;
    case BATCH_CANCELLED: /* not by this request: the world went down */
        count(part, METRICS_FINISHED_ABORT);
        end(r, STATUS_LINK, "the model is being unloaded");
        break;
    case BATCH_FAILED:
        if (part->started) { /* else it was refused, and is counted so */
            count(part, METRICS_FINISHED_ERROR);
        }
        end(r, status == STATUS_OK ? STATUS_BUG : status, event->why == NULL ? "" : event->why);
        break;
    }
}

static void on_seq(void *arg, struct seq *seq, const struct seq_event *event)
{
    struct part *part = arg;
    struct request *r = part->request;

    (void)seq;
    switch (event->kind) {
    case SEQ_STARTED:
        part->started = true;
        if (part->index % r->spec.n == 0) {
            r->n_cached += event->n_cached;
        }
        tell(part, &(struct request_event){.kind = REQUEST_STARTED, .n_cached = event->n_cached});
        break;
    case SEQ_TOKEN:
        if (!part->finished && !r->over && choice_push(&part->choice, &event->token)) {
            finish(part, FINISH_STOP, -1);
            if (part->seq != NULL) {
                host_cancel(r->host, part->seq->id);
            }
        }
        break;
    case SEQ_PROMPT_TOKEN:
        add_prompt_entry(part, &event->token);
        break;
    case SEQ_END:
        on_seq_end(part, event);
        break;
    }
    destroy_if_over(r);
}

/* --- Life --- */

static struct seq *make_seq(struct request *r, const struct request_spec *spec, struct part *part)
{
    struct seq *seq = xalloc(sizeof(*seq));
    const struct token_ids *prompt = &spec->prompts[part->index / spec->n];
    struct batch_request *b = &seq->request;
    bool first = part->index % spec->n == 0;

    seq->prompt = copy(prompt->data, prompt->n, sizeof(*prompt->data));
    seq->bias = copy(spec->bias, spec->params.n_bias, sizeof(*spec->bias));
    seq->ends = copy(spec->ends, spec->n_ends, sizeof(*spec->ends));
    seq->n_ends = spec->n_ends;
    seq->n_first = spec->min_tokens;
    seq->event = on_seq;
    seq->arg = part;
    b->params = spec->params;
    b->params.prompt_index = part->index / spec->n;
    b->params.choice = part->index % spec->n;
    b->n_prompt = (uint32_t)prompt->n;
    b->max_generated = spec->max_tokens == 0 ? UINT32_MAX : spec->max_tokens;
    b->tenant = spec->tenant;
    b->priority = spec->priority;
    b->salt = spec->salt;
    b->logprobs = spec->logprobs;
    b->n_top = spec->n_top;
    b->prompt_logprobs = spec->prompt_logprobs && first;
    b->n_prompt_top = spec->n_prompt_top;
    r->n_prompt_tokens += first ? b->n_prompt : 0;
    return seq;
}

struct request *request_start(struct host *host, const struct request_spec *spec,
                              const struct request_sink *sink)
{
    struct request *r = xalloc(sizeof(*r));

    ENSURE(spec->n >= 1 && spec->n_prompts >= 1);
    r->host = host;
    r->sink = *sink;
    copy_spec(r, spec);
    r->n_parts = spec->n_prompts * spec->n;
    r->parts = xcalloc(r->n_parts, sizeof(*r->parts));
    metrics_observe(host_metrics(host), METRIC_REQUEST_PARAMS_N, spec->n);
    r->busy++; /* what is forced may call a tool before anything is generated */
    for (uint32_t i = 0; i < r->n_parts; i++) {
        struct part *part = &r->parts[i];

        part->request = r;
        part->index = i;
        part->seq = make_seq(r, spec, part);
        choice_init(&part->choice, &r->spec, on_text, part);
    }
    for (uint32_t i = 0; i < r->n_parts; i++) {
        r->n_live++;
        host_submit(host, r->parts[i].seq);
    }
    r->busy--;
    return r;
}

void request_cancel(struct request **request)
{
    struct request *r = *request;

    *request = NULL;
    if (r == NULL) {
        return;
    }
    if (!r->over) {
        r->over = true;
        cancel_rest(r);
    }
    destroy_if_over(r);
}

const struct token_entry *request_prompt_entries(const struct request *request, uint32_t prompt,
                                                 uint32_t *ret_n)
{
    const struct part *part = &request->parts[prompt * request->spec.n];

    *ret_n = part->n_prompt_entries;
    return part->prompt_entries;
}
