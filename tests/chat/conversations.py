# SPDX-License-Identifier: Apache-2.0
"""Requests to render: the matrix that every template meets."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city.\nReturns \"degrees\" & sky <icons>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Which city, e.g. K\u00f6ln"},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "integer", "minimum": 1, "maximum": 1e2},
                "tags": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}}},
                "any": {"type": ["string", "null"], "default": False},
            },
            "required": ["city"],
        },
    },
}
EMPTY_TOOL = {"type": "function", "function": {
    "name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}},
    "return": {"type": "string"}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, identity="abcdef123"):
    return {"id": identity, "type": "function",
            "function": {"name": name, "arguments": arguments}}


SYSTEM = message("system", "You are terse.")
HI = message("user", "Hello there!")
YES = message("assistant", "Hi. What now?")
MORE = message("user", "  Tell me about 3 things:\n1. a\n2. b\n\n3. c  ")
CALLS = message("assistant", "", tool_calls=[call("get_weather", {"city": "K\u00f6ln", "days": 2,
                                                                "where": {"lat": 50.9}})])
TWO_CALLS = message("assistant", None, tool_calls=[
    call("get_weather", {"city": "Bonn", "tags": ["a", "b"], "unit": None}),
    call("now", {}, "zyxwvu987")])
RESULT = message("tool", '{"t": 21.5, "sky": "clear"}', name="get_weather",
                 tool_call_id="abcdef123")
DICT_RESULT = message("tool", {"t": 21.5, "sky": ["clear", True, None]}, tool_call_id="abcdef123")
THINKING = message("assistant", "<think>\nLet me see.\n</think>\n\nIt is 4.")
REASONED = message("assistant", "It is 5.", reasoning_content="\nTwo and three.\n")
PARTS = message("user", [{"type": "text", "text": " Look: "}, {"type": "image"},
                         {"type": "image_url", "image_url": {"url": "x"}},
                         {"type": "text", "text": "and this"}])

CONVERSATIONS = {
    "single": {"messages": [HI]},
    "no_prompt": {"messages": [HI], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, HI]},
    "multi": {"messages": [SYSTEM, HI, YES, MORE, message("assistant", "ok"), HI]},
    "answered": {"messages": [HI, YES, MORE, YES], "add_generation_prompt": False},
    "wrong_order": {"messages": [YES, HI, HI]},
    "tools": {"messages": [SYSTEM, HI], "tools": [WEATHER, EMPTY_TOOL]},
    "tools_empty": {"messages": [HI], "tools": []},
    "tool_call": {"messages": [HI, CALLS], "tools": [WEATHER]},
    "tool_result": {"messages": [SYSTEM, HI, CALLS, RESULT, YES, MORE], "tools": [WEATHER]},
    "tool_results": {"messages": [HI, TWO_CALLS, RESULT, DICT_RESULT], "tools": [EMPTY_TOOL]},
    "tool_results_text": {"messages": [HI, TWO_CALLS, RESULT, RESULT, YES]},
    "string_arguments": {"messages": [HI, message("assistant", "", tool_calls=[
        call("now", '{"a": 1}')]), RESULT]},
    "tools_in_system": {"messages": [SYSTEM, HI], "tools": [WEATHER],
                        "tools_in_user_message": False, "builtin_tools": ["brave", "now"]},
    "thinking": {"messages": [HI, THINKING, MORE, THINKING]},
    "reasoning": {"messages": [HI, REASONED, HI, REASONED], "enable_thinking": True},
    "no_thinking": {"messages": [HI, REASONED, HI], "enable_thinking": False, "thinking": True},
    "parts": {"messages": [PARTS, YES, PARTS], "add_vision_id": True},
    "documents": {"messages": [HI], "documents": [{"title": "One", "text": "First \u2603"},
                                                  {"title": "Two", "text": "Second"}]},
    "empty_content": {"messages": [SYSTEM, message("user", ""), message("assistant", ""), HI]},
    "null_content": {"messages": [HI, message("assistant", None), message("user", None)]},
    "no_content": {"messages": [HI, {"role": "assistant"}, {"role": "user"}]},
    "no_messages": {"messages": []},
    "messages_absent": {},
    "numbers": {"messages": [message("user", 42), message("assistant", 3.0),
                             message("user", True)],
                "numbers": [1, 2.5, 1e16, 1e-7, 9223372036854775807, -0.0, 1e22, 0.1]},
    "unicode": {"messages": [
        message("system", "\u00df\u0130 \u01c6 \ufb01n \u03a3\u03a3. \u0394\u03a3 \u00b2\u0663"),
        message("user", "\U0001f469\u200d\U0001f680 \u65e5\u672c\u8a9e \u202eabc\u202c "
                        "\ufeff\u00ad\u2028\u3000x\u00a0"),
        message("assistant", "e\u0301\U0010ffff\ue000\u0378")]},
    "quotes": {"messages": [message("user", "it's \"quoted\" \\ and 'single'"),
                            message("assistant", "don't"), message("user", 'a "b" c')]},
    "control": {"messages": [message("user", "nul\u0000bel\u0007esc\u001b\u007f\u0085\t\r\n\v\f"),
                             message("assistant", "\r\ncr\rlf\n\n"), message("user", " \n\t "),
                             message("assistant", "".join(map(chr, range(0x21)))),
                             message("user", "".join(map(chr, range(0x7e, 0x100))))]},
    "markup": {"messages": [message("user", "<b>&amp; {{ messages }} {% raise %} {# no #}"),
                            message("assistant", "<|im_end|>[/INST]</s>"), HI]},
    "json": {"messages": [message("user", '{"a": [1, {"b": null}], "c": "\\u00e9"}'),
                          message("assistant", [{"type": "text", "text": "deep",
                                                 "x": {"y": [[], {}, [{}]]}}]), HI]},
    "long": {"messages": [message("user" if i % 2 == 0 else "assistant",
                                  f"Turn {i}: " + "lorem ipsum dolor \u00e9 " * (i * 7 % 40))
                          for i in range(41)]},
    "other_roles": {"messages": [message("developer", "Do."), HI,
                                 message("ipython", "out"), message("function", "f", name="g")]},
    "null_fields": {"messages": [message("user", "x", name=None, tool_calls=None),
                                 message("assistant", "y", tool_calls=[], reasoning_content=None),
                                 HI], "tools": None, "documents": []},
    "odd_keys": {"messages": [{"role": "user", "content": "k", "items": 1, "get": 2, "": 3,
                               "__class__": 4, "_x": 5, "a b": {"keys": []}}, YES, HI]},
}
