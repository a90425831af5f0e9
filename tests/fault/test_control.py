# SPDX-License-Identifier: Apache-2.0
"""lockstep fault: faults asked of a running leader, through its control socket."""

import json
import os
import pathlib
import signal
import stat
import subprocess

import pytest
import worlds

N_RANKS = 3
N_TOKENS = 400
# the flags of each kind, and what is injected
KINDS = {
    "kill": (["--kill"], ""),
    "stop": (["--stop"], ""),
    "hang-in-collective": (["--hang-in-collective"], ""),
    "drop-frame": (["--drop-frame"], ""),
    "corrupt-frame": (["--corrupt-frame"], ""),
    "slow": (["--slow", 4], ",ms=4"),
    "oom": (["--oom"], ""),
    "device-error": (["--device-error"], ""),
}


class Served:
    """A leader that takes faults, slow enough to be hit: each of its steps takes some 30 ms until
    its ranks are replaced."""

    def __init__(self, lockstep, checkpoint, folder, *flags):
        self.lockstep = lockstep
        self.env = {"XDG_RUNTIME_DIR": str(folder)}
        self.leader = worlds.Leader(
            lockstep, *checkpoint.command(N_TOKENS, *worlds.SAMPLING, "--tp", N_RANKS, "--hang-ms",
                                          500, "--fault", "slow:rank=0,step=2,ms=4", *flags),
            env=self.env)
        self.socket = folder / f"lockstep/{self.leader.pid}.sock"

    def __enter__(self):
        self.leader.wait_for_tokens(2)
        return self

    def __exit__(self, *exception):
        self.leader.__exit__(*exception)

    def fault(self, *flags):
        return subprocess.run([self.lockstep, "fault", *map(str, flags)], capture_output=True,
                              encoding="utf-8", timeout=60, check=False,
                              env={**os.environ, **self.env})

    def end(self):
        assert self.leader.end() == 0, str(self.leader)
        assert not self.socket.exists()
        return bytes(self.leader.out)


@pytest.fixture
def served(lockstep, checkpoint, tmp_path):
    with Served(lockstep, checkpoint, tmp_path, "--allow-faults") as served:
        yield served


@pytest.fixture
def undisturbed(checkpoint, expected):
    return expected(checkpoint, N_TOKENS, worlds.SAMPLING)


def accepted(process, spec):
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("\n") and process.stdout.count("\n") == 1
    assert json.loads(process.stdout) == {"ok": True, "fault": spec}


def refused(process, status, text):
    assert process.returncode == status, process.stderr
    assert process.stdout == ""
    assert process.stderr.startswith("lockstep: ") and process.stderr.count("\n") == 1
    assert text in process.stderr


