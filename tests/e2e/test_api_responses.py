# SPDX-License-Identifier: Apache-2.0
"""/v1/responses through the official OpenAI client."""

import json

import openai
import pytest

QUESTION = "Which city is the capital of France?"
TOOL = {"type": "function", "name": "get_weather", "description": "The weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


def ask(client, server, **fields):
    return client.responses.create(**{"model": server.model, "input": QUESTION, "temperature": 0,
                                      "max_output_tokens": 24, **fields})


def raw(server, **fields):
    return server.post("/v1/responses", {"model": server.model, "input": QUESTION, "temperature": 0,
                                         "max_output_tokens": 24, **fields})


def test_answer(server, client):
    answer = ask(client, server)
    chat = server.chat(QUESTION, max_tokens=24)
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.model == server.model
    assert answer.output_text == chat[0] and "Paris" in answer.output_text
    assert answer.usage.input_tokens == chat[1]["usage"]["prompt_tokens"]
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens_details.reasoning_tokens == 0
    assert answer.temperature == 0 and answer.max_output_tokens == 24 and answer.error is None


def test_incomplete(server, client):
    answer = ask(client, server, max_output_tokens=3)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[-1].status == "incomplete"
    assert ask(client, server, max_output_tokens=200).status == "completed"


def test_stream_is_the_answer(server, client):
    whole = ask(client, server, max_output_tokens=200)
    got = list(ask(client, server, max_output_tokens=200, stream=True))
    assert [event.sequence_number for event in got] == list(range(len(got)))
    types = [event.type for event in got]
    assert types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert types[-4:] == ["response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.completed"]
    assert set(types[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in got if event.type == "response.output_text.delta") == whole.output_text
    final = got[-1].response
    assert final.output_text == whole.output_text and final.usage.output_tokens == whole.usage.output_tokens
    assert [i.content for i in final.output] == [i.content for i in whole.output]
    assert got[-2].item == final.output[0]


def plain(logprobs):
    return [one if isinstance(one, dict) else one.to_dict() for one in logprobs]


@pytest.mark.parametrize("top", [0, 3])
def test_logprobs(server, client, top):
    """Those that chat reports, in the answer and in a stream's deltas, what they came to, and its end."""
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": top, "max_output_tokens": 12}
    chat = server.chat(QUESTION, max_tokens=12, logprobs=True, top_logprobs=top)[1]["choices"][0]
    answer = ask(client, server, **fields)
    part = answer.output[0].content[0]
    assert answer.top_logprobs == top and plain(part.logprobs) == chat["logprobs"]["content"]
    assert "".join(one.token for one in part.logprobs) == part.text == chat["message"]["content"]
    assert all(len(one.top_logprobs) == top for one in part.logprobs)

    got = list(ask(client, server, stream=True, **fields))
    deltas = [event for event in got if event.type == "response.output_text.delta"]
    assert sum((plain(event.logprobs) for event in deltas), []) == plain(part.logprobs)
    assert all("".join(one.token for one in event.logprobs) == event.delta for event in deltas)
    for event in got:
        if event.type == "response.output_text.done":
            assert plain(event.logprobs) == plain(part.logprobs)
        elif event.type in ("response.content_part.done", "response.output_item.done"):
            done = event.part if event.type == "response.content_part.done" else event.item.content[0]
            assert plain(done.logprobs) == plain(part.logprobs)
    assert plain(got[-1].response.output[0].content[0].logprobs) == plain(part.logprobs)
    with client.responses.stream(model=server.model, input=QUESTION, temperature=0, **fields) as stream:
        assert plain(stream.get_final_response().output[0].content[0].logprobs) == plain(part.logprobs)
    assert ask(client, server).output[0].content[0].logprobs == []


def test_client_accumulates(server, client):
    with client.responses.stream(model=server.model, input=QUESTION, temperature=0, max_output_tokens=200) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == ask(client, server, max_output_tokens=200).output_text


def test_frames(server):
    status, _, text = server.request("POST", "/v1/responses", {
        "model": server.model, "input": QUESTION, "max_output_tokens": 4, "stream": True})
    assert status == 200 and b"[DONE]" not in text
    for frame in text.decode().strip().split("\n\n"):
        if not frame.startswith(":"):
            name, data = frame.split("\n")
            assert name == "event: " + json.loads(data[6:])["type"]
    assert json.loads(data[6:])["type"] == "response.incomplete"


def test_items(server, client):
    """Items and instructions are the conversation that chat has."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "My name is Ann."}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "Hello Ann.", "annotations": []}]},
        {"role": "user", "content": "What is my name?"},
    ]
    answer = ask(client, server, input=items, instructions="Be brief.")
    status, chat = server.post("/v1/chat/completions", {
        "model": server.model, "temperature": 0, "max_tokens": 24, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "My name is Ann."},
            {"role": "assistant", "content": "Hello Ann."}, {"role": "user", "content": "What is my name?"}]})
    assert status == 200 and answer.output_text == chat["choices"][0]["message"]["content"]
    assert answer.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert answer.instructions == "Be brief."


def test_named_tool(server, client):
    fields = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"},
              "input": "How is the weather in Paris?", "max_output_tokens": 64}
    answer = ask(client, server, **fields)
    call = answer.output[-1]
    assert call.type == "function_call" and call.name == "get_weather" and call.call_id
    got = list(ask(client, server, stream=True, **fields))
    done = [event for event in got if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == [call.arguments]
    assert "".join(event.delta for event in got
                   if event.type == "response.function_call_arguments.delta") == call.arguments
    follow = [{"role": "user", "content": fields["input"]}, call.to_dict(),
              {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}]
    plain = ask(client, server, input=fields["input"], tools=[TOOL])
    assert ask(client, server, input=follow, tools=[TOOL]).usage.input_tokens > plain.usage.input_tokens


def test_allowed_tools(server, client):
    other = {**TOOL, "name": "other"}
    one = ask(client, server, tools=[TOOL], max_output_tokens=1)
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]}
    assert ask(client, server, tools=[TOOL, other], tool_choice=allowed, max_output_tokens=1).usage.input_tokens == \
        one.usage.input_tokens


@pytest.mark.parametrize("param,fields", [
    ("input", {"input": []}),
    ("input", {"input": None}),
    ("input", {"input": [{"role": "nobody", "content": "x"}]}),
    ("input", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}),
    ("input", {"input": [{"type": "item_reference", "id": "x"}]}),
    ("input", {"input": [{"type": "function_call", "name": "x"}]}),
    ("max_output_tokens", {"max_output_tokens": 0}),
    ("max_output_tokens", {"max_output_tokens": 10 ** 6}),
    ("temperature", {"temperature": 2.5}),
    ("tools", {"tools": [{"type": "web_search"}]}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "name": "no"}}),
    ("previous_response_id", {"previous_response_id": "resp_1"}),
    ("background", {"background": True}),
    ("conversation", {"conversation": "conv_1"}),
    ("truncation", {"truncation": "auto"}),
    ("text.format", {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("top_logprobs", {"include": ["message.output_text.logprobs"], "top_logprobs": 21}),
    ("include", {"include": "message.output_text.logprobs"}),
])
def test_refused(server, param, fields):
    status, body = raw(server, **fields)
    assert status == 400, body
    assert body["error"]["param"] == param and param in body["error"]["message"], body


def test_not_stored(server, client):
    answer = ask(client, server, max_output_tokens=1, store=True, metadata={"a": "b"}, user="x",
                 prompt_cache_key="k", include=["reasoning.encrypted_content"], extra_body={"new_field": {}})
    assert answer.metadata == {"a": "b"}
    with pytest.raises(openai.BadRequestError, match="store"):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.NotFoundError):
        ask(client, server, model="nobody")
