# SPDX-License-Identifier: Apache-2.0
"""--quant is honoured for every architecture: with the activations held the same, so that a difference is
the weights', each type gives logits of its own, near those of the plain weights."""

import itertools
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import random_model  # noqa: E402

PROMPT = ",".join(str(1 + 97 * i) for i in range(20))
QUANTS = ["q8_0", "q4_0"]


@pytest.mark.parametrize("architecture", random_model.ARCHITECTURES)
def test_honoured(run, tmp_path, monkeypatch, architecture):
    shapes = random_model.SHAPES[architecture]
    monkeypatch.setitem(shapes, 1, shapes[32])  # plain weights in rows of whole groups
    path = tmp_path / "model.gguf"
    random_model.write(path, architecture, "BF16")
    found = {}
    for quant in [None, *QUANTS]:
        out = tmp_path / f"{quant}.npy"
        process = run("logits", path, "--prompt-ids", PROMPT, "--out", out, "--tp", 1, "--act", "f32",
                      *(["--quant", quant] if quant else []))
        assert process.returncode == 0, process.stderr
        found[quant] = np.load(out)
    for a, b in itertools.combinations(found.values(), 2):
        assert not np.array_equal(a, b)
    errors = [np.abs(found[quant] - found[None]).mean() for quant in QUANTS]
    assert errors[0] < errors[1] < np.abs(found[None]).mean(), errors
