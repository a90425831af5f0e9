/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/open_tokenizer.h"

#include "base/file.h"
#include "base/mem.h"
#include "weights/gguf.h"
#include "weights/path.h"
#include "weights/weights.h"

enum { MAX_JSON_BYTES = 256 << 20 };

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* config_path may be NULL. */
static enum status open_files(const char *path, const char *config_path,
                              struct tokenizer **ret_tokenizer, struct err *err)
{
    json_t *root = NULL;
    json_t *config = NULL;
    enum status status = json_parse_file(path, MAX_JSON_BYTES, &root, err);

    if (status == STATUS_OK && config_path != NULL) {
        status = json_parse_file(config_path, MAX_JSON_BYTES, &config, err);
    }
    if (status == STATUS_OK) {
        status = tokenizer_create_hf(root, config, ret_tokenizer, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s", path);
        }
    }
    json_decref(root);
    json_decref(config);
    return status;
}

/* A tokenizer.json and what lies beside it. */
static enum status open_json(const char *path, struct tokenizer **ret_tokenizer, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? xstrdup(".") : xstrndup(path, (size_t)(slash - path) + 1);
    struct weights_path beside = {.folder = folder, .kind = WEIGHTS_NONE};
    char *config = weights_path_find(&beside, "tokenizer_config.json");
    enum status status = open_files(path, config, ret_tokenizer, err);

    free(folder);
    free(config);
    return status;
}

static enum status open_folder(const char *path, const struct weights_path *resolved,
                               struct tokenizer **ret_tokenizer, struct err *err)
{
    char *json = weights_path_find(resolved, "tokenizer.json");
    char *config = weights_path_find(resolved, "tokenizer_config.json");
    enum status status = json == NULL
                             ? err_set(err, STATUS_NOT_FOUND, "%s: no tokenizer.json in it", path)
                             : open_files(json, config, ret_tokenizer, err);

    free(json);
    free(config);
    return status;
}

/* A value that may be absent; *ret stays as it is then. */
static enum status optional(enum status status)
{
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status get_id(const struct weights *weights, const char *key, int64_t *ret_id,
                          struct err *err)
{
    *ret_id = -1;
    return optional(gguf_get_i64(weights, key, ret_id, err));
}

/* Texts as the tokenizer takes them; *ret_texts is the caller's to free(). */
static enum status get_texts(const struct weights *weights, const char *key,
                             struct tokenizer_text **ret_texts, size_t *ret_n, struct err *err)
{
    struct gguf_array array = {0};
    enum status status = optional(gguf_get_array(weights, key, GGUF_STRING, &array, err));
    const struct gguf_str *strings = array.items;
    struct tokenizer_text *texts;

    if (status != STATUS_OK) {
        return status;
    }
    texts = mem_alloc(array.n, sizeof(*texts));
    if (texts == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "%s: no memory for %zu texts", key, array.n);
    }
    for (size_t i = 0; i < array.n; i++) {
        texts[i] = (struct tokenizer_text){strings[i].data, strings[i].len};
    }
    *ret_texts = texts;
    *ret_n = array.n;
    return STATUS_OK;
}

static enum status get_types(const struct weights *weights, struct tokenizer_gguf *gguf,
                             struct err *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    struct gguf_array array = {0};
    enum status status = optional(gguf_get_array(weights, key, GGUF_I32, &array, err));

    if (status == STATUS_OK && array.items != NULL && array.n != gguf->n_tokens) {
        return err_set(err, STATUS_INVALID, "%s: %s: %zu items for %zu tokens",
                       weights_path(weights), key, array.n, gguf->n_tokens);
    }
    gguf->token_types = array.items;
    return status;
}

static enum status get_settings(const struct weights *weights, struct tokenizer_gguf *gguf,
                                struct err *err)
{
    const struct {
        const char *key;
        int64_t *ret_id;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", &gguf->bos},
        {"tokenizer.ggml.eos_token_id", &gguf->eos},
        {"tokenizer.ggml.padding_token_id", &gguf->pad},
    };
    const struct {
        const char *key;
        bool *ret_flag;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token", &gguf->add_bos},
        {"tokenizer.ggml.add_eos_token", &gguf->add_eos},
        {"tokenizer.ggml.add_space_prefix", &gguf->add_space_prefix},
    };
    const struct {
        const char *key;
        const char **ret_text;
    } texts[] = {
        {"tokenizer.ggml.model", &gguf->model},
        {"tokenizer.ggml.pre", &gguf->pre},
    };
    enum status status = STATUS_OK;

    for (size_t i = 0; i < ARRAY_LEN(ids) && status == STATUS_OK; i++) {
        status = get_id(weights, ids[i].key, ids[i].ret_id, err);
    }
    for (size_t i = 0; i < ARRAY_LEN(flags) && status == STATUS_OK; i++) {
        status = optional(gguf_get_bool(weights, flags[i].key, flags[i].ret_flag, err));
    }
    for (size_t i = 0; i < ARRAY_LEN(texts) && status == STATUS_OK; i++) {
        struct gguf_str text = {0};

        status = optional(gguf_get_str(weights, texts[i].key, &text, err));
        *texts[i].ret_text = text.data;
    }
    return status;
}

static enum status open_gguf(const char *path, struct tokenizer **ret_tokenizer, struct err *err)
{
    struct tokenizer_text *tokens = NULL;
    struct tokenizer_text *merges = NULL;
    struct tokenizer_gguf gguf = {0};
    struct weights *weights = NULL;
    enum status status = weights_open(path, &weights, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = get_settings(weights, &gguf, err);
    if (status == STATUS_OK) {
        status = get_texts(weights, "tokenizer.ggml.tokens", &tokens, &gguf.n_tokens, err);
    }
    if (status == STATUS_OK) {
        status = get_texts(weights, "tokenizer.ggml.merges", &merges, &gguf.n_merges, err);
    }
    if (status == STATUS_OK) {
        status = get_types(weights, &gguf, err);
    }
    if (status == STATUS_OK) {
        gguf.tokens = tokens;
        gguf.merges = merges;
        status = tokenizer_create_gguf(&gguf, ret_tokenizer, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s", path);
        }
    }
    free(tokens);
    free(merges);
    weights_close(&weights);
    return status;
}

enum status open_tokenizer(const char *path, struct tokenizer **ret_tokenizer, struct err *err)
{
    struct weights_path resolved = {0};
    enum status status;

    if (ends_with(path, ".json") && !ends_with(path, ".safetensors.index.json")) {
        return open_json(path, ret_tokenizer, err);
    }
    status = weights_path_resolve(path, &resolved, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = resolved.kind == WEIGHTS_GGUF ? open_gguf(path, ret_tokenizer, err)
                                           : open_folder(path, &resolved, ret_tokenizer, err);
    weights_path_release(&resolved);
    return status;
}
