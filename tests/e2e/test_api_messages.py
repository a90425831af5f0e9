# SPDX-License-Identifier: Apache-2.0
"""/v1/messages through the official Anthropic client."""

import json

import anthropic
import pytest

TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
GREEDY = {"temperature": 0}
USER = [{"role": "user", "content": "Which city is the capital of France?"}]


@pytest.fixture
def claude(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=120)


def ask(client, server, **fields):
    # extra_body: newer clients do not know temperature any more
    return client.messages.create(**{"model": server.model, "max_tokens": 24, "messages": USER,
                                     "extra_body": GREEDY, **fields})


def raw(server, **fields):
    return server.post("/v1/messages", {"model": server.model, "max_tokens": 24, "temperature": 0,
                                        "messages": USER, **fields})


def events(server, **fields):
    """(event, data) of a raw stream."""
    status, headers, text = server.request("POST", "/v1/messages", {
        "model": server.model, "max_tokens": 24, "temperature": 0, "messages": USER, "stream": True, **fields})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream"), text
    found = []
    for frame in text.decode().split("\n\n"):
        lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
        if lines:
            assert len(lines) == 2 and lines[0].startswith("event: ") and lines[1].startswith("data: "), frame
            data = json.loads(lines[1][6:])
            assert data["type"] == lines[0][7:]
            found.append((lines[0][7:], data))
    return found


def test_answer(server, claude):
    answer = ask(claude, server)
    assert answer.id.startswith("msg_") and answer.role == "assistant" and answer.model == server.model
    assert "Paris" in answer.content[-1].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    same = server.chat(USER[0]["content"], max_tokens=24)
    assert answer.content[-1].text == same[0]
    assert answer.usage.input_tokens == same[1]["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == same[1]["usage"]["completion_tokens"]


def test_every_key(server):
    """The body has what the client's types have, null where nothing is to be said."""
    from anthropic.types import Message, Usage

    status, body = raw(server)
    assert status == 200 and set(body) == set(Message.model_fields)
    assert set(body["usage"]) == set(Usage.model_fields)
    start = events(server)[0][1]["message"]
    assert set(start) == set(Message.model_fields) and start["content"] == []
    assert set(start["usage"]) == set(Usage.model_fields)


def test_stream_is_the_answer(server, claude):
    whole = ask(claude, server)
    with claude.messages.stream(model=server.model, max_tokens=24, messages=USER, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[-1].text
    assert [block.type for block in final.content] == ["text"] and final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_order_of_events(server):
    got = events(server)
    names = [name for name, _ in got]
    assert names[:2] == ["message_start", "ping"] and names[-2:] == ["message_delta", "message_stop"]
    assert names[2] == "content_block_start" and names[-3] == "content_block_stop"
    assert got[0][1]["message"]["stop_reason"] is None
    assert {data["index"] for name, data in got if name.startswith("content_block")} == {0}


def test_stop_sequence(server, claude):
    whole = ask(claude, server).content[-1].text
    stop = whole[len(whole) // 2:len(whole) // 2 + 4]
    answer = ask(claude, server, stop_sequences=[stop])
    assert answer.stop_reason == "stop_sequence" and answer.stop_sequence == stop
    assert answer.content[-1].text == whole[:whole.index(stop)]


def test_max_tokens(server, claude):
    assert ask(claude, server, max_tokens=3).stop_reason == "max_tokens"


def test_count(server, claude):
    counted = claude.messages.count_tokens(model=server.model, messages=USER, tools=[TOOL])
    assert counted.input_tokens == ask(claude, server, tools=[TOOL], max_tokens=1).usage.input_tokens
    assert server.post("/v1/messages/count_tokens", {"model": server.model, "messages": USER}) == \
        (200, {"input_tokens": claude.messages.count_tokens(model=server.model, messages=USER).input_tokens})


def test_forms_of_content(server, claude):
    """A string and text blocks are the same conversation."""
    blocks = [{"role": "user", "content": [{"type": "text", "text": USER[0]["content"],
                                            "cache_control": {"type": "ephemeral"}}]}]
    system = [{"type": "text", "text": "Be brief."}]
    count = claude.messages.count_tokens
    assert count(model=server.model, messages=blocks, system=system) == \
        count(model=server.model, messages=USER, system="Be brief.")


def test_assistant_is_continued(server, claude):
    whole = ask(claude, server).content[-1].text
    begun = USER + [{"role": "assistant", "content": whole[:8]}]
    assert ask(claude, server, messages=begun).content[-1].text != ""
    prompt = server.post("/apply-template", {"model": server.model, "messages": begun,
                                             "continue_final_message": True})[1]["prompt"]
    assert prompt.endswith(whole[:8])
    n = server.post("/tokenize", {"model": server.model, "prompt": prompt, "add_special_tokens": False})[1]["count"]
    assert claude.messages.count_tokens(model=server.model, messages=begun).input_tokens == n


def test_named_tool(server, claude):
    """A forced call: stream and answer agree, and its result can be sent back."""
    fields = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}, "max_tokens": 64,
              "messages": [{"role": "user", "content": "How is the weather in Paris?"}]}
    answer = ask(claude, server, **fields)
    use = answer.content[-1]
    assert use.type == "tool_use" and use.name == "get_weather" and use.id.startswith("toolu_")
    assert answer.stop_reason in ("tool_use", "max_tokens") and isinstance(use.input, dict)
    with claude.messages.stream(model=server.model, extra_body=GREEDY, **fields) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == answer.stop_reason
    assert [block.type for block in final.content] == [block.type for block in answer.content]
    if set(use.input) != {"INVALID_JSON"}:
        assert final.content[-1].input == use.input
    ask(claude, server, tools=[TOOL], messages=fields["messages"] + [
        {"role": "assistant", "content": [use.to_dict()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "22 degrees"},
                                     {"type": "text", "text": "And now?"}]}])


def test_thinking_is_a_variable(server, claude):
    for thinking in ({"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}):
        assert ask(claude, server, thinking=thinking).content


@pytest.mark.parametrize("fields,names", [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 10 ** 6}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "nobody", "content": "x"}]}, "message 0"),
    ({"messages": USER + [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "message 1"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]}, "tool_use_id"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"tools": [{"name": "x"}]}, "input_schema"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
    ({"tool_choice": {"type": "tool", "name": "no"}, "tools": [TOOL]}, "tool_choice"),
    ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ({"thinking": {"type": "maybe"}}, "thinking"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
])
def test_refused(server, fields, names):
    status, body = raw(server, **fields)
    assert status == 400 and set(body) == {"type", "error", "request_id"}, body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
    assert names in body["error"]["message"]


def test_errors_of_the_client(server, claude):
    with pytest.raises(anthropic.NotFoundError):
        ask(claude, server, model="nobody")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        ask(claude, server, max_tokens=0)
    assert raw(server, metadata={"user_id": "x"}, service_tier="auto", some_new_field=[1])[0] == 200
