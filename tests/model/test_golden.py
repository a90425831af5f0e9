# SPDX-License-Identifier: Apache-2.0
"""Golden tests: the engine against transformers' stored logits and tokens, and against NumPy models.

Each folder of tests/model/golden is a checkpoint with fixture.json and logits.npz, all written by
tools/golden/make. hashes.json holds the hash of the engine's own logits for each fixture and
arithmetic class, written by tools/golden/hashes: every machine, compiler, build type and instruction
set level must reproduce them.
"""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/golden"))

import canonical  # noqa: E402
import engine  # noqa: E402
import fixtures  # noqa: E402
import model_file  # noqa: E402
import numpy_model  # noqa: E402
from engine import Golden, difference  # noqa: E402

F32_TOLERANCE = 1e-4  # of the row's largest magnitude
BF16_TOLERANCE = 1e-5
PLANTED = 0.05  # what a planted error changes at least, and rounding to bf16 never does

NAMES = [fixture.name for fixture in fixtures.ALL]
WITH_BF16 = [name for name in NAMES if Golden(name).bf16 is not None]
QUANTISED = [name for name in NAMES if Golden(name).is_quantised()]
CASES = [(name, act) for name in NAMES for act in Golden(name).acts()]
LEVELS = ["ref", "avx2", "amx"]


def planted_cases():
    for name in NAMES:
        checkpoint = model_file.load(Golden(name).path)
        for error, applies in numpy_model.PLANTED.items():
            if applies(checkpoint):
                yield name, error


@pytest.mark.san
@pytest.mark.parametrize("name", NAMES)
def test_f32_agrees_with_transformers(name, tmp_path):
    golden = Golden(name)
    logits = engine.logits(golden, tmp_path, "f32")[golden.rows]
    assert difference(logits, golden.f32) <= F32_TOLERANCE


@pytest.mark.san
@pytest.mark.parametrize("name", WITH_BF16)
def test_bf16_agrees_with_numpy(name, tmp_path):
    golden = Golden(name)
    logits = engine.logits(golden, tmp_path, "bf16")[golden.rows]
    assert difference(logits, golden.bf16) <= BF16_TOLERANCE


@pytest.mark.parametrize("name,act", CASES)
def test_logits_have_the_stored_hash(name, act, tmp_path):
    """At every instruction set level (one the machine lacks means the next lower), any chunk and
    number of threads."""
    golden = Golden(name)
    stored = json.loads(engine.HASHES.read_text())[name][f"x86 act {act}"]
    settings = [["--cpu-mask", level] for level in LEVELS]
    settings += [["--chunk", 1], ["--chunk", 7], ["--chunk", 64, "--threads", 3]]
    for flags in settings:
        assert engine.digest(engine.logits(golden, tmp_path, act, *flags)) == stored, flags


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens(name):
    golden = Golden(name)
    flags = ["--ids", "-n", len(golden.greedy), "--temp", 0, "--act", "f32"]
    prompt = engine.ids_text(golden.prompt)
    text = engine.run("run", golden.path, "--prompt-ids", prompt, *flags)
    assert [int(word) for word in text.split()] == golden.greedy


@pytest.mark.parametrize("name", [name for name in NAMES if f"{name}-old" in NAMES])
def test_config_styles_agree(name, tmp_path):
    new, old = Golden(name), Golden(f"{name}-old")
    assert new.prompt == old.prompt
    for act in new.acts():
        logits = [engine.digest(engine.logits(golden, tmp_path, act)) for golden in (new, old)]
        assert logits[0] == logits[1]


# What follows needs no engine: it shows that the fixtures are right, and that they notice errors.


@pytest.mark.parametrize("name", NAMES)
def test_numpy_agrees_with_transformers(name):
    golden = Golden(name)
    logits = numpy_model.forward(model_file.load(golden.path), golden.prompt)[golden.rows]
    assert difference(logits, golden.f32) <= F32_TOLERANCE / 10


@pytest.mark.parametrize("name,error", list(planted_cases()))
def test_planted_error_is_noticed(name, error):
    golden = Golden(name)
    logits = numpy_model.forward(model_file.load(golden.path), golden.prompt, error)[golden.rows]
    assert difference(logits, golden.f32) > PLANTED
    if golden.bf16 is not None:
        assert difference(golden.f32, golden.bf16) < PLANTED < difference(logits, golden.bf16)


@pytest.mark.parametrize("name", WITH_BF16)
def test_bf16_logits_are_those_of_the_canonical_model(name):
    golden = Golden(name)
    logits = canonical.forward(model_file.load(golden.path), golden.prompt, "bf16")[golden.rows]
    assert difference(logits, golden.bf16) <= BF16_TOLERANCE


@pytest.mark.parametrize("name", QUANTISED)
def test_integer_logits_are_those_of_the_canonical_model(name):
    golden = Golden(name)
    stored = json.loads(engine.HASHES.read_text())[name]["x86 act int8"]
    logits = canonical.forward(model_file.load(golden.path), golden.prompt, "int8")
    assert engine.digest(logits) == stored
