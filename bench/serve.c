/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a running `lockstep serve` (or any server with OpenAI's API) with streams of fixed length:
 *
 *   bench_serve [--url http://127.0.0.1:8421] [--model NAME] [--key K] [--streams 1,4,16,64]
 *               [--requests N] [--tokens N] [--prompt-tokens N] [--vocab N] [--chat]
 * [--same-prompt]
 *               [--seed N] [--leader PID] [--timeout S] [--json]
 *
 * For each number of streams it prints tokens a second of all and (while it decodes) of each, time
 * to the first text and time between texts (p50, p99), the CPU this client takes an event, and with
 * --leader the CPU that process takes an event, all its threads, and its memory.
 *
 * Prompts are token ids of /v1/completions, drawn from a counter keyed by seed, number of streams,
 * stream and request: reproducible, exact in length, and without a common prefix, so that the
 * prefix cache has no part in the numbers (the column cached shows it; a second run against the
 * same server wants another --seed). --same-prompt does the opposite. With --chat they are words in
 * a chat message, about a token each. Greedy, end tokens ignored: every request gives all its
 * tokens.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"
#include "serve_client.h"

enum { MAX_LEVELS = 32, MAX_STREAMS = 4096, MAX_TOKENS = 1 << 20, FIRST_ID = 100 };

struct settings {
    struct client_url url;
    const char *model;
    const char *key;
    uint32_t levels[MAX_LEVELS];
    uint32_t n_levels;
    uint32_t n_requests;
    uint32_t n_tokens;
    uint32_t n_prompt;
    uint32_t vocab;
    uint64_t seed;
    int leader; /* 0: not told */
    uint32_t timeout_s;
    bool chat;
    bool same_prompt;
    bool json;
};

/* One level and the key of its prompts. */
struct level {
    const struct settings *settings;
    uint32_t n_streams; /* 0: the request before all levels */
    uint32_t n_tokens;
};

struct report {
    struct client_result result;
    double own_us;       /* CPU an event, of this process */
    double leader_us;    /* of the leader; < 0: not known */
    double front_us;     /* of its first thread, which talks with clients; likewise */
    double leader_share; /* of one core, over the wall time */
    double rss_mib;
};

static NORETURN void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_serve: %s: %s\n", what, why);
    exit(2);
}

/* --- Prompts --- */

/* A step of SplitMix64. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void put_words(struct buf *body, uint64_t *state, uint32_t n)
{
    static const char *const words[] = {"river",  "stone",  "light",  "paper", "engine", "winter",
                                        "garden", "music",  "number", "ocean", "bridge", "forest",
                                        "silver", "window", "story",  "market"};

    buf_append_str(body, "\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(body, "%s%s", i > 0 ? " " : "", words[draw(state) % ARRAY_LEN(words)]);
    }
    buf_append_str(body, "\"}]");
}

static void put_ids(struct buf *body, uint64_t *state, uint32_t n, uint32_t vocab)
{
    uint32_t first = MIN(FIRST_ID, vocab - 1); /* special tokens mostly come first */

    buf_append_str(body, "\"prompt\":[");
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(body, "%s%u", i > 0 ? "," : "",
                   first + (uint32_t)(draw(state) % (vocab - first)));
    }
    buf_append_char(body, ']');
}

static void put_body(void *arg, uint32_t stream, uint32_t request, struct buf *body)
{
    const struct level *level = arg;
    const struct settings *s = level->settings;
    uint64_t state = s->seed << 44;

    if (!s->same_prompt) {
        state ^= (uint64_t)level->n_streams << 32 ^ (uint64_t)stream << 16 ^ request;
    }
    buf_append_str(body, "{\"model\":");
    json_write_str(body, s->model, strlen(s->model), false);
    buf_append_char(body, ',');
    if (s->chat) {
        put_words(body, &state, s->n_prompt);
    } else {
        put_ids(body, &state, s->n_prompt, s->vocab);
    }
    buf_printf(body,
               ",\"max_tokens\":%u,\"ignore_eos\":true,\"temperature\":0,\"stream\":true,"
               "\"stream_options\":{\"include_usage\":true}}",
               level->n_tokens);
}

/* --- CPU and memory --- */

static double own_cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Of all threads, from their schedstat in nanoseconds where the kernel has it: stat counts in ticks
 * of 10 ms. Negative: no such process. */
