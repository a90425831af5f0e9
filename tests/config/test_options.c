/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: the tables are complete and consistent, and the parser says what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/options_priv.h"

enum { MAX_ARGS = 32 };

/* Parses line, split at spaces, as the arguments of command. The words live until the next call. */
static enum status parse(enum command command, const char *line, struct options *ret_options,
                         struct err *err)
{
    static char words[256];
    char *args[MAX_ARGS];
    int n = 0;

    snprintf(words, sizeof(words), "%s", line);
    for (char *at = words; *at != '\0' && n < MAX_ARGS;) {
        args[n++] = at;
        at += strcspn(at, " ");
        if (*at != '\0') {
            *at++ = '\0';
        }
    }
    return options_parse(command, n, args, ret_options, err);
}

static struct options accepted(enum command command, const char *line)
{
    struct options options = {0};
    struct err err = {0};

    if (parse(command, line, &options, &err) != STATUS_OK) {
        fail_msg("%s: %s", line, err.text);
    }
    return options;
}

static void refused(enum command command, const char *line, const char *text)
{
    struct options options = {.path = "untouched"};
    struct err err = {0};

    assert_int_equal(parse(command, line, &options, &err), STATUS_INVALID);
    assert_string_equal(err.text, text);
    assert_string_equal(options.path, "untouched");
}

static void test_values(void **state)
{
    struct options options =
        accepted(COMMAND_RUN, "--prompt hello m.gguf -n 5 --temp=0.5 --seed 9223372036854775807 "
                              "--raw --top-k=3 -t2");

    (void)state;
    assert_int_equal(options.command, COMMAND_RUN);
    assert_string_equal(options.path, "m.gguf");
    assert_string_equal(options.prompt, "hello");
    assert_int_equal(options.max_tokens, 5);
    assert_true(options.temp == 0.5);
    assert_true(options.seed == INT64_MAX);
    assert_true(options.raw && options.given.raw);
    assert_int_equal(options.top_k, 3);
    assert_int_equal(options.threads, 2);
    assert_true(options.given.prompt && options.given.temp && options.given.threads);
}

static void test_fallbacks(void **state)
{
    struct options options = accepted(COMMAND_RUN, "m");

    (void)state;
    assert_true(options.temp == 0.7 && !options.given.temp);
    assert_int_equal(options.max_tokens, -1);
    assert_int_equal(options.tp, 0);
    assert_int_equal(options.fault.n, 0);
    assert_null(options.prompt);
    assert_false(options.raw);
    options = accepted(COMMAND_RUN, "m --temp 0.7");
    assert_true(options.given.temp); /* given, although it is the same */
}

static void test_lists(void **state)
{
    struct options options = accepted(COMMAND_RUN, "m --fault a --fault=b --tp 2 --fault c");
    struct buf words = {0};

    (void)state;
    assert_true(options.given.fault);
    assert_int_equal(options.fault.n, 3);
    assert_string_equal(options.fault.items[0], "a");
    assert_string_equal(options.fault.items[1], "b");
    assert_string_equal(options.fault.items[2], "c");
    buf_append_str(&words, "m");
    for (int i = 0; i <= OPTION_LIST_MAX; i++) {
        buf_append_str(&words, " --fault=x");
    }
    refused(COMMAND_RUN, buf_str(&words), "--fault: given more than 16 times");
    buf_release(&words);
}

static void test_two_arguments(void **state)
{
    struct options options = accepted(COMMAND_BENCH, "recovery m");

    (void)state;
    assert_string_equal(options.topic, "recovery");
    assert_string_equal(options.path, "m");
    options = accepted(COMMAND_BENCH, "m");
    assert_null(options.topic);
}

static void test_same_letter_by_command(void **state)
{
    struct options run = accepted(COMMAND_RUN, "m -p 512 -n 64");
    struct options bench;

    (void)state;
    assert_string_equal(run.prompt, "512");
    assert_int_equal(run.max_tokens, 64);
    bench = accepted(COMMAND_BENCH, "-p 100 -n 7 --shape qwen3-4b");
    assert_int_equal(bench.prompt_tokens, 100);
    assert_int_equal(bench.decode_tokens, 7);
    assert_string_equal(bench.shape, "qwen3-4b");
    assert_null(bench.path);
    assert_int_equal(accepted(COMMAND_BENCH, "m").prompt_tokens, 512);
}

