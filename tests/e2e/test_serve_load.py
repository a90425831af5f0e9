# SPDX-License-Identifier: Apache-2.0
"""Many at once: no token lost or in the wrong stream, also while ranks die; fair shares, the bound
of the queue, priorities."""

import os
import re
import signal
import threading
import time

import pytest
from serving import serving
from wire import Call, chat_body, make_tiny, metric, poll

STREAMS = 64
IDLE = 500
FIELDS = {"max_tokens": 150, "ignore_eos": True, "temperature": 0.9}
KEYS = ("key-of-one", "key-of-two")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def server(lockstep, tiny):
    with serving(lockstep, tiny, "--tp", 2, "--ctx", 4096, "--kv-memory", 64, "--hang-ms", 1000) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


def stream(server, i, **fields):
    return Call(server, "/v1/chat/completions", chat_body(
        server, f"This is the question of client {i}, and of nobody else.", stream=True,
        **{**FIELDS, "seed": i, **fields}))


def content_of(frames):
    return "".join(c["delta"].get("content") or "" for f in frames for c in f.get("choices", []))


@pytest.fixture(scope="module")
def alone(server):
    """The text of each client, each asked for on its own; none is like another."""
    texts = [content_of(stream(server, i).frames()) for i in range(STREAMS)]
    assert len(set(texts)) == STREAMS and all(texts)
    return texts


def idle_connections(server, n):
    """Connections that had a request and are kept; the server says that they stay."""
    connections = [server.connect() for _ in range(n)]
    for connection in connections:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for connection in connections:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    return connections


def check(server, alone, during=None):
    """All streams at once; during(calls) once each has got a few tokens."""
    calls = [stream(server, i) for i in range(len(alone))]
    for call in calls:
        call.read_chunks(3)
    if during:
        during(calls)
    for i, call in enumerate(calls):
        frames = call.frames()
        assert content_of(frames) == alone[i], f"client {i}"
        assert [c["finish_reason"] for f in frames for c in f["choices"] if c["finish_reason"]] == ["length"]
        assert len({f["id"] for f in frames}) == 1
        call.close()


def test_many_streams_and_idle_connections(server, alone):
    idle = idle_connections(server, IDLE)
    check(server, alone)
    for connection in idle:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for connection in idle:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 "), "it was kept all the time"
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_ranks_fail_under_load(server, alone, number):
    """Twice in the same load, each rank once."""
    def fail(calls):
        for rank in (0, 1):
            epoch = server.world()["epoch"]
            os.kill(server.ranks()[rank], number)
            poll(lambda: (w := server.world())["epoch"] > epoch and w["state"] == "ready", 60, "healed")  # noqa: B023
            assert any(b"data: [DONE]" not in call.read for call in calls)

    rebuilds = server.world()["rebuilds"]
    idle = idle_connections(server, 20)
    check(server, alone, fail)
    assert server.world()["rebuilds"] == rebuilds + 2
    for connection in idle:
        connection.close()


def test_cached_prefixes_are_exact(server):
    """Many with one long beginning, at once and while it is in the cache or not: as when cold."""
    prefix = "These words are the same for all of them. " * 20
    cold = [server.chat(f"{prefix}{i}", max_tokens=20, cache_salt=f"cold {i}", ignore_eos=True)[0]
            for i in range(8)]
    calls = [Call(server, "/v1/chat/completions", chat_body(
        server, f"{prefix}{i % 8}", stream=True, max_tokens=20, ignore_eos=True)) for i in range(32)]
    assert [content_of(call.frames()) for call in calls] == cold * 4
    again, body = server.chat(f"{prefix}0", max_tokens=20, ignore_eos=True)
    assert again == cold[0] and body["usage"]["prompt_tokens_details"]["cached_tokens"] > 500


@pytest.mark.san
def test_some_streams(lockstep, tiny):
    """A small version, for slow builds: eight streams, a rank killed."""
    with serving(lockstep, tiny, "--tp", 2, "--ctx", 4096, "--kv-memory", 64, "--hang-ms", 10000) as server:
        alone = [content_of(stream(server, i, max_tokens=40).frames()) for i in range(8)]
        calls = [stream(server, i, max_tokens=40) for i in range(8)]
        calls[0].read_chunks(3)
        os.kill(server.ranks()[1], signal.SIGKILL)
        assert [content_of(call.frames()) for call in calls] == alone
        assert server.world()["rebuilds"] == 1
        server.wait_idle()
        assert server.stop() == 0


