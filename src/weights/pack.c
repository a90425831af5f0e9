/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch of panels is packed in two steps: the stored bytes of its rows (of the wanted columns)
 * are read into scratch, rows that lie side by side with one read; then each panel is laid out from
 * sixteen row pointers, those past the end NULL: the storage is zero, which is the padding.
 */
#include "weights/pack.h"

#include "base/mem.h"
#include "tensor/bf16_12.h"
#include "weights/blocks.h"
#include "weights/quantise.h"

enum { BATCH_BYTES = 4 << 20, K_BLOCK = 64 };

/* Where a row of the matrix is stored. */
struct row_place {
    const struct weights_tensor *tensor;
    uint64_t row;
};

static struct row_place find_row(const struct pack_matrix *matrix, uint32_t row)
{
    const struct pack_part *part = matrix->parts;

    while (row >= part->n_rows) {
        row -= part->n_rows;
        part++;
    }
    row += part->row_begin;
    return (struct row_place){part->tensor, part->row_map == NULL ? row : part->row_map[row]};
}

/* Stored bytes of the matrix's columns in one row, and of all columns. */
struct row_bytes {
    size_t offset;
    size_t bytes;
    size_t stride;
};

static struct row_bytes row_bytes(const struct pack_matrix *matrix, const struct packed *packed)
{
    uint64_t n_cols = matrix->parts[0].tensor->dims[1];
    enum dtype stored = matrix->parts[0].tensor->dtype;
    struct row_bytes made;

    ENSURE(dtype_bytes(stored, matrix->col_begin, &made.offset) &&
           dtype_bytes(stored, packed->cols, &made.bytes) &&
           dtype_bytes(stored, n_cols, &made.stride));
    return made;
}

bool pack_makes(enum dtype dtype, enum dtype stored)
{
    return dtype == stored || (dtype == DTYPE_BF16_12 && stored == DTYPE_BF16) ||
           (quantise_makes(dtype) && !dtype_is_quantised(stored));
}

/* The caller's arithmetic must agree with the tensors. */
static void check_matrix(const struct pack_matrix *matrix, const struct packed *packed)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < matrix->n_parts; i++) {
        const struct pack_part *part = &matrix->parts[i];

        ENSURE_OP(part->tensor->n_dims, ==, 2);
        ENSURE(pack_makes(packed->dtype, part->tensor->dtype));
        ENSURE_OP(part->tensor->dtype, ==, matrix->parts[0].tensor->dtype);
        ENSURE_OP(part->tensor->dims[1], ==, matrix->parts[0].tensor->dims[1]);
        ENSURE_OP((uint64_t)part->row_begin + part->n_rows, <=, part->tensor->dims[0]);
        ENSURE_OP((uint64_t)matrix->col_begin + packed->cols, <=, part->tensor->dims[1]);
        rows += part->n_rows;
    }
    ENSURE_OP(rows, ==, packed->rows);
}

/* How many of the rows [begin, end) come, in whatever order, from as many neighbouring stored rows
 * of one tensor (*ret_first is the first of them): all up to the end of the part, or just one. */
static uint32_t run_length(const struct pack_matrix *matrix, uint32_t begin, uint32_t end,
                           uint64_t *ret_first)
{
    struct row_place place = find_row(matrix, begin);
    uint64_t low = place.row;
    uint64_t high = place.row;
    uint32_t n = 1;

    for (; begin + n < end; n++) {
        struct row_place next = find_row(matrix, begin + n);

        if (next.tensor != place.tensor) {
            break;
        }
        low = MIN(low, next.row);
        high = MAX(high, next.row);
    }
    if (high - low + 1 != n) { /* row_map is a permutation: equal means no gap */
        low = place.row;
        n = 1;
    }
    *ret_first = low;
    return n;
}

/* Reads the rows [begin, end) into scratch and points rows[i - begin] at each. */
static enum status read_rows(struct weights *weights, const struct pack_matrix *matrix,
                             const struct row_bytes *size, uint32_t begin, uint32_t end,
                             uint8_t *scratch, const uint8_t **rows, struct err *err)
{
    bool whole = size->bytes == size->stride;
    enum status status = STATUS_OK;

    for (uint32_t row = begin; row < end && status == STATUS_OK;) {
        struct row_place place = find_row(matrix, row);
        uint64_t first = place.row;
        uint32_t n = whole ? run_length(matrix, row, end, &first) : 1;

        status = weights_read(weights, place.tensor, first * size->stride + size->offset,
                              n * size->bytes, scratch, err);
        for (uint32_t i = 0; i < n; i++) {
            rows[row - begin + i] = scratch + (find_row(matrix, row + i).row - first) * size->bytes;
        }
        scratch += n * size->bytes;
        row += n;
    }
    return status;
}

