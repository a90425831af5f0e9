/* SPDX-License-Identifier: Apache-2.0 */
/* Options from flags, environment and files together: which one holds, and what is looked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/options_priv.h"

enum { MAX_ARGS = 16, PATH_BYTES = 1024 };

static char root[PATH_BYTES / 2]; /* a folder of this test, for files and as the user's home */

static const char *in_root(const char *name)
{
    static char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_root(name), "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* No variable and no file of the user who runs the tests counts. */
static int set_up(void **state)
{
    (void)state;
    assert_int_equal(clearenv(), 0);
    assert_int_equal(setenv("HOME", in_root("home"), 1), 0);
    assert_int_equal(setenv("LOCKSTEP_CONFIG", "", 1), 0);
    return 0;
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "%s/config-load-XXXXXX", TEST_BINARY_DIR);
    return mkdtemp(root) == NULL || mkdir(in_root("home"), 0700) != 0 ||
           mkdir(in_root("home/.config"), 0700) != 0 ||
           mkdir(in_root("home/.config/lockstep"), 0700) != 0 || mkdir(in_root("xdg"), 0700) != 0 ||
           mkdir(in_root("xdg/lockstep"), 0700) != 0;
}

static int remove_root(void **state)
{
    static const char *const names[] = {
        "home/.config/lockstep/lockstep.conf", "home/.config/lockstep", "home/.config", "home",
        "xdg/lockstep/lockstep.conf",          "xdg/lockstep",          "xdg",          "a.conf"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)remove(in_root(names[i]));
    }
    return rmdir(root);
}

/* Loads line, split at spaces, as the arguments of command; {} stands for a.conf in root. The words
 * live until the next call. */
static enum status load(enum command command, const char *line, struct options *ret_options,
                        struct err *err)
{
    static char words[PATH_BYTES];
    static char path[PATH_BYTES];
    char *args[MAX_ARGS];
    int n = 0;

    snprintf(words, sizeof(words), "%s", line);
    snprintf(path, sizeof(path), "%s", in_root("a.conf"));
    for (char *at = words, *word; (word = strsep(&at, " ")) != NULL;) {
        if (*word != '\0') {
            args[n++] = strcmp(word, "{}") == 0 ? path : word;
        }
        assert_true(n < MAX_ARGS);
    }
    return options_load(command, n, args, ret_options, err);
}

static struct options accepted(enum command command, const char *line)
{
    struct options options = {0};
    struct err err = {0};

    if (load(command, line, &options, &err) != STATUS_OK) {
        fail_msg("%s: %s", line, err.text);
    }
    return options;
}

static void refused(enum command command, const char *line, const char *message)
{
    struct options options = {.path = "untouched"};
    struct err err = {0};

    assert_int_not_equal(load(command, line, &options, &err), STATUS_OK);
    assert_string_equal(err.text, message);
    assert_string_equal(options.path, "untouched");
}

static void test_nothing_but_flags(void **state)
{
    struct options options = accepted(COMMAND_SERVE, "m --port 1");

    (void)state;
    assert_string_equal(options.path, "m");
    assert_int_equal(options.port, 1);
    assert_string_equal(options.host, "127.0.0.1");
    assert_null(options.model_name);
    assert_int_equal(options.n_models, 0);
    options_release(&options);
    options_release(&options); /* the zero value */
    refused(COMMAND_RUN, "", "MODEL is missing (lockstep run --help)");
}

static void test_environment(void **state)
{
    struct options options;

    (void)state;
    setenv("LOCKSTEP_PORT", "81", 1);
    setenv("LOCKSTEP_MAX_QUEUE", "5", 1);
    setenv("LOCKSTEP_HEADER_TIMEOUT", "1.5", 1);
    setenv("LOCKSTEP_ALLOW_FAULTS", "true", 1);
    setenv("LOCKSTEP_REPREFILL", "0", 1);
    setenv("LOCKSTEP_HOST", "::1", 1);
    setenv("LOCKSTEP_API_KEY", "one, two ,,three", 1);
    options = accepted(COMMAND_SERVE, "m");
    setenv("LOCKSTEP_HOST", "changed afterwards", 1);
    assert_int_equal(options.port, 81);
    assert_int_equal(options.max_queue, 5);
    assert_true(options.header_timeout == 1.5);
    assert_true(options.allow_faults);
    assert_true(!options.reprefill && options.given.reprefill);
    assert_string_equal(options.host, "::1");
    assert_int_equal(options.api_key.n, 3);
    assert_string_equal(options.api_key.items[0], "one");
    assert_string_equal(options.api_key.items[1], "two");
    assert_string_equal(options.api_key.items[2], "three");
    assert_true(options.given.port && !options.given.max_running);
    options_release(&options);
}

