/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep run: the answer to one prompt, streamed to standard output. */
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/talk.h"

/* The prompt's ids: given as such, or its text inside the chat template (or as it is). */
static enum status encode_prompt(struct talk *talk, const struct options *options,
                                 struct token_ids *ids, struct err *err)
{
    enum status status = STATUS_OK;
    json_t *messages;

    if (options->given.prompt_ids) {
        uint32_t *given = NULL;
        size_t n = 0;

        status = options_parse_ids(options->prompt_ids, &given, &n, err);
        for (size_t i = 0; i < n && status == STATUS_OK; i++) {
            status = token_ids_push(ids, (int32_t)given[i]);
        }
        free(given);
        return status;
    }
    if (options->raw || talk->prompt == NULL) {
        if (!options->raw) {
            log_warn("%s has no chat template: the prompt is continued as it stands",
                     options->path);
        }
        return tokenizer_encode(talk->tokenizer, options->prompt, strlen(options->prompt),
                                TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL, ids, err);
    }
    messages = json_array();
    if (options->given.system) {
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", "system", "content", options->system));
    }
    json_array_append_new(messages,
                          json_pack("{s:s, s:s}", "role", "user", "content", options->prompt));
    status = talk_encode_messages(talk, messages, ids, err);
    json_decref(messages);
    return status;
}

static enum status run(struct talk *talk, const struct options *options, struct err *err)
{
    struct talk_result result = {0};
    struct token_ids ids = {0};
    bool needs_text = !options->given.prompt_ids || !options->ids;
    uint64_t context = 0;
    enum status status = needs_text ? talk_open_text(talk, options, err) : STATUS_OK;

    if (status == STATUS_OK) {
        status = encode_prompt(talk, options, &ids, err);
    }
    if (status == STATUS_OK && ids.n == 0) {
        status = err_set(err, STATUS_INVALID, "the prompt has no tokens");
    }
    if (options->given.ctx) {
        context = (uint64_t)options->ctx;
    } else if (options->max_tokens >= 0) {
        context = ids.n + (uint64_t)options->max_tokens;
    }
    if (status == STATUS_OK) {
        status = talk_open_world(talk, options, (uint32_t)MIN(context, UINT32_MAX), err);
    }
    if (status == STATUS_OK) {
        status = talk_answer(talk, &ids, NULL, &result, err);
    }
    if (status == STATUS_OK) {
        if (options->ids || isatty(STDOUT_FILENO) == 1) {
            putchar('\n');
            fflush(stdout);
        }
        talk_print_statistics(talk, &result);
    }
    token_ids_release(&ids);
    return status;
}

int cmd_run(const struct options *options)
{
    struct talk talk = {0};
    struct err err = {0};
    enum status status;
    int exit_status;

    if (options->given.prompt == options->given.prompt_ids) {
        return cmd_usage(options, "either --prompt or --prompt-ids is needed");
    }
    status = run(&talk, options, &err);
    exit_status = service_exit(&talk.service, status, &err);
    talk_release(&talk);
    return exit_status;
}
