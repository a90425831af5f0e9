/* SPDX-License-Identifier: Apache-2.0 */
/* What the lines of a request say: method, target, version, headers, and how the body is framed. */
#include "http/parser_priv.h"

#include "base/mem.h"
#include "base/utf8.h"

bool http_char_is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool http_char_is_value(unsigned char c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

static bool bad(struct http_parser *parser, const char *reason)
{
    return http_parser_fail(parser, 400, reason);
}

/* --- The request line --- */

static bool check_version(struct http_parser *parser, const char *version)
{
    if (strlen(version) != 8 || memcmp(version, "HTTP/", 5) != 0 || version[5] < '0' ||
        version[5] > '9' || version[6] != '.' || version[7] < '0' || version[7] > '9') {
        return bad(parser, "a request line that does not end with an HTTP version");
    }
    parser->is_1_1 = strcmp(version, "HTTP/1.1") == 0;
    if (!parser->is_1_1 && strcmp(version, "HTTP/1.0") != 0) {
        return http_parser_fail(parser, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    return true;
}

bool http_request_line(struct http_parser *parser)
{
    char *line = parser->head.data; /* without zeros, a token's character first */
    char *target = strchr(line, ' ');
    char *version = target == NULL ? NULL : strchr(target + 1, ' ');

    for (const char *c = line; *c != ' ' && *c != '\0'; c++) {
        if (!http_char_is_token((unsigned char)*c)) {
            return bad(parser, "a method that is no token");
        }
    }
    if (version == NULL || version == target + 1) {
        return bad(parser, "a request line without method, target and version");
    }
    *target++ = '\0';
    *version++ = '\0';
    for (const char *c = target; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~' || *c == '#') {
            return bad(parser, "a character in the target that must be encoded");
        }
    }
    if (!check_version(parser, version)) {
        return false;
    }
    if (strcmp(line, "TRACE") == 0 || strcmp(line, "CONNECT") == 0) {
        return http_parser_fail(parser, 501, "neither TRACE nor CONNECT is done here");
    }
    parser->head.len = (size_t)(version - line);
    return true;
}

/* --- Headers --- */

bool http_header_line(struct http_parser *parser, struct buf *text, size_t line)
{
    char *name = text->data + line;
    char *end = text->data + text->len;
    char *colon = memchr(name, ':', text->len - line);
    char *value;

    if (*name == ' ' || *name == '\t') {
        return bad(parser, "a header that goes on in the next line");
    }
    if (colon == NULL || colon == name) {
        return bad(parser, "a header line without a name and a colon");
    }
    for (char *c = name; c < colon; c++) {
        if (!http_char_is_token((unsigned char)*c)) {
            return bad(parser, "a header's name that is no token");
        }
        if (*c >= 'A' && *c <= 'Z') {
            *c = (char)(*c | 0x20);
        }
    }
    *colon = '\0';
    value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t')) {
        value++;
    }
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    memmove(colon + 1, value, (size_t)(end - value));
    text->len = (size_t)(colon + 1 - text->data) + (size_t)(end - value);
    buf_append_char(text, '\0');
    return true;
}

/* The value of the only header of that name, NULL if there is none; two of them fail. */
static bool find_only(struct http_parser *parser, const char *name, const char *twice,
                      char **ret_value)
{
    char *value = NULL;

    for (size_t i = 0; i < parser->n_fields; i++) {
        if (strcmp(parser->fields[i].name, name) == 0) {
            if (value != NULL) {
                return bad(parser, twice);
            }
            value = parser->fields[i].value;
        }
    }
    *ret_value = value;
    return true;
}

static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);

    while (*list != '\0') {
        size_t n;

        list += strspn(list, ", \t");
        n = strcspn(list, ", \t");
        if (n == length && strncasecmp(list, word, n) == 0) {
            return true;
        }
        list += n;
    }
    return false;
}

static void read_connection(struct http_parser *parser)
{
    bool close = false;
    bool keep = false;

    for (size_t i = 0; i < parser->n_fields; i++) {
        if (strcmp(parser->fields[i].name, "connection") == 0) {
            close = close || list_has(parser->fields[i].value, "close");
            keep = keep || list_has(parser->fields[i].value, "keep-alive");
        }
    }
    parser->keep_alive = !close && (parser->is_1_1 || keep);
}

