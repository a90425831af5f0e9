# SPDX-License-Identifier: Apache-2.0
"""The engine as the golden tools and tests call it: a program that writes logits to a file."""

import hashlib
import json
import os
import pathlib
import subprocess

import numpy as np

import fixtures

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/model/golden"
HASHES = GOLDEN / "hashes.json"
DTYPES = {f.name: [f.dtype, *f.other_dtypes.values()] for f in fixtures.ALL}
BINARY = pathlib.Path(os.environ.get("LOCKSTEP_BIN", ROOT / "build/release/lockstep"))


class Golden:
    """One fixture: where its checkpoint is, its prompt, and what is expected of it."""

    def __init__(self, name):
        folder = GOLDEN / name
        gguf = folder / "model.gguf"
        self.name = name
        self.path = gguf if gguf.exists() else folder
        description = json.loads((folder / "fixture.json").read_text())
        self.prompt, self.greedy = description["prompt"], description["greedy"]
        with np.load(folder / "logits.npz") as logits:
            self.rows, self.f32 = logits["rows"], logits["f32"]
            self.bf16 = logits["bf16"] if "bf16" in logits else None

    def acts(self):
        acts = ["f32"] if self.bf16 is None else ["f32", "bf16"]
        return [*acts, "int8"] if self.is_quantised() else acts

    def is_quantised(self):
        return any(dtype.startswith("Q") for dtype in DTYPES[self.name])

    def expected(self, act):
        return self.f32 if act == "f32" else self.bf16


def difference(got, expected):
    """The largest difference in units of its row's largest magnitude; infinite if not a number."""
    worst = (np.abs(got - expected).max(-1) / np.abs(expected).max(-1)).max()
    return float(worst) if np.isfinite(worst) else np.inf


def run(*args):
    """Standard output of a command that must succeed."""
    assert BINARY.exists(), f"{BINARY} is missing: build it first, or set LOCKSTEP_BIN"
    done = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ids_text(ids):
    return ",".join(map(str, ids))


def logits(golden, folder, act, *flags):
    """The logits of every position of the prompt, [n_tokens, vocab] float32."""
    out = folder / "logits.npy"
    prompt = ids_text(golden.prompt)
    run("logits", golden.path, "--prompt-ids", prompt, "--act", act, "--out", out, *flags)
    array = np.load(out)
    assert array.dtype == np.dtype("<f4") and array.flags.c_contiguous
    assert array.shape == (len(golden.prompt), golden.f32.shape[1])
    return array


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()
