/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/open_engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "cmd/progress.h"
#include "cpu/cpu.h"

/* Refuses a wrong --cpu-mask before anything is opened. */
static enum status check_level(const struct options *options, struct err *err)
{
    enum cpu_level level;

    return options->given.cpu_mask ? cpu_level_parse(options->cpu_mask, &level, err) : STATUS_OK;
}

static struct engine_options engine_options_of(const struct options *options,
                                               const struct open_engine *want)
{
    return (struct engine_options){
        .path = options->path,
        .level = options->cpu_mask,
        .n_threads = (uint32_t)options->threads,
        .act_given = options->given.act,
        .act = options->given.act && strcmp(options->act, "bf16") == 0 ? ACT_BF16 : ACT_F32,
        .max_context = want->max_context,
        .max_chunk = want->max_chunk,
        .ops = &cpu_ops, /* the place where back ends are wired */
    };
}

enum status open_engine(const struct options *options, const struct open_engine *want,
                        struct engine **ret_engine, double *ret_seconds, struct err *err)
{
    struct engine_options engine_options = engine_options_of(options, want);
    uint64_t start = clock_ns();
    struct progress progress;
    enum status status = check_level(options, err);

    if (status != STATUS_OK) {
        return status;
    }
    progress_start(&progress, "loading", options->quiet);
    engine_options.progress = progress_update;
    engine_options.progress_arg = &progress;
    status = engine_create(&engine_options, ret_engine, err);
    progress_end(&progress);
    if (status == STATUS_OK) {
        *ret_seconds = (double)(clock_ns() - start) * 1e-9;
        log_debug("%s, %s kernels, %u threads, %.1f MiB of weights, %.1f MiB of KV pages",
                  engine_arith_class(*ret_engine), engine_level(*ret_engine),
                  engine_n_threads(*ret_engine),
                  (double)model_weight_bytes(engine_model(*ret_engine)) / (1 << 20),
                  (double)engine_kv_bytes(*ret_engine) / (1 << 20));
    }
    return status;
}

enum status open_engine_random(const struct options *options, const struct open_engine *want,
                               const struct model_config *config, struct engine **ret_engine,
                               struct err *err)
{
    struct engine_options engine_options = engine_options_of(options, want);
    struct progress progress;
    enum status status = check_level(options, err);

    if (status != STATUS_OK) {
        return status;
    }
    progress_start(&progress, "making weights", options->quiet);
    engine_options.progress = progress_update;
    engine_options.progress_arg = &progress;
    status = engine_create_random(&engine_options, config, ret_engine, err);
    progress_end(&progress);
    return status;
}