static bool check_host(struct http_parser *parser, const char *host)
{
    static const char name_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        "-._~%!$&'()*+;=";
    const char *rest;

    if (*host == '[') {
        rest = host + 1 + strspn(host + 1, "0123456789abcdefABCDEF:.");
        if (rest == host + 1 || *rest++ != ']') {
            return bad(parser, "a Host that is no address");
        }
    } else {
        rest = host + strspn(host, name_chars);
        if (rest == host) {
            return bad(parser, "a Host that names none");
        }
    }
    if (*rest == ':') {
        rest++;
        rest += strspn(rest, "0123456789");
    }
    return *rest == '\0' || bad(parser, "a Host that is no name, address or port");
}

static bool read_host(struct http_parser *parser)
{
    char *host = NULL;

    if (!find_only(parser, "host", "two Host headers", &host)) {
        return false;
    }
    if (host == NULL) {
        return !parser->is_1_1 || bad(parser, "a request of HTTP/1.1 without Host");
    }
    return check_host(parser, host);
}

static bool read_length(struct http_parser *parser, const char *text)
{
    uint64_t length = 0;

    if (*text == '\0') {
        return bad(parser, "a Content-Length that is no number");
    }
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') {
            return bad(parser, "a Content-Length that is no number");
        }
    }
    for (const char *c = text; *c != '\0'; c++) {
        if (__builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, (uint64_t)(*c - '0'), &length)) {
            return bad(parser, "a Content-Length that does not fit 64 bits");
        }
    }
    if (length > parser->max_body_bytes) {
        return http_parser_fail(parser, 413, "the body is too large");
    }
    parser->left = length;
    return true;
}

/* Where the body ends; see parser.h. */
static bool read_framing(struct http_parser *parser)
{
    char *length = NULL;
    char *coding = NULL;

    if (!find_only(parser, "content-length", "two Content-Length headers", &length) ||
        !find_only(parser, "transfer-encoding", "two Transfer-Encoding headers", &coding)) {
        return false;
    }
    if (coding == NULL) {
        if (length != NULL && !read_length(parser, length)) {
            return false;
        }
        parser->has_body = parser->left > 0;
        return true;
    }
    if (length != NULL) {
        return bad(parser, "Content-Length together with Transfer-Encoding");
    }
    if (!parser->is_1_1) {
        return bad(parser, "Transfer-Encoding with HTTP/1.0, which has none");
    }
    if (strcasecmp(coding, "chunked") != 0) {
        return bad(parser, "a Transfer-Encoding other than chunked");
    }
    parser->chunked = true;
    parser->has_body = true;
    return true;
}

static bool read_expect(struct http_parser *parser)
{
    char *expect = NULL;

    if (!find_only(parser, "expect", "two Expect headers", &expect)) {
        return false;
    }
    if (expect == NULL || !parser->is_1_1) {
        return true;
    }
    if (strcasecmp(expect, "100-continue") != 0) {
        return http_parser_fail(parser, 417, "an expectation other than 100-continue");
    }
    parser->expects_continue = parser->has_body;
    return true;
}

/* --- The target --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; text only gets shorter. */
static bool decode(struct http_parser *parser, char *text, bool plus_is_space)
{
    char *out = text;

    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '%') {
            int high = hex_digit(c[1]);
            int low = high < 0 ? -1 : hex_digit(c[2]);

            if (low < 0 || (high == 0 && low == 0)) {
                return bad(parser, low < 0 ? "a percent sign that encodes nothing"
                                           : "an encoded NUL in the target");
            }
            *out++ = (char)(high << 4 | low);
            c += 2;
        } else {
            *out++ = plus_is_space && *c == '+' ? ' ' : *c;
        }
    }
    *out = '\0';
    return utf8_is_valid(text, (size_t)(out - text)) ||
           bad(parser, "a target that is not UTF-8 once decoded");
}

