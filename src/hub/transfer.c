/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/transfer.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>

#include "base/buf.h"
#include "base/mem.h"

enum { MAX_REDIRECTS = 8, CONNECT_S = 20, STALL_S = 30, MAX_WAIT_S = 100000 };

struct origin {
    char *scheme;
    char *host;
    char *port;
};

struct transfer {
    struct transfer_config config; /* its texts are not used later on */
    CURL *curl;
    struct origin endpoint;
    char *authorization; /* a header, or NULL */
    char curl_error[CURL_ERROR_SIZE];
    /* Of the request that runs. */
    const struct transfer_request *request;
    struct transfer_answer answer;
    bool to_endpoint;
    bool begun;
    bool stopped;        /* by go_on */
    enum status refused; /* by the receiver */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    ENSURE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

static void origin_release(struct origin *origin)
{
    curl_free(origin->scheme);
    curl_free(origin->host);
    curl_free(origin->port);
    *origin = (struct origin){0};
}

/* False unless it is an http or https URL without user name and password. */
static bool origin_of(const char *url, struct origin *ret_origin)
{
    struct origin made = {0};
    CURLU *parts = curl_url();
    char *user = NULL;
    bool ok;

    ENSURE(parts != NULL);
    ok = curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
         curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_NO_USER &&
         curl_url_get(parts, CURLUPART_SCHEME, &made.scheme, 0) == CURLUE_OK &&
         curl_url_get(parts, CURLUPART_HOST, &made.host, 0) == CURLUE_OK &&
         curl_url_get(parts, CURLUPART_PORT, &made.port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
         (strcmp(made.scheme, "http") == 0 || strcmp(made.scheme, "https") == 0);
    curl_free(user);
    curl_url_cleanup(parts);
    if (ok) {
        *ret_origin = made;
    } else {
        origin_release(&made);
    }
    return ok;
}

static bool same_origin(const struct origin *a, const struct origin *b)
{
    return strcmp(a->scheme, b->scheme) == 0 && strcasecmp(a->host, b->host) == 0 &&
           strcmp(a->port, b->port) == 0;
}

/* The number that text begins with. */
static bool read_number(const char *text, uint64_t *ret_number)
{
    char *end;
    uint64_t number;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || end == text || errno != 0) {
        return false;
    }
    *ret_number = number;
    return true;
}

/* Copies the value of a checksum header: without W/ and quotes. */
static void take_etag(const char *value, char *ret_text, size_t size)
{
    size_t n;

    value += strncmp(value, "W/", 2) == 0 ? 2 : 0;
    value += value[0] == '"' ? 1 : 0;
    n = strcspn(value, "\"");
    snprintf(ret_text, size, "%.*s", (int)MIN(n, size - 1), value);
}

/* Link: <URL>; rel="next" */
static void take_link(const char *value, char *ret_url, size_t size)
{
    const char *open = strchr(value, '<');
    const char *close = open == NULL ? NULL : strchr(open, '>');

    if (close != NULL && strstr(close, "rel=\"next\"") != NULL && (size_t)(close - open) < size) {
        snprintf(ret_url, size, "%.*s", (int)(close - open - 1), open + 1);
    }
}

static void take_header(struct transfer_answer *answer, const char *name, const char *value)
{
    uint64_t number;

    if (strcasecmp(name, "content-length") == 0) {
        answer->has_length = read_number(value, &answer->length);
    } else if (strcasecmp(name, "content-range") == 0 && strncmp(value, "bytes ", 6) == 0) {
        const char *slash = strchr(value, '/');

        answer->first = read_number(value + 6, &number) ? number : UINT64_MAX;
        answer->total = slash != NULL && read_number(slash + 1, &number) ? number : 0;
    } else if (strcasecmp(name, "etag") == 0) {
        take_etag(value, answer->etag, sizeof(answer->etag));
    } else if (strcasecmp(name, "retry-after") == 0 && read_number(value, &number)) {
        answer->retry_after_s = (uint32_t)MIN(number, MAX_WAIT_S); /* a date is not understood */
    } else if (strcasecmp(name, "x-error-code") == 0) {
        snprintf(answer->error_code, sizeof(answer->error_code), "%s", value);
    } else if (strcasecmp(name, "link") == 0) {
        take_link(value, answer->next, sizeof(answer->next));
    }
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *transfer = arg;
    size_t bytes = size * n;
    char *line = xstrndup(data, bytes);
    char *colon = strchr(line, ':');

    line[strcspn(line, "\r\n")] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) { /* also after "100 Continue" */
        transfer->answer = (struct transfer_answer){.first = UINT64_MAX};
    } else if (colon != NULL) {
        const char *value = colon + 1 + strspn(colon + 1, " \t");

        *colon = '\0';
        take_header(&transfer->answer, line, value);
    }
    free(line);
    return bytes;
}

