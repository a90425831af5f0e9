/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options: from text, checked against the table, and from one set of options to another.
 */
#include <errno.h>
#include <math.h>

#include "config/options_priv.h"

static void *member_of(struct options *options, const struct option_info *info)
{
    return (char *)options + info->offset;
}

static bool *given_of(struct options *options, const struct option_info *info)
{
    return (bool *)((char *)options + info->given_offset);
}

bool option_given(const struct options *options, const struct option_info *info)
{
    return *(const bool *)((const char *)options + info->given_offset);
}

static enum status set_flag(const char *name, const char *text, bool *ret_flag, struct err *err)
{
    if (text == NULL || strcmp(text, "true") == 0 || strcmp(text, "1") == 0) {
        *ret_flag = true;
    } else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0) {
        *ret_flag = false;
    } else {
        return err_set(err, STATUS_INVALID, "%s: %s is neither true nor false", name, text);
    }
    return STATUS_OK;
}

static enum status set_int(const struct option_info *info, const char *name, const char *text,
                           int64_t *ret_n, struct err *err)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        return err_set(err, STATUS_INVALID, "%s: %s is not a whole number", name, text);
    }
    if (errno == ERANGE || n < info->n.min || n > info->n.max) {
        return err_set(err, STATUS_INVALID, "%s: %s is not between %lld and %lld", name, text,
                       (long long)info->n.min, (long long)info->n.max);
    }
    *ret_n = n;
    return STATUS_OK;
}

static enum status set_real(const struct option_info *info, const char *name, const char *text,
                            double *ret_x, struct err *err)
{
    char *end;
    double x = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(x)) {
        return err_set(err, STATUS_INVALID, "%s: %s is not a number", name, text);
    }
    if (x < info->x.min || x > info->x.max) {
        return err_set(err, STATUS_INVALID, "%s: %s is not between %g and %g", name, text,
                       info->x.min, info->x.max);
    }
    *ret_x = x;
    return STATUS_OK;
}

static enum status set_text(const struct option_info *info, const char *name, const char *text,
                            const char **ret_text, struct err *err)
{
    const char *at = info->one_of;

    while (at != NULL) {
        size_t n = strcspn(at, "|");

        if (strlen(text) == n && strncmp(at, text, n) == 0) {
            break;
        }
        if (at[n] == '\0') {
            return err_set(err, STATUS_INVALID, "%s: %s is none of %s", name, text, info->one_of);
        }
        at += n + 1;
    }
    *ret_text = text;
    return STATUS_OK;
}

static enum status add_item(const char *name, const char *text, struct option_list *list,
                            struct err *err)
{
    if (text[0] == '\0') {
        return err_set(err, STATUS_INVALID, "%s: is empty", name);
    }
    if (list->n == OPTION_LIST_MAX) {
        return err_set(err, STATUS_INVALID, "%s: given more than %d times", name, OPTION_LIST_MAX);
    }
    list->items[list->n++] = text;
    return STATUS_OK;
}

enum status option_set(struct options *options, const struct option_info *info, const char *name,
                       const char *text, struct err *err)
{
    void *member = member_of(options, info);
    enum status status = STATUS_OK;

    switch (info->type) {
    case OPTION_TYPE_GROUP:
        return err_set(err, STATUS_BUG, "%s is no option", name);
    case OPTION_TYPE_FLAG:
        status = set_flag(name, text, member, err);
        break;
    case OPTION_TYPE_INT:
        status = set_int(info, name, text, member, err);
        break;
    case OPTION_TYPE_REAL:
        status = set_real(info, name, text, member, err);
        break;
    case OPTION_TYPE_TEXT:
        status = set_text(info, name, text, member, err);
        break;
    case OPTION_TYPE_LIST:
        status = add_item(name, text, member, err);
        break;
    }
    if (status == STATUS_OK) {
        *given_of(options, info) = true;
    }
    return status;
}

void option_set_fallbacks(struct options *options)
{
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        void *member = member_of(options, info);

        if (info->type == OPTION_TYPE_GROUP) {
            continue;
        }
        *given_of(options, info) = false;
        switch (info->type) {
        case OPTION_TYPE_GROUP:
            break;
        case OPTION_TYPE_FLAG:
            *(bool *)member = false;
            break;
        case OPTION_TYPE_INT:
            *(int64_t *)member = info->n.fallback;
            break;
        case OPTION_TYPE_REAL:
            *(double *)member = info->x.fallback;
            break;
        case OPTION_TYPE_TEXT:
            *(const char **)member = info->text;
            break;
        case OPTION_TYPE_LIST:
            *(struct option_list *)member = (struct option_list){0};
            break;
        }
    }
}

void option_fill(struct options *options, const struct options *lower)
{
    static const size_t sizes[] = {
        [OPTION_TYPE_FLAG] = sizeof(bool),
        [OPTION_TYPE_INT] = sizeof(int64_t),
        [OPTION_TYPE_REAL] = sizeof(double),
        [OPTION_TYPE_TEXT] = sizeof(const char *),
        [OPTION_TYPE_LIST] = sizeof(struct option_list),
    };

    /* these two exclude each other, so whoever gives one has settled both */
    bool is_loudness_settled = options->given.quiet || options->given.verbose;

    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];

        if (is_loudness_settled && (info->offset == offsetof(struct options, quiet) ||
                                    info->offset == offsetof(struct options, verbose))) {
            continue;
        }
        if (info->type != OPTION_TYPE_GROUP && option_given(lower, info) &&
            !option_given(options, info)) {
            memcpy(member_of(options, info), (const char *)lower + info->offset, sizes[info->type]);
            *given_of(options, info) = true;
        }
    }
}
