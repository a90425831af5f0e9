/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a repository to its blob:
 *
 *   lock ─▶ there? ─▶ hash what .incomplete holds ─▶ ask for the rest ─▶ checksum ─▶ rename
 *                                     ▲                   │ broken, busy: wait
 *                                     └───────────────────┘
 *
 * A server that ignores the range sends everything: then the file begins anew. A wrong checksum
 * gets one more download from the start, because what an earlier process left may be the reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "hub/hash.h"
#include "hub/session.h"

enum { READ_BYTES = 1 << 20, LOCK_POLL_MS = 200 };

struct fetch {
    struct session *session;
    const struct hub_file *file;
    char *path; /* of .incomplete */
    int fd;
    struct hash *hash; /* of the first `at` bytes */
    uint64_t at;
    struct err *err;
};

static bool has_size(const char *path, uint64_t bytes)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == bytes;
}

uint64_t blob_missing(const struct session *session, const struct hub_file *file)
{
    char *blob = cache_blob(&session->cache, file->hash);
    char *incomplete = cache_incomplete(&session->cache, file->hash);
    uint64_t missing = has_size(blob, file->bytes) ? 0 : file->bytes;
    struct stat info;

    if (missing > 0 && stat(incomplete, &info) == 0) {
        missing -= MIN(missing, (uint64_t)info.st_size);
    }
    free(incomplete);
    free(blob);
    return missing;
}

/* How far it is; the total moves along. */
static void set_at(struct fetch *fetch, uint64_t at)
{
    struct hub_progress *progress = &fetch->session->progress;

    progress->done += at - progress->file_done;
    progress->file_done = at;
    fetch->at = at;
}

static enum status restart(struct fetch *fetch)
{
    if (ftruncate(fetch->fd, 0) != 0) {
        return err_set(fetch->err, STATUS_IO, "%s: %s", fetch->path, strerror(errno));
    }
    hash_restart(fetch->hash);
    set_at(fetch, 0);
    return STATUS_OK;
}

static enum status on_begin(void *arg, const struct transfer_answer *answer)
{
    struct fetch *fetch = arg;
    const struct hub_file *file = fetch->file;
    bool ranged = answer->code == 206;
    uint64_t bytes = ranged ? answer->total : answer->length;

    if (ranged && answer->first != fetch->at) {
        return err_set(fetch->err, STATUS_CORRUPT, "%s: the server sends another range",
                       file->path);
    }
    if ((ranged ? answer->total > 0 : answer->has_length) && bytes != file->bytes) {
        return err_set(fetch->err, STATUS_CORRUPT,
                       "%s: the server has %llu bytes, the hub's list says %llu", file->path,
                       (unsigned long long)bytes, (unsigned long long)file->bytes);
    }
    if (answer->from_endpoint && hub_is_hex(answer->etag, strlen(file->hash)) &&
        strcmp(answer->etag, file->hash) != 0) {
        return err_set(fetch->err, STATUS_CORRUPT, "%s: its etag is %s, the hub's list says %s",
                       file->path, answer->etag, file->hash);
    }
    if (!ranged && fetch->at > 0) {
        session_note(fetch->session, "%s: the server does not continue it, from the start again",
                     file->path);
        return restart(fetch);
    }
    return STATUS_OK;
}

static enum status on_write(void *arg, const void *bytes, size_t n)
{
    struct fetch *fetch = arg;
    const char *from = bytes;

    if (n > fetch->file->bytes - fetch->at) {
        return err_set(fetch->err, STATUS_CORRUPT, "%s: the server sends more than %llu bytes",
                       fetch->file->path, (unsigned long long)fetch->file->bytes);
    }
    while (n > 0) {
        ssize_t written = pwrite(fetch->fd, from, n, (off_t)fetch->at);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return err_set(fetch->err, errno == ENOSPC ? STATUS_LIMIT : STATUS_IO, "%s: %s",
                           fetch->path, strerror(errno));
        }
        hash_add(fetch->hash, from, (size_t)written);
        fetch->session->progress.fetched += (uint64_t)written;
        set_at(fetch, fetch->at + (uint64_t)written);
        from += written;
        n -= (size_t)written;
    }
    return STATUS_OK;
}

/* Takes over what an earlier attempt has left. */
static enum status take_rest(struct fetch *fetch)
{
    char *bytes = xalloc(READ_BYTES);
    enum status status = STATUS_OK;
    struct stat info;

    if (fstat(fetch->fd, &info) != 0) {
        status = err_set(fetch->err, STATUS_IO, "%s: %s", fetch->path, strerror(errno));
    } else if ((uint64_t)info.st_size > fetch->file->bytes) {
        status = restart(fetch);
        info.st_size = 0;
    }
    while (status == STATUS_OK && fetch->at < (uint64_t)info.st_size) {
        size_t n = (size_t)MIN((uint64_t)info.st_size - fetch->at, READ_BYTES);

        status = file_read_at(fetch->fd, fetch->path, fetch->at, n, bytes, fetch->err);
        if (status == STATUS_OK) {
            hash_add(fetch->hash, bytes, n);
            set_at(fetch, fetch->at + n);
        }
        if (status == STATUS_OK && !session_go_on(fetch->session)) {
            status = err_set(fetch->err, STATUS_CANCELLED, "stopped");
        }
    }
    free(bytes);
    return status;
}

