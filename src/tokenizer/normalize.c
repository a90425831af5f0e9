/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NFC as Hugging Face's `tokenizers` computes it: by the tables of Unicode 9. A character that got
 * a combining class or a decomposition later is inert there, as every unassigned one is, and the
 * ids a model was trained on follow from that; so inert characters bound the pieces that utf8proc
 * (whose tables are newer) gets to see. The table below is the difference of the two, found by
 * trying every code point, and U+11A7, which is no trailing consonant but which utf8proc 2.8
 * swallows as one.
 *
 * utf8proc orders combining marks by exchanging neighbours, which is quadratic on a long run of
 * them; so only its decomposition of a character and its composition are used, and a stable merge
 * sort between them.
 */
#include "tokenizer/normalize.h"

#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"

enum {
    NFC_FIRST = 0x300, /* below it every character is in NFC and nothing reorders */
    NFC_FIRST_BYTE = 0xcc,
    MAX_DECOMPOSITION = 4, /* characters; the longest canonical one */
};

struct range {
    utf8proc_int32_t first;
    utf8proc_int32_t last;
};

static const struct range inert[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},
    {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e},
    {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
    {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136},
    {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};

static bool is_inert(utf8proc_int32_t code)
{
    size_t low = 0;
    size_t high = ARRAY_LEN(inert);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (code > inert[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < ARRAY_LEN(inert) && code >= inert[low].first;
}

static int combining_class(utf8proc_int32_t code)
{
    return code < NFC_FIRST ? 0 : utf8proc_get_property(code)->combining_class;
}

/* Merges the sorted halves of codes[0, n) by class, stable; scratch has room for n / 2 codes. */
static void merge_halves(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *scratch)
{
    size_t half = n / 2;
    size_t left = 0;
    size_t right = half;
    size_t out = 0;

    memcpy(scratch, codes, half * sizeof(*codes));
    while (left < half) {
        if (right < n && combining_class(codes[right]) < combining_class(scratch[left])) {
            codes[out++] = codes[right++];
        } else {
            codes[out++] = scratch[left++];
        }
    }
}

/* Stable sort by combining class; depth log2 n. */
static void sort_marks(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *scratch)
{
    if (n < 2) {
        return;
    }
    sort_marks(codes, n / 2, scratch);
    sort_marks(codes + n / 2, n - n / 2, scratch);
    merge_halves(codes, n, scratch);
}

/* Canonical ordering: every run of marks (class not 0) in ascending class. */
static void order_marks(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *scratch)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;
        bool sorted = true;
        int last = 0;

        for (; end < n; end++) {
            int class = combining_class(codes[end]);

            if (class == 0) {
                break;
            }
            sorted = sorted && class >= last;
            last = class;
        }
        if (!sorted) {
            sort_marks(codes + i, end - i, scratch);
        }
        i = end;
    }
}

/* The working memory of one text, sized for its largest piece. */
struct nfc {
    utf8proc_int32_t *codes; /* [cap] */
    utf8proc_int32_t *scratch;
    size_t n;
};

static void append_composed(struct nfc *nfc, struct buf *out)
{
    utf8proc_ssize_t n;

    order_marks(nfc->codes, nfc->n, nfc->scratch);
    n = utf8proc_normalize_utf32(nfc->codes, (utf8proc_ssize_t)nfc->n,
                                 UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    ENSURE_OP(n, >=, 0);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        buf_append_code(out, (uint32_t)nfc->codes[i]);
    }
    nfc->n = 0;
}

static void append_normalized(const struct tokenizer_text *text, struct nfc *nfc, struct buf *out)
{
    for (size_t i = 0; i < text->size;) {
        uint32_t code = 0;
        size_t step = utf8_decode(text->data + i, text->size - i, &code);

        if (step == 0 || is_inert((utf8proc_int32_t)code)) {
            append_composed(nfc, out);
            step = MAX(step, 1);
            buf_append(out, text->data + i, step);
        } else if (code < NFC_FIRST && nfc->n == 0 &&
                   (i + step == text->size ||
                    (unsigned char)text->data[i + step] < NFC_FIRST_BYTE)) {
            buf_append(out, text->data + i, step); /* nothing can combine with it */
        } else {
            utf8proc_ssize_t n;
            int boundclass = 0;

            if (code < NFC_FIRST) { /* a starter in NFC: what came before is complete */
                append_composed(nfc, out);
            }
            n = utf8proc_decompose_char((utf8proc_int32_t)code, nfc->codes + nfc->n,
                                        MAX_DECOMPOSITION, UTF8PROC_DECOMPOSE, &boundclass);
            ENSURE(n > 0 && n <= MAX_DECOMPOSITION);
            nfc->n += (size_t)n;
        }
        i += step;
    }
    append_composed(nfc, out);
}

enum status normalize_nfc(const struct tokenizer_text *text, struct buf *buf,
                          struct tokenizer_text *ret_text)
{
    struct nfc nfc = {0};
    size_t n_suspects = 0;
    size_t cap;

    for (size_t i = 0; i < text->size; i++) {
        n_suspects += (unsigned char)text->data[i] >= NFC_FIRST_BYTE;
    }
    if (n_suspects == 0) {
        *ret_text = *text;
        return STATUS_OK;
    }
    /* A piece is one character below NFC_FIRST at most, and others. */
    if (!size_add(n_suspects, 1, &cap) || !size_mul(cap, MAX_DECOMPOSITION, &cap)) {
        return STATUS_NO_MEMORY;
    }
    nfc.codes = mem_alloc(cap, sizeof(*nfc.codes));
    nfc.scratch = mem_alloc(cap / 2, sizeof(*nfc.scratch));
    if (nfc.codes == NULL || nfc.scratch == NULL) {
        free(nfc.codes);
        free(nfc.scratch);
        return STATUS_NO_MEMORY;
    }
    buf_clear(buf);
    append_normalized(text, &nfc, buf);
    *ret_text = (struct tokenizer_text){buf_str(buf), buf->len};
    free(nfc.codes);
    free(nfc.scratch);
    return STATUS_OK;
}
