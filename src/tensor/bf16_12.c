/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/bf16_12.h"

enum {
    RECORD_ALIGN = 4,
    PATCHES_MIN = 4,
    NO_CODE = 0xff,
    SAMPLE = 8, /* one in so many units is counted to choose a table */
};

size_t bf16_12_code_bytes(uint32_t cols)
{
    return div_up(cols, BF16_12_UNIT) * BF16_12_UNIT_BYTES;
}

/* 103 % of 12 bits for each element of a panel. */
static size_t compact_bytes(uint32_t cols)
{
    return (size_t)cols * PACKED_LANES * 12 / 8 * 103 / 100;
}

size_t bf16_12_record_bytes(uint32_t cols)
{
    size_t least = bf16_12_patches_at(cols) + PATCHES_MIN * sizeof(uint32_t);
    size_t codes = bf16_12_code_bytes(cols);
    size_t room = compact_bytes(cols) > codes ? compact_bytes(cols) - codes : 0;

    return MAX(room / RECORD_ALIGN * RECORD_ALIGN, round_up(least, RECORD_ALIGN));
}

bool bf16_12_is_compact(uint32_t cols)
{
    return cols <= BF16_12_COLS_MAX &&
           bf16_12_code_bytes(cols) + bf16_12_record_bytes(cols) <= compact_bytes(cols);
}

/* Number of the first of n patches that is not before column k. */
static uint32_t first_patch(const uint32_t *patches, uint32_t n, uint32_t k)
{
    uint32_t low = 0;

    while (low < n) {
        uint32_t middle = low + (n - low) / 2;

        if (patches[middle] >> 12 < k) {
            low = middle + 1;
        } else {
            n = middle;
        }
    }
    return low;
}

const uint32_t *bf16_12_patches(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                                uint32_t *ret_n)
{
    const struct bf16_12_head *head = bf16_12_head(w, panel);
    const uint32_t *patches = (const void *)((const uint8_t *)head + bf16_12_patches_at(w->cols));
    uint32_t end = (uint32_t)round_up(k + n, BF16_12_UNIT);
    uint32_t first = first_patch(patches, head->n_patches, k);

    *ret_n = first_patch(patches + first, head->n_patches - first, end);
    return patches + first;
}

/* What a panel is packed with. */
struct packer {
    const struct packed *w;
    uint8_t table[BF16_12_TABLE];
    uint8_t code_of[256]; /* NO_CODE: not in the table */
    bool is_range;        /* code c is the high byte (c & 8) << 4 | (base + (c & 7)) */
    uint8_t base;
    uint8_t *marks;
    uint32_t *patches;
    uint32_t n_patches;
    uint32_t room; /* for patches */
};

/* The sixteen most frequent high bytes; of equally frequent ones the lower first. Returns how many
 * elements have another one. */
static uint32_t choose_frequent(const uint32_t counts[256], uint8_t table[BF16_12_TABLE])
{
    bool taken[256] = {false};
    uint32_t others = 0;

    for (uint32_t i = 0; i < BF16_12_TABLE; i++) {
        uint32_t best = 256;

        for (uint32_t high = 0; high < 256; high++) {
            if (!taken[high] && (best == 256 || counts[high] > counts[best])) {
                best = high;
            }
        }
        taken[best] = true;
        table[i] = (uint8_t)best;
    }
    for (uint32_t high = 0; high < 256; high++) {
        others += taken[high] ? 0 : counts[high];
    }
    return others;
}

/* The eight neighbouring upper exponents that most elements have, in both signs. Returns how many
 * elements have another one. */
static uint32_t choose_range(const uint32_t counts[256], uint8_t *ret_base)
{
    enum { WIDTH = BF16_12_TABLE / 2 };
    uint32_t total = 0;
    uint32_t inside = 0;
    uint32_t most = 0;

    for (uint32_t i = 0; i < 128; i++) {
        total += counts[i] + counts[i + 128];
        inside += counts[i] + counts[i + 128];
        inside -= i < WIDTH ? 0 : counts[i - WIDTH] + counts[i - WIDTH + 128];
        if (i >= WIDTH - 1 && inside >= most) {
            most = inside;
            *ret_base = (uint8_t)(i - (WIDTH - 1));
        }
    }
    return total - most;
}

/* A range where it leaves few patches, or hardly more than the most frequent bytes do: its codes
 * are computed, eight at a time. counts are of one in `step` elements. */
