/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   revision ──▶ commit ──▶ files of the commit ──▶ the model's ──▶ room on the disk
 *                                                                        │
 *        ref moved ◀── all links there ◀── each to its blob ◀────────────┘  small ones first
 *
 * The weights come last, so that a snapshot that has them has everything: hub_resolve relies on it.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "hub/choose.h"
#include "hub/session.h"
#include "json/json.h"

enum { MAX_JSON = 64 << 20, MAX_PAGES = 1000, MAX_TOKEN = 4096 };

static const char default_endpoint[] = "https://huggingface.co";

void session_url_append(struct buf *url, const char *text, bool keep_slashes)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~";

    for (const char *c = text; *c != '\0'; c++) {
        if (strchr(plain, *c) != NULL || (keep_slashes && *c == '/')) {
            buf_append_char(url, *c);
        } else {
            buf_printf(url, "%%%02X", (unsigned char)*c);
        }
    }
}

/* The token of the environment or of HF_HOME/token; "" if there is none. Its text never gets into
 * an error. */
static enum status read_token(struct buf *token, struct err *err)
{
    const char *given = getenv("HF_TOKEN");
    char *home = cache_home();
    struct buf path = {0};
    enum status status = STATUS_OK;
    const char *from = "HF_TOKEN";

    if (given != NULL && given[0] != '\0') {
        buf_append_str(token, given);
    } else if (home != NULL) {
        buf_printf(&path, "%s/token", home);
        from = path.data;
        status = file_read_all(path.data, MAX_TOKEN, token, err);
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    while (token->len > 0 && strchr(" \t\r\n", token->data[token->len - 1]) != NULL) {
        token->data[--token->len] = '\0';
    }
    for (size_t i = 0; i < token->len && status == STATUS_OK; i++) {
        if (token->data[i] <= ' ' || token->data[i] >= 0x7f) {
            status = err_set(err, STATUS_INVALID, "%s holds characters that no token has", from);
        }
    }
    buf_release(&path);
    free(home);
    return status;
}

static bool go_on(void *arg)
{
    return session_go_on(arg);
}

static const char *revision_of(const struct hub_options *options)
{
    return options->revision == NULL ? "main" : options->revision;
}

/* Name, revision and cache: what both resolving and pulling need. */
static enum status open_place(const struct hub_options *options, struct hub_name *name,
                              struct cache *cache, struct err *err)
{
    enum status status;

    if (!hub_revision_is_safe(revision_of(options))) {
        return err_set(err, STATUS_INVALID, "%s: no name of a revision", revision_of(options));
    }
    status = hub_name_parse(options->name, name, err);
    return status == STATUS_OK ? cache_init(cache, options->cache, name, err) : status;
}

static enum status session_open(struct session *session, const struct hub_options *options,
                                struct err *err)
{
    const char *endpoint = options->endpoint != NULL ? options->endpoint : getenv("HF_ENDPOINT");
    struct transfer_config config = {.go_on = go_on, .arg = session};
    struct buf token = {0};
    enum status status;
    size_t n;

    session->options = options;
    session->revision = revision_of(options);
    endpoint = endpoint == NULL || endpoint[0] == '\0' ? default_endpoint : endpoint;
    n = strlen(endpoint);
    while (n > 0 && endpoint[n - 1] == '/') {
        n--;
    }
    session->endpoint = xstrndup(endpoint, n);
    status = open_place(options, &session->name, &session->cache, err);
    if (status == STATUS_OK && strpbrk(endpoint, "?#") != NULL) {
        status = err_set(err, STATUS_INVALID, "the hub's endpoint may have no ? and no #");
    }
    if (status == STATUS_OK) {
        status = read_token(&token, err);
    }
    if (status == STATUS_OK) {
        session->has_token = token.len > 0;
        config.endpoint = session->endpoint;
        config.token = session->has_token ? buf_str(&token) : NULL;
        status = transfer_create(&config, &session->transfer, err);
    }
    if (token.len > 0) {
        explicit_bzero(token.data, token.len);
    }
    buf_release(&token);
    return status;
}

static void session_close(struct session *session)
{
    transfer_destroy(&session->transfer);
    cache_release(&session->cache);
    hub_name_release(&session->name);
    free(session->endpoint);
}

struct text_sink {
    struct buf *text;
    struct err *err;
};

static enum status begin_text(void *arg, const struct transfer_answer *answer UNUSED)
{
    struct text_sink *sink = arg;

    buf_clear(sink->text);
    return STATUS_OK;
}

static enum status add_text(void *arg, const void *bytes, size_t n)
{
    struct text_sink *sink = arg;

    if (n > MAX_JSON - sink->text->len) {
        return err_set(sink->err, STATUS_LIMIT, "the hub's answer has more than %d bytes",
                       MAX_JSON);
    }
    buf_append(sink->text, bytes, n);
    return STATUS_OK;
}

/* One answer of the API. */
static enum status get_text(struct session *session, const char *url, struct buf *text,
                            struct transfer_answer *ret_answer, struct err *err)
{
    struct text_sink sink = {.text = text, .err = err};
    struct transfer_request request = {
        .url = url, .begin = begin_text, .write = add_text, .arg = &sink};
    struct retry retry = {0};

