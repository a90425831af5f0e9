/* SPDX-License-Identifier: Apache-2.0 */
/* Requests from a socket: what is understood does not depend on how the bytes are split. The first
 * byte chooses the second way of splitting. */
#include "http/parser.h"

enum { MAX_HEADER = 512, MAX_BODY = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void describe(struct http_parser *parser, struct buf *out)
{
    buf_printf(out, "%s %s %d\n", parser->method, parser->path, parser->keep_alive);
    for (size_t i = 0; i < parser->n_params; i++) {
        buf_printf(out, "%s=%s\n", parser->params[i].name, parser->params[i].value);
    }
    for (size_t i = 0; i < parser->n_fields; i++) {
        ENSURE(strpbrk(parser->fields[i].value, "\r\n") == NULL);
        buf_printf(out, "%s: %s\n", parser->fields[i].name, parser->fields[i].value);
    }
    for (size_t i = parser->n_fields; i-- > 0;) { /* joining leaves what is behind alone */
        if (i < parser->n_fields) {
            ENSURE(http_parser_header(parser, parser->fields[i].name) != NULL);
        }
    }
    buf_append(out, buf_str(&parser->body), parser->body.len);
}

static void parse(const char *bytes, size_t n, size_t step, struct buf *out)
{
    struct http_parser parser;
    enum http_parse outcome = HTTP_PARSE_MORE;
    size_t at = 0;

    http_parser_init(&parser, MAX_HEADER, MAX_BODY);
    while (outcome != HTTP_PARSE_BAD && (at < n || outcome == HTTP_PARSE_HEAD)) {
        size_t part = MIN(n - at, step);
        size_t used = 0;

        outcome = http_parser_feed(&parser, bytes + at, part, &used);
        ENSURE(used <= part && (outcome != HTTP_PARSE_MORE || used == part));
        ENSURE(parser.body.len <= MAX_BODY);
        at += used;
        if (outcome == HTTP_PARSE_DONE) {
            describe(&parser, out);
            http_parser_reset(&parser);
        }
    }
    buf_printf(out, "%d %s", (int)outcome, outcome == HTTP_PARSE_BAD ? parser.reason : "");
    http_parser_release(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = {0};
    struct buf split = {0};

    if (size == 0) {
        return 0;
    }
    parse((const char *)data + 1, size - 1, size, &whole);
    parse((const char *)data + 1, size - 1, 1 + data[0] % 32, &split);
    ENSURE(whole.len == split.len && memcmp(whole.data, split.data, whole.len) == 0);
    buf_release(&whole);
    buf_release(&split);
    return 0;
}