/* Unknown variables, other commands' options, empty ones, and what is given on the command line
 * only: nothing of that counts. */
static void test_environment_ignored(void **state)
{
    struct options options;

    (void)state;
    setenv("LOCKSTEP_BIN", "/bin/false", 1);
    setenv("LOCKSTEP_MODEL", "/no/such/model", 1);
    setenv("LOCKSTEP_SHARED", "x", 1);
    setenv("LOCKSTEP_FULL", "1", 1);
    setenv("LOCKSTEP_TEMP", "hot", 1);   /* of run */
    setenv("LOCKSTEP_FAULT", "kill", 1); /* its items hold commas */
    setenv("LOCKSTEP_HELP", "true", 1);
    setenv("LOCKSTEP_TP", "", 1);
    setenv("LOCKSTEP_HOST", "", 1);
    setenv("LOCKSTEP_CORS_ORIGIN", " , ", 1);
    options = accepted(COMMAND_SERVE, "m");
    assert_false(options.given.fault || options.help || options.given.tp || options.given.host);
    assert_false(options.given.cors_origin);
    assert_string_equal(options.host, "127.0.0.1");
    options_release(&options);
    setenv("LOCKSTEP_PROMPT", "hi", 1);
    setenv("LOCKSTEP_TEMP", "0.5", 1);
    options = accepted(COMMAND_RUN, "m");
    assert_null(options.prompt);
    assert_true(options.temp == 0.5);
    options_release(&options);
}

static void test_environment_refused(void **state)
{
    (void)state;
    setenv("LOCKSTEP_PORT", "tcp://10.0.0.1:8421", 1);
    refused(COMMAND_SERVE, "m", "LOCKSTEP_PORT: tcp://10.0.0.1:8421 is not a whole number");
    refused(COMMAND_SERVE, "m --port 1",
            "LOCKSTEP_PORT: tcp://10.0.0.1:8421 is not a whole number");
    unsetenv("LOCKSTEP_PORT");
    setenv("LOCKSTEP_VERBOSE", "loud", 1);
    refused(COMMAND_SERVE, "m", "LOCKSTEP_VERBOSE: loud is neither true nor false");
    unsetenv("LOCKSTEP_VERBOSE");
    setenv("LOCKSTEP_API_KEY", "k,k,k,k,k,k,k,k,k,k,k,k,k,k,k,k,SECRET", 1);
    refused(COMMAND_SERVE, "m", "LOCKSTEP_API_KEY: given more than 16 times");
}

/* Each layer in turn is the highest that gives the option. */
static void test_precedence(void **state)
{
    struct options options;

    (void)state;
    write_file("a.conf", "tp = 3\nport = 83\napi-key = file1\napi-key = file2\nquiet = true\n"
                         "[model small]\npath = /m/s.gguf\ntp = 4\nctx = 44\n");
    options = accepted(COMMAND_SERVE, "other --config {}");
    assert_int_equal(options.tp, 3);
    assert_int_equal(options.port, 83);
    assert_int_equal(options.api_key.n, 2);
    assert_int_equal(options.ctx, 0);
    assert_string_equal(options.path, "other");
    options_release(&options);

    options = accepted(COMMAND_SERVE, "small --config {}");
    assert_int_equal(options.tp, 4);
    assert_int_equal(options.port, 83);
    assert_int_equal(options.ctx, 44);
    options_release(&options);

    setenv("LOCKSTEP_TP", "5", 1);
    setenv("LOCKSTEP_PORT", "85", 1);
    setenv("LOCKSTEP_API_KEY", "env", 1);
    setenv("LOCKSTEP_CONFIG", in_root("a.conf"), 1);
    options = accepted(COMMAND_SERVE, "small");
    assert_int_equal(options.tp, 5);
    assert_int_equal(options.port, 85);
    assert_int_equal(options.ctx, 44);
    assert_int_equal(options.api_key.n, 1); /* taken whole from one place */
    assert_string_equal(options.api_key.items[0], "env");
    options_release(&options);

    options = accepted(COMMAND_SERVE, "small --tp 6 --port 0 --api-key flag");
    assert_int_equal(options.tp, 6);
    assert_int_equal(options.port, 0);
    assert_string_equal(options.api_key.items[0], "flag");
    assert_int_equal(options.models[0].options.tp, 6);
    options_release(&options);
}

