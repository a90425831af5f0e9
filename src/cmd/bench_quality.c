/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench quality: what a path (--act, --kv, --quant, --bf16) costs in quality, against f32
 * arithmetic of the same weights with a KV cache in f32. Both compute a text in windows, each by
 * itself; at every position the two distributions of the next token are compared. No ranks: results
 * do not depend on how many there are, and both engines live in this process, one after the other
 * at each chunk of a window, so that only a chunk's logits are kept.
 */
#include <math.h>

#include "base/file.h"
#include "base/mem.h"
#include "cmd/bench.h"
#include "cmd/cmd.h"
#include "cmd/divergence.h"
#include "cmd/open_tokenizer.h"
#include "cpu/cpu.h"
#include "engine/engine.h"
#include "json/json.h"

enum {
    CHUNK = 32, /* positions */
    TEXT_MAX = 64 << 20
};

_Static_assert(OPS_PAGE_TOKENS % CHUNK == 0, "a page begins with a chunk");

struct quality {
    const struct options *options;
    struct engine *reference;
    struct engine *path;
    uint32_t vocab;
    uint32_t window;
    int32_t *tokens;
    uint32_t n_tokens;
    uint32_t *pages;         /* [window / OPS_PAGE_TOKENS, rounded up] */
    float *reference_logits; /* [CHUNK][vocab] */
    float *path_logits;
    struct divergence divergence;
};

/* The tokens of --text or --prompt-ids. */
static enum status read_tokens(struct quality *q, struct err *err)
{
    const struct options *o = q->options;
    struct tokenizer *tokenizer = NULL;
    struct token_ids ids = {0};
    struct buf text = {0};
    uint32_t *given = NULL;
    size_t n = 0;
    enum status status;

    if (o->given.prompt_ids) {
        status = options_parse_ids(o->prompt_ids, &given, &n, err);
        q->tokens = (int32_t *)given;
        q->n_tokens = (uint32_t)n;
        return status;
    }
    status = file_read_all(o->text, TEXT_MAX, &text, err);
    if (status == STATUS_OK) {
        status = open_tokenizer(o->path, &tokenizer, err);
    }
    if (status == STATUS_OK) {
        status = tokenizer_encode(tokenizer, buf_str(&text), text.len, 0, &ids, err);
    }
    if (status == STATUS_OK) {
        q->n_tokens = (uint32_t)ids.n;
        q->tokens = xcalloc(MAX(ids.n, (size_t)1), sizeof(*q->tokens));
        for (size_t i = 0; i < ids.n; i++) {
            q->tokens[i] = (int32_t)ids.data[i];
        }
    }
    token_ids_release(&ids);
    buf_release(&text);
    tokenizer_destroy(&tokenizer);
    return status;
}

static enum status check_tokens(const struct quality *q, struct err *err)
{
    if (q->n_tokens < 2) {
        return err_set(err, STATUS_INVALID, "%s: %u tokens are too few to compare",
                       q->options->given.prompt_ids ? "--prompt-ids" : q->options->text,
                       q->n_tokens);
    }
    for (uint32_t i = 0; i < q->n_tokens; i++) {
        if (q->tokens[i] < 0 || (uint32_t)q->tokens[i] >= q->vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           q->tokens[i], q->vocab);
        }
    }
    return STATUS_OK;
}

/* The engine of the options, or the one that it is measured against. */
static enum status open_engine(const struct quality *q, bool reference, struct engine **ret_engine,
                               struct err *err)
{
    const struct options *o = q->options;
    struct engine_options options = {
        .path = o->path,
        .level = o->given.cpu_mask ? o->cpu_mask : NULL,
        .n_threads = (uint32_t)o->threads,
        .max_context = q->window,
        .max_chunk = CHUNK,
        .max_wants = CHUNK,
        .ops = &cpu_ops,
        .act_given = true,
        .act = ACT_F32,
        .kv_given = true,
        .kv = KV_F32,
    };

    if (!reference) {
        options.act_given = o->given.act && act_from_name(o->act, &options.act);
        options.kv_given = strcmp(o->kv, "auto") != 0 && kv_type_from_name(o->kv, &options.kv);
        options.quantises = o->given.quant && dtype_from_name(o->quant, &options.quant);
        options.bf16 = model_bf16_from_name(o->bf16);
    }
    return engine_create(&options, ret_engine, err);
}

