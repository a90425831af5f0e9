/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of commands and options, and the parser of the command line. */
#include "config/options.h"

#include <errno.h>

#include "base/mem.h"
#include "config/options_priv.h"

const struct command_info command_infos[COMMAND_COUNT] = {
#define COMMAND(NAME, name, positional, min, max, summary, notes) \
    {#name, positional, min, max, summary, notes},
#include "config/commands.def"
#undef COMMAND
};

#define ON(command)         (1u << COMMAND_##command)
#define ON_ALL              ((1u << COMMAND_COUNT) - 1)
#define ON_MODELS           (ON(SERVE) | ON(RUN) | ON(CHAT) | ON(LOGITS) | ON(BENCH))
#define PER_MODEL           OPTION_PER_MODEL
#define NOT_FILE            OPTION_NOT_FILE
#define NOT_ENV             OPTION_NOT_ENV
#define ONCE                (NOT_FILE | NOT_ENV)
#define AT(name)            offsetof(struct options, name), offsetof(struct options, given.name)
#define OPTION_GROUP(title) {OPTION_TYPE_GROUP, .flag = title},
#define OPTION_FLAG(name, letter, flag, commands, help) \
    {OPTION_TYPE_FLAG, letter, flag, commands, NULL, help, AT(name), .one_of = NULL},
#define OPTION_LIST(name, letter, flag, commands, value, help) \
    {OPTION_TYPE_LIST, letter, flag, commands, value, help, AT(name), .one_of = NULL},
#define OPTION_INT(name, letter, flag, commands, value, min, max, fallback, help) \
    {OPTION_TYPE_INT, letter, flag, commands, value, help, AT(name), .n = {min, max, fallback}},
#define OPTION_REAL(name, letter, flag, commands, value, min, max, fallback, help) \
    {OPTION_TYPE_REAL, letter, flag, commands, value, help, AT(name), .x = {min, max, fallback}},
#define OPTION_TEXT(name, letter, flag, commands, value, choices, fallback, help) \
    {OPTION_TYPE_TEXT,  letter,          flag, commands, value, help, AT(name),   \
     .one_of = choices, .text = fallback},
const struct option_info option_infos[] = {
#include "config/options.def"
};
const size_t n_option_infos = ARRAY_LEN(option_infos);
#undef OPTION_GROUP
#undef OPTION_FLAG
#undef OPTION_LIST
#undef OPTION_INT
#undef OPTION_REAL
#undef OPTION_TEXT

const char *command_name(enum command command)
{
    ENSURE_OP(command, <, COMMAND_COUNT);
    return command_infos[command].name;
}

enum status command_find(const char *name, enum command *ret_command, struct err *err)
{
    struct nearest nearest = {.given = name};

    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(command_infos[i].name, name) == 0) {
            *ret_command = (enum command)i;
            return STATUS_OK;
        }
        nearest_consider(&nearest, command_infos[i].name);
    }
    if (nearest.name != NULL) {
        return err_set(err, STATUS_NOT_FOUND, "unknown command %s, did you mean %s?", name,
                       nearest.name);
    }
    return err_set(err, STATUS_NOT_FOUND, "unknown command %s (lockstep --help lists them)", name);
}

bool option_accepted(enum command command, const struct option_info *info)
{
    return (info->commands & 1u << command) != 0;
}

const struct option_info *option_find(enum command command, const char *arg)
{
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        bool is_short = info->letter != 0 && arg[1] == info->letter && arg[2] == '\0';

        if (option_accepted(command, info) && (is_short || strcmp(info->flag, arg) == 0)) {
            return info;
        }
    }
    return NULL;
}

static enum status unknown_option(enum command command, const char *arg, struct err *err)
{
    struct nearest nearest = {.given = arg};

