/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from all their sources. Each source is read into a set of options of its own, checked
 * whole, and then fills what the sources above it have left open:
 *
 *   flags > LOCKSTEP_NAME=... > [model NAME] section > rest of lockstep.conf > default
 */
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "config/options_file.h"
#include "config/options_priv.h"

#define CONFIG_FLAG "--config"

/* What has been read, so that texts of options can point to it. */
struct options_texts {
    char **copies; /* of the environment's */
    size_t n_copies;
    struct buf file;
    struct options_file parsed; /* its models become the options' */
};

static void texts_destroy(struct options_texts **ref)
{
    struct options_texts *texts = *ref;

    *ref = NULL;
    if (texts == NULL) {
        return;
    }
    for (size_t i = 0; i < texts->n_copies; i++) {
        free(texts->copies[i]);
    }
    free(texts->copies);
    options_file_release(&texts->parsed);
    buf_release(&texts->file);
    free(texts);
}

static char *keep(struct options_texts *texts, const char *text)
{
    texts->copies = xrealloc(texts->copies, texts->n_copies + 1, sizeof(*texts->copies));
    texts->copies[texts->n_copies] = xstrdup(text);
    return texts->copies[texts->n_copies++];
}

/* --max-queue is LOCKSTEP_MAX_QUEUE. */
void option_env_name(const struct option_info *info, struct buf *buf)
{
    buf_append_str(buf, "LOCKSTEP_");
    for (const char *at = info->flag + 2; *at != '\0'; at++) {
        buf_append_char(buf, *at == '-'                 ? '_'
                             : *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A')
                                                        : *at);
    }
}

/* The items of text, cut at its commas. */
static enum status set_env_list(struct options *options, const struct option_info *info,
                                const char *name, char *text, struct err *err)
{
    char *rest = text;
    char *item;

    while ((item = strsep(&rest, ",")) != NULL) {
        enum status status;

        item += strspn(item, " \t");
        for (size_t n = strlen(item); n > 0 && (item[n - 1] == ' ' || item[n - 1] == '\t'); n--) {
            item[n - 1] = '\0';
        }
        if (*item == '\0') {
            continue;
        }
        status = option_set(options, info, name, item, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* A variable that is set but empty counts as not set, as scripts that pass on what they may have
 * leave it so; only an empty LOCKSTEP_CONFIG says something: no file. */
static enum status read_env(struct options *options, struct options_texts *texts, struct err *err)
{
    enum status status = STATUS_OK;

    option_set_fallbacks(options);
    for (size_t i = 0; i < n_option_infos && status == STATUS_OK; i++) {
        const struct option_info *info = &option_infos[i];
        struct buf name = {0};
        const char *text;

        if (!option_accepted(options->command, info) || (info->commands & OPTION_NOT_ENV) != 0) {
            continue;
        }
        option_env_name(info, &name);
        text = getenv(buf_str(&name));
        if (text == NULL || (text[0] == '\0' && strcmp(info->flag, CONFIG_FLAG) != 0)) {
            buf_release(&name);
            continue;
        }
        if (info->type == OPTION_TYPE_LIST) {
            status = set_env_list(options, info, buf_str(&name), keep(texts, text), err);
        } else {
            status = option_set(options, info, buf_str(&name), keep(texts, text), err);
        }
        buf_release(&name);
    }
    return status;
}

/* Where the file is if nobody has said so: the user's own, then the machine's. False: nowhere. */
static bool find_file(struct buf *path)
{
    const char *folder = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    struct stat info;

    if (folder != NULL && folder[0] == '/') {
        buf_printf(path, "%s/lockstep/lockstep.conf", folder);
    } else if (home != NULL && home[0] == '/') {
        buf_printf(path, "%s/.config/lockstep/lockstep.conf", home);
    }
    if (path->len > 0 && stat(path->data, &info) == 0) {
        return true;
    }
    buf_clear(path);
    buf_append_str(path, OPTIONS_SYSTEM_FILE);
    return stat(path->data, &info) == 0;
}

/* config is the path that the user gave, "" for none; NULL if the user gave none. */
static enum status read_file(enum command command, const char *config, struct options_texts *texts,
                             struct err *err)
{
    struct buf path = {0};
    enum status status = STATUS_OK;

    if (config != NULL ? config[0] == '\0' : !find_file(&path)) {
        option_set_fallbacks(&texts->parsed.general);
        goto out;
    }
    if (config != NULL) {
        buf_append_str(&path, config);
    }
    status = file_read_all(buf_str(&path), OPTIONS_FILE_MAX_BYTES, &texts->file, err);
    if (status == STATUS_OK) {
        buf_reserve(&texts->file, 1); /* an empty file has a zero byte too */
        texts->file.data[texts->file.len] = '\0';
        status = options_file_parse(command, buf_str(&path), texts->file.data, texts->file.len,
                                    &texts->parsed, err);
    }
out:
    buf_release(&path);
    return status;
}

/* The section that the words on the command line mean; NULL. */
static const struct options_model *choose_model(const struct options_file *file, const char *path)
{
    for (uint32_t i = 0; path != NULL && i < file->n_models; i++) {
        if (strcmp(file->models[i].name, path) == 0) {
            return &file->models[i];
        }
    }
    for (uint32_t i = 0; path != NULL && i < file->n_models; i++) {
        if (strcmp(file->models[i].path, path) == 0) {
            return &file->models[i];
        }
    }
    return NULL;
}

/* Makes of each section all that holds for its model. */
static void complete_models(struct options_file *file, const struct options *above)
{
    for (uint32_t i = 0; i < file->n_models; i++) {
        struct options_model *model = &file->models[i];
        struct options all = *above;

        option_fill(&all, &model->options);
        option_fill(&all, &file->general);
        all.path = model->path;
        all.model_name = model->name;
        model->options = all;
    }
}

enum status options_load(enum command command, int n, char *const *args,
                         struct options *ret_options, struct err *err)
{
    struct options options;
    struct options env = {.command = command};
    struct options_texts *texts;
    const struct options_model *model;
    enum status status = options_parse(command, n, args, &options, err);

    if (status != STATUS_OK || options.help) { /* help comes also where the file is broken */
        if (status == STATUS_OK) {
            *ret_options = options;
        }
        return status;
    }
    texts = xalloc(sizeof(*texts));
    status = read_env(&env, texts, err);
    if (status == STATUS_OK) {
        option_fill(&options, &env);
        status = read_file(command, options.config, texts, err);
    }
    if (status != STATUS_OK) {
        texts_destroy(&texts);
        return status;
    }
    complete_models(&texts->parsed, &options);
    model = choose_model(&texts->parsed, options.path);
    if (model != NULL) {
        options = model->options;
    } else {
        option_fill(&options, &texts->parsed.general);
    }
    options.models = texts->parsed.models;
    options.n_models = texts->parsed.n_models;
    options.texts = texts;
    *ret_options = options;
    return STATUS_OK;
}

void options_release(struct options *options)
{
    texts_destroy(&options->texts);
    *options = (struct options){0};
}