/* n plain elements as they are stored. */
static void to_floats(enum dtype stored, const uint8_t *from, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        if (stored == DTYPE_F32) {
            memcpy(&out[i], from + 4 * i, sizeof(out[i]));
        } else {
            uint16_t half = (uint16_t)(from[2 * i] | from[2 * i + 1] << 8);

            out[i] = stored == DTYPE_F16 ? f32_from_f16(half) : f32_from_bf16(half);
        }
    }
}

static void pack_f32(const uint8_t *const rows[PACKED_LANES], uint32_t cols, uint8_t *codes)
{
    for (uint32_t begin = 0; begin < cols; begin += K_BLOCK) {
        uint32_t end = MIN(cols, begin + K_BLOCK);

        for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
            for (uint32_t k = begin; k < end; k++) {
                memcpy(codes + ((size_t)k * PACKED_LANES + lane) * 4, rows[lane] + (size_t)k * 4,
                       4);
            }
        }
    }
}

static void pack_f16(const uint8_t *const rows[PACKED_LANES], uint32_t cols, uint8_t *codes)
{
    for (uint32_t begin = 0; begin < cols; begin += K_BLOCK) {
        uint32_t end = MIN(cols, begin + K_BLOCK);

        for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
            for (uint32_t k = begin; k < end; k++) {
                memcpy(codes + ((size_t)k * PACKED_LANES + lane) * 2, rows[lane] + (size_t)k * 2,
                       2);
            }
        }
    }
}

/* One row from column begin on. Pairs of neighbouring elements stay together; an odd last one gets
 * a zero beside it. */
static void pack_bf16_row(const uint8_t *row, uint32_t begin, uint32_t end, uint32_t lane,
                          uint8_t *codes)
{
    for (uint32_t k = begin; k + 1 < end; k += 2) {
        memcpy(codes + ((size_t)(k / 2) * PACKED_LANES + lane) * 4, row + (size_t)k * 2, 4);
    }
    if (end % 2 != 0) {
        memcpy(codes + ((size_t)(end / 2) * PACKED_LANES + lane) * 4, row + (size_t)(end - 1) * 2,
               2);
    }
}

/* Four columns of two rows: two pairs of each become two times a pair of both. Twice as fast as
 * pair by pair, which was the most of what a load computes. */
static void pack_bf16_four(const uint8_t *row, const uint8_t *next, uint8_t *out)
{
    uint64_t a;
    uint64_t b;
    uint64_t low;
    uint64_t high;

    memcpy(&a, row, 8);
    memcpy(&b, next, 8);
    low = (uint32_t)a | b << 32;
    high = a >> 32 | (b & UINT64_C(0xffffffff00000000));
    memcpy(out, &low, 8);
    memcpy(out + (size_t)PACKED_LANES * 4, &high, 8);
}

static void pack_bf16(const uint8_t *const rows[PACKED_LANES], uint32_t cols, uint8_t *codes)
{
    uint32_t n_rows = 0;
    uint32_t fours = cols / 4 * 4;

    while (n_rows < PACKED_LANES && rows[n_rows] != NULL) {
        n_rows++;
    }
    for (uint32_t k = 0; k < fours; k += 4) {
        for (uint32_t lane = 0; lane + 1 < n_rows; lane += 2) {
            pack_bf16_four(rows[lane] + (size_t)k * 2, rows[lane + 1] + (size_t)k * 2,
                           codes + ((size_t)(k / 2) * PACKED_LANES + lane) * 4);
        }
    }
    for (uint32_t lane = 0; lane < n_rows; lane++) {
        bool is_alone = lane + 1 == n_rows && n_rows % 2 != 0;

        pack_bf16_row(rows[lane], is_alone ? 0 : fours, cols, lane, codes);
    }
}

