/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics of a few measurements. Pure. */
#pragma once

#include "base/base.h"

struct stats {
    double min;
    double median;
    double max;
};

/* Ascending, in place. */
void stats_sort(double *values, size_t n);

/* Sorts values in place; n >= 1. */
struct stats stats_of(double *values, size_t n);
