# SPDX-License-Identifier: Apache-2.0
"""lockstep pull against a hub in miniature (conftest.py), which also does everything wrong once."""

import json
import os
import pty
import random
import signal
import subprocess
import threading
import time

import pytest

from .conftest import COMMIT

TOKEN = "hf_thisIsSecret"


def snapshot(repo):
    return repo / "snapshots" / COMMIT


def check_whole(hub, repo, *names):
    """These files, and no others, with the right content and in the cache's layout."""
    there = {p.relative_to(snapshot(repo)).as_posix() for p in snapshot(repo).rglob("*") if not p.is_dir()}
    assert there == set(names)
    for name in names:
        path = snapshot(repo) / name
        assert path.is_symlink() and not os.path.isabs(os.readlink(path))
        assert path.resolve() == (repo / "blobs" / hub.hash(name)).resolve()
        assert path.read_bytes() == hub.files[name]
    assert sorted(p.name for p in (repo / "blobs").iterdir()) == sorted({hub.hash(n) for n in names})


def failed(result, *words, status=1):
    assert result.returncode == status, result
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("lockstep: ")
    for word in words:
        assert word in last, result.stderr
    return result


@pytest.mark.san
def test_pull(hub, pull, repo):
    hub.add("chat_template.jinja", "{{ messages }}")
    hub.add("additional_chat_templates/tool_use.jinja", "{{ tools }}")
    hub.add("onnx/model.safetensors", b"not this one")
    hub.add("special_tokens_map.json", "")  # nothing to ask for
    result = pull()
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{snapshot(repo)}\n"
    check_whole(hub, repo, "config.json", "tokenizer.json", "chat_template.jinja", "special_tokens_map.json",
                "additional_chat_templates/tool_use.jinja", "model.safetensors")
    assert (repo / "refs/main").read_text() == COMMIT
    assert "model.safetensors: 293.0 KiB" in result.stderr
    n = len(hub.requests)
    again = pull()
    assert again.returncode == 0 and again.stdout == result.stdout
    assert len(hub.requests) == n + 2  # the commit and the list
    # Weights come last: a snapshot that has them is whole.
    assert [p for _, p, _ in hub.requests if "/resolve/" in p][-1].endswith("model.safetensors")


def test_quiet_and_places(hub, pull, tmp_path):
    assert pull("--quiet", "org/model", "--cache", tmp_path / "a").stderr == ""
    assert (tmp_path / "a/models--org--model/refs/main").exists()
    assert pull(env={"HF_HUB_CACHE": str(tmp_path / "b")}).returncode == 0
    assert (tmp_path / "b/models--org--model/refs/main").exists()
    assert pull(env={"HF_HOME": "", "XDG_CACHE_HOME": str(tmp_path / "x")}).returncode == 0
    assert (tmp_path / "x/huggingface/hub/models--org--model/refs/main").exists()
    assert pull(env={"HF_HOME": "", "XDG_CACHE_HOME": ""}).returncode == 0
    assert (tmp_path / ".cache/huggingface/hub/models--org--model/refs/main").exists()
    assert pull("org/model", "--endpoint", hub.endpoint + "//", "--cache", tmp_path / "c",
                env={"HF_ENDPOINT": "http://127.0.0.1:1"}).returncode == 0


@pytest.mark.san
@pytest.mark.parametrize("place", ["environment", "file"])
def test_token(hub, pull, repo, tmp_path, place):
    """It goes to the endpoint with each request and nowhere else."""
    env = {"HF_TOKEN": TOKEN}
    if place == "file":
        env = {}
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf/token").write_text(TOKEN + "\n")
    result = pull("org/model", "--verbose", env=env)
    assert result.returncode == 0
    assert hub.asked("store", "") and hub.asked("hub", "")
    assert all(h.get("authorization") == f"Bearer {TOKEN}" for h in hub.asked("hub", ""))
    assert all("authorization" not in h for h in hub.asked("store", ""))
    assert TOKEN not in result.stderr + result.stdout


