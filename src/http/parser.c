/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The framing: one state per place in a request, a line's bytes checked as they come, bodies taken
 * in pieces. A line is handed to request.c when its CR LF is there, so that nothing depends on how
 * the bytes were split.
 *
 *   START -> LINE -(CR)-> LINE_LF -> LINE ... -> (empty line) HEAD_END -> SIZED | CHUNK_SIZE | DONE
 *   CHUNK_SIZE -> [CHUNK_EXT] -> CHUNK_SIZE_LF -> CHUNK_DATA -> CHUNK_CR -> CHUNK_LF -> CHUNK_SIZE
 *   CHUNK_SIZE_LF of size 0 -> TRAILER -(CR)-> TRAILER_LF -> TRAILER ... -> (empty line) DONE
 */
#include "http/parser.h"

#include "http/parser_priv.h"

#include "base/mem.h"

enum {
    START, /* nothing was read, or an empty line in front of the request */
    START_LF,
    LINE,
    LINE_LF,
    HEAD_END,
    SIZED,
    CHUNK_SIZE,
    CHUNK_EXT,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_CR,
    CHUNK_LF,
    TRAILER,
    TRAILER_LF,
    DONE,
    BAD,
};

enum {
    KEPT_BYTES = 4096,     /* of a buffer, from one request to the next */
    MAX_CHUNK_DIGITS = 16, /* 64 bits */
    MAX_BLANK_LINES = 1,   /* in front of a request; some clients send one behind a body */
    MAX_EXT_BYTES = 1024,  /* of one chunk */
};

void http_parser_init(struct http_parser *parser, size_t max_header_bytes, size_t max_body_bytes)
{
    *parser = (struct http_parser){
        .max_header_bytes = max_header_bytes, .max_body_bytes = max_body_bytes, .state = START};
}

static void free_fields(struct http_field *fields, size_t n)
{
    for (size_t i = 0; fields != NULL && i < n; i++) {
        if (fields[i].owned) {
            free(fields[i].value);
        }
    }
    free(fields);
}

static void clear_buf(struct buf *buf)
{
    if (buf->cap > KEPT_BYTES) {
        buf_release(buf);
    } else {
        buf_clear(buf);
    }
}

void http_parser_reset(struct http_parser *parser)
{
    struct buf head = parser->head;
    struct buf body = parser->body;
    struct buf trailer = parser->trailer;

    free_fields(parser->fields, parser->n_fields);
    free(parser->params);
    clear_buf(&head);
    clear_buf(&body);
    clear_buf(&trailer);
    http_parser_init(parser, parser->max_header_bytes, parser->max_body_bytes);
    parser->head = head;
    parser->body = body;
    parser->trailer = trailer;
}

void http_parser_release(struct http_parser *parser)
{
    http_parser_reset(parser);
    buf_release(&parser->head);
    buf_release(&parser->body);
    buf_release(&parser->trailer);
}

bool http_parser_fail(struct http_parser *parser, int error, const char *reason)
{
    if (parser->error == 0) {
        parser->error = error;
        parser->reason = reason;
    }
    parser->state = BAD;
    return false;
}

/* --- Lines --- */

static bool count_head(struct http_parser *parser)
{
    if (++parser->head_bytes <= parser->max_header_bytes) {
        return true;
    }
    if (!parser->has_line) {
        return http_parser_fail(parser, 414, "the request line is too long");
    }
    return http_parser_fail(parser, 431, "the headers are too long");
}

/* A byte within a line. */
static bool take_line_byte(struct http_parser *parser, struct buf *to, char c)
{
    if (c == '\n') {
        return http_parser_fail(parser, 400, "a line ends with LF alone");
    }
    if (!http_char_is_value((unsigned char)c)) {
        return http_parser_fail(parser, 400, "a control character in the request's head");
    }
    buf_append_char(to, c);
    return true;
}

/* The line of the head that ended with CR LF. */
static bool end_line(struct http_parser *parser)
{
    struct buf *head = &parser->head;

    parser->state = LINE;
    if (!parser->has_line) {
        if (!http_request_line(parser)) {
            return false;
        }
        parser->has_line = true;
    } else if (head->len > parser->line) {
        if (!http_header_line(parser, head, parser->line)) {
            return false;
        }
        if (++parser->n_fields > HTTP_MAX_FIELDS) {
            return http_parser_fail(parser, 431, "too many headers");
        }
    } else {
        parser->state = HEAD_END;
        return http_head_end(parser);
    }
    parser->line = head->len;
    return true;
}

static bool end_trailer(struct http_parser *parser)
{
    bool is_last = parser->trailer.len == 0;

    if (!is_last && !http_header_line(parser, &parser->trailer, 0)) {
        return false;
    }
    buf_clear(&parser->trailer);
    parser->state = is_last ? DONE : TRAILER;
    return true;
}

static bool take_start(struct http_parser *parser, char c)
{
    parser->started = true;
    if (c == '\r' && parser->blank_lines < MAX_BLANK_LINES) {
        parser->blank_lines++;
        parser->state = START_LF;
        return true;
    }
    if (!http_char_is_token((unsigned char)c)) {
        return http_parser_fail(parser, 400, "this is no HTTP request");
    }
    parser->state = LINE;
    return take_line_byte(parser, &parser->head, c);
}

