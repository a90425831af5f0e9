# SPDX-License-Identifier: Apache-2.0
"""/tokenize, /detokenize, /apply-template, and that every way of counting a prompt agrees."""

import pytest

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}]
TOOLS = [{"type": "function", "function": {
    "name": "add", "description": "Adds.", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}}]


def ok(server, path, **body):
    status, answer = server.post(path, {"model": server.model, **body})
    assert status == 200, answer
    return answer


def refused(server, path, param, **body):
    status, answer = server.post(path, {"model": server.model, **body})
    assert status == 400, answer
    assert answer["error"]["param"] == param, answer


@pytest.mark.parametrize("text", ["Hello, world!", "", "naïve 你好 🙂", "<|im_start|>user", " \n\t x"])
def test_there_and_back(server, text):
    answer = ok(server, "/tokenize", prompt=text)
    assert set(answer) == {"tokens", "count", "max_model_len"}
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] > 0
    bare = ok(server, "/tokenize", prompt=text, add_special_tokens=False)["tokens"]
    assert ok(server, "/detokenize", tokens=bare) == {"prompt": text}


def test_token_strings(server):
    answer = ok(server, "/tokenize", prompt="Hello there", return_token_strs=True)
    assert "".join(answer["token_strs"]) == "Hello there"


def test_tokens_are_a_prompt(server):
    """What /tokenize gives, /v1/completions reads as it reads the text."""
    answer = ok(server, "/tokenize", prompt="The capital of France is")
    by_text, by_ids = (ok(server, "/v1/completions", prompt=prompt, max_tokens=8, temperature=0)
                       for prompt in ("The capital of France is", answer["tokens"]))
    assert by_text["choices"][0]["text"] == by_ids["choices"][0]["text"]
    assert by_text["usage"]["prompt_tokens"] == answer["count"]


def test_template(server):
    prompt = ok(server, "/apply-template", messages=MESSAGES)["prompt"]
    tokens = ok(server, "/tokenize", messages=MESSAGES)["tokens"]
    assert ok(server, "/detokenize", tokens=tokens)["prompt"] == prompt
    assert "2 + 2" in prompt and "Be brief." in prompt
    assert ok(server, "/tokenize", prompt=prompt, add_special_tokens=False)["tokens"] == tokens
    open_end = ok(server, "/apply-template", messages=MESSAGES, add_generation_prompt=False)["prompt"]
    assert prompt.startswith(open_end) and prompt != open_end


@pytest.mark.parametrize("tools", [[], TOOLS])
def test_counts_agree(server, tools):
    chat = ok(server, "/v1/chat/completions", messages=MESSAGES, tools=tools, max_tokens=1)
    n = chat["usage"]["prompt_tokens"]
    assert ok(server, "/tokenize", messages=MESSAGES, tools=tools)["count"] == n
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    assert ok(server, "/v1/responses/input_tokens", instructions="Be brief.", input="What is 2 + 2?",
              tools=flat)["input_tokens"] == n
    anthropic = {"system": "Be brief.", "messages": MESSAGES[1:], "tools": [
        {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in flat]}
    assert ok(server, "/v1/messages/count_tokens", **anthropic) == {"input_tokens": n}
    assert ok(server, "/v1/messages", **anthropic, max_tokens=1)["usage"]["input_tokens"] == n


def test_refused(server):
    refused(server, "/tokenize", "prompt")
    refused(server, "/tokenize", "prompt", prompt=["a"])
    refused(server, "/tokenize", "prompt", prompt="a", messages=MESSAGES)
    refused(server, "/tokenize", "messages", messages=[])
    refused(server, "/tokenize", "add_special_tokens", prompt="a", add_special_tokens="no")
    refused(server, "/detokenize", "tokens")
    refused(server, "/detokenize", "tokens", tokens="1")
    for bad in (-1, 1 << 31, 1 << 40, 1.5, "1", None):
        refused(server, "/detokenize", "tokens", tokens=[1, bad])
    refused(server, "/apply-template", "messages")
    refused(server, "/tokenize", "model", model=None, prompt="a")
    assert server.post("/tokenize", {"model": "nobody", "prompt": "a"})[0] == 404
