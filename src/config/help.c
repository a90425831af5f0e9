/* SPDX-License-Identifier: Apache-2.0 */
/* The help texts, from the same two tables as the parser. */
#include "config/options_priv.h"

enum { HELP_COLUMN = 30, HELP_WIDTH = 100 };

static void pad_to(struct buf *buf, size_t line_start, size_t column)
{
    do {
        buf_append_char(buf, ' ');
    } while (buf->len - line_start < column);
}

/* Appends text from HELP_COLUMN on, broken between words so that lines stay within HELP_WIDTH. */
static void append_wrapped(struct buf *buf, size_t line_start, const char *text)
{
    pad_to(buf, line_start, HELP_COLUMN);
    while (*text != '\0') {
        size_t word = strcspn(text, " ");

        if (buf->len - line_start + word > HELP_WIDTH) {
            buf->len--; /* the space before */
            buf_append_char(buf, '\n');
            line_start = buf->len;
            pad_to(buf, line_start, HELP_COLUMN);
        }
        buf_append(buf, text, word);
        text += word;
        if (*text == ' ') {
            buf_append_char(buf, ' ');
            text++;
        }
    }
    buf_append_char(buf, '\n');
}

void option_describe(const struct option_info *info, struct buf *buf)
{
    buf_append_str(buf, info->help);
    if (info->type == OPTION_TYPE_INT && info->n.fallback >= info->n.min) {
        buf_printf(buf, " (default %lld)", (long long)info->n.fallback);
    } else if (info->type == OPTION_TYPE_REAL) {
        buf_printf(buf, " (default %g)", info->x.fallback);
    } else if (info->one_of != NULL) {
        buf_printf(buf, " [%s]", info->one_of);
    }
    if (info->type == OPTION_TYPE_TEXT && info->text != NULL) {
        buf_printf(buf, " (default %s)", info->text);
    }
}

static void append_option(struct buf *buf, const struct option_info *info)
{
    size_t line_start = buf->len;
    struct buf text = {0};

    if (info->letter != 0) {
        buf_printf(buf, "  -%c, %s", info->letter, info->flag);
    } else {
        buf_printf(buf, "      %s", info->flag);
    }
    if (info->value != NULL) {
        buf_printf(buf, " %s", info->value);
    }
    option_describe(info, &text);
    append_wrapped(buf, line_start, buf_str(&text));
    buf_release(&text);
}

void options_help(struct buf *buf)
{
    buf_append_str(buf, "Lockstep runs language models, split over ranks that march in step.\n\n"
                        "Usage: lockstep COMMAND [arguments]\n\nCommands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        buf_printf(buf, "  %-12s%s\n", command_infos[i].name, command_infos[i].summary);
    }
    buf_append_str(
        buf,
        "\nlockstep COMMAND --help shows a command's options, lockstep --version the "
        "version.\nOptions may also stand in lockstep.conf and in the environment: docs/options.md "
        "and the man page\nsay how. MODEL is a GGUF file or a Hugging Face folder.\n"
        "Exit status: 0 done, 1 bad input, 2 wrong usage, 3 the world of ranks failed, "
        "128 + n ended\n"
        "by signal n.\n");
}

void options_help_command(struct buf *buf, enum command command)
{
    const struct command_info *info = &command_infos[command];
    const char *title = NULL; /* of the options that follow, until one of them is shown */

    buf_printf(buf, "Usage: lockstep %s %s%s[options]\n\n%s: %s\n%s", info->name, info->positional,
               info->positional[0] == '\0' ? "" : " ", info->name, info->summary, info->notes);
    for (size_t i = 0; i < n_option_infos; i++) {
        if (option_infos[i].type == OPTION_TYPE_GROUP) {
            title = option_infos[i].flag;
        } else if (option_accepted(command, &option_infos[i])) {
            if (title != NULL) {
                buf_printf(buf, "\n%s:\n", title);
                title = NULL;
            }
            append_option(buf, &option_infos[i]);
        }
    }
}
