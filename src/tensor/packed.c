/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/packed.h"

#include <math.h>

#include "tensor/bf16_12.h"

/* Bytes for each `group` columns of a panel. */
struct record {
    uint32_t code_group;
    uint32_t code_bytes;
    uint32_t scale_group;
    uint32_t scale_bytes;
};

static const struct record records[DTYPE_COUNT] = {
    [DTYPE_F32] = {1, 64, 1, 0},        [DTYPE_F16] = {1, 32, 1, 0},
    [DTYPE_BF16] = {2, 64, 1, 0},       [DTYPE_Q8_0] = {32, 512, 32, 32},
    [DTYPE_Q4_0] = {32, 256, 32, 32},   [DTYPE_Q4_1] = {32, 256, 32, 64},
    [DTYPE_Q5_0] = {32, 320, 32, 32},   [DTYPE_Q5_1] = {32, 320, 32, 64},
    [DTYPE_Q4_K] = {32, 256, 256, 256}, [DTYPE_Q5_K] = {32, 320, 256, 256},
    [DTYPE_Q6_K] = {32, 384, 256, 288},
};

bool packed_panel_bytes(enum dtype dtype, uint32_t cols, size_t *ret_code_bytes,
                        size_t *ret_scale_bytes)
{
    const struct record *record = &records[dtype];
    size_t code_bytes;

    if (dtype_is_quantised(dtype) && cols % dtype_info(dtype)->group != 0) {
        return false;
    }
    if (dtype == DTYPE_BF16_12) {
        if (cols > BF16_12_COLS_MAX) {
            return false;
        }
        *ret_code_bytes = bf16_12_code_bytes(cols);
        *ret_scale_bytes = bf16_12_record_bytes(cols);
        return true;
    }
    if (!size_mul(div_up(cols, record->code_group), record->code_bytes, &code_bytes)) {
        return false;
    }
    *ret_code_bytes = code_bytes;
    *ret_scale_bytes = (size_t)(cols / record->scale_group) * record->scale_bytes;
    return true;
}

bool packed_init(struct packed *packed, enum dtype dtype, uint32_t rows, uint32_t cols)
{
    struct packed made = {.dtype = dtype, .rows = rows, .cols = cols};
    size_t total;

    made.n_panels = (uint32_t)div_up(rows, PACKED_LANES);
    if (rows == 0 || cols == 0 ||
        !packed_panel_bytes(dtype, cols, &made.panel_code_bytes, &made.panel_scale_bytes) ||
        !size_mul(made.panel_code_bytes + made.panel_scale_bytes, made.n_panels, &total)) {
        return false;
    }
    if (dtype == DTYPE_BF16_12) {
        size_t none;

        if (!packed_panel_bytes(DTYPE_BF16, cols, &made.panel_plain_bytes, &none) ||
            !size_mul(made.panel_plain_bytes, made.n_panels, &total)) {
            return false;
        }
    }
    *packed = made;
    return true;
}

size_t packed_scale_offset(const struct packed *packed)
{
    return round_up(packed->panel_code_bytes * packed->n_panels, CACHE_LINE);
}

size_t packed_bytes(const struct packed *packed)
{
    return packed_scale_offset(packed) + packed->panel_scale_bytes * packed->n_panels;
}

size_t packed_plain_bytes(const struct packed *packed)
{
    return packed->panel_plain_bytes * packed->n_panels;
}

size_t packed_read_bytes(const struct packed *packed)
{
    size_t bytes = 0;

    if (packed->dtype != DTYPE_BF16_12) {
        return packed_bytes(packed);
    }
    for (uint32_t panel = 0; panel < packed->n_panels; panel++) {
        uint32_t n_patches = bf16_12_head(packed, panel)->n_patches;

        bytes += n_patches == BF16_12_PLAIN
                     ? packed->panel_plain_bytes
                     : packed->panel_code_bytes + bf16_12_patches_at(packed->cols) +
                           n_patches * sizeof(uint32_t);
    }
    return bytes;
}

void packed_attach(struct packed *packed, const void *storage)
{
    packed->codes = storage;
    packed->scales =
        packed->panel_scale_bytes == 0 ? NULL : packed->codes + packed_scale_offset(packed);
}

static uint16_t load_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static float f16_at(const uint8_t *halves, uint32_t i)
{
    return f32_from_f16(load_u16(halves + 2 * i));
}

