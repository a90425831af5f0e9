# SPDX-License-Identifier: Apache-2.0
"""What the fault tests share: see worlds.py."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import worlds  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint():
    return worlds.Checkpoint()


@pytest.fixture(scope="session")
def talking(checkpoint, tmp_path_factory):
    """A checkpoint for lockstep chat."""
    return worlds.make_talking(checkpoint, tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="session")
def expected(lockstep):
    return worlds.Expected(lockstep)


@pytest.fixture(scope="module", autouse=True)
def no_shared_memory_is_left():
    before = worlds.shared_memory()
    yield
    worlds.poll(lambda: worlds.shared_memory() <= before, 20, "an end to new files in /dev/shm")