static void test_quiet_and_verbose(void **state)
{
    struct options options;

    (void)state;
    write_file("a.conf", "quiet = true\n");
    options = accepted(COMMAND_DOCTOR, "--config {} --verbose");
    assert_true(options.verbose && !options.quiet);
    options_release(&options);
    options = accepted(COMMAND_DOCTOR, "--config {} --quiet=false");
    assert_true(!options.verbose && !options.quiet);
    options_release(&options);
    options = accepted(COMMAND_DOCTOR, "--config {}");
    assert_true(!options.verbose && options.quiet);
    options_release(&options);
}

static void test_sections(void **state)
{
    struct options options;
    const struct options_model *models;

    (void)state;
    write_file("a.conf", "chunk = 7\nmax-running = 8\n"
                         "[model small]\npath = /m/s.gguf\ntp = 2\n"
                         "[model org/big]\nmax-running = 2\nserved-model-name = big\n");
    options = accepted(COMMAND_SERVE, "--config {} --threads 3");
    models = options.models;
    assert_null(options.path);
    assert_int_equal(options.tp, 0);
    assert_int_equal(options.n_models, 2);
    assert_string_equal(models[0].name, "small");
    assert_string_equal(models[0].path, "/m/s.gguf");
    assert_string_equal(models[0].options.path, "/m/s.gguf");
    assert_string_equal(models[0].options.model_name, "small");
    assert_int_equal(models[0].options.command, COMMAND_SERVE);
    assert_int_equal(models[0].options.tp, 2);
    assert_int_equal(models[0].options.chunk, 7);
    assert_int_equal(models[0].options.threads, 3);
    assert_int_equal(models[0].options.max_running, 8);
    assert_int_equal(models[0].options.n_models, 0);
    assert_string_equal(models[1].options.path, "org/big");
    assert_int_equal(models[1].options.max_running, 2);
    assert_int_equal(models[1].options.tp, 0);
    assert_string_equal(models[1].options.served_model_name.items[0], "big");
    options_release(&options);

    /* the section's name or path, for every command that takes a model */
    options = accepted(COMMAND_CHAT, "/m/s.gguf --config {}");
    assert_string_equal(options.model_name, "small");
    assert_int_equal(options.tp, 2);
    options_release(&options);
    options = accepted(COMMAND_RUN, "small --config {}");
    assert_string_equal(options.path, "/m/s.gguf");
    assert_int_equal(options.n_models, 2);
    options_release(&options);
    options = accepted(COMMAND_BENCH, "recovery small --config {}");
    assert_string_equal(options.topic, "recovery");
    assert_string_equal(options.path, "/m/s.gguf");
    options_release(&options);
}

static int64_t port_of(void)
{
    struct options options = accepted(COMMAND_SERVE, "m");
    int64_t port = options.port;

    options_release(&options);
    return port;
}

static void test_where_files_are(void **state)
{
    (void)state;
    unsetenv("LOCKSTEP_CONFIG");
    if (access(OPTIONS_SYSTEM_FILE, F_OK) == 0) {
        print_message(OPTIONS_SYSTEM_FILE " exists: skipped\n");
        skip();
    }
    assert_int_equal(port_of(), 8421);
    write_file("home/.config/lockstep/lockstep.conf", "port = 91\n");
    write_file("xdg/lockstep/lockstep.conf", "port = 92\n");
    assert_int_equal(port_of(), 91);
    setenv("XDG_CONFIG_HOME", in_root("xdg"), 1);
    assert_int_equal(port_of(), 92);
    setenv("XDG_CONFIG_HOME", "xdg", 1); /* not absolute: does not count */
    assert_int_equal(port_of(), 91);
    setenv("HOME", "/dev/null", 1); /* as users without a home have it */
    assert_int_equal(port_of(), 8421);
    unsetenv("HOME");
    assert_int_equal(port_of(), 8421);
    setenv("HOME", in_root("home"), 1);
    setenv("LOCKSTEP_CONFIG", in_root("xdg/lockstep/lockstep.conf"), 1);
    assert_int_equal(port_of(), 92);
    setenv("LOCKSTEP_CONFIG", "", 1);
    assert_int_equal(port_of(), 8421);
}

