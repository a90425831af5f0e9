/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The man page and docs/options.md, from the tables and from one text about files and variables.
 * The text is Markdown of which a little is understood, for roff: paragraphs, `code`, lines that
 * begin with "- ", lines that begin with four blanks (as they stand), and "## " for a heading.
 */
#include "config/options_priv.h"

static const char sources_text[] =
    "## Files\n"
    "\n"
    "`lockstep.conf` holds options that are not to be given each time. It is the file of "
    "`--config`\n"
    "or `LOCKSTEP_CONFIG`; else `$XDG_CONFIG_HOME/lockstep/lockstep.conf` (without that variable\n"
    "`~/.config/lockstep/lockstep.conf`); else, if that is not there, `" OPTIONS_SYSTEM_FILE "`.\n"
    "One file is read, and `--config ''` reads none.\n"
    "\n"
    "    # what all models share\n"
    "    port = 8421\n"
    "    api-key-file = /etc/lockstep/keys\n"
    "    allow-faults = false\n"
    "    cors-origin = https://one.example\n"
    "    cors-origin = https://two.example\n"
    "\n"
    "    [model small]\n"
    "    path = /srv/models/small.gguf\n"
    "    tp = 2\n"
    "\n"
    "A line is one `name = value`; the names are the flags' without their dashes. An option that\n"
    "takes no value is `true` or `false`. Options that may be repeated may stand on several "
    "lines.\n"
    "A `#` at the beginning of a line or behind a blank begins a comment; a value in double quotes "
    "is\n"
    "taken as it stands. An option that the command does not have is passed over if another "
    "command\n"
    "has it; a name that no command has is an error.\n"
    "\n"
    "After a line `[model NAME]` options hold for that model alone. `path` says which model it is, "
    "in\n"
    "the words that MODEL allows; without it that is NAME itself. Where a command takes MODEL, "
    "the\n"
    "NAME of a section may stand, and its options then hold. Only options marked `per model` may\n"
    "stand in a section.\n"
    "\n"
    "Models that are pulled lie in the hub's cache, by default `~/.cache/huggingface/hub`.\n"
    "\n"
    "## Environment\n"
    "\n"
    "Every option but those marked is also read from the variable `LOCKSTEP_` and its flag's name "
    "in\n"
    "capitals, with `_` for `-`: `LOCKSTEP_MAX_QUEUE=100`. Items of options that may be repeated "
    "are\n"
    "separated by commas. A variable that is empty counts as not set, but an empty "
    "`LOCKSTEP_CONFIG`\n"
    "says that no file is read. Other variables that begin with `LOCKSTEP_` are ignored. "
    "(Kubernetes\n"
    "sets `LOCKSTEP_PORT` to an address if a service is called lockstep: give it another name, or\n"
    "switch `enableServiceLinks` off.)\n"
    "\n"
    "- `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`: token, address and cache of the hub, "
    "as\n"
    "  its other clients understand them. The token is sent to the hub's address only.\n"
    "- `LOCKSTEP_TUNE=off`: `bench` and an idle `serve` do not measure what is fastest here "
    "(`doctor`\n"
    "  does). What was measured lies in `$XDG_CACHE_HOME/lockstep/tune-*.json`, by default below\n"
    "  `~/.cache`, and changes no result.\n"
    "- `XDG_CONFIG_HOME`, `HOME`: where `lockstep.conf` is looked for.\n"
    "- `NOTIFY_SOCKET`: set by systemd for `serve`, which then reports its state there.\n"
    "\n"
    "## Which one holds\n"
    "\n"
    "An option given in several places holds from the first of: the command line; the "
    "environment;\n"
    "the model's section; the rest of the file; the default. An option that may be repeated is "
    "taken\n"
    "from there as a whole, not gathered from several places. A flag of the command line can be\n"
    "taken back with `--flag=false`.\n"
    "\n"
    "## Signals\n"
    "\n"
    "- `SIGTERM`, `SIGINT`: `serve` accepts nothing further, lets running requests end within\n"
    "  `--drain-timeout`, and ends; a second signal ends it at once.\n"
    "- `SIGHUP`: `serve` reads its keys again.\n"
    "\n"
    "## Exit status\n"
    "\n"
    "- 0: done. `serve`: stopped by SIGTERM, and every request had its answer.\n"
    "- 1: bad input, or something is missing: a model, a port, a right.\n"
    "- 2: wrong usage: a command, an option or a value that does not exist, also in the file or "
    "in\n"
    "  the environment.\n"
    "- 3: the world of ranks failed and could not be kept up.\n"
    "- 128 + n: ended by signal n.\n";

enum { ROFF_WIDTH = 78 };

/* Appends n bytes as roff text that goes on in its line. */
static void roff_append(struct buf *buf, const char *text, size_t n, bool *code)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '`') {
            *code = !*code;
            buf_append_str(buf, *code ? "\\fB" : "\\fR");
        } else if (text[i] == '\\') {
            buf_append_str(buf, "\\e");
        } else if (text[i] == '-') {
            buf_append_str(buf, "\\-");
        } else if (text[i] == '\'') {
            buf_append_str(buf, "\\(aq");
        } else {
            buf_append_char(buf, text[i]);
        }
    }
}

