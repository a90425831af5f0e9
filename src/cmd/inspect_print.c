/* SPDX-License-Identifier: Apache-2.0 */
/* The report of `lockstep inspect` as text for people and as one JSON object for programs. */
#include "cmd/inspect.h"

#include "base/mem.h"

enum { ESCAPED_NAME = 4 * WEIGHTS_MAX_NAME + 1 };

static const char *format_name(const struct inspect_report *report)
{
    return weights_format(report->weights) == WEIGHTS_FORMAT_GGUF ? "gguf" : "safetensors";
}

static void print_bytes(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        unit++;
    }
    printf("%.*f %s", unit > 0 ? 1 : 0, value, units[unit]);
}

/* Control characters and invalid UTF-8 in names never reach the terminal. */
static void print_name(const char *name)
{
    char text[ESCAPED_NAME];

    fputs(err_escape(name, text, sizeof(text)), stdout);
}

static uint64_t weight_bytes(const struct inspect_report *report)
{
    uint64_t sum = report->host_bytes;

    for (uint32_t r = 0; r < report->n_ranks; r++) {
        sum += report->ranks[r].share.weight_bytes;
    }
    return sum;
}

static uint64_t kv_token_bytes(const struct inspect_report *report)
{
    uint64_t sum = 0;

    for (uint32_t r = 0; r < report->n_ranks; r++) {
        sum += report->ranks[r].kv_token_bytes;
    }
    return sum;
}

static void print_architecture(const struct inspect_report *report)
{
    const struct model_config *c = &report->config;

    printf("architecture   %s: %u layers, hidden %u, %u heads (%u key/value) of %u, "
           "feed-forward %u\n",
           model_arch_name(c->arch), c->n_layers, c->hidden, c->n_heads, c->n_kv_heads, c->head_dim,
           c->ffn);
    printf("               vocabulary %u, context %u, %s output head\n", c->vocab, c->max_context,
           c->tied ? "tied" : "separate");
    printf("parameters     %.1f million\n", (double)report->n_parameters * 1e-6);
}

static void print_tokenizer(const struct inspect_report *report)
{
    if (report->tokenizer == NULL) {
        printf("tokenizer      none\n");
    } else {
        printf("tokenizer      %zu tokens, begin %d, end %d\n",
               tokenizer_n_vocab(report->tokenizer), tokenizer_bos(report->tokenizer),
               tokenizer_eos(report->tokenizer));
    }
    printf("chat template  %s\n", report->has_template ? "yes" : "none");
    printf("arithmetic     %s\n", report->arith_class);
}

/* "0 to 4", "3", "none". */
static void print_range(uint32_t begin, uint32_t end)
{
    if (begin == end) {
        printf("none");
    } else if (begin + 1 == end) {
        printf("%u", begin);
    } else {
        printf("%u to %u", begin, end - 1);
    }
}

/* Whether some rank holds a matrix so. */
static bool packs_12(const struct inspect_report *report)
{
    bool some = false;

    for (uint32_t r = 0; r < report->n_ranks; r++) {
        some = some || report->ranks[r].share.some_bf16_12;
    }
    return some;
}

static void print_memory(const struct inspect_report *report)
{
    uint64_t kv = kv_token_bytes(report);

    printf("memory         ");
    print_bytes(weight_bytes(report));
    printf(" of weights%s", packs_12(report) ? ", BF16 at 12 bits" : "");
    if (report->host_bytes > 0) {
        printf(" (");
        print_bytes(report->host_bytes);
        printf(" of them the embedding, held once)");
    }
    printf("; KV cache ");
    print_bytes(kv);
    printf(" a token, ");
    print_bytes(kv * report->config.max_context);
    printf(" for %u\n", report->config.max_context);
    for (uint32_t r = 0; r < report->n_ranks && report->n_ranks > 1; r++) {
        const struct inspect_rank *rank = &report->ranks[r];

        printf("  rank %-8u ", r);
        print_bytes(rank->share.weight_bytes);
        printf(" of weights, KV ");
        print_bytes(rank->kv_token_bytes);
        printf(" a token: heads ");
        print_range(rank->share.slice.head_begin, rank->share.slice.head_end);
        printf(" (key/value ");
        print_range(rank->share.slice.kv_begin, rank->share.slice.kv_end);
        printf("), feed-forward ");
        print_range(rank->share.ffn_begin, rank->share.ffn_end);
        printf(", vocabulary ");
        print_range(rank->share.slice.vocab_begin, rank->share.slice.vocab_end);
        printf("\n");
    }
}

