/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a body that say how to sample, for all endpoints that generate. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/fields.h"
#include "api/generate.h"
#include "base/clock.h"
#include "base/mem.h"

enum { MAX_STOP_BYTES = 1024, MAX_TOPS = 20 };

static bool parse_numbers(struct plan_params *p, const struct sample_params *defaults,
                          const json_t *body, struct api_error *error)
{
    double temperature = defaults->temperature;
    double top_p = defaults->top_p;
    double min_p = defaults->min_p;
    double repetition = defaults->repetition_penalty;
    double presence = defaults->presence_penalty;
    double frequency = defaults->frequency_penalty;
    int64_t top_k = defaults->top_k;

    if (!field_real(body, "temperature", 0, 2, &temperature, NULL, error) ||
        !field_real(body, "top_p", 0, 1, &top_p, NULL, error) ||
        !field_real(body, "min_p", 0, 1, &min_p, NULL, error) ||
        !field_real(body, "repetition_penalty", 0.01, 100, &repetition, NULL, error) ||
        !field_real(body, "presence_penalty", -2, 2, &presence, NULL, error) ||
        !field_real(body, "frequency_penalty", -2, 2, &frequency, NULL, error) ||
        !field_int(body, "top_k", -1, INT32_MAX, &top_k, NULL, error)) {
        return false;
    }
    p->temperature = (float)temperature;
    p->top_p = top_p > 0 ? (float)top_p : FLT_MIN; /* 0: the likeliest alone */
    p->min_p = (float)min_p;
    p->repetition_penalty = (float)repetition;
    p->presence_penalty = (float)presence;
    p->frequency_penalty = (float)frequency;
    p->top_k = top_k < 0 ? 0 : (uint32_t)top_k;
    return true;
}

static bool parse_seed(struct plan_params *p, const json_t *body, struct api_error *error)
{
    int64_t seed = 0;
    bool given = false;

    if (!field_int(body, "seed", INT64_MIN, INT64_MAX, &seed, &given, error)) {
        return false;
    }
    p->seed = (uint64_t)seed;
    if (!given && getrandom(&p->seed, sizeof(p->seed), 0) != sizeof(p->seed)) {
        p->seed = clock_ns();
    }
    return true;
}

bool sampling_parse_stops(struct generation *g, const json_t *body, const char *field,
                          struct api_error *error)
{
    const json_t *stop = field_get(body, field);
    size_t n = json_is_array(stop) ? json_array_size(stop) : stop != NULL;

    if (n > REQUEST_MAX_STOPS) {
        return api_error_field(error, field, "%zu strings, at most %d", n, REQUEST_MAX_STOPS);
    }
    g->stops = xcalloc(MAX(n, (size_t)1), sizeof(*g->stops));
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;

        if (!json_is_string(text) || json_string_length(text) == 0 ||
            json_string_length(text) > MAX_STOP_BYTES ||
            strlen(json_string_value(text)) != json_string_length(text)) {
            return api_error_field(error, field, "must be strings of 1 to %d bytes",
                                   MAX_STOP_BYTES);
        }
        g->stops[i] = json_string_value(text);
    }
    g->spec.stops = g->stops;
    g->spec.n_stops = (uint32_t)n;
    return true;
}

bool sampling_parse_stream(struct generation *g, const json_t *body, struct api_error *error)
{
    const json_t *options = NULL;

    if (!field_bool(body, "stream", &g->stream, error) ||
        !field_object(body, "stream_options", &options, error)) {
        return false;
    }
    if (options != NULL && !g->stream) {
        return api_error_field(error, "stream_options", "is only for streams (\"stream\": true)");
    }
    return field_bool(options, "include_usage", &g->include_usage, error) &&
           field_bool(options, "continuous_usage_stats", &g->continuous_usage, error);
}

bool sampling_parse_prompt_logprobs(struct generation *g, const json_t *body,
                                    struct api_error *error)
{
    int64_t n = 0;
    bool given = false;