/* A line of text, or as many as it needs. */
static void roff_line(struct buf *buf, const char *text, size_t n)
{
    size_t start = buf->len;
    bool code = false;

    for (size_t i = 0; i < n;) {
        const char *blank = memchr(text + i, ' ', n - i);
        size_t n_word = blank == NULL ? n - i : (size_t)(blank - text) - i;

        if (i > 0 && buf->len - start + n_word >= ROFF_WIDTH) {
            buf_append_char(buf, '\n');
            start = buf->len;
        } else if (i > 0) {
            buf_append_char(buf, ' ');
        }
        if (buf->len == start && text[i] == '.') { /* a request, at the beginning of a line */
            buf_append_str(buf, "\\&");
        }
        roff_append(buf, text + i, n_word, &code);
        i += n_word + 1;
    }
    buf_append_char(buf, '\n');
}

/* As it stands. */
static void roff_literal(struct buf *buf, const char *text, size_t n)
{
    bool code = false;

    if (n > 0 && text[0] == '.') {
        buf_append_str(buf, "\\&");
    }
    roff_append(buf, text, n, &code);
    buf_append_char(buf, '\n');
}

static void roff_heading(struct buf *buf, const char *text, size_t n)
{
    buf_append_str(buf, ".SH ");
    for (size_t i = 0; i < n; i++) {
        buf_append_char(buf,
                        text[i] >= 'a' && text[i] <= 'z' ? (char)(text[i] - 'a' + 'A') : text[i]);
    }
    buf_append_char(buf, '\n');
}

/* Lines of text that stand as they are, from text on; returns what follows them. */
static const char *roff_literals(struct buf *buf, const char *text)
{
    size_t n_empty = 0; /* shown only if something follows */

    buf_append_str(buf, ".RS 4\n.nf\n");
    for (;;) {
        size_t n = strcspn(text, "\n");

        if (n == 0 && *text != '\0') {
            n_empty++;
        } else if (strncmp(text, "    ", 4) == 0) {
            for (; n_empty > 0; n_empty--) {
                buf_append_str(buf, ".sp\n");
            }
            roff_literal(buf, text + 4, n - 4);
        } else {
            break;
        }
        text += n + 1;
    }
    buf_append_str(buf, ".fi\n.RE\n");
    return text;
}

/* The text about files and variables. */
static void roff_text(struct buf *buf, const char *text)
{
    bool paragraph = false; /* the next line begins one */
    bool heading = false;   /* a heading was the last that was shown */

    while (*text != '\0') {
        size_t n = strcspn(text, "\n");

        if (n == 0) {
            paragraph = !heading;
        } else if (strncmp(text, "## ", 3) == 0) {
            roff_heading(buf, text + 3, n - 3);
            paragraph = false;
            heading = true;
        } else if (strncmp(text, "    ", 4) == 0) {
            text = roff_literals(buf, text);
            paragraph = true;
            continue;
        } else if (strncmp(text, "- ", 2) == 0) {
            buf_append_str(buf, ".IP \\(bu 2\n");
            roff_line(buf, text + 2, n - 2);
            heading = false;
        } else {
            size_t n_indent = strspn(text, " "); /* of what belongs to the item above */

            buf_append_str(buf, paragraph && n_indent == 0 ? ".PP\n" : "");
            roff_line(buf, text + n_indent, n - n_indent);
            paragraph = heading = false;
        }
        text += n + 1;
    }
}

static void append_marks(struct buf *buf, const struct option_info *info)
{
    bool file = (info->commands & OPTION_NOT_FILE) == 0;
    bool env = (info->commands & OPTION_NOT_ENV) == 0;

    if ((info->commands & OPTION_PER_MODEL) != 0) {
        buf_append_str(buf, "; per model");
    }
    if (!file || !env) {
        buf_printf(buf, "; %s",
                   !file && !env ? "on the command line only"
                   : file        ? "not in the environment"
                                 : "not in the file");
    }
}

static void append_commands(struct buf *buf, const struct option_info *info)
{
    const char *before = "";
    bool all = true;

    for (unsigned c = 0; c < COMMAND_COUNT; c++) {
        all = all && option_accepted((enum command)c, info);
    }
    if (all) {
        buf_append_str(buf, "all");
        return;
    }
    for (unsigned c = 0; c < COMMAND_COUNT; c++) {
        if (option_accepted((enum command)c, info)) {
            buf_printf(buf, "%s%s", before, command_infos[c].name);
            before = ", ";
        }
    }
}

/* "What it does (default 3). Commands: run, chat; per model." */
static void append_meaning(struct buf *buf, const struct option_info *info)
{
    option_describe(info, buf);
    buf_append_str(buf, ". Commands: ");
    append_commands(buf, info);
    append_marks(buf, info);
    buf_append_char(buf, '.');
}

