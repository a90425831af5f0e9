/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/fault.h"

#include <errno.h>

enum { RANK, STEP, LAYER, PHASE, MS, EPOCH, N_FIELDS };

#define ON(kind) (1u << FAULT_##kind)
#define ON_ALL   ((1u << FAULT_KINDS) - 1)

static const struct {
    const char *name;
    uint32_t kinds; /* for which it means something, one bit each */
    uint64_t min;
    uint64_t max;
} fields[N_FIELDS] = {
    [RANK] = {"rank", ON_ALL, 0, UINT32_MAX},
    [STEP] = {"step", ON_ALL, 1, INT64_MAX},
    [LAYER] = {"layer", ON_ALL & ~(ON(DROP) | ON(CORRUPT) | ON(DEVICE)), 0, UINT32_MAX},
    [PHASE] = {"phase", ON_ALL},
    [MS] = {"ms", ON(SLOW), 1, FAULT_MAX_MS},
    [EPOCH] = {"epoch", ON_ALL, 1, INT64_MAX},
};

/* Each with a space before it. */
static const char kind_names[] =
#define FAULT(id, name, help) " " name
#include "rpc/fault.def"
#undef FAULT
    ;

/* A field that was found in the text: name=value, not terminated. */
struct part {
    const char *name;
    int n_name;
    const char *value;
    int n_value;
};

const char *fault_kind_name(uint32_t kind)
{
    switch (kind) {
#define FAULT(id, name, help) \
    case FAULT_##id:          \
        return name;
#include "rpc/fault.def"
#undef FAULT
    default:
        return "unknown";
    }
}

const char *fault_kind_help(uint32_t kind)
{
    switch (kind) {
#define FAULT(id, name, help) \
    case FAULT_##id:          \
        return help;
#include "rpc/fault.def"
#undef FAULT
    default:
        return "unknown";
    }
}

static bool same(const char *text, int n, const char *name)
{
    return strlen(name) == (size_t)n && memcmp(text, name, (size_t)n) == 0;
}

static enum status find_kind(const char *text, int n, enum fault_kind *ret_kind, struct err *err)
{
    for (uint32_t kind = 0; kind < FAULT_KINDS; kind++) {
        if (same(text, n, fault_kind_name(kind))) {
            *ret_kind = (enum fault_kind)kind;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_INVALID, "no kind of fault is called \"%.*s\"; there are%s", n, text,
                   kind_names);
}

static enum status find_field(const struct part *part, enum fault_kind kind, uint32_t *ret_field,
                              struct err *err)
{
    for (uint32_t field = 0; field < N_FIELDS; field++) {
        if (!same(part->name, part->n_name, fields[field].name)) {
            continue;
        }
        if ((fields[field].kinds & 1u << kind) == 0) {
            return err_set(err, STATUS_INVALID, "%s says nothing for %s", fields[field].name,
                           fault_kind_name(kind));
        }
        *ret_field = field;
        return STATUS_OK;
    }
    return err_set(err, STATUS_INVALID,
                   "a fault has no field \"%.*s\" (rank, step, layer, phase, ms, epoch)",
                   part->n_name, part->name);
}

static enum status read_phase(const struct part *part, uint64_t *ret_phase, struct err *err)
{
    for (uint64_t phase = STATUS_PHASE_HELLO; phase < STATUS_PHASES; phase++) {
        if (same(part->value, part->n_value, status_phase_text((uint32_t)phase))) {
            *ret_phase = phase;
            return STATUS_OK;
        }
    }
    return err_set(err, STATUS_INVALID,
                   "phase: \"%.*s\" is none of hello, comm_init, sanity, loading, prefill, "
                   "decode, idle, unload, shutdown",
                   part->n_value, part->value);
}

static enum status read_number(const struct part *part, uint32_t field, uint64_t *ret_number,
                               struct err *err)
{
    char *end = NULL;
    unsigned long long number = 0;
    bool digit = part->n_value > 0 && part->value[0] >= '0' && part->value[0] <= '9';