@pytest.mark.san
def test_token_refused(pull, hub):
    failed(pull(env={"HF_TOKEN": "two words " + TOKEN}), "HF_TOKEN", "characters")
    assert not hub.requests
    hub.fail("hub", "/api/", status=401, headers={"X-Error-Code": "RepoNotFound"})
    result = failed(pull(env={"HF_TOKEN": TOKEN}), "token", "401")
    assert TOKEN not in result.stderr


@pytest.mark.san
def test_broken_connection(hub, pull, repo):
    hub.fail("store", "model.safetensors", cut=100_000)
    hub.fail("hub", "tokenizer.json", cut=700)
    result = pull()
    assert result.returncode == 0, result.stderr
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")
    large = hub.asked("store", "model.safetensors")
    small = hub.asked("hub", "tokenizer.json")
    assert [h.get("range") for h in large] == [None, "bytes=100000-"]
    assert [h.get("range") for h in small] == [None, "bytes=700-"]
    assert small[1]["if-range"] == f'"{hub.hash("tokenizer.json")}"'
    assert "if-range" not in large[1]  # the store has its own etags
    assert "trying again" in result.stderr


@pytest.mark.san
def test_range_is_ignored(hub, pull, repo):
    hub.fail("store", "model.safetensors", cut=100_000)
    hub.fail("store", "model.safetensors", whole=True)
    result = pull()
    assert result.returncode == 0 and "from the start again" in result.stderr
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


def test_range_is_refused(hub, pull, repo):
    hub.fail("store", "model.safetensors", cut=100_000)
    hub.fail("store", "model.safetensors", status=416)
    assert pull().returncode == 0
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


