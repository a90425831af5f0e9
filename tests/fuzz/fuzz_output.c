/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output of a model, cut in two ways. The first byte chooses the options, the second one how the
 * text is cut, the rest is the text. The events must be the same, and without reasoning and calls
 * no byte may be missing.
 */
#include "chat/output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct record {
    struct buf bytes; /* events: kind, index, text */
    enum output_kind kind;
    uint32_t index;
    bool is_begun;
};

static void hear(void *arg, const struct output_event *event)
{
    struct record *record = arg;

    ENSURE(event->n > 0 || event->kind == OUTPUT_TOOL_END);
    if (!record->is_begun || event->kind == OUTPUT_TOOL_NAME || event->kind != record->kind ||
        event->index != record->index) {
        buf_printf(&record->bytes, "|%d.%u|", (int)event->kind, event->index);
    }
    record->is_begun = true;
    record->kind = event->kind;
    record->index = event->index;
    buf_append(&record->bytes, event->text, event->n);
}

static struct buf parse(const struct output_options *options, const char *text, size_t n,
                        size_t step)
{
    struct output_parser *parser = NULL;
    struct record record = {0};

    ENSURE(output_parser_create(options, &parser, NULL) == STATUS_OK);
    for (size_t at = 0; at < n; at += step) {
        output_parser_push(parser, text + at, MIN(step, n - at), hear, &record);
    }
    output_parser_finish(parser, hear, &record);
    output_parser_destroy(&parser);
    return record.bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char tools[] =
        "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"n\":{\"type\":\"integer\"},\"o\":{"
        "\"type\":[\"object\",\"array\",\"null\",\"boolean\"]},\"s\":{\"type\":\"string\"}}}}]";
    const char *text = (const char *)data + 2;
    struct output_options options = {0};
    json_t *schemas = NULL;
    struct buf whole;
    struct buf cut;

    if (size < 2) {
        return 0;
    }
    ENSURE(json_parse(tools, sizeof(tools) - 1, &schemas, NULL) == STATUS_OK);
    options.reasoning = (data[0] & 1) != 0;
    options.reasoning_open = (data[0] & 2) != 0;
    options.tools = (data[0] & 4) != 0;
    options.forms = data[0] >> 3 & 15;
    options.max_calls = data[0] >> 7;
    options.schemas = schemas;
    whole = parse(&options, text, size - 2, size);
    cut = parse(&options, text, size - 2, data[1] % 32 + 1u);
    ENSURE(whole.len == cut.len && memcmp(buf_str(&whole), buf_str(&cut), cut.len) == 0);
    if (!options.reasoning && !options.tools && size > 2) {
        ENSURE(whole.len == size - 2 + strlen("|0.0|"));
        ENSURE(memcmp(whole.data + strlen("|0.0|"), text, size - 2) == 0);
    }
    buf_release(&whole);
    buf_release(&cut);
    json_decref(schemas);
    return 0;
}
