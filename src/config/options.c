/* SPDX-License-Identifier: Apache-2.0 */
/* The tables behind the command line, its parser and its suggestions. Help texts: help.c. */
#include "config/options.h"

#include <errno.h>
#include <math.h>

#include "base/mem.h"
#include "config/options_priv.h"

const struct command_info command_infos[COMMAND_COUNT] = {
#define COMMAND(NAME, name, positional, min, max, summary, notes) \
    {#name, positional, min, max, summary, notes},
#include "config/commands.def"
#undef COMMAND
};

#define ON(command) (1u << COMMAND_##command)
#define ON_ALL      ((1u << COMMAND_COUNT) - 1)
#define ON_MODELS   (ON(SERVE) | ON(RUN) | ON(CHAT) | ON(LOGITS) | ON(BENCH))
#define PER_MODEL   OPTION_PER_MODEL
#define AT(name)    offsetof(struct options, name), offsetof(struct options, given.name)
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

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b; an abbreviation
 * counts as one. Names above 31 bytes are never near. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    size_t d[LONGEST + 1][LONGEST + 1];
    size_t n_a = strlen(a);
    size_t n_b = strlen(b);

    if (n_a > LONGEST || n_b > LONGEST) {
        return SIZE_MAX;
    }
    if (MIN(n_a, n_b) > 3 && strncmp(a, b, MIN(n_a, n_b)) == 0) {
        return n_a != n_b;
    }
    for (size_t i = 0; i <= n_a; i++) {
        for (size_t j = 0; j <= n_b; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] =
                MIN(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]), MIN(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[n_a][n_b];
}

/* Keeps the nearest name so far; a name more than a third of the length away is not near. */
static void consider(const char *given, const char *name, size_t *best, const char **ret_nearest)
{
    size_t d = distance(given, name);

    if (d < *best && d <= MAX(strlen(given) / 3, 1)) {
        *best = d;
        *ret_nearest = name;
    }
}

enum status command_find(const char *name, enum command *ret_command, struct err *err)
{
    size_t best = SIZE_MAX;
    const char *nearest = NULL;

    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(command_infos[i].name, name) == 0) {
            *ret_command = (enum command)i;
            return STATUS_OK;
        }
        consider(name, command_infos[i].name, &best, &nearest);
    }
    if (nearest != NULL) {
        return err_set(err, STATUS_NOT_FOUND, "unknown command %s, did you mean %s?", name,
                       nearest);
    }
    return err_set(err, STATUS_NOT_FOUND, "unknown command %s (lockstep --help lists them)", name);
}

static bool accepts(enum command command, const struct option_info *info)
{
    return (info->commands & 1u << command) != 0;
}

/* The option of command that arg (without its =value) names; NULL if there is none. */
static const struct option_info *find(enum command command, const char *arg)
{
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        bool is_short = info->letter != 0 && arg[1] == info->letter && arg[2] == '\0';

        if (accepts(command, info) && (is_short || strcmp(info->flag, arg) == 0)) {
            return info;
        }
    }
    return NULL;
}

static enum status unknown_option(enum command command, const char *arg, struct err *err)
{
    size_t best = SIZE_MAX;
    const char *nearest = NULL;

    for (size_t i = 0; i < n_option_infos; i++) {
        if (accepts(command, &option_infos[i])) {
            consider(arg, option_infos[i].flag, &best, &nearest);
        }
    }
    if (nearest != NULL) {
        return err_set(err, STATUS_INVALID, "unknown option %s, did you mean %s?", arg, nearest);
    }
    for (unsigned other = 0; other < COMMAND_COUNT; other++) {
        if (find((enum command)other, arg) != NULL) {
            return err_set(err, STATUS_INVALID, "unknown option %s (it is one of lockstep %s)", arg,
                           command_infos[other].name);
        }
    }
    return err_set(err, STATUS_INVALID, "unknown option %s (lockstep %s --help lists them)", arg,
                   command_infos[command].name);
}

