# SPDX-License-Identifier: Apache-2.0
"""The same bits however they are computed: at every number of ranks, chunk, number of threads and
instruction set level, for every architecture and weight type.

Each model's reference is one rank, one thread, the reference kernels and the prompt in one piece. Rows
of settings that together hold every pair of two values are compared with it for equality; --full takes
the whole product. A level that the machine lacks means the next lower one.
"""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import random
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import random_model  # noqa: E402

PACKED = "BF16 at 12 bits"
FACTORS = {
    "ranks": [1, 2, 3, 4, 5, 8],
    "chunk": [1, 13, 64, 512],
    "threads": [1, 2, 3],
    "level": ["ref", "avx2", "avx512"],
    "architecture": random_model.ARCHITECTURES,
    # BF16 is computed in bf16 and all others in f32 unless told else; "over": the KV cache
    "weights": [*random_model.TYPES, "BF16 in f32", PACKED, "Q8_0 in int8", "Q4_K in int8",
                "BF16 over int8", "Q8_0 in int8 over int8"],
}
Row = collections.namedtuple("Row", FACTORS)
MODELS = list(itertools.product(FACTORS["architecture"], FACTORS["weights"]))
REFERENCE = {"ranks": 1, "chunk": 512, "threads": 1, "level": "ref"}

