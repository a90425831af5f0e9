/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/params.h"

#include <math.h>

void sample_params_init(struct sample_params *params)
{
    *params = (struct sample_params){
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
    };
}

enum status sample_params_check(const struct sample_params *params, uint32_t vocab, struct err *err)
{
    if (!(params->temperature >= 0.0f && params->temperature <= SAMPLE_TEMPERATURE_MAX)) {
        return err_set(err, STATUS_INVALID, "temperature %g is not between 0 and %g",
                       (double)params->temperature, (double)SAMPLE_TEMPERATURE_MAX);
    }
    if (!(params->top_p > 0.0f && params->top_p <= 1.0f)) {
        return err_set(err, STATUS_INVALID, "top_p %g is not above 0 and at most 1",
                       (double)params->top_p);
    }
    if (!(params->min_p >= 0.0f && params->min_p <= 1.0f)) {
        return err_set(err, STATUS_INVALID, "min_p %g is not between 0 and 1",
                       (double)params->min_p);
    }
    if (!(params->repetition_penalty > 0.0f && isfinite(params->repetition_penalty))) {
        return err_set(err, STATUS_INVALID, "repetition_penalty %g is not above 0",
                       (double)params->repetition_penalty);
    }
    if (!isfinite(params->presence_penalty)) {
        return err_set(err, STATUS_INVALID, "presence_penalty is not finite");
    }
    if (!isfinite(params->frequency_penalty)) {
        return err_set(err, STATUS_INVALID, "frequency_penalty is not finite");
    }
    if (params->n_phrase_bias > params->n_bias ||
        params->n_min_bias > params->n_bias - params->n_phrase_bias) {
        return err_set(err, STATUS_INVALID,
                       "%u logit biases of a least length and %u of phrases, but %u in all",
                       params->n_min_bias, params->n_phrase_bias, params->n_bias);
    }
    if (params->n_phrase_bias > 0 && params->bias[params->n_bias - 1].add == 0.0f) {
        return err_set(err, STATUS_INVALID, "the last phrase of the logit biases has no end");
    }
    if (params->allow && params->n_min_bias == params->n_bias - params->n_phrase_bias) {
        return err_set(err, STATUS_INVALID, "the list of allowed tokens is empty");
    }
    for (uint32_t i = 0; i < params->n_bias; i++) {
        if (params->bias[i].token >= vocab) {
            return err_set(err, STATUS_INVALID,
                           "logit bias for token %u, but the vocabulary has %u tokens",
                           params->bias[i].token, vocab);
        }
        if (!(params->bias[i].add < INFINITY)) {
            return err_set(err, STATUS_INVALID, "logit bias of token %u is not below infinity",
                           params->bias[i].token);
        }
    }
    return STATUS_OK;
}
