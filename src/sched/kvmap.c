/* SPDX-License-Identifier: Apache-2.0 */
/* Pages by number: a stack of free ones, a list of cached ones by age, buckets of hashes. */
#include "sched/kvmap.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"

enum { NONE = UINT32_MAX };

struct page {
    uint32_t refs;   /* holders */
    bool indexed;    /* in the cache: id, hash, parent, salt and its tokens are set */
    uint64_t id;     /* given once, to this content */
    uint64_t parent; /* id of the page before it; 0: it is the first */
    uint64_t hash;
    uint64_t salt;
    uint32_t bucket_next;
    uint32_t prev; /* by age, while cached; next also while free */
    uint32_t next;
};

struct kvmap {
    struct kvmap_config config;
    uint64_t hash_mask;
    struct page *pages;
    int32_t *tokens;   /* [n_pages][page_tokens] of indexed ones */
    uint32_t *buckets; /* [n_buckets] a power of two */
    uint32_t n_buckets;
    uint32_t free_top;
    uint32_t oldest; /* of the cached */
    uint32_t newest;
    uint64_t last_id;
    struct kvmap_counts counts;
};

struct kvmap *kvmap_create(const struct kvmap_config *config)
{
    struct kvmap *map = xalloc(sizeof(*map));
    uint32_t n = config->n_pages;

    ENSURE(n > 0 && n < NONE / 4 && config->page_tokens > 0);
    map->config = *config;
    map->hash_mask = config->hash_bits == 0 || config->hash_bits >= 64
                         ? UINT64_MAX
                         : (UINT64_C(1) << config->hash_bits) - 1;
    map->pages = xcalloc(n, sizeof(*map->pages));
    map->tokens = xcalloc((size_t)n * config->page_tokens, sizeof(*map->tokens));
    for (map->n_buckets = 1; map->n_buckets < 2 * n;) {
        map->n_buckets *= 2;
    }
    map->buckets = xcalloc(map->n_buckets, sizeof(*map->buckets));
    for (uint32_t i = 0; i < map->n_buckets; i++) {
        map->buckets[i] = NONE;
    }
    map->oldest = map->newest = map->free_top = NONE;
    for (uint32_t i = n; i-- > 0;) {
        map->pages[i].next = map->free_top;
        map->free_top = i;
    }
    map->counts = (struct kvmap_counts){.total = n, .free = n};
    return map;
}

void kvmap_destroy(struct kvmap **map)
{
    if (*map != NULL) {
        free((*map)->pages);
        free((*map)->tokens);
        free((*map)->buckets);
        free(*map);
        *map = NULL;
    }
}

struct kvmap_counts kvmap_counts(const struct kvmap *map)
{
    return map->counts;
}

bool kvmap_is_free(const struct kvmap *map, uint32_t page)
{
    return map->pages[page].refs == 0 && !map->pages[page].indexed;
}

/* --- Lists --- */

static void push_free(struct kvmap *map, uint32_t number)
{
    map->pages[number].next = map->free_top;
    map->free_top = number;
    map->counts.free++;
}

static void push_newest(struct kvmap *map, uint32_t number)
{
    struct page *page = &map->pages[number];

    page->prev = map->newest;
    page->next = NONE;
    *(map->newest == NONE ? &map->oldest : &map->pages[map->newest].next) = number;
    map->newest = number;
    map->counts.cached++;
}

static void unlink_cached(struct kvmap *map, uint32_t number)
{
    const struct page *page = &map->pages[number];

    *(page->prev == NONE ? &map->oldest : &map->pages[page->prev].next) = page->next;
    *(page->next == NONE ? &map->newest : &map->pages[page->next].prev) = page->prev;
    map->counts.cached--;
}

static uint32_t *bucket_of(const struct kvmap *map, uint64_t hash)
{
    return &map->buckets[hash & (map->n_buckets - 1)];
}

static int32_t *tokens_of(const struct kvmap *map, uint32_t number)
{
    return map->tokens + (size_t)number * map->config.page_tokens;
}

static void unindex(struct kvmap *map, uint32_t number)
{
    uint32_t *link = bucket_of(map, map->pages[number].hash);

    while (*link != number) {
        link = &map->pages[*link].bucket_next;
    }
    *link = map->pages[number].bucket_next;
    map->pages[number].indexed = false;
    map->pages[number].id = 0;
}

