/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sequence.h"

#include "base/mem.h"

void sequence_init(struct sequence *sequence, struct engine *engine)
{
    *sequence = (struct sequence){.engine = engine};
    sequence->pages =
        xcalloc(div_up(engine_max_context(engine), OPS_PAGE_TOKENS), sizeof(*sequence->pages));
}

void sequence_truncate(struct sequence *sequence, uint32_t pos)
{
    ENSURE_OP(pos, <=, sequence->pos);
    while (sequence->n_pages > div_up(pos, OPS_PAGE_TOKENS)) {
        engine_page_release(sequence->engine, sequence->pages[--sequence->n_pages]);
    }
    sequence->pos = pos;
}

void sequence_release(struct sequence *sequence)
{
    if (sequence->pages != NULL) {
        sequence_truncate(sequence, 0);
        free(sequence->pages);
    }
    *sequence = (struct sequence){0};
}

/* One step over rows [at, at + n) of args->tokens. */
static enum status step(struct sequence *sequence, const struct sequence_extend *args, uint32_t at,
                        uint32_t n, struct model_want *wants, struct err *err)
{
    const struct ops_segment segment = {
        .row = 0, .n = n, .pos = sequence->pos, .pages = sequence->pages};
    uint32_t n_wants = args->every ? n : at + n == args->n ? 1 : 0;
    enum status status;

    for (uint32_t i = 0; i < n_wants; i++) {
        wants[i] = (struct model_want){.row = n - n_wants + i};
    }
    status = engine_step(sequence->engine,
                         &(struct model_step){
                             .tokens = args->tokens + at,
                             .n_tokens = n,
                             .segments = &segment,
                             .n_segments = 1,
                             .wants = wants,
                             .n_wants = n_wants,
                         },
                         err);
    for (uint32_t i = 0; i < n_wants && status == STATUS_OK && args->logits != NULL; i++) {
        status = args->logits(args->arg, sequence->pos + wants[i].row, wants[i].logits, err);
    }
    if (status == STATUS_OK) {
        sequence->pos += n;
    }
    return status;
}

enum status sequence_extend(struct sequence *sequence, const struct sequence_extend *args,
                            struct err *err)
{
    uint32_t chunk = MIN(args->chunk > 0 ? args->chunk : engine_max_chunk(sequence->engine),
                         engine_max_chunk(sequence->engine));
    uint32_t vocab = engine_config(sequence->engine)->vocab;
    struct model_want *wants;
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < args->n; i++) {
        if (args->tokens[i] < 0 || (uint32_t)args->tokens[i] >= vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           args->tokens[i], vocab);
        }
    }
    if (args->n > engine_max_context(sequence->engine) - sequence->pos) {
        return err_set(err, STATUS_LIMIT, "%u tokens do not fit the context of %u (%u are in use)",
                       args->n, engine_max_context(sequence->engine), sequence->pos);
    }
    while (sequence->n_pages * (uint64_t)OPS_PAGE_TOKENS < sequence->pos + (uint64_t)args->n) {
        status = engine_page_take(sequence->engine, &sequence->pages[sequence->n_pages], err);
        if (status != STATUS_OK) {
            return status;
        }
        sequence->n_pages++;
    }
    wants = xcalloc(args->every ? chunk : 1, sizeof(*wants));
    for (uint32_t at = 0; at < args->n && status == STATUS_OK;) {
        uint32_t n = MIN(chunk, args->n - at);

        if (args->stop != NULL && *args->stop) {
            status = err_set(err, STATUS_CANCELLED, "stopped");
            break;
        }
        status = step(sequence, args, at, n, wants, err);
        at += n;
    }
    free(wants);
    return status;
}
