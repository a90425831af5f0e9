# SPDX-License-Identifier: Apache-2.0
"""Requests by hand, for tests that go away in the middle; tiny models; what a process holds."""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import time

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"


def poll(condition, limit_s=30.0, what="a condition", every_s=0.01):
    """The first true value of condition(); fails after limit_s and says what did not come."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit_s} s: {what() if callable(what) else what}"
        time.sleep(every_s)
    return value


def state_of(pid):
    """One letter, as in ps; empty if there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@contextlib.contextmanager
def frozen(*pids):
    """These processes stand still meanwhile. Ranks that do so keep a request running for as long as a
    test wants it to run, on however fast or slow a machine, if --hang-ms is longer."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    poll(lambda: all(state_of(pid) == "T" for pid in pids), 30, lambda: f"stopped: {list(map(state_of, pids))}")
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def chat_body(server, text, **fields):
    return {"model": server.model, "messages": [{"role": "user", "content": text}], "max_tokens": 32,
            "temperature": 0, **fields}


class Call:
    """One POST on a connection of its own, sent at once; the answer is read by whoever wants it."""

    def __init__(self, server, path, body, headers=(), key=None):
        key = key or server.key
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}",
                 "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        self.socket = server.connect()
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        self.read = b""

    def read_until(self, mark):
        while mark not in self.read:
            got = self.socket.recv(65536)
            assert got, f"closed before {mark!r}: {self.read[-300:]!r}"
            self.read += got

    def read_chunks(self, n):
        """Until n data frames have come."""
        while self.read.count(b"data: ") < n:
            got = self.socket.recv(65536)
            assert got, f"closed before frame {n}: {self.read[-300:]!r}"
            self.read += got

    def close(self):
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def whole_frames(self):
        """What the data frames hold that have come as a whole, in order."""
        return [json.loads(line) for line in re.findall(rb"^data: (\{.*\})\r?\n", self.read, re.M)]

    def frames(self):
        """Reads to [DONE], then as whole_frames."""
        self.read_until(b"data: [DONE]")
        return self.whole_frames()

    def status(self):
        self.read_until(b"\r\n\r\n")
        return int(self.read.split(b" ", 2)[1])


def metric(server, name, **labels):
    """The sum over a metric's lines that carry these labels."""
    total = 0.0
    for line in server.get("/metrics")[1].splitlines():
        match = re.match(r"([^\s{]+)(?:\{(.*)\})? (\S+)$", line)
        if match and match.group(1) == name and \
                all(f'{k}="{v}"' in (match.group(2) or "") for k, v in labels.items()):
            total += float(match.group(3))
    return total


def byte_characters():
    """The character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def make_tiny(folder, fixture="llama-bf16", context=4096):
    """A model of a few thousand weights that chats: a byte is a token, further ids are words. It is
    nothing but fast: a step takes less than the way to the client."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (GOLDEN / fixture).iterdir():
        shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = context
    (folder / "config.json").write_text(json.dumps(config))
    tokens = byte_characters() + [f"x{i:x}" for i in range(256, config["vocab_size"])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "chat_template": "{% for m in messages %}{{ m.content }};{% endfor %}"}))
    return folder


def holdings(pid):
    """A process's descriptors and its mappings of shared memory, by kind."""
    held = collections.Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed in this moment
            held["fd " + re.sub(r":\[\d+\]$", "", os.readlink(f"/proc/{pid}/fd/{name}"))] += 1
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "memfd:" in line:
            held["map " + line.partition("memfd:")[2]] += 1
    return held
