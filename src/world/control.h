/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a running leader: through it a person or a test asks it for its state or
 * injects a fault. A Unix stream socket with mode 0600 in a folder that only its owner can write.
 * A client sends one line of JSON (an object, at most CONTROL_MAX_REQUEST bytes) and gets one line,
 * {"ok":true,...} or {"error":"..."}; then the connection is closed. What requests mean is the
 * handler's business.
 *
 * No call of the server's side blocks, whatever clients do. A client that does not finish its
 * request, or does not take its answer, is kept until another needs its place. Clients of another
 * user than the leader's own or root are turned away.
 *
 * One thread (the supervisor's); any process may call control_call.
 */
#pragma once

#include <poll.h>
#include <sys/types.h>

#include "json/json.h"

enum {
    CONTROL_MAX_CLIENTS = 8,
    CONTROL_MAX_FDS = CONTROL_MAX_CLIENTS + 1,
    CONTROL_MAX_REQUEST = 4096, /* with its line feed */
    CONTROL_MAX_ANSWER = 1 << 20,
};

struct control;

/* Makes the socket and listens. path NULL: $XDG_RUNTIME_DIR/lockstep/PID.sock, or
 * /tmp/lockstep-UID/PID.sock where that is not possible; the folder is made. What a dead leader
 * left there is replaced. STATUS_INVALID, naming the path: the folder belongs to another user or
 * others can write it, another leader listens there, or something else lies there. STATUS_IO. */
NODISCARD enum status control_open(const char *path, struct control **ret_control, struct err *err);

/* Drops the clients and removes the socket. Accepts NULL. */
void control_close(struct control **control);

/* Where it listens; as long as it is open. */
const char *control_path(const struct control *control);

/* Answers a request, which is an object: adds members to answer, which has "ok" already. Any other
 * status than STATUS_OK: the client gets err's text instead. */
typedef enum status control_fn(void *arg, const json_t *request, json_t *answer, struct err *err);

/* What to poll for; the number of entries, at most CONTROL_MAX_FDS. */
uint32_t control_poll_fds(const struct control *control, struct pollfd fds[CONTROL_MAX_FDS]);

/* Takes new clients, reads, calls the handler for complete requests, sends. To be called when one
 * of control_poll_fds is ready. */
void control_run(struct control *control, control_fn *handler, void *arg);

/* The socket of the leader with that process number; *ret_path is the caller's to free().
 * STATUS_NOT_FOUND: no such process, or it has none. */
NODISCARD enum status control_path_of_pid(pid_t pid, char **ret_path, struct err *err);

/* Sends request and waits for the answer, a new reference. STATUS_NOT_FOUND: nobody listens there.
 * STATUS_INVALID: the leader refused, err has what it said. STATUS_TIMEOUT, STATUS_LINK,
 * STATUS_CORRUPT, STATUS_LIMIT (the request is too long). */
NODISCARD enum status control_call(const char *path, const json_t *request, uint32_t timeout_ms,
                                   json_t **ret_answer, struct err *err);
