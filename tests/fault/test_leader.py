# SPDX-License-Identifier: Apache-2.0
"""What the leader holds across rebuilds, faults that nobody announced to it, and its own end."""

import re
import signal
import time

import pytest
import worlds

N_RANKS = 3
WORLD = ("--tp", N_RANKS, "--hang-ms", 500)
PATIENT = ("--tp", N_RANKS, "--hang-ms", 30000)  # a fault that stays as long as the test needs it
LINES = ("one", "two", "three")


def quick(lockstep, checkpoint, n_tokens, *flags):
    return worlds.Leader(lockstep, *checkpoint.command(n_tokens, *worlds.SAMPLING, *flags))


@pytest.mark.parametrize("reprefill", [[], ["--reprefill"]], ids=["kept", "reprefill"])
@pytest.mark.parametrize("kind", worlds.KINDS)
def test_the_leader_holds_what_it_held_before(lockstep, talking, expected, kind, reprefill):
    """Descriptors and mappings by kind, between two answers; the fault comes in the second."""
    spec = f"{kind}:rank=1,step=30" + (",ms=3" if kind == "slow" else "")
    flags = [*worlds.SAMPLING, *WORLD, *reprefill, "--fault", spec]
    with worlds.chat(lockstep, talking, *flags) as leader:
        worlds.talk(leader, LINES[0])
        before = leader.holdings()
        worlds.talk(leader, LINES[1])
        assert "injected fault" in leader.stderr, str(leader)
        worlds.poll(lambda: leader.holdings() == before, 5,
                    lambda: f"what was held, and not {leader.holdings() - before} more")
        worlds.talk(leader, LINES[2])
        worlds.quit_chat(leader)
    assert bytes(leader.out) == expected.talk(talking, LINES, worlds.SAMPLING), str(leader)


@pytest.mark.san
@pytest.mark.parametrize("rank", range(N_RANKS))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_ranks_that_die_between_two_answers(lockstep, talking, expected, number, rank):
    with worlds.chat(lockstep, talking, *worlds.SAMPLING, *WORLD) as leader:
        worlds.talk(leader, LINES[0])
        time.sleep(0.06)  # the ranks are idle after 20 ms
        worlds.kill(leader.ranks()[rank], number)
        worlds.talk(leader, *LINES[1:])
        worlds.quit_chat(leader)
    assert leader.stderr.count("rebuilding") == 1, str(leader)
    assert bytes(leader.out) == expected.talk(talking, LINES, worlds.SAMPLING), str(leader)


@pytest.mark.san
@pytest.mark.parametrize("rank", range(N_RANKS))
def test_an_idle_world_heals_unasked(lockstep, talking, expected, rank):
    """While the chat waits for a line."""
    with worlds.chat(lockstep, talking, *worlds.SAMPLING, *WORLD) as leader:
        worlds.talk(leader, LINES[0])
        dead = leader.ranks()
        worlds.kill(dead[rank], signal.SIGKILL)
        leader.wait_for("ready again")
        assert not set(dead.values()) & set(leader.ranks().values())
        worlds.talk(leader, *LINES[1:])
        worlds.quit_chat(leader)
    assert bytes(leader.out) == expected.talk(talking, LINES, worlds.SAMPLING), str(leader)


def test_each_committed_step_renews_the_budget(lockstep, talking, expected):
    """More rebuilds than the budget of 1 allows in a row."""
    lines = tuple("abcdef")
    with worlds.chat(lockstep, talking, *worlds.GREEDY, *WORLD, "--restart-budget", 1) as leader:
        for i, line in enumerate(lines):
            worlds.talk(leader, line)
            worlds.kill(leader.ranks()[i % N_RANKS], signal.SIGKILL)
        worlds.quit_chat(leader)
    assert leader.stderr.count("rebuilding") >= len(lines) - 1, str(leader)
    assert "injected" not in leader.stderr
    assert bytes(leader.out) == expected.talk(talking, lines, worlds.GREEDY), str(leader)


STORY = ("-p", "Tell me a story", "--ids", "--temp", 1, "--seed", 7)


@pytest.mark.parametrize("reprefill", [[], ["--reprefill"]], ids=["kept", "reprefill"])
def test_kills_in_the_middle_of_an_answer(lockstep, model, reprefill):
    """kill -9 from outside, three times with tokens in between, on the default model."""
    answer, _ = worlds.run(lockstep, "run", model, *STORY, "-n", 160, "--tp", 1)
    with worlds.Leader(lockstep, "run", model, *STORY, "-n", 160, "--tp", 2, *reprefill) as leader:
        for i in range(3):
            leader.wait_for_tokens(20 * (i + 1))
            worlds.kill(leader.ranks()[i % 2], signal.SIGKILL)
            leader.wait_for("the world is ready again", i + 1)
        assert leader.end() == 0, str(leader)
    assert bytes(leader.out) == answer, str(leader)


