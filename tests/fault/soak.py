#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random faults, and nothing lost: soak.py --soak N [--seed S | --from S]

Each run is a leader made from its seed alone: checkpoint, number of ranks, sampling, way to resume,
and up to eight faults. Its answer must be the undisturbed one. Ends when N faults have happened.
Every run is shown with its seed, and --from S begins with that one. LOCKSTEP_BIN names the program.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import random
import re
import sys

import worlds

AT_ONCE = 3
HANG_MS = 300
LIMIT_S = 120
MAX_TOKENS = 240
CHECKPOINTS = ["llama-bf16", "llama-f32", "qwen3-bf16", "gguf-q4_1"]
SAMPLINGS = [worlds.GREEDY, worlds.SAMPLING,
             ("--temp", 0.8, "--seed", 11, "--top-k", 40, "--top-p", 0.9),
             ("--temp", 1.2, "--seed", 12, "--frequency-penalty", 0.5, "--presence-penalty", 0.2)]
# Waiting for an answer takes several times as long as noticing a rank that stands still, so these
# are drawn less often.
STARTING = ["hello", "comm_init", "sanity", "loading"]


@dataclasses.dataclass
class Run:
    seed: int
    checkpoint: worlds.Checkpoint
    n_ranks: int
    n_tokens: int
    sampling: tuple
    flags: list

    def command(self):
        return self.checkpoint.command(self.n_tokens, *self.sampling, "--tp", self.n_ranks,
                                       "--hang-ms", HANG_MS, *self.flags)


@dataclasses.dataclass
class Result:
    seed: int
    kinds: list  # of the faults that happened
    recoveries_ms: list
    lost: str  # why, or ""


def random_fault(chance, kind, n_ranks, n_tokens, n_layers):
    fields = [f"rank={chance.randrange(n_ranks)}"]
    if chance.random() < 0.15:
        quick = kind in ("kill", "corrupt-frame", "oom") or chance.random() < 0.2
        if kind == "device-error":
            fields.append("phase=loading")
        elif kind in ("hang-in-collective", "slow"):
            fields.append("phase=sanity" if quick else "phase=decode")
        else:
            fields.append(f"phase={chance.choice(STARTING if quick else ['prefill', 'decode'])}")
    else:
        fields.append(f"step={chance.randint(1, n_tokens)}")
        if kind in worlds.LAYER_KINDS and chance.random() < 0.4:
            fields.append(f"layer={chance.randrange(n_layers)}")
    if kind == "slow":
        fields.append(f"ms={chance.choice([1, 1, 2, HANG_MS * 100])}")
    return f"{kind}:{','.join(fields)}"


def make_run(seed, checkpoints):
    chance = random.Random(seed)
    checkpoint = chance.choice(checkpoints)
    n_ranks, n_tokens = chance.randint(1, 4), chance.randint(20, MAX_TOKENS)
    n_layers = 1 if "llama-f32" in str(checkpoint.path) else 2
    flags = ["--reprefill"] if chance.random() < 0.5 else []
    kinds = [chance.choice(worlds.KINDS) for _ in range(chance.randint(1, 8))]
    while kinds.count("device-error") > min(n_ranks, 2):  # with one more a world could end
        kinds.remove("device-error")
    for kind in kinds:
        flags += ["--fault", random_fault(chance, kind, n_ranks, n_tokens, n_layers)]
    if chance.random() < 0.3:
        flags += ["--chunk", chance.choice([1, 5, 16])]
    return Run(seed, checkpoint, n_ranks, n_tokens, chance.choice(SAMPLINGS), flags)


def carry_out(lockstep, expected, run):
    with worlds.Leader(lockstep, *run.command()) as leader:
        try:
            status = leader.end(LIMIT_S)
            lost = f"exit status {status}" if status != 0 else ""
        except AssertionError as error:
            lost = str(error)
    answer = expected(run.checkpoint, MAX_TOKENS, run.sampling).split()[:run.n_tokens]
    if not lost and bytes(leader.out).split() != answer:
        lost = f"another answer: {bytes(leader.out)}"
    kinds = re.findall(r"^lockstep: injected: ([a-z-]+):", leader.stderr, re.M)
    return Result(run.seed, kinds, leader.recoveries_ms(), lost and f"{lost}\n{leader}")


def soak(lockstep, n_faults, seed, say=print):
    """Runs from the seed on until n_faults have happened: the results that lost something, and how
    often each kind happened."""
    checkpoints = [worlds.Checkpoint(name) for name in CHECKPOINTS]
    expected = worlds.Expected(lockstep)
    kinds, recoveries, lost, n_runs = collections.Counter(), [], [], 0
    seeds = itertools.count(seed)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        def submit():
            return pool.submit(carry_out, lockstep, expected, make_run(next(seeds), checkpoints))

        running = {submit() for _ in range(AT_ONCE)}
        while running:
            done, running = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED)
            for result in (future.result() for future in done):
                n_runs += 1
                kinds.update(result.kinds)
                recoveries += result.recoveries_ms
                lost += [result] if result.lost else []
                say(f"seed {result.seed}: {', '.join(result.kinds) or 'none'}"
                    + (f": LOST: {result.lost}" if result.lost else ""))
                if kinds.total() < n_faults and len(lost) < 10:
                    running.add(submit())
    recoveries.sort()
    by_kind = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    say(f"soak: {kinds.total()} faults in {n_runs} runs from seed {seed} ({by_kind}); "
        f"lost = {len(lost)}; {len(recoveries)} rebuilds, from the fault to ready again: "
        + (f"median {recoveries[len(recoveries) // 2]} ms, slowest {recoveries[-1]} ms"
           if recoveries else "none"))
    return lost, kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--soak", type=int, required=True, metavar="N", help="faults to happen")
    parser.add_argument("--seed", "--from", type=int, default=1, metavar="S",
                        help="of the first run (default 1); the next has the next number")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    lockstep = pathlib.Path(os.environ.get("LOCKSTEP_BIN", root / "build/release/lockstep"))
    lost, _ = soak(lockstep.resolve(), arguments.soak, arguments.seed)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
