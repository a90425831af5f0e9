/* SPDX-License-Identifier: Apache-2.0 */
/* The program's entry: finds the command, parses its options, calls it. */
#include <errno.h>
#include <stdarg.h>

#include "base/log.h"
#include "cmd/cmd.h"

static int (*const commands[COMMAND_COUNT])(const struct options *) = {
#define COMMAND(NAME, name, positional, min, max, summary, notes) [COMMAND_##NAME] = cmd_##name,
#include "config/commands.def"
#undef COMMAND
};

static void print_line(const char *text)
{
    char escaped[ERR_TEXT_BYTES];

    fprintf(stderr, "lockstep: %s\n", err_escape(text, escaped, sizeof(escaped)));
}

int cmd_fail(const struct err *err)
{
    print_line(err->text);
    return CMD_FAILED;
}

int cmd_usage(const struct options *options, const char *format, ...)
{
    struct err err = {0};
    char text[ERR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err_set(&err, STATUS_INVALID, "%s: %s", command_name(options->command), text);
    print_line(err.text);
    return CMD_USAGE;
}

/* What was printed counts only once it has left the process. */
static int finish(int exit_status)
{
    bool lost = fflush(stdout) != 0 || ferror(stdout) != 0;

    if (lost && exit_status == CMD_OK) { /* a command that failed has said why */
        struct err err = {0};

        err_set(&err, STATUS_IO, "standard output: %s", strerror(errno));
        return cmd_fail(&err);
    }
    return exit_status;
}

/* Prints one of the texts that the tables make. */
static int print_text(void (*write)(struct buf *buf))
{
    struct buf text = {0};

    write(&text);
    fputs(buf_str(&text), stdout);
    buf_release(&text);
    return finish(CMD_OK);
}

static int print_command_help(enum command command)
{
    struct buf text = {0};

    options_help_command(&text, command);
    fputs(buf_str(&text), stdout);
    buf_release(&text);
    return finish(CMD_OK);
}

static int run(const struct options *options)
{
    if (options->help) {
        return print_command_help(options->command);
    }
    if (options->quiet && options->verbose) {
        return cmd_usage(options, "--quiet and --verbose exclude each other");
    }
    if (options->quiet || options->verbose) {
        log_set_level(options->quiet ? LOG_ERROR : LOG_DEBUG);
    }
    return finish(commands[options->command](options));
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};
    enum command command;
    int exit_status;

    if (argc < 2) {
        print_line("a command is missing (lockstep --help lists them)");
        return CMD_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        (strcmp(argv[1], "help") == 0 && argc == 2)) {
        return print_text(options_help);
    }
    if (strcmp(argv[1], "rank") == 0) {
        return cmd_rank(argc - 2, argv + 2);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("lockstep %s\n", LOCKSTEP_VERSION);
        return finish(CMD_OK);
    }
    if (strcmp(argv[1], "--man") == 0) {
        return print_text(options_man);
    }
    if (strcmp(argv[1], "--options-md") == 0) {
        return print_text(options_markdown);
    }
    if (command_find(argv[1], &command, &err) != STATUS_OK) {
        print_line(err.text);
        return CMD_USAGE;
    }
    if (options_load(command, argc - 2, argv + 2, &options, &err) != STATUS_OK) {
        err_prefix(&err, "%s", command_name(command));
        print_line(err.text);
        return CMD_USAGE;
    }
    exit_status = run(&options);
    options_release(&options);
    return exit_status;
}