static void choose_table(struct packer *packer, const uint32_t counts[256], uint32_t step)
{
    uint32_t outside = choose_range(counts, &packer->base);

    /* one patch in 2,048 elements is in every fifth step of a product */
    packer->is_range = (uint64_t)outside * step * 2048 <= (uint64_t)packer->w->cols * PACKED_LANES;
    if (!packer->is_range) {
        uint32_t others = choose_frequent(counts, packer->table);

        packer->is_range = outside <= others + others / 4;
    }
    memset(packer->code_of, NO_CODE, sizeof(packer->code_of));
    for (uint32_t i = 0; i < BF16_12_TABLE; i++) {
        if (packer->is_range) {
            packer->table[i] = (uint8_t)((i & 8) << 4 | (packer->base + (i & 7)));
        }
        packer->code_of[packer->table[i]] = (uint8_t)i;
    }
}

/* How often each high byte occurs in every step'th unit, rows that are not there being zero. Four
 * counters by turns: the next element is as a rule of the same binade, and would wait for this
 * one's to be stored. */
static void count_high(const uint8_t *const rows[PACKED_LANES], uint32_t cols, uint32_t step,
                       uint32_t counts[256])
{
    uint32_t turns[4][256] = {{0}};

    for (uint32_t k = 0; k < cols; k += step * BF16_12_UNIT) {
        uint32_t n = MIN(cols - k, (uint32_t)BF16_12_UNIT);

        for (uint32_t lane = 0; lane < PACKED_LANES; lane++) {
            const uint8_t *high = rows[lane] == NULL ? NULL : rows[lane] + (size_t)k * 2 + 1;

            turns[0][0] += high == NULL ? n : 0;
            for (uint32_t c = 0; c < n && high != NULL; c++) {
                turns[c % 4][high[2 * c]]++;
            }
        }
    }
    for (uint32_t i = 0; i < 256; i++) {
        counts[i] = turns[0][i] + turns[1][i] + turns[2][i] + turns[3][i];
    }
}

