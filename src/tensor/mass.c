/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/mass.h"

float mass_block_max(const float *logits, uint32_t n)
{
    float lanes[MASS_LANES];
    uint32_t bad[MASS_LANES] = {0};

    for (uint32_t i = 0; i < MASS_LANES; i++) {
        lanes[i] = -INFINITY;
    }
    for (uint32_t row = 0; row < n; row += MASS_LANES) { /* so that the compiler makes vectors */
        for (uint32_t i = 0; i < MIN(MASS_LANES, n - row); i++) {
            float logit = logits[row + i];

            lanes[i] = logit > lanes[i] ? logit : lanes[i];
            bad[i] |= logit != logit;
        }
    }
    for (uint32_t half = MASS_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
            bad[i] |= bad[i + half];
        }
    }
    return bad[0] != 0 ? NAN : lanes[0] + 0.0f; /* a denormal becomes what it counts as, -0 is +0 */
}

float mass_block_sum(const float *logits, uint32_t n, float max, float inv_temperature,
                     float *masses)
{
    float lanes[MASS_LANES] = {0};

    for (uint32_t i = 0; i < n; i++) {
        float mass = max == -INFINITY ? 0.0f : mass_of(logits[i], max, inv_temperature);

        lanes[i % MASS_LANES] += mass;
        if (masses != NULL) {
            masses[i] = mass;
        }
    }
    for (uint32_t half = MASS_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

static void plain_max(void *arg, const struct mass_rows *rows)
{
    (void)arg;
    for (uint32_t b = 0; b * MASS_BLOCK_ROWS < rows->n; b++) {
        rows->blocks[b].max =
            mass_block_max(rows->logits + b * MASS_BLOCK_ROWS, mass_block_rows(rows, b));
    }
}

static void plain_sum(void *arg, const struct mass_rows *rows)
{
    (void)arg;
    for (uint32_t b = 0; b * MASS_BLOCK_ROWS < rows->n; b++) {
        uint32_t row = b * MASS_BLOCK_ROWS;

        rows->blocks[b].sum =
            mass_block_sum(rows->logits + row, mass_block_rows(rows, b), rows->blocks[b].max,
                           rows->inv_temperature, rows->masses == NULL ? NULL : rows->masses + row);
    }
}

const struct mass_table mass_plain = {.max = plain_max, .sum = plain_sum};
