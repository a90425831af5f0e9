# SPDX-License-Identifier: Apache-2.0
"""Tool calls that a client forces: with a JSON object for arguments, or an error that says why not."""

import json

import openai
import pytest
from serving import serving
from wire import make_tiny

ASK = [{"role": "user", "content": "How is the weather in Paris? Give it in degrees Celsius."}]


def tool(name, **properties):
    return {"type": "function", "function": {"name": name, "description": f"Call {name}.", "parameters": {
        "type": "object", "properties": properties, "required": list(properties)}}}


WEATHER = tool("get_weather", city={"type": "string"}, unit={"type": "string"})
NEWS = tool("get_news", topic={"type": "string"})
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def ask(client, server, **fields):
    return client.chat.completions.create(**{"model": server.model, "messages": ASK, "temperature": 0,
                                             "tools": [WEATHER], "max_tokens": 40, **fields})


def check(choice):
    """A call with an object, or an answer that says that it is cut."""
    calls = choice.message.tool_calls
    assert calls and calls[0].function.name == "get_weather"
    if choice.finish_reason != "length":
        assert choice.finish_reason == "tool_calls"
        for call in calls:
            assert isinstance(json.loads(call.function.arguments), dict), call
    return calls[0].function.arguments


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_object(server, client, choice):
    """However unlikely its tokens are; streams say the same."""
    check(ask(client, server, tool_choice=choice).choices[0])
    fields = {"tool_choice": choice, "temperature": 1.2, "seed": 3, "n": 2, "parallel_tool_calls": False}
    texts = [check(one) for one in ask(client, server, **fields).choices]
    assert texts[0] != texts[1]
    streamed = [""] * 2
    for chunk in ask(client, server, stream=True, **fields):
        for one in chunk.choices:
            for call in one.delta.tool_calls or []:
                streamed[one.index] += call.function.arguments or ""
    assert streamed == texts


def test_ends_with_the_object(server, client):
    """Whatever the model would have written behind it."""
    brace = server.post("/tokenize", {"model": server.model, "prompt": "}", "add_special_tokens": False})[1]["tokens"]
    choice = ask(client, server, tool_choice=NAMED, logit_bias={str(brace[0]): 100}).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls[0].function.arguments == "{}"


def test_goes_on_as_if_it_had_not_tried(server, client):
    """A bias makes the model want to end at every place: each time the answer goes on without that."""
    fields = {"tool_choice": NAMED, "max_tokens": 12}
    plain = ask(client, server, **fields).choices[0]
    end = server.post("/tokenize", {"model": server.model, "prompt": "<|im_end|>", "add_special_tokens": False})[1]
    assert end["count"] == 1
    answer = ask(client, server, logit_bias={str(end["tokens"][0]): 100}, **fields)
    assert answer.choices[0].message.tool_calls[0].function.arguments == \
        plain.message.tool_calls[0].function.arguments
    assert answer.choices[0].finish_reason == plain.finish_reason == "length"
    assert answer.usage.completion_tokens == 12


def test_several_tools(server, client):
    """Any of them may be chosen: a call of one with an object, or an error with its code."""
    for seed in range(4):
        try:
            answer = ask(client, server, tools=[WEATHER, NEWS], tool_choice="required", temperature=1, seed=seed)
        except openai.InternalServerError as error:
            assert error.code == "invalid_tool_call" and "tool" in error.message
            continue
        choice = answer.choices[0]
        if choice.finish_reason == "length":
            continue
        for call in choice.message.tool_calls:
            assert call.function.name in ("get_weather", "get_news")
            assert isinstance(json.loads(call.function.arguments), dict)


def test_random_weights(lockstep, tmp_path):
    """A model that knows nothing of JSON writes an object all the same, and nothing is left behind."""
    with serving(lockstep, make_tiny(tmp_path / "tiny"), "--tp", 2, "--ctx", 4096, "--kv-memory", 64) as server:
        body = {"model": server.model, "messages": ASK, "tools": [WEATHER], "tool_choice": NAMED,
                "temperature": 1, "seed": 1, "max_tokens": 40, "stream": True}
        _, _, text = server.request("POST", "/v1/chat/completions", body)
        chunks = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: {")]
        written = "".join(call["function"].get("arguments", "") for chunk in chunks for choice in chunk["choices"]
                          for call in choice["delta"].get("tool_calls", []))
        end = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1]
        assert end in ("tool_calls", "length") and written.startswith("{")
        if end == "tool_calls":
            assert isinstance(json.loads(written), dict)
        else:  # what is there can be gone on with
            with pytest.raises(json.JSONDecodeError):
                json.loads(written)
        server.wait_idle()
        assert server.stop() == 0, server.errors