def test_another_range(hub, pull):
    hub.fail("store", "model.safetensors", cut=100_000)
    hub.fail("store", "model.safetensors", range_at=99_999)
    failed(pull(), "model.safetensors", "another range")


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_and_continued(hub, pull, repo, lockstep, number):
    go_on = threading.Event()
    hub.fail("store", "model.safetensors", cut=200_000, wait=go_on)
    process = subprocess.Popen([lockstep, "pull", "org/model"], env=pull.environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                               # a shell that runs this in the background has switched it off
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    incomplete = repo / "blobs" / (hub.hash("model.safetensors") + ".incomplete")
    wait_for(lambda: incomplete.exists() and incomplete.stat().st_size == 200_000)
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    go_on.set()
    assert process.returncode == -number and output == ""
    assert number == signal.SIGKILL or "goes on from here" in errors
    assert not (repo / "refs/main").exists()
    assert pull().returncode == 0
    assert hub.asked("store", "model.safetensors")[-1]["range"] == "bytes=200000-"
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


@pytest.mark.san
def test_what_was_left_is_wrong(hub, pull, repo):
    """Nobody knows who wrote what lies there: the checksum decides."""
    (repo / "blobs").mkdir(parents=True)
    name = hub.hash("model.safetensors") + ".incomplete"
    for left in (b"x" * 1000, b"x" * 300_000, b"x" * 300_001):
        (repo / "blobs" / name).write_bytes(left)
        assert pull().returncode == 0
        check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")
        (repo / "blobs" / hub.hash("model.safetensors")).unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_checksum(hub, pull, repo, name):
    role = "store" if name in hub.large else "hub"
    hub.fail(role, name, corrupt=True)
    result = pull()
    assert result.returncode == 0 and "wrong checksum" in result.stderr
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")
    for path in (repo / "blobs").iterdir():
        path.unlink()
    (repo / "refs/main").unlink()
    hub.fail(role, name, corrupt=True, times=2)
    failed(pull(), name, "checksum", hub.hash(name))
    assert not (snapshot(repo) / name).exists() and not (repo / "refs/main").exists()
    assert not list((repo / "blobs").glob(hub.hash(name) + "*"))


def test_etag(hub, pull):
    hub.hashes["tokenizer.json"] = "a" * 40
    hub.fail("hub", "tokenizer.json", status=200, headers={"ETag": '"' + "b" * 40 + '"'})
    hub.sizes["tokenizer.json"] = len(b'{"error": "so it is"}')
    failed(pull(), "tokenizer.json", "etag", "b" * 40)


def test_other_sizes(hub, pull):
    hub.fail("store", "model.safetensors", extra=1)
    failed(pull(), "model.safetensors", "more than 300000 bytes")
    hub.sizes["model.safetensors"] = 300_001
    failed(pull(), "model.safetensors", "has 300000 bytes", "says 300001")


@pytest.mark.san
@pytest.mark.parametrize("status, code, token, words", [
    (401, "RepoNotFound", None, ["401", "no model of this name", "HF_TOKEN"]),
    (401, "GatedRepo", None, ["gated", "accept its terms", "/org/model", "HF_TOKEN"]),
    (403, "GatedRepo", TOKEN, ["gated", "accept its terms", "that account's token"]),
    (403, "", TOKEN, ["403", "no right"]),
    (404, "RepoNotFound", None, ["no model of this name", "404"]),
    (404, "RevisionNotFound", None, ["no revision main"]),
    (418, "", None, ["418"]),
])
def test_refused(hub, pull, status, code, token, words):
    hub.fail("hub", "/api/", status=status, headers={"X-Error-Code": code})
    failed(pull(env={"HF_TOKEN": token or ""}), "org/model", *words)


def test_gated_file(hub, pull):
    """The list of a gated model is public, its files are not."""
    hub.fail("hub", "/resolve/", status=403, headers={"X-Error-Code": "GatedRepo"})
    failed(pull(), "gated")


@pytest.mark.san
def test_busy(hub, pull, repo):
    hub.fail("hub", "/api/", status=503, times=2)
    hub.fail("store", "model.safetensors", status=429, headers={"Retry-After": "1"})
    start = time.monotonic()
    result = pull()
    assert result.returncode == 0 and "trying again in 1 s" in result.stderr
    assert time.monotonic() - start > 1.7  # 0.25 + 0.5 + 1
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


def test_busy_for_too_long(hub, pull):
    hub.fail("hub", "/api/", status=503, times=100)
    failed(pull(), "tried 5 times", "503")
    assert len(hub.requests) == 5
    hub.faults.clear()
    hub.fail("hub", "/api/", status=429, headers={"Retry-After": "3600"})
    failed(pull(), "come back in 3600 s")


def test_nobody_there(hub, pull):
    failed(pull(env={"HF_ENDPOINT": "http://127.0.0.1:1"}), "127.0.0.1:1", "tried 5 times")


@pytest.mark.san
@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a//b", "a/./b", "a/", "a\x1b[2Jb",
                                  "a\u0085b", "a\\b", "", "x" * 256, "refs\x00"])
def test_unsafe_paths(hub, pull, repo, tmp_path, path):
    hub.add(path, "evil")
    result = pull()
    failed(result, "accepted", "list of files")
    assert "\x1b" not in result.stderr and "\u0085" not in result.stderr
    assert not repo.exists() and not list(tmp_path.rglob("evil"))


@pytest.mark.san
@pytest.mark.parametrize("hashed", ["../../evil", "A" * 64, "a" * 63, "a" * 65, ""])
def test_unsafe_hashes(hub, pull, hashed):
    hub.hashes["model.safetensors"] = hashed or "0"
    failed(pull(), "model.safetensors", "no checksum")


@pytest.mark.san
@pytest.mark.parametrize("name", ["model", "org/", "/model", "org/model/x", "org/../model", "org/mo--del",
                                  "org/model:", "org/model:a/b", "-x/model", "org/model/../x.gguf", ".org/m",
                                  "org/model\n", "a/b/c/d"])
def test_names(hub, pull, name):
    result = pull("--", name) if name.startswith("-") else pull(name)
    assert result.returncode != 0 and not hub.requests


