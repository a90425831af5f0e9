/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep.conf: what a line may be, sections, and errors that name the line but no secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "config/options_file.h"
#include "config/options_priv.h"

enum { TEXT_BYTES = 8192 };

/* One text of the size n at a time; the result points into it. */
static enum status parse_bytes(enum command command, const char *bytes, size_t n,
                               struct options_file *ret_file, struct err *err)
{
    static char text[TEXT_BYTES];

    assert_true(n < sizeof(text));
    memcpy(text, bytes, n);
    text[n] = '\0';
    return options_file_parse(command, "x.conf", text, n, ret_file, err);
}

static struct options_file accepted(enum command command, const char *text)
{
    struct options_file file = {0};
    struct err err = {0};

    if (parse_bytes(command, text, strlen(text), &file, &err) != STATUS_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return file;
}

static void refused_bytes(const char *bytes, size_t n, const char *message)
{
    struct options_file file = {.n_models = 7};
    struct err err = {0};

    assert_int_not_equal(parse_bytes(COMMAND_SERVE, bytes, n, &file, &err), STATUS_OK);
    assert_string_equal(err.text, message);
    assert_int_equal(file.n_models, 7);
}

static void refused(const char *text, const char *message)
{
    refused_bytes(text, strlen(text), message);
}

static void test_values(void **state)
{
    struct options_file file = accepted(COMMAND_SERVE, "port = 80\n"
                                                       "  host=::1\t\n"
                                                       "\theader-timeout\t=\t0.5\n"
                                                       "allow-faults = true\r\n"
                                                       "reprefill = false\n"
                                                       "quiet = 1\n"
                                                       "log-format = json");
    const struct options *options = &file.general;

    (void)state;
    assert_int_equal(options->command, COMMAND_SERVE);
    assert_int_equal(options->port, 80);
    assert_string_equal(options->host, "::1");
    assert_true(options->header_timeout == 0.5);
    assert_true(options->allow_faults && options->given.allow_faults);
    assert_true(!options->reprefill && options->given.reprefill);
    assert_true(options->quiet && !options->given.verbose);
    assert_string_equal(options->log_format, "json");
    assert_true(options->given.port && !options->given.max_queue);
    assert_int_equal(options->max_queue, 1024); /* the fallback */
    options_file_release(&file);
}

static void test_comments_and_quotes(void **state)
{
    struct options_file file = accepted(COMMAND_SERVE, "\xef\xbb\xbf# first\n"
                                                       "\n"
                                                       "   # port = 1\n"
                                                       "\t\n"
                                                       "port = 80 # the port\n"
                                                       "api-key = a#b\n"
                                                       "api-key = \" c # d \" # quoted\n"
                                                       "api-key = e\"f\"\n"
                                                       "api-key=g=h==\n"
                                                       "devices = \"\"\n"
                                                       "[model m#1] # a section\n"
                                                       "path = /a b/c # d\n");

    (void)state;
    assert_int_equal(file.general.port, 80);
    assert_int_equal(file.general.api_key.n, 4);
    assert_string_equal(file.general.api_key.items[0], "a#b");
    assert_string_equal(file.general.api_key.items[1], " c # d ");
    assert_string_equal(file.general.api_key.items[2], "e\"f\"");
    assert_string_equal(file.general.api_key.items[3], "g=h==");
    assert_string_equal(file.general.devices, "");
    assert_int_equal(file.n_models, 1);
    assert_string_equal(file.models[0].name, "m#1");
    assert_string_equal(file.models[0].path, "/a b/c");
    options_file_release(&file);
}

static void test_empty(void **state)
{
    struct options_file file = accepted(COMMAND_RUN, "");

    (void)state;
    assert_true(file.general.temp == 0.7 && !file.general.given.temp);
    options_file_release(&file);
    file = accepted(COMMAND_RUN, "\n\n#\n");
    assert_int_equal(file.n_models, 0);
    options_file_release(&file);
}

static void test_sections(void **state)
{
    struct options_file file = accepted(COMMAND_SERVE, "tp = 2\n"
                                                       "[model a]\n"
                                                       "path = /m/a.gguf\n"
                                                       "tp = 4\n"
                                                       "fault = kill:rank=1,step=20\n"
                                                       "fault = stop:rank=0\n"
                                                       "[ model  org/name-7b ]\n"
                                                       "[model two words]\n"
                                                       "ctx = 512\n"
                                                       "path = x\n");

    (void)state;
    assert_int_equal(file.general.tp, 2);
    assert_int_equal(file.n_models, 3);
    assert_string_equal(file.models[0].name, "a");
    assert_string_equal(file.models[0].path, "/m/a.gguf");
    assert_int_equal(file.models[0].options.tp, 4);
    assert_int_equal(file.models[0].options.fault.n, 2);
    assert_string_equal(file.models[0].options.fault.items[0], "kill:rank=1,step=20");
    assert_string_equal(file.models[1].name, "org/name-7b");
    assert_string_equal(file.models[1].path, "org/name-7b"); /* no path: the name */
    assert_false(file.models[1].options.given.tp);
    assert_string_equal(file.models[2].name, "two words");
    assert_int_equal(file.models[2].options.ctx, 512);
    assert_int_equal(file.general.fault.n, 0);
    options_file_release(&file);
}

/* A command takes what it has, and passes over what others have, without a look at the value. */
static void test_other_commands_options(void **state)
{
    const char *text =
        "port = 80\ntemp = 0.5\ntp = 3\nshape = what\n[model a]\ntemp = 0.1\nctx = 9\n";
    struct options_file file = accepted(COMMAND_RUN, text);

    (void)state;
    assert_true(file.general.temp == 0.5);
    assert_int_equal(file.general.port, 8421);
    assert_false(file.general.given.port || file.general.given.shape);
    assert_true(file.models[0].options.temp == 0.1);
    options_file_release(&file);
    file = accepted(COMMAND_INSPECT, text); /* its --tp is another option */
    assert_int_equal(file.general.shares, 3);
    assert_false(file.general.given.tp);
    assert_false(file.models[0].options.given.temp);
    options_file_release(&file);
    file = accepted(COMMAND_INSPECT, "[model a]\ntp = 3\n");
    assert_int_equal(file.models[0].options.shares, 3);
    options_file_release(&file);
}

static void test_refused_values(void **state)
{
    (void)state;
    refused("port = 80\nport = x\n", "x.conf:2: port is given twice");
    refused("\n\nport = 65536", "x.conf:3: port: 65536 is not between 0 and 65535");
    refused("header-timeout = soon\n", "x.conf:1: header-timeout: soon is not a number");
    refused("log-format = xml\n", "x.conf:1: log-format: xml is none of text|json");
    refused("allow-faults = yes\n", "x.conf:1: allow-faults: yes is neither true nor false");
    refused("host = \"a\n", "x.conf:1: the value has no closing \"");
    refused("host = \"a\" b\n", "x.conf:1: the value goes on after its closing \"");
    refused("port =\n", "x.conf:1: expected name = value");
    refused("port = # 80\n", "x.conf:1: expected name = value");
    refused("port\n", "x.conf:1: expected name = value");
    refused("port 80\n", "x.conf:1: expected name = value");
    refused("= 80\n", "x.conf:1: expected name = value");
    refused("my port = 80\n", "x.conf:1: expected name = value");
    refused("[model a]\ntp = 2\n[model b]\ntp = 2\ntp = 3\n", "x.conf:5: tp is given twice");
    refused_bytes("port = 8\0"
                  "0\n",
                  11, "x.conf:1: a control character (byte 0x00)");
    refused("# a\x1b[2J\n", "x.conf:1: a control character (byte 0x1b)");
    refused("port = 80\r\r\n", "x.conf:1: a control character (byte 0x0d)");
}

static void test_refused_names(void **state)
{
    (void)state;
    refused("prot = 80\n", "x.conf:1: unknown option prot, did you mean port?");
    refused("--port = 80\n", "x.conf:1: unknown option --port, did you mean port?");
    refused("max_running = 8\n", "x.conf:1: unknown option max_running, did you mean max-running?");
    refused("zzz = 80\n", "x.conf:1: unknown option zzz (lockstep COMMAND --help lists them)");
    refused("help = true\n", "x.conf:1: help may not stand in a file");
    refused("config = /x\n", "x.conf:1: config may not stand in a file");
    refused("prompt = hi\n", "x.conf:1: prompt may not stand in a file");
    refused("kill = true\n", "x.conf:1: kill may not stand in a file");
    refused("path = /x\n", "x.conf:1: path belongs into a [model NAME] section");
    refused("[model a]\nport = 80\n", "x.conf:2: port is not an option of one model, it belongs "
                                      "before the first [model NAME]");
    refused("[model a]\npaht = 80\n", "x.conf:2: unknown option paht, did you mean path?");
    refused("[model a]\nprot = 80\n",
            "x.conf:2: unknown option prot, did you mean port (before the "
            "first [model NAME])?");
    refused("[model a]\nzzz = 80\n",
            "x.conf:2: unknown option zzz (lockstep COMMAND --help lists them)");
    /* what is near must be allowed in a file */
    refused("kil = true\n", "x.conf:1: unknown option kil (lockstep COMMAND --help lists them)");
}

static void test_refused_sections(void **state)
{
    (void)state;
    refused("[model a]\n[model b]\n[model a]\n", "x.conf:3: there are two sections [model a]");
    refused("[model]\n", "x.conf:1: the section's model has no name: [model NAME]");
    refused("[model  ]\n", "x.conf:1: the section's model has no name: [model NAME]");
    refused("[models a]\n", "x.conf:1: expected [model NAME]");
    refused("[server]\n", "x.conf:1: expected [model NAME]");
    refused("[model a\n", "x.conf:1: expected [model NAME]");
    refused("[model a] b\n", "x.conf:1: expected [model NAME]");
    refused("[]\n", "x.conf:1: expected [model NAME]");
    refused("[\n", "x.conf:1: expected [model NAME]");
    refused("[model a]\npath = \"\"\n", "x.conf:2: path: is empty");
    refused("[model a]\npath = x\npath = y\n", "x.conf:3: path is given twice for model a");
}

/* Whatever is wrong around a key, the message does not show it. */
static void test_keys_are_not_shown(void **state)
{
    static const char *const texts[] = {
        "api-key SECRET\n",
        "SECRET\n",
        "SECRET==\n",
        "SECRET=\n",
        "api-kye = SECRET\n",
        "api-key = \"SECRET\n",
        "api-key = \"\"SECRET\n",
        "[SECRET]\n",
        "api-key = SECRET\x01\n",
        "[model a]\napi-key = SECRET\n",
        "api-key: SECRET\n",
        "SECRETSECRETSECRETSECRETSECRETSECRETSECRET = 1\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct options_file file = {0};
        struct err err = {0};

        assert_int_not_equal(parse_bytes(COMMAND_SERVE, texts[i], strlen(texts[i]), &file, &err),
                             STATUS_OK);
        assert_null(strstr(err.text, "SECRET"));
        assert_non_null(strstr(err.text, "x.conf:"));
    }
}

static void test_too_many(void **state)
{
    struct buf text = {0};

    (void)state;
    for (int i = 0; i <= OPTION_LIST_MAX; i++) {
        buf_append_str(&text, "api-key = SECRET\n");
    }
    refused(text.data, "x.conf:17: api-key: given more than 16 times");
    buf_clear(&text);
    for (int i = 0; i <= OPTIONS_FILE_MAX_MODELS; i++) {
        buf_printf(&text, "[model %d]\n", i);
    }
    refused(text.data, "x.conf:257: more than 256 models");
    buf_release(&text);
}

/* Every option that may stand in the file can be set there, in all its commands. */
static void test_every_option(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        struct options_file file;
        struct buf text = {0};

        if (info->type == OPTION_TYPE_GROUP || (info->commands & OPTION_NOT_FILE) != 0) {
            continue;
        }
        buf_printf(&text, "%s = ", info->flag + 2);
        if (info->type == OPTION_TYPE_INT) {
            buf_printf(&text, "%lld", (long long)info->n.min);
        } else if (info->type == OPTION_TYPE_REAL) {
            buf_printf(&text, "%.17g", info->x.min);
        } else if (info->type == OPTION_TYPE_FLAG) {
            buf_append_str(&text, "true");
        } else {
            buf_printf(&text, "%.*s", (int)strcspn(info->one_of == NULL ? "x" : info->one_of, "|"),
                       info->one_of == NULL ? "x" : info->one_of);
        }
        for (unsigned c = 0; c < COMMAND_COUNT; c++) {
            file = accepted((enum command)c, buf_str(&text));
            assert_int_equal(option_given(&file.general, info),
                             option_accepted((enum command)c, info));
            options_file_release(&file);
        }
        buf_release(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_comments_and_quotes),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_other_commands_options),
        cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_refused_names),
        cmocka_unit_test(test_refused_sections),
        cmocka_unit_test(test_keys_are_not_shown),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_every_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