/* Every second byte of four elements, from the first on, side by side. */
static inline uint32_t gather_bytes(uint64_t elements)
{
    elements &= UINT64_C(0x00ff00ff00ff00ff);
    elements = (elements | elements >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(elements | elements >> 16);
}

/* The codes of eight high bytes; false if one has none. */
static inline bool range_codes(const struct packer *packer, uint64_t high, uint64_t *ret_codes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t above = (high & 0x7f * ones) + (uint64_t)(0x80 - packer->base) * ones;

    *ret_codes = (above & 7 * ones) | (high >> 4 & 8 * ones);
    return ((above ^ 0x80 * ones) & 0xf8 * ones) == 0;
}

/* The same one by one; those that have none become patches. False when there are too many. */
static bool look_up_codes(struct packer *packer, uint32_t unit, uint32_t lane, uint64_t high,
                          uint64_t *ret_codes)
{
    uint64_t codes = 0;

    for (uint32_t c = 0; c < BF16_12_UNIT; c++) {
        uint8_t byte = (uint8_t)(high >> 8 * c);
        uint8_t code = packer->code_of[byte];

        if (code != NO_CODE) {
            codes |= (uint64_t)code << 8 * c;
            continue;
        }
        if (packer->n_patches == packer->room) {
            return false;
        }
        packer->patches[packer->n_patches++] = bf16_12_patch(unit * BF16_12_UNIT + c, lane, byte);
        packer->marks[unit / 8] |= (uint8_t)(1 << unit % 8);
    }
    *ret_codes = codes;
    return true;
}

static inline void put_halves(uint32_t four, uint8_t *out)
{
    memcpy(out, &four, 2);
    four >>= 16;
    memcpy(out + 8, &four, 2);
}

/* One lane of a unit: eight elements. False when there are too many patches. */
static bool pack_lane(struct packer *packer, uint32_t unit, uint32_t lane, const uint8_t *elements,
                      uint8_t *out)
{
    uint64_t first;
    uint64_t second;
    uint64_t high;
    uint64_t codes;

    memcpy(&first, elements, sizeof(first));
    memcpy(&second, elements + sizeof(first), sizeof(second));
    high = gather_bytes(first >> 8) | (uint64_t)gather_bytes(second >> 8) << 32;
    if ((!packer->is_range || !range_codes(packer, high, &codes)) &&
        !look_up_codes(packer, unit, lane, high, &codes)) {
        return false;
    }
    out += lane / 4 * 16 + lane % 4 * 2;
    put_halves(gather_bytes(first), out);
    put_halves(gather_bytes(second), out + 64);
    put_halves((uint32_t)(codes | codes >> 28), out + 128);
    return true;
}

/* The unit at column k. False when there are too many patches. */
static bool pack_unit(struct packer *packer, const uint8_t *const rows[PACKED_LANES], uint32_t k,
                      uint8_t *out)
{
    uint32_t n = MIN(packer->w->cols - k, (uint32_t)BF16_12_UNIT);
    bool ok = true;

    for (uint32_t lane = 0; lane < PACKED_LANES && ok; lane++) {
        uint8_t padded[2 * BF16_12_UNIT] = {0};
        const uint8_t *elements = padded;

        if (rows[lane] != NULL && n == BF16_12_UNIT) {
            elements = rows[lane] + (size_t)k * 2;
        } else if (rows[lane] != NULL) {
            memcpy(padded, rows[lane] + (size_t)k * 2, (size_t)n * 2);
            for (uint32_t c = n; c < BF16_12_UNIT; c++) {
                padded[2 * c + 1] = packer->table[0]; /* which needs no patch */
            }
        }
        ok = pack_lane(packer, k / BF16_12_UNIT, lane, elements, out);
    }
    return ok;
}

/* With a table from every step'th unit. False when there are too many patches. */
static bool pack_from(struct packer *packer, const uint8_t *const rows[PACKED_LANES], uint32_t step,
                      uint8_t *codes)
{
    uint32_t counts[256];
    bool ok = true;

    count_high(rows, packer->w->cols, step, counts);
    choose_table(packer, counts, step);
    packer->n_patches = 0;
    for (uint32_t k = 0; k < packer->w->cols && ok; k += BF16_12_UNIT) {
        ok = pack_unit(packer, rows, k, codes + (size_t)(k / BF16_12_UNIT) * BF16_12_UNIT_BYTES);
    }
    return ok;
}

bool bf16_12_pack(const struct packed *w, const uint8_t *const rows[PACKED_LANES], uint8_t *codes,
                  uint8_t *record)
{
    struct bf16_12_head *head = (void *)record;
    size_t at = bf16_12_patches_at(w->cols);
    struct packer packer = {.w = w,
                            .marks = (uint8_t *)(head + 1),
                            .patches = (void *)(record + at),
                            .room = (uint32_t)((w->panel_scale_bytes - at) / sizeof(uint32_t))};

    if (!pack_from(&packer, rows, SAMPLE, codes)) {
        memset(record, 0, w->panel_scale_bytes);
        if (!pack_from(&packer, rows, 1, codes)) {
            memset(record, 0, w->panel_scale_bytes);
            head->n_patches = BF16_12_PLAIN;
            return false;
        }
    }
    memcpy(head->table, packer.table, sizeof(head->table));
    head->n_patches = packer.n_patches;
    return true;
}

uint16_t bf16_12_element(const struct packed *w, uint32_t row, uint32_t col)
{
    uint32_t panel = row / PACKED_LANES;
    uint32_t lane = row % PACKED_LANES;
    const struct bf16_12_head *head = bf16_12_head(w, panel);
    const uint8_t *unit =
        w->codes + panel * w->panel_code_bytes + (size_t)(col / BF16_12_UNIT) * BF16_12_UNIT_BYTES;
    uint32_t at = lane / 4 * 16 + col % 4 / 2 * 8 + lane % 4 * 2 + col % 2;
    bool second = col % BF16_12_UNIT >= 4;
    const uint32_t *patches;
    uint32_t code;
    uint32_t high;
    uint32_t n;

    if (head->n_patches == BF16_12_PLAIN) {
        const uint8_t *pair = w->plain + panel * w->panel_plain_bytes +
                              ((size_t)(col / 2) * PACKED_LANES + lane) * 4 + col % 2 * 2;

        return (uint16_t)(pair[0] | pair[1] << 8);
    }
    code = second ? unit[128 + at] >> 4 : unit[128 + at] & 15;
    high = head->table[code];
    patches = bf16_12_patches(w, panel, col / BF16_12_UNIT * BF16_12_UNIT, BF16_12_UNIT, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (patches[i] >> 8 == (col << 4 | lane)) {
            high = patches[i] & 0xff;
        }
    }
    return (uint16_t)(unit[(second ? 64 : 0) + at] | high << 8);
}