    for (size_t i = 0; i < n_option_infos; i++) {
        if (option_accepted(command, &option_infos[i])) {
            nearest_consider(&nearest, option_infos[i].flag);
        }
    }
    if (nearest.name != NULL) {
        return err_set(err, STATUS_INVALID, "unknown option %s, did you mean %s?", arg,
                       nearest.name);
    }
    for (unsigned other = 0; other < COMMAND_COUNT; other++) {
        if (option_find((enum command)other, arg) != NULL) {
            return err_set(err, STATUS_INVALID, "unknown option %s (it is one of lockstep %s)", arg,
                           command_infos[other].name);
        }
    }
    return err_set(err, STATUS_INVALID, "unknown option %s (lockstep %s --help lists them)", arg,
                   command_infos[command].name);
}

/* Handles the option at args[*i] (--flag VALUE, --flag=VALUE, -f VALUE, -fVALUE) and moves *i to
 * its last word. */
static enum status parse_option(struct options *options, int n, char *const *args, int *i,
                                struct err *err)
{
    enum command command = options->command;
    const char *arg = args[*i];
    bool is_long = arg[1] == '-';
    size_t name_len = is_long ? strcspn(arg, "=") : 2;
    char *name = xstrndup(arg, name_len);
    const char *value = arg[name_len] == '\0' ? NULL : arg + name_len + (is_long ? 1 : 0);
    const struct option_info *info = option_find(command, name);
    enum status status;

    if (info == NULL) {
        status = unknown_option(command, is_long ? name : arg, err);
    } else if (info->type == OPTION_TYPE_FLAG && value != NULL && !is_long) {
        status = err_set(err, STATUS_INVALID, "%s takes no value", info->flag);
    } else if (info->type != OPTION_TYPE_FLAG && value == NULL && *i + 1 >= n) {
        status = err_set(err, STATUS_INVALID, "%s needs a value (%s)", name, info->value);
    } else {
        if (info->type != OPTION_TYPE_FLAG && value == NULL) {
            value = args[++*i];
        }
        status = option_set(options, info, info->flag, value, err);
    }
    free(name);
    return status;
}

enum status options_parse(enum command command, int n, char *const *args,
                          struct options *ret_options, struct err *err)
{
    const struct command_info *info = &command_infos[command];
    struct options options = {.command = command};
    bool is_option = true; /* until -- */
    int n_positional = 0;

    option_set_fallbacks(&options);
    for (int i = 0; i < n && !options.help; i++) {
        if (is_option && strcmp(args[i], "--") == 0) {
            is_option = false;
        } else if (is_option && args[i][0] == '-' && args[i][1] != '\0') {
            enum status status = parse_option(&options, n, args, &i, err);

            if (status != STATUS_OK) {
                return status;
            }
        } else if (n_positional >= info->max_positional) {
            return err_set(err, STATUS_INVALID, "unexpected argument %s", args[i]);
        } else {
            options.topic = options.path;
            options.path = args[i];
            n_positional++;
        }
    }
    if (n_positional < info->min_positional && !options.help) {
        return err_set(err, STATUS_INVALID, "%s is missing (lockstep %s --help)", info->positional,
                       info->name);
    }
    *ret_options = options;
    return STATUS_OK;
}

enum status options_parse_ids(const char *text, uint32_t **ret_ids, size_t *ret_n, struct err *err)
{
    uint32_t *ids = mem_alloc(strlen(text) / 2 + 1, sizeof(*ids));
    const char *at = text;
    size_t n = 0;

    if (ids == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "token ids: out of memory");
    }
    for (;;) {
        char *end;
        unsigned long long id;

        at += strspn(at, ", ");
        if (*at == '\0') {
            break;
        }
        errno = 0;
        id = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || (*end != '\0' && *end != ',' && *end != ' ') ||
            errno == ERANGE || id > UINT32_MAX) {
            free(ids);
            return err_set(err, STATUS_INVALID, "%.*s is no token id", (int)strcspn(at, ", "), at);
        }
        ids[n++] = (uint32_t)id;
        at = end;
    }
    if (n == 0) {
        free(ids);
        return err_set(err, STATUS_INVALID, "no token ids");
    }
    *ret_ids = ids;
    *ret_n = n;
    return STATUS_OK;
}
