/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: requests and answers, clients of every bad kind, the place where it lies, and
 * that nothing is left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "world/control.h"

#define MS UINT64_C(1000000)

enum { NOBODY = 65534, CALL_MS = 5000 };

/* An own folder for each test, and a leader on a thread of its own. */
struct scene {
    char folder[64];
    char path[96];
    struct control *control;
    int stop[2];
    pthread_t thread;
    bool runs;
    _Atomic uint32_t n_requests;
    size_t answer_bytes;
    int n_fds; /* open before */
};

static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

/* Gives back what it was asked, or refuses. */
static enum status answer(void *arg, const json_t *request, json_t *ret_answer, struct err *err)
{
    struct scene *scene = arg;
    const char *refuse = json_string_value(json_object_get(request, "refuse"));

    scene->n_requests++;
    if (refuse != NULL) {
        return err_set(err, STATUS_INVALID, "%s", refuse);
    }
    json_object_set(ret_answer, "echo", json_object_get(request, "say"));
    if (scene->answer_bytes > 0) {
        char *text = xalloc(scene->answer_bytes);

        memset(text, 'a', scene->answer_bytes - 1);
        json_object_set_new(ret_answer, "long", json_string(text));
        free(text);
    }
    return STATUS_OK;
}

static void *lead(void *arg)
{
    struct scene *scene = arg;

    for (;;) {
        struct pollfd fds[CONTROL_MAX_FDS + 1];
        uint32_t n = control_poll_fds(scene->control, fds);

        if (n > CONTROL_MAX_FDS) {
            abort();
        }
        fds[n] = (struct pollfd){.fd = scene->stop[0], .events = POLLIN};
        if (poll(fds, n + 1, -1) > 0) {
            if (fds[n].revents != 0) {
                return NULL;
            }
            control_run(scene->control, answer, scene);
        }
    }
}

static void scene_begin(struct scene *scene)
{
    *scene = (struct scene){.folder = "/tmp/lockstep-test-XXXXXX", .n_fds = count_fds()};
    assert_non_null(mkdtemp(scene->folder));
    snprintf(scene->path, sizeof(scene->path), "%s/leader.sock", scene->folder);
}