    if (!field_int(body, "prompt_logprobs", 0, MAX_TOPS, &n, &given, error) || !given) {
        return error->status == 0;
    }
    if (g->stream) {
        return api_error_field(error, "prompt_logprobs", "is not for streams");
    }
    if (g->spec.prompt_logprobs && g->spec.n_prompt_top != n) {
        return api_error_field(error, "prompt_logprobs", "must equal logprobs with echo");
    }
    g->list_prompt = true;
    g->spec.prompt_logprobs = true;
    g->spec.n_prompt_top = (uint32_t)n;
    return true;
}

bool sampling_refuse(const json_t *body, const char *const *names, size_t n,
                     struct api_error *error)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = field_get(body, names[i]);

        if (value != NULL && !json_is_false(value) &&
            !(json_is_array(value) && json_array_size(value) == 0) &&
            !(json_is_number(value) && json_number_value(value) == 0)) {
            return api_error_field(error, names[i], "is not supported by this server");
        }
    }
    return true;
}

/* What would change the answer and is not built. */
static const char *const refused[] = {
    "structured_outputs", "guided_json",       "guided_regex",          "guided_choice",
    "guided_grammar",     "grammar",           "json_schema",           "logits_processors",
    "use_beam_search",    "logprob_token_ids", "thinking_token_budget", "mirostat",
    "dry_multiplier",     "xtc_probability",   "lora_request",
};

/* The same, for numbers that mean nothing at one value. */
static bool refuse_numbers(const json_t *body, struct api_error *error)
{
    static const struct {
        const char *name;
        double neutral;
    } numbers[] = {{"typical_p", 1}, {"length_penalty", 1}, {"top_n_sigma", -1}};

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const json_t *value = field_get(body, numbers[i].name);

        if (value != NULL &&
            !(json_is_number(value) && json_number_value(value) == numbers[i].neutral)) {
            return api_error_field(error, numbers[i].name, "other than %g is not supported",
                                   numbers[i].neutral);
        }
    }
    return true;
}

/* truncate_prompt_tokens: so many of the prompt's last tokens are kept; -1: as many as fit. */
static bool parse_truncate(struct generation *g, const json_t *body, struct api_error *error)
{
    int64_t keep = 0;
    bool given = false;

    if (!field_int(body, "truncate_prompt_tokens", -1, INT32_MAX, &keep, &given, error)) {
        return false;
    }
    if (given && keep == 0) {
        return api_error_field(error, "truncate_prompt_tokens", "must not be 0");
    }
    g->keep_tokens = keep < 0 ? g->text->max_context : (uint32_t)keep;
    return true;
}

bool sampling_parse(struct generation *g, const json_t *body, struct api_error *error)
{
    int64_t n = 1;
    int64_t priority = 0;
    const char *salt = NULL;
    bool skip_special = true;

    if (!parse_numbers(&g->spec.params, &g->text->defaults, body, error) ||
        !parse_seed(&g->spec.params, body, error) || !sampling_parse_tokens(g, body, error) ||
        !sampling_parse_stream(g, body, error) || !parse_truncate(g, body, error) ||
        !field_int(body, "n", 1, REQUEST_MAX_CHOICES, &n, NULL, error) ||
        !field_int(body, "priority", INT32_MIN, INT32_MAX, &priority, NULL, error) ||
        !field_bool(body, "include_stop_str_in_output", &g->spec.include_stop, error) ||
        !field_bool(body, "skip_special_tokens", &skip_special, error) ||
        !field_bool(body, "return_token_ids", &g->return_ids, error) ||
        !field_bool(body, "return_tokens_as_token_ids", &g->tokens_as_ids, error) ||
        !field_text(body, "cache_salt", &salt, error) ||
        !sampling_refuse(body, refused, ARRAY_LEN(refused), error) ||
        !refuse_numbers(body, error)) {
        return false;
    }
    g->spec.n = (uint32_t)n;
    g->spec.priority = (int32_t)priority;
    g->spec.keep_special = !skip_special;
    for (; salt != NULL && *salt != '\0'; salt++) { /* FNV-1a */
        g->spec.salt = (g->spec.salt ^ (unsigned char)*salt) * UINT64_C(0x100000001b3) + 1;
    }
    return true;
}
