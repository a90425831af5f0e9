/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/name.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { MAX_WORD = 96, MAX_COMPONENT = 255, MAX_PATH = 1000 };

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

bool hub_ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

bool hub_is_hex(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

/* ORG or MODEL, as the hub itself accepts them. */
static bool is_word(const char *text, size_t n)
{
    if (n == 0 || n > MAX_WORD || strchr(".-", text[0]) != NULL ||
        strchr(".-", text[n - 1]) != NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (strchr(letters, text[i]) == NULL ||
            (i > 0 && text[i] == text[i - 1] && strchr(".-", text[i]) != NULL)) {
            return false;
        }
    }
    return true;
}

/* The lengths of both words of ORG/MODEL, of what the text begins with. */
static bool split(const char *text, size_t *ret_org, size_t *ret_model)
{
    size_t org = strcspn(text, "/:");
    size_t model = text[org] == '/' ? strcspn(text + org + 1, "/:") : 0;
    const char *rest;

    if (model == 0 || !is_word(text, org) || !is_word(text + org + 1, model)) {
        return false;
    }
    rest = text + org + 1 + model;
    if (rest[0] == '/' && (!hub_path_is_safe(rest + 1) || !hub_ends_with(rest, ".gguf"))) {
        return false;
    }
    if (rest[0] == ':' && (rest[1] == '\0' || strspn(rest + 1, letters) != strlen(rest + 1))) {
        return false;
    }
    *ret_org = org;
    *ret_model = model;
    return true;
}

enum status hub_name_parse(const char *text, struct hub_name *ret_name, struct err *err)
{
    struct hub_name name = {0};
    const char *rest;
    size_t model;
    size_t org;

    if (!split(text, &org, &model)) {
        return err_set(err, STATUS_INVALID,
                       "%s: not the name of a model (ORG/MODEL, ORG/MODEL:QUANT or "
                       "ORG/MODEL/FILE.gguf)",
                       text);
    }
    rest = text + org + 1 + model;
    name.repo = xstrndup(text, org + 1 + model);
    if (rest[0] == '/') {
        name.file = xstrdup(rest + 1);
    } else if (rest[0] == ':') {
        name.quant = xstrdup(rest + 1);
    }
    *ret_name = name;
    return STATUS_OK;
}

void hub_name_release(struct hub_name *name)
{
    free(name->repo);
    free(name->file);
    free(name->quant);
    *name = (struct hub_name){0};
}

char *hub_name_folder(const struct hub_name *name)
{
    const char *slash = strchr(name->repo, '/');
    struct buf buf = {0};

    buf_printf(&buf, "models--%.*s--%s", (int)(slash - name->repo), name->repo, slash + 1);
    return buf_detach(&buf);
}

bool hub_path_is_safe(const char *path)
{
    size_t size = strlen(path);
    const char *part = path;

    if (size == 0 || size > MAX_PATH || !utf8_is_valid(path, size)) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)path[i];
        bool is_c1 = c == 0xc2 && (unsigned char)path[i + 1] < 0xa0; /* U+0080 to U+009F */

        if (c < 0x20 || c == 0x7f || c == '\\' || is_c1) {
            return false;
        }
    }
    while (part != NULL) {
        size_t n = strcspn(part, "/");

        if (n == 0 || n > MAX_COMPONENT || (n == 1 && part[0] == '.') ||
            (n == 2 && part[0] == '.' && part[1] == '.')) {
            return false;
        }
        part = part[n] == '/' ? part + n + 1 : NULL;
    }
    return true;
}

bool hub_revision_is_safe(const char *revision)
{
    for (const char *c = revision; *c != '\0'; c++) {
        if (strchr(letters, *c) == NULL && *c != '/' && *c != '+') {
            return false;
        }
    }
    return strlen(revision) <= MAX_COMPONENT && hub_path_is_safe(revision);
}