static bool take_lf(struct http_parser *parser, char c, int next)
{
    if (c != '\n') {
        return http_parser_fail(parser, 400, "a CR without LF");
    }
    parser->state = next;
    return true;
}

/* --- Chunks --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_chunk_size(struct http_parser *parser, char c)
{
    int digit = hex_digit(c);

    if (digit >= 0) {
        if (parser->n_digits == MAX_CHUNK_DIGITS) {
            return http_parser_fail(parser, 400, "a chunk size of too many digits");
        }
        parser->n_digits++;
        parser->left = parser->left << 4 | (uint64_t)digit;
        return true;
    }
    if (parser->n_digits == 0 || (c != '\r' && c != ';')) {
        return http_parser_fail(parser, 400, "a chunk size that is no hexadecimal number");
    }
    if (parser->left > parser->max_body_bytes - parser->body.len) {
        return http_parser_fail(parser, 413, "the body is too large");
    }
    parser->n_digits = 0;
    parser->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXT;
    return true;
}

static bool take_chunk_ext(struct http_parser *parser, char c)
{
    if (c == '\r') {
        parser->n_digits = 0;
        parser->state = CHUNK_SIZE_LF;
        return true;
    }
    if (!http_char_is_value((unsigned char)c)) {
        return http_parser_fail(parser, 400, "a control character in a chunk extension");
    }
    if (++parser->n_digits > MAX_EXT_BYTES || ++parser->head_bytes > parser->max_header_bytes) {
        return http_parser_fail(parser, 400, "chunk extensions are too long");
    }
    return true;
}

static bool expect_char(struct http_parser *parser, char c, char wanted, int next)
{
    if (c != wanted) {
        return http_parser_fail(parser, 400, "chunk data that does not end with CR LF");
    }
    parser->state = next;
    return true;
}

/* --- One byte, one piece --- */

static bool take_line(struct http_parser *parser, char c)
{
    if (!count_head(parser)) {
        return false;
    }
    if (parser->state == LINE_LF) {
        return take_lf(parser, c, LINE) && end_line(parser);
    }
    if (c == '\r') {
        parser->state = LINE_LF;
        return true;
    }
    return take_line_byte(parser, &parser->head, c);
}

static bool take_trailer(struct http_parser *parser, char c)
{
    if (!count_head(parser)) {
        return false;
    }
    if (parser->state == TRAILER_LF) {
        return take_lf(parser, c, TRAILER) && end_trailer(parser);
    }
    if (c == '\r') {
        parser->state = TRAILER_LF;
        return true;
    }
    return take_line_byte(parser, &parser->trailer, c);
}

static bool take_byte(struct http_parser *parser, char c)
{
    switch (parser->state) {
    case START:
        return count_head(parser) && take_start(parser, c);
    case START_LF:
        return count_head(parser) && take_lf(parser, c, START);
    case LINE:
    case LINE_LF:
        return take_line(parser, c);
    case CHUNK_SIZE:
        return take_chunk_size(parser, c);
    case CHUNK_EXT:
        return take_chunk_ext(parser, c);
    case CHUNK_SIZE_LF:
        return take_lf(parser, c, parser->left > 0 ? CHUNK_DATA : TRAILER);
    case CHUNK_CR:
        return expect_char(parser, c, '\r', CHUNK_LF);
    case CHUNK_LF:
        return expect_char(parser, c, '\n', CHUNK_SIZE);
    default:
        return take_trailer(parser, c);
    }
}

/* As much of the body, or of the chunk, as there is. */
static size_t take_data(struct http_parser *parser, const char *bytes, size_t n)
{
    size_t part = n < parser->left ? n : (size_t)parser->left;

    buf_append(&parser->body, bytes, part);
    parser->left -= part;
    if (parser->left == 0) {
        parser->state = parser->state == SIZED ? DONE : CHUNK_CR;
    }
    return part;
}

/* From the headers to what they announce. */
static void begin_body(struct http_parser *parser)
{
    parser->head_bytes = 0; /* counts extensions and trailers from here on */
    parser->state = parser->chunked ? CHUNK_SIZE : parser->left > 0 ? SIZED : DONE;
}

enum http_parse http_parser_feed(struct http_parser *parser, const char *bytes, size_t n,
                                 size_t *ret_used)
{
    size_t used = 0;

    if (parser->state == HEAD_END) {
        begin_body(parser);
    }
    while (used < n && parser->state != DONE && parser->state != BAD) {
        if (parser->state == SIZED || parser->state == CHUNK_DATA) {
            used += take_data(parser, bytes + used, n - used);
            continue;
        }
        if (!take_byte(parser, bytes[used++])) {
            break;
        }
        if (parser->state == HEAD_END) {
            *ret_used = used;
            return HTTP_PARSE_HEAD;
        }
    }
    *ret_used = used;
    return parser->state == BAD    ? HTTP_PARSE_BAD
           : parser->state == DONE ? HTTP_PARSE_DONE
                                   : HTTP_PARSE_MORE;
}