static void put_b8(uint8_t *out, uint32_t lane, const uint8_t codes[32])
{
    for (uint32_t j = 0; j < 8; j++) {
        memcpy(out + j * 64 + lane * 4, codes + j * 4, 4);
    }
}

static void put_b4(uint8_t *out, uint32_t lane, const uint8_t codes[32])
{
    for (uint32_t j = 0; j < 4; j++) {
        for (uint32_t b = 0; b < 4; b++) {
            out[j * 64 + lane * 4 + b] =
                (uint8_t)((codes[8 * j + b] & 15) | codes[8 * j + 4 + b] << 4);
        }
    }
}

/* Eight at a time: the product moves the low bit of byte i to bit 56 + i. */
static void put_b1(uint8_t *out, uint32_t lane, const uint8_t codes[32])
{
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t eight;

        memcpy(&eight, codes + 8 * i, sizeof(eight));
        eight = eight >> 4 & UINT64_C(0x0101010101010101);
        out[lane * 4 + i] = (uint8_t)(eight * UINT64_C(0x0102040810204080) >> 56);
    }
}

static void put_b2(uint8_t *out, uint32_t lane, const uint8_t codes[32])
{
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t bits = 0;

        for (uint32_t t = 0; t < 16; t++) {
            bits |= (uint32_t)(codes[16 * h + t] >> 4 & 3) << (2 * t);
        }
        memcpy(out + (h * PACKED_LANES + lane) * 4, &bits, sizeof(bits));
    }
}

static void pack_codes(enum dtype dtype, const uint8_t *const rows[PACKED_LANES], uint32_t cols,
                       uint8_t *out)
{
    bool b1 = dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1 || dtype == DTYPE_Q5_K;
    bool b2 = dtype == DTYPE_Q6_K;
    size_t group_bytes = dtype == DTYPE_Q8_0 ? 512 : 256 + (b1 ? 64u : 0u) + (b2 ? 128u : 0u);

    for (uint32_t i = 0; i < cols / 32; i++, out += group_bytes) {
        for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
            uint8_t codes[32];

            blocks_codes(dtype, rows[lane], i, codes);
            if (dtype == DTYPE_Q8_0) {
                put_b8(out, lane, codes);
                continue;
            }
            put_b4(out, lane, codes);
            if (b1) {
                put_b1(out + 256, lane, codes);
            }
            if (b2) {
                put_b2(out + 256, lane, codes);
            }
        }
    }
}

/* The halves a record begins with (Q6_K: ends with) become planes; false if one is not finite. */
static bool put_halves(const uint8_t *record, uint32_t n, uint32_t lane, uint8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *half = out + (i * PACKED_LANES + lane) * 2;

        memcpy(half, record + 2 * i, 2);
        if ((half[1] & 0x7c) == 0x7c) { /* the exponent of infinities and NaNs */
            return false;
        }
    }
    return true;
}

static void put_planes(const uint8_t *bytes, uint32_t n, uint32_t lane, uint8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i * PACKED_LANES + lane] = bytes[i];
    }
}

/* False if a scale of this row is not finite. */
static bool pack_scales(enum dtype dtype, const uint8_t *row, uint32_t cols, uint32_t lane,
                        uint8_t *out)
{
    const struct dtype_info *info = dtype_info(dtype);
    bool ok = true;

    for (uint32_t i = 0; i < cols / info->group && ok; i++, row += info->group_bytes) {
        switch (dtype) {
        case DTYPE_Q8_0:
        case DTYPE_Q4_0:
        case DTYPE_Q5_0:
            ok = put_halves(row, 1, lane, out);
            out += 32;
            break;
        case DTYPE_Q4_1:
        case DTYPE_Q5_1:
            ok = put_halves(row, 2, lane, out);
            out += 64;
            break;
        case DTYPE_Q4_K:
        case DTYPE_Q5_K:
            ok = put_halves(row, 2, lane, out);
            put_planes(row + 4, 12, lane, out + 64);
            out += 256;
            break;
        default: /* Q6_K */
            ok = put_halves(row + 208, 1, lane, out);
            put_planes(row + 192, 16, lane, out + 32);
            out += 288;
            break;
        }
    }
    return ok;
}

/* One panel from its rows; on a scale that is not finite, returns the row's number in the panel,
 * else PACKED_LANES. */
