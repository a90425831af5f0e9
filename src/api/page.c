/* SPDX-License-Identifier: Apache-2.0 */
/* The files of the page, as a browser wants them. */
#include "api/answer.h"
#include "web/web.h"

static void page(struct answer *answer)
{
    const struct web_file *file = web_find(http_path(answer->exchange));
    struct http_exchange *x = answer->exchange;

    if (file == NULL) {
        api_error_set(&answer->error, 404, NULL, "the page has no such part");
        answer_failed(answer);
        return;
    }
    http_answer_header(x, "Content-Security-Policy", WEB_SECURITY_POLICY);
    http_answer_header(x, "X-Content-Type-Options", "nosniff");
    http_answer_header(x, "Referrer-Policy", "no-referrer");
    http_answer_header(x, "Cache-Control", WEB_CACHE_CONTROL);
    http_answer_header(x, "ETag", file->etag);
    answer->status = web_is_known(file, http_header(x, "if-none-match")) ? 304 : 200;
    http_answer(x, answer->status, file->content_type, file->data,
                answer->status == 200 ? file->size : 0);
}

const struct endpoint endpoint_page = {.now = page};
