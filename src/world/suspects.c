/* SPDX-License-Identifier: Apache-2.0 */
#include "world/suspects.h"

#include <stdlib.h>

#include "base/mem.h"

void suspects_release(struct suspects *suspects)
{
    free(suspects->list);
    free(suspects->ids);
    *suspects = (struct suspects){0};
}

void suspects_clear(struct suspects *suspects)
{
    suspects->n = 0;
}

static struct suspect *find(const struct suspects *suspects, uint64_t request)
{
    for (size_t i = 0; i < suspects->n; i++) {
        if (suspects->list[i].request == request) {
            return &suspects->list[i];
        }
    }
    return NULL;
}

static struct suspect *find_or_add(struct suspects *suspects, uint64_t request)
{
    struct suspect *suspect = find(suspects, request);

    if (suspect != NULL) {
        return suspect;
    }
    if (suspects->n == suspects->cap) {
        suspects->cap = MAX(2 * suspects->cap, 8);
        suspects->list = xrealloc(suspects->list, suspects->cap, sizeof(*suspects->list));
    }
    suspect = &suspects->list[suspects->n++];
    *suspect = (struct suspect){.request = request};
    return suspect;
}

bool suspects_is_alone(const struct suspects *suspects, uint64_t request)
{
    const struct suspect *suspect = find(suspects, request);

    return suspect != NULL && suspect->alone;
}

void suspects_forget(struct suspects *suspects, uint64_t request)
{
    struct suspect *suspect = find(suspects, request);

    if (suspect != NULL) {
        *suspect = suspects->list[--suspects->n];
    }
}

static bool listed_before(const struct world_part *parts, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (parts[k].request == parts[i].request) {
            return true;
        }
    }
    return false;
}

/* Room for n ids. */
static void reserve_ids(struct suspects *suspects, size_t n)
{
    if (n > suspects->ids_cap) {
        suspects->ids_cap = n;
        suspects->ids = xrealloc(suspects->ids, n, sizeof(*suspects->ids));
    }
}

size_t suspects_blame(struct suspects *suspects, const struct world_part *parts, size_t n,
                      const uint64_t **ret_ids)
{
    size_t n_given_up = 0;

    reserve_ids(suspects, n);
    for (size_t i = 0; i < n; i++) {
        struct suspect *suspect;

        if (listed_before(parts, i)) {
            continue;
        }
        suspect = find_or_add(suspects, parts[i].request);
        suspect->failed++;
        if (suspect->failed >= SUSPECT_GIVEN_UP_AT) {
            suspects->ids[n_given_up++] = parts[i].request;
            suspects_forget(suspects, parts[i].request);
        } else if (suspect->failed == SUSPECT_ALONE_AT) {
            suspect->alone = true;
            suspect->isolated++;
        }
    }
    *ret_ids = suspects->ids;
    return n_given_up;
}

void suspects_commit(struct suspects *suspects, const struct world_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct suspect *suspect = find(suspects, parts[i].request);

        if (suspect == NULL || parts[i].again) {
            continue;
        }
        suspect->failed = 0;
        suspect->alone = suspect->alone && suspect->isolated > 1;
        if (suspect->isolated == 0) {
            suspects_forget(suspects, parts[i].request);
        }
    }
}

size_t suspects_alone(struct suspects *suspects, const uint64_t **ret_ids)
{
    size_t n_alone = 0;

    reserve_ids(suspects, suspects->n);
    for (size_t i = 0; i < suspects->n; i++) {
        if (suspects->list[i].alone) {
            suspects->ids[n_alone++] = suspects->list[i].request;
        }
    }
    *ret_ids = suspects->ids;
    return n_alone;
}
