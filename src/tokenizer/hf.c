/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer from a tokenizer.json: the model ("BPE": vocab and merges) and the added tokens here,
 * the steps around them in hf_steps.c, then what tokenizer_config.json says of BOS, EOS and PAD.
 * "truncation" and "padding" concern batches and are not looked at.
 */
#include "tokenizer/tokenizer_priv.h"

static struct tokenizer_text text_of(const json_t *string)
{
    return (struct tokenizer_text){json_string_value(string), json_string_length(string)};
}

/* The sizes that the vocabulary and the added tokens need. */
static enum status measure(const json_t *vocab, const json_t *added, size_t *ret_n_ids,
                           size_t *ret_text_bytes, struct err *err)
{
    json_int_t max_id = -1;
    size_t bytes = 0;
    const char *key;
    json_t *value;
    size_t i;

    json_object_foreach((json_t *)vocab, key, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= VOCAB_MAX_IDS) {
            return err_set(err, STATUS_INVALID,
                           "model.vocab: \"%.64s\": the id must be an integer from 0 to %d", key,
                           VOCAB_MAX_IDS - 1);
        }
        max_id = MAX(max_id, json_integer_value(value));
        bytes += strlen(key);
    }
    json_array_foreach((json_t *)added, i, value)
    {
        const json_t *id = json_object_get(value, "id");
        const json_t *content = json_object_get(value, "content");

        if (!json_is_string(content)) {
            return err_set(err, STATUS_INVALID, "added_tokens[%zu].content: must be a string", i);
        }
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= VOCAB_MAX_IDS) {
            return err_set(err, STATUS_INVALID,
                           "added_tokens[%zu].id: must be an integer from 0 to %d", i,
                           VOCAB_MAX_IDS - 1);
        }
        max_id = MAX(max_id, json_integer_value(id));
        bytes += json_string_length(content);
    }
    *ret_n_ids = (size_t)(max_id + 1);
    *ret_text_bytes = bytes;
    return STATUS_OK;
}

static enum status read_vocab(struct tokenizer *tokenizer, const json_t *model, const json_t *added,
                              struct err *err)
{
    const json_t *vocab = json_object_get(model, "vocab");
    size_t n_tokens = json_object_size(vocab) + json_array_size(added);
    size_t text_bytes = 0;
    size_t n_ids = 0;
    const char *key;
    json_t *value;
    enum status status;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0) {
        return err_set(err, STATUS_INVALID, "model.vocab: must be an object that is not empty");
    }
    status = measure(vocab, added, &n_ids, &text_bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = vocab_init(&tokenizer->vocab, n_ids, n_tokens, text_bytes, err);
    json_object_foreach((json_t *)vocab, key, value)
    {
        if (status == STATUS_OK) {
            status = vocab_add(&tokenizer->vocab, json_integer_value(value), key, strlen(key),
                               VOCAB_MODEL, err);
        }
    }
    if (status != STATUS_OK) {
        err_prefix(err, "model.vocab");
    }
    return status;
}

/* "a b" or ["a", "b"] */
static bool split_merge(const json_t *merge, struct tokenizer_text *ret_left,
                        struct tokenizer_text *ret_right)
{
    if (json_is_string(merge)) {
        struct tokenizer_text both = text_of(merge);
        const char *space = memchr(both.data, ' ', both.size);
        size_t left = space == NULL ? 0 : (size_t)(space - both.data);

        if (space == NULL || memchr(space + 1, ' ', both.size - left - 1) != NULL) {
            return false;
        }
        *ret_left = (struct tokenizer_text){both.data, left};
        *ret_right = (struct tokenizer_text){space + 1, both.size - left - 1};
        return true;
    }
    if (json_array_size(merge) != 2 || !json_is_string(json_array_get(merge, 0)) ||
        !json_is_string(json_array_get(merge, 1))) {
        return false;
    }
    *ret_left = text_of(json_array_get(merge, 0));
    *ret_right = text_of(json_array_get(merge, 1));
    return true;
}

static enum status read_merges(struct tokenizer *tokenizer, const json_t *model, struct err *err)
{
    const json_t *merges = json_object_get(model, "merges");
    enum status status;
    uint32_t rank = 0;