static void scene_lead(struct scene *scene)
{
    struct err err = {0};

    if (control_open(scene->path, &scene->control, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(control_path(scene->control), scene->path);
    assert_int_equal(pipe2(scene->stop, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&scene->thread, NULL, lead, scene), 0);
    scene->runs = true;
}

static void scene_end(struct scene *scene)
{
    if (scene->runs) {
        close(scene->stop[1]);
        pthread_join(scene->thread, NULL);
        close(scene->stop[0]);
    }
    control_close(&scene->control);
    assert_null(scene->control);
    assert_int_equal(rmdir(scene->folder), 0); /* nothing lies there any more */
    assert_int_equal(count_fds(), scene->n_fds);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

static int connect_raw(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* All that comes until the other end closes. */
static char *read_raw(int fd)
{
    struct buf all = {0};
    char bytes[4096];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0) {
        buf_append(&all, bytes, (size_t)n);
    }
    close(fd);
    return buf_detach(&all);
}

static void send_raw(int fd, const char *bytes, size_t n)
{
    (void)!send(fd, bytes, n, MSG_NOSIGNAL);
}

static enum status call(struct scene *scene, const char *request, json_t **ret_answer,
                        struct err *err)
{
    json_t *json = NULL;
    enum status status;

    assert_int_equal(json_parse(request, strlen(request), &json, NULL), STATUS_OK);
    status = control_call(scene->path, json, CALL_MS, ret_answer, err);
    json_decref(json);
    return status;
}

/* The leader still answers. */
static void assert_well(struct scene *scene)
{
    json_t *reply = NULL;
    struct err err = {0};

    if (call(scene, "{\"say\":\"well\"}", &reply, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(json_string_value(json_object_get(reply, "echo")), "well");
    json_decref(reply);
}

static void test_call(void **state)
{
    struct scene scene;
    json_t *reply = NULL;
    struct err err = {0};
    struct stat info;

    (void)state;
    scene_begin(&scene);
    scene_lead(&scene);
    assert_int_equal(stat(scene.path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_well(&scene);
    assert_int_equal(call(&scene, "{\"refuse\":\"rank 9: there are 2\"}", &reply, &err),
                     STATUS_INVALID);
    assert_string_equal(err.text, "rank 9: there are 2");
    assert_null(reply);
    assert_int_equal(call(&scene, "[1]", &reply, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the request must be a JSON object");
    assert_int_equal(scene.n_requests, 2);
    scene_end(&scene);
}

/* The bytes on the wire, as scripts see them. */
static void test_wire(void **state)
{
    static const struct {
        const char *sent;
        const char *answer;
    } cases[] = {
        {"{\"say\":1}\n", "{\"ok\":true,\"echo\":1}\n"},
        {"{\"say\":1}\r\nand more", "{\"ok\":true,\"echo\":1}\n"},
        {"{\"refuse\":\"a\\u0001b\"}\n", "{\"error\":\"a\\\\x01b\"}\n"},
        {"\n", "{\"error\":\"the request: "},
        {"nonsense\n", "{\"error\":\"the request: "},
        {"{\"say\":1\n", "{\"error\":\"the request: "},
        {"{\"say\":1,\"say\":2}\n", "{\"error\":\"the request: "},
        {"\xff\xfe\n", "{\"error\":\"the request: "},
        {"null\n", "{\"error\":\"the request must be a JSON object\"}\n"},
    };
    struct scene scene;

    (void)state;
    scene_begin(&scene);
    scene_lead(&scene);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int fd = connect_raw(scene.path);
        char *got;

        send_raw(fd, cases[i].sent, strlen(cases[i].sent));
        got = read_raw(fd);
        if (strncmp(got, cases[i].answer, strlen(cases[i].answer)) != 0 ||
            strchr(got, '\n') != got + strlen(got) - 1) {
            fail_msg("%s gave %s", cases[i].sent, got);
        }
        free(got);
    }
    scene_end(&scene);
}

static void test_in_pieces(void **state)
{
    static const char request[] = "{\"say\":\"a piece at a time\"}\n";
    struct scene scene;
    char *got;
    int fd;

    (void)state;
    scene_begin(&scene);
    scene_lead(&scene);
    fd = connect_raw(scene.path);
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        send_raw(fd, request + i, 1);
        usleep(500);
    }
    got = read_raw(fd);
    assert_string_equal(got, "{\"ok\":true,\"echo\":\"a piece at a time\"}\n");
    free(got);
    scene_end(&scene);
}

static void test_too_long(void **state)
{
    struct scene scene;
    char *line = xalloc(1 << 16);
    json_t *big = json_object();
    json_t *reply = NULL;
    struct err err = {0};
    char *got;
    int fd;

    (void)state;
    scene_begin(&scene);
    scene_lead(&scene);
    memset(line, 'x', 1 << 16);
    fd = connect_raw(scene.path);
    send_raw(fd, line, 1 << 16);
    got = read_raw(fd);
    assert_string_equal(got, "{\"error\":\"a request is one line of at most 4096 bytes\"}\n");
    free(got);
    memcpy(line, "{\"say\":\"", 8); /* exactly as long as it may be */
    memcpy(line + CONTROL_MAX_REQUEST - 3, "\"}\n", 3);
    fd = connect_raw(scene.path);
    send_raw(fd, line, CONTROL_MAX_REQUEST);
    got = read_raw(fd);
    assert_memory_equal(got, "{\"ok\":true", 10);
    free(got);
    json_object_set_new(big, "say", json_stringn(line + 8, 4090));
    assert_int_equal(control_call(scene.path, big, CALL_MS, &reply, &err), STATUS_LIMIT);
    json_decref(big);
    free(line);
    assert_well(&scene);
    scene_end(&scene);
}

/* Those that come and say nothing, half a request, or do not read: the leader goes on. */
static void test_bad_clients(void **state)
{
    enum { N = 40 };
    struct scene scene;
    int fds[N];

    (void)state;
    scene_begin(&scene);
    scene.answer_bytes = 900000; /* more than a socket holds */
    scene_lead(&scene);
    for (uint32_t i = 0; i < N; i++) {
        fds[i] = connect_raw(scene.path);
        assert_true(fds[i] >= 0);
        if (i % 3 == 1) {
            send_raw(fds[i], "{\"say\":", 7);
        } else if (i % 3 == 2) {
            send_raw(fds[i], "{\"say\":1}\n", 10);
        }
    }
    assert_well(&scene);
    for (uint32_t i = 0; i < N; i += 2) {
        close(fds[i]);
    }
    assert_well(&scene);
    assert_true(count_fds() <= scene.n_fds + N / 2 + 4 + CONTROL_MAX_CLIENTS);
    for (uint32_t i = 1; i < N; i += 2) {
        close(fds[i]);
    }
    assert_well(&scene);
    scene_end(&scene);
}

/* A slow reader gets all of a long answer. */
static void test_long_answer(void **state)
{
    struct scene scene;
    char *got;
    int fd;

    (void)state;
    scene_begin(&scene);
    scene.answer_bytes = 900000;
    scene_lead(&scene);
    fd = connect_raw(scene.path);
    send_raw(fd, "{\"say\":1}\n", 10);
    usleep(50000);
    got = read_raw(fd);
    assert_int_equal(strlen(got), 900000 - 1 + strlen("{\"ok\":true,\"echo\":1,\"long\":\"\"}\n"));
    free(got);
    assert_well(&scene);
    scene_end(&scene);
}

/* Many at once, each gets its own answer. */
static void *ask_often(void *arg)
{
    struct scene *scene = arg;

    for (uint32_t i = 0; i < 50; i++) {
        json_t *request = json_pack("{s:i}", "say", (int)i);
        json_t *reply = NULL;
        struct err err = {0};

        if (control_call(scene->path, request, CALL_MS, &reply, &err) != STATUS_OK ||
            json_integer_value(json_object_get(reply, "echo")) != i) {
            fprintf(stderr, "%s\n", err.text);
            abort();
        }
        json_decref(request);
        json_decref(reply);
    }
    return NULL;
}

static void test_many(void **state)
{
    struct scene scene;
    pthread_t threads[6];

    (void)state;
    scene_begin(&scene);
    scene_lead(&scene);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &scene), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(scene.n_requests, 50 * ARRAY_LEN(threads));
    scene_end(&scene);
}

/* Where nobody answers, a call ends at its time. */
static void test_deadlines(void **state)
{
    struct scene scene;
    struct sockaddr_un address;
    json_t *request = json_object();
    json_t *reply = NULL;
    struct err err = {0};
    uint64_t start;
    int mute;

    (void)state;
    scene_begin(&scene);
    assert_int_equal(control_call(scene.path, request, CALL_MS, &reply, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, scene.path));
    address = address_of(scene.path);
    mute = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(mute, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(control_call(scene.path, request, CALL_MS, &reply, &err), STATUS_NOT_FOUND);
    assert_int_equal(listen(mute, 0), 0);
    for (int i = 0; i < 3; i++) { /* the last ones find the queue full */
        start = clock_ns();
        assert_int_equal(control_call(scene.path, request, 60, &reply, &err), STATUS_TIMEOUT);
        assert_in_range(clock_ns() - start, 60 * MS, 3000 * MS);
    }
    assert_null(reply);
    close(mute);
    unlink(scene.path);
    json_decref(request);
    scene_end(&scene);
}

/* Answers that are none, from something that only looks like a leader. */
static void test_false_leader(void **state)
{
    static const struct {
        const char *says;
        enum status status;
    } cases[] = {
        {"", STATUS_LINK},
        {"{\"ok\":true", STATUS_LINK},
        {"rubbish\n", STATUS_CORRUPT},
        {"{}\n", STATUS_CORRUPT},
        {"[]\n", STATUS_CORRUPT},
        {"{\"ok\":false}\n", STATUS_CORRUPT},
        {"{\"ok\":true}\n", STATUS_OK},
    };
    struct scene scene;
    struct sockaddr_un address;
    json_t *request = json_object();
    int fd;

    (void)state;
    scene_begin(&scene);
    address = address_of(scene.path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        pid_t child = fork();

        if (child == 0) {
            char bytes[64];
            int peer = accept(fd, NULL, NULL);

            prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)!recv(peer, bytes, sizeof(bytes), 0);
            send_raw(peer, cases[i].says, strlen(cases[i].says));
            _exit(0);
        } else {
            json_t *reply = NULL;
            struct err err = {0};

            assert_int_equal(control_call(scene.path, request, CALL_MS, &reply, &err),
                             cases[i].status);
            json_decref(reply);
            assert_int_equal(waitpid(child, NULL, 0), child);
        }
    }
    close(fd);
    unlink(scene.path);
    json_decref(request);
    scene_end(&scene);
}

static void expect_refused(const char *path, const char *why)
{
    struct control *control = NULL;
    struct err err = {0};

    assert_int_not_equal(control_open(path, &control, &err), STATUS_OK);
    assert_null(control);
    if (strstr(err.text, why) == NULL || strstr(err.text, path) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    }
}

static void test_folder(void **state)
{
    struct scene scene;
    char path[128];
    char link[128];
    int fd;

    (void)state;
    scene_begin(&scene);
    assert_int_equal(chmod(scene.folder, 0770), 0);
    expect_refused(scene.path, "others can write its folder (mode 0770)");
    assert_int_equal(chmod(scene.folder, 01777), 0);
    expect_refused(scene.path, "others can write its folder (mode 1777)");
    assert_int_equal(chmod(scene.folder, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(scene.folder, NOBODY, NOBODY), 0);
        expect_refused(scene.path, "its folder belongs to user 65534");
        assert_int_equal(chown(scene.folder, 0, 0), 0);
    }
    snprintf(link, sizeof(link), "%s/link", scene.folder);
    assert_int_equal(symlink(scene.folder, link), 0);
    snprintf(path, sizeof(path), "%s/leader.sock", link);
    expect_refused(path, "its folder");
    unlink(link);
    snprintf(path, sizeof(path), "%s/none/leader.sock", scene.folder);
    expect_refused(path, "its folder: No such file");
    snprintf(path, sizeof(path), "%s/", scene.folder);
    expect_refused(path, "the name must have");
    fd = open(scene.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    expect_refused(scene.path, "something else lies there");
    close(fd);
    assert_int_equal(access(scene.path, F_OK), 0); /* and still does */
    unlink(scene.path);
    scene_end(&scene);
}

/* A folder's path may be longer than a socket's address. */
static void test_long_path(void **state)
{
    struct scene scene;
    struct control *control = NULL;
    struct buf path = {0};
    struct err err = {0};
    char *folder;

    (void)state;
    scene_begin(&scene);
    buf_printf(&path, "%s/%0150d", scene.folder, 0);
    folder = xstrdup(buf_str(&path));
    assert_int_equal(mkdir(folder, 0700), 0);
    buf_append_str(&path, "/s");
    if (control_open(buf_str(&path), &control, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    control_close(&control);
    assert_int_equal(rmdir(folder), 0);
    free(folder);
    buf_release(&path);
    scene_end(&scene);
}

/* The socket of a leader that was killed is replaced; one that lives is left alone. */
static void test_stale(void **state)
{
    struct scene scene;
    struct control *control = NULL;
    pid_t child;

    (void)state;
    scene_begin(&scene);
    child = fork();
    if (child == 0) {
        if (control_open(scene.path, &control, NULL) == STATUS_OK) {
            kill(getpid(), SIGKILL);
        }
        _exit(1);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(access(scene.path, F_OK), 0);
    scene_lead(&scene);
    assert_well(&scene);
    expect_refused(scene.path, "another leader listens there");
    assert_well(&scene);
    scene_end(&scene);
}

/* What another leader has put there meanwhile is not ours to remove. */
static void test_successor(void **state)
{
    struct scene scene;
    struct control *first = NULL;
    struct control *second = NULL;

    (void)state;
    scene_begin(&scene);
    assert_int_equal(control_open(scene.path, &first, NULL), STATUS_OK);
    unlink(scene.path);
    assert_int_equal(control_open(scene.path, &second, NULL), STATUS_OK);
    control_close(&first);
    assert_int_equal(access(scene.path, F_OK), 0);
    control_close(&second);
    scene_end(&scene);
}

/* Even where the modes would let another user in, he is turned away. */
static void test_other_user(void **state)
{
    struct scene scene;
    pid_t child;
    int how;

    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: only root can become another user\n");
        skip();
    }
    scene_begin(&scene);
    scene_lead(&scene);
    assert_int_equal(chmod(scene.folder, 0755), 0);
    assert_int_equal(chmod(scene.path, 0666), 0);
    child = fork();
    if (child == 0) {
        char byte;
        int fd;

        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) {
            _exit(2);
        }
        fd = connect_raw(scene.path);
        send_raw(fd, "{\"say\":1}\n", 10);
        _exit(fd < 0 ? 3 : recv(fd, &byte, 1, 0) > 0);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_int_equal(scene.n_requests, 0);
    assert_well(&scene);
    scene_end(&scene);
}

/* The default place: made where it is missing, found by the process number. */
static void test_default_place(void **state)
{
    struct scene scene;
    struct control *control = NULL;
    char *path = NULL;
    char folder[96];
    char expected[128];
    struct err err = {0};
    struct stat info;

    (void)state;
    scene_begin(&scene);
    snprintf(folder, sizeof(folder), "%s/lockstep", scene.folder);
    snprintf(expected, sizeof(expected), "%s/%d.sock", folder, (int)getpid());
    assert_int_equal(setenv("XDG_RUNTIME_DIR", scene.folder, 1), 0);
    assert_int_equal(control_path_of_pid(getpid(), &path, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "has no control socket"));
    assert_int_equal(control_open(NULL, &control, &err), STATUS_OK);
    assert_string_equal(control_path(control), expected);
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0700);
    assert_int_equal(control_path_of_pid(getpid(), &path, &err), STATUS_OK);
    assert_string_equal(path, expected);
    free(path);
    control_close(&control);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/nowhere/at/all", 1), 0); /* then in /tmp */
    snprintf(expected, sizeof(expected), "/tmp/lockstep-%u/%d.sock", (unsigned)geteuid(),
             (int)getpid());
    assert_int_equal(control_open(NULL, &control, &err), STATUS_OK);
    assert_string_equal(control_path(control), expected);
    assert_int_equal(control_path_of_pid(getpid(), &path, &err), STATUS_OK);
    assert_string_equal(path, expected);
    free(path);
    control_close(&control);
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(control_path_of_pid(INT32_MAX, &path, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "there is no process"));
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),          cmocka_unit_test(test_wire),
        cmocka_unit_test(test_in_pieces),     cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_bad_clients),   cmocka_unit_test(test_long_answer),
        cmocka_unit_test(test_many),          cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_false_leader),  cmocka_unit_test(test_folder),
        cmocka_unit_test(test_long_path),     cmocka_unit_test(test_stale),
        cmocka_unit_test(test_successor),     cmocka_unit_test(test_other_user),
        cmocka_unit_test(test_default_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
