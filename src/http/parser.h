/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.0 and 1.1 requests out of bytes, in pieces of any size: how the bytes are split never
 * changes the outcome. No sockets, no clock; memory is bounded by the limits given to init. One
 * thread at a time.
 *
 * What is refused, and why. Two programs that read one byte stream differently let a client hide a
 * request from one of them, so every place where known servers have differed is an error:
 *   - Content-Length together with Transfer-Encoding; two Content-Lengths, equal ones too; a list,
 * a sign, a space or anything but digits in it: the body's end would be a matter of opinion;
 *   - Transfer-Encoding other than exactly "chunked", twice, or with HTTP/1.0, which has none;
 *   - space before a header's colon, lines that go on with a space (obs-fold), names that are no
 *     token: some readers drop such a line, some repair it;
 *   - a bare CR, a bare LF, NUL and other control characters: where a line ends would differ;
 *   - a chunk size that is no plain hexadecimal number or does not fit 64 bits, space around it,
 *     control characters in extensions, chunk data that does not end with CR LF;
 *   - no Host, or two, with HTTP/1.1; a Host that is no host: who is asked would differ;
 *   - a target that is neither a path, nor http://host/path, nor OPTIONS *; a fragment; bad percent
 *     encoding, an encoded NUL, text that is not UTF-8: filters and handlers would see two paths.
 * These are 400. TRACE and CONNECT are 501, other HTTP versions 505, an unknown expectation 417, a
 * request line over the limit 414, headers 431, a body 413.
 * Of chunk extensions and trailers nothing is kept; they are checked and bounded all the same.
 */
#pragma once

#include "base/buf.h"

enum { HTTP_MAX_FIELDS = 256 }; /* header lines; 431 above */

enum http_parse {
    HTTP_PARSE_MORE, /* all bytes were used, more are needed */
    HTTP_PARSE_HEAD, /* the headers are complete; go on for the body */
    HTTP_PARSE_DONE, /* the request is complete; bytes behind it were not used */
    HTTP_PARSE_BAD,  /* error and reason say why; nothing further is ever read */
};

struct http_field {
    const char *name; /* in lower case */
    char *value;      /* without space around it */
    bool owned;       /* value is allocated on its own */
};

struct http_parser {
    size_t max_header_bytes;
    size_t max_body_bytes;
    int state; /* of parser.c */

    /* What was understood; pointers into head, valid from HEAD until the next reset. */
    char *method;
    char *path;                /* decoded */
    struct http_field *params; /* of the query, decoded, names as they came */
    size_t n_params;
    struct http_field *fields;
    size_t n_fields;
    struct buf body;
    bool is_1_1;
    bool keep_alive;       /* what the client asked for, by version and Connection */
    bool expects_continue; /* and there is a body to send */
    bool has_body;         /* framing announces one byte at least, or chunks */

    int error;          /* HTTP status */
    const char *reason; /* static text */

    /* "METHOD\0target\0", then "name\0value\0" for each field; decoded in place at its end */
    struct buf head;
    struct buf trailer; /* its current line */
    size_t line;        /* where the current line begins in head */
    size_t head_bytes;  /* read of request line and headers, or of extensions and trailers */
    uint64_t left;      /* of the body, or of the current chunk */
    bool has_line;      /* the request line is understood */
    bool chunked;
    bool started; /* a byte was read since the last reset */
    uint32_t n_digits;
    uint32_t blank_lines;
};

void http_parser_init(struct http_parser *parser, size_t max_header_bytes, size_t max_body_bytes);
void http_parser_release(struct http_parser *parser);
/* Ready for the next request; keeps a little memory. */
void http_parser_reset(struct http_parser *parser);

/* Reads from bytes; *ret_used is how many were taken (of a bad request it means nothing). */
enum http_parse http_parser_feed(struct http_parser *parser, const char *bytes, size_t n,
                                 size_t *ret_used);

/* The value of a header; several are joined by ", " in the first. name in lower or upper case. */
const char *http_parser_header(struct http_parser *parser, const char *name);
/* The first query parameter of that name, or NULL. */
const char *http_parser_param(const struct http_parser *parser, const char *name);