void inspect_print_text(const struct inspect_report *report)
{
    size_t n = weights_n_tensors(report->weights);

    printf("model          ");
    print_name(report->path);
    printf("\nformat         %s, %zu file%s, %zu tensors (%llu used, ", format_name(report),
           weights_n_files(report->weights), weights_n_files(report->weights) == 1 ? "" : "s", n,
           (unsigned long long)report->n_tensors_used);
    print_bytes(report->stored_bytes);
    printf(")\n");
    print_architecture(report);
    print_tokenizer(report);
    print_memory(report);
    printf("tensors\n");
    for (size_t i = 0; i < n; i++) {
        const struct weights_tensor *tensor = weights_tensor_at(report->weights, i);

        printf("  %-5s [", tensor->type_name);
        for (uint32_t d = 0; d < tensor->n_dims; d++) {
            printf("%s%llu", d > 0 ? ", " : "", (unsigned long long)tensor->dims[d]);
        }
        printf("] ");
        print_name(tensor->name);
        printf("\n");
    }
}

static json_t *tensors_json(const struct inspect_report *report)
{
    json_t *list = json_array();
    char name[ESCAPED_NAME];

    for (size_t i = 0; i < weights_n_tensors(report->weights); i++) {
        const struct weights_tensor *tensor = weights_tensor_at(report->weights, i);
        json_t *shape = json_array();
        json_t *item = json_object();

        for (uint32_t d = 0; d < tensor->n_dims; d++) {
            json_array_append_new(shape, json_integer((json_int_t)tensor->dims[d]));
        }
        err_escape(tensor->name, name, sizeof(name)); /* a GGUF name may be no UTF-8 */
        json_object_set_new(item, "name", json_string(name));
        json_object_set_new(item, "type", json_string(tensor->type_name));
        json_object_set_new(item, "shape", shape);
        json_object_set_new(item, "bytes", json_integer((json_int_t)tensor->bytes));
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *config_json(const struct model_config *c)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "layers", (int)c->n_layers,
                     "hidden", (int)c->hidden, "heads", (int)c->n_heads, "kv_heads",
                     (int)c->n_kv_heads, "head_dim", (int)c->head_dim, "ffn", (int)c->ffn, "vocab",
                     (int)c->vocab, "context", (int)c->max_context, "tied", (int)c->tied);
}

static json_t *ranks_json(const struct inspect_report *report)
{
    json_t *list = json_array();

    for (uint32_t r = 0; r < report->n_ranks; r++) {
        const struct inspect_rank *rank = &report->ranks[r];

        json_array_append_new(
            list,
            json_pack("{s:i, s:[ii], s:[ii], s:[ii], s:[ii], s:I, s:I}", "rank", (int)r, "heads",
                      (int)rank->share.slice.head_begin, (int)rank->share.slice.head_end,
                      "kv_heads", (int)rank->share.slice.kv_begin, (int)rank->share.slice.kv_end,
                      "ffn", (int)rank->share.ffn_begin, (int)rank->share.ffn_end, "vocab",
                      (int)rank->share.slice.vocab_begin, (int)rank->share.slice.vocab_end,
                      "weight_bytes", (json_int_t)rank->share.weight_bytes, "kv_bytes_per_token",
                      (json_int_t)rank->kv_token_bytes));
    }
    return list;
}

static json_t *memory_json(const struct inspect_report *report)
{
    uint64_t kv = kv_token_bytes(report);

    return json_pack(
        "{s:I, s:b, s:I, s:I, s:I, s:I, s:o}", "stored_bytes", (json_int_t)report->stored_bytes,
        "bf16_12", packs_12(report), "weight_bytes", (json_int_t)weight_bytes(report),
        "embedding_bytes", (json_int_t)report->host_bytes, "kv_bytes_per_token", (json_int_t)kv,
        "kv_bytes", (json_int_t)(kv * report->config.max_context), "ranks", ranks_json(report));
}

void inspect_print_json(const struct inspect_report *report)
{
    struct buf text = {0};
    json_t *root = json_object();
    json_t *tokenizer = json_null();
    json_t *template = json_null();

    if (report->tokenizer != NULL) {
        tokenizer = json_pack(
            "{s:i, s:i, s:i}", "tokens", (int)tokenizer_n_vocab(report->tokenizer), "bos",
            (int)tokenizer_bos(report->tokenizer), "eos", (int)tokenizer_eos(report->tokenizer));
    }
    if (report->has_template) {
        template = json_pack("{s:s#}", "sample", buf_str(&report->sample), report->sample.len);
    }
    json_object_set_new(root, "format", json_string(format_name(report)));
    json_object_set_new(root, "architecture", json_string(model_arch_name(report->config.arch)));
    json_object_set_new(root, "parameters", json_integer((json_int_t)report->n_parameters));
    json_object_set_new(root, "config", config_json(&report->config));
    json_object_set_new(root, "tokenizer", tokenizer);
    json_object_set_new(root, "chat_template", template);
    json_object_set_new(root, "arithmetic_class", json_string(report->arith_class));
    json_object_set_new(root, "memory", memory_json(report));
    json_object_set_new(root, "tensors", tensors_json(report));
    json_write(&text, root, &json_style_compact);
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(root);
}