/* Positions [at, at + n) of a window; their logits to out. */
static enum status step(const struct quality *q, struct engine *engine, const int32_t *tokens,
                        uint32_t at, uint32_t n, float *out, struct err *err)
{
    const struct ops_segment segment = {.n = n, .pos = at, .pages = q->pages};
    struct model_want wants[CHUNK];
    const struct model_step plan = {.tokens = tokens + at,
                                    .n_tokens = n,
                                    .segments = &segment,
                                    .n_segments = 1,
                                    .wants = wants,
                                    .n_wants = n};
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < n; i++) {
        wants[i] = (struct model_want){.row = i};
    }
    if (at % OPS_PAGE_TOKENS == 0) {
        status = engine_page_clear(engine, at / OPS_PAGE_TOKENS, err);
    }
    if (status == STATUS_OK) {
        status = engine_step(engine, &plan, err);
    }
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        memcpy(out + (size_t)i * q->vocab, wants[i].logits, q->vocab * sizeof(*out));
    }
    return status;
}

static enum status run_window(struct quality *q, uint32_t begin, struct err *err)
{
    const int32_t *tokens = q->tokens + begin;
    uint32_t n_tokens = MIN(q->window, q->n_tokens - begin);
    enum status status = STATUS_OK;

    for (uint32_t at = 0; at < n_tokens && status == STATUS_OK; at += CHUNK) {
        uint32_t n = MIN(n_tokens - at, (uint32_t)CHUNK);

        status = step(q, q->reference, tokens, at, n, q->reference_logits, err);
        if (status == STATUS_OK) {
            status = step(q, q->path, tokens, at, n, q->path_logits, err);
        }
        for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
            divergence_add(&q->divergence, q->reference_logits + (size_t)i * q->vocab,
                           q->path_logits + (size_t)i * q->vocab, q->vocab,
                           at + i + 1 < n_tokens ? tokens[at + i + 1] : -1);
        }
    }
    return status;
}

static enum status run(struct quality *q, struct err *err)
{
    enum status status = read_tokens(q, err);

    if (status == STATUS_OK) {
        status = open_engine(q, true, &q->reference, err);
    }
    if (status == STATUS_OK) {
        status = open_engine(q, false, &q->path, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    q->vocab = engine_config(q->path)->vocab;
    q->window = MIN(q->window, engine_max_context(q->path));
    q->reference_logits = xcalloc((size_t)CHUNK * q->vocab, sizeof(float));
    q->path_logits = xcalloc((size_t)CHUNK * q->vocab, sizeof(float));
    q->pages = xcalloc(div_up(q->window, OPS_PAGE_TOKENS), sizeof(*q->pages));
    for (uint32_t i = 0; i < div_up(q->window, OPS_PAGE_TOKENS); i++) {
        q->pages[i] = i;
    }
    divergence_init(&q->divergence, q->n_tokens);
    status = check_tokens(q, err);
    for (uint32_t at = 0; at < q->n_tokens && status == STATUS_OK; at += q->window) {
        status = run_window(q, at, err);
    }
    return status;
}

static void print_json(struct quality *q)
{
    struct divergence *d = &q->divergence;
    struct buf text = {0};
    json_t *all = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "model", q->options->path,
        "arithmetic_class", engine_arith_class(q->path), "reference_class",
        engine_arith_class(q->reference), "positions", (json_int_t)d->n, "window",
        (json_int_t)q->window, "perplexity", exp(d->nll_b / d->n_next), "reference_perplexity",
        exp(d->nll_a / d->n_next), "kl_mean", divergence_mean(d), "kl_median",
        divergence_quantile(d, 0.5), "kl_p99", divergence_quantile(d, 0.99), "kl_max",
        divergence_quantile(d, 1), "same_top", (double)d->n_same / d->n);

    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

static void print_table(struct quality *q)
{
    struct divergence *d = &q->divergence;

    printf("%s, %u positions in windows of %u\n", q->options->path, d->n, q->window);
    printf("%-28s %12s %12s\n", "", "this path", "reference");
    printf("%-28s %12s\n", "", engine_arith_class(q->path));
    printf("%-28s %12.4f %12.4f\n", "perplexity", exp(d->nll_b / d->n_next),
           exp(d->nll_a / d->n_next));
    printf("%-28s %12.6f  nats\n", "KL divergence, mean", divergence_mean(d));
    printf("%-28s %12.6f\n", "               median", divergence_quantile(d, 0.5));
    printf("%-28s %12.6f\n", "               99 %", divergence_quantile(d, 0.99));
    printf("%-28s %12.6f\n", "               greatest", divergence_quantile(d, 1));
    printf("%-28s %12.2f  %%\n", "same likeliest token", 100.0 * d->n_same / d->n);
}

int bench_quality(const struct options *options)
{
    struct quality q = {.options = options, .window = (uint32_t)options->window};
    struct err err = {0};
    enum status status = run(&q, &err);

    if (status == STATUS_OK) {
        (options->json ? print_json : print_table)(&q);
    } else {
        cmd_fail(&err);
    }
    divergence_release(&q.divergence);
    engine_destroy(&q.path);
    engine_destroy(&q.reference);
    free(q.reference_logits);
    free(q.path_logits);
    free(q.pages);
    free(q.tokens);
    return status == STATUS_OK ? CMD_OK : CMD_FAILED;
}