static double process_cpu_us(int pid)
{
    struct dirent *entry;
    char path[64];
    double sum = -1;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        struct buf text = {0};
        char file[384];

        snprintf(file, sizeof(file), "%s/%s/schedstat", path, entry->d_name);
        if (entry->d_name[0] != '.' && file_read_all(file, 256, &text, NULL) == STATUS_OK) {
            sum = MAX(sum, 0) + strtod(buf_str(&text), NULL) * 1e-3;
        }
        buf_release(&text);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return sum;
}

/* By the ticks of stat: fields 14 and 15, after the name in parentheses. */
static double process_ticks_us(int pid)
{
    struct buf text = {0};
    char path[64];
    unsigned long long user = 0;
    unsigned long long system = 0;
    const char *name;
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (file_read_all(path, 4096, &text, NULL) == STATUS_OK) {
        name = strrchr(buf_str(&text), ')');
        n = name == NULL
                ? 0
                : sscanf(name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                         &system);
    }
    buf_release(&text);
    return n == 2 ? (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK) : -1;
}

static double leader_cpu_us(int pid)
{
    double us = pid > 0 ? process_cpu_us(pid) : -1;

    return us > 0 || pid == 0 ? us : process_ticks_us(pid);
}

/* Of its first thread alone. */
static double front_cpu_us(int pid)
{
    struct buf text = {0};
    char path[64];
    double us = -1;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, pid);
    if (pid > 0 && file_read_all(path, 256, &text, NULL) == STATUS_OK) {
        us = strtod(buf_str(&text), NULL) * 1e-3;
    }
    buf_release(&text);
    return us;
}

static double leader_rss_mib(int pid)
{
    struct buf text = {0};
    char path[64];
    const char *at;
    double mib = -1;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    if (pid > 0 && file_read_all(path, 1 << 16, &text, NULL) == STATUS_OK) {
        at = strstr(buf_str(&text), "VmRSS:");
        mib = at == NULL ? -1 : strtod(at + strlen("VmRSS:"), NULL) / 1024;
    }
    buf_release(&text);
    return mib;
}

/* --- Levels --- */

static struct report run_level(const struct settings *s, uint32_t n_streams, uint32_t n_requests,
                               uint32_t n_tokens)
{
    struct level level = {.settings = s, .n_streams = n_streams, .n_tokens = n_tokens};
    const struct client_load load = {.url = &s->url,
                                     .path = s->chat ? "/v1/chat/completions" : "/v1/completions",
                                     .key = s->key,
                                     .n_streams = MAX(n_streams, 1),
                                     .n_requests = n_requests,
                                     .timeout_ns = s->timeout_s * UINT64_C(1000000000),
                                     .body = put_body,
                                     .arg = &level};
    double leader = leader_cpu_us(s->leader);
    double front = front_cpu_us(s->leader);
    double own = own_cpu_us();
    struct report report = {0};
    struct err err = {0};
    double events;

    if (client_run(&load, &report.result, &err) != STATUS_OK) {
        die("running", err.text);
    }
    events = (double)MAX(report.result.n_events, 1);
    report.own_us = (own_cpu_us() - own) / events;
    report.leader_us = -1;
    if (leader >= 0) {
        leader = leader_cpu_us(s->leader) - leader;
        report.leader_us = leader / events;
        report.leader_share = leader * 1e3 / (double)report.result.wall_ns;
    }
    report.front_us = front < 0 ? -1 : (front_cpu_us(s->leader) - front) / events;
    report.rss_mib = leader_rss_mib(s->leader);
    return report;
}

static double rate_of(const struct client_result *result)
{
    return (double)result->n_tokens * 1e9 / (double)MAX(result->wall_ns, 1);
}

/* Tokens a second of one stream between its first text and its last. */
static double stream_rate_of(const struct client_result *result)
{
    double sum = 0;

    for (size_t i = 0; i < result->gaps.n; i++) {
        sum += (double)result->gaps.ns[i];
    }
    return sum > 0 ? (double)result->gaps.n * 1e9 / sum : 0;
}

static void print_head(void)
{
    printf("streams requests errors   tokens/s  of each     TTFT ms p50     p99   between ms p50   "
           "  p99  "
           "client us  leader us   front us  leader CPU  RSS MiB  prompt  cached\n");
}

