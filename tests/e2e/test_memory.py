# SPDX-License-Identifier: Apache-2.0
"""What the default model costs, split over ranks: memory while it answers, and bytes read to load it."""

import json
import os
import pathlib
import re
import signal
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))

import worlds  # noqa: E402

MIB = 1 << 20
CONTEXT = 2048
N_PROMPT, N_ANSWER = 1900, 140
N_LATE = 100  # tokens of the answer after which every page of the context is in use
PAGE_TOKENS = 64
NORM_BYTES = (2 * 30 + 1) * 576 * 4  # two for each of 30 layers and the last one, in F32
QUIET = ("--hang-ms", 30000)  # no rebuild on a busy machine
MEMFD = re.compile(r"^\S+ \S+ \S+ \S+ (\d+) +/memfd:")


@pytest.fixture(scope="module")
def inspect(run, model):
    """inspect(n): the memory object of lockstep inspect --json at n ranks."""

    def inspect_it(n_ranks):
        process = run("inspect", model, "--json", "--tp", n_ranks)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)["memory"]

    return inspect_it


def prompt_ids(n):
    return ",".join(str(1000 + 7 * i) for i in range(n))


def pss_of(pid):
    """Bytes of a process, those that it shares divided by the number of processes that do."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)[1]) * 1024


def memfd_pss(pid):
    """{inode: bytes} of the memfds that a process maps, likewise."""
    found, inode = {}, None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            match = MEMFD.match(line)
            inode = int(match[1]) if match else None
        elif name == "Pss:" and inode is not None:
            found[inode] = found.get(inode, 0) + int(rest.split()[0]) * 1024
    return found


def memfd_bytes(pid):
    """{inode: bytes} of the memory behind the memfds that a process has open."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if os.readlink(path).startswith("/memfd:"):
            info = os.stat(path)
            found[info.st_ino] = info.st_blocks * 512
    return found


def memory_of(pids):
    """Bytes that the processes hold together: what they map, and pages of memfds that none maps."""
    held, mapped = {}, {}
    for pid in pids:
        held |= memfd_bytes(pid)
        for inode, n_bytes in memfd_pss(pid).items():
            mapped[inode] = mapped.get(inode, 0) + n_bytes
    unmapped = {inode: n_bytes - mapped.get(inode, 0) for inode, n_bytes in held.items()}
    return sum(map(pss_of, pids)), sum(max(n_bytes, 0) for n_bytes in unmapped.values())


def read_by(pid):
    """Bytes that a process has asked the kernel for, of whatever file."""
    text = pathlib.Path(f"/proc/{pid}/io").read_text()
    return int(re.search(r"^rchar: (\d+)", text, re.MULTILINE)[1])


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_memory_while_answering(n_ranks, lockstep, model, inspect):
    """All of the context is in use, so that the KV cache is as large as it gets."""
    assert N_PROMPT + N_LATE > CONTEXT - PAGE_TOKENS and N_PROMPT + N_ANSWER <= CONTEXT
    sizes = inspect(1)  # nothing is replicated
    limit = (1.1 * (sizes["stored_bytes"] + sizes["kv_bytes_per_token"] * CONTEXT)
             + 32 * MIB * n_ranks + 96 * MIB)
    with worlds.Leader(lockstep, "run", model, "--prompt-ids", prompt_ids(N_PROMPT), "--ids",
                       "-n", N_ANSWER, "--temp", 0, "--ctx", CONTEXT, "--tp", n_ranks,
                       *QUIET) as leader:
        leader.wait_for_tokens(N_LATE)
        ranks = leader.ranks()
        assert sorted(ranks) == list(range(n_ranks)), str(leader)
        mapped, unmapped = memory_of([leader.pid, *ranks.values()])
        assert leader.end() == 0, str(leader)
    print(f"{n_ranks} ranks: {mapped / MIB:.1f} MiB mapped, {unmapped / MIB:.1f} MiB not; "
          f"at most {limit / MIB:.1f} MiB")
    assert mapped + unmapped > sizes["stored_bytes"] + sizes["kv_bytes_per_token"] * CONTEXT
    assert mapped + unmapped <= limit


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 5])
def test_every_byte_is_read_once(n_ranks, lockstep, model, inspect):
    """Each rank reads its share of the tensors, which is that of the memory it needs (here no type
    needs padding), and the file's header. Shares overlap in norms and shared KV heads alone."""
    sizes = inspect(n_ranks)
    header = model.stat().st_size - sizes["stored_bytes"]
    with worlds.Leader(lockstep, "run", model, "--prompt-ids", prompt_ids(8), "--ids", "-n", 1000,
                       "--tp", n_ranks, *QUIET) as leader:
        leader.wait_for_tokens(1)
        read = {rank: read_by(pid) for rank, pid in leader.ranks().items()}
        leader.process.terminate()
        assert leader.end() == 128 + signal.SIGTERM, str(leader)
    assert sorted(read) == list(range(n_ranks))
    for rank, share in enumerate(sizes["ranks"]):
        extra = read[rank] - share["weight_bytes"]  # and a little of files in /proc and messages
        assert header <= extra <= header + 64 * 1024, f"rank {rank}: {extra}, header {header}"
    if n_ranks in (1, 3):  # each has KV heads of its own: all but the norms is there once
        assert sizes["weight_bytes"] == sizes["stored_bytes"] + NORM_BYTES * (n_ranks - 1)


@pytest.mark.parametrize("n_ranks", [1, 5])
def test_bench_says_how_much_was_read(n_ranks, run, model, inspect):
    process = run("bench", model, "-p", 8, "-n", 2, "--reps", 1, "--tp", n_ranks, *QUIET)
    assert process.returncode == 0, process.stderr
    assert f" {n_ranks} rank" in process.stdout
    read = float(re.search(r"^load .* ([\d.]+) MiB read$", process.stdout, re.MULTILINE)[1])
    assert read == pytest.approx(inspect(n_ranks)["weight_bytes"] / MIB, abs=0.051)


def test_five_ranks_give_the_same_logits(run, model, tmp_path):
    """Nine heads and three key/value heads, none of which five divides."""
    found = []
    for n_ranks in (1, 5):
        out = tmp_path / f"{n_ranks}.npy"
        process = run("logits", model, "--prompt-ids", prompt_ids(20), "--out", out, "--tp", n_ranks,
                      *QUIET)
        assert process.returncode == 0, process.stderr
        found.append(np.load(out))
    assert found[0].shape == (20, 49152) and np.isfinite(found[0]).all()
    assert found[0].tobytes() == found[1].tobytes()
