/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/choice.h"

/* One choice, and its sequence on the host. */
struct part {
    struct request *request;
    struct choice choice;
    struct seq *seq;          /* NULL once it has ended */
    struct token_ids said;    /* with must_call: the answer so far */
    struct token_ids refused; /* what cannot be its next token */
    uint32_t n_again;         /* sequences that were begun for the next token */
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
        token_ids_release(&part->refused);
        token_ids_release(&part->said);
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
    const char *why;

    if (part->finished) {
        return;
    }
    part->finished = true;
    choice_finish(&part->choice, &event.entries, &event.n_entries, &event.stop_text);
    if (event.stop_text != NULL) {
        event.reason = FINISH_STOP;
    }
    why = choice_why(&part->choice);
    if (why != NULL && event.reason != FINISH_LENGTH) { /* which says that it is cut */
        count(part, METRICS_FINISHED_ERROR);
        end(r, STATUS_CORRUPT, why);
        return;
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

/* --- Another token instead --- */

enum { MAX_AGAIN = 8 }; /* sequences for one token: the second should have it */

/* The biases of part's next sequence: first the refused tokens, which hold for one token, in place
 * of those up to min_tokens (a call that is not complete cannot end). */
static struct plan_bias *biases_without(const struct part *part, struct plan_params *params)
{
    const struct seq *old = part->seq;
    uint32_t n_kept = params->n_bias - params->n_min_bias;
    uint32_t n_refused = (uint32_t)part->refused.n;
    struct plan_bias *bias = xcalloc((size_t)n_kept + n_refused, sizeof(*bias));

    for (uint32_t i = 0; i < n_refused; i++) {
        bias[i] = (struct plan_bias){(uint32_t)part->refused.data[i], -INFINITY};
    }
    if (n_kept > 0) {
        memcpy(bias + n_refused, old->bias + params->n_min_bias, n_kept * sizeof(*bias));
    }
    params->n_min = (uint32_t)part->said.n + 1;
    params->n_min_bias = n_refused;
    params->n_bias = n_refused + n_kept;
    return bias;
}

/* The sequence that goes on where part's answer is, with the tokens refused there impossible. */
static struct seq *make_next(struct part *part)
{
    const struct seq *old = part->seq;
    const struct batch_request *from = &old->request;
    struct seq *seq = xalloc(sizeof(*seq));
    uint32_t n_before = from->n_prompt - from->n_answered; /* the client's prompt */
    uint32_t n_said = (uint32_t)part->said.n;

    seq->request = *from;
    seq->request.n_prompt = n_before + n_said;
    seq->request.n_answered = n_said;
    seq->request.prompt_logprobs = false; /* they are told */
    if (from->max_generated != UINT32_MAX) {
        seq->request.max_generated = from->max_generated + from->n_answered - n_said;
    }
    seq->prompt = xcalloc(seq->request.n_prompt, sizeof(*seq->prompt));
    memcpy(seq->prompt, old->prompt, n_before * sizeof(*seq->prompt));
    if (n_said > 0) {
        memcpy(seq->prompt + n_before, part->said.data, n_said * sizeof(*seq->prompt));
    }
    seq->bias = biases_without(part, &seq->request.params);
    seq->ends = copy(old->ends, old->n_ends, sizeof(*old->ends));
    seq->n_ends = old->n_ends;
    seq->event = old->event;
    seq->arg = part;
    return seq;
}

/* All tokens that cannot stand where part's answer is; if ranks have no room for them, this one and
 * those that came before it. False: there is no room for it either. */
static bool refuse(struct part *part, int32_t token)
{
    const struct plan_params *params = &part->seq->request.params;
    uint32_t room = part->request->spec.max_bias - (params->n_bias - params->n_min_bias);
    struct token_ids all = {0};

    if (call_guard_refused(&part->choice.guard, part->request->spec.max_bias, &all) == STATUS_OK &&
        all.n <= room) {
        token_ids_release(&part->refused);
        part->refused = all;
        return true;
    }
    token_ids_release(&all);
    return part->refused.n < room && token_ids_push(&part->refused, token) == STATUS_OK;
}

/* The token cannot stand where the answer is: another sequence takes the place of part's, in which
 * it is impossible there. What the old one still says is of no interest. */
static void go_on_without(struct part *part, int32_t token)
{
    struct request *r = part->request;
    struct seq *next;

    if (++part->n_again > MAX_AGAIN || !refuse(part, token)) {
        count(part, METRICS_FINISHED_ERROR);
        end(r, STATUS_CORRUPT, "the model did not come to arguments that are a JSON object");
        return;
    }
    next = make_next(part);
    host_cancel(r->host, part->seq->id);
    part->seq = next;
    r->n_live++;
    host_submit(r->host, next);
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
    struct seq *ended = part->seq;
    bool over = part->finished || r->over;

    if (!over && event->end == BATCH_STOP && choice_must_go_on(&part->choice)) {
        go_on_without(part, event->end_token);
        over = true;
    }
    part->seq = part->seq == ended ? NULL : part->seq;
    seq_destroy(&ended);
    if (over) {
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

static void on_started(struct part *part, uint32_t n_cached)
{
    if (part->started) { /* and goes on as another sequence */
        return;
    }
    part->started = true;
    if (part->index % part->request->spec.n == 0) {
        part->request->n_cached += n_cached;
    }
    tell(part, &(struct request_event){.kind = REQUEST_STARTED, .n_cached = n_cached});
}

static void on_token(struct part *part, const struct batch_token *token)
{
    struct request *r = part->request;

    if (part->finished || r->over) {
        return;
    }
    switch (choice_push(&part->choice, token)) {
    case CHOICE_MORE:
        part->refused.n = 0;
        part->n_again = 0;
        if (r->spec.must_call && token_ids_push(&part->said, token->token) != STATUS_OK) {
            end(r, STATUS_NO_MEMORY, "no memory for the rest of the answer");
        }
        break;
    case CHOICE_OVER:
        finish(part, FINISH_STOP, -1);
        if (part->seq != NULL) {
            host_cancel(r->host, part->seq->id);
        }
        break;
    case CHOICE_REFUSED:
        go_on_without(part, token->token);
        break;
    }
}

static void on_seq(void *arg, struct seq *seq, const struct seq_event *event)
{
    struct part *part = arg;
    struct request *r = part->request;

    if (seq != part->seq) { /* another goes on in its place */
        if (event->kind == SEQ_END) {
            r->n_live--;
            seq_destroy(&seq);
            destroy_if_over(r);
        }
        return;
    }
    switch (event->kind) {
    case SEQ_STARTED:
        on_started(part, event->n_cached);
        break;
    case SEQ_TOKEN:
        on_token(part, &event->token);
        break;
    case SEQ_PROMPT_TOKEN:
        add_prompt_entry(part, &event->token);
        break;
    case SEQ_END:
        r->n_live--;
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
