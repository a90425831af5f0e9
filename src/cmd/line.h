/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines from standard input: with editing and a history that is kept between runs
 * ($XDG_STATE_HOME/lockstep/history) on a terminal, plainly otherwise. One thread.
 */
#pragma once

#include "base/base.h"

struct line;

/* prompt is borrowed until line_destroy. Never NULL. */
struct line *line_create(const char *prompt);
void line_destroy(struct line **line);

/* The next line without its end, valid until the next call; NULL at the end of input or when a
 * signal interrupted the wait. */
const char *line_read(struct line *line);