/* Before the first byte of a body that is wanted. */
static enum status begin_body(struct transfer *transfer)
{
    long code = 0;

    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &code);
    transfer->answer.code = (int)code;
    transfer->answer.from_endpoint = transfer->to_endpoint;
    if (transfer->begun || (code != 200 && code != 206)) {
        return STATUS_OK;
    }
    transfer->begun = true;
    return transfer->request->begin(transfer->request->arg, &transfer->answer);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *transfer = arg;
    size_t bytes = size * n;

    transfer->refused = begin_body(transfer);
    if (transfer->refused == STATUS_OK && transfer->begun) {
        transfer->refused = transfer->request->write(transfer->request->arg, data, bytes);
    }
    return transfer->refused == STATUS_OK ? bytes : 0;
}

static int on_progress(void *arg, curl_off_t down_bytes UNUSED, curl_off_t down UNUSED,
                       curl_off_t up_bytes UNUSED, curl_off_t up UNUSED)
{
    struct transfer *transfer = arg;

    transfer->stopped = transfer->stopped || !transfer->config.go_on(transfer->config.arg);
    return transfer->stopped ? 1 : 0;
}

/* Certificates of one's own organisation, where the environment names them as other programs read
 * it. */
static void set_certificates(CURL *curl)
{
    static const char *const names[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *path = getenv(names[i]);

        if (path != NULL && path[0] != '\0') {
            curl_easy_setopt(curl, CURLOPT_CAINFO, path);
            return;
        }
    }
}

static void set_up(struct transfer *transfer)
{
    CURL *curl = transfer->curl;

    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, transfer->curl_error);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lockstep/" LOCKSTEP_VERSION);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, transfer);
    set_certificates(curl);
}

enum status transfer_create(const struct transfer_config *config, struct transfer **ret_transfer,
                            struct err *err)
{
    struct transfer *transfer;
    struct origin endpoint;

    pthread_once(&once, start_curl);
    if (!origin_of(config->endpoint, &endpoint)) { /* not shown: it may hold a password */
        return err_set(err, STATUS_INVALID,
                       "the hub's endpoint is not of the form https://HOST[:PORT] or "
                       "http://HOST[:PORT], without a user name");
    }
    transfer = xalloc(sizeof(*transfer));
    transfer->config = *config;
    transfer->endpoint = endpoint;
    transfer->curl = curl_easy_init();
    ENSURE(transfer->curl != NULL);
    set_up(transfer);
    if (config->token != NULL) {
        struct buf buf = {0};

        buf_printf(&buf, "Authorization: Bearer %s", config->token);
        transfer->authorization = buf_detach(&buf);
    }
    *ret_transfer = transfer;
    return STATUS_OK;
}

void transfer_destroy(struct transfer **transfer)
{
    if (*transfer == NULL) {
        return;
    }
    curl_easy_cleanup((*transfer)->curl);
    origin_release(&(*transfer)->endpoint);
    free((*transfer)->authorization);
    free(*transfer);
    *transfer = NULL;
}

static struct curl_slist *add(struct curl_slist *headers, const char *line)
{
    struct curl_slist *longer = curl_slist_append(headers, line);

    ENSURE(longer != NULL);
    return longer;
}

static struct curl_slist *headers_of(const struct transfer *transfer)
{
    const struct transfer_request *request = transfer->request;
    struct curl_slist *headers = add(NULL, "Accept-Encoding: identity");
    char line[TRANSFER_TEXT_BYTES + 16];

