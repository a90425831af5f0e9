# SPDX-License-Identifier: Apache-2.0
"""What the Python tests share: the program, the default model, and running the one on the other."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

os.environ["LOCKSTEP_CONFIG"] = ""  # no lockstep.conf of whoever runs the tests counts


def pytest_collection_modifyitems(items):
    if os.environ.get("LOCKSTEP_FULL"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="long; ./check --full runs it"))


def pytest_make_parametrize_id(val):
    """Short names: pytest puts the test's name into the environment, which the kernel bounds."""
    return val[:60] + "..." if isinstance(val, str) and len(val) > 60 else None


@pytest.fixture(scope="session")
def lockstep():
    """The program's path (LOCKSTEP_BIN)."""
    path = pathlib.Path(os.environ.get("LOCKSTEP_BIN", ROOT / "build/release/lockstep")).resolve()
    assert path.exists(), f"{path} is not built (./start --build, or set LOCKSTEP_BIN)"
    return path


@pytest.fixture(scope="session")
def model():
    """The default model's path (LOCKSTEP_MODEL)."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = pathlib.Path(os.environ.get("LOCKSTEP_MODEL",
                                       cache / "lockstep/SmolLM2-135M-Instruct.Q4_1.gguf"))
    assert path.exists(), f"{path} is not there (./start gets it, or set LOCKSTEP_MODEL)"
    return path


@pytest.fixture(scope="session")
def shared():
    """The folder with files too large for this repository (LOCKSTEP_SHARED)."""
    path = pathlib.Path(os.environ.get("LOCKSTEP_SHARED", ROOT / "../shared")).resolve()
    if not path.exists():
        pytest.skip(f"{path} is not there (set LOCKSTEP_SHARED)")
    return path


@pytest.fixture(scope="session")
def run(lockstep):
    """run(*arguments, **options of subprocess.run): the finished process, output as text."""

    def run_it(*arguments, **options):
        options = {"input": "", "timeout": 300, "encoding": "utf-8", **options}
        return subprocess.run([lockstep, *map(str, arguments)], capture_output=True, check=False,
                              **options)

    return run_it
