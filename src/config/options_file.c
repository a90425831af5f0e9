/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of lockstep.conf: lines, entries, sections. */
#include "config/options_file.h"

#include "base/mem.h"
#include "config/options_priv.h"

/* Names and words that a message may repeat; longer ones are no option of ours. */
enum { NAME_MAX_BYTES = 40 };

struct reader {
    enum command command;
    struct options_file file;
    struct options_model *model; /* whose section this is; NULL before the first */
    uint32_t line;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static char *skip_blanks(char *at)
{
    while (is_blank(*at)) {
        at++;
    }
    return at;
}

/* Ends text before the blanks at its end. */
static void cut_blanks(char *text)
{
    size_t n = strlen(text);

    while (n > 0 && is_blank(text[n - 1])) {
        n--;
    }
    text[n] = '\0';
}

static bool is_rest_empty(char *at)
{
    at = skip_blanks(at);
    return *at == '\0' || *at == '#';
}

/* The value that text (without blanks before it) holds, cut in place. */
static enum status take_value(char *text, const char **ret_value, struct err *err)
{
    if (text[0] == '"') {
        char *end = strchr(text + 1, '"');

        if (end == NULL) {
            return err_set(err, STATUS_INVALID, "the value has no closing \"");
        }
        if (!is_rest_empty(end + 1)) {
            return err_set(err, STATUS_INVALID, "the value goes on after its closing \"");
        }
        *end = '\0';
        *ret_value = text + 1;
        return STATUS_OK;
    }
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '#' && (at == text || is_blank(at[-1]))) {
            *at = '\0';
            break;
        }
    }
    cut_blanks(text);
    /* "==" is how a base64 text ends: a key without its name, which must not be repeated as one */
    if (text[0] == '\0' || text[0] == '=') {
        return err_set(err, STATUS_INVALID, "expected name = value");
    }
    *ret_value = text;
    return STATUS_OK;
}

static enum status unknown_name(const struct reader *reader, const char *name, struct err *err)
{
    struct nearest here = {.given = name};  /* what may stand in this part */
    struct nearest above = {.given = name}; /* what may not, but before the first section */

    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];

        if (info->type != OPTION_TYPE_GROUP && (info->commands & OPTION_NOT_FILE) == 0) {
            bool is_here = reader->model == NULL || (info->commands & OPTION_PER_MODEL) != 0;

            nearest_consider(is_here ? &here : &above, info->flag + 2);
        }
    }
    if (reader->model != NULL) {
        nearest_consider(&here, "path");
    }
    if (here.name != NULL) {
        return err_set(err, STATUS_INVALID, "unknown option %s, did you mean %s?", name, here.name);
    }
    if (above.name != NULL) {
        return err_set(err, STATUS_INVALID,
                       "unknown option %s, did you mean %s (before the first [model NAME])?", name,
                       above.name);
    }
    return err_set(err, STATUS_INVALID, "unknown option %s (lockstep COMMAND --help lists them)",
                   name);
}

/* The commands and marks of every option that has this flag; 0: there is none. */
static uint32_t known(const char *flag)
{
    uint32_t all = 0;

    for (size_t i = 0; i < n_option_infos; i++) {
        if (strcmp(option_infos[i].flag, flag) == 0) {
            all |= option_infos[i].commands;
        }
    }
    return all;
}

static enum status set_path(const struct reader *reader, const char *value, struct err *err)
{
    if (reader->model->path != NULL) {
        return err_set(err, STATUS_INVALID, "path is given twice for model %s",
                       reader->model->name);
    }
    if (value[0] == '\0') {
        return err_set(err, STATUS_INVALID, "path: is empty");
    }
    reader->model->path = value;
    return STATUS_OK;
}

static enum status set_entry(struct reader *reader, const char *name, const char *value,
                             struct err *err)
{
    struct options *part = reader->model == NULL ? &reader->file.general : &reader->model->options;
    char flag[NAME_MAX_BYTES + 3];
    const struct option_info *info;
    uint32_t marks;

