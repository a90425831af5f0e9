/* SPDX-License-Identifier: Apache-2.0 */
/* Each entry is two blocks of memory: the struct with the parameters, and the tokens, which grow.
 */
#include "world/journal.h"

#include <stdlib.h>

#include "base/mem.h"

void journal_init(struct journal *journal, size_t max_bytes)
{
    *journal = (struct journal){.max_bytes = max_bytes};
}

void journal_release(struct journal *journal)
{
    while (journal->first != NULL) {
        struct journal_entry *entry = journal->first;

        journal_remove(journal, &entry);
    }
    *journal = (struct journal){0};
}

struct journal_entry *journal_find(const struct journal *journal, uint64_t request)
{
    struct journal_entry *entry = journal->first;

    while (entry != NULL && entry->request != request) {
        entry = entry->next;
    }
    return entry;
}

/* Bytes of an entry's two blocks; false if they do not fit a size_t or positions do not fit 32
 * bits.
 */
static bool entry_bytes(const struct journal_request *request, size_t *ret_fixed,
                        size_t *ret_tokens)
{
    size_t positions = (size_t)request->n_prompt + request->max_generated;
    size_t n = (size_t)request->n_prompt + MIN(request->max_generated, JOURNAL_FIRST_ROOM);

    return positions <= UINT32_MAX && size_mul(n, sizeof(int32_t), ret_tokens) &&
           size_add(sizeof(struct journal_entry), request->params_bytes, ret_fixed) &&
           *ret_fixed <= SIZE_MAX - *ret_tokens;
}

static void fill(struct journal_entry *entry, const struct journal_request *request)
{
    uint8_t *params = (uint8_t *)(entry + 1);

    entry->request = request->request;
    entry->seed = request->seed;
    entry->prompt_index = request->prompt_index;
    entry->choice = request->choice;
    if (request->params_bytes > 0) {
        memcpy(params, request->params, request->params_bytes);
    }
    entry->params = params;
    entry->params_bytes = request->params_bytes;
    memcpy(entry->tokens, request->prompt, request->n_prompt * sizeof(*entry->tokens));
    entry->n_prompt = request->n_prompt;
    entry->max_generated = request->max_generated;
    entry->room = MIN(request->max_generated, JOURNAL_FIRST_ROOM);
}

static void append(struct journal *journal, struct journal_entry *entry)
{
    entry->prev = journal->last;
    if (journal->last != NULL) {
        journal->last->next = entry;
    } else {
        journal->first = entry;
    }
    journal->last = entry;
    journal->n++;
    journal->bytes += entry->bytes;
}

enum status journal_add(struct journal *journal, const struct journal_request *request,
                        struct journal_entry **ret_entry, struct err *err)
{
    unsigned long long id = request->request;
    size_t left = journal->max_bytes - MIN(journal->bytes, journal->max_bytes);
    struct journal_entry *entry;
    int32_t *tokens;
    size_t fixed_bytes;
    size_t token_bytes;

    if (request->n_prompt == 0) {
        return err_set(err, STATUS_INVALID, "request %llu has an empty prompt", id);
    }
    if (journal_find(journal, request->request) != NULL) {
        return err_set(err, STATUS_INVALID, "request %llu is in the journal already", id);
    }
    if (!entry_bytes(request, &fixed_bytes, &token_bytes) || fixed_bytes + token_bytes > left) {
        return err_set(err, STATUS_LIMIT,
                       "no room in the journal for request %llu: %u + %u tokens, %zu of %zu bytes "
                       "are taken",
                       id, (unsigned)request->n_prompt, (unsigned)request->max_generated,
                       journal->bytes, journal->max_bytes);
    }
    entry = mem_alloc(1, fixed_bytes);
    tokens = mem_alloc(1, token_bytes);
    if (entry == NULL || tokens == NULL) {
        free(entry);
        free(tokens);
        return err_set(err, STATUS_NO_MEMORY,
                       "no memory for the journal of request %llu: %zu bytes", id,
                       fixed_bytes + token_bytes);
    }
    entry->tokens = tokens;
    entry->bytes = fixed_bytes + token_bytes;
    fill(entry, request);
    append(journal, entry);
    *ret_entry = entry;
    return STATUS_OK;
}

