/* SPDX-License-Identifier: Apache-2.0 */
/* How a pull waits and what it says when it gives up. */
#include <stdarg.h>
#include <time.h>

#include "hub/session.h"

enum { MAX_TRIES = 5, FIRST_MS = 250, MAX_AFTER_S = 300, SLICE_MS = 100 };

bool session_go_on(struct session *session)
{
    const struct hub_watch *watch = &session->options->watch;

    return watch->progress == NULL || watch->progress(watch->arg, &session->progress);
}

void session_note(const struct session *session, const char *format, ...)
{
    const struct hub_watch *watch = &session->options->watch;
    char text[ERR_TEXT_BYTES];
    va_list args;

    if (watch->note != NULL) {
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        watch->note(watch->arg, text);
    }
}

enum status session_sleep(struct session *session, uint32_t ms, struct err *err)
{
    while (ms > 0) {
        uint32_t slice = MIN(ms, SLICE_MS);
        struct timespec time = {.tv_nsec = (long)slice * 1000000};

        if (!session_go_on(session)) {
            return err_set(err, STATUS_CANCELLED, "stopped");
        }
        nanosleep(&time, NULL);
        ms -= slice;
    }
    return STATUS_OK;
}

bool retry_is_temporary(int code)
{
    return code == 408 || code == 429 || code == 500 || code == 502 || code == 503 || code == 504;
}

enum status retry_wait(struct retry *retry, struct session *session, uint32_t after_s,
                       struct err *err)
{
    uint32_t ms = after_s > 0 ? after_s * 1000 : (uint32_t)FIRST_MS << retry->n;

    if (after_s > MAX_AFTER_S) {
        return err_prefix(err, "the hub asks us to come back in %u s", after_s);
    }
    if (++retry->n == MAX_TRIES) {
        return err_prefix(err, "tried %d times", MAX_TRIES);
    }
    session_note(session, "%s; trying again in %.4g s", err->text, ms * 1e-3);
    return session_sleep(session, ms, err);
}

enum status session_refusal(const struct session *session, const struct transfer_answer *answer,
                            const char *file, struct err *err)
{
    const char *repo = session->name.repo;
    const char *endpoint = session->endpoint;
    const char *why = answer->error_code;

    if (strcmp(why, "GatedRepo") == 0) {
        return err_set(err, STATUS_NOT_FOUND,
                       "%s is gated (%d): accept its terms at %s/%s, then %s", repo, answer->code,
                       endpoint, repo,
                       session->has_token ? "pull again with that account's token"
                                          : "set HF_TOKEN to a token of that account");
    }
    if (answer->code == 401 && session->has_token) {
        return err_set(err, STATUS_NOT_FOUND,
                       "%s: %s does not accept the token (401): it has expired or is none of this "
                       "hub's, or there is no such model",
                       repo, endpoint);
    }
    if (answer->code == 401) {
        return err_set(err, STATUS_NOT_FOUND,
                       "%s: %s wants a login (401): there is no model of this name, or it is "
                       "private or gated and needs HF_TOKEN",
                       repo, endpoint);
    }
    if (answer->code == 403) {
        return err_set(
            err, STATUS_NOT_FOUND,
            "%s: not allowed (403): private, gated, or the token has no right to read it", repo);
    }
    if (answer->code == 404 && file != NULL) {
        return err_set(err, STATUS_NOT_FOUND, "%s: the hub lists %s and does not have it (404)",
                       repo, file);
    }
    if (answer->code == 404 && strcmp(why, "RevisionNotFound") == 0) {
        return err_set(err, STATUS_NOT_FOUND, "%s: no revision %s (404)", repo, session->revision);
    }
    if (answer->code == 404) {
        return err_set(err, STATUS_NOT_FOUND, "%s: no model of this name at %s (404)%s", repo,
                       endpoint, session->has_token ? "" : "; a private one needs HF_TOKEN");
    }
    return err_set(err, STATUS_LINK, "%s: %s answers with status %d", file != NULL ? file : repo,
                   endpoint, answer->code);
}
