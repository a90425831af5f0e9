# SPDX-License-Identifier: Apache-2.0
"""The unit file, read by systemd's own checks where they are there."""

import configparser
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "dist/lockstep.service"
MOST_EXPOSED = 2.0  # of 10, as systemd-analyze counts

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


@pytest.fixture
def unit(lockstep, tmp_path):
    """A copy that starts the program that was built."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/lockstep", str(lockstep)))
    return copy


@needs_systemd
def test_verify(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@needs_systemd
def test_exposure(unit):
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true", unit],
                          capture_output=True, text=True, timeout=60)
    level = re.search(r"Overall exposure level for lockstep\.service: ([\d.]+)", done.stdout)
    if level is None and "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert float(level.group(1)) <= MOST_EXPOSED, done.stdout


def test_command_line(lockstep):
    """Its options are options of this program."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    words = parser["Service"]["ExecStart"].split()
    assert words[1] == "serve"
    shown = subprocess.run([lockstep, "serve", "--help"], capture_output=True, text=True, timeout=60).stdout
    for word in words:
        assert not word.startswith("--") or word in shown, word
