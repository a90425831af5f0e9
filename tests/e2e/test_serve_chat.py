# SPDX-License-Identifier: Apache-2.0
"""Chat completions through the official client: answers, streams, and what ends them."""

import os
import signal
import threading
import time

import openai
import pytest

QUESTION = "Which city is the capital of France?"


def messages(text=QUESTION):
    return [{"role": "user", "content": text}]


def ask(client, server, **fields):
    return client.chat.completions.create(
        **{"model": server.model, "messages": messages(), "max_tokens": 24, "temperature": 0, **fields})


def test_answer(server, client):
    answer = ask(client, server)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.object == "chat.completion" and answer.model == server.model
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_is_the_answer(server, client):
    whole = ask(client, server)
    chunks = list(ask(client, server, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == \
        whole.choices[0].message.content
    assert len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_same_as_run(server, client, run, model):
    done = run("run", model, "-p", QUESTION, "-n", 24, "--temp", 0, "--tp", 1, "-q")
    assert ask(client, server).choices[0].message.content == done.stdout.rstrip("\n")


def test_choices(server, client):
    """Choice 0 of n is what n = 1 gives; greedy choices are equal, sampled ones differ."""
    three = ask(client, server, n=3, seed=5, temperature=1)
    one = ask(client, server, seed=5, temperature=1)
    assert three.choices[0].message.content == one.choices[0].message.content
    assert len({c.message.content for c in three.choices}) > 1
    greedy = ask(client, server, n=3)
    assert len({c.message.content for c in greedy.choices}) == 1
    assert greedy.usage.completion_tokens == 3 * ask(client, server).usage.completion_tokens


def test_logprobs(server, client):
    answer = ask(client, server, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert "".join(e.token for e in entries) == answer.choices[0].message.content
    for e in entries:
        assert e.logprob <= 0 and len(e.top_logprobs) == 3
        assert e.top_logprobs[0].token == e.token and e.top_logprobs[0].logprob == e.logprob
        assert bytes(e.bytes).decode() == e.token
    streamed = []
    for chunk in ask(client, server, logprobs=True, top_logprobs=3, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == entries


def test_stop_across_tokens(server, client):
    whole = ask(client, server).choices[0].message.content
    stop = whole[len(whole) // 2:len(whole) // 2 + 5]
    cut = ask(client, server, stop=[stop, "never said"])
    assert cut.choices[0].message.content == whole[:whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].stop_reason == stop
    chunks = list(ask(client, server, stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole[:whole.index(stop)]


def test_ignore_eos(server, client):
    long = ask(client, server, max_tokens=200, extra_body={"ignore_eos": True})
    assert long.usage.completion_tokens == 200 and long.choices[0].finish_reason == "length"
    short = ask(client, server, max_tokens=200)
    assert short.usage.completion_tokens < 200 and short.choices[0].finish_reason == "stop"


def test_together_as_alone(server):
    """Canonical arithmetic: who else is in the batch changes nothing."""
    texts = [f"Tell me about the number {i}." for i in range(12)]
    alone = [server.chat(text, max_tokens=20)[0] for text in texts]
    together = [None] * len(texts)

    def one(i):
        together[i] = server.stream(texts[i], max_tokens=20)[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_cached_prefix(server, client):
    long = "Count with me. " + " ".join(str(i) for i in range(300))
    first = ask(client, server, messages=messages(long))
    second = ask(client, server, messages=messages(long))
    assert second.usage.prompt_tokens_details.cached_tokens >= 256
    assert second.choices[0].message.content == first.choices[0].message.content
    salted = ask(client, server, messages=messages(long), extra_body={"cache_salt": "x"})
    assert salted.usage.prompt_tokens_details.cached_tokens == 0
    assert salted.choices[0].message.content == first.choices[0].message.content


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP])
def test_rank_dies_under_streams(server, sig):
    """Eight streams, one rank killed or frozen in the middle: each ends with the text it would have had."""
    texts = [f"Write a story about {w}." for w in
             ("a cat", "the sea", "two friends", "a king", "rain", "a train", "bread", "the moon")]
    fields = {"max_tokens": 60, "ignore_eos": True, "seed": 3, "temperature": 0.8}
    alone = [server.chat(text, **fields)[0] for text in texts]
    rebuilds = server.world()["rebuilds"]
    got = [None] * len(texts)
    begun = threading.Semaphore(0)

    def one(i):
        got[i] = server.stream(texts[i], on_chunk=lambda n: begun.release() if n == 10 else None, **fields)[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for _ in texts:
        begun.acquire()
    os.kill(server.ranks()[1], sig)
    for thread in threads:
        thread.join()
    assert got == alone
    world = server.world()
    assert world["rebuilds"] == rebuilds + 1 and world["state"] == "ready"
    assert world["last_fault"]["rank"] == 1
    assert len(server.ranks()) == 2


def test_request_during_rebuild_waits(server):
    expected = server.chat("Hello there.")[0]
    os.kill(server.ranks()[0], signal.SIGKILL)
    assert server.chat("Hello there.")[0] == expected


def test_idle_world_heals(server):
    before = server.ranks()
    os.kill(before[0], signal.SIGKILL)
    end = time.time() + 20
    while server.ranks().get(0, before[0]) == before[0] or server.get("/health")[0] != 200:
        assert time.time() < end
        time.sleep(0.05)


def test_errors(server, client):
    def refused(status, code=None, param=None, **fields):
        code_got, body = server.post("/v1/chat/completions",
                                     {"model": server.model, "messages": messages(), **fields})
        assert code_got == status, body
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert code is None or body["error"]["code"] == code, body
        assert param is None or body["error"]["param"] == param, body

    refused(400, param="model", model=None)
    refused(404, "model_not_found", model="nobody")
    refused(400, "context_length_exceeded", max_tokens=100000)
    refused(400, param="max_tokens", max_tokens=0)
    refused(400, param="temperature", temperature=3)
    refused(400, param="top_logprobs", top_logprobs=3)
    refused(400, param="stream_options", stream_options={"include_usage": True})
    refused(400, param="n", n=129)
    refused(400, param="messages", messages=[])
    refused(400, param="messages", messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}])
    refused(400, param="response_format", response_format={"type": "json_object"})
    refused(400, param="logit_bias", logit_bias={"999999": 1})
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
    assert client.models.retrieve(server.model).id == server.model
    deep = b'{"model":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert server.post("/v1/chat/completions", deep)[0] == 400
    assert server.get("/nowhere")[0] == 404
    assert server.get("/v1/chat/completions")[0] == 405


def test_health_and_world(server):
    status, body = server.get("/health")
    assert status == 200 and body["state"] == "ready"
    assert set(body) >= {"status", "state", "epoch", "last_step_age_ms", "running", "waiting"}
    world = server.world()
    assert world["tp"] == 2 and [r["rank"] for r in world["ranks"]] == [0, 1]
    assert {r["rank"]: r["pid"] for r in world["ranks"]} == server.ranks()
    server.kv()
    assert not [name for name in os.listdir("/dev/shm") if "lockstep" in name]
