/* SPDX-License-Identifier: Apache-2.0 */
/* lockstep.conf from outside: the first byte is the command, the rest the file. What is accepted
 * lies in the ranges of the table, and its texts in the file's memory; what is not has an error
 * that names a line. */
#include "base/mem.h"
#include "config/options_file.h"
#include "config/options_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
    const char *begin;
    const char *end;
};

static void check_text(const struct memory *memory, const char *text)
{
    ENSURE(text >= memory->begin && text < memory->end);
    ENSURE(text + strlen(text) < memory->end);
}

static void check_options(const struct memory *memory, const struct options *options)
{
    for (size_t i = 0; i < n_option_infos; i++) {
        const struct option_info *info = &option_infos[i];
        const void *member = (const char *)options + info->offset;
        const struct option_list *list = member;

        if (info->type == OPTION_TYPE_GROUP || !option_given(options, info)) {
            continue;
        }
        ENSURE(option_accepted(options->command, info));
        ENSURE((info->commands & OPTION_NOT_FILE) == 0);
        if (info->type == OPTION_TYPE_INT) {
            int64_t n = *(const int64_t *)member;

            ENSURE(n >= info->n.min && n <= info->n.max);
        } else if (info->type == OPTION_TYPE_REAL) {
            double x = *(const double *)member;

            ENSURE(x >= info->x.min && x <= info->x.max);
        } else if (info->type == OPTION_TYPE_TEXT) {
            check_text(memory, *(const char *const *)member);
        }
        for (uint32_t j = 0; info->type == OPTION_TYPE_LIST && j < list->n; j++) {
            check_text(memory, list->items[j]);
            ENSURE(list->items[j][0] != '\0');
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct options_file file = {0};
    struct err err = {0};
    struct memory memory;
    enum command command;
    char *text;

    if (size == 0) {
        return 0;
    }
    command = (enum command)(data[0] % COMMAND_COUNT);
    size--;
    text = xalloc(size + 1);
    memcpy(text, data + 1, size);
    memory = (struct memory){text, text + size + 1};
    if (options_file_parse(command, "x.conf", text, size, &file, &err) == STATUS_OK) {
        check_options(&memory, &file.general);
        for (uint32_t i = 0; i < file.n_models; i++) {
            ENSURE(file.models[i].name[0] != '\0' && file.models[i].path[0] != '\0');
            check_text(&memory, file.models[i].name);
            check_text(&memory, file.models[i].path);
            check_options(&memory, &file.models[i].options);
        }
        options_file_release(&file);
    } else {
        ENSURE(strncmp(err.text, "x.conf:", 7) == 0 && err.text[7] >= '1' && err.text[7] <= '9');
        ENSURE(file.models == NULL);
    }
    free(text);
    return 0;
}
