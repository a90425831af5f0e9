/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep chat: a conversation in the terminal. Ctrl-C stops an answer; at the prompt (so: a
 * second one) it leaves, as Ctrl-D does. The conversation is rendered whole for every turn, and
 * what the cache already holds of it is not computed again.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/line.h"
#include "cmd/talk.h"

static _Atomic bool interrupted; /* the signal flag */

static void on_interrupt(int number)
{
    (void)number;
    interrupted = true;
}

struct chat {
    struct talk talk;
    json_t *messages;        /* the conversation so far */
    struct token_ids cached; /* what the sequence was computed from */
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

/* Drops from the cache what the new prompt does not begin with; at least its last token is
 * computed. */
static void keep_common_prefix(struct chat *chat, const struct token_ids *ids)
{
    uint32_t limit = (uint32_t)MIN(chat->talk.sequence.pos, MIN(chat->cached.n, ids->n - 1));
    uint32_t same = 0;

    while (same < limit && chat->cached.data[same] == ids->data[same]) {
        same++;
    }
    sequence_truncate(&chat->talk.sequence, same);
}

static enum status answer(struct chat *chat, const char *line, struct err *err)
{
    struct generate_result result = {0};
    struct token_ids ids = {0};
    struct buf text = {0};
    enum status status;

    add_message(chat, "user", line, strlen(line));
    status = talk_encode_messages(&chat->talk, chat->messages, &ids, err);
    if (status == STATUS_OK && ids.n > 0) {
        keep_common_prefix(chat, &ids);
        interrupted = false;
        status = talk_answer(&chat->talk, &ids, &text, &result, err);
        chat->talk.seed = (chat->talk.seed + 1) & INT64_MAX;
    }
    if (status == STATUS_OK) {
        putchar('\n');
        if (result.finish == GENERATE_CANCELLED) {
            say(chat, "(stopped)\n");
        } else if (result.finish == GENERATE_LENGTH) {
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
    token_ids_release(&chat->cached);
    chat->cached = ids;
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

static enum status converse(struct chat *chat, struct err *err)
{
    struct line *input = line_create(chat->terminal ? "> " : "");
    enum status status = STATUS_OK;
    bool leave = false;

    while (!leave && status == STATUS_OK) {
        const char *line = line_read(input);

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

static enum status open_chat_engine(struct chat *chat, const struct options *options,
                                    struct err *err)
{
    enum status status = talk_open_text(&chat->talk, options, err);

    if (status == STATUS_OK && chat->talk.prompt == NULL) {
        status = err_set(err, STATUS_UNSUPPORTED,
                         "%s has no chat template; `lockstep run --raw` continues a text",
                         options->path);
    }
    if (status == STATUS_OK) {
        status = talk_open_engine(&chat->talk, options, (uint32_t)MAX(options->ctx, 0), err);
    }
    return status;
}

int cmd_chat(const struct options *options)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: reading ends */
    struct chat chat = {.terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1};
    struct err err = {0};
    enum status status = open_chat_engine(&chat, options, &err);

    if (status == STATUS_OK) {
        sigaction(SIGINT, &action, NULL);
        chat.talk.stop = &interrupted;
        start_conversation(&chat, options->system);
        if (chat.terminal) {
            printf("%s, %s, %u threads. /help lists commands.\n", options->path,
                   engine_arith_class(chat.talk.engine), engine_n_threads(chat.talk.engine));
        }
        status = converse(&chat, &err);
    }
    json_decref(chat.messages);
    token_ids_release(&chat.cached);
    talk_release(&chat.talk);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
