/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/sampler.h"

enum status sampler_init(struct sampler *sampler, uint32_t vocab)
{
    enum status status;

    *sampler = (struct sampler){0};
    status = sample_part_init(&sampler->part, 0, vocab);
    if (status == STATUS_OK) {
        status = sample_merge_init(&sampler->merge, vocab);
    }
    if (status != STATUS_OK) {
        sampler_release(sampler);
    }
    return status;
}

void sampler_release(struct sampler *sampler)
{
    sample_part_release(&sampler->part);
    sample_merge_release(&sampler->merge);
}

enum status sampler_token(struct sampler *sampler, const struct sample_request *request,
                          float *logits, uint32_t *ret_token, struct err *err)
{
    struct sample_answer answer;
    struct sample_ask ask;
    enum status status;

    if (sample_part_begin(&sampler->part, request, logits) != STATUS_OK) {
        return err_set(err, STATUS_NUMERIC, "a logit is not a number");
    }
    sample_merge_begin(&sampler->merge, request, &ask);
    do {
        sample_part_answer(&sampler->part, &ask, &answer);
        status = sample_merge_next(&sampler->merge, &answer, 1, &ask, ret_token);
    } while (status == STATUS_PENDING);
    if (status != STATUS_OK) {
        return err_set(err, status, "every logit is minus infinity");
    }
    return STATUS_OK;
}

enum status sampler_logprobs(struct sampler *sampler, float *logits, uint32_t token, uint32_t n_top,
                             struct sample_logprob *ret_token, struct sample_logprob *ret_top,
                             uint32_t *ret_n_top)
{
    const struct sample_ask ask = {.n_top = n_top, .blocks = true};
    struct sample_params neutral;
    struct sample_request request = {.params = &neutral};
    struct sample_answer answer;
    struct sample_scale scale;
    enum status status;

    ENSURE_OP(token, <, sampler->part.n_rows);
    sample_params_init(&neutral);
    if (sample_part_begin(&sampler->part, &request, logits) != STATUS_OK) {
        return STATUS_NUMERIC;
    }
    sample_part_answer(&sampler->part, &ask, &answer);
    status = sample_merge_logprobs(&sampler->merge, &answer, 1, n_top, &scale, ret_top, ret_n_top);
    if (status == STATUS_OK) {
        *ret_token = (struct sample_logprob){token, sample_scale_logprob(&scale, logits[token])};
    }
    return status;
}