static void test_config_on_the_command_line(void **state)
{
    struct options options;

    (void)state;
    write_file("a.conf", "");
    setenv("LOCKSTEP_CONFIG", "/no/such/file", 1);
    options = accepted(COMMAND_SERVE, "m --config {}");
    assert_int_equal(options.port, 8421);
    options_release(&options);
    options = accepted(COMMAND_SERVE, "m --config=");
    options_release(&options);
    refused(COMMAND_SERVE, "m", "/no/such/file: No such file or directory");
    refused(COMMAND_SERVE, "m --config /", "/: not a regular file");
}

static void test_errors_name_the_place(void **state)
{
    char message[PATH_BYTES];
    struct options options;

    (void)state;
    write_file("a.conf", "port = 80\n\nprot = 81\n");
    snprintf(message, sizeof(message), "%s:3: unknown option prot, did you mean port?",
             in_root("a.conf"));
    refused(COMMAND_SERVE, "m --config {} --port 1", message);
    options = accepted(COMMAND_SERVE, "--config {} --help"); /* help comes all the same */
    assert_true(options.help);
    options_release(&options);
    /* what is overridden is checked too */
    write_file("a.conf", "port = 70000\n");
    snprintf(message, sizeof(message), "%s:1: port: 70000 is not between 0 and 65535",
             in_root("a.conf"));
    refused(COMMAND_SERVE, "m --config {} --port 1", message);
}

static void test_a_file_too_large(void **state)
{
    struct options options = {0};
    struct err err = {0};
    FILE *file = fopen(in_root("a.conf"), "w");

    (void)state;
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (1 << 20) + 1), 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(load(COMMAND_SERVE, "m --config {}", &options, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "a.conf: "));
}

/* The variable of every option that has one is read by each command that takes it. */
static void test_every_variable(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        struct buf name = {0};
        const char *text = info->type == OPTION_TYPE_FLAG ? "true"
                           : info->one_of != NULL         ? "f32"
                                                          : "1";

        if (info->type == OPTION_TYPE_GROUP || strcmp(info->flag, "--config") == 0) {
            continue;
        }
        if (info->one_of != NULL && strncmp(info->one_of, text, 3) != 0) {
            text = info->one_of[0] == 't' ? "text" : "qwen3-4b";
        }
        option_env_name(info, &name);
        setenv(name.data, text, 1);
        for (unsigned c = 0; c < COMMAND_COUNT; c++) {
            struct options options = {0};
            struct err err = {0};
            bool is_read =
                option_accepted((enum command)c, info) && (info->commands & OPTION_NOT_ENV) == 0;

            /* text is out of some options' range: the error says who has read it */
            if (load((enum command)c, command_infos[c].min_positional > 0 ? "m" : "", &options,
                     &err) != STATUS_OK) {
                assert_true(is_read);
                assert_non_null(strstr(err.text, name.data));
                continue;
            }
            assert_int_equal(option_given(&options, info), is_read);
            options_release(&options);
        }
        unsetenv(name.data);
        buf_release(&name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nothing_but_flags, set_up),
        cmocka_unit_test_setup(test_environment, set_up),
        cmocka_unit_test_setup(test_environment_ignored, set_up),
        cmocka_unit_test_setup(test_environment_refused, set_up),
        cmocka_unit_test_setup(test_precedence, set_up),
        cmocka_unit_test_setup(test_quiet_and_verbose, set_up),
        cmocka_unit_test_setup(test_sections, set_up),
        cmocka_unit_test_setup(test_where_files_are, set_up),
        cmocka_unit_test_setup(test_config_on_the_command_line, set_up),
        cmocka_unit_test_setup(test_errors_name_the_place, set_up),
        cmocka_unit_test_setup(test_a_file_too_large, set_up),
        cmocka_unit_test_setup(test_every_variable, set_up),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
