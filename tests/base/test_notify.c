/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager's side is a datagram socket of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/notify.h"

/* A manager that listens at name ("@..." is abstract). */
static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    memcpy(address.sun_path, name, n);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    } else {
        n++;
    }
    assert_int_equal(bind(fd, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)),
                     0);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[2048];
    ssize_t n = recv(fd, got, sizeof(got) - 1, 0);

    assert_true(n >= 0);
    got[n] = '\0';
    assert_string_equal(got, text);
}

static void say_all(int fd, const char *name)
{
    struct notify notify;
    struct err err = {0};
    char got[256];
    unsigned long long usec = 0;
    uint64_t before = clock_ns() / 1000;
    ssize_t n;

    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_OK);
    assert_null(getenv("NOTIFY_SOCKET")); /* the ranks do not speak for the service */
    assert_int_equal(notify_ready(&notify, "serving m"), STATUS_OK);
    expect(fd, "READY=1\nSTATUS=serving m\n");
    assert_int_equal(notify_ready(&notify, NULL), STATUS_OK);
    expect(fd, "READY=1\n");
    assert_int_equal(notify_status(&notify, "a\nREADY=1"), STATUS_OK);
    expect(fd, "STATUS=a\\x0aREADY=1\n");
    assert_int_equal(notify_stopping(&notify, "3 answers"), STATUS_OK);
    expect(fd, "STOPPING=1\nSTATUS=3 answers\n");
    assert_int_equal(notify_alive(&notify), STATUS_OK);
    expect(fd, "WATCHDOG=1\n");
    assert_int_equal(notify_extend(&notify, 5000000000), STATUS_OK);
    expect(fd, "EXTEND_TIMEOUT_USEC=5000000\n");
    assert_int_equal(notify_reloading(&notify), STATUS_OK);
    n = recv(fd, got, sizeof(got) - 1, 0);
    assert_true(n > 0);
    got[n] = '\0';
    assert_int_equal(sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%llu\n", &usec), 1);
    assert_true(usec >= before && usec <= clock_ns() / 1000);
    notify_close(&notify);
    notify_close(&notify);
}

static void sockets(void **state)
{
    char folder[] = "/tmp/notify-XXXXXX";
    char name[128];
    int fd;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(name, sizeof(name), "%s/socket", folder);
    fd = listen_at(name);
    say_all(fd, name);
    close(fd);
    unlink(name);
    rmdir(folder);
    snprintf(name, sizeof(name), "@lockstep-test-%d", (int)getpid());
    fd = listen_at(name);
    say_all(fd, name);
    close(fd);
}

static void nobody(void **state)
{
    struct notify notify;
    struct err err = {0};
    char longest[200];

    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify_open(&notify, &err), STATUS_OK);
    assert_int_equal(notify.fd, -1);
    assert_int_equal(notify_ready(&notify, "x"), STATUS_OK);
    notify_close(&notify);

    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "relative"));
    assert_int_equal(notify_ready(&notify, NULL), STATUS_OK);
    setenv("NOTIFY_SOCKET", "@", 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_INVALID);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    setenv("NOTIFY_SOCKET", longest, 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_INVALID);
    longest[108] = '\0'; /* all of sun_path, without room for the end of a path */
    setenv("NOTIFY_SOCKET", longest, 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_INVALID);
    setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    assert_int_equal(notify.fd, -1);
}

static void check_watchdog(const char *name, const char *usec, const char *pid, uint64_t ns)
{
    struct notify notify;
    struct err err = {0};

    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", usec, 1);
    if (pid != NULL) {
        setenv("WATCHDOG_PID", pid, 1);
    }
    assert_int_equal(notify_open(&notify, &err), STATUS_OK);
    assert_true(notify.watchdog_ns == ns);
    assert_null(getenv("WATCHDOG_USEC"));
    assert_null(getenv("WATCHDOG_PID"));
    notify_close(&notify);
}

static void watchdog(void **state)
{
    char name[64];
    char pid[32];
    int fd;

    (void)state;
    snprintf(name, sizeof(name), "@lockstep-watchdog-%d", (int)getpid());
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    fd = listen_at(name);
    check_watchdog(name, "30000000", NULL, 30000000000);
    check_watchdog(name, "30000000", pid, 30000000000);
    check_watchdog(name, "30000000", "1", 0);
    check_watchdog(name, "-1", NULL, 0);
    check_watchdog(name, "12x", NULL, 0);
    check_watchdog(name, "99999999999999999999999", NULL, 0);
    check_watchdog(name, "18446744073709551615", NULL, 0);
    close(fd);
}

/* A manager that reads nothing does not hold the service up. */
static void full_socket(void **state)
{
    struct notify notify;
    struct err err = {0};
    char name[64];
    enum status status = STATUS_OK;
    int fd;

    (void)state;
    snprintf(name, sizeof(name), "@lockstep-full-%d", (int)getpid());
    fd = listen_at(name);
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify_open(&notify, &err), STATUS_OK);
    for (uint32_t i = 0; i < 100000 && status == STATUS_OK; i++) {
        status = notify_alive(&notify);
    }
    assert_int_equal(status, STATUS_PENDING);
    expect(fd, "WATCHDOG=1\n");
    assert_int_equal(notify_alive(&notify), STATUS_OK);
    close(fd);
    assert_int_equal(notify_alive(&notify), STATUS_IO);
    notify_close(&notify);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sockets),
        cmocka_unit_test(nobody),
        cmocka_unit_test(watchdog),
        cmocka_unit_test(full_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
