/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep chat: a conversation in the terminal. Ctrl-C stops an answer; at the prompt (so: a
 * second one) it leaves, as Ctrl-D does. The conversation is rendered whole for every turn, and
 * what the cache already holds of it is not computed again.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/line.h"
#include "cmd/talk.h"

static _Atomic bool interrupted;      /* the signal flag: an answer, or the wait for a line, ends */
static volatile sig_atomic_t leaving; /* the signal that ends the chat; 0: none */

static void on_signal(int number)
{
    leaving = number == SIGINT ? leaving : number;
    interrupted = true;
}

/* From here on signals reach this thread again, as a terminal program wants them. */
static void take_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: reading ends */
    sigset_t none;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

struct chat {
    struct talk talk;
    json_t *messages; /* the conversation so far */
    bool terminal;
};

static void say(const struct chat *chat, const char *text)
{
    if (chat->terminal) {
        fputs(text, stdout);
        fflush(stdout);
    }
}

static void add_message(struct chat *chat, const char *role, const char *text, size_t size)
{
    json_t *content = json_stringn(text, size);

    /* an answer cut inside a character is kept up to there */
    while (content == NULL && size > 0) {
        content = json_stringn(text, --size);
    }
    json_array_append_new(chat->messages,
                          json_pack("{s:s, s:o}", "role", role, "content", content));
}

static void start_conversation(struct chat *chat, const char *system)
{
    json_decref(chat->messages);
    chat->messages = json_array();
    if (system != NULL) {
        add_message(chat, "system", system, strlen(system));
    }
}

static enum status answer(struct chat *chat, const char *line, struct err *err)
{
    struct talk_result result = {0};
    struct token_ids ids = {0};
    struct buf text = {0};
    enum status status;

    add_message(chat, "user", line, strlen(line));
    status = talk_encode_messages(&chat->talk, chat->messages, &ids, err);
    if (status == STATUS_OK && ids.n > 0) {
        interrupted = false;
        status = talk_answer(&chat->talk, &ids, &text, &result, err);
        interrupted = false; /* that was the answer's; the next one ends the wait for a line */
        chat->talk.seed = (chat->talk.seed + 1) & INT64_MAX;
    }
    if (status == STATUS_OK) {
        putchar('\n');
        if (result.finish == BATCH_CANCELLED) {
            say(chat, "(stopped)\n");
        } else if (result.finish == BATCH_LENGTH) {
            say(chat, "(cut: the limit on tokens is reached; /clear starts afresh)\n");
        }
        fflush(stdout);
        add_message(chat, "assistant", buf_str(&text), text.len);
        if (chat->talk.options->verbose) {
            talk_print_statistics(&chat->talk, &result);
        }
    } else { /* the message could not be answered: forget it, so that the next one can be */
        json_array_remove(chat->messages, json_array_size(chat->messages) - 1);
    }
    token_ids_release(&ids);
    buf_release(&text);
    return status;
}

static const char help_text[] = "/help          this text\n"
                                "/clear         forget the conversation\n"
                                "/system TEXT   forget it and begin with this system message\n"
                                "/quit          leave (as Ctrl-D; Ctrl-C stops an answer)\n";

/* True if the line was a command; *ret_leave is set by /quit. */
static bool run_command(struct chat *chat, const char *line, bool *ret_leave)
{
    if (strcmp(line, "/help") == 0) {
        fputs(help_text, stdout);
    } else if (strcmp(line, "/clear") == 0) {
        start_conversation(chat, chat->talk.options->system);
        say(chat, "(cleared)\n");
    } else if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        *ret_leave = true;
    } else if (strncmp(line, "/system", 7) == 0 && (line[7] == ' ' || line[7] == '\0')) {
        const char *text = line + 7 + strspn(line + 7, " ");

        start_conversation(chat, *text == '\0' ? NULL : text);
        say(chat, *text == '\0' ? "(no system message)\n" : "(system message set)\n");
    } else if (line[0] == '/' && line[strspn(line + 1, "abcdefghijklmnopqrstuvwxyz") + 1] == '\0') {
        printf("%s is no command; /help lists them\n", line);
    } else {
        return false;
    }
    fflush(stdout);
    return true;
}

/* The next line, while the world is looked after by another thread. NULL: there is none any more,
 * or a signal has come. On a pipe no signal can be missed: it is let in by the wait itself. */
static const char *next_line(struct chat *chat, struct line *input)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    const char *line = NULL;
    sigset_t all;
    sigset_t none;

    sigfillset(&all);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    service_idle_begin(&chat->talk.service);
    if (chat->terminal || (!interrupted && ppoll(&in, 1, NULL, &none) > 0)) {
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        line = interrupted ? NULL : line_read(input);
    }
    service_idle_end(&chat->talk.service);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    return line;
}

static enum status converse(struct chat *chat, struct err *err)
{
    struct line *input = line_create(chat->terminal ? "> " : "");
    enum status status = STATUS_OK;
    bool leave = false;

    while (!leave && leaving == 0 && status == STATUS_OK) {
        const char *line = next_line(chat, input);

        if (line == NULL) {
            say(chat, "\n");
            break;
        }
        if (line[0] == '\0' || run_command(chat, line, &leave)) {
            continue;
        }
        status = answer(chat, line, err);
        if (status == STATUS_INVALID || status == STATUS_LIMIT) {
            log_error("%s", err->text); /* of this message: the conversation goes on */
            status = STATUS_OK;
        }
    }
    line_destroy(&input);
    return status;
}

static enum status open_chat_world(struct chat *chat, const struct options *options,
                                   struct err *err)
{
    enum status status = talk_open_text(&chat->talk, options, err);

    if (status == STATUS_OK && chat->talk.prompt == NULL) {
        status = err_set(err, STATUS_UNSUPPORTED,
                         "%s has no chat template; `lockstep run --raw` continues a text",
                         options->path);
    }
    if (status == STATUS_OK) {
        status = talk_open_world(&chat->talk, options, (uint32_t)MAX(options->ctx, 0), err);
    }
    return status;
}

int cmd_chat(const struct options *options)
{
    struct chat chat = {.terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1};
    struct err err = {0};
    int exit_status;
    enum status status = open_chat_world(&chat, options, &err);

    if (status == STATUS_OK) {
        service_leave_signals(&chat.talk.service);
        take_signals();
        chat.talk.stop = &interrupted;
        start_conversation(&chat, options->system);
        if (chat.terminal && !options->verbose) {
            log_set_level(LOG_ERROR); /* a rebuild is a pause, and not a line in the answer */
        }
        if (chat.terminal) {
            const json_t *rank =
                supervisor_answer(chat.talk.service.supervisor, MESSAGE_LOAD_OK, 0);

            printf("%s, %s, %u rank%s of %llu thread%s. /help lists commands.\n", options->path,
                   message_text(rank, "arithmetic", ""), chat.talk.service.n_ranks,
                   chat.talk.service.n_ranks == 1 ? "" : "s",
                   (unsigned long long)message_uint(rank, "threads", 0),
                   message_uint(rank, "threads", 0) == 1 ? "" : "s");
        }
        status = converse(&chat, &err);
    }
    exit_status = leaving != 0 ? 128 + leaving : service_exit(&chat.talk.service, status, &err);
    json_decref(chat.messages);
    talk_release(&chat.talk);
    return exit_status;
}