static void print_text(uint32_t n_streams, struct report *report)
{
    struct client_result *r = &report->result;

    printf("%7u %8llu %6llu %10.2f %8.2f %15.1f %7.1f %16.2f %7.2f %10.1f", n_streams,
           (unsigned long long)(r->n_done + r->n_errors), (unsigned long long)r->n_errors,
           rate_of(r), stream_rate_of(r), client_times_at(&r->first, 0.5),
           client_times_at(&r->first, 0.99), client_times_at(&r->gaps, 0.5),
           client_times_at(&r->gaps, 0.99), report->own_us);
    if (report->leader_us >= 0) {
        printf(" %10.1f %10.1f %9.1f %% %8.1f", report->leader_us, report->front_us,
               report->leader_share * 100, report->rss_mib);
    } else {
        printf(" %10s %10s %11s %8s", "-", "-", "-", "-");
    }
    printf(" %7llu %7llu\n", (unsigned long long)r->n_prompt, (unsigned long long)r->n_cached);
    fflush(stdout);
}

static json_t *to_json(uint32_t n_streams, struct report *report)
{
    struct client_result *r = &report->result;
    json_t *level = json_pack(
        "{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:{s:f, s:f}, s:{s:f, s:f}, s:f}",
        "streams", (int)n_streams, "requests", (json_int_t)(r->n_done + r->n_errors), "errors",
        (json_int_t)r->n_errors, "tokens", (json_int_t)r->n_tokens, "events",
        (json_int_t)r->n_events, "prompt_tokens", (json_int_t)r->n_prompt, "cached_tokens",
        (json_int_t)r->n_cached, "seconds", (double)r->wall_ns * 1e-9, "tokens_per_s", rate_of(r),
        "stream_tokens_per_s", stream_rate_of(r), "ttft_ms", "p50", client_times_at(&r->first, 0.5),
        "p99", client_times_at(&r->first, 0.99), "between_ms", "p50",
        client_times_at(&r->gaps, 0.5), "p99", client_times_at(&r->gaps, 0.99),
        "client_us_per_event", report->own_us);

    ENSURE(level != NULL);
    if (report->leader_us >= 0) {
        json_object_set_new(level, "leader_us_per_event", json_real(report->leader_us));
        json_object_set_new(level, "leader_front_us_per_event", json_real(report->front_us));
        json_object_set_new(level, "leader_cpu_share", json_real(report->leader_share));
        json_object_set_new(level, "leader_rss_mib", json_real(report->rss_mib));
    }
    return level;
}

/* --- Options --- */

static uint32_t number(const char *name, const char *text, uint32_t min, uint32_t max)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        fprintf(stderr, "bench_serve: --%s %s: a number from %u to %u is needed\n", name, text, min,
                max);
        exit(2);
    }
    return (uint32_t)value;
}

static void read_levels(struct settings *s, const char *text)
{
    s->n_levels = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, ",");
        char *one = xstrndup(text, n);

        if (s->n_levels == MAX_LEVELS) {
            die("--streams", "too many numbers");
        }
        s->levels[s->n_levels++] = number("streams", one, 1, MAX_STREAMS);
        free(one);
        text += n + (text[n] == ',' ? 1 : 0);
    }
    if (s->n_levels == 0) {
        die("--streams", "no number");
    }
}

enum flag {
    URL,
    MODEL,
    KEY,
    STREAMS,
    REQUESTS,
    TOKENS,
    PROMPT,
    VOCAB,
    CHAT,
    SAME,
    SEED,
    LEADER,
    LIMIT,
    JSON
};

static void take_option(struct settings *s, int option, const char *name, const char *value)
{
    struct err err = {0};

    switch ((enum flag)option) {
    case URL:
        if (client_url_parse(value, &s->url, &err) != STATUS_OK) {
            die("--url", err.text);
        }
        break;
    case MODEL:
        s->model = value;
        break;
    case KEY:
        s->key = value;
        break;
    case STREAMS:
        read_levels(s, value);
        break;
    case REQUESTS:
        s->n_requests = number(name, value, 1, 65535);
        break;
    case TOKENS:
        s->n_tokens = number(name, value, 1, MAX_TOKENS);
        break;
    case PROMPT:
        s->n_prompt = number(name, value, 1, MAX_TOKENS);
        break;
    case VOCAB:
        s->vocab = number(name, value, 2, 1 << 30);
        break;
    case CHAT:
        s->chat = true;
        break;
    case SAME:
        s->same_prompt = true;
        break;
    case SEED:
        s->seed = number(name, value, 0, 1 << 20);
        break;
    case LEADER:
        s->leader = (int)number(name, value, 1, INT32_MAX);
        break;
    case LIMIT:
        s->timeout_s = number(name, value, 1, 86400);
        break;
    case JSON:
        s->json = true;
        break;
    }
}

