/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, errors, buffers, allocation, files, log lines and the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"

static void test_sizes(void **state)
{
    size_t n = 7;

    (void)state;
    assert_true(size_add(2, 3, &n));
    assert_int_equal(n, 5);
    assert_true(size_add(SIZE_MAX, 0, &n));
    assert_true(n == SIZE_MAX);
    assert_false(size_add(SIZE_MAX, 1, &n));
    assert_true(n == SIZE_MAX); /* untouched */
    assert_true(size_mul(SIZE_MAX, 1, &n));
    assert_true(size_mul(SIZE_MAX, 0, &n));
    assert_int_equal(n, 0);
    assert_true(size_mul((size_t)1 << 32, (size_t)1 << 31, &n));
    assert_true(n == (size_t)1 << 63);
    assert_false(size_mul((size_t)1 << 32, (size_t)1 << 32, &n));
    assert_true(n == (size_t)1 << 63);
    assert_int_equal(round_up(0, 32), 0);
    assert_int_equal(round_up(1, 32), 32);
    assert_int_equal(round_up(32, 32), 32);
    assert_int_equal(div_up(33, 32), 2);
    assert_int_equal(div_up(0, 32), 0);
}

static void test_status_texts(void **state)
{
    (void)state;
#define STATUS(name, value, text)           \
    assert_int_equal(STATUS_##name, value); \
    assert_string_equal(status_text(STATUS_##name), text);
#include "base/status.def"
#undef STATUS
    assert_string_equal(status_text((enum status) - 99), "unknown status");
}

static void test_err(void **state)
{
    struct err err = {0};
    char longer[2 * ERR_TEXT_BYTES];

    (void)state;
    assert_int_equal(err_set(&err, STATUS_CORRUPT, "tensor %s: %d", "w", 3), STATUS_CORRUPT);
    assert_int_equal(err.status, STATUS_CORRUPT);
    assert_string_equal(err.text, "tensor w: 3");
    assert_int_equal(err_prefix(&err, "file %s", "f"), STATUS_CORRUPT);
    assert_string_equal(err.text, "file f: tensor w: 3");
    assert_int_equal(err_set(&err, STATUS_IO, "again: %s", err.text), STATUS_IO);
    assert_string_equal(err.text, "again: file f: tensor w: 3");
    assert_int_equal(err_set(NULL, STATUS_IO, "x"), STATUS_IO);

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    err_set(&err, STATUS_IO, "%s", longer);
    assert_int_equal(strlen(err.text), ERR_TEXT_BYTES - 1);
    err_prefix(&err, "p");
    assert_int_equal(strlen(err.text), ERR_TEXT_BYTES - 1);
    assert_int_equal(strncmp(err.text, "p: xxx", 6), 0);
    err_prefix(&err, "%s", longer); /* a prefix that leaves no room changes nothing */
    assert_int_equal(strncmp(err.text, "p: xxx", 6), 0);
}

static void check_escape(const char *text, const char *expected)
{
    char out[100];

    assert_ptr_equal(err_escape(text, out, sizeof(out)), out);
    assert_string_equal(out, expected);
}

static void test_escape(void **state)
{
    char out[6];

    (void)state;
    check_escape("", "");
    check_escape("plain \xc3\xa9 \xf0\x9f\x98\x80", "plain \xc3\xa9 \xf0\x9f\x98\x80");
    check_escape("a\nb\tc\x1b[31m\x7f", "a\\x0ab\\x09c\\x1b[31m\\x7f");
    check_escape("\xff\xc3", "\\xff\\xc3");
    check_escape("\xc2\x9b", "\\xc2\\x9b"); /* C1 control: CSI on some terminals */
    check_escape("\xc2\xa0", "\xc2\xa0");
    assert_string_equal(err_escape("abcdefgh", out, sizeof(out)), "abcde");
    assert_string_equal(err_escape("ab\n", out, sizeof(out)), "ab"); /* never half an escape */
    assert_string_equal(err_escape("abcd\xc3\xa9", out, sizeof(out)), "abcd");
}

static void test_buf(void **state)
{
    struct buf buf = {0};
    char *text;

    (void)state;
    assert_string_equal(buf_str(&buf), "");
    buf_append(&buf, NULL, 0);
    buf_append(&buf, "a\0b", 3);
    buf_append_char(&buf, 'c');
    buf_append_str(&buf, "de");
    buf_append_code(&buf, 0x20ac);
    buf_printf(&buf, "%d-%s", 42, "x");
    assert_int_equal(buf.len, 3 + 1 + 2 + 3 + 4);
    assert_memory_equal(buf.data,
                        "a\0bcde\xe2\x82\xac"
                        "42-x",
                        buf.len + 1);
    buf_clear(&buf);
    assert_string_equal(buf_str(&buf), "");
    for (int i = 0; i < 100000; i++) {
        buf_append_char(&buf, (char)('a' + i % 26));
    }
    assert_int_equal(strlen(buf_str(&buf)), 100000);
    text = buf_detach(&buf);
    assert_int_equal(text[99999], 'a' + 99999 % 26);
    free(text);
    assert_null(buf.data);
    text = buf_detach(&buf);
    assert_string_equal(text, "");
    free(text);
    buf_release(&buf);
    buf_release(&buf);
}

static void test_mem(void **state)
{
    char *text = xstrndup("abc", 2);
    unsigned char *pages = mem_map(100000);

    (void)state;
    assert_string_equal(text, "ab");
    free(text);
    assert_non_null(pages);
    assert_int_equal((uintptr_t)pages % CACHE_LINE, 0);
    for (size_t i = 0; i < 100000; i++) {
        assert_int_equal(pages[i], 0);
    }
    mem_unmap(pages, 100000);
    mem_unmap(NULL, 5);
    assert_null(mem_map(0));
    assert_null(mem_map((size_t)1 << 62));
    assert_null(mem_alloc((size_t)1 << 33, (size_t)1 << 33)); /* the product overflows */
}

static void test_file(void **state)
{
    char path[] = "/tmp/lockstep-base-XXXXXX";
    int fd = mkstemp(path);
    struct buf buf = {0};
    struct err err = {0};
    char bytes[4] = "zzz";

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    buf_append_str(&buf, ">");
    assert_int_equal(file_read_all(path, 10, &buf, &err), STATUS_OK);
    assert_string_equal(buf_str(&buf), ">0123456789");
    assert_int_equal(file_read_all(path, 9, &buf, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, path));
    assert_string_equal(buf_str(&buf), ">0123456789"); /* untouched */
    assert_int_equal(file_read_at(fd, path, 7, 3, bytes, &err), STATUS_OK);
    assert_string_equal(bytes, "789");
    assert_int_equal(file_read_at(fd, path, 8, 3, bytes, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.text, "file ends before byte 11"));
    assert_int_equal(file_read_at(-1, path, 0, 1, bytes, &err), STATUS_IO);
    close(fd);
    unlink(path);
    assert_int_equal(file_read_all(path, 10, &buf, &err), STATUS_NOT_FOUND);
    assert_int_equal(file_read_all("/", 10, &buf, &err), STATUS_IO);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read_all(path, 10, &buf, &err), STATUS_IO); /* and does not wait */
    unlink(path);
    buf_release(&buf);
}

/* Files of the kernel say that they are empty, or a page long, and hold something else. */
static void test_kernel_files(void **state)
{
    struct buf buf = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(file_read_all("/proc/self/stat", 4096, &buf, &err), STATUS_OK);
    assert_int_equal(strtol(buf_str(&buf), NULL, 10), getpid());
    assert_int_equal(strlen(buf_str(&buf)), buf.len);
    buf_clear(&buf);
    assert_int_equal(file_read_all("/proc/self/stat", 5, &buf, &err), STATUS_LIMIT);
    assert_string_equal(buf_str(&buf), "");
    assert_int_equal(file_read_all("/proc/self/maps", 1 << 20, &buf, &err), STATUS_OK);
    assert_true(buf.len > 1000);
    buf_release(&buf);
}

/* What body writes to standard error, and how it ends. */
static int run_apart(void (*body)(void), struct buf *ret_text)
{
    int ends[2];
    int status = 0;
    char block[4096];
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit none = {0, 0};

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], block, sizeof(block))) > 0) {
        buf_append(ret_text, block, (size_t)n);
    }
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void write_log_lines(void)
{
    log_debug("hidden");
    log_info("n %d\n\x1b", 5);
    log_warn("w");
    log_set_level(LOG_ERROR);
    log_warn("hidden");
    log_error("e");
}

