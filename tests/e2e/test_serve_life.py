# SPDX-License-Identifier: Apache-2.0
"""A server from its start to its end: exit statuses, signals, drains, what is left of it, health."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time

import pytest
from serving import Server, children, is_alive, rank_of, serving
from wire import Call, chat_body, holdings, make_tiny, poll

LONG = {"max_tokens": 1500, "ignore_eos": True, "seed": 4, "temperature": 0.9}
WORLD = ("--tp", 2, "--ctx", 4096, "--kv-memory", 64)
# Every collective takes so long that no answer of some hundred tokens is over while a test looks, on
# however fast a machine.
SLOW = ("--fault", "slow:rank=0,ms=2")
FORCED_S = 3
ORPHANS_S = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


def content_of(frames):
    assert not [f for f in frames if "error" in f]
    return "".join(c["delta"].get("content") or "" for f in frames for c in f.get("choices", []))


def stream(server, text, **fields):
    return Call(server, "/v1/chat/completions", chat_body(server, text, stream=True, **{**LONG, **fields}))


def errors(server):
    """The lines of standard error, once it has ended."""
    server.process.wait(30)
    poll(lambda: not any(t.is_alive() for t in server.readers), 10, "the end of its output")
    return server.errors


# --- Signals and exit statuses ---


@pytest.mark.san
def test_drain(lockstep, tiny):
    """SIGTERM under streams, and a rank killed meanwhile: they end with their texts, then 0."""
    with serving(lockstep, tiny, *WORLD, *SLOW) as server:
        texts = ["drain one", "drain two"]
        expected = [content_of(stream(server, text, max_tokens=200).frames()) for text in texts]
        calls = [stream(server, text, max_tokens=200) for text in texts]
        for call in calls:
            call.read_chunks(5)
        server.process.send_signal(signal.SIGTERM)
        poll(lambda: server.get("/health")[1]["state"] == "draining", 10, "draining")
        os.kill(server.ranks()[1], signal.SIGKILL)
        late = Call(server, "/v1/chat/completions", chat_body(server, "too late"))
        late.read_until(b"}}")
        assert late.status() == 503 and b"Retry-After:" in late.read, late.read
        assert json.loads(late.read.split(b"\r\n\r\n")[1])["error"]["code"] == "draining"
        assert [content_of(call.frames()) for call in calls] == expected
        assert server.process.wait(20) == 0
        assert any("rebuilding" in line for line in errors(server))
        assert children(server.pid) == []


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_second_signal(lockstep, tiny, frozen):
    """It does not wait: neither for streams nor for a rank that does not move."""
    with serving(lockstep, tiny, *WORLD, *SLOW, "--hang-ms", 60000) as server:
        call = stream(server, "hurry", max_tokens=4000)
        call.read_chunks(3)
        ranks = server.ranks()
        if frozen:
            os.kill(ranks[1], signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        poll(lambda: server.get("/health")[1]["state"] == "draining", 10, "draining")
        assert server.process.poll() is None
        if frozen:  # which gives the time to look
            assert server.post("/v1/chat/completions", chat_body(server, "late"))[0] == 503
            assert re.search(r'admission_rejections_total\{.*reason="draining"\} 1\n', server.get("/metrics")[1])
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(20)
        assert status not in (0, -signal.SIGTERM) and time.monotonic() - began < FORCED_S
        call.read_until(b"data: [DONE]")
        assert b'"error"' in call.read
        poll(lambda: not any(map(is_alive, ranks.values())), ORPHANS_S, "an end to the ranks")


def test_drain_timeout(lockstep, tiny):
    with serving(lockstep, tiny, *WORLD, *SLOW, "--drain-timeout", 0.2) as server:
        call = stream(server, "endless", max_tokens=4000)
        call.read_chunks(3)
        os.kill(server.ranks()[0], signal.SIGSTOP)  # so that it cannot end in time
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) != 0
        assert time.monotonic() - began < 10
        call.read_until(b"data: [DONE]")
        assert b'"error"' in call.read


def test_interrupt_of_the_group(lockstep, tiny):
    """Ctrl-C in a terminal reaches the leader alone: its ranks work until it has drained."""
    with serving(lockstep, tiny, *WORLD) as server:
        expected = content_of(stream(server, "interrupted").frames())
        ranks = server.ranks()
        assert all(os.getpgid(pid) != os.getpgid(server.pid) for pid in ranks.values())
        call = stream(server, "interrupted")
        call.read_chunks(3)
        os.killpg(server.pid, signal.SIGINT)
        assert content_of(call.frames()) == expected
        assert server.process.wait(20) == 0
        assert not any("rebuilding" in line for line in errors(server))


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_leader_killed(lockstep, tiny, frozen):
    with serving(lockstep, tiny, *WORLD, *SLOW, "--hang-ms", 60000) as server:
        call = stream(server, "orphans", max_tokens=4000)
        call.read_chunks(3)
        everybody = children(server.pid)
        ranks = server.ranks()
        assert len(ranks) == 2
        if frozen:
            os.kill(ranks[0], signal.SIGSTOP)
        server.process.kill()
        server.process.wait(10)
        poll(lambda: not any(map(is_alive, everybody)), ORPHANS_S, "an end to the ranks")


@pytest.mark.san
def test_bad_model(lockstep, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        server = Server(lockstep, path)
        assert server.process.wait(20) not in (0, None)
        assert len(errors(server)) == 1 and str(path) in server.errors[0]
        assert server.lines == []


@pytest.mark.san
def test_busy_port(lockstep, tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(lockstep, tiny, "--port", port)
        assert server.process.wait(20) not in (0, None)
        line, = errors(server)
        assert str(port) in line and "--port" in line and f"pid {os.getpid()}" in line


def test_address_is_printed(lockstep, tiny):
    with serving(lockstep, tiny, "--tp", 1) as server:
        assert server.port > 1024
        assert sum(bool(re.search(rf"http://127\.0\.0\.1:{server.port}\b", line)) for line in server.lines)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", server.port), timeout=2)
        assert server.stop() == 0
        with pytest.raises(OSError):
            server.connect()


def test_hangup_reads_keys(lockstep, tiny, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first-key # mine\n\n# nobody's\n")
    with serving(lockstep, tiny, "--tp", 1, "--api-key-file", keys, key="first-key") as server:
        call = stream(server, "keys change", max_tokens=3000)
        call.read_chunks(2)
        keys.write_text("second-key\n")
        server.process.send_signal(signal.SIGHUP)
        poll(lambda: server.get("/version")[0] == 401, 10, "the old key's end")
        server.key = "second-key"
        assert server.get("/version")[0] == 200
        keys.write_text("# none\n")
        server.process.send_signal(signal.SIGHUP)
        poll(lambda: any("keys stay as they were" in line for line in server.errors), 10, "a complaint")
        assert server.get("/version")[0] == 200, "a file without keys does not open the server"
        assert not any("-key" in line for line in server.errors if "api-key" not in line)
        call.close()


# --- What it holds ---


def test_holds_what_it_held(lockstep, tiny):
    """Descriptors and mappings after 50 requests, some abandoned, and three rebuilds."""
    def is_as(before):
        server.wait_idle()
        return not holdings(server.pid) - before

    with serving(lockstep, tiny, *WORLD) as server:
        server.chat("warm", max_tokens=2)
        server.wait_idle()
        poll(lambda: "fd socket" in holdings(server.pid), 5)
        before = holdings(server.pid)
        for i in range(50):
            if i % 5 == 4:
                call = stream(server, f"abandoned {i}")
                call.read_chunks(2)
                call.close()
            else:
                server.chat(f"request {i}", max_tokens=4)
        for i in range(3):
            epoch = server.world()["epoch"]
            os.kill(server.ranks()[i % 2], signal.SIGKILL)
            poll(lambda: server.world()["epoch"] > epoch and server.get("/health")[0] == 200, 30, "healed")
            server.chat(f"after {i}", max_tokens=4)
        poll(lambda: is_as(before), 10,
             lambda: f"what was held, and not {holdings(server.pid) - before} more")
        assert server.world()["rebuilds"] == 3
        pids = {str(server.pid), *map(str, server.ranks().values())}
        assert not [n for n in os.listdir("/dev/shm") if "lockstep" in n and any(p in n for p in pids)]


# --- Health ---


class Pulse:
    """Asks for /health all the time; the longest that it took, and what it said."""

    def __init__(self, server):
        self.server, self.slowest, self.states, self.over = server, 0.0, set(), threading.Event()
        self.n, self.wrong = 0, []
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(0.02):
            began = time.monotonic()
            status, body = self.server.get("/health", timeout=20)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.n += 1
            self.states.add(body["state"])
            if (status == 200) != (body["state"] == "ready"):
                self.wrong.append(body)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_health_answers_always(lockstep, tiny):
    """While it loads, with a body of 15 MiB, under streams, in rebuilds after deaths and hangs."""
    server = Server(lockstep, tiny, *WORLD, "--hang-ms", 500)
    try:
        server.wait_listening()
        assert server.get("/health")[1]["state"] in ("loading", "ready")
        server.wait_ready()
        with Pulse(server) as pulse:
            body = json.dumps(chat_body(server, "word " * (3 << 20))).encode()
            answers = []
            big = threading.Thread(target=lambda: answers.append(
                server.request("POST", "/v1/chat/completions", body)))
            calls = [stream(server, f"Count: {i} " + "1 2 3 " * 300) for i in range(8)]
            big.start()
            for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
                rebuilds = server.world()["rebuilds"]
                os.kill(server.ranks()[0], number)
                poll(lambda: (w := server.world())["rebuilds"] > rebuilds and w["state"] == "ready",  # noqa: B023
                     60, "healed")
            for call in calls:
                call.frames()
            big.join()
            assert answers[0][0] == 400 and b"context_length_exceeded" in answers[0][2]
        assert pulse.n > 10 and "ready" in pulse.states and not pulse.wrong
        assert pulse.slowest < 1
    finally:
        server.kill()


def kill_until_failed(server):
    """Kills ranks as soon as they are there, so that no step is committed in between."""
    def is_failed():
        for pid in server.ranks().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return server.get("/health")[1]["state"] == "failed"
    poll(is_failed, 60, "failed", every_s=0.001)


def test_failed(lockstep, tiny):
    """Over its restart budget: it says so, streams end with an error frame, and it stays up."""
    with serving(lockstep, tiny, *WORLD, *SLOW, "--restart-budget", 1) as server:
        call = stream(server, "doomed", max_tokens=4000)
        call.read_chunks(3)
        kill_until_failed(server)
        status, body = server.get("/health")
        assert status == 503 and body["state"] == "failed" and body["why"], body
        call.read_until(b"data: [DONE]")
        last = re.findall(rb"^data: (.*?)\r?$", call.read, re.M)[-2]
        error = json.loads(last)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]
        status, headers, text = server.request("POST", "/v1/chat/completions", chat_body(server, "hello?"))
        assert status == 503 and int(headers["Retry-After"]) > 0
        assert json.loads(text)["error"]["message"]
        world = server.world()
        assert world["state"] == "failed" and world["kv"]["used"] == 0
        assert [rank for pid in children(server.pid) if (rank := rank_of(pid)) is not None] == []
        assert server.stop() == 0
