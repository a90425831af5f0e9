/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/result.h"

#include <math.h>

#include "rpc/record.h"

_Static_assert(sizeof(struct result_token) == 24, "no padding");
_Static_assert(sizeof(struct result_top) == 8, "no padding");
_Static_assert(offsetof(struct step_result, tokens) == 32, "the fixed part is what comes before");

static const struct record_array arrays[] = {
    RECORD_ARRAY(struct step_result, tokens),
    RECORD_ARRAY(struct step_result, tops),
    RECORD_ARRAY(struct step_result, text),
};

static const struct record_shape shape = {
    .name = "result",
    .magic = UINT32_C(0x5345524c),
    .version = 1,
    .fixed_bytes = offsetof(struct step_result, tokens),
    .arrays = arrays,
    .n_arrays = ARRAY_LEN(arrays),
};

size_t result_bytes(const struct step_result *result)
{
    return record_bytes(&shape, result);
}

enum status result_encode(const struct step_result *result, void *out, size_t size, struct err *err)
{
    uint64_t hash;

    return record_encode(&shape, result, out, size, &hash, err);
}

static enum status wrong(struct err *err, const char *array, uint32_t i, const char *field,
                         int64_t value)
{
    return err_set(err, STATUS_CORRUPT, "result: %s[%u]: %s is %lld", array, i, field,
                   (long long)value);
}

static bool is_token(int64_t token, const struct result_limits *limits)
{
    return token >= 0 && token < limits->vocab;
}

static enum status check_token(const struct result_token *token, uint32_t i,
                               const struct result_limits *limits, struct err *err)
{
    bool is_nan = (token->flags & RESULT_NAN) != 0;

    if (token->slot >= limits->n_slots) {
        return wrong(err, "tokens", i, "slot", token->slot);
    }
    if ((token->flags & ~(uint32_t)RESULT_FLAGS) != 0) {
        return wrong(err, "tokens", i, "flags", token->flags);
    }
    if (is_nan ? token->token != -1 : !is_token(token->token, limits)) {
        return wrong(err, "tokens", i, "token", token->token);
    }
    if (is_nan ? token->nan_layer < 0 || (uint32_t)token->nan_layer > limits->n_layers
               : token->nan_layer != -1) {
        return wrong(err, "tokens", i, "nan_layer", token->nan_layer);
    }
    if (isnan(token->logprob)) {
        return err_set(err, STATUS_CORRUPT, "result: tokens[%u]: logprob is not a number", i);
    }
    return STATUS_OK;
}

static enum status check(const struct step_result *result, const struct result_limits *limits,
                         struct err *err)
{
    uint64_t tops = 0;

    if (result->rank != limits->rank) {
        return err_set(err, STATUS_CORRUPT, "result: of rank %u, not of %u", result->rank,
                       limits->rank);
    }
    if (result->status > 0 || result->n_text >= ERR_TEXT_BYTES ||
        result->n_tokens > limits->max_tokens) {
        return err_set(err, STATUS_CORRUPT, "result: status %d, %u bytes of text, %u tokens of %u",
                       result->status, result->n_text, result->n_tokens, limits->max_tokens);
    }
    for (uint32_t i = 0; i < result->n_tokens; i++) {
        enum status status = check_token(&result->tokens[i], i, limits, err);

        if (status != STATUS_OK) {
            return status;
        }
        if (result->tokens[i].n_top > MIN(limits->max_top, result->n_tops - tops)) {
            return wrong(err, "tokens", i, "n_top", result->tokens[i].n_top);
        }
        tops += result->tokens[i].n_top;
    }
    if (tops != result->n_tops) {
        return err_set(err, STATUS_CORRUPT, "result: tokens have %llu tops of %u",
                       (unsigned long long)tops, result->n_tops);
    }
    for (uint32_t i = 0; i < result->n_tops; i++) {
        if (!is_token(result->tops[i].token, limits) || isnan(result->tops[i].logprob)) {
            return wrong(err, "tops", i, "token", result->tops[i].token);
        }
    }
    return STATUS_OK;
}

enum status result_decode(const void *bytes, size_t n, const struct result_limits *limits,
                          struct step_result *ret_result, struct err *err)
{
    struct step_result result;
    uint64_t hash;
    enum status status = record_decode(&shape, bytes, n, &result, &hash, err);

    if (status == STATUS_OK) {
        status = check(&result, limits, err);
    }
    if (status == STATUS_OK) {
        *ret_result = result;
    }
    return status;
}
