/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep bench comm --op: a table of collectives by operation and size. */
#pragma once

#include "config/options.h"

/* The program's exit status. */
int bench_ops(const struct options *options);
