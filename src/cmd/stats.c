/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/stats.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

void stats_sort(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), compare);
}

struct stats stats_of(double *values, size_t n)
{
    ENSURE_OP(n, >=, 1);
    stats_sort(values, n);
    return (struct stats){
        .min = values[0],
        .median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
        .max = values[n - 1],
    };
}
