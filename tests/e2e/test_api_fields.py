# SPDX-License-Identifier: Apache-2.0
"""Each field of a chat or completions body: honoured, ignored, or refused by its name."""

import pytest

QUESTION = [{"role": "user", "content": "Which city is the capital of France?"}]


def chat(server, **fields):
    status, body = server.post("/v1/chat/completions", {
        "model": server.model, "messages": QUESTION, "temperature": 0, "max_tokens": 16, **fields})
    assert status == 200, body
    return body


def complete(server, **fields):
    status, body = server.post("/v1/completions", {
        "model": server.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, **fields})
    assert status == 200, body
    return body


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def tokens(server, text):
    status, body = server.post("/tokenize", {"model": server.model, "prompt": text, "add_special_tokens": False})
    assert status == 200, body
    return body["tokens"]


@pytest.mark.parametrize("fields", [
    {"user": "x"}, {"metadata": {"a": "b"}}, {"store": True}, {"service_tier": "auto"},
    {"safety_identifier": "x"}, {"prompt_cache_key": "x"}, {"prediction": {"type": "content", "content": "x"}},
    {"verbosity": "low"}, {"modalities": ["text"]}, {"stop": None}, {"logit_bias": {}}, {"tools": []},
    {"tools": None}, {"tool_choice": None}, {"seed": -9007199254740991}, {"response_format": {"type": "text"}},
    {"typical_p": 1, "mirostat": 0, "top_n_sigma": -1, "xtc_probability": 0, "dry_multiplier": 0},
    {"never_heard_of": {"it": [1]}}, {"stream_options": None}, {"reasoning_effort": None}, {"min_tokens": 0},
    {"n": 1, "top_k": -1, "top_p": 1.0, "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0,
     "repetition_penalty": 1.0}, {"spaces_between_special_tokens": True}, {"cache_prompt": True},
    {"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}},
])
def test_changes_nothing(server, fields):
    assert text_of(chat(server, **fields)) == text_of(chat(server))


@pytest.mark.parametrize("param,fields", [
    ("max_tokens", {"max_tokens": 0}),
    ("max_completion_tokens", {"max_completion_tokens": 0}),
    ("max_tokens", {"max_tokens": "8"}),
    ("n", {"n": 0}), ("n", {"n": 129}), ("n", {"n": 1.5}),
    ("temperature", {"temperature": -0.1}), ("top_p", {"top_p": 1.1}), ("min_p", {"min_p": -1}),
    ("top_k", {"top_k": -2}), ("presence_penalty", {"presence_penalty": 2.1}),
    ("frequency_penalty", {"frequency_penalty": -2.1}), ("repetition_penalty", {"repetition_penalty": 0}),
    ("seed", {"seed": 0.5}), ("stop", {"stop": 5}), ("stop", {"stop": [""]}), ("stop", {"stop": ["x"] * 17}),
    ("logit_bias", {"logit_bias": {"x": 1}}), ("logit_bias", {"logit_bias": {"1": 101}}),
    ("logit_bias", {"logit_bias": {"01": 1}}), ("logit_bias", {"logit_bias": [1]}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}), ("logprobs", {"logprobs": 5}),
    ("stop_token_ids", {"stop_token_ids": [-1]}), ("allowed_token_ids", {"allowed_token_ids": []}),
    ("allowed_token_ids", {"allowed_token_ids": [10 ** 7]}), ("min_tokens", {"min_tokens": -1}),
    ("bad_words", {"bad_words": [""]}), ("bad_words", {"bad_words": ["long " * 300]}),
    ("truncate_prompt_tokens", {"truncate_prompt_tokens": 0}),
    ("prompt_logprobs", {"prompt_logprobs": 21}), ("prompt_logprobs", {"prompt_logprobs": 1, "stream": True}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    ("response_format", {"response_format": {}}), ("response_format", {"response_format": "json"}),
    ("structured_outputs", {"structured_outputs": {"regex": "a+"}}), ("guided_json", {"guided_json": {"a": 1}}),
    ("grammar", {"grammar": "root ::= x"}), ("json_schema", {"json_schema": {"type": "object"}}),
    ("audio", {"audio": {"voice": "x"}}), ("modalities", {"modalities": ["text", "audio"]}),
    ("functions", {"functions": [{"name": "x"}]}), ("function_call", {"function_call": "auto"}),
    ("web_search_options", {"web_search_options": {"x": 1}}), ("typical_p", {"typical_p": 0.5}),
    ("mirostat", {"mirostat": 2}), ("logprob_token_ids", {"logprob_token_ids": [1]}),
    ("thinking_token_budget", {"thinking_token_budget": 5}), ("chat_template", {"chat_template": "{{ 1 }}"}),
    ("reasoning_effort", {"reasoning_effort": "extreme"}), ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tool_choice": "sometimes", "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("tool_choice", {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "g"}}]}},
        "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("tools", {"tools": [{"type": "function"}]}), ("stream", {"stream": "yes"}),
    ("messages", {"messages": ["x"]}), ("messages", {"messages": "x"}),
])
def test_refused_by_name(server, param, fields):
    status, body = server.post("/v1/chat/completions", {
        "model": server.model, "messages": QUESTION, "max_tokens": 4, **fields})
    assert status == 400, body
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param and param in body["error"]["message"], body