def test_the_budget_ends(lockstep, model):
    """Ranks are killed in every epoch as soon as they are seen: no step is ever committed."""
    prompt = ",".join(str(1000 + i) for i in range(400))  # more than a second of work
    with worlds.Leader(lockstep, "run", model, "--prompt-ids", prompt, "--ids", "-n", 10, "--tp", 2,
                       "--restart-budget", 1, "--quiet") as leader:
        deadline = time.monotonic() + 60
        while leader.process.poll() is None:
            assert time.monotonic() < deadline, str(leader)
            for pid in leader.ranks().values():
                worlds.kill(pid, signal.SIGKILL)
        assert leader.end() == 3, str(leader)
    assert bytes(leader.out) == b""
    lines = [line for line in leader.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1, str(leader)
    assert re.fullmatch(r"lockstep: rank \d died of signal 9 .*", lines[0]), str(leader)


# The leader's own end


# name: the flags, and the condition to wait for before the leader is hit
SITUATIONS = {
    "loading": (["--fault", "stop:rank=1,phase=loading"], "injected fault"),
    "prefill": (["--fault", "hang-in-collective:rank=2,phase=prefill"], "injected fault"),
    "decode": (["--fault", "stop:rank=1,step=20"], "injected fault"),
    "slow": (["--fault", "slow:rank=0,step=5,ms=20"], "injected fault"),
    "rebuild": (["--fault", "kill:rank=1,step=5", "--fault", "stop:rank=2,phase=hello,epoch=2"],
                ": stop:rank=2"),
}
situations = pytest.mark.parametrize("situation", SITUATIONS)


def enter(lockstep, checkpoint, situation):
    flags, text = SITUATIONS[situation]
    leader = quick(lockstep, checkpoint, 400, *PATIENT, *flags)
    leader.wait_for(text)
    worlds.poll(lambda: len(leader.ranks()) == N_RANKS, what="all ranks")
    return leader


@situations
def test_no_rank_outlives_a_killed_leader(lockstep, checkpoint, situation):
    with enter(lockstep, checkpoint, situation) as leader:
        leader.process.kill()
        worlds.poll(lambda: not leader.ranks(), 2, f"the end of {leader.ranks()}")
        assert leader.end() == -signal.SIGKILL


@pytest.mark.san
@situations
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_leader_ends_on_a_signal(lockstep, checkpoint, situation, number):
    """Within 5 s, with its ranks reaped, and without a word of error."""
    with enter(lockstep, checkpoint, situation) as leader:
        leader.process.send_signal(number)
        assert leader.end(5) == 128 + number, str(leader)
    assert leader.stderr.count("rebuilding") == (situation == "rebuild"), str(leader)
    assert "error" not in leader.stderr, str(leader)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_answers(lockstep, talking, number):
    with worlds.chat(lockstep, talking, *worlds.GREEDY, *WORLD) as leader:
        worlds.talk(leader, LINES[0])
        leader.process.send_signal(number)
        status = leader.end(5)
    assert status == (0 if number == signal.SIGINT else 128 + number), str(leader)


@pytest.mark.parametrize("first", ["leader", "ranks"])
def test_a_stopped_machine_is_no_hang(lockstep, checkpoint, expected, first):
    """Leader and ranks are stopped together for four times --hang-ms and go on in either order. One
    rank is so slow that it mostly stands still; what it has done so far would excuse 1.5 s of that."""
    with quick(lockstep, checkpoint, 8, *WORLD, "--fault", "slow:rank=0,step=2,ms=80") as leader:
        leader.wait_for_tokens(3)
        ranks = list(leader.ranks().values())
        for pid in [leader.pid, *ranks]:
            worlds.kill(pid, signal.SIGSTOP)
        worlds.poll(lambda: {worlds.state_of(pid) for pid in [leader.pid, *ranks]} == {"T"})
        time.sleep(2)  # is what is tested
        assert len(leader.ranks()) == N_RANKS
        if first == "leader":
            worlds.kill(leader.pid, signal.SIGCONT)
            time.sleep(0.2)  # it looks every 50 ms
        for pid in [*ranks, leader.pid]:
            worlds.kill(pid, signal.SIGCONT)
        assert leader.end() == 0, str(leader)
    assert "rebuilding" not in leader.stderr, str(leader)
    assert bytes(leader.out) == expected(checkpoint, 8, worlds.SAMPLING), str(leader)
