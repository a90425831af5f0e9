/* SPDX-License-Identifier: Apache-2.0 */
/* Between parser.c, which finds lines and bodies, and request.c, which understands lines. */
#pragma once

#include "http/parser.h"

/* Remembers the error and returns false. The first one stands. */
bool http_parser_fail(struct http_parser *parser, int error, const char *reason);

bool http_char_is_token(unsigned char c);
bool http_char_is_value(unsigned char c); /* text, space or tab */

/* The whole of head is the request line; it becomes "METHOD\0target\0". False: failed. */
bool http_request_line(struct http_parser *parser);
/* What is in text from line on is a header; it becomes "name\0value\0". False: failed. */
bool http_header_line(struct http_parser *parser, struct buf *text, size_t line);
/* All lines are there: what they mean together. */
bool http_head_end(struct http_parser *parser);