    if (transfer->to_endpoint && transfer->authorization != NULL) {
        headers = add(headers, transfer->authorization);
    }
    if (request->offset > 0) {
        snprintf(line, sizeof(line), "Range: bytes=%" PRIu64 "-", request->offset);
        headers = add(headers, line);
    }
    /* Where the endpoint redirects to, contents have other etags. */
    if (request->offset > 0 && transfer->to_endpoint && request->if_range != NULL) {
        snprintf(line, sizeof(line), "If-Range: \"%s\"", request->if_range);
        headers = add(headers, line);
    }
    return headers;
}

/* "HOST:PORT": what an error names; the path of a signed URL is a secret. */
static enum status explain(struct transfer *transfer, const struct origin *origin, CURLcode code,
                           struct err *err)
{
    const char *text =
        transfer->curl_error[0] != '\0' ? transfer->curl_error : curl_easy_strerror(code);

    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
        return err_set(err, STATUS_LINK, "%s:%s: %s", origin->host, origin->port, text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return err_set(err, STATUS_IO,
                       "%s:%s: its certificate is not trusted here (%s); is ca-certificates "
                       "installed?",
                       origin->host, origin->port, text);
    default:
        return err_set(err, STATUS_IO, "%s:%s: %s", origin->host, origin->port, text);
    }
}

/* One request, no redirects. */
static enum status get_once(struct transfer *transfer, const char *url, const struct origin *origin,
                            struct err *err)
{
    enum status status = STATUS_OK;
    struct curl_slist *headers;
    CURLcode done;

    transfer->to_endpoint = same_origin(origin, &transfer->endpoint);
    headers = headers_of(transfer);
    transfer->answer = (struct transfer_answer){0};
    transfer->begun = false;
    transfer->stopped = false;
    transfer->refused = STATUS_OK;
    transfer->curl_error[0] = '\0';
    curl_easy_setopt(transfer->curl, CURLOPT_URL, url);
    curl_easy_setopt(transfer->curl, CURLOPT_HTTPHEADER, headers);
    done = curl_easy_perform(transfer->curl);
    curl_easy_setopt(transfer->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    if (done == CURLE_OK) {
        transfer->refused = begin_body(transfer); /* if it was empty */
    }
    if (transfer->stopped) {
        status = err_set(err, STATUS_CANCELLED, "stopped");
    } else if (transfer->refused != STATUS_OK) {
        status = transfer->refused; /* the receiver has said why */
    } else if (done != CURLE_OK) {
        status = explain(transfer, origin, done, err);
    }
    return status;
}

/* Where the answer leads; NULL: it is final. free() it. */
static char *redirect_of(struct transfer *transfer)
{
    char *url = NULL;

    curl_easy_getinfo(transfer->curl, CURLINFO_REDIRECT_URL, &url);
    return url == NULL ? NULL : xstrdup(url);
}

enum status transfer_get(struct transfer *transfer, const struct transfer_request *request,
                         struct transfer_answer *ret_answer, struct err *err)
{
    char *url = xstrdup(request->url);
    enum status status = STATUS_OK;
    struct origin origin = {0};
    bool secure = false;

    transfer->request = request;
    for (int hop = 0;; hop++) {
        char *next;

        origin_release(&origin);
        if (!origin_of(url, &origin) || (secure && strcmp(origin.scheme, "https") != 0)) {
            status = err_set(err, STATUS_CORRUPT, "%s:%s redirects to where we do not go",
                             transfer->endpoint.host, transfer->endpoint.port);
            break;
        }
        secure = secure || strcmp(origin.scheme, "https") == 0;
        status = get_once(transfer, url, &origin, err);
        next = status == STATUS_OK ? redirect_of(transfer) : NULL;
        if (next == NULL) {
            break;
        }
        free(url);
        url = next;
        if (hop == MAX_REDIRECTS) {
            status = err_set(err, STATUS_CORRUPT, "%s:%s: more than %d redirects",
                             transfer->endpoint.host, transfer->endpoint.port, MAX_REDIRECTS);
            break;
        }
    }
    if (status == STATUS_OK) {
        *ret_answer = transfer->answer;
    }
    origin_release(&origin);
    free(url);
    return status;
}