static void test_odd_words(void **state)
{
    (void)state;
    assert_string_equal(accepted(COMMAND_RUN, "m -p --raw").prompt,
                        "--raw"); /* a value is a value */
    assert_false(accepted(COMMAND_RUN, "m -p --raw").raw);
    assert_string_equal(accepted(COMMAND_RUN, "m --prompt=").prompt, "");
    assert_string_equal(accepted(COMMAND_RUN, "m --prompt=a=b").prompt, "a=b");
    assert_string_equal(accepted(COMMAND_RUN, "-- --raw").path, "--raw");
    assert_string_equal(accepted(COMMAND_RUN, "-").path, "-");
    assert_true(accepted(COMMAND_RUN, "--help --nonsense").help);
    assert_true(accepted(COMMAND_RUN, "m --raw=true").raw);
    assert_false(accepted(COMMAND_RUN, "m --raw --raw=false").raw);
    assert_true(accepted(COMMAND_RUN, "m --frequency-penalty -1.5").frequency_penalty == -1.5);
}

static void test_refused(void **state)
{
    (void)state;
    refused(COMMAND_RUN, "", "MODEL is missing (lockstep run --help)");
    refused(COMMAND_RUN, "m n", "unexpected argument n");
    refused(COMMAND_DOCTOR, "m", "unexpected argument m");
    refused(COMMAND_RUN, "m --raw=yes", "--raw: yes is neither true nor false");
    refused(COMMAND_RUN, "m --fault=", "--fault: is empty");
    refused(COMMAND_RUN, "m -qv", "--quiet takes no value");
    refused(COMMAND_RUN, "m -p", "-p needs a value (TEXT)");
    refused(COMMAND_RUN, "m --temp", "--temp needs a value (T)");
    refused(COMMAND_RUN, "m -n x", "--max-tokens: x is not a whole number");
    refused(COMMAND_RUN, "m -n 1.5", "--max-tokens: 1.5 is not a whole number");
    refused(COMMAND_RUN, "m --top-k=", "--top-k:  is not a whole number");
    refused(COMMAND_RUN, "m -n -1", "--max-tokens: -1 is not between 0 and 2147483647");
    refused(COMMAND_RUN, "m --chunk 99999999999999999999",
            "--chunk: 99999999999999999999 is not between 1 and 65536");
    refused(COMMAND_RUN, "m --temp nan", "--temp: nan is not a number");
    refused(COMMAND_RUN, "m --temp inf", "--temp: inf is not a number");
    refused(COMMAND_RUN, "m --temp 0x", "--temp: 0x is not a number");
    refused(COMMAND_RUN, "m --top-p 1.01", "--top-p: 1.01 is not between 1e-06 and 1");
    refused(COMMAND_RUN, "m --act bf8", "--act: bf8 is none of f32|bf16|int8");
    refused(COMMAND_RUN, "m --act f3", "--act: f3 is none of f32|bf16|int8");
    refused(COMMAND_RUN, "m --act bf16|", "--act: bf16| is none of f32|bf16|int8");
}

static void test_suggestions(void **state)
{
    (void)state;
    refused(COMMAND_RUN, "m --temperatur 1", "unknown option --temperatur, did you mean --temp?");
    refused(COMMAND_RUN, "m --tmep=1", "unknown option --tmep, did you mean --temp?");
    refused(COMMAND_RUN, "m --thread 2", "unknown option --thread, did you mean --threads?");
    refused(COMMAND_RUN, "m --top-o 2", "unknown option --top-o, did you mean --top-k?");
    refused(COMMAND_RUN, "m --shape x", "unknown option --shape (it is one of lockstep bench)");
    refused(COMMAND_RUN, "m --zzz", "unknown option --zzz (lockstep run --help lists them)");
    refused(COMMAND_RUN, "m -Z5", "unknown option -Z5 (lockstep run --help lists them)");
    refused(
        COMMAND_RUN, "m --a-very-long-option-that-nobody-has-ever-heard-of-in-any-program-at-all",
        "unknown option --a-very-long-option-that-nobody-has-ever-heard-of-in-any-program-at-all"
        " (lockstep run --help lists them)");
}

