/* SPDX-License-Identifier: Apache-2.0 */
#include "model/rope.h"

#include <math.h>

#include "base/mem.h"
#include "tensor/canon.h"

static const double TWO_PI = 6.283185307179586;

/* llama3: long wavelengths are stretched by factor, short ones are kept, those between are mixed.
 */
static double llama3_frequency(const struct rope_config *config, double freq)
{
    double wavelength = TWO_PI / freq;
    double smooth;

    if (wavelength < config->original_context / config->high_freq_factor) {
        return freq;
    }
    if (wavelength > config->original_context / config->low_freq_factor) {
        return freq / config->factor;
    }
    smooth = (config->original_context / wavelength - config->low_freq_factor) /
             (config->high_freq_factor - config->low_freq_factor);
    return (1.0 - smooth) * freq / config->factor + smooth * freq;
}

/* yarn: the dimension at which a wave turns `rotations` times within the original context. */
static double yarn_dimension(const struct rope_config *config, double rotations, uint32_t head_dim)
{
    return head_dim * canon_log_f64(config->original_context / (rotations * TWO_PI)) /
           (2.0 * canon_log_f64(config->theta));
}

static double yarn_frequency(const struct rope_config *config, double freq, uint32_t j,
                             uint32_t head_dim)
{
    double low = yarn_dimension(config, config->beta_fast, head_dim);
    double high = yarn_dimension(config, config->beta_slow, head_dim);
    double ramp;

    if (config->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, head_dim - 1.0);
    if (low == high) {
        high += 0.001;
    }
    ramp = fmin(fmax((j - low) / (high - low), 0.0), 1.0); /* 0: keep, 1: stretch */
    return freq / config->factor * ramp + freq * (1.0 - ramp);
}

void rope_table_init(struct rope_table *table, const struct rope_config *config, uint32_t head_dim,
                     const float *freq_factors)
{
    table->half = head_dim / 2;
    table->attention_factor = (float)config->attention_factor;
    table->inv_freq = xcalloc(table->half, sizeof(*table->inv_freq));
    for (uint32_t j = 0; j < table->half; j++) {
        double freq = canon_pow_f64(config->theta, -2.0 * j / head_dim);

        switch (config->kind) {
        case ROPE_DEFAULT:
            break;
        case ROPE_LINEAR:
            freq /= config->factor;
            break;
        case ROPE_LLAMA3:
            freq = llama3_frequency(config, freq);
            break;
        case ROPE_YARN:
            freq = yarn_frequency(config, freq, j, head_dim);
            break;
        }
        table->inv_freq[j] = (float)(freq_factors == NULL ? freq : freq / freq_factors[j]);
    }
}

void rope_table_release(struct rope_table *table)
{
    free(table->inv_freq);
    *table = (struct rope_table){0};
}

void rope_table_fill(const struct rope_table *table, uint32_t pos, uint32_t n, float *cos,
                     float *sin)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < table->half; j++) {
            float angle = (float)(pos + i) * table->inv_freq[j];
            double s;
            double c;

            canon_sincos_f64(angle, &s, &c);
            cos[(size_t)i * table->half + j] = (float)c * table->attention_factor;
            sin[(size_t)i * table->half + j] = (float)s * table->attention_factor;
        }
    }
}