def shards(hub, *names):
    del hub.files["model.safetensors"]
    for i, name in enumerate(names):
        hub.add(name, random.Random(i).randbytes(1000 + i))
    return json.dumps({"metadata": {}, "weight_map": {f"layer.{i}": n for i, n in enumerate(names)}})


@pytest.mark.san
def test_shards(hub, pull, repo):
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    hub.add("model.safetensors.index.json", shards(hub, *names))
    hub.add("consolidated.safetensors", b"the same again")
    result = pull()
    assert result.returncode == 0, result.stderr
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors.index.json", *names)


@pytest.mark.san
def test_bad_index(hub, pull, repo):
    text = shards(hub, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    hub.add("model.safetensors.index.json", text)
    del hub.files["model-00002-of-00002.safetensors"]
    failed(pull(), "model-00002-of-00002.safetensors is not there")
    hub.add("model.safetensors.index.json", '{"weight_map": []}')
    failed(pull(), "model.safetensors.index.json", "no weight_map")
    hub.add("model.safetensors.index.json", "{")
    failed(pull(), "model.safetensors.index.json")


@pytest.fixture
def ggufs(hub):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        del hub.files[name]
    for i, name in enumerate(["m-Q4_K_M.gguf", "m-IQ4_K_M.gguf", "m-q8_0.gguf", "mmproj-f16.gguf",
                              "BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"]):
        hub.add(name, random.Random(i).randbytes(500))
    return hub


@pytest.mark.san
@pytest.mark.parametrize("name, files", [
    ("org/model:Q4_K_M", ["m-Q4_K_M.gguf"]),
    ("org/model:Q8_0", ["m-q8_0.gguf"]),
    ("org/model/m-Q4_K_M.gguf", ["m-Q4_K_M.gguf"]),
    ("org/model:bf16", ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"]),
    ("org/model/BF16/m-BF16-00002-of-00002.gguf",
     ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"]),
])
def test_gguf(ggufs, pull, repo, name, files):
    result = pull(name)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{snapshot(repo) / files[0]}\n"
    check_whole(ggufs, repo, *files)


@pytest.mark.san
def test_gguf_is_not_clear(ggufs, pull):
    failed(pull(), "4 GGUF models", "m-Q4_K_M.gguf", "m-q8_0.gguf", "org/model:QUANT")
    failed(pull("org/model:Q5_K_M"), "Q5_K_M")
    failed(pull("org/model/none.gguf"), "none.gguf")
    del ggufs.files["BF16/m-BF16-00002-of-00002.gguf"]
    failed(pull("org/model:BF16"), "1 of its 2 parts")
    ggufs.files.clear()
    ggufs.add("README.md", "nothing")
    failed(pull(), "neither .safetensors nor .gguf")


def test_pages(hub, pull, repo):
    hub.page = 2
    assert pull().returncode == 0
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")
    assert len(hub.asked("hub", "/tree/")) == 3


def test_disk(hub, pull, repo):
    hub.sizes["model.safetensors"] = 60_000_000_000_000
    failed(pull(), "org/model needs 55879.", "GiB free")
    assert not hub.asked("hub", "/resolve/")


def test_two_at_once(hub, pull, repo, lockstep):
    """Also when the first is killed: its lock goes with it, and the second one goes on where it stood."""
    go_on = threading.Event()
    hub.fail("store", "model.safetensors", cut=100_000, wait=go_on)
    start = lambda: subprocess.Popen([lockstep, "pull", "org/model"], env=pull.environment(),  # noqa: E731
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    first = start()
    wait_for(lambda: hub.asked("store", "model.safetensors"))
    second, third = start(), start()
    for process in (second, third):
        while "waiting for another process" not in (line := process.stderr.readline()):
            assert line, "it ended without waiting"
    first.kill()
    first.communicate()
    for process in (second, third):
        process.communicate(timeout=30)
        assert process.returncode == 0
    go_on.set()
    assert [h.get("range") for h in hub.asked("store", "model.safetensors")] == [None, "bytes=100000-"]
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


def test_revisions(hub, pull, repo):
    assert pull("org/model", "--revision", "refs/pr/1").returncode == 0
    assert (repo / "refs/refs/pr/1").read_text() == COMMIT
    assert pull("org/model", "--revision", COMMIT).returncode == 0
    assert not (repo / "refs" / COMMIT).exists() and not (repo / "refs/main").exists()
    for bad in ("../x", "a b", "", "a\x01"):
        failed(pull("org/model", "--revision", bad), "revision")


@pytest.mark.san
@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:secret@127.0.0.1/x",
                                "http://"])
def test_bad_redirects(hub, pull, to):
    hub.redirect = to
    assert "secret" not in failed(pull()).stderr


def test_redirects_in_a_circle(hub, pull):
    hub.redirect = f"/org/model/resolve/{COMMIT}/model.safetensors"
    failed(pull(), "redirects")
    assert len(hub.asked("hub", "model.safetensors")) == 9  # the first, and 8 that it led to


def test_relative_redirect(hub, pull, repo):
    hub.add("tokenizer_config.json", "{}")
    hub.fail("hub", "tokenizer_config.json", status=307,
             headers={"Location": f"/org/model/resolve/{COMMIT}/tokenizer_config.json?again"})
    hub.files["tokenizer_config.json?again"] = hub.files["tokenizer_config.json"]
    hub.hashes["tokenizer_config.json?again"] = hub.hash("tokenizer_config.json")
    assert pull(env={"HF_TOKEN": TOKEN}).returncode == 0
    assert all("authorization" in h for h in hub.asked("hub", "tokenizer_config.json"))


def test_tls(hub, pull, repo, tmp_path):
    """An unknown certificate is refused, at once; https does not lead to http."""
    certificate = hub.encrypt(tmp_path)
    failed(pull(env={"HF_TOKEN": TOKEN}), "certificate")
    assert not hub.requests
    failed(pull(env={"HF_TOKEN": TOKEN, "SSL_CERT_FILE": certificate}), "redirects to where we do not go")
    assert hub.asked("hub", "config.json") and not hub.asked("store", "")
    hub.large.clear()
    assert pull(env={"CURL_CA_BUNDLE": certificate}).returncode == 0
    check_whole(hub, repo, "config.json", "tokenizer.json", "model.safetensors")


@pytest.mark.parametrize("endpoint", ["ftp://127.0.0.1", "http://me:secret@127.0.0.1", "127.0.0.1", "http://",
                                      "http://127.0.0.1/?a"])
def test_bad_endpoints(hub, pull, endpoint):
    assert "secret" not in failed(pull(env={"HF_ENDPOINT": endpoint}), "endpoint").stderr


@pytest.mark.san
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"sha": "x"}', b'{"sha": 1}', b"\xff", b"[" * 5000])
def test_nonsense(hub, pull, body):
    def answer(request, role):
        request.send(200, body=body)

    hub.answer = answer
    failed(pull(), "org/model")


def test_bar(hub, pull, lockstep):
    """On a terminal a bar is drawn and taken away; what has come stays as a line."""
    go_on = threading.Event()
    hub.fail("store", "model.safetensors", cut=150_000, wait=go_on)
    leader, terminal = pty.openpty()
    process = subprocess.Popen([lockstep, "pull", "org/model"], env=pull.environment(),
                               stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    while b"total [#" not in shown:
        shown += os.read(leader, 4096)
    go_on.set()
    assert process.wait(20) == 0
    while True:
        try:
            more = os.read(leader, 4096)
        except OSError:
            break
        shown += more
    os.close(leader)
    assert b"model.safetensors  50 %" in shown and b"KiB of " in shown
    assert shown.rstrip().endswith(b"model.safetensors: 293.0 KiB")
