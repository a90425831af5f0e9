/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep logits: the logits of every position of a prompt, for comparison with other engines. */
#include "cmd/cmd.h"
#include "cmd/npy.h"
#include "cmd/open_engine.h"
#include "engine/sequence.h"

static enum status write_row(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    (void)pos;
    return npy_write_row(arg, logits, err);
}

static enum status write_logits(const struct options *options, const int32_t *ids, uint32_t n,
                                struct err *err)
{
    const struct open_engine want = {
        .max_context = options->ctx > 0 ? (uint32_t)options->ctx : n,
        .max_chunk = MIN((uint32_t)options->chunk, n),
    };
    struct engine *engine = NULL;
    struct sequence sequence = {0};
    struct npy npy = {0};
    double seconds;
    enum status status = open_engine(options, &want, &engine, &seconds, err);
    enum status closed;

    if (status != STATUS_OK) {
        return status;
    }
    sequence_init(&sequence, engine);
    status = npy_create(&npy, options->out, n, engine_config(engine)->vocab, err);
    if (status == STATUS_OK) {
        status = sequence_extend(&sequence,
                                 &(struct sequence_extend){
                                     .tokens = ids,
                                     .n = n,
                                     .chunk = (uint32_t)options->chunk,
                                     .every = true,
                                     .logits = write_row,
                                     .arg = &npy,
                                 },
                                 err);
    }
    closed = npy_close(&npy, status == STATUS_OK, status == STATUS_OK ? err : NULL);
    sequence_release(&sequence);
    engine_destroy(&engine);
    return status != STATUS_OK ? status : closed;
}

int cmd_logits(const struct options *options)
{
    struct err err = {0};
    uint32_t *ids = NULL;
    size_t n;
    enum status status;

    if (!options->given.prompt_ids) {
        return cmd_usage(options, "--prompt-ids is needed");
    }
    if (!options->given.out) {
        return cmd_usage(options, "--out is needed");
    }
    status = options_parse_ids(options->prompt_ids, &ids, &n, &err);
    if (status == STATUS_OK) {
        status = write_logits(options, (const int32_t *)ids, (uint32_t)n, &err);
    }
    free(ids);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