static enum status set_int(const struct option_info *info, const char *text, int64_t *ret_n,
                           struct err *err)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        return err_set(err, STATUS_INVALID, "%s: %s is not a whole number", info->flag, text);
    }
    if (errno == ERANGE || n < info->n.min || n > info->n.max) {
        return err_set(err, STATUS_INVALID, "%s: %s is not between %lld and %lld", info->flag, text,
                       (long long)info->n.min, (long long)info->n.max);
    }
    *ret_n = n;
    return STATUS_OK;
}

static enum status set_real(const struct option_info *info, const char *text, double *ret_x,
                            struct err *err)
{
    char *end;
    double x = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(x)) {
        return err_set(err, STATUS_INVALID, "%s: %s is not a number", info->flag, text);
    }
    if (x < info->x.min || x > info->x.max) {
        return err_set(err, STATUS_INVALID, "%s: %s is not between %g and %g", info->flag, text,
                       info->x.min, info->x.max);
    }
    *ret_x = x;
    return STATUS_OK;
}

static enum status set_text(const struct option_info *info, const char *text, const char **ret_text,
                            struct err *err)
{
    const char *at = info->one_of;

    while (at != NULL) {
        size_t n = strcspn(at, "|");

        if (strlen(text) == n && strncmp(at, text, n) == 0) {
            break;
        }
        if (at[n] == '\0') {
            return err_set(err, STATUS_INVALID, "%s: %s is none of %s", info->flag, text,
                           info->one_of);
        }
        at += n + 1;
    }
    *ret_text = text;
    return STATUS_OK;
}

static enum status add_item(const struct option_info *info, const char *text,
                            struct option_list *list, struct err *err)
{
    if (list->n == OPTION_LIST_MAX) {
        return err_set(err, STATUS_INVALID, "%s: given more than %d times", info->flag,
                       OPTION_LIST_MAX);
    }
    list->items[list->n++] = text;
    return STATUS_OK;
}

/* text is NULL for a flag. */
static enum status set(struct options *options, const struct option_info *info, const char *text,
                       struct err *err)
{
    void *member = (char *)options + info->offset;
    enum status status = STATUS_OK;

    switch (info->type) {
    case OPTION_TYPE_FLAG:
        *(bool *)member = true;
        break;
    case OPTION_TYPE_INT:
        status = set_int(info, text, member, err);
        break;
    case OPTION_TYPE_REAL:
        status = set_real(info, text, member, err);
        break;
    case OPTION_TYPE_TEXT:
        status = set_text(info, text, member, err);
        break;
    case OPTION_TYPE_LIST:
        status = add_item(info, text, member, err);
        break;
    }
    if (status == STATUS_OK) {
        *((bool *)((char *)options + info->given_offset)) = true;
    }
    return status;
}

static void set_fallbacks(struct options *options)
{
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        void *member = (char *)options + info->offset;

        switch (info->type) {
        case OPTION_TYPE_FLAG:
            *(bool *)member = false;
            break;
        case OPTION_TYPE_INT:
            *(int64_t *)member = info->n.fallback;
            break;
        case OPTION_TYPE_REAL:
            *(double *)member = info->x.fallback;
            break;
        case OPTION_TYPE_TEXT:
            *(const char **)member = info->text;
            break;
        case OPTION_TYPE_LIST:
            *(struct option_list *)member = (struct option_list){0};
            break;
        }
    }
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
    const struct option_info *info = find(command, name);
    enum status status;

    if (info == NULL) {
        status = unknown_option(command, is_long ? name : arg, err);
    } else if (info->type == OPTION_TYPE_FLAG && value != NULL) {
        status = err_set(err, STATUS_INVALID, "%s takes no value", info->flag);
    } else if (info->type != OPTION_TYPE_FLAG && value == NULL && *i + 1 >= n) {
        status = err_set(err, STATUS_INVALID, "%s needs a value (%s)", name, info->value);
    } else {
        if (info->type != OPTION_TYPE_FLAG && value == NULL) {
            value = args[++*i];
        }
        status = set(options, info, value, err);
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

    set_fallbacks(&options);
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