static void break_promise(void)
{
    size_t a = 5;

    ENSURE(a == 5);
    ENSURE_OP(a, <, 3);
}

static void test_log_and_ensure(void **state)
{
    struct buf text = {0};
    int status;

    (void)state;
    assert_int_equal(run_apart(write_log_lines, &text), 0);
    assert_string_equal(buf_str(&text), "lockstep: n 5\\x0a\\x1b\nlockstep: warning: w\n"
                                        "lockstep: error: e\n");
    buf_clear(&text);
    status = run_apart(break_promise, &text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(buf_str(&text), "a < 3 does not hold (5, 3)"));
    buf_release(&text);
}

static void test_clock(void **state)
{
    uint64_t before = clock_ns();
    uint64_t after;

    (void)state;
    usleep(2000);
    after = clock_ns();
    assert_true(after - before >= 2000000);
    assert_true(after - before < 60000000000);
}

static void test_process_is_stopped(void **state)
{
    int status;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        pause();
        _exit(0);
    }
    assert_false(process_is_stopped(child));
    assert_int_equal(kill(child, SIGSTOP), 0);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status) && process_is_stopped(child));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(process_is_stopped(child)); /* it is not there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_status_texts),
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_mem),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_kernel_files),
        cmocka_unit_test(test_log_and_ensure),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_process_is_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
