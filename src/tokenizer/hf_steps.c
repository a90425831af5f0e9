/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps around the model in a tokenizer.json. Each is null or an object with a "type"; a
 * "Sequence" holds others. A type that is not handled is refused by name: ids that are nearly right
 * would be worse.
 */
#include "tokenizer/tokenizer_priv.h"

enum { MAX_DEPTH = 4 }; /* of sequences in sequences */

/* A reader of one step that is no sequence. */
typedef enum status step_reader(struct tokenizer *tokenizer, const json_t *step, const char *type,
                                struct err *err);

static enum status unsupported(const char *type, struct err *err)
{
    return err_set(err, STATUS_UNSUPPORTED, "type \"%.64s\" is not supported", type);
}

/* Reads the step under key and, if it is a sequence (its list under list), all in it. */
static enum status read_steps(struct tokenizer *tokenizer, const json_t *step, const char *list,
                              int depth, step_reader *read, struct err *err)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    const json_t *steps = json_object_get(step, list);

    if (type == NULL) {
        return err_set(err, STATUS_INVALID, "must be an object with a type");
    }
    if (strcmp(type, "Sequence") != 0) {
        return read(tokenizer, step, type, err);
    }
    if (!json_is_array(steps)) {
        return err_set(err, STATUS_INVALID, "%s: must be an array", list);
    }
    if (depth == MAX_DEPTH) {
        return err_set(err, STATUS_LIMIT, "sequences nested more than %d deep", MAX_DEPTH);
    }
    for (size_t i = 0; i < json_array_size(steps); i++) {
        enum status status =
            read_steps(tokenizer, json_array_get(steps, i), list, depth + 1, read, err);

        if (status != STATUS_OK) {
            err_prefix(err, "%s[%zu]", list, i);
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_key(struct tokenizer *tokenizer, const json_t *root, const char *key,
                            const char *list, step_reader *read, struct err *err)
{
    const json_t *step = json_object_get(root, key);
    enum status status;

    if (step == NULL || json_is_null(step)) {
        return STATUS_OK;
    }
    status = read_steps(tokenizer, step, list, 0, read, err);
    if (status != STATUS_OK) {
        err_prefix(err, "%s", key);
    }
    return status;
}

static enum status normalizer_step(struct tokenizer *tokenizer, const json_t *step UNUSED,
                                   const char *type, struct err *err)
{
    if (strcmp(type, "NFC") != 0) {
        return unsupported(type, err);
    }
    tokenizer->nfc = true;
    return STATUS_OK;
}

enum status hf_read_normalizer(struct tokenizer *tokenizer, const json_t *root, struct err *err)
{
    return read_key(tokenizer, root, "normalizer", "normalizers", normalizer_step, err);
}

/* "Isolated" and so on; old files write them in snake case. */
static enum status read_behavior(const json_t *step, enum pretok_behavior *ret_behavior,
                                 struct err *err)
{
    static const struct {
        const char *name;
        const char *old_name;
        enum pretok_behavior behavior;
    } behaviors[] = {
        {"Removed", "removed", PRETOK_REMOVED},
        {"Isolated", "isolated", PRETOK_ISOLATED},
        {"Contiguous", "contiguous", PRETOK_CONTIGUOUS},
        {"MergedWithPrevious", "merged_with_previous", PRETOK_MERGED_WITH_PREVIOUS},
        {"MergedWithNext", "merged_with_next", PRETOK_MERGED_WITH_NEXT},
    };
    const char *name = json_string_value(json_object_get(step, "behavior"));

    for (size_t i = 0; name != NULL && i < ARRAY_LEN(behaviors); i++) {
        if (strcmp(name, behaviors[i].name) == 0 || strcmp(name, behaviors[i].old_name) == 0) {
            *ret_behavior = behaviors[i].behavior;
            return STATUS_OK;
        }
    }
    if (name == NULL) {
        return err_set(err, STATUS_INVALID, "Split: behavior: must be a string");
    }
    return err_set(err, STATUS_UNSUPPORTED, "Split: behavior: \"%.64s\" is not supported", name);
}

static enum status read_pattern(const json_t *step, struct regex **ret_regex, struct err *err)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    enum status status;

    if (json_is_string(regex) && literal == NULL) {
        status = regex_create(json_string_value(regex), json_string_length(regex), ret_regex, err);
    } else if (json_is_string(literal) && regex == NULL) {
        status = regex_create_literal(json_string_value(literal), json_string_length(literal),
                                      ret_regex, err);
    } else {
        return err_set(err, STATUS_INVALID,
                       "Split: pattern: must be {\"Regex\": ...} or {\"String\": ...}");
    }
    if (status != STATUS_OK) {
        err_prefix(err, "Split: pattern");
    }
    return status;
}

static enum status read_split(struct tokenizer *tokenizer, const json_t *step, struct err *err)
{
    struct pretok_stage stage = {0};
    enum status status = read_behavior(step, &stage.behavior, err);

    if (status == STATUS_OK) {
        status = json_opt_bool(step, "invert", false, &stage.invert, err);
    }
    if (status == STATUS_OK) {
        status = read_pattern(step, &stage.regex, err);
    }
    return status == STATUS_OK ? pretok_add(&tokenizer->pretok, &stage, err) : status;
}

static enum status read_byte_level(struct tokenizer *tokenizer, const json_t *step, struct err *err)
{
    bool add_prefix_space;
    bool use_regex;
    enum status status = json_opt_bool(step, "add_prefix_space", true, &add_prefix_space, err);

    if (status == STATUS_OK) {
        status = json_opt_bool(step, "use_regex", true, &use_regex, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    tokenizer->byte_level = true;
    if (use_regex) {
        return tokenizer_add_pattern(tokenizer, TOKENIZER_GPT2_PATTERN, add_prefix_space, err);
    }
    if (add_prefix_space) {
        struct pretok_stage stage = {.add_prefix_space = true};

        return pretok_add(&tokenizer->pretok, &stage, err);
    }
    return STATUS_OK;
}

static enum status pre_tokenizer_step(struct tokenizer *tokenizer, const json_t *step,
                                      const char *type, struct err *err)
{
    bool individual;
    enum status status;

    if (tokenizer->byte_level) {
        return err_set(err, STATUS_UNSUPPORTED, "\"%.64s\" after ByteLevel is not supported", type);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return read_byte_level(tokenizer, step, err);
    }
    if (strcmp(type, "Split") == 0) {
        return read_split(tokenizer, step, err);
    }
    if (strcmp(type, "Digits") != 0) {
        return unsupported(type, err);
    }
    status = json_opt_bool(step, "individual_digits", false, &individual, err);
    if (status != STATUS_OK) {
        return status;
    }
    return tokenizer_add_pattern(tokenizer, individual ? "\\p{N}" : "\\p{N}+", false, err);
}

enum status hf_read_pre_tokenizer(struct tokenizer *tokenizer, const json_t *root, struct err *err)
{
    enum status status =
        read_key(tokenizer, root, "pre_tokenizer", "pretokenizers", pre_tokenizer_step, err);

    if (status == STATUS_OK && !tokenizer->byte_level) {
        return err_set(err, STATUS_UNSUPPORTED,
                       "pre_tokenizer: without ByteLevel (only byte-level BPE is supported)");
    }
    return status;
}

static enum status decoder_step(struct tokenizer *tokenizer UNUSED, const json_t *step UNUSED,
                                const char *type, struct err *err)
{
    return strcmp(type, "ByteLevel") == 0 ? STATUS_OK : unsupported(type, err);
}

enum status hf_read_decoder(const json_t *root, struct err *err)
{
    return read_key(NULL, root, "decoder", "decoders", decoder_step, err);
}

/* The ids of a special token of the template. */
static enum status read_special(struct tokenizer *tokenizer, const json_t *step, const char *name,
                                struct token_ids *ids, struct err *err)
{
    const json_t *entry = json_object_get(json_object_get(step, "special_tokens"), name);
    const json_t *list = json_object_get(entry, "ids");

    if (!json_is_array(list)) {
        return err_set(err, STATUS_INVALID, "TemplateProcessing: special_tokens: \"%.64s\": no ids",
                       name);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        enum status status;

        if (!json_is_integer(id) || vocab_get(&tokenizer->vocab, json_integer_value(id)) == NULL) {
            return err_set(err, STATUS_INVALID,
                           "TemplateProcessing: special_tokens: \"%.64s\": ids[%zu]: no such token",
                           name, i);
        }
        status = token_ids_push(ids, (int32_t)json_integer_value(id));
        if (status != STATUS_OK) {
            return err_set(err, status, "no memory for the template");
        }
    }
    return STATUS_OK;
}

/* [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}] */
static enum status read_template(struct tokenizer *tokenizer, const json_t *step, struct err *err)
{
    const json_t *items = json_object_get(step, "single");
    bool after = false;

    if (!json_is_array(items)) {
        return err_set(err, STATUS_INVALID, "TemplateProcessing: single: must be an array");
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *special =
            json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        enum status status = STATUS_OK;

        if (special != NULL) {
            status = read_special(tokenizer, step, special,
                                  after ? &tokenizer->suffix : &tokenizer->prefix, err);
        } else if (json_object_get(item, "Sequence") != NULL && !after) {
            after = true;
        } else {
            status = err_set(err, STATUS_UNSUPPORTED,
                             "TemplateProcessing: single[%zu]: neither a special token nor the one "
                             "text",
                             i);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status post_processor_step(struct tokenizer *tokenizer, const json_t *step,
                                       const char *type, struct err *err)
{
    if (strcmp(type, "ByteLevel") == 0) { /* moves offsets only */
        return STATUS_OK;
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return read_template(tokenizer, step, err);
    }
    return unsupported(type, err);
}

enum status hf_read_post_processor(struct tokenizer *tokenizer, const json_t *root, struct err *err)
{
    return read_key(tokenizer, root, "post_processor", "processors", post_processor_step, err);
}
