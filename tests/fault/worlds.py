# SPDX-License-Identifier: Apache-2.0
"""What the fault tests share: leaders as processes that can be watched, and models for them."""

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

# pytest changes its own environment while our threads start leaders.
ENVIRONMENT = dict(os.environ)

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"
ENDS_S = 120  # a leader that runs longer hangs; many times what is needed on a busy machine
READY_AGAIN = re.compile(r"the world is ready again: .*?(\d+) ms after the fault")


class Checkpoint:
    """A golden fixture with its prompt. llama-bf16 has 3 blocks of vocabulary and 4 heads, so that
    neither can be divided evenly among 3 ranks."""

    def __init__(self, name="llama-bf16"):
        folder = GOLDEN / name
        gguf = folder / "model.gguf"
        self.path = gguf if gguf.exists() else folder
        self.prompt = json.loads((folder / "fixture.json").read_text())["prompt"]

    def command(self, n_tokens, *options):
        return ["run", self.path, "--prompt-ids", ",".join(map(str, self.prompt)), "--ids",
                "-n", n_tokens, *options]


KINDS = ["kill", "stop", "hang-in-collective", "drop-frame", "corrupt-frame", "slow", "oom",
         "device-error"]  # as in rpc/fault.def
LAYER_KINDS = ["kill", "stop", "hang-in-collective", "slow", "oom"]  # those that may name a layer

GREEDY = ("--temp", 0)
SAMPLING = ("--temp", 1, "--seed", 5, "--repetition-penalty", 1.1)


def poll(condition, limit_s=30.0, what="a condition"):
    """The first true value of condition(). Fails after limit_s and says what (text, or a function
    that then makes it) did not come."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        late = time.monotonic() > deadline
        assert not late, f"not within {limit_s} s: {what() if callable(what) else what}"
        time.sleep(0.002)
    return value


def arguments_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


def ranks_of(leader_pid):
    """{rank: pid} of the living rank processes of a leader, which may itself be gone."""
    found = {}
    for entry in os.listdir("/proc"):
        words = arguments_of(entry) if entry.isdigit() else []
        if words[1:2] == ["rank"] and ["--leader", str(leader_pid)] in pairs(words):
            found[int(words[words.index("--rank") + 1])] = int(entry)
    return found


def pairs(words):
    return [words[i:i + 2] for i in range(len(words) - 1)]


def state_of(pid):
    """One letter, as in ps; empty if there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def shared_memory():
    return set(os.listdir("/dev/shm"))


class Leader:
    """A leader that runs: what it writes is collected by threads, so that it is never held up."""

    def __init__(self, lockstep, *arguments, env=None):
        self.arguments = [str(argument) for argument in arguments]
        self.process = subprocess.Popen(
            [lockstep, *self.arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**ENVIRONMENT, **(env or {})}, bufsize=0)
        self.pid = self.process.pid
        self.out, self.err = bytearray(), bytearray()
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self.threads = [threading.Thread(target=self._collect, args=pipe, daemon=True)
                        for pipe in pipes]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _collect(pipe, into):
        while data := os.read(pipe.fileno(), 65536):
            into.extend(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        for pid in ranks_of(self.pid).values():  # only after a failure
            kill(pid, signal.SIGKILL)
        self.process.wait()
        self.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def __str__(self):
        return f"lockstep {' '.join(self.arguments)}\n{self.stderr}"

    @property
    def stderr(self):
        return bytes(self.err).decode(errors="replace")

    def write(self, text):
        os.write(self.process.stdin.fileno(), text.encode())

    def ranks(self):
        return ranks_of(self.pid)

    def wait_for(self, text, times=1, limit_s=ENDS_S):
        """Until standard error holds the text so often."""
        def seen():
            ended = self.process.poll() is not None
            if ended:
                self.join()
            found = self.stderr.count(text) >= times
            assert found or not ended, f"ended without {text!r}:\n{self}"
            return found

        poll(seen, limit_s, lambda: f"{text!r} {times} times in\n{self}")

    def wait_for_tokens(self, n, limit_s=ENDS_S):
        poll(lambda: self.out.count(b" ") >= n, limit_s, lambda: f"{n} tokens from\n{self}")

    def join(self):
        """Until all that it wrote before its end is there."""
        for thread in self.threads:
            thread.join()

    def end(self, limit_s=ENDS_S):
        """Its exit status (-n: killed by signal n), with nothing of it left."""
        try:
            status = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit_s} s: {self}") from None
        if status >= 0:  # else they may need a moment
            assert self.ranks() == {}, f"ranks outlive their leader: {self}"
        self.join()
        return status

    def holdings(self):
        """What it holds: its descriptors and its mappings of shared memory, by kind."""
        held = collections.Counter()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
            except FileNotFoundError:  # closed in this moment
                continue
            held["fd " + re.sub(r":\[\d+\]$", "", target)] += 1
        for line in pathlib.Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            if "memfd:" in line:
                held["map " + line.partition("memfd:")[2]] += 1
        return held

    def recoveries_ms(self):
        return [int(ms) for ms in READY_AGAIN.findall(self.stderr)]


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def run(lockstep, *arguments, limit_s=ENDS_S):
    """A leader that must end well; the bytes of its answer and the leader."""
    with Leader(lockstep, *arguments) as leader:
        assert leader.end(limit_s) == 0, str(leader)
    return bytes(leader.out), leader


def chat(lockstep, talking, *flags, env=None):
    return Leader(lockstep, "chat", talking, "-n", 20, "--verbose", *flags, env=env)


def talk(leader, *lines):
    """Says the lines, each when the one before is answered."""
    for line in lines:
        n = leader.stderr.count("tokens/s; seed")
        leader.write(line + "\n")
        leader.wait_for("tokens/s; seed", n + 1)


def quit_chat(leader):
    leader.write("/quit\n")
    assert leader.end() == 0, str(leader)


class Expected:
    """Undisturbed answers, by one rank, each computed once."""

    def __init__(self, lockstep):
        self.lockstep = lockstep
        self.answers = {}
        self.lock = threading.Lock()

    def __call__(self, checkpoint, n_tokens, options):
        command = checkpoint.command(n_tokens, *options, "--tp", 1)
        return self._once(tuple(map(str, command)), lambda: run(self.lockstep, *command)[0])

    def talk(self, talking, lines, options):
        def answer():
            with chat(self.lockstep, talking, *options, "--tp", 1) as leader:
                talk(leader, *lines)
                quit_chat(leader)
            return bytes(leader.out)

        return self._once((talking, lines, options), answer)

    def _once(self, key, answer):
        with self.lock:
            if key not in self.answers:
                self.answers[key] = answer()
            return self.answers[key]


def byte_characters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    return [*(table | {byte: chr(256 + i) for i, byte in enumerate(others)}).values()]


def make_talking(checkpoint, folder):
    """A copy of a checkpoint's folder that lockstep chat takes: each byte is a token, and every
    further id some text of its own."""
    vocab = json.loads((checkpoint.path / "config.json").read_text())["vocab_size"]
    tokens = byte_characters() + [f"x{i:x}" for i in range(256, vocab)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    for file in checkpoint.path.iterdir():
        shutil.copy(file, folder)
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "chat_template": "{% for m in messages %}{{ m.content }};{% endfor %}"}))
    return folder
