/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/bf16_12.h"

enum { RECORD_ALIGN = 4, PATCHES_MIN = 4, NO_CODE = 0xff };

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

/* The sixteen most frequent high bytes; of equally frequent ones the lower first. */
static void choose_table(const uint32_t counts[256], uint8_t table[BF16_12_TABLE])
{
    bool taken[256] = {false};

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
}

/* How often each high byte occurs, rows that are not there being zero. Four counters by turns: the
 * next element is as a rule of the same binade, and would wait for this one's to be stored. */
static void count_high(const uint8_t *const rows[PACKED_LANES], uint32_t cols, uint32_t counts[256])
{
    uint32_t turns[4][256] = {{0}};

    for (uint32_t lane = 0; lane < PACKED_LANES; lane++) {
        if (rows[lane] == NULL) {
            turns[0][0] += cols;
            continue;
        }
        for (uint32_t k = 0; k < cols; k++) {
            turns[k % 4][rows[lane][(size_t)k * 2 + 1]]++;
        }
    }
    for (uint32_t i = 0; i < 256; i++) {
        counts[i] = turns[0][i] + turns[1][i] + turns[2][i] + turns[3][i];
    }
}

/* What a panel is packed with. */
struct packer {
    uint8_t code_of[256]; /* NO_CODE: not in the table */
    uint8_t *marks;
    uint32_t *patches;
    uint32_t n_patches;
};

/* One lane of a unit: eight elements. */
static void pack_lane(struct packer *packer, uint32_t unit, uint32_t lane, const uint8_t *elements,
                      uint8_t *out)
{
    uint8_t codes[BF16_12_UNIT];
    uint32_t at = lane / 4 * 16 + lane % 4 * 2;
    uint8_t any = 0;

    for (uint32_t c = 0; c < BF16_12_UNIT; c++) {
        codes[c] = packer->code_of[elements[2 * c + 1]];
        any |= codes[c];
    }
    if (any == NO_CODE) {
        for (uint32_t c = 0; c < BF16_12_UNIT; c++) {
            if (codes[c] == NO_CODE) {
                codes[c] = 0;
                packer->patches[packer->n_patches++] =
                    bf16_12_patch(unit * BF16_12_UNIT + c, lane, elements[2 * c + 1]);
            }
        }
        packer->marks[unit / 8] |= (uint8_t)(1 << unit % 8);
    }
    for (uint32_t c = 0; c < BF16_12_UNIT / 2; c += 2) {
        uint8_t *line = out + at + c / 2 * 8;

        line[0] = elements[2 * c];
        line[1] = elements[2 * c + 2];
        line[64] = elements[2 * c + 8];
        line[65] = elements[2 * c + 10];
        line[128] = (uint8_t)(codes[c] | codes[c + 4] << 4);
        line[129] = (uint8_t)(codes[c + 1] | codes[c + 5] << 4);
    }
}

bool bf16_12_pack(const struct packed *w, const uint8_t *const rows[PACKED_LANES], uint8_t *codes,
                  uint8_t *record)
{
    struct bf16_12_head *head = (void *)record;
    size_t at = bf16_12_patches_at(w->cols);
    size_t room = (w->panel_scale_bytes - at) / sizeof(uint32_t);
    struct packer packer = {.marks = (uint8_t *)(head + 1), .patches = (void *)(record + at)};
    uint32_t counts[256];
    size_t n_patches = 0;

    count_high(rows, w->cols, counts);
    choose_table(counts, head->table);
    memset(packer.code_of, NO_CODE, sizeof(packer.code_of));
    for (uint32_t i = 0; i < BF16_12_TABLE; i++) {
        packer.code_of[head->table[i]] = (uint8_t)i;
    }
    for (uint32_t i = 0; i < 256; i++) {
        n_patches += packer.code_of[i] == NO_CODE ? counts[i] : 0;
    }
    if (n_patches > room) {
        head->n_patches = BF16_12_PLAIN;
        return false;
    }
    for (uint32_t k = 0; k < w->cols; k += BF16_12_UNIT, codes += BF16_12_UNIT_BYTES) {
        uint32_t n = MIN(w->cols - k, (uint32_t)BF16_12_UNIT);

        for (uint32_t lane = 0; lane < PACKED_LANES; lane++) {
            uint8_t padded[2 * BF16_12_UNIT] = {0};
            const uint8_t *elements = padded;

            if (rows[lane] != NULL && n == BF16_12_UNIT) {
                elements = rows[lane] + (size_t)k * 2;
            } else if (rows[lane] != NULL) {
                memcpy(padded, rows[lane] + (size_t)k * 2, (size_t)n * 2);
                for (uint32_t c = n; c < BF16_12_UNIT; c++) {
                    padded[2 * c + 1] = head->table[0]; /* which needs no patch */
                }
            }
            pack_lane(&packer, k / BF16_12_UNIT, lane, elements, codes);
        }
    }
    ENSURE_OP(packer.n_patches, ==, n_patches);
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
