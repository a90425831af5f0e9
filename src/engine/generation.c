/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/generation.h"

#include "base/buf.h"
#include "json/json.h"
#include "weights/gguf.h"

bool generation_is_end(const struct generation_defaults *defaults, int32_t token)
{
    for (uint32_t i = 0; i < defaults->n_end; i++) {
        if (defaults->end[i] == token) {
            return true;
        }
    }
    return false;
}

void generation_add_end(struct generation_defaults *defaults, int64_t token)
{
    if (token >= 0 && token <= INT32_MAX && defaults->n_end < GENERATION_MAX_END &&
        !generation_is_end(defaults, (int32_t)token)) {
        defaults->end[defaults->n_end++] = (int32_t)token;
    }
}

/* eos_token_id: a number or a list of numbers. */
static enum status read_ends(const json_t *json, struct generation_defaults *defaults,
                             struct err *err)
{
    const json_t *ends = json_object_get(json, "eos_token_id");

    if (ends == NULL || json_is_null(ends)) {
        return STATUS_OK;
    }
    if (json_is_integer(ends)) {
        generation_add_end(defaults, json_integer_value(ends));
        return STATUS_OK;
    }
    for (size_t i = 0; i < json_array_size(ends); i++) {
        if (!json_is_integer(json_array_get(ends, i))) {
            return err_set(err, STATUS_INVALID, "eos_token_id: item %zu must be an integer", i);
        }
        generation_add_end(defaults, json_integer_value(json_array_get(ends, i)));
    }
    return json_is_array(ends)
               ? STATUS_OK
               : err_set(err, STATUS_INVALID, "eos_token_id: must be an integer or a list of them");
}

/* A number in [low, high] if the key is there; *ret_has says so. */
static enum status read_number(const json_t *json, const char *key, const double range[2],
                               float *ret_value, bool *ret_has, struct err *err)
{
    double value;
    enum status status = json_opt_real(json, key, -1.0, &value, err);

    if (status != STATUS_OK || json_object_get(json, key) == NULL ||
        json_is_null(json_object_get(json, key))) {
        return status;
    }
    if (!(value >= range[0]) || !(value <= range[1])) {
        return err_set(err, STATUS_INVALID, "%s: %g is not in [%g, %g]", key, value, range[0],
                       range[1]);
    }
    *ret_value = (float)value;
    *ret_has = true;
    return STATUS_OK;
}

static enum status read_sampling(const json_t *json, struct generation_defaults *d, struct err *err)
{
    static const double unit[2] = {0, 1};
    static const double temperature[2] = {0, SAMPLE_TEMPERATURE_MAX};
    static const double penalty[2] = {1e-3, 1e3};
    bool do_sample;
    int64_t top_k;
    enum status status;

    if ((status = read_number(json, "temperature", temperature, &d->params.temperature,
                              &d->has_temperature, err)) != STATUS_OK ||
        (status = read_number(json, "top_p", unit, &d->params.top_p, &d->has_top_p, err)) !=
            STATUS_OK ||
        (status = read_number(json, "min_p", unit, &d->params.min_p, &d->has_min_p, err)) !=
            STATUS_OK ||
        (status = read_number(json, "repetition_penalty", penalty, &d->params.repetition_penalty,
                              &d->has_repetition_penalty, err)) != STATUS_OK ||
        (status = json_opt_int(json, "top_k", 0, INT32_MAX, -1, &top_k, err)) != STATUS_OK ||
        (status = json_opt_bool(json, "do_sample", true, &do_sample, err)) != STATUS_OK) {
        return status;
    }
    if (top_k >= 0) {
        d->params.top_k = (uint32_t)top_k;
        d->has_top_k = true;
    }
    if (!do_sample) {
        d->params.temperature = 0.0f;
        d->has_temperature = true;
    }
    return STATUS_OK;
}

/* One file of the model's folder; absent is fine. */
static enum status read_file(const struct weights *weights, const char *name, bool sampling,
                             struct generation_defaults *defaults, struct err *err)
{
    struct buf path = {0};
    json_t *json = NULL;
    enum status status;

    buf_printf(&path, "%s/%s", weights_folder(weights), name);
    status = json_parse_file(buf_str(&path), 16 << 20, &json, err);
    buf_release(&path);
    if (status != STATUS_OK) {
        return status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    status = read_ends(json, defaults, err);
    if (status == STATUS_OK && sampling) {
        status = read_sampling(json, defaults, err);
    }
    if (status != STATUS_OK) {
        err_prefix(err, "%s", name);
    }
    json_decref(json);
    return status;
}

enum status generation_defaults_load(const struct weights *weights,
                                     struct generation_defaults *ret_defaults, struct err *err)
{
    static const char *const gguf_ends[] = {"tokenizer.ggml.eos_token_id",
                                            "tokenizer.ggml.eot_token_id",
                                            "tokenizer.ggml.eom_token_id"};
    struct generation_defaults defaults = {0};
    enum status status = STATUS_OK;

    sample_params_init(&defaults.params);
    if (weights_format(weights) == WEIGHTS_FORMAT_GGUF) {
        for (size_t i = 0; i < ARRAY_LEN(gguf_ends); i++) {
            int64_t token;

            if (gguf_get_i64(weights, gguf_ends[i], &token, NULL) == STATUS_OK) {
                generation_add_end(&defaults, token);
            }
        }
    } else {
        status = read_file(weights, "generation_config.json", true, &defaults, err);
        if (status == STATUS_OK) {
            status = read_file(weights, "config.json", false, &defaults, err);
        }
    }
    if (status == STATUS_OK) {
        *ret_defaults = defaults;
    }
    return status;
}