@pytest.mark.san
def test_full_queue(lockstep, tiny):
    """One runs, two wait, the next is told to come again; what waited is served."""
    with serving(lockstep, tiny, "--tp", 1, "--max-running", 1, "--max-queue", 2, "--ctx", 4096,
                 "--kv-memory", 64) as server:
        runs = stream(server, 0, max_tokens=3000)
        runs.read_chunks(2)
        waiting = [stream(server, i, max_tokens=5) for i in (1, 2)]
        poll(lambda: server.world()["waiting"] == 2, 10, "both wait")
        for n in (1, 2):
            status, headers, text = server.request(
                "POST", "/v1/chat/completions", chat_body(server, "one too many", n=n))
            assert status == 429 and int(headers["Retry-After"]) > 0, text
            assert b'"queue_full"' in text
        late = stream(server, 3)
        assert late.status() == 429 and b"data:" not in late.read, "a stream that has not begun has a status"
        runs.close()
        for call in waiting:
            assert content_of(call.frames())
        server.wait_idle()


def test_priorities(lockstep, tiny):
    """With one slot, those that matter more come first, in the order of their arrival."""
    with serving(lockstep, tiny, "--tp", 1, "--max-running", 1, "--ctx", 4096, "--kv-memory", 64) as server:
        runs = stream(server, 0, max_tokens=3500)
        runs.read_chunks(2)
        order, lock, calls = [], threading.Lock(), []

        def wait(name, call):
            call.read_until(b'"content":')
            with lock:
                order.append((name, time.monotonic()))
            call.read_until(b"data: [DONE]")

        for i, priority in enumerate([5, 0, 5, -3, 0]):
            call = stream(server, i, max_tokens=200, priority=priority)
            calls.append(threading.Thread(target=wait, args=((priority, i), call)))
            poll(lambda: server.world()["waiting"] == i + 1, 10, "it waits")  # noqa: B023
        for call in calls:
            call.start()
        runs.close()
        for call in calls:
            call.join()
        names = [name for name, _ in sorted(order, key=lambda one: one[1])]
        assert names == sorted(names)


class Client:
    """Keeps n requests open under one key, and counts the tokens that come."""

    def __init__(self, server, key, n, tag):
        self.server, self.key, self.n_open, self.tag = server, key, n, tag
        self.tokens, self.over = [0] * n, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]

    def run(self, i):
        n = 0
        while not self.over.is_set():
            n += 1
            call = Call(self.server, "/v1/chat/completions", chat_body(
                self.server, f"{self.tag} {i} {n}", stream=True, max_tokens=100, ignore_eos=True, seed=n,
                temperature=1), key=self.key)
            seen = 0
            while b"data: [DONE]" not in call.read[-40:] and not self.over.is_set():
                got = call.socket.recv(65536)
                assert got
                call.read += got
                now = len(re.findall(rb'"content":', call.read))
                self.tokens[i] += now - seen
                seen = now
            call.close()


def test_fair_shares(lockstep, tiny):
    """Two keys, one with four times as many open requests, and too few slots: equal shares."""
    keys = [word for key in KEYS for word in ("--api-key", key)]
    with serving(lockstep, tiny, "--tp", 1, *keys, "--max-running", 8, "--ctx", 1024, "--kv-memory", 64,
                 key=KEYS[0]) as server:
        clients = [Client(server, KEYS[0], 8, "one"), Client(server, KEYS[1], 32, "two")]
        for client in clients:
            for thread in client.threads:
                thread.start()
        poll(lambda: server.world()["waiting"] >= 20, 20, "more wait than run")
        generated = metric(server, "vllm:generation_tokens_total")
        before = [sum(client.tokens) for client in clients]
        poll(lambda: metric(server, "vllm:generation_tokens_total") - generated > 20000, 60, "tokens", 0.05)
        got = [sum(client.tokens) - b for client, b in zip(clients, before, strict=True)]
        for client in clients:
            client.over.set()
        for client in clients:
            for thread in client.threads:
                thread.join()
        share = got[0] / sum(got)
        assert 0.45 <= share <= 0.55, got
        server.wait_idle()
