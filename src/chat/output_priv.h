/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the output parser. It takes one byte at a time, so that cuts cannot matter.
 *
 *   TEXT ---------- think_begin / think_end ---------- REASONING
 *    |  ^
 *    |  +--- not a call: its text again, as content
 *    v  |
 *   OPEN ---------> OBJECT -- bad, name is out --> BROKEN -- </tool_call> --> TEXT
 *    |                 +----- } ----------------------------------------------> TEXT
 *    v
 *   FUNCTION --> BODY <--> PARAMETER --> VALUE;  BODY -- </function> --> TEXT
 *
 * output.c: tags, white space, events. output_call.c: calls in JSON. output_xml.c: calls in XML.
 */
#pragma once

#include "chat/json_scan.h"
#include "chat/output.h"

enum mode {
    MODE_TEXT,
    MODE_REASONING,
    MODE_OPEN,      /* a call must begin here */
    MODE_OBJECT,    /* its JSON object */
    MODE_BROKEN,    /* what follows a mistake in it */
    MODE_FUNCTION,  /* the name behind <function= */
    MODE_BODY,      /* between parameters */
    MODE_PARAMETER, /* the name behind <parameter= */
    MODE_VALUE,
};

/* What stands before, but for white space. */
enum place {
    PLACE_START,  /* nothing */
    PLACE_TEXT,   /* content */
    PLACE_TAGGED, /* a call whose </tool_call> is to come */
    PLACE_ARRAY,  /* a call of an array */
    PLACE_BARE,   /* a bare call */
    PLACE_CLOSED, /* the end of a call */
};

enum marker {
    MARKER_THINK_BEGIN,
    MARKER_THINK_END,
    MARKER_TOOL_BEGIN,
    MARKER_TOOL_END,
    MARKER_FUNCTION,
    MARKER_FUNCTION_END,
    MARKER_PARAMETER,
    MARKER_PARAMETER_END,
    MARKER_ARRAY,
    MARKER_PYTHON,
    MARKER_COUNT,
};

enum call_step {
    CALL_KEY_OR_END,
    CALL_KEY,
    CALL_IN_KEY,
    CALL_COLON,
    CALL_VALUE,
    CALL_IN_VALUE,
    CALL_NEXT,
};

/* JSON in place of parameters. */
enum xml_json {
    XML_NO_JSON,
    XML_IN_JSON,
    XML_BAD_JSON, /* it is none, and goes on up to the next tag */
    XML_AFTER_JSON,
};

enum call_field { FIELD_OTHER, FIELD_NAME, FIELD_ARGUMENTS };

/* A string's escapes on their way out. */
struct unescape {
    unsigned pending; /* 0: none, 1: behind the backslash, 2 to 5: digits of \u to come, plus 1 */
    uint32_t code;
    uint32_t high; /* a high surrogate that waits for its other half, 0 if none */
};

struct call {
    enum output_form form;
    bool is_named; /* the name is out */
    /* JSON */
    enum call_step step;
    enum call_field field;
    struct json_scan scan;
    struct buf text; /* the key or the name that is read */
    struct buf name;
    struct buf arguments; /* what came before the name */
    bool has_name;
    bool has_arguments;
    bool said_arguments; /* some came out */
    bool is_string;      /* the arguments are */
    struct unescape unescape;
    /* XML */
    const json_t *properties; /* of the function's schema, NULL if unknown */
    struct buf seen;          /* names of parameters, each with its length before it */
    struct buf value;         /* of one that may be something else than a string */
    unsigned types;           /* what it may be */
    enum xml_json json;
    uint32_t n_params;
    bool is_streamed; /* the value is a string and comes out as it comes */
    bool is_dropped;  /* the value's name has been seen */
    bool at_start;    /* of the value */
    bool holds_break; /* a line break that may be the value's last */
};

struct output_parser {
    struct output_options options; /* its texts are not used */
    char *think[2];
    const char *markers[MARKER_COUNT];
    enum mode mode;
    enum place place;
    bool drops_breaks;   /* line breaks behind a tag */
    bool said_reasoning; /* since the tag */
    bool needs_bracket;  /* an array is to begin */
    bool is_finished;
    struct buf held;  /* may become a marker */
    struct buf space; /* white space before something that decides about it */
    struct buf raw;   /* of a call whose name is not out */
    size_t n_marker;  /* the bytes of raw that are the tag before it */
    size_t n_opened;  /* bytes of <function= seen in MODE_OPEN */
    struct call call;
    uint32_t n_calls; /* begun */
    uint32_t n_ended;
    /* events */
    struct buf out;
    enum output_kind out_kind;
    output_emit *emit;
    void *emit_arg;
};

/* output.c */
void output_feed(struct output_parser *parser, char c);
void output_feed_all(struct output_parser *parser, struct buf *text); /* and releases it */
/* Bytes of an event that may be joined with others of its kind. */
void output_say(struct output_parser *parser, enum output_kind kind, const char *text, size_t n);
/* The name of the next call, which drops what was kept for the case that it is none. */
void output_begin_call(struct output_parser *parser, const char *name, size_t n);
void output_end_call(struct output_parser *parser, enum place place);
/* It is no call: its text is content. */
void output_no_call(struct output_parser *parser);

/* output_call.c */
void call_open(struct output_parser *parser, enum output_form form, const char *marker);
void call_open_byte(struct output_parser *parser, char c);
void call_object_byte(struct output_parser *parser, char c);
void call_release(struct call *call);
/* For the next one; keeps memory. */
void call_reset(struct call *call);

/* output_xml.c */
void xml_open(struct output_parser *parser); /* behind <function= */
void xml_name_byte(struct output_parser *parser, char c);
void xml_body_byte(struct output_parser *parser, char c);
void xml_value_byte(struct output_parser *parser, char c);
bool xml_takes_tags(const struct output_parser *parser); /* it stands between parameters */
void xml_marker(struct output_parser *parser, enum marker marker);
void xml_finish(struct output_parser *parser); /* in the middle of a value */
