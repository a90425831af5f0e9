/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/generate.h"

#include "base/clock.h"
#include "base/mem.h"
#include "sample/sampler.h"

struct generation {
    const struct generate_args *args;
    struct sampler sampler;
    float *logits; /* [vocab] a copy: the sampler changes it */
    int32_t *generated;
    size_t n_generated;
    size_t cap;
    int32_t next; /* the token that the last step's logits gave */
};

/* Takes the logits of the last position and chooses the next token. */
static enum status choose(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct generation *g = arg;
    const struct generate_args *args = g->args;
    uint32_t vocab = engine_config(args->sequence->engine)->vocab;
    const struct sample_request request = {
        .params = args->params,
        .key = {.seed = args->seed, .position = (uint32_t)g->n_generated},
        .prompt = args->prompt,
        .n_prompt = args->n_prompt,
        .generated = g->generated,
        .n_generated = g->n_generated,
    };
    uint32_t token;
    enum status status;

    (void)pos;
    memcpy(g->logits, logits, vocab * sizeof(float));
    status = sampler_token(&g->sampler, &request, g->logits, &token, err);
    if (status == STATUS_OK) {
        g->next = (int32_t)token;
    }
    return status;
}

static enum status extend(struct generation *g, const int32_t *tokens, uint32_t n, struct err *err)
{
    return sequence_extend(g->args->sequence,
                           &(struct sequence_extend){
                               .tokens = tokens,
                               .n = n,
                               .chunk = g->args->chunk,
                               .logits = choose,
                               .arg = g,
                               .stop = g->args->stop,
                           },
                           err);
}

static void keep(struct generation *g, int32_t token)
{
    if (g->n_generated == g->cap) {
        g->cap = g->cap == 0 ? 64 : g->cap * 2;
        g->generated = xrealloc(g->generated, g->cap, sizeof(*g->generated));
    }
    g->generated[g->n_generated++] = token;
}

static bool stopped(const struct generate_args *args)
{
    return args->stop != NULL && *args->stop;
}

/* From the first chosen token on: deliver, compute, choose. */
static enum status decode(struct generation *g, enum generate_finish *ret_finish, struct err *err)
{
    const struct generate_args *args = g->args;
    uint32_t room = engine_max_context(args->sequence->engine);

    for (;;) {
        int32_t token = g->next;
        enum status status;

        if (args->ends != NULL && generation_is_end(args->ends, token)) {
            *ret_finish = GENERATE_STOP;
            return STATUS_OK;
        }
        keep(g, token);
        status = args->token(args->arg, token, err);
        if (status != STATUS_OK) {
            return status;
        }
        if ((args->max_tokens >= 0 && g->n_generated >= (uint64_t)args->max_tokens) ||
            args->sequence->pos >= room) {
            *ret_finish = GENERATE_LENGTH;
            return STATUS_OK;
        }
        if (stopped(args)) {
            *ret_finish = GENERATE_CANCELLED;
            return STATUS_OK;
        }
        status = extend(g, &token, 1, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

enum status generate(const struct generate_args *args, struct generate_result *ret_result,
                     struct err *err)
{
    uint32_t cached = args->sequence->pos;
    uint32_t vocab = engine_config(args->sequence->engine)->vocab;
    struct generation g = {.args = args};
    struct generate_result result = {.finish = GENERATE_LENGTH,
                                     .n_prompt = args->n_prompt - cached};
    uint64_t start = clock_ns();
    uint64_t first;
    enum status status;

    ENSURE_OP(cached, <, args->n_prompt);
    status = sample_params_check(args->params, vocab, err);
    if (status != STATUS_OK || args->max_tokens == 0) {
        *ret_result = result;
        return status;
    }
    g.logits = mem_alloc(vocab, sizeof(*g.logits));
    if (g.logits == NULL || sampler_init(&g.sampler, vocab) != STATUS_OK) {
        free(g.logits);
        *ret_result = result;
        return err_set(err, STATUS_NO_MEMORY, "no memory to sample from %u tokens", vocab);
    }
    status = extend(&g, args->prompt + cached, args->n_prompt - cached, err);
    first = clock_ns();
    result.prefill_ns = first - start;
    if (status == STATUS_OK) {
        status = decode(&g, &result.finish, err);
    }
    if (status == STATUS_CANCELLED) {
        result.finish = GENERATE_CANCELLED;
        status = STATUS_OK;
    }
    result.decode_ns = clock_ns() - first;
    result.n_generated = (uint32_t)g.n_generated;
    sampler_release(&g.sampler);
    free(g.logits);
    free(g.generated);
    *ret_result = result;
    return status;
}