static void test_commands(void **state)
{
    enum command command = COMMAND_COUNT;
    struct err err = {0};

    (void)state;
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        assert_int_equal(command_find(command_name((enum command)i), &command, &err), STATUS_OK);
        assert_int_equal(command, i);
    }
    assert_int_equal(command_find("rnu", &command, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.text, "unknown command rnu, did you mean run?");
    assert_int_equal(command_find("detokenise", &command, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.text, "unknown command detokenise, did you mean detokenize?");
    assert_int_equal(command_find("", &command, &err), STATUS_NOT_FOUND);
    assert_int_equal(command_find("qqqqqq", &command, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.text, "unknown command qqqqqq (lockstep --help lists them)");
}

static void check_option(const struct option_info *info)
{
    if (info->type == OPTION_TYPE_GROUP) {
        assert_true(strlen(info->flag) > 0 && info->commands == 0);
        return;
    }
    assert_int_equal(strncmp(info->flag, "--", 2), 0);
    assert_true(strlen(info->help) > 0);
    assert_true((info->commands & ~OPTION_MARKS) != 0);
    assert_true((info->commands & ~OPTION_MARKS) < 1u << COMMAND_COUNT);
    assert_int_equal(info->value == NULL, info->type == OPTION_TYPE_FLAG);
    if (info->type == OPTION_TYPE_INT) {
        assert_true(info->n.min <= info->n.max && info->n.fallback <= info->n.max);
        /* outside the range there is no number to show: the help text has to say what happens */
        assert_int_equal(info->n.fallback < info->n.min, strstr(info->help, "(default") != NULL);
    }
    if (info->type == OPTION_TYPE_REAL) {
        assert_true(info->x.min <= info->x.fallback && info->x.fallback <= info->x.max);
    }
}

static void test_table(void **state)
{
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < n_option_infos; i++) {
        check_option(&option_infos[i]);
        n += option_infos[i].type != OPTION_TYPE_GROUP;
        for (size_t j = 0; j < i; j++) {
            const struct option_info *a = &option_infos[i];
            const struct option_info *b = &option_infos[j];

            if ((a->commands & b->commands & ~OPTION_MARKS) != 0) {
                assert_string_not_equal(a->flag, b->flag);
                assert_false(a->letter != 0 && a->letter == b->letter);
            }
        }
    }
    assert_int_equal(n, sizeof(struct options_given) / sizeof(bool));
}

/* Every option is shown by the help of each command that accepts it and by no other; lines fit. */
static void test_help(void **state)
{
    (void)state;
    for (unsigned c = 0; c < COMMAND_COUNT; c++) {
        struct buf text = {0};

        options_help_command(&text, (enum command)c);
        assert_non_null(strstr(text.data, command_infos[c].summary));
        assert_non_null(strstr(text.data, command_infos[c].notes));
        for (size_t i = 0; i < n_option_infos; i++) {
            char shown[64];
            bool accepted_here = false;

            if (option_infos[i].type == OPTION_TYPE_GROUP) {
                continue;
            }
            for (size_t j = 0; j < n_option_infos; j++) { /* a flag may be two commands' options */
                accepted_here |= strcmp(option_infos[j].flag, option_infos[i].flag) == 0 &&
                                 (option_infos[j].commands >> c & 1) != 0;
            }
            snprintf(shown, sizeof(shown), " %s ", option_infos[i].flag);
            assert_int_equal(strstr(text.data, shown) != NULL, accepted_here);
        }
        for (const char *at = text.data; *at != '\0'; at += strcspn(at, "\n") + 1) {
            size_t n = strcspn(at, "\n");

            assert_true(n <= 100);
            assert_true(n == 0 || at[n - 1] != ' ');
        }
        buf_release(&text);
    }
}

static void test_help_overview(void **state)
{
    struct buf text = {0};

    (void)state;
    options_help(&text);
    for (unsigned c = 0; c < COMMAND_COUNT; c++) {
        assert_non_null(strstr(text.data, command_infos[c].summary));
    }
    buf_release(&text);
}

static void check_ids(const char *text, size_t n, const uint32_t *expected)
{
    struct err err = {0};
    uint32_t *ids = NULL;
    size_t got = 0;

    assert_int_equal(options_parse_ids(text, &ids, &got, &err), STATUS_OK);
    assert_int_equal(got, n);
    assert_memory_equal(ids, expected, n * sizeof(*ids));
    free(ids);
}

static void refuse_ids(const char *text, const char *message)
{
    struct err err = {0};
    uint32_t *ids = NULL;
    size_t n = 7;

    assert_int_equal(options_parse_ids(text, &ids, &n, &err), STATUS_INVALID);
    assert_string_equal(err.text, message);
    assert_null(ids);
    assert_int_equal(n, 7);
}

static void test_ids(void **state)
{
    (void)state;
    check_ids("1,2,3", 3, (const uint32_t[]){1, 2, 3});
    check_ids("0", 1, (const uint32_t[]){0});
    check_ids(" 4 5, 4294967295 ", 3, (const uint32_t[]){4, 5, UINT32_MAX});
    refuse_ids("", "no token ids");
    refuse_ids(", ", "no token ids");
    refuse_ids("1,-2", "-2 is no token id");
    refuse_ids("1,+2", "+2 is no token id");
    refuse_ids("1,x,3", "x is no token id");
    refuse_ids("1,2x", "2x is no token id");
    refuse_ids("4294967296", "4294967296 is no token id");
    refuse_ids("99999999999999999999999", "99999999999999999999999 is no token id");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_two_arguments),
        cmocka_unit_test(test_fallbacks),
        cmocka_unit_test(test_same_letter_by_command),
        cmocka_unit_test(test_odd_words),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_help_overview),
        cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