/* One request for what is missing. *ret_after_s is for STATUS_LINK. */
static enum status ask(struct fetch *fetch, uint32_t *ret_after_s)
{
    struct session *session = fetch->session;
    struct transfer_request request = {.offset = fetch->at,
                                       .if_range = fetch->file->hash,
                                       .begin = on_begin,
                                       .write = on_write,
                                       .arg = fetch};
    struct transfer_answer answer = {0};
    struct buf url = {0};
    enum status status;

    buf_printf(&url, "%s/%s/resolve/%s/", session->endpoint, session->name.repo, session->commit);
    session_url_append(&url, fetch->file->path, true);
    request.url = buf_str(&url);
    status = transfer_get(session->transfer, &request, &answer, fetch->err);
    buf_release(&url);
    if (status != STATUS_OK) {
        return status;
    }
    if (answer.code == 200 || answer.code == 206) {
        return fetch->at == fetch->file->bytes
                   ? STATUS_OK
                   : err_set(fetch->err, STATUS_LINK, "%s: the connection ended at byte %llu",
                             fetch->file->path, (unsigned long long)fetch->at);
    }
    if (answer.code == 416 && fetch->at > 0) {
        status = restart(fetch);
        return status != STATUS_OK
                   ? status
                   : err_set(fetch->err, STATUS_LINK, "%s: the server does not continue it (416)",
                             fetch->file->path);
    }
    *ret_after_s = answer.retry_after_s;
    status = session_refusal(session, &answer, fetch->file->path, fetch->err);
    return retry_is_temporary(answer.code) ? STATUS_LINK
           : status == STATUS_LINK         ? STATUS_CORRUPT
                                           : status;
}

/* Until all bytes are there. */
static enum status fetch_all(struct fetch *fetch)
{
    struct retry retry = {0};
    enum status status = STATUS_OK;

    while (status == STATUS_OK && fetch->at < fetch->file->bytes) {
        uint64_t before = fetch->session->progress.fetched;
        uint32_t after_s = 0;

        status = ask(fetch, &after_s);
        if (status == STATUS_LINK) {
            if (fetch->session->progress.fetched > before) {
                retry.n = 0;
            }
            status = retry_wait(&retry, fetch->session, after_s, fetch->err);
        }
    }
    return status;
}

static enum status fetch_checked(struct fetch *fetch)
{
    enum status status = take_rest(fetch);
    char text[HASH_TEXT_BYTES];

    for (int round = 0; status == STATUS_OK; round++) {
        status = fetch_all(fetch);
        if (status != STATUS_OK) {
            break;
        }
        hash_text(fetch->hash, text);
        if (strcmp(text, fetch->file->hash) == 0) {
            break;
        }
        status = restart(fetch);
        if (status == STATUS_OK && round > 0) {
            status = err_set(fetch->err, STATUS_CORRUPT,
                             "%s: its checksum is %s, the hub's list says %s", fetch->file->path,
                             text, fetch->file->hash);
        } else if (status == STATUS_OK) {
            session_note(fetch->session, "%s: wrong checksum, from the start again",
                         fetch->file->path);
        }
    }
    return status;
}

static enum status take_lock(struct session *session, const struct hub_file *file, int *ret_fd,
                             struct err *err)
{
    bool told = false;

    for (;;) {
        enum status status = cache_lock(&session->cache, file->hash, ret_fd, err);

        if (status != STATUS_PENDING) {
            return status;
        }
        if (!told) {
            session_note(session, "%s: waiting for another process that fetches it", file->path);
            told = true;
        }
        status = session_sleep(session, LOCK_POLL_MS, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

/* With the lock held and without the blob. */
static enum status fetch_locked(struct session *session, const struct hub_file *file,
                                const char *blob, struct err *err)
{
    struct fetch fetch = {.session = session,
                          .file = file,
                          .path = cache_incomplete(&session->cache, file->hash),
                          .hash = hash_create(strlen(file->hash), file->bytes),
                          .err = err};
    enum status status;

    fetch.fd = open(fetch.path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fetch.fd < 0) {
        status = err_set(err, STATUS_IO, "%s: %s", fetch.path, strerror(errno));
        goto out;
    }
    status = fetch_checked(&fetch);
    if (status == STATUS_OK && (fdatasync(fetch.fd) != 0 || rename(fetch.path, blob) != 0)) {
        status = err_set(err, errno == ENOSPC ? STATUS_LIMIT : STATUS_IO, "%s: %s", blob,
                         strerror(errno));
    }
    if (status != STATUS_OK && fetch.at == 0) {
        unlink(fetch.path); /* nothing to go on from */
    }
    close(fetch.fd);
out:
    hash_destroy(&fetch.hash);
    free(fetch.path);
    return status;
}

enum status blob_fetch(struct session *session, const struct hub_file *file, struct err *err)
{
    char *blob = cache_blob(&session->cache, file->hash);
    enum status status = STATUS_OK;
    int lock = -1;

    session->progress.file = file->path;
    session->progress.file_bytes = file->bytes;
    session->progress.file_done = 0;
    if (!has_size(blob, file->bytes)) {
        status = take_lock(session, file, &lock, err);
        if (status == STATUS_OK && !has_size(blob, file->bytes)) {
            status = fetch_locked(session, file, blob, err);
        }
    }
    if (status == STATUS_OK) {
        session->progress.done += file->bytes - session->progress.file_done;
        session->progress.file_done = file->bytes;
        if (!session_go_on(session)) {
            status = err_set(err, STATUS_CANCELLED, "stopped");
        }
    }
    if (lock >= 0) {
        close(lock);
    }
    free(blob);
    return status;
}
