# SPDX-License-Identifier: Apache-2.0
"""Clients that go away: waiting in the queue, in the prefill and in the decode, streamed or not, one
choice or two, closing or half-closing. Their work ends, and others see nothing of it."""

import itertools
import time

import pytest
from serving import serving
from wire import Call, chat_body, make_tiny, metric, poll

SLOTS = 3
CHUNK = 8
CONTEXT = 32768
PROMPT = "a" * 30000  # a token each: thousands of steps of CHUNK rows
OTHERS = ("rivers", "bridges", "towns")
SAMPLED = {"max_tokens": 5000, "ignore_eos": True, "seed": 11, "temperature": 0.7}
CASES = list(itertools.product([False, True], [1, 2], ["close", "half_close"]))
IDS = [f"{'stream' if s else 'whole'}-n{n}-{how}" for s, n, how in CASES]


@pytest.fixture(scope="module")
def server(lockstep, tmp_path_factory):
    model = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny", context=CONTEXT)
    with serving(lockstep, model, "--tp", 2, "--max-running", SLOTS, "--chunk", CHUNK, "--ctx", CONTEXT,
                 "--kv-memory", 512, "--hang-ms", 20000) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


@pytest.fixture(scope="module")
def texts(server):
    """What each of the others gets when nobody leaves."""
    calls = {text: Call(server, "/v1/chat/completions", chat_body(server, text, stream=True, **SAMPLED))
             for text in OTHERS}
    return {text: content_of(call.frames()) for text, call in calls.items()}


def content_of(frames):
    assert not [f for f in frames if "error" in f]
    return "".join(c["delta"].get("content") or "" for f in frames for c in f["choices"])


class Others:
    """Streams that go on while clients come and go; what they have got by the end is the beginning
    of what they get alone, and it went on after the client had gone."""

    def __init__(self, server, texts, n):
        self.server, self.n = server, n
        self.texts = list(texts.items())[:n]

    def __enter__(self):
        self.calls = [Call(self.server, "/v1/chat/completions",
                           chat_body(self.server, text, stream=True, **SAMPLED)) for text, _ in self.texts]
        for call in self.calls:
            call.read_chunks(2)
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            for call, (_, expected) in zip(self.calls, self.texts, strict=True):
                seen = call.read.count(b"data: ")
                call.read_chunks(seen + 3)
                content = content_of(call.whole_frames())
                assert content and expected.startswith(content)
        for call in self.calls:
            call.close()
        self.server.wait_idle()


def generated(server):
    return metric(server, "vllm:generation_tokens_total")


def call(server, text, **fields):
    return Call(server, "/v1/chat/completions", chat_body(server, text, **fields))


def wait_gone(server, others):
    """Nobody but the others runs or waits."""
    def is_gone():
        world = server.world()
        kv = world["kv"]
        assert kv["free"] + kv["cached"] + kv["used"] == kv["total"]
        return world["waiting"] == 0 and world["running"] <= others.n
    poll(is_gone, 20, lambda: f"an end of the abandoned request: {server.world()}")


@pytest.mark.parametrize("stream, n, how", CASES, ids=IDS)
def test_queued(server, texts, stream, n, how):
    """All slots are taken, before and after: it never starts."""
    with Others(server, texts, SLOTS) as others:
        client = call(server, f"Queued {stream} {n} {how}", n=n, stream=stream, **SAMPLED)
        poll(lambda: server.world()["waiting"] == n, 20, "it waits")
        getattr(client, how)()
        wait_gone(server, others)
        assert server.world()["running"] == SLOTS
    client.close()


def rows_computed(server):
    """Ever, in all steps; after the time that metrics may be late."""
    time.sleep(0.6)
    return metric(server, "vllm:iteration_tokens_total_sum")


def test_prefill(server, texts):
    """They leave when their first rows are computed: most of their prompts never is."""
    before = rows_computed(server)
    for (stream, n, how), name in zip(CASES, IDS, strict=True):
        with Others(server, texts, 1) as others:
            client = call(server, name + PROMPT, n=n, stream=stream, max_tokens=1)
            poll(lambda: server.world()["running"] > others.n, 20, f"{name}: it runs")  # noqa: B023
            getattr(client, how)()
            wait_gone(server, others)
            client.close()
    rows = rows_computed(server) - before
    assert 0 < rows < len(CASES) * len(PROMPT) / 2, "their prompts were computed"


@pytest.mark.parametrize("stream, n, how", CASES, ids=IDS)
def test_decode(server, texts, stream, n, how):
    """It leaves while its tokens come."""
    with Others(server, texts, 1) as others:
        before = generated(server)
        client = call(server, "Write a very long story.", n=n, stream=stream, max_tokens=20000,
                      ignore_eos=True)
        if stream:
            client.read_chunks(4)
        else:
            poll(lambda: server.world()["running"] == 1 + n, 20, "it runs")
            poll(lambda: generated(server) > before + 60, 20, "tokens")
        getattr(client, how)()
        wait_gone(server, others)
    assert generated(server) - before < 15000
    client.close()


def test_all_at_once(server, texts):
    """Twelve clients in every stage leave in the same moment; one stays."""
    clients = [call(server, f"Number {i}. " + PROMPT[:9000 if i % 3 == 0 else 3], n=1 + i % 2,
                    stream=i % 4 < 2, max_tokens=2000, ignore_eos=True) for i in range(12)]
    poll(lambda: server.world()["waiting"] > 0, 20, "some wait")
    stays = call(server, OTHERS[0], stream=True, **SAMPLED)
    for i, client in enumerate(clients):
        client.close() if i % 2 else client.half_close()
    assert content_of(stays.frames()) == texts[OTHERS[0]]
    server.wait_idle()
    for client in clients:
        client.close()
