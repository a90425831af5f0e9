# SPDX-License-Identifier: Apache-2.0
"""lockstep bench quality: its figures are those that NumPy finds in the logits of both paths."""

import json
import pathlib

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"
IDS = [(i * 37 + 5) % 250 for i in range(83)]
WINDOW = 36  # the last one is shorter, and none is a multiple of a step


def text(ids):
    return ",".join(map(str, ids))


def logits(run, tmp_path, model, ids, *extra):
    out = tmp_path / "logits.npy"
    process = run("logits", model, "--prompt-ids", text(ids), "--out", out, *extra)
    assert process.returncode == 0, process.stderr
    return np.load(out).astype(np.float64)


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name,path", [("llama-bf16", ["--act", "bf16"]), ("gguf-q8_0", ["--act", "int8"]),
                                       ("gguf-q4_k", ["--act", "f32", "--kv", "bf16"]),
                                       ("qwen3-bf16", ["--quant", "q8_0"])])
def test_figures(run, tmp_path, name, path):
    model = next(GOLDEN.joinpath(name).glob("*.gguf"), GOLDEN / name)
    process = run("bench", "quality", model, "--prompt-ids", text(IDS), "--window", WINDOW, "--json", *path)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    kl, same, nll = [], [], [[], []]
    for begin in range(0, len(IDS), WINDOW):
        ids = IDS[begin:begin + WINDOW]
        a = logits(run, tmp_path, model, ids, "--act", "f32", "--kv", "f32")
        b = logits(run, tmp_path, model, ids, *path)
        same += list(a.argmax(axis=1) == b.argmax(axis=1))
        a, b = log_softmax(a), log_softmax(b)
        kl += list((np.exp(a) * (a - b)).sum(axis=1))
        for i, x in enumerate((a, b)):
            nll[i] += list(-x[np.arange(len(ids) - 1), ids[1:]])
    assert found["positions"] == len(IDS) and found["window"] == WINDOW
    assert found["kl_mean"] > 0
    for key, value in {"kl_mean": np.mean(kl), "kl_max": np.max(kl), "kl_median": np.sort(kl)[len(kl) // 2],
                       "kl_p99": np.sort(kl)[-1],
                       "same_top": np.mean(same), "reference_perplexity": np.exp(np.mean(nll[0])),
                       "perplexity": np.exp(np.mean(nll[1]))}.items():
        assert found[key] == pytest.approx(value, rel=1e-6, abs=1e-12), key


def test_the_reference_itself(run):
    process = run("bench", "quality", GOLDEN / "llama-f32", "--prompt-ids", text(IDS), "--json", "--act", "f32")
    found = json.loads(process.stdout)
    assert found["kl_mean"] == found["kl_max"] == 0 and found["same_top"] == 1
    assert found["perplexity"] == found["reference_perplexity"]


@pytest.mark.parametrize("arguments,said", [
    ([], "bench quality needs MODEL and --text or --prompt-ids"),
    (["--prompt-ids", "7"], "1 tokens are too few to compare"),
    (["--prompt-ids", "1,2,99999999"], "token 99999999 is not in the vocabulary of"),
    (["--text", "/nowhere"], "/nowhere"),
])
def test_refused(run, arguments, said):
    process = run("bench", "quality", GOLDEN / "llama-f32", *arguments)
    assert process.returncode in (1, 2) and said in process.stderr
    assert len(process.stderr.splitlines()) <= 2
