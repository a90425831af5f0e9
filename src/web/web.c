/* SPDX-License-Identifier: Apache-2.0 */
#include "web/web.h"

#include <string.h>

/* Written by cmake/embed.cmake from the files of src/web/page. */
extern const struct web_file web_embedded[];
extern const size_t web_n_embedded;

/* What people and browsers ask for by habit. */
static const struct {
    const char *path;
    const char *file;
} habits[] = {
    {"/index.html", "/"},
    {"/favicon.ico", "/page/favicon.svg"},
};

const struct web_file *web_find(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(habits); i++) {
        if (strcmp(habits[i].path, path) == 0) {
            path = habits[i].file;
        }
    }
    for (size_t i = 0; i < web_n_embedded; i++) {
        if (strcmp(web_embedded[i].path, path) == 0) {
            return &web_embedded[i];
        }
    }
    return NULL;
}

const struct web_file *web_files(size_t *ret_n_files)
{
    *ret_n_files = web_n_embedded;
    return web_embedded;
}

bool web_is_known(const struct web_file *file, const char *if_none_match)
{
    size_t n = strlen(file->etag);
    const char *at = if_none_match;

    /* A list of tags, each perhaps weak (W/"..."): the comparison for GET is the weak one. */
    while (at != NULL && *at != '\0') {
        const char *end;

        at += strspn(at, " \t,");
        if (*at == '*') {
            return true;
        }
        at += strncmp(at, "W/", 2) == 0 ? 2 : 0;
        if (strncmp(at, file->etag, n) == 0) {
            return true;
        }
        end = *at == '"' ? strchr(at + 1, '"') : NULL;
        at = end == NULL ? NULL : end + 1;
    }
    return false;
}