ROOT = pathlib.Path(__file__).resolve().parents[2]
N_TOKENS = 70  # beyond one page of 64, and no multiple of a chunk
HANG_MS = 30000  # eight ranks on two busy cores wait long for each other
WORKERS = max(2, (os.cpu_count() or 1) // 4)
SEED = 1


def pairs_of(row):
    """The pairs of two settings that a row holds, each setting as (factor, value)."""
    return set(itertools.combinations(enumerate(row), 2))


def all_pairs():
    return set().union(*(itertools.product(((i, a) for a in first), ((j, b) for b in second))
                         for (i, first), (j, second)
                         in itertools.combinations(enumerate(FACTORS.values()), 2)))


def complete(pair, missing, rng):
    """A row around one pair: the other factors in random order, each value the one that adds most."""
    chosen = dict(pair)
    others = [i for i in range(len(FACTORS)) if i not in chosen]
    rng.shuffle(others)
    for i in others:
        values = list(FACTORS.values())[i]
        gains = [sum(tuple(sorted([(i, value), old])) in missing for old in chosen.items())
                 for value in values]
        best = [value for value, gain in zip(values, gains) if gain == max(gains)]
        chosen[i] = rng.choice(best)
    return Row(*(chosen[i] for i in range(len(FACTORS))))


def covering_rows(n_tries=20):
    """Rows that hold every pair, chosen greedily; the same ones each time."""
    rng = random.Random(SEED)
    missing = all_pairs()
    rows = []
    while missing:
        first = sorted(missing, key=str)
        tries = [complete(rng.choice(first), missing, rng) for _ in range(n_tries)]
        rows.append(max(tries, key=lambda row: len(pairs_of(row) & missing)))
        missing -= pairs_of(rows[-1])
    return rows


class Models:
    """The model files, and logits computed from them."""

    def __init__(self, run, folder):
        self.run, self.folder = run, folder
        ids = np.random.default_rng(SEED).integers(0, random_model.VOCAB, N_TOKENS)
        self.prompt = ",".join(map(str, ids))
        for architecture, dtype in itertools.product(random_model.ARCHITECTURES, random_model.TYPES):
            random_model.write(self.path(architecture, dtype), architecture, dtype)

    def path(self, architecture, dtype):
        return self.folder / f"{architecture}-{dtype}.gguf"

    def logits(self, row):
        weights, _, kv = row.weights.partition(" over ")
        dtype, _, act = weights.removesuffix(" at 12 bits").partition(" in ")
        act = act or ("bf16" if dtype == "BF16" else "f32")
        bf16 = {"BF16": "plain", PACKED: "12"}.get(row.weights)
        out = self.folder / f"{'-'.join(map(str, row))}.npy".replace(" ", "-")
        process = self.run(
            "logits", self.path(row.architecture, dtype), "--prompt-ids", self.prompt, "--out", out,
            "--tp", row.ranks, "--chunk", row.chunk, "--threads", row.threads, "--cpu-mask", row.level,
            "--hang-ms", HANG_MS, "--act", act,
            *(["--kv", kv] if kv else []), *(["--bf16", bf16] if bf16 else []))
        assert process.returncode == 0, f"{row}: {process.stderr}"
        assert not process.stderr, f"{row}: {process.stderr}"  # a level that is not used, a rebuild
        logits = np.load(out)
        out.unlink()
        assert logits.shape == (N_TOKENS, random_model.VOCAB) and logits.dtype == np.dtype("<f4")
        return logits


@pytest.fixture(scope="module")
def pool():
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as executor:
        yield executor


@pytest.fixture(scope="module")
def models(run, tmp_path_factory):
    return Models(run, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def references(models, pool):
    """{(architecture, weights): logits}, those of plain BF16 for 12 bits"""
    distinct = [model for model in MODELS if model[1] != PACKED]
    rows = [Row(**REFERENCE, architecture=architecture, weights=weights)
            for architecture, weights in distinct]
    found = dict(zip(distinct, pool.map(models.logits, rows)))
    return found | {(architecture, PACKED): found[architecture, "BF16"]
                    for architecture in FACTORS["architecture"]}


def difference(models, references, row):
    """None, or where and how the logits of a row differ from the reference."""
    expected = references[row.architecture, row.weights]
    logits = models.logits(row)
    differs = np.argwhere(logits.view(np.uint32) != expected.view(np.uint32))
    if not len(differs):
        return None
    position, token = differs[0]
    return (f"{row}: {len(differs)} of {logits.size} logits differ, first at position {position}, "
            f"token {token}: {logits[position, token]!r}, not {expected[position, token]!r}")


def check(models, references, pool, rows):
    found = pool.map(lambda row: difference(models, references, row), rows)
    differences = [text for text in found if text]
    assert not differences, "\n".join([f"{len(differences)} of {len(rows)}:", *differences])


def test_rows_hold_every_pair():
    rows = covering_rows()
    assert rows == covering_rows()
    columns = list(zip(*rows))
    for i, j in itertools.combinations(range(len(FACTORS)), 2):
        wanted = itertools.product(*(list(FACTORS.values())[k] for k in (i, j)))
        assert set(zip(columns[i], columns[j])) == set(wanted), (Row._fields[i], Row._fields[j])


def test_references_can_tell_a_difference(references):
    """Finite numbers that spread, and other ones for each model: bf16 products are not f32's."""
    for model, logits in references.items():
        assert np.isfinite(logits).all() and 0.5 < logits.std() < 5, model
    n_packed = len(FACTORS["architecture"])
    assert len({logits.tobytes() for logits in references.values()}) == len(MODELS) - n_packed


def test_every_pair_gives_the_same_bits(models, references, pool):
    check(models, references, pool, covering_rows())


@pytest.mark.full
@pytest.mark.parametrize("architecture,weights", MODELS)
def test_the_product_gives_the_same_bits(architecture, weights, models, references, pool):
    settings = [FACTORS[name] for name in REFERENCE]
    check(models, references, pool,
          [Row(*row, architecture, weights) for row in itertools.product(*settings)])


PROMPT = ",".join(map(str, range(1, N_TOKENS)))


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_quantised_at_load(models, quant):
    """The same bits at every number of ranks, and those of another type than without."""
    path = ROOT / "tests/model/golden/qwen3-bf16"  # of which ffn_down has no whole groups, and stays
    found = []
    for ranks, extra in [(1, []), (1, ["--quant", quant]), (2, ["--quant", quant]), (5, ["--quant", quant])]:
        out = models.folder / "quant.npy"
        process = models.run("logits", path, "--prompt-ids", PROMPT, "--out", out, "--tp", ranks,
                             "--hang-ms", HANG_MS, *extra)
        assert process.returncode == 0 and not process.stderr, process.stderr
        found.append(np.load(out))
    plain, one, two, five = found
    assert np.array_equal(one, two) and np.array_equal(one, five)
    assert not np.array_equal(plain, one) and np.abs(plain - one).max() < np.abs(plain).max()


def test_what_cannot_be_quantised_is_refused(models):
    process = models.run("logits", models.path("qwen3", "Q8_0"), "--prompt-ids", models.prompt, "--out", "x",
                         "--quant", "q4_0")
    assert process.returncode == 1 and "--quant: no matrix of the model can be quantised to Q4_0" in process.stderr
