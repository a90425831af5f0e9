/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer from GGUF metadata. The file names only the kind of pre-tokenizer; what it means is
 * in the table here, as the tokenizer.json of those models has it (normaliser included, which the
 * file format knows nothing of).
 */
#include "tokenizer/tokenizer_priv.h"

/* llama.h, enum llama_token_type */
enum token_type {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER_DEFINED = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6,
};

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

struct kind {
    const char *name;
    const char *patterns[3]; /* applied one after the other */
    bool nfc;
    bool ignore_merges;
};

static const struct kind kinds[] = {
    {"gpt-2", {TOKENIZER_GPT2_PATTERN}, false, false},
    {"smollm", {"\\p{N}", TOKENIZER_GPT2_PATTERN}, false, false},
    {"starcoder", {"\\p{N}", TOKENIZER_GPT2_PATTERN}, false, false},
    {"qwen2",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
     true,
     false},
    {"llama-bpe",
     {CONTRACTIONS
      "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
     false,
     true},
    {"deepseek-v3",
     {"\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
      "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES},
     false,
     false},
};

static const struct kind *find_kind(const char *name)
{
    static const char *const aliases[][2] = {{"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}};

    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        if (strcmp(name, aliases[i][0]) == 0) {
            name = aliases[i][1];
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

static enum status set_kind(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                            const struct kind *kind, struct err *err)
{
    tokenizer->nfc = kind->nfc;
    tokenizer->bpe.ignore_merges = kind->ignore_merges;
    for (size_t i = 0; i < ARRAY_LEN(kind->patterns) && kind->patterns[i] != NULL; i++) {
        enum status status = tokenizer_add_pattern(tokenizer, kind->patterns[i],
                                                   i == 0 && gguf->add_space_prefix, err);

        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status read_token(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                              size_t i, struct err *err)
{
    const struct tokenizer_text *text = &gguf->tokens[i];
    int32_t type = gguf->token_types == NULL ? TYPE_NORMAL : gguf->token_types[i];
    struct added_token token = {(char *)text->data, text->size, (int32_t)i};
    unsigned flags = 0;
    enum status status;

    switch (type) {
    case TYPE_NORMAL:
        flags = VOCAB_MODEL;
        break;
    case TYPE_UNKNOWN:
    case TYPE_CONTROL:
        flags = VOCAB_ADDED | VOCAB_SPECIAL;
        token.special = true;
        break;
    case TYPE_USER_DEFINED:
        flags = VOCAB_ADDED;
        break;
    case TYPE_UNUSED:
        break;
    case TYPE_BYTE:
    default:
        return err_set(err, STATUS_UNSUPPORTED,
                       "tokenizer.ggml.token_type[%zu]: %d is not supported", i, type);
    }
    status = vocab_add(&tokenizer->vocab, (int64_t)i, text->data, text->size, flags, err);
    if (status == STATUS_OK && (flags & VOCAB_ADDED) && text->size > 0) {
        status = tokenizer_add_added(tokenizer, &token, false, err);
    }
    if (status != STATUS_OK) {
        err_prefix(err, "tokenizer.ggml.tokens[%zu]", i);
    }
    return status;
}

static enum status read_tokens(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                               struct err *err)
{
    size_t text_bytes = 0;
    enum status status;

    if (gguf->n_tokens == 0) {
        return err_set(err, STATUS_INVALID, "tokenizer.ggml.tokens: missing or empty");
    }
    for (size_t i = 0; i < gguf->n_tokens; i++) {
        if (!size_add(text_bytes, gguf->tokens[i].size, &text_bytes)) {
            return err_set(err, STATUS_LIMIT, "tokenizer.ggml.tokens: too large");
        }
    }
    status = vocab_init(&tokenizer->vocab, gguf->n_tokens, gguf->n_tokens, text_bytes, err);
    if (status != STATUS_OK) {
        err_prefix(err, "tokenizer.ggml.tokens");
        return status;
    }
    for (size_t i = 0; i < gguf->n_tokens && status == STATUS_OK; i++) {
        status = read_token(tokenizer, gguf, i, err);
    }
    return status == STATUS_OK ? tokenizer_finish(tokenizer, err) : status;
}

static enum status read_merge(struct tokenizer *tokenizer, const struct tokenizer_text *merge,
                              size_t rank, struct err *err)
{
    const char *space = merge->size == 0 ? NULL : memchr(merge->data, ' ', merge->size);
    struct tokenizer_text right = {0};
    struct tokenizer_text left = {0};

    if (space != NULL) {
        left = (struct tokenizer_text){merge->data, (size_t)(space - merge->data)};
        right = (struct tokenizer_text){space + 1, merge->size - left.size - 1};
    }
    if (space == NULL || memchr(right.data, ' ', right.size) != NULL) {
        return err_set(err, STATUS_INVALID, "must be \"left right\"");
    }
    return bpe_add_merge(&tokenizer->bpe, &tokenizer->vocab, (uint32_t)rank, &left, &right, err);
}

static enum status read_merges(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                               struct err *err)
{
    enum status status;

    if (gguf->n_merges == 0) {
        return err_set(err, STATUS_INVALID, "tokenizer.ggml.merges: missing or empty");
    }
    status = bpe_init(&tokenizer->bpe, gguf->n_merges, err);
    if (status != STATUS_OK) {
        return status;
    }
    bpe_set_bytes(&tokenizer->bpe, &tokenizer->vocab);
    for (size_t i = 0; i < gguf->n_merges && status == STATUS_OK; i++) {
        status = read_merge(tokenizer, &gguf->merges[i], i, err);
        if (status != STATUS_OK) {
            err_prefix(err, "tokenizer.ggml.merges[%zu]", i);
        }
    }
    return status;
}

static enum status read_ids(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                            struct err *err)
{
    const struct {
        const char *key;
        int64_t id;
        int32_t *ret_id;
    } ids[] = {
        {"bos", gguf->bos, &tokenizer->bos},
        {"eos", gguf->eos, &tokenizer->eos},
        {"padding", gguf->pad, &tokenizer->pad},
    };
    enum status status = STATUS_OK;

    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        if (ids[i].id != -1 && vocab_get(&tokenizer->vocab, ids[i].id) == NULL) {
            return err_set(err, STATUS_INVALID, "tokenizer.ggml.%s_token_id: %lld has no token",
                           ids[i].key, (long long)ids[i].id);
        }
        *ids[i].ret_id = (int32_t)ids[i].id;
    }
    if (gguf->add_bos && tokenizer->bos >= 0) {
        status = token_ids_push(&tokenizer->prefix, tokenizer->bos);
    }
    if (status == STATUS_OK && gguf->add_eos && tokenizer->eos >= 0) {
        status = token_ids_push(&tokenizer->suffix, tokenizer->eos);
    }
    return status == STATUS_OK ? STATUS_OK : err_set(err, status, "no memory for two ids");
}

static enum status read_all(struct tokenizer *tokenizer, const struct tokenizer_gguf *gguf,
                            struct err *err)
{
    const struct kind *kind;
    enum status status;

    if (gguf->model == NULL || strcmp(gguf->model, "gpt2") != 0) {
        return err_set(err, gguf->model == NULL ? STATUS_INVALID : STATUS_UNSUPPORTED,
                       "tokenizer.ggml.model: %s%.64s%s", gguf->model == NULL ? "missing" : "\"",
                       gguf->model == NULL ? "" : gguf->model,
                       gguf->model == NULL ? "" : "\" is not supported (only \"gpt2\" is)");
    }
    if (gguf->pre == NULL) {
        return err_set(err, STATUS_INVALID, "tokenizer.ggml.pre: missing");
    }
    kind = find_kind(gguf->pre);
    if (kind == NULL) {
        return err_set(err, STATUS_UNSUPPORTED, "tokenizer.ggml.pre: \"%.64s\" is not supported",
                       gguf->pre);
    }
    status = read_tokens(tokenizer, gguf, err);
    if (status == STATUS_OK) {
        status = read_merges(tokenizer, gguf, err);
    }
    if (status == STATUS_OK) {
        status = set_kind(tokenizer, gguf, kind, err);
    }
    return status == STATUS_OK ? read_ids(tokenizer, gguf, err) : status;
}

enum status tokenizer_create_gguf(const struct tokenizer_gguf *gguf,
                                  struct tokenizer **ret_tokenizer, struct err *err)
{
    struct tokenizer *tokenizer = tokenizer_new();
    enum status status = read_all(tokenizer, gguf, err);

    if (status != STATUS_OK) {
        tokenizer_destroy(&tokenizer);
        return status;
    }
    *ret_tokenizer = tokenizer;
    return STATUS_OK;
}
