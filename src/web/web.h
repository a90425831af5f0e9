/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page that the server gives out: the files of src/web/page, built into the program. It says
 * what they are and how they may be sent; sending them is the caller's.
 *
 * Everything is constant; any thread.
 */
#pragma once

#include "base/base.h"

struct web_file {
    const char *path;         /* "/page/chat.js"; the page itself is "/" */
    const char *content_type; /* with the charset where there is one */
    const unsigned char *data;
    size_t size;
    const char *etag; /* quoted; changes with the content */
};

/* What a browser is to be told with each of the files: nothing from elsewhere, nothing inline, in
 * nobody's frame. The page is written and tested under it. */
#define WEB_SECURITY_POLICY                                                             \
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " \
    "object-src 'none'"

/* Ask each time, and take what is kept if it is still the same. */
#define WEB_CACHE_CONTROL "no-cache"

/* The file at a request's decoded path ("/index.html" and "/favicon.ico" are known, too); NULL if
 * there is none. */
const struct web_file *web_find(const char *path);

/* Every file once; n_files of them. */
const struct web_file *web_files(size_t *ret_n_files);

/* Whether a client with this If-None-Match header (NULL: none) has the file already: answer 304. */
bool web_is_known(const struct web_file *file, const char *if_none_match);