@pytest.mark.parametrize("param,fields", [
    ("prompt", {"prompt": None}), ("prompt", {"prompt": []}), ("prompt", {"prompt": [[1], ["x"]]}),
    ("prompt", {"prompt": [-1]}), ("prompt", {"prompt": {}}), ("suffix", {"suffix": "x"}),
    ("best_of", {"best_of": 2}), ("logprobs", {"logprobs": 21}), ("max_tokens", {"max_tokens": 0}),
    ("response_format", {"response_format": {"type": "json_object"}}), ("n", {"n": 200}),
    ("prompt_logprobs", {"prompt_logprobs": 1, "echo": True, "logprobs": 2}),
])
def test_completions_refused_by_name(server, param, fields):
    status, body = server.post("/v1/completions", {"model": server.model, "prompt": "x", "max_tokens": 4, **fields})
    assert status == 400 and body["error"]["param"] == param, body


def test_min_tokens(server):
    short = chat(server, max_tokens=60)
    n = short["usage"]["completion_tokens"]
    assert short["choices"][0]["finish_reason"] == "stop" and n < 40
    longer = chat(server, max_tokens=60, min_tokens=n + 5)
    assert longer["usage"]["completion_tokens"] >= n + 5
    assert text_of(longer).startswith(text_of(short))
    assert text_of(chat(server, max_tokens=60, min_tokens=n - 2)) == text_of(short)
    word = text_of(short).split()[1]
    assert word not in text_of(chat(server, stop=word))
    assert text_of(chat(server, max_tokens=60, stop=word, min_tokens=n - 2)) == text_of(short)


def test_allowed_token_ids(server):
    allowed = tokens(server, " yes") + tokens(server, " no")
    answer = chat(server, allowed_token_ids=allowed, max_tokens=12, temperature=1, seed=1)
    assert set(text_of(answer).split()) <= {"yes", "no"} and answer["usage"]["completion_tokens"] == 12
    never = {str(allowed[0]): -100}
    assert set(text_of(chat(server, allowed_token_ids=allowed, logit_bias=never)).split()) == {"no"}
    outside = {str(tokens(server, " maybe")[0]): 100}
    assert set(text_of(chat(server, allowed_token_ids=allowed, logit_bias=outside)).split()) <= {"yes", "no"}


def test_nothing_left(server):
    yes = tokens(server, " yes")
    status, body = server.post("/v1/chat/completions", {
        "model": server.model, "messages": QUESTION, "allowed_token_ids": yes, "bad_words": ["yes"]})
    assert status == 400 and body["error"]["param"] == "allowed_token_ids", body


