# SPDX-License-Identifier: Apache-2.0
"""What the Python tests share: the program, the default model, and running the one on the other."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

os.environ["LOCKSTEP_CONFIG"] = ""  # no lockstep.conf of whoever runs the tests counts
os.environ["LOCKSTEP_TUNE"] = "off"  # what is measured changes no result, but takes time

# Files of a quarter of a minute and more, the longest first. ./check shares the files out among workers
# in this order, so that none is left with a long one at the end.
LONG = ["chat/test_jinja_equal.py", "e2e/test_serve_chat.py", "e2e/test_memory.py", "model/test_golden.py",
        "model/test_pairs.py", "fault/test_leader.py", "tokenizer/test_tokenize.py", "fault/test_matrix.py",
        "tokenizer/test_hf_equality.py", "e2e/test_run.py", "e2e/test_serve_load.py", "e2e/test_api_fields.py",
        "fault/test_soak.py", "web/test_page.py", "e2e/test_serve_life.py"]


def place(item):
    name = str(item.path.relative_to(ROOT / "tests"))
    return LONG.index(name) if name in LONG else len(LONG)


def pytest_collection_modifyitems(items):
    items.sort(key=place)
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