static bool read_query(struct http_parser *parser, char *query)
{
    size_t most = 1;

    for (const char *c = query; *c != '\0'; c++) {
        most += *c == '&';
    }
    parser->params = xcalloc(most, sizeof(*parser->params));
    for (char *next = query; next != NULL;) {
        char *name = strsep(&next, "&");
        char *value = strchr(name, '=');

        if (*name == '\0') {
            continue;
        }
        if (value != NULL) {
            *value++ = '\0';
        } else {
            value = name + strlen(name);
        }
        if (!decode(parser, name, true) || !decode(parser, value, true)) {
            return false;
        }
        parser->params[parser->n_params++] = (struct http_field){.name = name, .value = value};
    }
    return true;
}

/* http://host/path: the host counts, the Host header does not (RFC 9112, 3.2.2). */
static bool read_absolute(struct http_parser *parser, char *target, char **ret_path)
{
    char *host = target + strlen("http://");
    size_t length = strcspn(host, "/?");
    char *rest = host + length;
    size_t i = 0;
    char *copy;

    if (memchr(host, '@', length) != NULL) {
        return bad(parser, "a user in the target");
    }
    copy = xstrndup(host, length);
    if (!check_host(parser, copy)) {
        free(copy);
        return false;
    }
    while (i < parser->n_fields && strcmp(parser->fields[i].name, "host") != 0) {
        i++;
    }
    parser->n_fields = MAX(parser->n_fields, i + 1); /* HTTP/1.0 without Host; there is room */
    parser->fields[i] = (struct http_field){.name = "host", .value = copy, .owned = true};
    if (*rest == '\0') { /* http://host is http://host/; the host was copied, so there is room */
        rest = target;
        memcpy(rest, "/", 2);
    }
    *ret_path = rest;
    return *rest != '?' || bad(parser, "a target without a path");
}

static bool read_target(struct http_parser *parser, char *target)
{
    char *path = target;
    char *query;

    if (strcmp(target, "*") == 0 && strcmp(parser->method, "OPTIONS") == 0) {
        parser->path = target;
        return true;
    }
    if (strncasecmp(target, "http://", 7) == 0) {
        if (!read_absolute(parser, target, &path)) {
            return false;
        }
    } else if (*target != '/') {
        return bad(parser, "a target that is neither a path nor http://host/path");
    }
    query = strchr(path, '?');
    if (query != NULL) {
        *query++ = '\0';
    }
    parser->path = path;
    return decode(parser, path, false) && (query == NULL || read_query(parser, query));
}

bool http_head_end(struct http_parser *parser)
{
    char *at = parser->head.data;
    char *target;

    parser->method = at;
    target = at + strlen(at) + 1;
    at = target + strlen(target) + 1;
    parser->fields = xcalloc(parser->n_fields + 1, sizeof(*parser->fields));
    for (size_t i = 0; i < parser->n_fields; i++) {
        parser->fields[i].name = at;
        at += strlen(at) + 1;
        parser->fields[i].value = at;
        at += strlen(at) + 1;
    }
    read_connection(parser);
    return read_host(parser) && read_framing(parser) && read_target(parser, target) &&
           read_expect(parser);
}

/* --- Look-ups --- */

const char *http_parser_header(struct http_parser *parser, const char *name)
{
    struct http_field *first = NULL;
    struct buf joined = {0};
    size_t kept = 0;

    for (size_t i = 0; i < parser->n_fields; i++) {
        struct http_field *field = &parser->fields[i];
        bool is_it = strcasecmp(field->name, name) == 0;

        if (is_it && first != NULL) {
            buf_append_str(&joined, joined.len == 0 ? first->value : "");
            buf_append_str(&joined, ", ");
            buf_append_str(&joined, field->value);
            continue;
        }
        parser->fields[kept] = *field;
        first = is_it ? &parser->fields[kept] : first;
        kept++;
    }
    parser->n_fields = kept;
    if (joined.len > 0) { /* once: there is one of that name from now on */
        first->value = buf_detach(&joined);
        first->owned = true;
    }
    return first == NULL ? NULL : first->value;
}

const char *http_parser_param(const struct http_parser *parser, const char *name)
{
    for (size_t i = 0; i < parser->n_params; i++) {
        if (strcmp(parser->params[i].name, name) == 0) {
            return parser->params[i].value;
        }
    }
    return NULL;
}
