/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/part.h"

#include "base/mem.h"

enum status sample_part_init(struct sample_part *part, uint32_t first_row, uint32_t n_rows)
{
    ENSURE_OP(first_row % SAMPLE_BLOCK_ROWS, ==, 0);
    *part = (struct sample_part){.first_row = first_row, .n_rows = n_rows, .masses = mass_plain};
    part->counts = mem_alloc(n_rows, sizeof(*part->counts));
    part->top = mem_alloc(n_rows, sizeof(*part->top));
    part->blocks = mem_alloc(div_up(n_rows, SAMPLE_BLOCK_ROWS), sizeof(*part->blocks));
    if (part->counts == NULL || part->top == NULL || part->blocks == NULL) {
        sample_part_release(part);
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

void sample_part_release(struct sample_part *part)
{
    free(part->counts);
    free(part->top);
    free(part->blocks);
    *part = (struct sample_part){0};
}

/* True, and the row, if the token is owned here. Negative ids are far outside every range. */
static bool row_of(const struct sample_part *part, int64_t token, uint32_t *ret_row)
{
    int64_t row = token - part->first_row;

    if (row < 0 || row >= part->n_rows) {
        return false;
    }
    *ret_row = (uint32_t)row;
    return true;
}

static void apply_bias(struct sample_part *part, const struct sample_request *request)
{
    const struct sample_params *params = request->params;
    uint32_t row;

    for (uint32_t i = request->n_generated < params->n_min ? 0 : params->n_min_bias;
         i < params->n_bias - params->n_phrase_bias; i++) {
        if (row_of(part, params->bias[i].token, &row)) {
            part->logits[row] += params->bias[i].add;
        }
    }
}

/* True if the answer ends with these tokens. */
static bool ends_with(const struct sample_request *request, const struct sample_bias *tokens,
                      size_t n)
{
    if (n > request->n_generated) {
        return false;
    }
    for (size_t i = 1; i <= n; i++) { /* the last ones differ most often */
        if (request->generated[request->n_generated - i] != (int64_t)tokens[n - i].token) {
            return false;
        }
    }
    return true;
}

static void apply_phrases(struct sample_part *part, const struct sample_request *request)
{
    const struct sample_params *params = request->params;
    const struct sample_bias *first;
    const struct sample_bias *end;
    uint32_t row;

    if (params->n_phrase_bias == 0) { /* bias may be NULL */
        return;
    }
    end = params->bias + params->n_bias;
    first = end - params->n_phrase_bias;
    for (const struct sample_bias *at = first; at < end; at++) {
        if (at->add == 0.0f) {
            continue;
        }
        if (row_of(part, at->token, &row) && ends_with(request, first, (size_t)(at - first))) {
            part->logits[row] += at->add;
        }
        first = at + 1;
    }
}

/* Makes all tokens that are not in the allow list impossible. What is not a number stays, so that a
 * request fails of it whatever is in its list. */
static void apply_allow(struct sample_part *part, const struct sample_params *params)
{
    uint32_t row;

    for (uint32_t i = params->n_min_bias; i < params->n_bias - params->n_phrase_bias; i++) {
        if (row_of(part, params->bias[i].token, &row)) {
            part->counts[row] = 1;
        }
    }
    for (row = 0; row < part->n_rows; row++) {
        float logit = part->logits[row];

        part->logits[row] = part->counts[row] != 0 || logit != logit ? logit : -INFINITY;
        part->counts[row] = 0;
    }
}

/* counts[row] becomes SEEN | times generated for every token of prompt and answer. */
#define SEEN 0x80000000u

static void count_tokens(struct sample_part *part, const struct sample_request *request)
{
    uint32_t row;

    for (size_t i = 0; i < request->n_prompt; i++) {
        if (row_of(part, request->prompt[i], &row)) {
            part->counts[row] |= SEEN;
        }
    }
    for (size_t i = 0; i < request->n_generated; i++) {
        if (row_of(part, request->generated[i], &row)) {
            part->counts[row] = (part->counts[row] | SEEN) + 1;
        }
    }
}

/* Penalises the tokens that are still counted, each once, and clears their counts. */
static void penalise(struct sample_part *part, const struct sample_params *params,
                     const int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t times;
        uint32_t row;
        float *logit;

        if (!row_of(part, tokens[i], &row) || part->counts[row] == 0) {
            continue;
        }
        times = part->counts[row] & ~SEEN;
        part->counts[row] = 0;
        logit = &part->logits[row];
        if (params->repetition_penalty != 1.0f) {
            *logit = *logit > 0.0f ? *logit / params->repetition_penalty
                                   : *logit * params->repetition_penalty;
        }
        *logit -= params->frequency_penalty * (float)times;
        if (times > 0) {
            *logit -= params->presence_penalty;
        }
    }
}

static bool has_penalties(const struct sample_params *params)
{
    return params->repetition_penalty != 1.0f || params->frequency_penalty != 0.0f ||
           params->presence_penalty != 0.0f;
}

bool sample_changes_logits(const struct sample_params *params)
{
    return params->n_bias > 0 || has_penalties(params);
}

static uint32_t block_rows(const struct sample_part *part, uint32_t block)
{
    return MIN(SAMPLE_BLOCK_ROWS, part->n_rows - block * SAMPLE_BLOCK_ROWS);
}

static uint32_t n_blocks(const struct sample_part *part)
{
    return (uint32_t)div_up(part->n_rows, SAMPLE_BLOCK_ROWS);
}

static struct mass_rows all_rows(const struct sample_part *part)
{
    return (struct mass_rows){
        .logits = part->logits,
        .n = part->n_rows,
        .blocks = part->blocks,
        .inv_temperature = part->inv_temperature,
    };
}

enum status sample_part_begin(struct sample_part *part, const struct sample_request *request,
                              float *logits)
{
    const struct sample_params *params = request->params;
    struct mass_rows rows;

    part->logits = logits;
    part->inv_temperature = 1.0f / params->temperature;
    if (params->allow) {
        apply_allow(part, params);
    }
    apply_bias(part, request);
    apply_phrases(part, request);
    if (has_penalties(params)) {
        count_tokens(part, request);
        penalise(part, params, request->prompt, request->n_prompt);
        penalise(part, params, request->generated, request->n_generated);
    }
    rows = all_rows(part);
    part->masses.max(part->masses.arg, &rows);
    for (uint32_t b = 0; b < n_blocks(part); b++) {
        if (part->blocks[b].max != part->blocks[b].max) {
            return STATUS_NUMERIC;
        }
    }
    return STATUS_OK;
}

/* Restores the order below node i of a heap whose root is the candidate that comes last. */
static void sift_down(struct sample_candidate *heap, uint32_t n, uint32_t i)
{
    struct sample_candidate moved = heap[i];

    for (uint32_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && sample_before(heap[child], heap[child + 1])) {
            child++;
        }
        if (!sample_before(moved, heap[child])) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

enum { RUN = 16 };

/* Where the first row above least may be, from `row` on, end if nowhere. RUN rows are looked at
 * together, because in most runs there is none. */
static uint32_t skip_to(const float *logits, uint32_t row, uint32_t end, float least)
{
    for (; row + RUN <= end; row += RUN) {
        uint32_t above = 0;

        for (uint32_t i = 0; i < RUN; i++) {
            above |= logits[row + i] > least;
        }
        if (above != 0) {
            break;
        }
    }
    return row;
}

/* The first `limit` candidates in order, without sorting the rest: a heap of the best so far, whose
 * root is the one to beat. Returns their number. */
static uint32_t select_top(struct sample_part *part, uint32_t limit)
{
    struct sample_candidate *heap = part->top;
    uint32_t n = 0;

    for (uint32_t b = 0; b < n_blocks(part); b++) {
        uint32_t begin = b * SAMPLE_BLOCK_ROWS;
        uint32_t end = begin + block_rows(part, b);

        if (n == limit && part->blocks[b].max <= heap[0].logit) {
            continue; /* later rows lose ties */
        }
        for (uint32_t row = begin; row < end; row++) {
            struct sample_candidate candidate = {part->logits[row], part->first_row + row};

            if (candidate.logit == -INFINITY) {
                continue;
            }
            if (n < limit) {
                heap[n++] = candidate;
                for (uint32_t i = n / 2; n == limit && i > 0; i--) {
                    sift_down(heap, n, i - 1); /* full: now it becomes a heap */
                }
            } else if (candidate.logit > heap[0].logit) {
                heap[0] = candidate;
                sift_down(heap, n, 0);
            } else if (row % RUN == 0) { /* not at every row of a run that has one */
                row = skip_to(part->logits, row + 1, end, heap[0].logit) - 1;
            }
        }
    }
    for (uint32_t i = n < limit ? n / 2 : 0; i > 0; i--) {
        sift_down(heap, n, i - 1);
    }
    for (uint32_t last = n; last > 1; last--) { /* heap sort: the last in order goes to the end */
        struct sample_candidate worst = heap[0];

        heap[0] = heap[last - 1];
        heap[last - 1] = worst;
        sift_down(heap, last - 1, 0);
    }
    return n;
}

/* The first row at which the running mass exceeds mass; rounding may leave the end of the block
 * short of it, then the last row that has any. */
static uint32_t pick_row(const struct sample_part *part, uint32_t block, double mass)
{
    float masses[SAMPLE_BLOCK_ROWS];
    struct mass_block copy = part->blocks[block];
    struct mass_rows rows = {
        .logits = part->logits + block * SAMPLE_BLOCK_ROWS,
        .n = block_rows(part, block),
        .blocks = &copy,
        .inv_temperature = part->inv_temperature,
        .masses = masses,
    };
    uint32_t picked = 0;
    double running = 0.0;

    part->masses.sum(part->masses.arg, &rows);
    for (uint32_t row = 0; row < rows.n; row++) {
        if (masses[row] > 0.0f) {
            picked = row;
            running += masses[row];
            if (running > mass) {
                break;
            }
        }
    }
    return block * SAMPLE_BLOCK_ROWS + picked;
}

void sample_part_answer(struct sample_part *part, const struct sample_ask *ask,
                        struct sample_answer *ret_answer)
{
    uint32_t limit = MIN(ask->n_top, part->n_rows);
    uint32_t first_block = part->first_row / SAMPLE_BLOCK_ROWS;

    *ret_answer = (struct sample_answer){.top = part->top, .picked = -1};
    if (limit > 0) {
        ret_answer->n_top = select_top(part, limit);
        ret_answer->more = ret_answer->n_top == limit && limit < part->n_rows;
    }
    if (ask->blocks) {
        struct mass_rows rows = all_rows(part);

        part->masses.sum(part->masses.arg, &rows);
        ret_answer->blocks = part->blocks;
        ret_answer->n_blocks = n_blocks(part);
    }
    if (ask->pick && ask->pick_block >= first_block &&
        ask->pick_block - first_block < n_blocks(part)) {
        uint32_t row = pick_row(part, ask->pick_block - first_block, ask->pick_mass);

        ret_answer->picked = (int64_t)part->first_row + row;
    }
}
