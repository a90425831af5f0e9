# SPDX-License-Identifier: Apache-2.0
"""Choices of speed: measured by doctor, bench and idle servers, kept in the cache folder, and of no consequence
for any result."""

import hashlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"
PROMPT = ",".join(map(str, range(1, 7)))
SHAPES = ["qwen3-bf16", "gguf-q8_0"]


@pytest.fixture
def home(tmp_path):
    """An environment with an empty cache folder, in which measuring is allowed."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["LOCKSTEP_TUNE"]
    return environment


def kept(home):
    return sorted(pathlib.Path(home["XDG_CACHE_HOME"]).glob("lockstep/tune-*.json"))


def one_file(home):
    files = kept(home)
    assert len(files) == 1
    assert files[0].stat().st_mode & 0o777 == 0o600 and files[0].parent.stat().st_mode & 0o777 == 0o700
    return files[0]


@pytest.fixture
def measured(run, home):
    """The file that doctor writes, if this machine has kernels to choose for."""
    process = run("doctor", "--json", env=home)
    assert (process.returncode, process.stderr) == (0, "")
    report = json.loads(process.stdout)
    if report["level"] == "ref":
        pytest.skip("the reference kernels have no choices")
    assert report["choices_file"] == str(one_file(home))
    assert json.loads(one_file(home).read_text())["choices"] == report["choices"]
    return one_file(home)


def change(path, **choices):
    content = json.loads(path.read_text())
    content["choices"].update(choices)
    path.write_text(json.dumps(content))


def logits(run, home, tmp_path, name, *flags, says=""):
    out = tmp_path / "logits.npy"
    process = run("logits", GOLDEN / name, "--prompt-ids", PROMPT, "--out", out, *flags, env=home)
    assert process.returncode == 0 and (says in process.stderr if says else not process.stderr), process.stderr
    return hashlib.sha256(out.read_bytes()).hexdigest()


@pytest.mark.san
def test_no_choice_changes_a_result(run, home, measured, tmp_path):
    few = ["plain", "bf16_12", "integers"]
    for name, chunk in itertools.product(SHAPES, [1, 3]):
        flags = ["--chunk", chunk, "--threads", 3]
        found = set()
        for rows, threads, twelve in [(1, 1, True), (2, 2, False), (4, 0, True)]:
            change(measured, few_rows=dict.fromkeys(few, rows), few_threads=threads, bf16_12=twelve)
            found.add(logits(run, home, tmp_path, name, *flags))
        measured.rename(tmp_path / "kept.json")
        found.add(logits(run, home, tmp_path, name, *flags))
        (tmp_path / "kept.json").rename(measured)
        assert len(found) == 1, name


def test_a_choice_is_taken(run, home, measured, tmp_path):
    """bf16_12 decides how BF16 lies in memory, which the size of the weights shows."""
    sizes = {}
    for twelve in True, False:
        change(measured, bf16_12=twelve)
        process = run("bench", "--shape", "qwen3-0.6b", "-p", 1, "-n", 1, "--reps", 1, "--tp", 1, "--json", env=home)
        assert process.returncode == 0, process.stderr
        sizes[twelve] = json.loads(process.stdout)["weight_bytes"]
    assert sizes[True] < 0.8 * sizes[False]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"for": {}, "choices": {}}', "\0" * 100, None])
def test_a_file_of_no_use_is_passed_over(run, home, measured, tmp_path, text):
    before = logits(run, home, tmp_path, SHAPES[0])
    if text is None:
        change(measured, few_rows={"plain": 99, "bf16_12": 1, "integers": 1})
    else:
        measured.write_text(text)
    assert logits(run, home, tmp_path, SHAPES[0], says=f"{measured} is of no use: ") == before


def test_nowhere_to_keep_it(run, home, tmp_path):
    (tmp_path / "cache").write_text("a file")
    process = run("doctor", env=home)
    assert process.returncode == 0
    assert "choices" in process.stdout and "are not kept: " in process.stdout or "reference" in process.stdout


def test_a_server_measures_when_idle(lockstep, model, home, measured):
    measured.unlink()
    process = subprocess.Popen([lockstep, "serve", model, "--port", "0", "--tp", "1"], env=home,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    assert "serving" in process.stdout.readline()
    end = time.monotonic() + 60
    while not kept(home) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    one_file(home)
