# SPDX-License-Identifier: Apache-2.0
"""Every fault, in every phase, in the first, a middle and the last rank: the answer is the
undisturbed one, byte for byte, and nothing is left behind.

A cell of the matrix is one leader with one fault or a few. Cells that take long sleep most of the
time, so some run at once: the first test that wants a cell starts all that were collected.
"""

import concurrent.futures
import dataclasses

import pytest
import worlds

AT_ONCE = 3
N_TOKENS = 40
N_RANKS = 3
HANG_MS = 500
LINES = ("one", "two")  # of a chat
LIMIT_S = 60  # for one cell; the longest takes 6 s on an idle machine

KINDS = worlds.KINDS
STARTING = ["hello", "comm_init", "sanity", "loading"]
LEAVING = ["unload", "shutdown"]
PHASES = [*STARTING, "prefill", "decode", "idle", *LEAVING]

# What does not exist: kinds, phases, and why not.
SENSELESS = [
    (["hang-in-collective", "slow"], ["hello", "comm_init", "loading", "idle", *LEAVING],
     "there is no collective in it"),
    (["drop-frame", "corrupt-frame"], ["idle"], "an idle rank sends nothing"),
    (["device-error"], ["hello", "comm_init", "sanity", "idle", *LEAVING],
     "no device is used in it"),
]


def makes_sense(kind, phase):
    return not any(kind in kinds and phase in phases for kinds, phases, _ in SENSELESS)


@dataclasses.dataclass(frozen=True)
class Cell:
    faults: tuple
    options: tuple = worlds.GREEDY
    reprefill: bool = False

    def flags(self):
        faults = [word for fault in self.faults for word in ("--fault", fault)]
        return [*self.options, *(["--reprefill"] if self.reprefill else []), *faults,
                "--tp", N_RANKS, "--hang-ms", HANG_MS]

    def __str__(self):
        drawn = "greedy" if self.options == worlds.GREEDY else "sampling"
        return "-".join(["+".join(self.faults), drawn, "reprefill" if self.reprefill else "kept"])


def fault(kind, rank, *fields):
    """In the order in which the program writes the fields."""
    late = ["ms=3"] if kind == "slow" else []
    at = [f for f in fields if not f.startswith("epoch")]
    return f"{kind}:" + ",".join([f"rank={rank}", *at, *late, *(f for f in fields if f not in at)])


def matrix():
    """Ranks also differ in how they sample and resume, so that each phase has seen all of it."""
    ways = [(worlds.GREEDY, False), (worlds.SAMPLING, False), (worlds.SAMPLING, True)]
    for kind in KINDS:
        for phase in filter(lambda phase: makes_sense(kind, phase), PHASES):
            for rank, way in zip(range(N_RANKS), ways):
                yield Cell((fault(kind, rank, f"phase={phase}"),), *way)


def sequences():
    """More than one fault, and the edges."""
    for reprefill in False, True:
        def cell(*faults):
            return Cell(faults, worlds.SAMPLING, reprefill)

        for kind in KINDS:
            yield cell(fault(kind, 1, "step=1"))
            yield cell(fault(kind, 1, f"step={N_TOKENS}"))
            yield Cell((fault(kind, 0, "step=20"),), worlds.GREEDY, reprefill)
        for kind in worlds.LAYER_KINDS:
            yield cell(fault(kind, 2, "step=6", "layer=1"))
        yield cell(fault("kill", 0, "step=5"), fault("stop", 2, "step=12"))
        yield cell(fault("corrupt-frame", 2, "step=7"), fault("oom", 2, "step=30"))
        yield cell(fault("kill", 1, "step=5"), fault("kill", 1, "step=6"))
        yield cell(*(fault("kill", rank, "step=7") for rank in range(N_RANKS)))
        yield cell(*(fault("drop-frame", rank, "step=7") for rank in range(N_RANKS)))
        yield cell(*[fault("kill", 1, "step=9")] * 6)  # beyond the budget: injected ones are free
        yield cell("slow:rank=1,step=5,ms=50000")  # much later than --hang-ms: it counts as hung
        for kind, phase in [("kill", "hello"), ("kill", "comm_init"), ("drop-frame", "sanity"),
                            ("corrupt-frame", "loading"), ("oom", "loading")]:
            yield cell(fault("kill", 1, "step=9"), fault(kind, 2, f"phase={phase}", "epoch=2"))


SAN = {  # also run with the sanitizers
    *(fault(kind, 1, f"phase={phase}") for kind in KINDS for phase in ["decode", "sanity"]),
    fault("corrupt-frame", 0, "phase=hello"), fault("drop-frame", 2, "phase=loading"),
    fault("corrupt-frame", 1, "phase=loading"), fault("oom", 2, "phase=prefill"),
    fault("kill", 2, "phase=unload"), fault("corrupt-frame", 0, "phase=shutdown"),
    fault("oom", 0, "phase=idle"),
}


def parameters(cells):
    def marks(cell):
        return [pytest.mark.san] if len(cell.faults) == 1 and cell.faults[0] in SAN else []

    return [pytest.param(cell, id=str(cell)[:100], marks=marks(cell)) for cell in cells]


