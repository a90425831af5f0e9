/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of a body that name tokens: logit_bias, stop_token_ids, ignore_eos, min_tokens,
 * allowed_token_ids, bad_words. All but the ends of an answer become biases of the plan, which has
 * first those that hold up to min_tokens (the end tokens, impossible), then the others, last the
 * words of several tokens.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/generate.h"
#include "base/mem.h"

enum { MAX_BAD_WORDS = 1024, MAX_WORD_BYTES = 1024, MAX_STOP_IDS = 1024 };

/* Room for the biases of what was parsed before them: a cap that no list of distinct tokens
 * exceeds, for ranks have that much. */
static bool add_bias(struct generation *g, int64_t token, float add, const char *field,
                     struct api_error *error)
{
    struct plan_params *p = &g->spec.params;

    if (p->n_bias >= g->text->vocab) {
        return api_error_field(error, field, "more biases than the vocabulary has tokens");
    }
    if ((p->n_bias & (p->n_bias - 1)) == 0) { /* grows by doubling */
        g->bias = xrealloc(g->bias, MAX(1u, 2 * p->n_bias), sizeof(*g->bias));
        g->spec.bias = g->bias;
    }
    g->bias[p->n_bias++] = (struct plan_bias){(uint32_t)token, add};
    return true;
}

/* A list of token ids: NULL if there is none. */
static bool id_list(const struct generation *g, const json_t *body, const char *field,
                    const json_t **ret_list, struct api_error *error)
{
    if (!field_array(body, field, ret_list, error)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(*ret_list); i++) {
        const json_t *id = json_array_get(*ret_list, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= g->text->vocab) {
            return api_error_field(error, field, "entry %zu is no token of the vocabulary of %u", i,
                                   g->text->vocab);
        }
    }
    return true;
}

static int64_t id_at(const json_t *list, size_t i)
{
    return json_integer_value(json_array_get(list, i));
}

/* What ends an answer: the model's end tokens unless they are ignored, and the client's. */
static bool parse_ends(struct generation *g, const json_t *body, struct api_error *error)
{
    const json_t *ids = NULL;
    bool ignore = false;
    uint32_t n = 0;

    if (!field_bool(body, "ignore_eos", &ignore, error) ||
        !id_list(g, body, "stop_token_ids", &ids, error)) {
        return false;
    }
    if (json_array_size(ids) > MAX_STOP_IDS) { /* each choice has them, each token is looked up */
        return api_error_field(error, "stop_token_ids", "%zu tokens, at most %d",
                               json_array_size(ids), MAX_STOP_IDS);
    }
    g->ends = xcalloc(SERVED_MAX_ENDS + json_array_size(ids) + 1, sizeof(*g->ends));
    for (uint32_t i = 0; !ignore && i < g->text->n_ends; i++) {
        g->ends[n++] = g->text->ends[i];
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        g->ends[n++] = (int32_t)id_at(ids, i);
    }
    g->spec.ends = g->ends;
    g->spec.n_ends = n;
    return true;
}

/* The ends are impossible until so many tokens are there. */
static bool parse_min_tokens(struct generation *g, const json_t *body, struct api_error *error)
{
    int64_t min_tokens = 0;

    if (!field_int(body, "min_tokens", 0, INT32_MAX, &min_tokens, NULL, error)) {
        return false;
    }
    g->spec.min_tokens = (uint32_t)min_tokens;
    g->spec.params.n_min = (uint32_t)min_tokens;
    for (uint32_t i = 0; min_tokens > 0 && i < g->spec.n_ends; i++) {
        if (!add_bias(g, g->ends[i], -INFINITY, "min_tokens", error)) {
            return false;
        }
    }
    g->spec.params.n_min_bias = g->spec.params.n_bias;
    return true;
}

/* marks[token]: 0 unless the token is allowed (1) and cannot be sampled, ever (2) or behind some
 * others (4). */
enum mark { MARK_ALLOWED = 1, MARK_NEVER = 2, MARK_SOMETIMES = 4 };

static bool parse_allowed(struct generation *g, const json_t *body, unsigned char *marks,
                          struct api_error *error)
{
    const json_t *ids = NULL;

    if (!id_list(g, body, "allowed_token_ids", &ids, error)) {
        return false;
    }
    if (ids == NULL) {
        memset(marks, MARK_ALLOWED, g->text->vocab);
        return true;
    }
    if (json_array_size(ids) == 0) {
        return api_error_field(error, "allowed_token_ids", "must hold at least one token");
    }
    g->spec.params.flags |= PLAN_PARAMS_ALLOW;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (marks[id_at(ids, i)] == 0 &&
            !add_bias(g, id_at(ids, i), 0, "allowed_token_ids", error)) {
            return false;
        }
        marks[id_at(ids, i)] = MARK_ALLOWED;
    }
    return true;
}

/* {"token id": bias}. A bias for a token that is not allowed would allow it. */
static bool parse_bias(struct generation *g, const json_t *body, const unsigned char *marks,
                       struct api_error *error)
{
    const json_t *map = NULL;
    const char *key;
    json_t *value;

    if (!field_object(body, "logit_bias", &map, error)) {
        return false;
    }
    json_object_foreach((json_t *)map, key, value)
    {
        char *end;
        unsigned long id = strtoul(key, &end, 10);

        if (key[0] < '0' || key[0] > '9' || (key[0] == '0' && key[1] != '\0') || *end != '\0' ||
            id >= g->text->vocab) {
            return api_error_field(error, "logit_bias",
                                   "\"%.40s\" is no token of the vocabulary of %u", key,
                                   g->text->vocab);
        }
        if (!json_is_number(value) || !(fabs(json_number_value(value)) <= 100)) {
            return api_error_field(error, "logit_bias",
                                   "the bias of %.40s is not between -100 and 100", key);
        }
        if ((marks[id] & MARK_ALLOWED) != 0 &&
            !add_bias(g, (int64_t)id, (float)json_number_value(value), "logit_bias", error)) {
            return false;
        }
    }
    return true;
}

