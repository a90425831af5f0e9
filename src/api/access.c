/* SPDX-License-Identifier: Apache-2.0 */
#include "api/access.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/mem.h"

static bool is_loopback_name(const char *host)
{
    struct in_addr four;
    struct in6_addr six;

    if (strcasecmp(host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, host, &four) == 1) {
        return ntohl(four.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static bool is_number(const char *host)
{
    struct in6_addr address;

    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static char **copy_texts(const char *const *texts, uint32_t n)
{
    char **copies = xcalloc(MAX(n, 1u), sizeof(*copies));

    for (uint32_t i = 0; i < n; i++) {
        copies[i] = xstrdup(texts[i]);
    }
    return copies;
}

static void free_texts(char **texts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        explicit_bzero(texts[i], strlen(texts[i]));
        free(texts[i]);
    }
    free(texts);
}

void access_init(struct access *access, const char *host, const char *const *origins,
                 uint32_t n_origins)
{
    *access = (struct access){.host = xstrdup(host), .loopback = is_loopback_name(host)};
    access->origins = copy_texts(origins, n_origins);
    access->n_origins = n_origins;
}

void access_release(struct access *access)
{
    free(access->host);
    free_texts(access->keys, access->n_keys);
    free_texts(access->origins, access->n_origins);
    *access = (struct access){0};
}

void access_set_keys(struct access *access, const char *const *keys, uint32_t n_keys)
{
    free_texts(access->keys, access->n_keys);
    access->keys = copy_texts(keys, n_keys);
    access->n_keys = n_keys;
}

/* --- Keys --- */

/* In a time that depends on the given text's length alone. */
static bool is_equal(const char *key, const char *given)
{
    size_t n = strlen(given);
    size_t m = strlen(key);
    unsigned differs = n != m;

    for (size_t i = 0; i < n; i++) {
        differs |= (unsigned)(unsigned char)given[i] ^ (unsigned char)key[m == 0 ? 0 : i % m];
    }
    return differs == 0;
}

/* FNV-1a: the tenant's number is for fair shares, not for secrets. */
static uint64_t number_of(const char *key)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *key != '\0'; key++) {
        hash = (hash ^ (unsigned char)*key) * UINT64_C(0x100000001b3);
    }
    return hash | 1;
}

static bool find_key(const struct access *access, const char *given, uint64_t *ret_tenant)
{
    const char *found = NULL;

    for (uint32_t i = 0; given != NULL && i < access->n_keys; i++) { /* all of them, always */
        found = is_equal(access->keys[i], given) ? access->keys[i] : found;
    }
    if (found != NULL) {
        *ret_tenant = number_of(found);
    }
    return found != NULL;
}

/* What follows a scheme in the Authorization header; NULL: it has another one. */
static const char *credentials(const char *authorization, const char *scheme)
{
    size_t n = strlen(scheme);

    if (authorization == NULL || strncasecmp(authorization, scheme, n) != 0 ||
        authorization[n] != ' ') {
        return NULL;
    }
    return authorization + n + strspn(authorization + n, " ");
}

/* "user:key" in base64: what a browser asks a person for before it shows the page. */
static bool find_basic(const struct access *access, const char *basic, uint64_t *ret_tenant)
{
    struct buf text = {0};
    const char *colon;
    bool found = false;

    if (basic != NULL && base64_decode(basic, strlen(basic), &text, NULL) == STATUS_OK) {
        colon = strchr(buf_str(&text), ':');
        found = colon != NULL && find_key(access, colon + 1, ret_tenant);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.len);
    }
    buf_release(&text);
    return found;
}

bool access_check_key(const struct access *access, const struct http_exchange *exchange,
                      uint64_t *ret_tenant, struct api_error *error)
{
    const char *authorization = http_header(exchange, "authorization");
    const char *key = http_header(exchange, "x-api-key");

    *ret_tenant = 0;
    if (access->n_keys == 0 || find_key(access, credentials(authorization, "Bearer"), ret_tenant) ||
        find_key(access, key, ret_tenant) ||
        find_basic(access, credentials(authorization, "Basic"), ret_tenant)) {
        return true;
    }
    return api_error_set(error, 401, NULL,
                         authorization == NULL && key == NULL
                             ? "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY"
                             : "the API key is not valid");
}

/* --- Host --- */

/* The host of "host:port", "[::1]:port"; false if it is neither. */
static bool host_part(const char *text, char *out, size_t size)
{
    size_t n;
    const char *rest;

    if (text[0] == '[') {
        n = strcspn(text + 1, "]");
        rest = text + 1 + n;
        if (*rest != ']') {
            return false;
        }
        text++;
        rest++;
    } else {
        n = strcspn(text, ":");
        rest = text + n;
    }
    if (n == 0 || n >= size || (*rest != '\0' && *rest != ':') ||
        (*rest == ':' && strspn(rest + 1, "0123456789") != strlen(rest + 1))) {
        return false;
    }
    memcpy(out, text, n);
    out[n] = '\0';
    return true;
}

static bool is_allowed_host(const struct access *access, const char *text)
{
    char host[256];

    return host_part(text, host, sizeof(host)) &&
           (is_loopback_name(host) || strcasecmp(host, access->host) == 0 ||
            (!access->loopback && is_number(host)));
}

bool access_check_host(const struct access *access, const struct http_exchange *exchange,
                       struct api_error *error)
{
    const char *host = http_header(exchange, "host");

    if (host == NULL || is_allowed_host(access, host)) { /* HTTP/1.0 may have none */
        return true;
    }
    return api_error_set(error, 421, NULL, "this server is not %s", host);
}

/* --- Origin --- */

bool access_is_own_origin(const struct access *access, const struct http_exchange *exchange)
{
    const char *origin = http_header(exchange, "origin");
    const char *host = http_header(exchange, "host");
    const char *rest = origin == NULL ? NULL : strstr(origin, "://");

    (void)access;
    return origin == NULL || (rest != NULL && host != NULL && strcasecmp(rest + 3, host) == 0);
}

/* The Origin that is to be named in the answer; NULL: none is allowed. */
static const char *allowed_origin(const struct access *access, const struct http_exchange *exchange)
{
    const char *origin = http_header(exchange, "origin");

    for (uint32_t i = 0; origin != NULL && i < access->n_origins; i++) {
        if (strcmp(access->origins[i], "*") == 0 || strcasecmp(access->origins[i], origin) == 0) {
            return origin;
        }
    }
    return NULL;
}

void access_headers(const struct access *access, struct http_exchange *exchange)
{
    const char *origin = allowed_origin(access, exchange);

    if (origin != NULL) {
        http_answer_header(exchange, "Access-Control-Allow-Origin", origin);
        http_answer_header(exchange, "Vary", "Origin");
        http_answer_header(exchange, "Access-Control-Expose-Headers", "x-request-id, Retry-After");
    }
}

bool access_is_preflight(const struct access *access, const struct http_exchange *exchange)
{
    return strcmp(http_method(exchange), "OPTIONS") == 0 &&
           allowed_origin(access, exchange) != NULL;
}

void access_answer_preflight(const struct access *access, struct http_exchange *exchange)
{
    (void)access;
    http_answer_header(exchange, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    http_answer_header(exchange, "Access-Control-Allow-Headers", "*, Authorization, Content-Type");
    http_answer_header(exchange, "Access-Control-Max-Age", "600");
    http_answer(exchange, 200, "text/plain", "", 0);
}
