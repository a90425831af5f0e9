/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies as a worker gets them, without a server: a registry with one model "tiny" (a byte is a
 * token, a ChatML template with tools and reasoning), and instead of its host one that remembers
 * the sequences it is given. rig_run takes a body through an endpoint's work, plays an answer to
 * the request that comes of it, and takes everything away again.
 */
#pragma once

#include "../tokenizer/fixture.h"

#include <math.h>

#include "fake_host.h"

#include "api/answer.h"
#include "api/generate.h"
#include "base/mem.h"

enum { RIG_CONTEXT = 4096, RIG_VOCAB = 300 };

struct rig {
    struct registry registry;
    struct api *api;
};

/* --- The model --- */

static const char rig_template[] =
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    "<tool_call>{\"name\": ..., \"arguments\": ...}</tool_call><|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\n{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls %}<tool_call>{\"name\": \"{{ c.function.name }}\", "
    "\"arguments\": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}";

static inline struct served_text *rig_text(void)
{
    struct served_text *text = xalloc(sizeof(*text));

    atomic_init(&text->refs, 1);
    text->tokenizer = fixture_create(
        &(struct fixture){.added = "{\"id\":256,\"content\":\"<|im_start|>\",\"special\":true},"
                                   "{\"id\":257,\"content\":\"<|im_end|>\",\"special\":true}"});
    text->prompt = chat_prompt_new();
    chat_prompt_add(text->prompt, "default", rig_template, sizeof(rig_template) - 1);
    sample_params_init(&text->defaults);
    text->ends[0] = 257;
    text->n_ends = 1;
    text->max_context = RIG_CONTEXT;
    text->vocab = RIG_VOCAB;
    return text;
}

static inline void rig_init(struct rig *rig)
{
    const char *name = "tiny";
    struct served *served = NULL;

    registry_init(&rig->registry);
    ENSURE(registry_add(&rig->registry, &name, 1, "/tiny", &served, NULL) == STATUS_OK);
    served->metrics = metrics_create(name);
    rig_host.metrics = served->metrics;
    served->host = &rig_host;
    served_set_text(&rig->registry, served, rig_text());
    rig->api = api_create(&(struct api_config){.registry = &rig->registry, .host = "127.0.0.1"});
}

static inline void rig_release(struct rig *rig)
{
    api_destroy(&rig->api);
    registry_release(&rig->registry);
}

/* --- One body --- */

/* What a request must keep to, whatever the body was. */
static inline void rig_check(const struct generation *g)
{
    const struct request_spec *s = &g->spec;

    ENSURE(s->n >= 1 && s->n_prompts >= 1 && s->n * s->n_prompts <= REQUEST_MAX_CHOICES);
    ENSURE(s->max_tokens <= RIG_CONTEXT && s->n_stops <= REQUEST_MAX_STOPS);
    ENSURE(s->params.n_bias <= RIG_VOCAB &&
           s->params.n_min_bias + s->params.n_phrase_bias <= s->params.n_bias);
    ENSURE(s->params.n_phrase_bias == 0 || s->bias[s->params.n_bias - 1].add == -INFINITY);
    ENSURE(!s->forced_object || (s->must_call && g->forced.len > 0));
    ENSURE(s->n_top <= 20 && s->n_prompt_top <= 20);
    for (uint32_t i = 0; i < s->n_prompts; i++) {
        ENSURE(s->prompts[i].n >= 1 && s->prompts[i].n < RIG_CONTEXT);
        for (size_t j = 0; j < s->prompts[i].n; j++) {
            ENSURE(s->prompts[i].data[j] >= 0 && s->prompts[i].data[j] < RIG_VOCAB);
        }
    }
    for (uint32_t i = 0; i < s->params.n_bias; i++) {
        ENSURE(s->bias[i].token < RIG_VOCAB && s->bias[i].add < INFINITY);
    }
}

static const char rig_answer[] =
    "\xc3\xa9 <think>why</think> so <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"\xf0\x9f"
    "\x98\x80\"}}</tool_call>\xff<tool_call>{\"name\"";

/* The answer's bytes, token by token, then the end; of what goes on with another, only that. */
static inline void rig_play(struct seq *seq, uint32_t number)
{
    struct result_top tops[20] = {{0}};
    struct batch_token token = {.logprob = -0.5f, .tops = tops, .n_tops = seq->request.n_top};
    struct seq_event event = {.kind = SEQ_STARTED};

    seq->event(seq->arg, seq, &event);
    for (uint32_t i = 1; seq->request.prompt_logprobs && i < seq->request.n_prompt; i++) {
        event = (struct seq_event){.kind = SEQ_PROMPT_TOKEN, .position = i, .token = token};
        event.token.token = seq->prompt[i];
        event.token.n_tops = seq->request.n_prompt_top;
        seq->event(seq->arg, seq, &event);
    }
    for (size_t i = number % 3; i + 1 < sizeof(rig_answer) && seq->request.n_answered == 0; i++) {
        event = (struct seq_event){.kind = SEQ_TOKEN, .token = token};
        event.token.token = (unsigned char)rig_answer[i];
        seq->event(seq->arg, seq, &event);
    }
    event = (struct seq_event){.kind = SEQ_END, .end = BATCH_LENGTH, .end_token = -1};
    seq->event(seq->arg, seq, &event);
}

static inline void rig_generate(struct answer *answer)
{
    struct generation *g = answer->data;
    struct buf out = {0};

    rig_check(g);
    rig_host.n = 0;
    generation_start(answer);
    for (uint32_t i = 0; i < rig_host.n; i++) {
        rig_play(rig_host.seqs[i], i);
    }
    ENSURE(g->request == NULL); /* it has ended */
    g->ending = NULL;
    if (g->stream) {
        g->format->end(g, &(struct request_usage){0}, &out);
    } else {
        g->format->whole(g, &(struct request_usage){0}, &out);
    }
    ENSURE(out.len > 0);
    buf_release(&out);
}

/* The status of the error; 0: it is a request (and its answer was played), or is answered. */
static inline int rig_run(struct rig *rig, const struct endpoint *endpoint, const char *body,
                          size_t n, struct api_error *ret_error)
{
    const struct route route = {.endpoint = endpoint};
    struct answer answer = {.api = rig->api, .route = &route, .id = "rig"};
    struct buf text = {0};
    bool ok = false;

    if (json_parse(body, n, &answer.json, NULL) != STATUS_OK || !json_is_object(answer.json)) {
        api_error_set(&answer.error, 400, "invalid_json", "no object");
    } else {
        ok = endpoint->work(&answer);
    }
    ENSURE(ok == (answer.error.status == 0));
    if (!ok) {
        ENSURE(answer.error.status >= 400 && answer.error.status < 500);
        ENSURE(answer.error.message[0] != '\0' && answer.error.code != NULL);
        if (endpoint->error_body != NULL) {
            endpoint->error_body(&answer, &answer.error, &text);
        } else {
            api_error_body(&answer.error, &text);
        }
        ENSURE(text.len > 0);
        buf_release(&text);
    } else if (endpoint->now == generation_start) {
        rig_generate(&answer);
    } else {
        endpoint->now(&answer);
    }
    if (ret_error != NULL) {
        *ret_error = answer.error;
    }
    endpoint->gone(&answer);
    json_decref(answer.json);
    return answer.error.status;
}
