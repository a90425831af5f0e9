/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/line.h"

#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

enum { HISTORY_LINES = 1000 };

struct line {
    const char *prompt;
    EditLine *edit; /* NULL: not a terminal */
    History *history;
    struct buf history_path; /* empty: not kept */
    struct buf text;         /* the line that was given out last */
    char *plain;             /* getline's memory */
    size_t plain_cap;
};

static char *prompt_of(EditLine *edit)
{
    struct line *line = NULL;

    el_get(edit, EL_CLIENTDATA, &line);
    return (char *)line->prompt;
}

/* Finds the history's file and makes its folder; left empty where there is no home. */
static void find_history(struct buf *path)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (state != NULL && state[0] == '/') {
        buf_append_str(path, state);
    } else if (home != NULL && home[0] == '/') {
        buf_printf(path, "%s/.local", home);
        mkdir(path->data, 0700);
        buf_append_str(path, "/state");
    } else {
        return;
    }
    mkdir(path->data, 0700);
    buf_append_str(path, "/lockstep");
    mkdir(path->data, 0700);
    buf_append_str(path, "/history");
}

struct line *line_create(const char *prompt)
{
    struct line *line = xalloc(sizeof(*line));
    HistEvent event;

    line->prompt = prompt;
    if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) {
        setvbuf(stdin, NULL, _IONBF, 0); /* so that poll on it tells the truth */
        return line;
    }
    line->edit = el_init("lockstep", stdin, stdout, stderr);
    line->history = history_init();
    if (line->edit == NULL || line->history == NULL) {
        return line;
    }
    find_history(&line->history_path);
    history(line->history, &event, H_SETSIZE, HISTORY_LINES);
    history(line->history, &event, H_SETUNIQUE, 1);
    if (line->history_path.len > 0) {
        history(line->history, &event, H_LOAD, line->history_path.data);
    }
    el_set(line->edit, EL_CLIENTDATA, line);
    el_set(line->edit, EL_PROMPT, prompt_of);
    el_set(line->edit, EL_EDITOR, "emacs");
    el_set(line->edit, EL_HIST, history, line->history);
    el_source(line->edit, NULL); /* the user's ~/.editrc */
    return line;
}

void line_destroy(struct line **line)
{
    struct line *l = *line;
    HistEvent event;

    if (l == NULL) {
        return;
    }
    if (l->history != NULL && l->history_path.len > 0) {
        history(l->history, &event, H_SAVE, l->history_path.data);
    }
    if (l->edit != NULL) {
        el_end(l->edit);
    }
    if (l->history != NULL) {
        history_end(l->history);
    }
    buf_release(&l->history_path);
    buf_release(&l->text);
    free(l->plain);
    free(l);
    *line = NULL;
}

const char *line_read(struct line *line)
{
    const char *got = NULL;
    int n = 0;

    if (line->edit != NULL) {
        got = el_gets(line->edit, &n);
    } else {
        ssize_t size = getline(&line->plain, &line->plain_cap, stdin);

        if (size > 0) {
            got = line->plain;
            n = (int)size;
        }
    }
    if (got == NULL || n <= 0) {
        return NULL;
    }
    buf_clear(&line->text);
    buf_append(&line->text, got, (size_t)n);
    while (line->text.len > 0 && (line->text.data[line->text.len - 1] == '\n' ||
                                  line->text.data[line->text.len - 1] == '\r')) {
        line->text.data[--line->text.len] = '\0';
    }
    if (line->history != NULL && line->text.len > 0) {
        HistEvent event;

        history(line->history, &event, H_ENTER, line->text.data);
    }
    return buf_str(&line->text);
}
