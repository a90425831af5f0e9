/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmarks of `lockstep bench` that are not about a model's speed. Each returns the exit
 * status. */
#pragma once

#include "config/options.h"

/* How long a world takes to go on after kill -9 of a rank. */
int bench_recovery(const struct options *options);

/* The collectives alone, beside Open MPI's where it is installed. */
int bench_comm(const struct options *options);

/* How far a path's results are from those of f32 arithmetic, over a text. */
int bench_quality(const struct options *options);
