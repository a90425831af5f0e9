/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a plan, a result, or a status page. The first byte says which, and whether length
 * and hash are made right first, so that the checks behind them are reached. What is accepted has
 * one encoding: encoding it again gives the same bytes.
 */
#include <xxhash.h>

#include "base/mem.h"
#include "rpc/result.h"
#include "rpc/status_page_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct plan_limits plan_limits = {.max_rows = 64,
                                               .n_slots = 70,
                                               .n_pages = 200,
                                               .page_tokens = 64,
                                               .max_context = 2048,
                                               .vocab = 1000,
                                               .max_top = 20,
                                               .max_bias = 30};
static const struct result_limits result_limits = {
    .rank = 2, .max_tokens = 8, .n_slots = 70, .n_layers = 30, .vocab = 1000, .max_top = 20};

static void try_plan(const uint8_t *bytes, size_t n)
{
    struct step_plan plan;
    struct err err = {0};
    uint64_t hash;
    uint64_t hash_again;
    uint8_t *again;

    if (plan_decode(bytes, n, &plan_limits, &plan, &hash, &err) != STATUS_OK) {
        ENSURE(err.status == STATUS_CORRUPT && strncmp(err.text, "plan: ", 6) == 0);
        return;
    }
    again = xcalloc(n, 1);
    ENSURE_OP(plan_bytes(&plan), ==, n);
    ENSURE(plan_encode(&plan, again, n, &hash_again, NULL) == STATUS_OK);
    ENSURE(memcmp(again, bytes, n) == 0 && hash == hash_again);
    free(again);
}

static void try_result(const uint8_t *bytes, size_t n)
{
    struct step_result result;
    struct err err = {0};
    uint8_t *again;

    if (result_decode(bytes, n, &result_limits, &result, &err) != STATUS_OK) {
        ENSURE(err.status == STATUS_CORRUPT && strncmp(err.text, "result: ", 8) == 0);
        return;
    }
    again = xcalloc(n, 1);
    ENSURE_OP(result_bytes(&result), ==, n);
    ENSURE(result_encode(&result, again, n, NULL) == STATUS_OK);
    ENSURE(memcmp(again, bytes, n) == 0);
    free(again);
}

static void try_page(const uint8_t *bytes, size_t n)
{
    struct status_page *page = aligned_alloc(128, STATUS_PAGE_BYTES);
    struct status_snapshot *snapshot = xalloc(sizeof(*snapshot));
    struct buf text = {0};

    ENSURE(page != NULL);
    memset(page, 0, STATUS_PAGE_BYTES);
    memcpy(page, bytes, MIN(n, STATUS_PAGE_BYTES));
    page->magic = STATUS_PAGE_MAGIC;
    page->epoch = 4;
    page->who = UINT64_C(2) << 32;
    ENSURE(status_page_read(page, 2, 4, snapshot, NULL) == STATUS_OK);
    status_snapshot_dump(snapshot, STATUS_PAGE_EVENTS, &text);
    for (size_t i = 0; i < text.len; i++) {
        ENSURE((uint8_t)text.data[i] >= 0x20 || text.data[i] == '\n');
    }
    buf_release(&text);
    free(snapshot);
    free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n = size > 0 ? size - 1 : 0;
    uint8_t *bytes;

    if (size < 1 || n > UINT32_MAX) {
        return 0;
    }
    bytes = malloc(MAX(n, 1)); /* of the exact length */
    ENSURE(bytes != NULL);
    memcpy(bytes, data + 1, n);
    if ((data[0] & 4) != 0 && n >= 24) {
        uint32_t length = (uint32_t)n;
        uint64_t hash;

        memcpy(bytes + 8, &length, sizeof(length));
        hash = XXH3_64bits(bytes, n - 8);
        memcpy(bytes + n - 8, &hash, sizeof(hash));
    }
    if (data[0] % 4 == 0) {
        try_plan(bytes, n);
    } else if (data[0] % 4 == 1) {
        try_result(bytes, n);
    } else {
        try_page(bytes, n);
    }
    free(bytes);
    return 0;
}
