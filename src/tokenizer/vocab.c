/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/vocab.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"

/* Printable Latin-1 stands for itself; the other 68 values follow from U+0100 on (GPT-2,
 * encoder.py: bytes_to_unicode). */
static void fill_alphabet(struct vocab *vocab)
{
    uint16_t next = 256;

    memset(vocab->byte_of, 0xff, sizeof(vocab->byte_of));
    for (int b = 0; b < 256; b++) {
        bool itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;

        vocab->code_of[b] = itself ? (uint16_t)b : next++;
        vocab->byte_of[vocab->code_of[b]] = (int16_t)b;
    }
    ENSURE_OP(next, ==, VOCAB_ALPHABET_END);
}

static size_t hash(const struct vocab *vocab, const char *text, size_t size)
{
    uint64_t h = vocab->seed ^ size;

    while (size > 0) {
        uint64_t word = 0;
        size_t n = MIN(size, sizeof(word));

        memcpy(&word, text, n);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
        text += n;
        size -= n;
    }
    h *= 0xbf58476d1ce4e5b9u;
    return (size_t)(h ^ (h >> 32));
}

enum status vocab_init(struct vocab *vocab, size_t n_ids, size_t n_tokens, size_t text_bytes,
                       struct err *err)
{
    size_t n_slots = 16;

    *vocab = (struct vocab){0};
    if (n_ids > VOCAB_MAX_IDS) {
        return err_set(err, STATUS_LIMIT, "id %zu: at most %d ids are supported", n_ids - 1,
                       VOCAB_MAX_IDS);
    }
    fill_alphabet(vocab);
    while (n_slots < 2 * n_tokens) {
        n_slots *= 2;
    }
    if (getrandom(&vocab->seed, sizeof(vocab->seed), GRND_NONBLOCK) < 0) {
        vocab->seed = clock_ns();
    }
    if (!size_mul(text_bytes, 2, &vocab->arena_size)) {
        return err_set(err, STATUS_LIMIT, "%zu bytes of tokens", text_bytes);
    }
    vocab->tokens = mem_alloc(n_ids, sizeof(*vocab->tokens));
    vocab->slots = mem_alloc(n_slots, sizeof(*vocab->slots));
    vocab->arena = mem_alloc(vocab->arena_size, 1);
    vocab->n_ids = n_ids;
    vocab->mask = n_slots - 1;
    if (vocab->tokens == NULL || vocab->slots == NULL || vocab->arena == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %zu tokens", n_tokens);
    }
    return STATUS_OK;
}

void vocab_release(struct vocab *vocab)
{
    free(vocab->tokens);
    free(vocab->slots);
    free(vocab->arena);
    *vocab = (struct vocab){0};
}

/* The slot of the spelling, or the free one where it belongs. */
static uint32_t *find_slot(const struct vocab *vocab, const char *text, size_t size)
{
    size_t i = hash(vocab, text, size) & vocab->mask;

    for (;; i = (i + 1) & vocab->mask) {
        const struct vocab_token *token;

        if (vocab->slots[i] == 0) {
            return &vocab->slots[i];
        }
        token = &vocab->tokens[vocab->slots[i] - 1];
        if (token->text_size == size && memcmp(token->text, text, size) == 0) {
            return &vocab->slots[i];
        }
    }
}

static char *arena_copy(struct vocab *vocab, const char *text, size_t size)
{
    char *copy = vocab->arena + vocab->arena_used;

    ENSURE_OP(size, <=, vocab->arena_size - vocab->arena_used);
    memcpy(copy, text, size);
    vocab->arena_used += size;
    return copy;
}

/* The bytes of a spelling in the alphabet, NULL if a character is not of it. */
static const char *unspell(struct vocab *vocab, const char *text, size_t size, uint32_t *ret_n)
{
    char *bytes = vocab->arena + vocab->arena_used;
    uint32_t n = 0;

    ENSURE_OP(size, <=, vocab->arena_size - vocab->arena_used);
    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        size_t step = utf8_decode(text + i, size - i, &code);

        if (step == 0 || code >= VOCAB_ALPHABET_END || vocab->byte_of[code] < 0) {
            return NULL;
        }
        bytes[n++] = (char)vocab->byte_of[code];
        i += step;
    }
    vocab->arena_used += n;
    *ret_n = n;
    return bytes;
}

enum status vocab_add(struct vocab *vocab, int64_t id, const char *text, size_t size,
                      unsigned flags, struct err *err)
{
    struct vocab_token *token;
    uint32_t *slot;

    if (id < 0 || (uint64_t)id >= vocab->n_ids || size > UINT32_MAX) {
        return err_set(err, STATUS_INVALID, "id %lld is out of range", (long long)id);
    }
    token = &vocab->tokens[id];
    slot = find_slot(vocab, text, size);
    if (*slot != 0 && *slot - 1 != id) {
        return err_set(err, STATUS_INVALID, "\"%.*s\" has the ids %u and %lld", (int)MIN(size, 64),
                       text, *slot - 1, (long long)id);
    }
    if (*slot == 0) {
        if (token->flags != 0) {
            return err_set(err, STATUS_INVALID, "id %lld is given to \"%.*s\" and to \"%.*s\"",
                           (long long)id, (int)MIN(token->text_size, 64), token->text,
                           (int)MIN(size, 64), text);
        }
        *slot = (uint32_t)id + 1;
        token->text = arena_copy(vocab, text, size);
        token->text_size = (uint32_t)size;
        vocab->max_text = MAX(vocab->max_text, size);
    }
    token->flags |= VOCAB_PRESENT | flags;
    if (token->bytes == NULL || (flags & VOCAB_ADDED)) {
        const char *bytes =
            flags & VOCAB_ADDED ? NULL : unspell(vocab, text, size, &token->n_bytes);

        token->bytes = bytes == NULL ? token->text : bytes;
        token->n_bytes = bytes == NULL ? token->text_size : token->n_bytes;
    }
    return STATUS_OK;
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t size)
{
    return (int32_t)*find_slot(vocab, text, size) - 1;
}

const struct vocab_token *vocab_get(const struct vocab *vocab, int64_t id)
{
    if (id < 0 || (uint64_t)id >= vocab->n_ids || vocab->tokens[id].flags == 0) {
        return NULL;
    }
    return &vocab->tokens[id];
}

size_t vocab_spell(const struct vocab *vocab, const char *bytes, size_t n, char *out)
{
    size_t length = 0;

    for (size_t i = 0; i < n; i++) {
        length += utf8_encode(vocab->code_of[(unsigned char)bytes[i]], out + length);
    }
    return length;
}