    if (strcmp(name, "path") == 0) {
        return reader->model != NULL
                   ? set_path(reader, value, err)
                   : err_set(err, STATUS_INVALID, "path belongs into a [model NAME] section");
    }
    snprintf(flag, sizeof(flag), "--%s", name);
    marks = known(flag);
    if (marks == 0) {
        return unknown_name(reader, name, err);
    }
    if ((marks & OPTION_NOT_FILE) != 0) {
        return err_set(err, STATUS_INVALID, "%s may not stand in a file", name);
    }
    if (reader->model != NULL && (marks & OPTION_PER_MODEL) == 0) {
        return err_set(err, STATUS_INVALID,
                       "%s is not an option of one model, it belongs before the first [model NAME]",
                       name);
    }
    info = option_find(reader->command, flag);
    if (info == NULL) { /* other commands' */
        return STATUS_OK;
    }
    if (info->type != OPTION_TYPE_LIST && option_given(part, info)) {
        return err_set(err, STATUS_INVALID, "%s is given twice", name);
    }
    return option_set(part, info, name, value, err);
}

/* line: name = value, without blanks before it. */
static enum status read_entry(struct reader *reader, char *line, struct err *err)
{
    const char *value = NULL;
    enum status status;
    char *at = line;

    while (is_name_char(*at)) {
        at++;
    }
    /* nothing of such a line is shown: it may be a key */
    if (at == line || at - line > NAME_MAX_BYTES || *skip_blanks(at) != '=') {
        return err_set(err, STATUS_INVALID, "expected name = value");
    }
    status = take_value(skip_blanks(skip_blanks(at) + 1), &value, err);
    if (status != STATUS_OK) {
        return status;
    }
    *at = '\0';
    return set_entry(reader, line, value, err);
}

/* line: [model NAME]. */
static enum status read_section(struct reader *reader, char *line, struct err *err)
{
    struct options_file *file = &reader->file;
    char *end = strchr(line, ']');
    char *name = skip_blanks(line + 1);
    size_t n_word = strcspn(name, " \t]");

    if (end == NULL || !is_rest_empty(end + 1) || n_word != strlen("model") ||
        strncmp(name, "model", n_word) != 0) {
        return err_set(err, STATUS_INVALID, "expected [model NAME]");
    }
    *end = '\0';
    name = skip_blanks(name + n_word);
    cut_blanks(name);
    if (*name == '\0') {
        return err_set(err, STATUS_INVALID, "the section's model has no name: [model NAME]");
    }
    for (uint32_t i = 0; i < file->n_models; i++) {
        if (strcmp(file->models[i].name, name) == 0) {
            return err_set(err, STATUS_INVALID, "there are two sections [model %s]", name);
        }
    }
    if (file->n_models == OPTIONS_FILE_MAX_MODELS) {
        return err_set(err, STATUS_LIMIT, "more than %d models", OPTIONS_FILE_MAX_MODELS);
    }
    file->models = xrealloc(file->models, file->n_models + 1, sizeof(*file->models));
    reader->model = &file->models[file->n_models++];
    *reader->model = (struct options_model){.name = name, .options = {.command = reader->command}};
    option_set_fallbacks(&reader->model->options);
    return STATUS_OK;
}

/* line of n bytes, terminated. */
static enum status read_line(struct reader *reader, char *line, size_t n, struct err *err)
{
    if (n > 0 && line[n - 1] == '\r') {
        line[--n] = '\0';
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)line[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return err_set(err, STATUS_INVALID, "a control character (byte 0x%02x)", c);
        }
    }
    line = skip_blanks(line);
    if (*line == '\0' || *line == '#') {
        return STATUS_OK;
    }
    return *line == '[' ? read_section(reader, line, err) : read_entry(reader, line, err);
}

enum status options_file_parse(enum command command, const char *path, char *text, size_t size,
                               struct options_file *ret_file, struct err *err)
{
    struct reader reader = {.command = command, .file.general.command = command};
    char *end = text + size;
    char *line = text;

    option_set_fallbacks(&reader.file.general);
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* some editors' first bytes */
        line += 3;
    }
    while (line < end) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((next == NULL ? end : next) - line);
        enum status status;

        line[n] = '\0';
        reader.line++;
        status = read_line(&reader, line, n, err);
        if (status != STATUS_OK) {
            options_file_release(&reader.file);
            err_prefix(err, "%s:%u", path, reader.line);
            return status;
        }
        line += n + 1;
    }
    for (uint32_t i = 0; i < reader.file.n_models; i++) {
        struct options_model *model = &reader.file.models[i];

        if (model->path == NULL) {
            model->path = model->name;
        }
    }
    *ret_file = reader.file;
    return STATUS_OK;
}

void options_file_release(struct options_file *file)
{
    free(file->models);
    *file = (struct options_file){0};
}
