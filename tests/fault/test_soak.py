# SPDX-License-Identifier: Apache-2.0
"""Random faults with nothing lost. LOCKSTEP_SOAK=N asks for more of them, LOCKSTEP_SOAK_SEED=S for
others; soak.py does the same without pytest."""

import os

import soak
import worlds


def test_soak(lockstep):
    n = int(os.environ.get("LOCKSTEP_SOAK", 200))
    lines = []
    lost, kinds = soak.soak(lockstep, n, int(os.environ.get("LOCKSTEP_SOAK_SEED", 1)), lines.append)
    print(lines[-1])
    assert not lost, "\n".join(lines)
    assert kinds.total() >= n
    assert n < 200 or set(kinds) == set(worlds.KINDS), lines[-1]


def test_a_run_comes_from_its_seed_alone():
    checkpoints = [worlds.Checkpoint(name) for name in soak.CHECKPOINTS]
    commands = [soak.make_run(seed, checkpoints).command() for seed in range(100)]
    assert commands == [soak.make_run(seed, checkpoints).command() for seed in range(100)]
    assert len({str(command) for command in commands}) == 100