@pytest.mark.parametrize("by", ["pid", "socket"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(served, undisturbed, kind, by):
    flags, late = KINDS[kind]
    target = ["--pid", served.leader.pid] if by == "pid" else ["--socket", served.socket]
    spec = f"{kind}:rank=2,step=9{late}"
    accepted(served.fault(*flags, "--rank", 2, "--at-step", 9, *target), spec)
    if kind == "slow":  # it replaces nobody, and an answer takes long
        served.leader.wait_for(f": {spec}\n")
        accepted(served.fault("--kill", "--rank", 0, *target), "kill:rank=0")
    assert served.end() == undisturbed
    assert f"injected: {spec}\n" in served.leader.stderr, str(served.leader)


def test_these_are_all_kinds():
    assert set(KINDS) == set(worlds.KINDS)


@pytest.mark.san
def test_at_once_and_in_a_layer(served, undisturbed):
    target = ["--pid", served.leader.pid]
    accepted(served.fault("--kill", "--rank", 1, "--at-step", 60, "--at-layer", 1, *target),
             "kill:rank=1,step=60,layer=1")
    accepted(served.fault("--corrupt-frame", "--rank", 0, *target), "corrupt-frame:rank=0")
    assert served.end() == undisturbed
    for spec in "kill:rank=1,step=60,layer=1", "corrupt-frame:rank=0":
        assert f"injected: {spec}\n" in served.leader.stderr, str(served.leader)


def test_one_after_the_other(lockstep, checkpoint, tmp_path, undisturbed):
    """Each in a world of its own, where it is the newest and those before it are done."""
    slow = [word for epoch in range(2, 6)
            for word in ("--fault", f"slow:rank=0,ms=4,epoch={epoch}")]
    with Served(lockstep, checkpoint, tmp_path, "--allow-faults", *slow) as served:
        for i, flag in enumerate(["--kill", "--stop", "--corrupt-frame", "--kill", "--oom"]):
            accepted(served.fault(flag, "--rank", i % N_RANKS, "--pid", served.leader.pid),
                     f"{flag[2:]}:rank={i % N_RANKS}")
            served.leader.wait_for("the world is ready again", i + 1)
        assert served.end() == undisturbed
        assert served.leader.stderr.count("injected: ") >= 5 + 5, str(served.leader)


def test_a_socket_only_for_its_user(served):
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700
    served.leader.process.send_signal(signal.SIGTERM)
    assert served.leader.end(30) == 128 + signal.SIGTERM
    assert not served.socket.exists()


@pytest.mark.san
def test_what_is_refused_does_not_disturb(served, undisturbed):
    pid = served.leader.pid
    at = ["--pid", pid]
    refused(served.fault("--kill", "--rank", N_RANKS, *at), 1, "there is no rank 3")
    refused(served.fault("--kill", "--rank", 1, "--pid", 1 << 22), 1, "no process 4194304")
    refused(served.fault("--kill", "--rank", 1, "--pid", os.getpid()), 1, "no control socket")
    refused(served.fault("--kill", "--rank", 1, "--socket", f"{served.socket}.not"), 1, "listens")
    for flags in (["--rank", 1, *at],  # no kind
                  ["--kill", "--stop", "--rank", 1, *at],  # two
                  ["--kill", *at],  # no rank
                  ["--kill", "--rank", 1],  # no leader
                  ["--kill", "--rank", 1, *at, "--socket", served.socket],  # two
                  ["--kill", "--rank", -1, *at],
                  ["--kill", "--rank", 16, *at],
                  ["--kill", "--rank", 1, "--at-step", 0, *at],
                  ["--kill", "--rank", 1, "--at-layer", -1, *at],
                  ["--drop-frame", "--rank", 1, "--at-layer", 0, *at],
                  ["--slow", 0, "--rank", 1, *at],
                  ["--slow", "soon", "--rank", 1, *at],
                  ["--kill", "--rank", 1, "--pid", 0]):
        process = served.fault(*flags)
        assert (process.returncode, process.stdout) == (2, ""), flags
        assert process.stderr.startswith("lockstep: "), flags
    accepted(served.fault("--kill", "--rank", 0, *at), "kill:rank=0")  # ends its slowness
    assert served.end() == undisturbed
    assert served.leader.stderr.count("rebuilding") == 1, str(served.leader)


def test_without_allow_faults_there_is_no_socket(lockstep, checkpoint, tmp_path):
    with Served(lockstep, checkpoint, tmp_path) as served:
        assert not served.socket.exists()
        # a leader of that number that was killed long ago may have left one where there is no XDG folder
        pathlib.Path(f"/tmp/lockstep-{os.getuid()}/{served.leader.pid}.sock").unlink(missing_ok=True)
        refused(served.fault("--kill", "--rank", 1, "--pid", served.leader.pid), 1,
                "no control socket")
        served.leader.process.send_signal(signal.SIGTERM)
        assert served.leader.end(30) == 128 + signal.SIGTERM


def test_chat(lockstep, talking, expected, tmp_path):
    """While it answers: a long answer, slowed down."""
    lines = ("one",)
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    flags = [*worlds.SAMPLING, "--tp", N_RANKS, "--hang-ms", 500, "--allow-faults", "--fault",
             "slow:rank=0,step=2,ms=50"]
    with worlds.chat(lockstep, talking, *flags, env=env) as leader:
        leader.write("one\n")
        leader.wait_for("injected fault")
        process = subprocess.run(
            [lockstep, "fault", "--kill", "--rank", "1", "--pid", str(leader.pid)], timeout=60,
            capture_output=True, encoding="utf-8", check=False, env={**os.environ, **env})
        accepted(process, "kill:rank=1")
        leader.wait_for("tokens/s; seed")
        worlds.quit_chat(leader)
    assert "injected: kill:rank=1\n" in leader.stderr, str(leader)
    assert bytes(leader.out) == expected.talk(talking, lines, worlds.SAMPLING), str(leader)


def test_chat_at_its_prompt(lockstep, talking, expected, tmp_path):
    """While it waits for a line."""
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    flags = [*worlds.SAMPLING, "--tp", N_RANKS, "--hang-ms", 500, "--allow-faults"]
    with worlds.chat(lockstep, talking, *flags, env=env) as leader:
        worlds.talk(leader, "one")
        process = subprocess.run(
            [lockstep, "fault", "--kill", "--rank", "1", "--pid", str(leader.pid)], timeout=60,
            capture_output=True, encoding="utf-8", check=False, env={**os.environ, **env})
        accepted(process, "kill:rank=1")
        leader.wait_for("ready again")
        worlds.talk(leader, "two")
        worlds.quit_chat(leader)
    assert bytes(leader.out) == expected.talk(talking, ("one", "two"), worlds.SAMPLING), str(leader)
