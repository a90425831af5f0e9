/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the known names was meant. */
#include "config/options_priv.h"

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b; an abbreviation
 * counts as one. Names above 31 bytes are never near. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    size_t d[LONGEST + 1][LONGEST + 1];
    size_t n_a = strlen(a);
    size_t n_b = strlen(b);

    if (n_a > LONGEST || n_b > LONGEST) {
        return SIZE_MAX;
    }
    if (MIN(n_a, n_b) > 3 && strncmp(a, b, MIN(n_a, n_b)) == 0) {
        return n_a != n_b;
    }
    for (size_t i = 0; i <= n_a; i++) {
        for (size_t j = 0; j <= n_b; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] =
                MIN(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]), MIN(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[n_a][n_b];
}

void nearest_consider(struct nearest *nearest, const char *name)
{
    size_t d = distance(nearest->given, name);

    /* a name more than a third of the length away is not near */
    if (d <= MAX(strlen(nearest->given) / 3, 1) &&
        (nearest->name == NULL || d < nearest->distance)) {
        nearest->distance = d;
        nearest->name = name;
    }
}