def test_bad_words(server):
    assert "Paris" in text_of(chat(server))
    assert "Paris" not in text_of(chat(server, bad_words=["Paris"]))


def test_bad_words_of_several_tokens(server):
    """Its tokens may come, but not one after the other."""
    whole = text_of(chat(server))
    word = "capital of France"
    assert word in whole and len(tokens(server, word)) > 1
    for bad in (word, " " + word):
        text = text_of(chat(server, bad_words=["nothing of it", bad]))
        assert word not in text and text.startswith(whole[:whole.index(word) + len("capital")]), text
    assert word not in text_of(chat(server, bad_words=[word, "Paris"], n=3, temperature=1, seed=5))
    assert text_of(chat(server, bad_words=["capital of Spain"])) == whole


def test_logit_bias(server):
    paris = tokens(server, " Paris")
    assert "Paris" not in text_of(chat(server, logit_bias={str(paris[0]): -100}))
    only = tokens(server, " yes")
    assert set(text_of(chat(server, logit_bias={str(only[0]): 100}, ignore_eos=True)).split()) == {"yes"}


def test_stop_token_ids(server):
    paris = tokens(server, " Paris")
    answer = chat(server, stop_token_ids=paris)
    assert answer["choices"][0]["stop_reason"] == paris[0] and "Paris" not in text_of(answer)


def test_truncate_prompt_tokens(server):
    ids = tokens(server, "one two three four five six seven eight")
    cut = complete(server, prompt=ids, truncate_prompt_tokens=3)
    assert cut["usage"]["prompt_tokens"] == 3
    assert cut["choices"][0]["text"] == complete(server, prompt=ids[-3:])["choices"][0]["text"]
    assert complete(server, prompt=ids, truncate_prompt_tokens=100)["usage"]["prompt_tokens"] == len(ids)
    long = (ids * 3000)[:20000]
    assert complete(server, prompt=long, truncate_prompt_tokens=64)["usage"]["prompt_tokens"] == 64


def test_prompt_logprobs(server):
    ids = tokens(server, "The capital of France is")
    listed = complete(server, prompt=ids, prompt_logprobs=2)["choices"][0]["prompt_logprobs"]
    echoed = complete(server, prompt=ids, echo=True, logprobs=2)["choices"][0]["logprobs"]["token_logprobs"]
    assert listed[0] is None and len(listed) == len(ids)
    for i in range(1, len(ids)):
        entry = listed[i][str(ids[i])]
        assert entry["logprob"] == echoed[i]
        assert 2 <= len(listed[i]) <= 3 and {e["rank"] for e in listed[i].values()} >= {1, 2}
    assert listed[1][str(ids[1])]["decoded_token"] == " capital"
    answer = chat(server, prompt_logprobs=0)
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert "prompt_logprobs" not in chat(server)


def test_tokens_as_ids(server):
    names = chat(server, logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True)
    entries = names["choices"][0]["logprobs"]["content"]
    ids = [int(entry["token"].removeprefix("token_id:")) for entry in entries]
    plain = chat(server, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [e["bytes"] for e in plain] == [e["bytes"] for e in entries]
    status, body = server.post("/detokenize", {"model": server.model, "tokens": ids})
    assert status == 200 and body["prompt"] == text_of(names)
    legacy = complete(server, logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert all(token.startswith("token_id:") for token in legacy["tokens"])


def test_many_biases(server):
    """As many as the vocabulary has, for several choices at once."""
    n = 40000
    biases = {str(i): 0.0 for i in range(n)}
    assert text_of(chat(server, logit_bias=biases, n=4)) == text_of(chat(server))
    assert text_of(chat(server, allowed_token_ids=list(range(49000)))) == text_of(chat(server))
    assert server.world()["rebuilds"] == 0
