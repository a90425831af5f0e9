/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's output text, while it is generated, taken apart into what an API reports: content,
 * reasoning, and tool calls with their arguments as they come. Bytes in, events out, no clock and
 * no locks. The events joined are the same however the text is cut; if no piece cuts a UTF-8
 * sequence, no event does.
 *
 * Reasoning stands between two tags (<think> and </think>); the prompt may have opened it already.
 * Tags are tags wherever they stand outside of calls, and never come out.
 *
 * Tool calls, by the forms that the options name:
 *   tagged    <tool_call>{"name": "f", "arguments": {...}}</tool_call>, several objects in a tag or
 *             several tags; and XML calls
 *   XML       <tool_call><function=f><parameter=p>value</parameter></function></tool_call>, with or
 *             without the outer tag; its arguments are written as JSON, typed by the tool's schema;
 *             also <function=f>{...}</function>
 *   bare      {"name": "f", "parameters": {...}} as the whole answer, several separated by ;
 *   array     [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]
 * A call's name comes out as soon as it is known, then the text of its arguments in pieces, as
 * written (line breaks inside JSON strings escaped); arguments that are a string with JSON in it
 * come out as that JSON. A call that turns out to be none before its name is out is content, as it
 * stood. One that breaks after that keeps all its text up to </tool_call> as arguments.
 *
 * White space: line breaks behind a tag and white space before one are dropped, with what a call
 * between two tags leaves.
 */
#pragma once

#include "chat/prompt.h"

enum output_kind {
    OUTPUT_CONTENT,
    OUTPUT_REASONING,
    OUTPUT_TOOL_NAME,      /* begins call index; the whole name */
    OUTPUT_TOOL_ARGUMENTS, /* a piece of the JSON text */
    OUTPUT_TOOL_END,
};

struct output_event {
    enum output_kind kind;
    uint32_t index;   /* of the call, from 0 */
    const char *text; /* valid during the call of emit; empty for OUTPUT_TOOL_END */
    size_t n;
};

typedef void output_emit(void *arg, const struct output_event *event);

enum output_form {
    OUTPUT_FORM_TAGGED = 1,
    OUTPUT_FORM_XML = 2,
    OUTPUT_FORM_BARE = 4,
    OUTPUT_FORM_ARRAY = 8,
};

struct output_options {
    bool reasoning;          /* the model writes it */
    bool reasoning_open;     /* the prompt already ends inside of it */
    const char *think_begin; /* NULL: <think> */
    const char *think_end;   /* NULL: </think> */
    bool tools;              /* look for calls */
    uint32_t forms;          /* of enum output_form; 0: tagged */
    uint32_t max_calls;      /* further ones are dropped; 0: no limit */
    const json_t *schemas;   /* the request's tools, for the types of XML arguments; NULL: none.
                                Borrowed, must outlive the parser. */
};

/* Which tags and forms the model uses, from the template it takes with or without tools: reasoning,
 * think_begin, think_end (static texts) and forms. tools and the rest are untouched. A template
 * that shows no form of calls gives OUTPUT_FORM_TAGGED. */
void output_options_detect(const struct chat_prompt *prompt, bool has_tools,
                           struct output_options *options);

/* Sets reasoning_open: whether the rendered prompt ends with think_begin and white space. */
void output_options_set_prompt(struct output_options *options, const char *text, size_t n);

/* Appends the text that makes a model which continues it call the tool name (NULL: any tool): it is
 * to be appended to the prompt, and pushed into the parser as if it had been generated. With a
 * name, in all forms but XML, it ends with the first byte of the arguments, an object. Ends open
 * reasoning first. */
void output_force_prefix(const struct output_options *options, const char *name, struct buf *out);

struct output_parser;

/* The tags are copied; an empty one is refused (STATUS_INVALID). */
NODISCARD enum status output_parser_create(const struct output_options *options,
                                           struct output_parser **ret_parser, struct err *err);
void output_parser_destroy(struct output_parser **parser);

/* More text. emit is called for all that is certain, at most once a run of one kind. */
void output_parser_push(struct output_parser *parser, const char *text, size_t n, output_emit *emit,
                        void *arg);

/* The end of the text: what is held back comes out, and a call whose name is out gets its end (its
 * arguments are left as incomplete as they are). Nothing may be pushed afterwards. */
void output_parser_finish(struct output_parser *parser, output_emit *emit, void *arg);

/* Calls that have come out, the unfinished one included. */
uint32_t output_parser_n_calls(const struct output_parser *parser);
/* True once max_calls calls have ended: nothing but content can follow, generation may end. */
bool output_parser_is_full(const struct output_parser *parser);
