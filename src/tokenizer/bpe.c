/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways to the same result: a short word (nearly every one) keeps its pairs' ranks in an array
 * and looks for the least; a long one keeps them in a heap over a linked list. An entry of the heap
 * is stale, and is passed over, when its position was swallowed or its pair changed; since a rank
 * belongs to one pair, comparing ranks tells.
 */
#include "tokenizer/bpe.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"

enum { SHORT_WORD = 48 };

#define BPE_NO_PAIR UINT64_MAX
#define NO_RANK     UINT32_MAX
#define NO_NEXT     UINT32_MAX

struct bpe_symbol {
    int32_t id;
    uint32_t rank;  /* of the pair with the next symbol; NO_RANK: none, or swallowed */
    int32_t merged; /* what that pair becomes */
    uint32_t prev;
    uint32_t next;
};

enum status bpe_init(struct bpe *bpe, size_t n_merges, struct err *err)
{
    size_t n_slots = 16;

    *bpe = (struct bpe){.unk = -1};
    memset(bpe->byte_id, 0xff, sizeof(bpe->byte_id));
    if (n_merges >= NO_RANK) {
        return err_set(err, STATUS_LIMIT, "%zu merges", n_merges);
    }
    while (n_slots < n_merges + n_merges / 2) {
        n_slots *= 2;
    }
    if (getrandom(&bpe->seed, sizeof(bpe->seed), GRND_NONBLOCK) < 0) {
        bpe->seed = clock_ns();
    }
    bpe->merges = mem_alloc(n_slots, sizeof(*bpe->merges));
    if (bpe->merges == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %zu merges", n_merges);
    }
    memset(bpe->merges, 0xff, n_slots * sizeof(*bpe->merges));
    bpe->mask = n_slots - 1;
    return STATUS_OK;
}

void bpe_release(struct bpe *bpe)
{
    free(bpe->merges);
    *bpe = (struct bpe){0};
}

void bpe_set_bytes(struct bpe *bpe, const struct vocab *vocab)
{
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        char text[2];
        int32_t id = vocab_find(vocab, text, vocab_spell(vocab, &byte, 1, text));

        bpe->byte_id[b] = id >= 0 && (vocab->tokens[id].flags & VOCAB_MODEL) ? id : -1;
    }
}

/* The slot of the pair, or the free one where it belongs. */
static struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t h = (pair ^ bpe->seed) * 0x9e3779b97f4a7c15u;
    size_t i;

    h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9u;
    for (i = (h ^ (h >> 29)) & bpe->mask;; i = (i + 1) & bpe->mask) {
        if (bpe->merges[i].pair == pair || bpe->merges[i].pair == BPE_NO_PAIR) {
            return &bpe->merges[i];
        }
    }
}

static enum status unknown_token(const struct tokenizer_text *text, struct err *err)
{
    return err_set(err, STATUS_INVALID, "\"%.*s\" is not in the vocabulary",
                   (int)MIN(text->size, 64), text->data);
}

enum status bpe_add_merge(struct bpe *bpe, const struct vocab *vocab, uint32_t rank,
                          const struct tokenizer_text *left, const struct tokenizer_text *right,
                          struct err *err)
{
    int32_t left_id = vocab_find(vocab, left->data, left->size);
    int32_t right_id = vocab_find(vocab, right->data, right->size);
    struct tokenizer_text both = {0};
    struct bpe_merge *merge;
    struct buf text = {0};
    int32_t id;

    if (left_id < 0 || right_id < 0) {
        return unknown_token(left_id < 0 ? left : right, err);
    }
    buf_append(&text, left->data, left->size);
    buf_append(&text, right->data, right->size);
    both = (struct tokenizer_text){text.data, text.len};
    id = vocab_find(vocab, both.data, both.size);
    if (id < 0) {
        enum status status = unknown_token(&both, err);

        buf_release(&text);
        return status;
    }
    buf_release(&text);
    merge = find_merge(bpe, left_id, right_id);
    *merge = (struct bpe_merge){
        .pair = (uint64_t)(uint32_t)left_id << 32 | (uint32_t)right_id, .rank = rank, .id = id};
    return STATUS_OK;
}

/* Fills the symbols with the one-byte tokens. Returns their number. */
static size_t start_word(const struct bpe *bpe, const struct tokenizer_text *word,
                         struct bpe_symbol *symbols)
{
    bool after_unk = false;
    size_t n = 0;

    for (size_t i = 0; i < word->size; i++) {
        int32_t id = bpe->byte_id[(unsigned char)word->data[i]];
        bool is_unk = id < 0;

        if (is_unk && (bpe->unk < 0 || (bpe->fuse_unk && after_unk))) {
            continue;
        }
        symbols[n++].id = is_unk ? bpe->unk : id;
        after_unk = is_unk;
    }
    return n;
}

static void set_pair(const struct bpe *bpe, struct bpe_symbol *left, const struct bpe_symbol *right)
{
    const struct bpe_merge *merge = find_merge(bpe, left->id, right->id);

    left->rank = merge->pair == BPE_NO_PAIR ? NO_RANK : merge->rank;
    left->merged = merge->id;
}

static size_t merge_short(const struct bpe *bpe, struct bpe_symbol *symbols, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        set_pair(bpe, &symbols[i], &symbols[i + 1]);
    }
    while (n > 1) {
        size_t best = 0;

        for (size_t i = 1; i + 1 < n; i++) {
            if (symbols[i].rank < symbols[best].rank) {
                best = i;
            }
        }
        if (symbols[best].rank == NO_RANK) {
            break;
        }
        symbols[best].id = symbols[best].merged;
        memmove(&symbols[best + 1], &symbols[best + 2], (n - best - 2) * sizeof(*symbols));
        n--;
        if (best + 1 < n) {
            set_pair(bpe, &symbols[best], &symbols[best + 1]);
        }
        if (best > 0) {
            set_pair(bpe, &symbols[best - 1], &symbols[best]);
        }
    }
    return n;
}