class Outcomes:
    """Runs cells, some at once, and hands out what became of them."""

    def __init__(self, lockstep, checkpoint, talking, expected):
        self.lockstep, self.checkpoint, self.talking = lockstep, checkpoint, talking
        self.expected = expected
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        self.futures = {}

    def start(self, cells):
        for cell in cells:
            self.futures[cell] = self.pool.submit(self.run, cell)

    def run(self, cell):
        if "phase=idle" in cell.faults[0]:
            leader = idle_between(self.lockstep, self.talking, cell)
            return leader, self.expected.talk(self.talking, LINES, cell.options)
        command = self.checkpoint.command(N_TOKENS, *cell.flags())
        with worlds.Leader(self.lockstep, *command) as leader:
            assert leader.end(LIMIT_S) == 0, str(leader)
        return leader, self.expected(self.checkpoint, N_TOKENS, cell.options)


def idle_between(lockstep, talking, cell):
    """The fault comes before the first line, because only then is it sure that nothing is asked."""
    with worlds.chat(lockstep, talking, *cell.flags()) as leader:
        leader.wait_for("injected fault")
        worlds.talk(leader, *LINES)
        worlds.quit_chat(leader)
    return leader


@pytest.fixture(scope="module")
def outcomes(request, lockstep, checkpoint, talking, expected):
    outcomes = Outcomes(lockstep, checkpoint, talking, expected)
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    outcomes.start([param["cell"] for param in params if isinstance(param.get("cell"), Cell)])
    yield outcomes
    outcomes.pool.shutdown(cancel_futures=True)


def check(outcomes, cell):
    leader, answer = outcomes.futures[cell].result()
    assert bytes(leader.out) == answer, str(leader)
    for spec in cell.faults:
        if not any(f"phase={phase}" in spec for phase in LEAVING):  # there it may come too late
            n = leader.stderr.count(f"injected: {spec}\n")
            assert n == cell.faults.count(spec), str(leader)
    return leader


@pytest.mark.parametrize("cell", parameters(matrix()))
def test_matrix(outcomes, cell):
    leader = check(outcomes, cell)
    survives = "slow" in cell.faults[0] or any(phase in cell.faults[0] for phase in LEAVING)
    assert ("rebuilding" in leader.stderr) != survives, str(leader)


@pytest.mark.parametrize("cell", parameters(sequences()))
def test_sequences(outcomes, cell):
    check(outcomes, cell)


def test_each_fault_happens_once(lockstep, checkpoint, expected):
    """Also one so long ago that the rank's flight recorder has no word of it any more."""
    cell = Cell(("slow:rank=0,step=2,ms=1", "kill:rank=0,step=420"))
    answer, leader = worlds.run(lockstep, *checkpoint.command(450, *cell.flags()))
    assert answer == expected(checkpoint, 450, worlds.GREEDY)
    for spec in cell.faults:
        assert leader.stderr.count(f"injected: {spec}\n") == 1, str(leader)
        assert leader.stderr.count("injected fault") == 2, str(leader)


def test_the_table_of_the_senseless_is_right(lockstep, checkpoint, expected):
    """What is listed there never happens, and so does not disturb."""
    for kinds, phases, reason in SENSELESS:
        cell = Cell(tuple(fault(kind, 1, f"phase={phase}") for kind in kinds for phase in phases))
        answer, leader = worlds.run(lockstep, *checkpoint.command(N_TOKENS, *cell.flags()))
        assert answer == expected(checkpoint, N_TOKENS, worlds.GREEDY)
        assert "injected" not in leader.stderr, f"{reason}? {leader}"


# A device that stays dead


def dead_device(rank, where, epoch):
    """Two errors in a row: the second comes in the next epoch, before a step could be committed."""
    return [fault("device-error", rank, where, f"epoch={epoch}"),
            fault("device-error", rank, "phase=loading", f"epoch={epoch + 1}")]


@pytest.mark.parametrize("reprefill", [False, True], ids=["kept", "reprefill"])
@pytest.mark.parametrize("rank", range(N_RANKS))
@pytest.mark.parametrize("where", ["phase=loading", "phase=prefill", "step=9"])
def test_fewer_ranks(lockstep, checkpoint, expected, where, rank, reprefill):
    """The answer goes on with one rank less; a later kill hits that world."""
    faults = (*dead_device(rank, where, 1), fault("kill", 1, "step=20"))
    cell = Cell(faults, worlds.SAMPLING, reprefill)
    answer, leader = worlds.run(lockstep, *checkpoint.command(N_TOKENS, *cell.flags()))
    assert answer == expected(checkpoint, N_TOKENS, cell.options), str(leader)
    assert leader.stderr.count("the world is ready again: 2 ranks") == 2, str(leader)


def test_down_to_the_last_device(lockstep, checkpoint, expected):
    """A world of one is left. Then its device dies too, and the world has failed."""
    faults = [dead for epoch in (1, 3, 5) for dead in dead_device(0, "step=9", epoch)]
    cell = Cell(tuple(faults[:4]))
    answer, leader = worlds.run(lockstep, *checkpoint.command(N_TOKENS, *cell.flags()))
    assert answer == expected(checkpoint, N_TOKENS, cell.options), str(leader)
    assert "the world is ready again: 1 rank," in leader.stderr, str(leader)
    cell = Cell(tuple(faults))
    with worlds.Leader(lockstep, *checkpoint.command(N_TOKENS, *cell.flags()), "--quiet") as leader:
        assert leader.end() == 3, str(leader)
    assert leader.stderr.count("\n") == 1, str(leader)
    assert "rank 0 lost its device for good" in leader.stderr, str(leader)
