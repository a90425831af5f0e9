# SPDX-License-Identifier: Apache-2.0
"""A running `lockstep serve` for tests: started on a free port, watched, ended."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

START_S = 120


def children(pid):
    """Process numbers of all descendants."""
    found, todo = [], [pid]
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                parents.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    while todo:
        for child in parents.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def rank_of(pid):
    """The number after --rank of a process whose first argument is `rank`; None for others."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        args = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if args[1] == b"rank":
            return int(args[args.index(b"--rank") + 1])
    return None


def is_alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


class Server:
    """`lockstep serve MODEL ARGUMENTS`; url and port once it listens."""

    def __init__(self, program, model, *arguments, env=None, key=None):
        self.args = [str(program), "serve", *([] if model is None else [str(model)]),
                     *(["--port", "0"] if "--port" not in arguments else []), *map(str, arguments)]
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, start_new_session=True,
                                        env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.lines, self.errors = [], []
        self.listening = threading.Event()
        self.port = None
        self.model = None
        self.key = key
        self.readers = [threading.Thread(target=self._read, args=of, daemon=True) for of in
                        ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for reader in self.readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            lines.append(line.decode("utf-8", "replace").rstrip("\n"))
            match = re.search(r"http://127\.0\.0\.1:(\d+)", lines[-1])
            if match and self.port is None:
                self.port = int(match.group(1))
                self.listening.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait_listening(self):
        end = time.time() + START_S
        while not self.listening.wait(0.05):
            assert self.process.poll() is None, f"it ended: {self.errors}"
            assert time.time() < end, "it does not listen"
        return self

    def wait_ready(self, timeout=START_S):
        """/health answers 200; returns its body."""
        self.wait_listening()
        end = time.time() + timeout
        while True:
            status, body = self.get("/health")
            if status == 200:
                if self.model is None:
                    self.model = self.get("/v1/models")[1]["data"][0]["id"]
                return body
            assert self.process.poll() is None, f"it ended: {self.errors}"
            assert time.time() < end, f"not ready: {status} {body}"
            time.sleep(0.05)

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, bytes) of one request."""
        headers = dict(headers or {})
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def get(self, path, **options):
        status, _, text = self.request("GET", path, **options)
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text.decode()

    def post(self, path, body, **options):
        status, _, text = self.request("POST", path, body, **options)
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text.decode()

    def chat(self, text, **fields):
        """Content and whole body of one answer that is not streamed."""
        body = {"model": self.model, "messages": [{"role": "user", "content": text}],
                "max_tokens": 32, "temperature": 0, **fields}
        status, answer = self.post("/v1/chat/completions", body)
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"], answer

    def stream(self, text, on_chunk=None, **fields):
        """The joined content of a streamed answer, and its chunks; on_chunk(number) after each."""
        body = {"model": self.model, "messages": [{"role": "user", "content": text}],
                "max_tokens": 32, "temperature": 0, "stream": True, **fields}
        return self.read_stream("/v1/chat/completions", body, on_chunk)

    def read_stream(self, path, body, on_chunk=None, timeout=120):
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode(), headers=headers)
        chunks, content = [], ""
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    return content, chunks
                chunk = json.loads(line[6:])
                chunks.append(chunk)
                assert "error" not in chunk, chunk
                for choice in chunk.get("choices", []):
                    content += (choice.get("delta", {}).get("content") or choice.get("text") or "")
                if on_chunk:
                    on_chunk(len(chunks))
        raise AssertionError("the stream ended without [DONE]")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ranks(self):
        """{rank: pid} of the living ranks."""
        return {rank: pid for pid in children(self.pid) if (rank := rank_of(pid)) is not None and is_alive(pid)}

    def world(self):
        return self.get("/world")[1]

    def kv(self):
        kv = self.world()["kv"]
        assert kv["free"] + kv["cached"] + kv["used"] == kv["total"], kv
        return kv

    def wait_idle(self, timeout=30):
        """Nothing runs or waits, and no page has a holder."""
        end = time.time() + timeout
        while True:
            world = self.world()
            if world["running"] == 0 and world["waiting"] == 0 and world["kv"]["used"] == 0:
                return world
            assert time.time() < end, f"still busy: {world}"
            time.sleep(0.05)

    def stop(self, timeout=60):
        """SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


@contextlib.contextmanager
def serving(program, model, *arguments, **options):
    """A server that is ready; killed at the end if the test has not ended it."""
    server = Server(program, model, *arguments, **options)
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()