static enum status heap_push(struct bpe_scratch *scratch, uint64_t key)
{
    uint64_t *heap = scratch->heap;
    size_t i = scratch->heap_n;

    if (scratch->heap_n == scratch->heap_cap) {
        size_t cap = MAX(scratch->heap_cap * 2, 1024);

        heap = reallocarray(scratch->heap, cap, sizeof(*heap));
        if (heap == NULL) {
            return STATUS_NO_MEMORY;
        }
        scratch->heap = heap;
        scratch->heap_cap = cap;
    }
    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2) {
        heap[i] = heap[(i - 1) / 2];
    }
    heap[i] = key;
    scratch->heap_n++;
    return STATUS_OK;
}

static uint64_t heap_pop(struct bpe_scratch *scratch)
{
    uint64_t *heap = scratch->heap;
    size_t n = --scratch->heap_n;
    uint64_t top = heap[0];
    uint64_t last = heap[n];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= n) {
            break;
        }
        if (child + 1 < n && heap[child + 1] < heap[child]) {
            child++;
        }
        if (last <= heap[child]) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Looks up the pair that begins at position i and puts it on the heap. */
static enum status push_pair(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t i)
{
    struct bpe_symbol *symbol = &scratch->symbols[i];

    symbol->rank = NO_RANK;
    if (symbol->next != NO_NEXT) {
        set_pair(bpe, symbol, &scratch->symbols[symbol->next]);
    }
    if (symbol->rank == NO_RANK) {
        return STATUS_OK;
    }
    return heap_push(scratch, (uint64_t)symbol->rank << 32 | i);
}

static enum status merge_long(const struct bpe *bpe, struct bpe_scratch *scratch, size_t n)
{
    struct bpe_symbol *symbols = scratch->symbols;
    enum status status = STATUS_OK;

    scratch->heap_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i].prev = i == 0 ? NO_NEXT : i - 1;
        symbols[i].next = i + 1 == n ? NO_NEXT : i + 1;
    }
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        status = push_pair(bpe, scratch, i);
    }
    while (status == STATUS_OK && scratch->heap_n > 0) {
        uint64_t key = heap_pop(scratch);
        struct bpe_symbol *left = &symbols[(uint32_t)key];
        struct bpe_symbol *right;

        if (left->rank != key >> 32) {
            continue;
        }
        right = &symbols[left->next];
        left->id = left->merged;
        right->rank = NO_RANK;
        left->next = right->next;
        if (left->next != NO_NEXT) {
            symbols[left->next].prev = (uint32_t)key;
        }
        status = push_pair(bpe, scratch, (uint32_t)key);
        if (status == STATUS_OK && left->prev != NO_NEXT) {
            status = push_pair(bpe, scratch, left->prev);
        }
    }
    return status;
}

static enum status encode_long(const struct bpe *bpe, const struct tokenizer_text *word,
                               struct bpe_scratch *scratch, struct token_ids *ids)
{
    enum status status;
    size_t n;

    if (word->size > INT32_MAX) {
        return STATUS_LIMIT;
    }
    if (scratch->symbols_cap < word->size) {
        free(scratch->symbols);
        scratch->symbols_cap = 0;
        scratch->symbols = mem_alloc(word->size, sizeof(*scratch->symbols));
        if (scratch->symbols == NULL) {
            return STATUS_NO_MEMORY;
        }
        scratch->symbols_cap = word->size;
    }
    n = start_word(bpe, word, scratch->symbols);
    if (n == 0) {
        return STATUS_OK;
    }
    status = merge_long(bpe, scratch, n);
    for (uint32_t i = 0; status == STATUS_OK && i != NO_NEXT; i = scratch->symbols[i].next) {
        status = token_ids_push(ids, scratch->symbols[i].id);
    }
    return status;
}

/* The model's token that is the whole word, -1 if there is none. */
static int32_t whole_word(const struct vocab *vocab, const struct tokenizer_text *word,
                          struct bpe_scratch *scratch)
{
    int32_t id;

    if (word->size > vocab->max_text) { /* also bounds the buffer */
        return -1;
    }
    buf_clear(&scratch->spelling);
    buf_reserve(&scratch->spelling, 2 * word->size);
    id = vocab_find(vocab, scratch->spelling.data,
                    vocab_spell(vocab, word->data, word->size, scratch->spelling.data));
    return id >= 0 && (vocab->tokens[id].flags & VOCAB_MODEL) ? id : -1;
}

enum status bpe_encode(const struct bpe *bpe, const struct vocab *vocab,
                       const struct tokenizer_text *word, struct bpe_scratch *scratch,
                       struct token_ids *ids)
{
    struct bpe_symbol symbols[SHORT_WORD];
    enum status status = STATUS_OK;
    size_t n;

    if (bpe->ignore_merges) {
        int32_t id = whole_word(vocab, word, scratch);

        if (id >= 0) {
            return token_ids_push(ids, id);
        }
    }
    if (word->size > SHORT_WORD) {
        return encode_long(bpe, word, scratch, ids);
    }
    n = merge_short(bpe, symbols, start_word(bpe, word, symbols));
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = token_ids_push(ids, symbols[i].id);
    }
    return status;
}

void bpe_scratch_release(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    buf_release(&scratch->spelling);
    *scratch = (struct bpe_scratch){0};
}