/* The code of element k of a 32-group whose record is at group. */
static uint32_t code_at(enum dtype dtype, const uint8_t *group, uint32_t lane, uint32_t k)
{
    uint32_t byte = group[k / 8 * 64 + lane * 4 + k % 4];
    uint32_t code = k % 8 < 4 ? byte & 15 : byte >> 4;
    const uint8_t *more = group + 256;
    uint32_t word;

    if (dtype == DTYPE_Q8_0) {
        return group[k / 4 * 64 + lane * 4 + k % 4];
    }
    if (dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1 || dtype == DTYPE_Q5_K) {
        memcpy(&word, more + lane * 4, sizeof(word));
        code |= (word >> k & 1) << 4;
    } else if (dtype == DTYPE_Q6_K) {
        memcpy(&word, more + k / 16 * 64 + lane * 4, sizeof(word));
        code |= (word >> (k % 16 * 2) & 3) << 4;
    }
    return code;
}

/* The 6-bit scale and minimum of sub-block j (of 8) from a lane's twelve bytes, 16 bytes apart. */
static void scale_min_k4(const uint8_t *planes, uint32_t j, uint32_t *ret_scale, uint32_t *ret_min)
{
    if (j < 4) {
        *ret_scale = planes[j * 16] & 63;
        *ret_min = planes[(j + 4) * 16] & 63;
    } else {
        *ret_scale = (planes[(j + 4) * 16] & 15u) | (uint32_t)(planes[(j - 4) * 16] >> 6) << 4;
        *ret_min = (uint32_t)(planes[(j + 4) * 16] >> 4) | (uint32_t)(planes[j * 16] >> 6) << 4;
    }
}

/* Scale and minimum of the 16 columns from col on: the value is fma(code - zero, d, m). */
static void scale_of(const struct packed *packed, uint32_t row, uint32_t col, float *ret_d,
                     float *ret_m)
{
    uint32_t lane = row % PACKED_LANES;
    const uint8_t *scales = packed->scales + row / PACKED_LANES * packed->panel_scale_bytes;
    const uint8_t *one = scales + (size_t)(col / 32) * records[packed->dtype].scale_bytes;
    const uint8_t *super = scales + (size_t)(col / 256) * records[packed->dtype].scale_bytes;
    uint32_t scale;
    uint32_t minimum;

    *ret_m = 0.0f;
    switch (packed->dtype) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
        *ret_m = f16_at(one + 32, lane);
        *ret_d = f16_at(one, lane);
        return;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        scale_min_k4(super + 64 + lane, col % 256 / 32, &scale, &minimum);
        *ret_d = f16_at(super, lane) * (float)scale;
        *ret_m = -(f16_at(super + 32, lane) * (float)minimum);
        return;
    case DTYPE_Q6_K:
        *ret_d = f16_at(super, lane) * (float)(int8_t)super[32 + col % 256 / 16 * 16 + lane];
        return;
    default:
        *ret_d = f16_at(one, lane);
        return;
    }
}

/* The codes of 32 columns of a row begin here. */
static const uint8_t *group_codes(const struct packed *packed, uint32_t row, uint32_t col)
{
    return packed->codes + row / PACKED_LANES * packed->panel_code_bytes +
           (size_t)(col / 32) * records[packed->dtype].code_bytes;
}

static float quantised_value(const struct packed *packed, uint32_t row, uint32_t col)
{
    uint32_t code =
        code_at(packed->dtype, group_codes(packed, row, col), row % PACKED_LANES, col % 32);
    float d;
    float m;

    scale_of(packed, row, col, &d, &m);
    return fmaf((float)((int32_t)code - packed_code_zero(packed->dtype)), d, m);
}

struct packed_group packed_group(const struct packed *packed, uint32_t row, uint32_t col)
{
    const uint8_t *codes = group_codes(packed, row, col);
    int32_t zero = packed_code_zero(packed->dtype);
    struct packed_group group;

    for (uint32_t k = 0; k < ARRAY_LEN(group.codes); k++) {
        uint32_t code = code_at(packed->dtype, codes, row % PACKED_LANES, k);

        group.codes[k] = (int16_t)((int32_t)code - zero);
    }
    scale_of(packed, row, col, &group.d[0], &group.m);
    scale_of(packed, row, col + 16, &group.d[1], &group.m);
    return group;
}

float packed_value(const struct packed *packed, uint32_t row, uint32_t col)
{
    uint32_t panel = row / PACKED_LANES;
    uint32_t lane = row % PACKED_LANES;
    const uint8_t *codes = packed->codes + panel * packed->panel_code_bytes;
    float value;

    switch (packed->dtype) {
    case DTYPE_F32:
        memcpy(&value, codes + ((size_t)col * PACKED_LANES + lane) * 4, sizeof(value));
        return value;
    case DTYPE_F16:
        return f32_from_f16(load_u16(codes + ((size_t)col * PACKED_LANES + lane) * 2));
    case DTYPE_BF16:
        return f32_from_bf16(
            load_u16(codes + ((size_t)(col / 2) * PACKED_LANES + lane) * 4 + col % 2 * 2));
    case DTYPE_BF16_12:
        return f32_from_bf16(bf16_12_element(packed, row, col));
    default:
        return quantised_value(packed, row, col);
    }
}