static uint32_t pack_panel(const struct packed *packed, const uint8_t *const rows[PACKED_LANES],
                           uint8_t *codes, uint8_t *scales)
{
    switch (packed->dtype) {
    case DTYPE_F32:
        pack_f32(rows, packed->cols, codes);
        return PACKED_LANES;
    case DTYPE_F16:
        pack_f16(rows, packed->cols, codes);
        return PACKED_LANES;
    case DTYPE_BF16:
        pack_bf16(rows, packed->cols, codes);
        return PACKED_LANES;
    default:
        pack_codes(packed->dtype, rows, packed->cols, codes);
        for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
            if (!pack_scales(packed->dtype, rows[lane], packed->cols, lane, scales)) {
                return lane;
            }
        }
        return PACKED_LANES;
    }
}

/* pack_panel to where the panel lies. */
static uint32_t lay_out(const struct packed *packed, uint32_t panel,
                        const uint8_t *const rows[PACKED_LANES])
{
    uint8_t *scales = (uint8_t *)packed->scales;

    return pack_panel(packed, rows, (uint8_t *)packed->codes + panel * packed->panel_code_bytes,
                      scales == NULL ? NULL : scales + panel * packed->panel_scale_bytes);
}

/* Rows of plain elements on the way to quantised ones. */
struct quantiser {
    float *values;   /* one row */
    uint8_t *blocks; /* sixteen rows of block_bytes */
    size_t block_bytes;
};

static bool quantiser_init(struct quantiser *q, const struct packed *packed)
{
    *q = (struct quantiser){0};
    if (!dtype_bytes(packed->dtype, packed->cols, &q->block_bytes)) {
        return false;
    }
    q->values = mem_alloc(packed->cols, sizeof(float));
    q->blocks = mem_alloc(PACKED_LANES, q->block_bytes);
    return q->values != NULL && q->blocks != NULL;
}

static void quantiser_release(struct quantiser *q)
{
    free(q->values);
    free(q->blocks);
}

/* As pack_panel, of rows as they are stored; returns likewise. */
static uint32_t quantise_panel(const struct packed *packed, uint32_t panel, enum dtype stored,
                               const uint8_t *const rows[PACKED_LANES], struct quantiser *q)
{
    const uint8_t *blocks[PACKED_LANES] = {NULL};

    for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
        uint8_t *out = q->blocks + lane * q->block_bytes;

        to_floats(stored, rows[lane], packed->cols, q->values);
        if (!quantise_row(packed->dtype, q->values, packed->cols, out)) {
            return lane;
        }
        blocks[lane] = out;
    }
    return lay_out(packed, panel, blocks);
}

bool pack_quantised(const struct packed *packed, uint32_t panel,
                    const float *const rows[PACKED_LANES], void *storage)
{
    const uint8_t *bytes[PACKED_LANES] = {NULL};
    struct packed target = *packed;
    struct quantiser q;
    bool ok = quantiser_init(&q, packed);

    packed_attach(&target, storage);
    for (uint32_t lane = 0; lane < PACKED_LANES && rows[lane] != NULL; lane++) {
        bytes[lane] = (const uint8_t *)rows[lane];
    }
    ok = ok && quantise_panel(&target, panel, DTYPE_F32, bytes, &q) == PACKED_LANES;
    quantiser_release(&q);
    return ok;
}

/* The same at 12 bits, or plain where too much would have to be patched. */
static enum status lay_out_12(const struct pack_matrix *matrix, const struct packed *packed,
                              uint32_t panel, const uint8_t *const rows[PACKED_LANES],
                              struct err *err)
{
    uint8_t *plain = (uint8_t *)packed->plain + panel * packed->panel_plain_bytes;
    enum status status = STATUS_OK;

    if (bf16_12_pack(packed, rows, (uint8_t *)packed->codes + panel * packed->panel_code_bytes,
                     (uint8_t *)packed->scales + panel * packed->panel_scale_bytes)) {
        return STATUS_OK;
    }
    if (matrix->reserve != NULL) {
        status = matrix->reserve(matrix->reserve_arg, plain, packed->panel_plain_bytes, err);
    }
    if (status == STATUS_OK) {
        pack_bf16(rows, packed->cols, plain);
    }
    return status;
}