enum status journal_reserve(struct journal *journal, struct journal_entry *entry, uint32_t n)
{
    uint32_t need = entry->n_generated + MIN(n, entry->max_generated - entry->n_generated);
    uint32_t room = entry->room;
    int32_t *tokens;

    if (need <= room) {
        return STATUS_OK;
    }
    room = MIN(MAX(need, 2 * (uint64_t)room), (uint64_t)entry->max_generated);
    tokens = mem_alloc((size_t)entry->n_prompt + room, sizeof(*tokens));
    if (tokens == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(tokens, entry->tokens, (size_t)journal_n_known(entry) * sizeof(*tokens));
    free(entry->tokens);
    entry->tokens = tokens;
    entry->bytes += (size_t)(room - entry->room) * sizeof(*tokens);
    journal->bytes += (size_t)(room - entry->room) * sizeof(*tokens);
    entry->room = room;
    return STATUS_OK;
}

void journal_remove(struct journal *journal, struct journal_entry **entry)
{
    struct journal_entry *gone = *entry;

    if (gone == NULL) {
        return;
    }
    if (gone->prev != NULL) {
        gone->prev->next = gone->next;
    } else {
        journal->first = gone->next;
    }
    if (gone->next != NULL) {
        gone->next->prev = gone->prev;
    } else {
        journal->last = gone->prev;
    }
    journal->n--;
    journal->bytes -= gone->bytes;
    free(gone->tokens);
    free(gone);
    *entry = NULL;
}

/* What is wrong with a commit, STATUS_OK if nothing is. */
static enum status check(const struct journal_entry *entry, const struct journal_commit *commit)
{
    uint32_t unknown = journal_n_known(entry) - entry->positions;

    if (commit->step <= entry->last_step || commit->n_positions == 0 ||
        commit->n_positions > unknown) {
        return STATUS_INVALID;
    }
    if (commit->n_tokens > 0 && commit->n_positions < unknown) {
        return STATUS_INVALID;
    }
    if (commit->n_tokens > entry->room - entry->n_generated) {
        return STATUS_LIMIT;
    }
    return STATUS_OK;
}

enum status journal_commit(struct journal *journal, struct journal_entry *entry,
                           const struct journal_commit *commit)
{
    enum status status = check(entry, commit);

    if (status != STATUS_OK) {
        journal->n_refused++;
        return status;
    }
    entry->last_step = commit->step;
    entry->positions += commit->n_positions;
    entry->positions_most = MAX(entry->positions_most, entry->positions);
    for (uint32_t i = 0; i < commit->n_tokens; i++) {
        entry->tokens[journal_n_known(entry)] = commit->tokens[i];
        entry->n_generated++;
    }
    return STATUS_OK;
}

void journal_place(struct journal_entry *entry, uint32_t n)
{
    ENSURE_OP(n, <, journal_n_known(entry));
    entry->positions = n;
    entry->positions_most = MAX(entry->positions_most, n);
}

void journal_rewind(struct journal *journal)
{
    for (struct journal_entry *entry = journal->first; entry != NULL; entry = entry->next) {
        entry->positions = 0;
    }
}

struct journal_replay journal_replay(const struct journal_entry *entry)
{
    return (struct journal_replay){
        .begin = entry->positions,
        .end = journal_n_known(entry),
        .n_again = entry->positions_most - entry->positions,
    };
}

bool journal_is_again(const struct journal_entry *entry, uint32_t n)
{
    return n <= entry->positions_most - entry->positions;
}

void journal_copy_tokens(const struct journal_entry *entry, uint32_t begin, uint32_t end,
                         int32_t *out)
{
    ENSURE_OP(begin, <=, end);
    ENSURE_OP(end, <=, journal_n_known(entry));
    memcpy(out, entry->tokens + begin, (size_t)(end - begin) * sizeof(*out));
}
