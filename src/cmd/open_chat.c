/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/open_chat.h"

#include <dirent.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "weights/gguf.h"
#include "weights/path.h"
#include "weights/weights.h"

enum { MAX_CONFIG_BYTES = 256 << 20 };

static const char extra_folder[] = "additional_chat_templates";

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

static enum status add_file(struct chat_prompt *prompt, const char *name, const char *path,
                            struct err *err)
{
    struct buf text = {0};
    enum status status = file_read_all(path, CHAT_TEMPLATE_MAX_BYTES, &text, err);

    if (status == STATUS_OK) {
        chat_prompt_add(prompt, name, buf_str(&text), text.len);
    }
    buf_release(&text);
    return status;
}

/* additional_chat_templates/NAME.jinja, if there are any. */
static enum status add_extra_files(struct chat_prompt *prompt, const char *folder, struct err *err)
{
    enum status status = STATUS_OK;
    struct buf path = {0};
    struct dirent *entry;
    DIR *dir;

    buf_printf(&path, "%s/%s", folder, extra_folder);
    dir = opendir(buf_str(&path));
    while (dir != NULL && status == STATUS_OK && (entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name);

        if (n > strlen(".jinja") && ends_with(entry->d_name, ".jinja")) {
            char *name = xstrndup(entry->d_name, n - strlen(".jinja"));

            buf_clear(&path);
            buf_printf(&path, "%s/%s/%s", folder, extra_folder, entry->d_name);
            status = add_file(prompt, name, buf_str(&path), err);
            free(name);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    buf_release(&path);
    return status;
}

static enum status add_config(struct chat_prompt *prompt, const char *path, struct err *err)
{
    json_t *config = NULL;
    enum status status = json_parse_file(path, MAX_CONFIG_BYTES, &config, err);

    if (status == STATUS_OK) {
        chat_prompt_set_tokens(prompt, config);
        if (chat_prompt_is_empty(prompt)) {
            status = chat_prompt_add_config(prompt, config, err);
        }
        if (status != STATUS_OK) {
            err_prefix(err, "%s", path);
        }
    }
    json_decref(config);
    return status;
}

static enum status open_folder(struct chat_prompt *prompt, const struct weights_path *resolved,
                               struct err *err)
{
    char *jinja = weights_path_find(resolved, "chat_template.jinja");
    char *config = weights_path_find(resolved, "tokenizer_config.json");
    enum status status = STATUS_OK;

    if (jinja != NULL) {
        status = add_file(prompt, "default", jinja, err);
    }
    if (status == STATUS_OK) {
        status = add_extra_files(prompt, resolved->folder, err);
    }
    if (status == STATUS_OK && config != NULL) {
        status = add_config(prompt, config, err);
    }
    free(jinja);
    free(config);
    return status;
}

/* The special token whose id the metadata holds under key. */
static void set_gguf_token(struct chat_prompt *prompt, const struct weights *weights,
                           const char *key, const char *name)
{
    struct gguf_array tokens = {0};
    const struct gguf_str *token;
    uint32_t id;

    if (gguf_get_u32(weights, key, &id, NULL) == STATUS_OK &&
        gguf_get_array(weights, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL) == STATUS_OK &&
        id < tokens.n) {
        token = (const struct gguf_str *)tokens.items + id;
        chat_prompt_set_token(prompt, name, token->data, token->len);
    }
}

/* tokenizer.chat_template is the default one, tokenizer.chat_template.NAME another. */
static void add_gguf_templates(struct chat_prompt *prompt, const struct weights *weights)
{
    static const char key[] = "tokenizer.chat_template";

    for (size_t i = 0; i < gguf_n_values(weights); i++) {
        const struct gguf_value *value = gguf_value_at(weights, i);
        const char *rest = value->key + strlen(key);

        if (value->type != GGUF_STRING || strncmp(value->key, key, strlen(key)) != 0) {
            continue;
        }
        if (*rest == '\0') {
            chat_prompt_add(prompt, "default", value->str.data, value->str.len);
        } else if (*rest == '.' && rest[1] != '\0') {
            chat_prompt_add(prompt, rest + 1, value->str.data, value->str.len);
        }
    }
}

static enum status open_gguf(struct chat_prompt *prompt, const char *path, struct err *err)
{
    static const struct {
        const char *key;
        const char *name;
    } tokens[] = {
        {"tokenizer.ggml.bos_token_id", "bos_token"},
        {"tokenizer.ggml.eos_token_id", "eos_token"},
        {"tokenizer.ggml.unknown_token_id", "unk_token"},
        {"tokenizer.ggml.seperator_token_id", "sep_token"}, /* the format's own spelling */
        {"tokenizer.ggml.padding_token_id", "pad_token"},
        {"tokenizer.ggml.cls_token_id", "cls_token"},
        {"tokenizer.ggml.mask_token_id", "mask_token"},
    };
    struct weights *weights = NULL;
    enum status status = weights_open(path, &weights, err);

    if (status != STATUS_OK) {
        return status;
    }
    add_gguf_templates(prompt, weights);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        set_gguf_token(prompt, weights, tokens[i].key, tokens[i].name);
    }
    weights_close(&weights);
    return STATUS_OK;
}

/* A file that is neither weights nor configuration is a template. */
static bool is_template_file(const char *path)
{
    static const char *const others[] = {".gguf", ".safetensors", ".json"};
    struct stat info;

    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (ends_with(path, others[i])) {
            return false;
        }
    }
    return ends_with(path, ".jinja") || (stat(path, &info) == 0 && S_ISREG(info.st_mode));
}

static enum status open_model(struct chat_prompt *prompt, const char *path, struct err *err)
{
    struct weights_path resolved = {0};
    enum status status = weights_path_resolve(path, &resolved, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (resolved.kind == WEIGHTS_GGUF) {
        status = open_gguf(prompt, resolved.file, err);
    } else {
        status = open_folder(prompt, &resolved, err);
    }
    weights_path_release(&resolved);
    if (status == STATUS_OK && chat_prompt_is_empty(prompt)) {
        status = err_set(err, STATUS_NOT_FOUND, "%s: no chat template in it", path);
    }
    return status;
}

enum status open_chat(const char *path, struct chat_prompt **ret_prompt, struct err *err)
{
    struct chat_prompt *prompt = chat_prompt_new();
    enum status status = is_template_file(path) ? add_file(prompt, "default", path, err)
                                                : open_model(prompt, path, err);

    if (status != STATUS_OK) {
        chat_prompt_destroy(&prompt);
        return status;
    }
    *ret_prompt = prompt;
    return STATUS_OK;
}
