# SPDX-License-Identifier: Apache-2.0
"""Many at once: no token lost or in the wrong stream, also while ranks die; fair shares, the bound
of the queue, priorities."""

import json
import os
import re
import selectors
import signal

import pytest
from serving import serving
from wire import Call, chat_body, make_tiny, poll

STREAMS = 64
IDLE = 500
FIELDS = {"max_tokens": 150, "ignore_eos": True, "temperature": 0.9}
KEYS = ("key-of-one", "key-of-two")
SLOW = ("--fault", "slow:rank=0,ms=2")  # so that what takes the only slot keeps it while a test looks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def server(lockstep, tiny):
    with serving(lockstep, tiny, "--tp", 2, "--ctx", 4096, "--kv-memory", 64, "--hang-ms", 1000) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


def stream(server, i, headers=(), **fields):
    return Call(server, "/v1/chat/completions", chat_body(
        server, f"This is the question of client {i}, and of nobody else.", stream=True,
        **{**FIELDS, "seed": i, **fields}), headers)


def content_of(frames):
    assert not [f for f in frames if "error" in f]
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
        poll(lambda: server.world()["rebuilds"] == 1, 30, "rebuilt")
        server.wait_idle()
        assert server.stop() == 0


@pytest.mark.san
def test_full_queue(lockstep, tiny):
    """One runs, two wait, the next is told to come again; what waited is served."""
    with serving(lockstep, tiny, "--tp", 1, "--max-running", 1, "--max-queue", 2, "--ctx", 4096,
                 "--kv-memory", 64, *SLOW) as server:
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
    """With one slot, those that matter more come first, in the order of their arrival; the log says
    in which order they ended."""
    with serving(lockstep, tiny, "--tp", 1, "--max-running", 1, "--ctx", 4096, "--kv-memory", 64, *SLOW) as server:
        runs = stream(server, 0, max_tokens=3500)
        runs.read_chunks(2)
        calls = []
        for i, priority in enumerate([5, 0, 5, -3, 0]):
            calls.append(stream(server, i, max_tokens=20, priority=priority,
                                headers=[f"X-Request-Id: priority{priority}.{i}"]))
            poll(lambda: server.world()["waiting"] == i + 1, 10, "it waits")  # noqa: B023
        runs.close()
        for call in calls:
            call.frames()
        def ends():
            return re.findall(r"priority(-?\d)\.(\d)", "\n".join(server.errors))

        poll(lambda: len(ends()) == len(calls), 10, lambda: f"a log line for each: {server.errors}")
        assert ends() == [("-3", "3"), ("0", "1"), ("0", "4"), ("5", "0"), ("5", "2")]


class Clients:
    """Keeps so many requests open under each key, all read by one thread, and counts their tokens."""

    def __init__(self, server, open_by_key):
        self.server, self.n = server, 0
        self.tokens = dict.fromkeys(open_by_key, 0)
        self.selector = selectors.DefaultSelector()
        for key, n in open_by_key.items():
            for _ in range(n):
                self.ask(key)

    def ask(self, key):
        self.n += 1
        call = Call(self.server, "/v1/chat/completions", chat_body(
            self.server, f"{key} {self.n}", max_tokens=25, ignore_eos=True, seed=self.n, temperature=1),
            key=key)
        self.selector.register(call.socket, selectors.EVENT_READ, (key, call))

    def take(self):
        for entry, _ in self.selector.select(10):
            key, call = entry.data
            got = call.socket.recv(65536)
            assert got, "closed"
            call.read += got
            head, _, body = call.read.partition(b"\r\n\r\n")
            size = re.search(rb"^Content-Length: (\d+)\r?$", head, re.M | re.I)
            if size and len(body) == int(size.group(1)):
                self.tokens[key] += json.loads(body)["usage"]["completion_tokens"]
                self.selector.unregister(call.socket)
                call.close()
                self.ask(key)

    def run(self, tokens):
        """Until so many have come in all; those of each key."""
        before = dict(self.tokens)
        while sum(self.tokens.values()) - sum(before.values()) < tokens:
            self.take()
        return [self.tokens[key] - before[key] for key in self.tokens]

    def close(self):
        for entry in list(self.selector.get_map().values()):
            entry.data[1].close()
        self.selector.close()


def test_fair_shares(lockstep, tiny):
    """Two keys, one with four times as many open requests, and too few slots: equal shares. A rank is
    slow on purpose: otherwise so small a model waits for its clients."""
    keys = [word for key in KEYS for word in ("--api-key", key)]
    with serving(lockstep, tiny, "--tp", 2, *keys, "--max-running", 8, "--ctx", 1024, "--kv-memory", 64,
                 "--fault", "slow:rank=1,step=1,ms=4", key=KEYS[0]) as server:
        # so many that none of the queues runs dry while a busy machine does not run the clients
        clients = Clients(server, {KEYS[0]: 50, KEYS[1]: 200})
        clients.run(800)  # until both have been there for a while
        got = clients.run(3000)
        assert server.world()["waiting"] > 30, "it is saturated"
        clients.close()
        assert 0.45 <= got[0] / sum(got) <= 0.55, got
        server.wait_idle()
