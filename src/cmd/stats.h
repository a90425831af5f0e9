/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics of a few measurements. Pure. */
#pragma once

#include "base/base.h"

struct stats {
    double min;
    double median;
    double max;
};

/* Sorts values in place; n >= 1. */
struct stats stats_of(double *values, size_t n);