static void roff_option(struct buf *buf, const struct option_info *info)
{
    struct buf text = {0};
    bool code = false;

    buf_append_str(buf, ".TP\n");
    if (info->letter != 0) {
        buf_printf(&text, "`-%c`, ", info->letter);
    }
    buf_printf(&text, "`%s`", info->flag);
    roff_append(buf, text.data, text.len, &code);
    if (info->value != NULL) {
        buf_printf(buf, " \\fI%s\\fR", info->value);
    }
    buf_append_char(buf, '\n');
    buf_clear(&text);
    append_meaning(&text, info);
    roff_line(buf, text.data, text.len);
    buf_release(&text);
}

static void roff_command(struct buf *buf, const struct command_info *info)
{
    struct buf text = {0};

    buf_append_str(buf, ".TP\n");
    buf_printf(&text, "`%s`", info->name);
    if (info->positional[0] != '\0') {
        buf_printf(&text, " %s", info->positional);
    }
    roff_line(buf, text.data, text.len);
    buf_clear(&text);
    buf_append_str(&text, info->summary);
    buf_append_char(&text, '.');
    roff_line(buf, text.data, text.len);
    for (const char *at = info->notes; *at != '\0'; at += strcspn(at, "\n") + 1) {
        roff_line(buf, at, strcspn(at, "\n"));
    }
    buf_release(&text);
}

void options_man(struct buf *buf)
{
    buf_append_str(buf, ".\\\" SPDX-License-Identifier: Apache-2.0\n"
                        ".\\\" Written by lockstep --man.\n"
                        ".TH LOCKSTEP 1 \"\" \"Lockstep " LOCKSTEP_VERSION "\" \"\"\n"
                        ".SH NAME\n"
                        "lockstep \\- run language models, split over ranks that march in step\n"
                        ".SH SYNOPSIS\n"
                        "\\fBlockstep\\fR \\fICOMMAND\\fR [\\fIarguments\\fR] [\\fIoptions\\fR]\n"
                        ".br\n"
                        "\\fBlockstep\\fR \\fB\\-\\-help\\fR | \\fB\\-\\-version\\fR\n"
                        ".SH DESCRIPTION\n"
                        "Lockstep runs open\\-weight language models by tensor parallelism: every\n"
                        "layer is split over ranks, processes of their own, which are supervised\n"
                        "and replaced when they die.\n"
                        "MODEL is a GGUF file or a Hugging Face folder.\n"
                        "Results go to standard output, everything else to standard error.\n"
                        ".SH COMMANDS\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        roff_command(buf, &command_infos[i]);
    }
    buf_append_str(buf, ".SH OPTIONS\n");
    for (size_t i = 0; i < n_option_infos; i++) {
        if (option_infos[i].type == OPTION_TYPE_GROUP) {
            buf_printf(buf, ".SS %s\n", option_infos[i].flag);
        } else {
            roff_option(buf, &option_infos[i]);
        }
    }
    roff_text(buf, sources_text);
}

/* A cell of a table: | would end it. */
static void append_cell(struct buf *buf, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            buf_append_char(buf, '\\');
        }
        buf_append_char(buf, *text);
    }
}

static void markdown_option(struct buf *buf, const struct option_info *info)
{
    struct buf text = {0};

    buf_append_str(buf, "| `");
    if (info->letter != 0) {
        buf_printf(buf, "-%c`, `", info->letter);
    }
    buf_append_str(buf, info->flag);
    if (info->value != NULL) {
        buf_printf(buf, " %s", info->value);
    }
    buf_append_str(buf, "` | ");
    option_describe(info, &text);
    append_marks(&text, info);
    append_cell(buf, text.data);
    buf_append_str(buf, " | ");
    append_commands(buf, info);
    buf_append_str(buf, " |\n");
    buf_release(&text);
}

static void markdown_command(struct buf *buf, const struct command_info *info)
{
    buf_printf(buf, "- `lockstep %s%s%s`: %s.\n", info->name,
               info->positional[0] == '\0' ? "" : " ", info->positional, info->summary);
    for (const char *at = info->notes; *at != '\0'; at += strcspn(at, "\n") + 1) {
        buf_printf(buf, "  %.*s\n", (int)strcspn(at, "\n"), at);
    }
}

void options_markdown(struct buf *buf)
{
    buf_append_str(buf, "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
                        "<!-- Written by lockstep --options-md from src/config/*.def. -->\n"
                        "# Options\n\n"
                        "`lockstep COMMAND --help` shows the options of one command.\n\n"
                        "## Commands\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        markdown_command(buf, &command_infos[i]);
    }
    for (size_t i = 0; i < n_option_infos; i++) {
        if (option_infos[i].type == OPTION_TYPE_GROUP) {
            buf_printf(buf, "\n## %s\n\n| Option | | Commands |\n| --- | --- | --- |\n",
                       option_infos[i].flag);
        } else {
            markdown_option(buf, &option_infos[i]);
        }
    }
    buf_append_char(buf, '\n');
    buf_append_str(buf, sources_text);
}