    if (!json_is_array(merges)) {
        return err_set(err, STATUS_INVALID, "model.merges: must be an array");
    }
    status = bpe_init(&tokenizer->bpe, json_array_size(merges), err);
    if (status != STATUS_OK) {
        return status;
    }
    bpe_set_bytes(&tokenizer->bpe, &tokenizer->vocab);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        struct tokenizer_text left;
        struct tokenizer_text right;

        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0) {
            continue; /* the first line of an old merges.txt */
        }
        if (!split_merge(merge, &left, &right)) {
            return err_set(err, STATUS_INVALID,
                           "model.merges[%zu]: must be \"left right\" or [\"left\", \"right\"]", i);
        }
        status = bpe_add_merge(&tokenizer->bpe, &tokenizer->vocab, rank++, &left, &right, err);
        if (status != STATUS_OK) {
            err_prefix(err, "model.merges[%zu]", i);
            return status;
        }
    }
    return STATUS_OK;
}

/* What changes the model's result and is not here. */
static enum status check_model(const json_t *model, struct err *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    bool byte_fallback;
    double dropout;
    enum status status = json_opt_bool(model, "byte_fallback", false, &byte_fallback, err);

    if (status == STATUS_OK) {
        status = json_opt_real(model, "dropout", 0, &dropout, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (byte_fallback || dropout != 0) {
        return err_set(err, STATUS_UNSUPPORTED, "%s is not supported",
                       byte_fallback ? "byte_fallback" : "dropout");
    }
    for (size_t i = 0; i < ARRAY_LEN(affixes); i++) {
        const char *affix;

        status = json_opt_str(model, affixes[i], "", &affix, err);
        if (status == STATUS_OK && affix[0] != '\0') {
            status = err_set(err, STATUS_UNSUPPORTED, "%s is not supported", affixes[i]);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_model_options(struct tokenizer *tokenizer, const json_t *model,
                                      struct err *err)
{
    struct bpe *bpe = &tokenizer->bpe;
    const char *unk;
    enum status status = check_model(model, err);

    if (status == STATUS_OK) {
        status = json_opt_bool(model, "fuse_unk", false, &bpe->fuse_unk, err);
    }
    if (status == STATUS_OK) {
        status = json_opt_bool(model, "ignore_merges", false, &bpe->ignore_merges, err);
    }
    if (status == STATUS_OK) {
        status = json_opt_str(model, "unk_token", NULL, &unk, err);
    }
    if (status == STATUS_OK && unk != NULL) {
        bpe->unk = vocab_find(&tokenizer->vocab, unk, strlen(unk));
        if (bpe->unk < 0 || !(tokenizer->vocab.tokens[bpe->unk].flags & VOCAB_MODEL)) {
            bpe->unk =
                -1; /* `tokenizers` too complains only when it is needed; bytes are dropped */
        }
    }
    if (status != STATUS_OK) {
        err_prefix(err, "model");
    }
    return status;
}

static enum status read_model(struct tokenizer *tokenizer, const json_t *root, const json_t *added,
                              struct err *err)
{
    const json_t *model = json_object_get(root, "model");
    const char *type;
    enum status status;

    if (!json_is_object(model)) {
        return err_set(err, STATUS_INVALID, "model: must be an object");
    }
    status = json_opt_str(model, "type", "BPE", &type, err);
    if (status == STATUS_OK && strcmp(type, "BPE") != 0) {
        status = err_set(err, STATUS_UNSUPPORTED, "type \"%.64s\" is not supported", type);
    }
    if (status != STATUS_OK) {
        err_prefix(err, "model");
        return status;
    }
    status = read_vocab(tokenizer, model, added, err);
    if (status == STATUS_OK) {
        status = read_merges(tokenizer, model, err);
    }
    return status == STATUS_OK ? read_model_options(tokenizer, model, err) : status;
}

static enum status read_added_token(struct tokenizer *tokenizer, const json_t *value,
                                    struct err *err)
{
    struct tokenizer_text content = text_of(json_object_get(value, "content"));
    int64_t id = json_integer_value(json_object_get(value, "id"));
    struct added_token token = {.text = (char *)content.data, .size = content.size};
    bool normalized;
    const struct {
        const char *key;
        bool fallback;
        bool *value;
    } flags[] = {
        {"special", false, &token.special},
        {"single_word", false, &token.single_word},
        {"lstrip", false, &token.lstrip},
        {"rstrip", false, &token.rstrip},
        {"normalized", !token.special, &normalized},
    };
    enum status status = STATUS_OK;

    for (size_t i = 0; i < ARRAY_LEN(flags) && status == STATUS_OK; i++) {
        status = json_opt_bool(value, flags[i].key, flags[i].fallback, flags[i].value, err);
    }
    if (status == STATUS_OK) {
        status = vocab_add(&tokenizer->vocab, id, content.data, content.size,
                           VOCAB_ADDED | (token.special ? VOCAB_SPECIAL : 0u), err);
    }
    if (status == STATUS_OK && content.size > 0) { /* an empty one is never found */
        token.id = (int32_t)id;
        status = tokenizer_add_added(tokenizer, &token, normalized, err);
    }
    return status;
}

static enum status read_added(struct tokenizer *tokenizer, const json_t *added, struct err *err)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        enum status status = read_added_token(tokenizer, json_array_get(added, i), err);

        if (status != STATUS_OK) {
            err_prefix(err, "added_tokens[%zu]", i);
            return status;
        }
    }
    return tokenizer_finish(tokenizer, err);
}

/* A special token of tokenizer_config.json, a text or an object with one; -1 if it is not there or
 * not in the vocabulary. */
static int32_t config_token(const struct tokenizer *tokenizer, const json_t *config,
                            const char *key)
{
    const json_t *value = json_object_get(config, key);

    if (json_is_object(value)) {
        value = json_object_get(value, "content");
    }
    if (!json_is_string(value)) {
        return -1;
    }
    return vocab_find(&tokenizer->vocab, json_string_value(value), json_string_length(value));
}

static enum status read_config(struct tokenizer *tokenizer, const json_t *config, struct err *err)
{
    bool has_template = tokenizer->prefix.n > 0 || tokenizer->suffix.n > 0;
    bool add_bos;
    bool add_eos;
    enum status status = json_opt_bool(config, "add_bos_token", false, &add_bos, err);

    if (status == STATUS_OK) {
        status = json_opt_bool(config, "add_eos_token", false, &add_eos, err);
    }
    if (status != STATUS_OK) {
        err_prefix(err, "tokenizer_config");
        return status;
    }
    tokenizer->bos = config_token(tokenizer, config, "bos_token");
    tokenizer->eos = config_token(tokenizer, config, "eos_token");
    tokenizer->pad = config_token(tokenizer, config, "pad_token");
    if (!has_template && add_bos && tokenizer->bos >= 0) {
        status = token_ids_push(&tokenizer->prefix, tokenizer->bos);
    }
    if (status == STATUS_OK && !has_template && add_eos && tokenizer->eos >= 0) {
        status = token_ids_push(&tokenizer->suffix, tokenizer->eos);
    }
    return status == STATUS_OK ? STATUS_OK : err_set(err, status, "no memory for two ids");
}

static enum status read_all(struct tokenizer *tokenizer, const json_t *root, const json_t *config,
                            struct err *err)
{
    const json_t *added = json_object_get(root, "added_tokens");
    enum status status;

    if (!json_is_object(root)) {
        return err_set(err, STATUS_INVALID, "must be an object");
    }
    if (added != NULL && !json_is_null(added) && !json_is_array(added)) {
        return err_set(err, STATUS_INVALID, "added_tokens: must be an array");
    }
    status = hf_read_normalizer(tokenizer, root, err);
    if (status == STATUS_OK) {
        status = hf_read_pre_tokenizer(tokenizer, root, err);
    }
    if (status == STATUS_OK) {
        status = hf_read_decoder(root, err);
    }
    if (status == STATUS_OK) {
        status = read_model(tokenizer, root, added, err);
    }
    if (status == STATUS_OK) {
        status = read_added(tokenizer, added, err);
    }
    if (status == STATUS_OK) {
        status = hf_read_post_processor(tokenizer, root, err);
    }
    return status == STATUS_OK ? read_config(tokenizer, config, err) : status;
}

enum status tokenizer_create_hf(const json_t *tokenizer_json, const json_t *tokenizer_config,
                                struct tokenizer **ret_tokenizer, struct err *err)
{
    struct tokenizer *tokenizer = tokenizer_new();
    enum status status = read_all(tokenizer, tokenizer_json, tokenizer_config, err);

    if (status != STATUS_OK) {
        tokenizer_destroy(&tokenizer);
        return status;
    }
    *ret_tokenizer = tokenizer;
    return STATUS_OK;
}