    for (;;) {
        struct transfer_answer answer = {0};
        enum status status = transfer_get(session->transfer, &request, &answer, err);

        if (status == STATUS_OK && answer.code == 200) {
            *ret_answer = answer;
            return STATUS_OK;
        }
        if (status == STATUS_OK) {
            status = session_refusal(session, &answer, NULL, err);
        }
        if (status != STATUS_LINK || (answer.code != 0 && !retry_is_temporary(answer.code))) {
            return status;
        }
        status = retry_wait(&retry, session, answer.retry_after_s, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

static enum status get_commit(struct session *session, struct err *err)
{
    struct transfer_answer answer;
    struct buf url = {0};
    struct buf text = {0};
    json_t *info = NULL;
    const char *sha;
    enum status status;

    buf_printf(&url, "%s/api/models/%s/revision/", session->endpoint, session->name.repo);
    session_url_append(&url, session->revision, false);
    status = get_text(session, buf_str(&url), &text, &answer, err);
    if (status == STATUS_OK) {
        status = json_parse(buf_str(&text), text.len, &info, err);
        if (status != STATUS_OK) {
            err_prefix(err, "%s: the hub's answer", session->name.repo);
        }
    }
    if (status == STATUS_OK) {
        sha = json_string_value(json_object_get(info, "sha"));
        if (sha == NULL || !hub_is_hex(sha, CACHE_COMMIT_DIGITS)) {
            status =
                err_set(err, STATUS_CORRUPT, "%s: the hub names no commit", session->name.repo);
        } else {
            memcpy(session->commit, sha, CACHE_COMMIT_BYTES);
        }
    }
    json_decref(info);
    buf_release(&text);
    buf_release(&url);
    return status;
}

static enum status get_listing(struct session *session, struct hub_listing *listing,
                               struct err *err)
{
    struct transfer_answer *answer = xalloc(sizeof(*answer));
    struct buf url = {0};
    struct buf text = {0};
    enum status status = STATUS_OK;

    buf_printf(&url, "%s/api/models/%s/tree/%s?recursive=true", session->endpoint,
               session->name.repo, session->commit);
    for (int page = 0; status == STATUS_OK && url.len > 0; page++) {
        if (page == MAX_PAGES) {
            status = err_set(err, STATUS_LIMIT, "more than %d pages of files", MAX_PAGES);
            break;
        }
        status = get_text(session, buf_str(&url), &text, answer, err);
        if (status == STATUS_OK) {
            status = hub_listing_parse(listing, buf_str(&text), text.len, err);
            if (status != STATUS_OK) {
                err_prefix(err, "%s: the hub's list of files", session->name.repo);
            }
            buf_clear(&url);
            buf_append_str(&url, answer->next);
        }
    }
    buf_release(&text);
    buf_release(&url);
    free(answer);
    return status;
}

/* The file to its blob and its link into the snapshot. */
static enum status fetch_file(struct session *session, const struct hub_file *file, struct err *err)
{
    enum status status = blob_fetch(session, file, err);

    return status == STATUS_OK
               ? cache_link(&session->cache, session->commit, file->path, file->hash, err)
               : status;
}

static enum status check_room(struct session *session, const struct hub_listing *listing,
                              struct err *err)
{
    uint64_t missing = 0;
    uint64_t free_bytes = 0;
    enum status status;

    session->progress = (struct hub_progress){0};
    for (size_t i = 0; i < listing->n; i++) {
        if (listing->files[i].wanted) {
            missing += blob_missing(session, &listing->files[i]);
            session->progress.bytes += listing->files[i].bytes;
        }
    }
    status = cache_free_bytes(&session->cache, &free_bytes, err);
    if (status == STATUS_OK && missing > free_bytes) {
        status = err_set(err, STATUS_LIMIT, "%s needs %.1f GiB more, and %s has %.1f GiB free",
                         session->name.repo, (double)missing / (1 << 30), session->cache.root,
                         (double)free_bytes / (1 << 30));
    }
    return status;
}

static bool is_weights(const char *path)
{
    return hub_ends_with(path, ".safetensors") || hub_ends_with(path, ".gguf");
}

/* The index comes first: it says which shards there are. */
static enum status fetch_index(struct session *session, struct hub_listing *listing,
                               const struct hub_file *index, struct err *err)
{
    struct buf text = {0};
    enum status status;
    char *blob;

    if (index == NULL) {
        return STATUS_OK;
    }
    session->progress.bytes = index->bytes;
    blob = cache_blob(&session->cache, index->hash);
    status = blob_fetch(session, index, err);
    if (status == STATUS_OK) {
        status = file_read_all(blob, MAX_JSON, &text, err);
    }
    if (status == STATUS_OK) {
        status = hub_choose_shards(listing, buf_str(&text), text.len, err);
    }
    buf_release(&text);
    free(blob);
    return status;
}

static enum status fetch_files(struct session *session, const struct hub_listing *listing,
                               struct err *err)
{
    enum status status = STATUS_OK;

    for (int weights = 0; weights < 2; weights++) {
        for (size_t i = 0; i < listing->n && status == STATUS_OK; i++) {
            const struct hub_file *file = &listing->files[i];

            if (file->wanted && is_weights(file->path) == (weights == 1)) {
                status = fetch_file(session, file, err);
            }
        }
    }
    return status;
}

static char *model_path(const struct cache *cache, const char *commit,
                        const struct hub_choice *choice)
{
    char *snapshot = cache_snapshot(cache, commit);
    struct buf path = {0};

    if (choice->gguf == NULL) {
        return snapshot;
    }
    buf_printf(&path, "%s/%s", snapshot, choice->gguf->path);
    free(snapshot);
    return buf_detach(&path);
}

enum status hub_pull(const struct hub_options *options, char **ret_path, struct err *err)
{
    struct session session = {0};
    struct hub_listing listing = {0};
    struct hub_choice choice = {0};
    enum status status = session_open(&session, options, err);

    if (status == STATUS_OK) {
        status = get_commit(&session, err);
    }
    if (status == STATUS_OK) {
        status = get_listing(&session, &listing, err);
    }
    if (status == STATUS_OK) {
        status = hub_choose(&listing, &session.name, &choice, err);
    }
    if (status == STATUS_OK) {
        status = cache_make(&session.cache, err);
    }
    if (status == STATUS_OK) {
        status = fetch_index(&session, &listing, choice.index, err);
    }
    if (status == STATUS_OK) {
        status = check_room(&session, &listing, err);
    }
    if (status == STATUS_OK) {
        status = fetch_files(&session, &listing, err);
    }
    if (status == STATUS_OK) {
        status = cache_set_ref(&session.cache, session.revision, session.commit, err);
    }
    if (status == STATUS_OK) {
        *ret_path = model_path(&session.cache, session.commit, &choice);
    }
    hub_listing_release(&listing);
    session_close(&session);
    return status;
}

/* Of a snapshot whose weights are listed in an index: are they there? */
static enum status check_shards(const char *snapshot, struct hub_listing *listing,
                                const struct hub_file *index, struct err *err)
{
    struct buf path = {0};
    struct buf text = {0};
    enum status status;

    if (index == NULL) {
        return STATUS_OK;
    }
    buf_printf(&path, "%s/%s", snapshot, index->path);
    status = file_read_all(buf_str(&path), MAX_JSON, &text, err);
    if (status == STATUS_OK) {
        status = hub_choose_shards(listing, buf_str(&text), text.len, err);
    }
    buf_release(&text);
    buf_release(&path);
    return status;
}

bool hub_is_name(const char *text)
{
    struct hub_name name = {0};
    bool ok = hub_name_parse(text, &name, NULL) == STATUS_OK;

    hub_name_release(&name);
    return ok;
}

enum status hub_resolve(const struct hub_options *options, char **ret_path, struct err *err)
{
    struct hub_listing listing = {0};
    struct hub_choice choice = {0};
    struct hub_name name = {0};
    struct cache cache = {0};
    char commit[CACHE_COMMIT_BYTES];
    char *snapshot = NULL;
    enum status status = open_place(options, &name, &cache, err);

    if (status == STATUS_OK) {
        status = cache_commit(&cache, revision_of(options), commit, err);
    }
    if (status == STATUS_OK) {
        snapshot = cache_snapshot(&cache, commit);
        status = cache_list(snapshot, &listing, err);
    }
    if (status == STATUS_OK) {
        status = hub_choose(&listing, &name, &choice, err);
    }
    if (status == STATUS_OK) {
        status = check_shards(snapshot, &listing, choice.index, err);
    }
    if (status == STATUS_OK) {
        *ret_path = model_path(&cache, commit, &choice);
    }
    free(snapshot);
    hub_listing_release(&listing);
    cache_release(&cache);
    hub_name_release(&name);
    return status;
}

enum status hub_open(const struct hub_options *options, char **ret_path, struct err *err)
{
    struct err own = {0};
    enum status status;
    struct stat info;

    if (stat(options->name, &info) == 0 || (errno != ENOENT && errno != ENOTDIR)) {
        *ret_path = xstrdup(options->name); /* whoever opens it says what is wrong with it */
        return STATUS_OK;
    }
    if (!hub_is_name(options->name)) {
        return err_set(err, STATUS_NOT_FOUND,
                       "%s: no such file or folder, nor the name of a hub's model (ORG/MODEL)",
                       options->name);
    }
    status = hub_resolve(options, ret_path, &own);
    if (status != STATUS_NOT_FOUND) {
        if (status != STATUS_OK && err != NULL) {
            *err = own;
        }
        return status;
    }
    status = hub_pull(options, ret_path, err);
    return status == STATUS_NOT_FOUND
               ? err_prefix(err, "%s is no file or folder here", options->name)
               : status;
}
