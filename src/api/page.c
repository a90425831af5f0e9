/* SPDX-License-Identifier: Apache-2.0 */
/* The page for people: its files need no key, they hold nothing that a key protects. */
#include "api/answer.h"
#include "web/web.h"

static void page(struct answer *answer)
{
    struct http_exchange *x = answer->exchange;
    const struct web_file *file = web_find(http_path(x));

    if (file == NULL) {
        api_error_set(&answer->error, 404, NULL, "there is no %s", http_path(x));
        answer_failed(answer);
        return;
    }
    http_answer_header(x, "Content-Security-Policy", WEB_SECURITY_POLICY);
    http_answer_header(x, "X-Content-Type-Options", "nosniff");
    http_answer_header(x, "Referrer-Policy", "no-referrer");
    http_answer_header(x, "Cache-Control", WEB_CACHE_CONTROL);
    http_answer_header(x, "ETag", file->etag);
    if (web_is_known(file, http_header(x, "if-none-match"))) {
        answer->status = 304;
        http_answer(x, 304, file->content_type, NULL, 0);
        return;
    }
    answer->status = 200;
    http_answer(x, 200, file->content_type, file->data, file->size);
}

const struct endpoint endpoint_page = {.now = page};
