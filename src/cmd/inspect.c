/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep inspect: opens everything a model consists of, checks one against the other, and says
 * what is there. Only headers, the configuration and the tokenizer are read, never the weights.
 */
#include "cmd/inspect.h"

#include "base/mem.h"
#include "chat/prompt.h"
#include "cmd/cmd.h"
#include "cmd/open_chat.h"
#include "cmd/open_tokenizer.h"
#include "engine/generation.h"
#include "weights/gguf.h"
#include "weights/path.h"

/* A companion file of a folder, or a key of a GGUF file's metadata. */
static bool has_part(const struct weights *weights, const char *file, const char *key)
{
    struct weights_path folder = {.folder = (char *)weights_folder(weights)};
    char *found;

    if (weights_format(weights) == WEIGHTS_FORMAT_GGUF) {
        return gguf_find(weights, key) != NULL;
    }
    found = weights_path_find(&folder, file);
    free(found);
    return found != NULL;
}

static const char sample_request[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}";

/* Renders one message, so that a template which we cannot run is noticed here. What it says by
 * raise_exception is its own business. */
static enum status inspect_template(struct inspect_report *report, struct err *err)
{
    struct chat_prompt *prompt = NULL;
    struct buf message = {0};
    json_t *request = NULL;
    enum status status = open_chat(report->path, &prompt, err);

    if (status == STATUS_NOT_FOUND) {
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return status;
    }
    report->has_template = true;
    status = json_parse(sample_request, strlen(sample_request), &request, err);
    if (status == STATUS_OK &&
        chat_prompt_render(prompt, request, &report->sample, &message) != STATUS_OK &&
        strncmp(buf_str(&message), "line ", 5) == 0) {
        status = err_set(err, STATUS_INVALID, "chat template: %s", buf_str(&message));
    }
    json_decref(request);
    buf_release(&message);
    chat_prompt_destroy(&prompt);
    return status;
}

static enum status inspect(struct inspect_report *report, struct err *err)
{
    struct generation_defaults generation;
    enum status status = weights_open(report->path, &report->weights, err);

    if (status == STATUS_OK) {
        status = model_config_load(report->weights, &report->config, err);
    }
    if (status == STATUS_OK) {
        status = model_tensors_check(&report->config, report->weights, err);
    }
    if (status == STATUS_OK) {
        status = generation_defaults_load(report->weights, &generation, err);
    }
    if (status == STATUS_OK &&
        has_part(report->weights, "tokenizer.json", "tokenizer.ggml.model")) {
        status = open_tokenizer(report->path, &report->tokenizer, err);
    }
    if (status == STATUS_OK) {
        status = inspect_template(report, err);
    }
    return status == STATUS_OK ? inspect_shares(report, err) : status;
}

/* Every message begins with the path that the user gave. */
static void name_path(const char *path, struct err *err)
{
    size_t n = strlen(path);
    size_t end = n > 0 && path[n - 1] == '/' ? n - 1 : n; /* files may be joined without it */

    if (strncmp(err->text, path, n) == 0 && err->text[n] == ':') {
        return;
    }
    if (strncmp(err->text, path, end) == 0 && err->text[end] == '/') {
        char rest[ERR_TEXT_BYTES];

        snprintf(rest, sizeof(rest), "%s", err->text + end + 1);
        err_set(err, err->status, "%s: %s", path, rest);
    } else {
        err_prefix(err, "%s", path);
    }
}

int cmd_inspect(const struct options *options)
{
    struct inspect_report report = {.path = options->path, .n_ranks = (uint32_t)options->shares};
    struct err err = {0};
    int exit_status = CMD_OK;

    report.bf16 = model_bf16_from_name(options->bf16);
    report.kv_given = kv_type_from_name(options->kv, &report.kv_type); /* but for auto */
    if (inspect(&report, &err) != STATUS_OK) {
        name_path(options->path, &err);
        exit_status = cmd_fail(&err);
    } else if (options->json) {
        inspect_print_json(&report);
    } else {
        inspect_print_text(&report);
    }
    free(report.ranks);
    buf_release(&report.sample);
    tokenizer_destroy(&report.tokenizer);
    weights_close(&report.weights);
    return exit_status;
}