/* Words of several tokens: where they begin in the biases is known once all others are there. */
struct phrases {
    struct plan_bias *bias; /* [n] */
    uint32_t n;
};

/* A phrase: the last token is impossible behind the others. */
static bool add_phrase(struct phrases *phrases, const struct token_ids *ids,
                       struct api_error *error)
{
    if (ids->n > UINT16_MAX - phrases->n) { /* what a plan has room for */
        return api_error_field(error, "bad_words", "more than %d tokens in all", UINT16_MAX);
    }
    phrases->bias = xrealloc(phrases->bias, phrases->n + ids->n, sizeof(*phrases->bias));
    for (size_t i = 0; i < ids->n; i++) {
        phrases->bias[phrases->n++] =
            (struct plan_bias){(uint32_t)ids->data[i], i + 1 < ids->n ? 0 : -INFINITY};
    }
    return true;
}

/* Forbids what a text is: a token wherever it stands, or the last of several behind the others. */
static bool forbid(struct generation *g, const char *text, size_t n, unsigned char *marks,
                   struct phrases *phrases, struct api_error *error)
{
    struct token_ids ids = {0};
    struct err err = {0};
    int32_t last;
    bool ok = true;

    if (tokenizer_encode(g->text->tokenizer, text, n, 0, &ids, &err) != STATUS_OK) {
        return api_error_field(error, "bad_words", "%s", err.text);
    }
    last = ids.n > 0 ? ids.data[ids.n - 1] : 0;
    if (ids.n == 1 && (marks[last] & MARK_ALLOWED) != 0) {
        ok = add_bias(g, last, -INFINITY, "bad_words", error);
        marks[last] |= MARK_NEVER;
    } else if (ids.n > 1) {
        ok = add_phrase(phrases, &ids, error);
        marks[last] |= MARK_SOMETIMES;
    }
    token_ids_release(&ids);
    return ok;
}

/* The word as it begins a text and as it stands behind a space, however it is given. */
static bool forbid_word(struct generation *g, const char *word, size_t n, unsigned char *marks,
                        struct phrases *phrases, struct api_error *error)
{
    struct buf text = {0};
    bool ok;

    while (n > 1 && *word == ' ') {
        word++;
        n--;
    }
    buf_append_char(&text, ' ');
    buf_append(&text, word, n);
    ok = forbid(g, text.data, text.len, marks, phrases, error) &&
         forbid(g, text.data + 1, text.len - 1, marks, phrases, error);
    buf_release(&text);
    return ok;
}

static bool forbid_words(struct generation *g, const json_t *words, unsigned char *marks,
                         struct phrases *phrases, struct api_error *error)
{
    struct plan_params *p = &g->spec.params;

    for (size_t i = 0; i < json_array_size(words); i++) {
        const json_t *word = json_array_get(words, i);

        if (json_string_length(word) == 0 || json_string_length(word) > MAX_WORD_BYTES) {
            return api_error_field(error, "bad_words", "entry %zu is no text of 1 to %d bytes", i,
                                   MAX_WORD_BYTES);
        }
        if (!forbid_word(g, json_string_value(word), json_string_length(word), marks, phrases,
                         error)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < phrases->n; i++) {
        if (!add_bias(g, phrases->bias[i].token, phrases->bias[i].add, "bad_words", error)) {
            return false;
        }
    }
    p->n_phrase_bias = (uint16_t)phrases->n;
    return true;
}

static bool parse_bad_words(struct generation *g, const json_t *body, unsigned char *marks,
                            struct api_error *error)
{
    const json_t *words = NULL;
    struct phrases phrases = {0};
    bool ok;

    if (!field_array(body, "bad_words", &words, error)) {
        return false;
    }
    if (json_array_size(words) > MAX_BAD_WORDS) {
        return api_error_field(error, "bad_words", "%zu words, at most %d", json_array_size(words),
                               MAX_BAD_WORDS);
    }
    ok = forbid_words(g, words, marks, &phrases, error);
    free(phrases.bias);
    return ok;
}

/* Something must remain that can be sampled, also before min_tokens and whatever was generated. */
static bool check_remains(const struct generation *g, unsigned char *marks, struct api_error *error)
{
    for (uint32_t i = 0; i < g->spec.params.n_min_bias; i++) {
        marks[g->bias[i].token] |= MARK_NEVER;
    }
    for (uint32_t i = 0; i < g->text->vocab; i++) {
        if (marks[i] == MARK_ALLOWED) {
            return true;
        }
    }
    return api_error_field(error, "allowed_token_ids",
                           "nothing remains of it, with bad_words and min_tokens");
}

bool sampling_parse_tokens(struct generation *g, const json_t *body, struct api_error *error)
{
    unsigned char *marks = xcalloc(MAX(g->text->vocab, 1u), 1);
    bool ok = parse_ends(g, body, error) && parse_min_tokens(g, body, error) &&
              parse_allowed(g, body, marks, error) && parse_bias(g, body, marks, error) &&
              parse_bad_words(g, body, marks, error) && check_remains(g, marks, error);

    free(marks);
    return ok;
}