static void index_page(struct kvmap *map, uint32_t number, const struct page *as,
                       const int32_t *tokens)
{
    struct page *page = &map->pages[number];
    uint32_t *bucket = bucket_of(map, as->hash);

    page->indexed = true;
    page->id = as->id;
    page->parent = as->parent;
    page->hash = as->hash;
    page->salt = as->salt;
    page->bucket_next = *bucket;
    *bucket = number;
    memcpy(tokens_of(map, number), tokens, map->config.page_tokens * sizeof(*tokens));
}

/* The cached page with this content behind this parent; NONE: there is none. */
static uint32_t find(const struct kvmap *map, const struct page *as, const int32_t *tokens)
{
    size_t bytes = map->config.page_tokens * sizeof(*tokens);
    uint32_t number = *bucket_of(map, as->hash);

    while (number != NONE) {
        const struct page *page = &map->pages[number];

        if (page->hash == as->hash && page->parent == as->parent && page->salt == as->salt &&
            memcmp(tokens_of(map, number), tokens, bytes) == 0) {
            return number;
        }
        number = page->bucket_next;
    }
    return NONE;
}

/* --- Prefixes --- */

void kvmap_know(const struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t n)
{
    uint32_t page_tokens = map->config.page_tokens;
    uint32_t full = n / page_tokens;

    if (full > seq->hashes_cap) {
        seq->hashes_cap = full + full / 2 + 4;
        seq->hashes = xrealloc(seq->hashes, seq->hashes_cap, sizeof(*seq->hashes));
    }
    for (; seq->n_hashes < full; seq->n_hashes++) {
        uint64_t seed = seq->n_hashes > 0 ? seq->hashes[seq->n_hashes - 1]
                                          : XXH3_64bits(&seq->salt, sizeof(seq->salt));

        seq->hashes[seq->n_hashes] =
            XXH3_64bits_withSeed(tokens + (size_t)seq->n_hashes * page_tokens,
                                 page_tokens * sizeof(*tokens), seed) &
            map->hash_mask;
    }
}

/* Page i of the chain behind parent. */
static uint32_t find_next(const struct kvmap *map, const struct kvmap_seq *seq,
                          const int32_t *tokens, uint32_t i, uint64_t parent)
{
    const struct page as = {.hash = seq->hashes[i], .parent = parent, .salt = seq->salt};

    return find(map, &as, tokens + (size_t)i * map->config.page_tokens);
}

uint32_t kvmap_match(const struct kvmap *map, const struct kvmap_seq *seq, const int32_t *tokens,
                     uint32_t limit, uint32_t *ret_idle)
{
    uint64_t parent = 0;
    uint32_t n = 0;

    *ret_idle = 0;
    for (limit = MIN(limit, seq->n_hashes); n < limit; n++) {
        uint32_t number = find_next(map, seq, tokens, n, parent);

        if (number == NONE) {
            break;
        }
        parent = map->pages[number].id;
        *ret_idle += map->pages[number].refs == 0;
    }
    return n;
}

static void append(struct kvmap_seq *seq, uint32_t number)
{
    if (seq->n_pages == seq->pages_cap) {
        seq->pages_cap = 2 * seq->pages_cap + 8;
        seq->pages = xrealloc(seq->pages, seq->pages_cap, sizeof(*seq->pages));
    }
    seq->pages[seq->n_pages++] = number;
}

/* The end of seq's chain is this page of the cache. */
static void chain_to(const struct kvmap *map, struct kvmap_seq *seq, uint32_t number)
{
    seq->n_chained++;
    seq->chain_page = number;
    seq->chain_id = map->pages[number].id;
}

uint32_t kvmap_take(struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t limit)
{
    ENSURE_OP(seq->n_pages, ==, 0);
    for (limit = MIN(limit, seq->n_hashes); seq->n_pages < limit;) {
        uint32_t number = find_next(map, seq, tokens, seq->n_pages, seq->chain_id);

        if (number == NONE) {
            break;
        }
        if (map->pages[number].refs++ == 0) {
            unlink_cached(map, number);
            map->counts.used++;
        }
        append(seq, number);
        chain_to(map, seq, number);
    }
    return seq->n_pages;
}

/* --- Growing, committing, giving back --- */

bool kvmap_grow(struct kvmap *map, struct kvmap_seq *seq, uint32_t n)
{
    if (n <= seq->n_pages) {
        return true;
    }
    if (n - seq->n_pages > map->counts.free + map->counts.cached) {
        return false;
    }
    while (seq->n_pages < n) {
        uint32_t number = map->free_top;

        if (number != NONE) {
            map->free_top = map->pages[number].next;
            map->counts.free--;
        } else {
            number = map->oldest;
            unlink_cached(map, number);
            unindex(map, number);
        }
        map->pages[number].refs = 1;
        map->counts.used++;
        append(seq, number);
    }
    return true;
}

