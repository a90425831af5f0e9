/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep logits: the logits of every position of a prompt, for comparison with other engines. The
 * ranks leave them in shared memory, each its columns; a step is written to the file when it is
 * committed, and only then the next one is issued.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/npy.h"
#include "cmd/service.h"

struct logits {
    struct service service;
    const int32_t *ids; /* [n] */
    uint32_t n;
    uint32_t done;    /* positions that the ranks have */
    uint32_t written; /* rows in the file; ahead of done while a lost cache is made again */
    uint32_t in_step; /* rows of the step in flight; 0: none */
    struct npy npy;
    float *row;              /* [vocab] */
    struct plan_want *wants; /* [max_chunk] */
    uint32_t *pages;
    struct err err; /* STATUS_OK, or why it ends */
};

/* One row of the step, put together from the ranks' columns. */
static enum status write_row(struct logits *l, uint32_t row, struct err *err)
{
    enum status status = STATUS_OK;

    for (uint32_t r = 0; r < supervisor_ranks(l->service.supervisor) && status == STATUS_OK; r++) {
        uint32_t begin = 0;
        uint32_t end = 0;

        status = service_columns(&l->service, r, &begin, &end, err);
        if (status == STATUS_OK && end > begin) {
            memcpy(l->row + begin,
                   supervisor_logits(l->service.supervisor, r) + (size_t)row * (end - begin),
                   (end - begin) * sizeof(float));
        }
    }
    return status == STATUS_OK ? npy_write_row(&l->npy, l->row, err) : status;
}

static void on_commit(void *arg, const struct step_result *result)
{
    struct logits *l = arg;

    for (uint32_t i = 0; i < result->n_tokens && l->err.status == STATUS_OK; i++) {
        int32_t layer = result->tokens[i].nan_layer;

        if (layer == (int32_t)l->service.config.n_layers) {
            err_set(&l->err, STATUS_NUMERIC, "the output head gave a result that is not a number");
        } else if (layer >= 0) {
            err_set(&l->err, STATUS_NUMERIC, "layer %d gave a result that is not a number", layer);
        } else if (write_row(l, i, &l->err) == STATUS_OK) {
            l->written++;
        }
    }
    l->done += l->in_step;
    l->in_step = 0;
}

static void on_resume(void *arg, bool keep_kv, UNUSED const uint64_t *alone, UNUSED size_t n_alone)
{
    struct logits *l = arg;

    l->in_step = 0;
    l->done = keep_kv ? l->done : 0;
}

/* The next positions; those that are in the file already only fill the cache again. */
static enum status issue(struct logits *l, struct err *err)
{
    uint32_t limit = l->done < l->written ? l->written : l->n;
    uint32_t n = MIN(limit - l->done, l->service.max_chunk);
    uint32_t n_pages = (uint32_t)div_up(l->done + n, OPS_PAGE_TOKENS);
    const struct plan_segment segment = {.n = n, .pos = l->done, .n_pages = n_pages};
    const struct world_part part = {.request = 1, .again = l->done < l->written};
    struct step_plan plan = {
        .flags = PLAN_LOGITS,
        .tokens = l->ids + l->done,
        .n_tokens = n,
        .segments = &segment,
        .n_segments = 1,
        .pages = l->pages,
        .n_pages = n_pages,
        .wants = l->wants,
        .n_wants = l->done < l->written ? 0 : n,
    };
    enum status status = supervisor_issue(l->service.supervisor, &plan, &part, 1, err);

    if (status == STATUS_OK) {
        l->in_step = n;
    }
    return status == STATUS_PENDING ? STATUS_OK : status;
}

static enum status compute(struct logits *l, struct err *err)
{
    enum status status = STATUS_OK;

    while (status == STATUS_OK && l->written < l->n) {
        if (l->in_step == 0) {
            status = issue(l, err);
        }
        if (status == STATUS_OK) {
            status = service_turn(&l->service, UINT64_MAX, err);
        }
        if (l->err.status != STATUS_OK) {
            *err = l->err;
            return l->err.status;
        }
    }
    return status;
}

static enum status check_ids(const struct logits *l, struct err *err)
{
    uint32_t vocab = l->service.config.vocab;

    for (uint32_t i = 0; i < l->n; i++) {
        if (l->ids[i] < 0 || (uint32_t)l->ids[i] >= vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           l->ids[i], vocab);
        }
    }
    return l->n <= l->service.max_context
               ? STATUS_OK
               : err_set(err, STATUS_LIMIT, "%u tokens do not fit the context of %u", l->n,
                         l->service.max_context);
}

static enum status write_logits(struct logits *l, const struct options *options, struct err *err)
{
    const struct service_want want = {
        .max_context = options->ctx > 0 ? (uint32_t)options->ctx : l->n,
        .n_slots = 1,
        .logits = true,
        .on = {.arg = l, .commit = on_commit, .resume = on_resume},
    };
    enum status status = service_open(&l->service, options, &want, err);
    enum status closed;

    if (status == STATUS_OK) {
        status = check_ids(l, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    l->row = xcalloc(l->service.config.vocab, sizeof(*l->row));
    l->wants = xcalloc(l->service.max_chunk, sizeof(*l->wants));
    l->pages = xcalloc(div_up(l->service.max_context, OPS_PAGE_TOKENS), sizeof(*l->pages));
    for (uint32_t i = 0; i < l->service.max_chunk; i++) {
        l->wants[i].row = i;
    }
    for (uint32_t i = 0; i < div_up(l->service.max_context, OPS_PAGE_TOKENS); i++) {
        l->pages[i] = i;
    }
    status = npy_create(&l->npy, options->out, l->n, l->service.config.vocab, err);
    if (status == STATUS_OK) {
        status = compute(l, err);
    }
    closed = npy_close(&l->npy, status == STATUS_OK, status == STATUS_OK ? err : NULL);
    return status == STATUS_OK ? closed : status;
}

int cmd_logits(const struct options *options)
{
    struct logits logits = {0};
    struct err err = {0};
    uint32_t *ids = NULL;
    size_t n = 0;
    int exit_status;
    enum status status;

    if (!options->given.prompt_ids) {
        return cmd_usage(options, "--prompt-ids is needed");
    }
    if (!options->given.out) {
        return cmd_usage(options, "--out is needed");
    }
    status = options_parse_ids(options->prompt_ids, &ids, &n, &err);
    if (status == STATUS_OK) {
        logits.ids = (const int32_t *)ids;
        logits.n = (uint32_t)n;
        status = write_logits(&logits, options, &err);
    }
    exit_status = service_exit(&logits.service, status, &err);
    service_close(&logits.service);
    free(logits.row);
    free(logits.wants);
    free(logits.pages);
    free(ids);
    return exit_status;
}