/* Lays out one panel from its sixteen rows, which have been read. */
static enum status pack_one(struct weights *weights, const struct pack_matrix *matrix,
                            const struct packed *packed, uint32_t panel, const uint8_t *const *rows,
                            struct quantiser *quantiser, struct err *err)
{
    enum dtype stored = matrix->parts[0].tensor->dtype;
    bool same = stored == packed->dtype;
    uint32_t lane;

    if (packed->dtype == DTYPE_BF16_12) {
        return lay_out_12(matrix, packed, panel, rows, err);
    }
    lane = same ? lay_out(packed, panel, rows)
                : quantise_panel(packed, panel, stored, rows, quantiser);
    if (lane < PACKED_LANES) {
        struct row_place place = find_row(matrix, panel * PACKED_LANES + lane);

        return err_set(err, STATUS_CORRUPT, "%s: tensor '%s': row %llu has %s",
                       weights_file_name(weights, place.tensor->file), place.tensor->name,
                       (unsigned long long)place.row,
                       same ? "a scale that is not finite" : "an element that cannot be quantised");
    }
    return STATUS_OK;
}

enum status pack_panels(struct weights *weights, const struct pack_matrix *matrix,
                        const struct packed *packed, uint32_t panel_begin, uint32_t panel_end,
                        void *storage, struct err *err)
{
    struct row_bytes size = row_bytes(matrix, packed);
    struct packed target = *packed;
    const uint8_t **rows = NULL;
    uint8_t *scratch = NULL;
    struct quantiser quantiser = {0};
    bool quantises =
        matrix->parts[0].tensor->dtype != packed->dtype && dtype_is_quantised(packed->dtype);
    enum status status = STATUS_OK;
    uint32_t batch; /* panels */

    check_matrix(matrix, packed);
    packed_attach(&target, storage);
    batch = (uint32_t)MAX(BATCH_BYTES / (size.bytes * PACKED_LANES), 1);
    batch = MIN(batch, panel_end - panel_begin);
    rows = mem_alloc((size_t)batch * PACKED_LANES, sizeof(*rows));
    scratch = mem_alloc((size_t)batch * PACKED_LANES, size.bytes);
    if (rows == NULL || scratch == NULL || (quantises && !quantiser_init(&quantiser, packed))) {
        status = err_set(err, STATUS_NO_MEMORY, "tensor '%s': out of memory to pack it",
                         matrix->parts[0].tensor->name);
        goto out;
    }
    for (uint32_t begin = panel_begin; begin < panel_end && status == STATUS_OK; begin += batch) {
        uint32_t end = MIN(begin + batch, panel_end);

        memset(rows, 0, (size_t)batch * PACKED_LANES * sizeof(*rows));
        status = read_rows(weights, matrix, &size, begin * PACKED_LANES,
                           MIN(end * PACKED_LANES, packed->rows), scratch, rows, err);
        for (uint32_t panel = begin; panel < end && status == STATUS_OK; panel++) {
            status = pack_one(weights, matrix, &target, panel,
                              rows + (size_t)(panel - begin) * PACKED_LANES, &quantiser, err);
        }
    }
out:
    quantiser_release(&quantiser);
    free(scratch);
    free(rows);
    return status;
}

enum status pack_floats(struct weights *weights, const struct weights_tensor *tensor, float *out,
                        struct err *err)
{
    enum { CHUNK = 4096 };
    uint64_t n = weights_n_elements(tensor);
    uint8_t raw[CHUNK * 2];
    enum status status = STATUS_OK;

    if (tensor->dtype != DTYPE_F32 && tensor->dtype != DTYPE_F16 && tensor->dtype != DTYPE_BF16) {
        return err_set(err, STATUS_UNSUPPORTED,
                       "%s: tensor '%s': type %s, must be F32, F16 or BF16",
                       weights_file_name(weights, tensor->file), tensor->name, tensor->type_name);
    }
    if (tensor->dtype == DTYPE_F32) {
        return weights_read(weights, tensor, 0, tensor->bytes, out, err);
    }
    for (uint64_t begin = 0; begin < n && status == STATUS_OK; begin += CHUNK) {
        size_t count = (size_t)MIN(n - begin, (uint64_t)CHUNK);

        status = weights_read(weights, tensor, begin * 2, count * 2, raw, err);
        if (status == STATUS_OK) {
            to_floats(tensor->dtype, raw, count, out + begin);
        }
    }
    return status;
}