static void read_options(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {
        {"url", 1, NULL, URL},
        {"model", 1, NULL, MODEL},
        {"key", 1, NULL, KEY},
        {"streams", 1, NULL, STREAMS},
        {"requests", 1, NULL, REQUESTS},
        {"tokens", 1, NULL, TOKENS},
        {"prompt-tokens", 1, NULL, PROMPT},
        {"vocab", 1, NULL, VOCAB},
        {"chat", 0, NULL, CHAT},
        {"same-prompt", 0, NULL, SAME},
        {"seed", 1, NULL, SEED},
        {"leader", 1, NULL, LEADER},
        {"timeout", 1, NULL, LIMIT},
        {"json", 0, NULL, JSON},
        {NULL, 0, NULL, 0},
    };
    int index;
    int option;

    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?') {
            exit(2); /* getopt has said why */
        }
        take_option(s, option, options[index].name, optarg);
    }
    if (optind < argc) {
        die(argv[optind], "not an option");
    }
}

/* The first model that the server lists; free() it. */
static char *first_model(const struct settings *s)
{
    struct buf body = {0};
    struct err err = {0};
    json_t *list = NULL;
    const char *id;
    char *copy;

    if (client_get(&s->url, "/v1/models", s->key, &body, &err) != STATUS_OK ||
        json_parse(buf_str(&body), body.len, &list, &err) != STATUS_OK) {
        die("/v1/models", err.text);
    }
    id = json_string_value(json_object_get(json_array_get(json_object_get(list, "data"), 0), "id"));
    if (id == NULL) {
        die("/v1/models", "no model is listed");
    }
    copy = xstrdup(id);
    json_decref(list);
    buf_release(&body);
    return copy;
}

int main(int argc, char **argv)
{
    struct settings s = {.levels = {1, 4, 16, 64},
                         .n_levels = 4,
                         .n_requests = 2,
                         .n_tokens = 128,
                         .n_prompt = 64,
                         .vocab = 32000,
                         .seed = 1,
                         .timeout_s = 120};
    struct report warm;
    json_t *all = json_array();
    char *listed;
    uint64_t n_errors;

    ENSURE(client_url_parse("http://127.0.0.1:8421", &s.url, NULL) == STATUS_OK);
    read_options(argc, argv, &s);
    listed = s.model == NULL ? first_model(&s) : NULL;
    s.model = listed != NULL ? listed : s.model;
    warm = run_level(&s, 0, 1, MIN(s.n_tokens, 4)); /* the first request pays for what is lazy */
    n_errors = warm.result.n_errors;
    if (n_errors > 0) {
        die("the first request", warm.result.error);
    }
    client_result_release(&warm.result);
    if (!s.json) {
        print_head();
    }
    for (uint32_t i = 0; i < s.n_levels; i++) {
        struct report report = run_level(&s, s.levels[i], s.n_requests, s.n_tokens);

        if (s.json) {
            json_array_append_new(all, to_json(s.levels[i], &report));
        } else {
            print_text(s.levels[i], &report);
        }
        if (report.result.n_errors > 0) {
            fprintf(stderr, "bench_serve: %u streams: %s\n", s.levels[i], report.result.error);
        }
        n_errors += report.result.n_errors;
        client_result_release(&report.result);
    }
    if (s.json) {
        struct buf text = {0};
        json_t *out = json_pack("{s:s, s:i, s:i, s:o}", "model", s.model, "tokens", (int)s.n_tokens,
                                "prompt_tokens", (int)s.n_prompt, "levels", all);

        json_write(&text, out, &json_style_compact);
        puts(buf_str(&text));
        buf_release(&text);
        json_decref(out);
    } else {
        json_decref(all);
    }
    free(listed);
    return n_errors > 0 ? 1 : 0;
}
