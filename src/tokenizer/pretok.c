/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matches and the text between them are items; each stage turns its items into parts. A part waits
 * until it is known whether the next item joins it, so nothing is stored but one part a stage.
 */
#include "tokenizer/pretok.h"

#include "base/utf8.h"

void pretok_release(struct pretok *pretok)
{
    for (size_t i = 0; i < pretok->n_stages; i++) {
        regex_destroy(&pretok->stages[i].regex);
    }
    *pretok = (struct pretok){0};
}

enum status pretok_add(struct pretok *pretok, const struct pretok_stage *stage, struct err *err)
{
    if (pretok->n_stages == PRETOK_MAX_STAGES) {
        struct regex *regex = stage->regex;

        regex_destroy(&regex);
        return err_set(err, STATUS_LIMIT, "more than %d splitting steps", PRETOK_MAX_STAGES);
    }
    pretok->stages[pretok->n_stages++] = *stage;
    return STATUS_OK;
}

uint64_t pretok_steps_per_byte(const struct pretok *pretok)
{
    uint64_t steps = 0;

    for (size_t i = 0; i < pretok->n_stages; i++) {
        if (pretok->stages[i].regex != NULL) {
            steps += regex_steps_per_byte(pretok->stages[i].regex);
        }
    }
    return steps;
}

/* The splitting of one piece by one stage. */
struct split {
    struct pretok_run *run;
    size_t stage;
    struct tokenizer_text text;
    size_t part_start; /* the part that waits: [part_start, part_end) */
    size_t part_end;
    bool has_part;
    bool last_matched; /* the last item was a match */
};

static enum status run_stage(struct pretok_run *run, size_t stage,
                             const struct tokenizer_text *text);

static enum status hand_on(struct split *split)
{
    struct tokenizer_text part = {split->text.data + split->part_start,
                                  split->part_end - split->part_start};

    if (!split->has_part || part.size == 0) {
        return STATUS_OK;
    }
    return run_stage(split->run, split->stage + 1, &part);
}

/* Does an item join the part that waits? */
static bool joins(const struct split *split, enum pretok_behavior behavior, bool matched)
{
    if (!split->has_part) {
        return false;
    }
    switch (behavior) {
    case PRETOK_CONTIGUOUS:
        return matched == split->last_matched;
    case PRETOK_MERGED_WITH_PREVIOUS:
        return matched && !split->last_matched;
    case PRETOK_MERGED_WITH_NEXT:
        return !matched && split->last_matched;
    case PRETOK_REMOVED:
    case PRETOK_ISOLATED:
        break;
    }
    return false;
}

static enum status add_item(struct split *split, size_t start, size_t end, bool matched)
{
    const struct pretok_stage *stage = &split->run->pretok->stages[split->stage];
    enum status status = STATUS_OK;

    if (stage->invert) {
        matched = !matched;
    }
    if (joins(split, stage->behavior, matched)) {
        split->part_end = end;
    } else {
        status = hand_on(split);
        split->part_start = start;
        split->part_end = end;
        split->has_part = !(matched && stage->behavior == PRETOK_REMOVED);
    }
    split->last_matched = matched;
    return status;
}

/* The items of a piece: matches in order, an empty one never right behind another match. */
static enum status split_piece(struct split *split, const struct regex *regex)
{
    const struct tokenizer_text *text = &split->text;
    enum status status = STATUS_OK;
    size_t last_end = SIZE_MAX; /* of the last match */
    size_t done = 0;            /* items cover [0, done) */
    size_t from = 0;

    while (from <= text->size && status == STATUS_OK) {
        size_t start;
        size_t end;

        status = regex_search(regex, &split->run->regex, text, from, &start, &end);
        if (status == STATUS_NOT_FOUND) {
            status = STATUS_OK;
            break;
        }
        if (status == STATUS_OK && start == end && end == last_end) {
            from += MAX(utf8_valid_prefix(text->data + from, text->size - from), 1);
            continue;
        }
        if (status == STATUS_OK && start > done) {
            status = add_item(split, done, start, false);
        }
        if (status == STATUS_OK) {
            status = add_item(split, start, end, true);
        }
        from = last_end = done = end;
    }
    if (status == STATUS_OK && done < text->size) {
        status = add_item(split, done, text->size, false);
    }
    return status == STATUS_OK ? hand_on(split) : status;
}

static enum status run_stage(struct pretok_run *run, size_t stage,
                             const struct tokenizer_text *text)
{
    struct split split = {.run = run, .stage = stage, .text = *text};

    if (stage == run->pretok->n_stages) {
        return run->word(run->data, text);
    }
    if (run->pretok->stages[stage].add_prefix_space && text->data[0] != ' ') {
        struct buf *spaced = &run->spaced[stage];

        buf_clear(spaced);
        buf_append_char(spaced, ' ');
        buf_append(spaced, text->data, text->size);
        split.text = (struct tokenizer_text){spaced->data, spaced->len};
    }
    if (run->pretok->stages[stage].regex == NULL) {
        return run_stage(run, stage + 1, &split.text);
    }
    return split_piece(&split, run->pretok->stages[stage].regex);
}

enum status pretok_split(struct pretok_run *run, const struct tokenizer_text *text)
{
    return text->size == 0 ? STATUS_OK : run_stage(run, 0, text);
}

void pretok_run_release(struct pretok_run *run)
{
    regex_run_release(&run->regex);
    for (size_t i = 0; i < PRETOK_MAX_STAGES; i++) {
        buf_release(&run->spaced[i]);
    }
}