    errno = 0;
    if (digit) { /* strtoull would take a sign or a space */
        number = strtoull(part->value, &end, 10);
    }
    if (!digit || end != part->value + part->n_value) {
        return err_set(err, STATUS_INVALID, "%s: \"%.*s\" is not a whole number",
                       fields[field].name, part->n_value, part->value);
    }
    if (errno == ERANGE || number < fields[field].min || number > fields[field].max) {
        return err_set(err, STATUS_INVALID, "%s: %.*s is not between %llu and %llu",
                       fields[field].name, part->n_value, part->value,
                       (unsigned long long)fields[field].min,
                       (unsigned long long)fields[field].max);
    }
    *ret_number = number;
    return STATUS_OK;
}

/* Reads name=value up to the next comma and moves *at behind it. */
static enum status read_part(const char **at, enum fault_kind kind, uint64_t *numbers,
                             uint32_t *given, struct err *err)
{
    struct part part = {.name = *at, .n_name = (int)strcspn(*at, "=,")};
    uint32_t field = 0;
    enum status status = find_field(&part, kind, &field, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (part.name[part.n_name] != '=') {
        return err_set(err, STATUS_INVALID, "%s needs a value (%s=...)", fields[field].name,
                       fields[field].name);
    }
    if ((*given & 1u << field) != 0) {
        return err_set(err, STATUS_INVALID, "%s is given twice", fields[field].name);
    }
    part.value = part.name + part.n_name + 1;
    part.n_value = (int)strcspn(part.value, ",");
    status = field == PHASE ? read_phase(&part, &numbers[field], err)
                            : read_number(&part, field, &numbers[field], err);
    *given |= 1u << field;
    *at = part.value + part.n_value;
    return status;
}

/* The fields together. */
static enum status check(const struct fault_spec *spec, uint32_t given, struct err *err)
{
    bool has_steps = spec->phase == STATUS_PHASE_PREFILL || spec->phase == STATUS_PHASE_DECODE;

    if ((given & 1u << RANK) == 0) {
        return err_set(err, STATUS_INVALID, "rank is missing");
    }
    if (spec->kind == FAULT_SLOW && spec->ms == 0) {
        return err_set(err, STATUS_INVALID, "ms is missing: slow needs it");
    }
    if (spec->has_phase && !has_steps && (spec->has_step || spec->has_layer)) {
        return err_set(err, STATUS_INVALID, "phase %s has no %s", status_phase_text(spec->phase),
                       spec->has_step ? "steps" : "layers");
    }
    return STATUS_OK;
}

enum status fault_parse(const char *text, struct fault_spec *ret_spec, struct err *err)
{
    struct fault_spec spec = {0};
    uint64_t numbers[N_FIELDS] = {0};
    uint32_t given = 0;
    const char *at = text + strcspn(text, ":");
    enum status status;

    if (strlen(text) >= ERR_TEXT_BYTES) {
        return err_set(err, STATUS_INVALID, "the text of a fault is too long");
    }
    status = find_kind(text, (int)(at - text), &spec.kind, err);
    while (status == STATUS_OK && *at != '\0') {
        at++; /* the colon, or a comma */
        status = read_part(&at, spec.kind, numbers, &given, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    spec.rank = (uint32_t)numbers[RANK];
    spec.has_step = (given & 1u << STEP) != 0;
    spec.step = numbers[STEP];
    spec.has_layer = (given & 1u << LAYER) != 0;
    spec.layer = (uint32_t)numbers[LAYER];
    spec.has_phase = (given & 1u << PHASE) != 0;
    spec.phase = (enum status_phase)numbers[PHASE];
    spec.ms = (uint32_t)numbers[MS];
    spec.has_epoch = (given & 1u << EPOCH) != 0;
    spec.epoch = numbers[EPOCH];
    status = check(&spec, given, err);
    if (status == STATUS_OK) {
        *ret_spec = spec;
    }
    return status;
}

void fault_format(const struct fault_spec *spec, struct buf *out)
{
    buf_printf(out, "%s:rank=%u", fault_kind_name(spec->kind), spec->rank);
    if (spec->has_step) {
        buf_printf(out, ",step=%llu", (unsigned long long)spec->step);
    }
    if (spec->has_layer) {
        buf_printf(out, ",layer=%u", spec->layer);
    }
    if (spec->has_phase) {
        buf_printf(out, ",phase=%s", status_phase_text(spec->phase));
    }
    if (spec->kind == FAULT_SLOW) {
        buf_printf(out, ",ms=%u", spec->ms);
    }
    if (spec->has_epoch) {
        buf_printf(out, ",epoch=%llu", (unsigned long long)spec->epoch);
    }
}
