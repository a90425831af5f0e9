# SPDX-License-Identifier: Apache-2.0
"""lockstep smoke: ranks that start, reach each other and end."""

import re

import pytest
import worlds

STARTING = {  # what can befall a rank that loads nothing
    "hello": ["kill", "stop", "drop-frame", "corrupt-frame", "oom"],
    "comm_init": ["kill", "stop", "drop-frame", "corrupt-frame", "oom"],
    "sanity": ["kill", "stop", "hang-in-collective", "drop-frame", "corrupt-frame", "slow", "oom"],
}
LINE = re.compile(r"rank=(\d+) pid=(\d+) device=cpu world_size=(\d+) observed_sum=(\d+)")


def is_ok(text, n_ranks):
    *ranks, last = text.splitlines()
    found = [LINE.fullmatch(line) for line in ranks]
    assert last == "status=ok" and all(found), text
    assert [int(rank[1]) for rank in found] == list(range(n_ranks))
    assert len({rank[2] for rank in found}) == n_ranks
    assert all(int(rank[3]) == n_ranks and int(rank[4]) == n_ranks for rank in found)


@pytest.mark.san
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 8, 16])
def test_every_size(lockstep, n_ranks):
    answer, leader = worlds.run(lockstep, "smoke", "--tp", n_ranks)
    is_ok(answer.decode(), n_ranks)
    assert leader.stderr == ""


@pytest.mark.parametrize("phase,kind", [(p, kind) for p in STARTING for kind in STARTING[p]])
def test_a_fault_on_the_way(lockstep, phase, kind):
    spec = f"{kind}:rank=1,phase={phase}" + (",ms=50" if kind == "slow" else "")
    answer, leader = worlds.run(lockstep, "smoke", "--tp", 3, "--hang-ms", 200, "--fault", spec)
    is_ok(answer.decode(), 3)
    assert "injected fault" in leader.stderr, str(leader)
    assert (leader.stderr.count("rebuilding") == 1) == (kind != "slow"), str(leader)


@pytest.mark.parametrize("n_ranks", [1, 4])
def test_devices(run, n_ranks):
    process = run("smoke", "--tp", n_ranks, "--devices", ",".join(["cpu"] * n_ranks))
    assert (process.returncode, process.stderr) == (0, "")
    is_ok(process.stdout, n_ranks)


def refused(process, *texts):
    assert (process.returncode, process.stdout) == (1, ""), process.stderr
    assert process.stderr.startswith("lockstep: ") and process.stderr.count("\n") == 1
    assert all(text in process.stderr for text in texts), process.stderr


@pytest.mark.san
@pytest.mark.parametrize("devices,text", [
    ("cpu", "1 named, but there are 3 ranks"), ("cpu,cpu", "2 named"),
    ("cpu,cpu,cpu,cpu", "more than 3 named"), ("cpu,,cpu", "an empty name"), ("", "an empty name"),
    ("cpu,tpu,cpu", "tpu is no device"), (",".join(["cpu"] * 1000), "more than 3 named"),
], ids=range(7))
def test_wrong_devices(run, devices, text):
    refused(run("smoke", "--tp", 3, "--devices", devices), "--devices", text)


@pytest.mark.san
@pytest.mark.parametrize("spec,text", [
    (":", "no kind of fault"), ("explode:rank=0", 'called "explode"; there are kill stop'),
    ("kill", "rank is missing"), ("kill:step=3", "rank is missing"),
    ("kill:rank", "rank needs a value"),
    ("kill:rank=", 'rank: "" is not a whole number'), ("kill:rank=x", 'rank: "x"'),
    ("kill:rank=-1", 'rank: "-1"'), ("kill:rank=99999999999", "rank: 99999999999 is not between"),
    ("kill:rank=3", "there is no rank 3 in a world of 3"),
    ("kill:rank=1,rank=1", "rank is given twice"),
    ("kill:rank=1,step=0", "step: 0 is not between"), ("kill:rank=1,layer=1.5", 'layer: "1.5"'),
    ("kill:rank=1,phase=lunch", 'phase: "lunch" is none of hello, comm_init'),
    ("kill:rank=1,phase=hello,step=1", "phase hello has no steps"),
    ("kill:rank=1,epoch=0", "epoch: 0 is not between"),
    ("kill:rank=1,ms=5", "ms says nothing for kill"),
    ("slow:rank=1", "ms is missing"), ("slow:rank=1,ms=0", "ms: 0 is not between"),
    ("drop-frame:rank=1,layer=0", "layer says nothing for drop-frame"),
    ("kill:rank=1,color=red", 'no field "color"'), ("kill:rank=1,", 'no field ""'),
    ("kill:" + "rank=1," * 1000, "the text of a fault is too long"),
], ids=range(23))
def test_wrong_faults(run, spec, text):
    refused(run("smoke", "--tp", 3, "--fault", spec), text, "fault")


@pytest.mark.san
def test_no_fault_named(run):
    """An empty SPEC is refused with the options, before a world is thought of."""
    process = run("smoke", "--tp", 3, "--fault", "")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "lockstep: smoke: --fault: is empty\n"


def test_a_world_that_comes_up_late(run):
    """A fault in each of many epochs: injected ones are free, and then it is ready."""
    faults = [word for epoch in range(1, 9) for word in
              ("--fault", f"kill:rank=0,phase=comm_init,epoch={epoch}")]
    process = run("smoke", "--tp", 2, *faults)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("rebuilding") == 8, process.stderr
    is_ok(process.stdout, 2)
