/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of a model, and what each of N ranks would hold of it: the model's own layout tells. */
#include "cmd/inspect.h"

#include "base/mem.h"
#include "cpu/cpu.h"

/* Counts the tensors that the configuration uses: all of one layer, or those that belong to none.
 */
static enum status count_tensors(struct inspect_report *report, bool per_layer, uint32_t layer,
                                 struct err *err)
{
    enum status status = STATUS_OK;

    for (unsigned i = 0; i < MODEL_TENSOR_COUNT && status == STATUS_OK; i++) {
        enum model_tensor tensor = (enum model_tensor)i;
        struct model_tensor_shape shape = model_tensor_shape(&report->config, tensor);
        const struct weights_tensor *found;

        if (!shape.wanted || shape.per_layer != per_layer) {
            continue;
        }
        status = model_tensor_find(&report->config, report->weights, tensor, layer, &found, err);
        if (status == STATUS_OK) {
            report->n_tensors_used++;
            report->n_parameters += weights_n_elements(found);
            report->stored_bytes += found->bytes;
        }
    }
    return status;
}

static enum kv_type kv_type_of(const struct inspect_report *report, enum act act)
{
    return report->kv_given ? report->kv_type : act_kv_type(act);
}

static void set_arith_class(struct inspect_report *report, const struct ops_device *device,
                            enum act act)
{
    snprintf(report->arith_class, sizeof(report->arith_class), "%s act %s kv %s",
             cpu_ops.arith_class(device), act_name(act), kv_type_name(kv_type_of(report, act)));
}

static enum status add_rank(struct inspect_report *report, uint32_t r, bool bf16_12,
                            enum act *ret_act, struct err *err)
{
    const struct model_config *c = &report->config;
    const struct model_place place = {r, report->n_ranks, bf16_12};
    struct inspect_rank *rank = &report->ranks[r];
    enum status status = model_share_of(report->weights, c, &place, &rank->share, err);
    struct ops_kv kv;

    if (status != STATUS_OK) {
        return status;
    }
    kv = (struct ops_kv){.n_layers = c->n_layers,
                         .n_kv_heads = rank->share.slice.kv_end - rank->share.slice.kv_begin,
                         .head_dim = c->head_dim,
                         .type = kv_type_of(report, rank->share.act)};
    rank->kv_token_bytes = cpu_ops.kv_page_bytes(&kv) / OPS_PAGE_TOKENS;
    report->host_bytes = rank->share.embed_bytes;
    *ret_act = r == 0 ? rank->share.act : *ret_act; /* rank 0 owns part of every matrix */
    return STATUS_OK;
}

enum status inspect_shares(struct inspect_report *report, struct err *err)
{
    enum act act = ACT_F32;
    struct ops_device *device = NULL; /* only to ask it: one thread */
    enum status status = count_tensors(report, false, 0, err);
    bool bf16_12 = false;

    for (uint32_t layer = 0; layer < report->config.n_layers && status == STATUS_OK; layer++) {
        status = count_tensors(report, true, layer, err);
    }
    if (status == STATUS_OK) {
        status = cpu_ops.create(&(struct ops_config){.n_threads = 1}, &device, err);
    }
    report->ranks = xcalloc(report->n_ranks, sizeof(*report->ranks));
    if (status == STATUS_OK) {
        bf16_12 = model_packs_bf16_12(report->bf16, &cpu_ops, device);
    }
    for (uint32_t r = 0; r < report->n_ranks && status == STATUS_OK; r++) {
        status = add_rank(report, r, bf16_12, &act, err);
    }
    if (status == STATUS_OK) {
        set_arith_class(report, device, act);
    }
    cpu_ops.destroy(&device);
    return status;
}