/* Page i of seq is full and committed. */
static void enter(struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t i)
{
    const int32_t *own = tokens + (size_t)i * map->config.page_tokens;
    struct page as = {.hash = seq->hashes[i], .parent = seq->chain_id, .salt = seq->salt};
    uint32_t number = seq->pages[i];
    uint32_t twin = find(map, &as, own);

    if (twin != NONE && map->pages[twin].refs > 0) { /* others hold it: this one stays private */
        chain_to(map, seq, twin);
        return;
    }
    as.id = twin == NONE ? ++map->last_id : map->pages[twin].id;
    if (twin != NONE) { /* nobody does: this one takes its place in the chain */
        unlink_cached(map, twin);
        unindex(map, twin);
        push_free(map, twin);
    }
    index_page(map, number, &as, own);
    chain_to(map, seq, number);
}

void kvmap_commit(struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t n)
{
    uint32_t full = n / map->config.page_tokens;

    ENSURE_OP(full, <=, seq->n_pages);
    kvmap_know(map, seq, tokens, n);
    while (seq->n_chained < full && !seq->broken) {
        /* The page that the chain hangs on may have been another's, and be gone. */
        seq->broken = seq->n_chained > 0 && map->pages[seq->chain_page].id != seq->chain_id;
        if (!seq->broken) {
            enter(map, seq, tokens, seq->n_chained);
        }
    }
}

void kvmap_release(struct kvmap *map, struct kvmap_seq *seq)
{
    while (seq->n_pages > 0) { /* the end first: it is evicted first */
        uint32_t number = seq->pages[--seq->n_pages];
        struct page *page = &map->pages[number];

        ENSURE_OP(page->refs, >, 0);
        if (--page->refs > 0) {
            continue;
        }
        map->counts.used--;
        if (page->indexed) {
            push_newest(map, number);
        } else {
            push_free(map, number);
        }
    }
    seq->n_chained = 0;
    seq->chain_page = 0;
    seq->chain_id = 0;
    seq->broken = false;
}

void kvmap_seq_release(struct kvmap *map, struct kvmap_seq *seq)
{
    kvmap_release(map, seq);
    free(seq->pages);
    free(seq->hashes);
    *seq = (struct kvmap_seq){0};
}

void kvmap_drop_cached(struct kvmap *map)
{
    while (map->oldest != NONE) {
        uint32_t number = map->oldest;

        unlink_cached(map, number);
        unindex(map, number);
        push_free(map, number);
    }
}

/* --- Audit --- */

static uint32_t count_free(const struct kvmap *map)
{
    uint32_t n = 0;

    for (uint32_t i = map->free_top; i != NONE; i = map->pages[i].next) {
        ENSURE(kvmap_is_free(map, i));
        n++;
        ENSURE_OP(n, <=, map->counts.total);
    }
    return n;
}

static uint32_t count_cached(const struct kvmap *map)
{
    uint32_t before = NONE;
    uint32_t n = 0;

    for (uint32_t i = map->oldest; i != NONE; i = map->pages[i].next) {
        ENSURE(map->pages[i].indexed);
        ENSURE_OP(map->pages[i].refs, ==, 0);
        ENSURE_OP(map->pages[i].prev, ==, before);
        before = i;
        n++;
        ENSURE_OP(n, <=, map->counts.total);
    }
    ENSURE_OP(map->newest, ==, before);
    return n;
}

void kvmap_audit(const struct kvmap *map)
{
    uint32_t used = 0;
    uint32_t indexed = 0;

    for (uint32_t i = 0; i < map->counts.total; i++) {
        used += map->pages[i].refs > 0;
        indexed += map->pages[i].indexed;
    }
    for (uint32_t b = 0; b < map->n_buckets; b++) {
        for (uint32_t i = map->buckets[b]; i != NONE; i = map->pages[i].bucket_next) {
            ENSURE(map->pages[i].indexed);
            ENSURE_OP(map->pages[i].hash & (map->n_buckets - 1), ==, b);
            indexed--;
        }
    }
    ENSURE_OP(indexed, ==, 0);
    ENSURE_OP(used, ==, map->counts.used);
    ENSURE_OP(count_cached(map), ==, map->counts.cached);
    ENSURE_OP(count_free(map), ==, map->counts.free);
    ENSURE_OP(map->counts.free + map->counts.cached + used, ==, map->counts.total);
}
