/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep fault: injects a fault into a running world, through its leader's control socket, and
 * prints the leader's answer as one line of JSON. What a fault does and where: rpc/fault.h.
 */
#include "base/mem.h"
#include "cmd/cmd.h"
#include "rpc/fault.h"
#include "world/control.h"

enum { ANSWER_MS = 10000 };

/* The kind that is asked for; false unless there is exactly one. */
static bool choose_kind(const struct options *options, enum fault_kind *ret_kind)
{
    const bool given[FAULT_KINDS] = {
        [FAULT_KILL] = options->kill,
        [FAULT_STOP] = options->stop,
        [FAULT_HANG] = options->hang_in_collective,
        [FAULT_DROP] = options->drop_frame,
        [FAULT_CORRUPT] = options->corrupt_frame,
        [FAULT_SLOW] = options->given.slow,
        [FAULT_DEVICE] = options->device_error,
        [FAULT_OOM] = options->oom,
    };
    uint32_t n = 0;

    for (uint32_t kind = 0; kind < FAULT_KINDS; kind++) {
        if (given[kind]) {
            *ret_kind = (enum fault_kind)kind;
            n++;
        }
    }
    return n == 1;
}

static struct fault_spec make_spec(const struct options *options, enum fault_kind kind)
{
    return (struct fault_spec){
        .kind = kind,
        .rank = (uint32_t)options->rank,
        .has_step = options->given.at_step,
        .step = options->given.at_step ? (uint64_t)options->at_step : 0,
        .has_layer = options->given.at_layer,
        .layer = options->given.at_layer ? (uint32_t)options->at_layer : 0,
        .ms = options->given.slow ? (uint32_t)options->slow : 0,
    };
}

/* Sends the specification to the leader and prints what it says. */
static enum status inject(const struct options *options, const char *spec, struct err *err)
{
    json_t *request = json_pack("{s:s}", "fault", spec);
    json_t *answer = NULL;
    struct buf line = {0};
    char *path = NULL;
    enum status status = STATUS_OK;

    if (options->given.socket) {
        path = xstrdup(options->socket);
    } else {
        status = control_path_of_pid((pid_t)options->pid, &path, err);
    }
    if (status == STATUS_OK) {
        status = control_call(path, request, ANSWER_MS, &answer, err);
    }
    if (status == STATUS_OK) {
        json_write(&line, answer, &json_style_compact);
        printf("%s\n", buf_str(&line));
    }
    buf_release(&line);
    json_decref(answer);
    json_decref(request);
    free(path);
    return status;
}

int cmd_fault(const struct options *options)
{
    enum fault_kind kind = FAULT_KILL;
    struct fault_spec spec;
    struct buf text = {0};
    struct err err = {0};
    int exit_status = CMD_OK;

    if (!choose_kind(options, &kind)) {
        return cmd_usage(options, "exactly one kind of fault is needed, such as --kill");
    }
    if (!options->given.rank) {
        return cmd_usage(options, "--rank is needed");
    }
    if (options->given.pid == options->given.socket) {
        return cmd_usage(options, "either --pid or --socket is needed");
    }
    spec = make_spec(options, kind);
    fault_format(&spec, &text);
    if (fault_parse(buf_str(&text), &spec, &err) != STATUS_OK) { /* options that do not fit */
        exit_status = cmd_usage(options, "%s", err.text);
    } else if (inject(options, buf_str(&text), &err) != STATUS_OK) {
        exit_status = cmd_fail(&err);
    }
    buf_release(&text);
    return exit_status;
}
