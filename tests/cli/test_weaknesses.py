# SPDX-License-Identifier: Apache-2.0
"""docs/weaknesses.md: every test that it names exists, and its rows are 1 to 52. Also what it says of the
program as a whole: what it starts, and what it is linked to."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/weaknesses.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \|(.*)\|([^|]*)\|([^|]*)\|$", PAGE, re.M)
TEST = re.compile(r"`(tests/[\w/]+\.(?:c: |py::)\w+)`")
N_ROWS = 52

# Who may start a process, and what is started.
STARTERS = {"src/world/spawner_watch.c", "src/world/spawner_child.c",  # ranks
            "src/cmd/tuning.c",  # lockstep doctor, where a server is idle
            "src/cmd/comm_ranks.c"}  # bench comm: ranks of its own, and mpirun where it is compared with
STARTS = re.compile(r"(?<![\w.>])(?:v?fork|_Fork|execv\w*|execl\w*|fexecve|popen|system|posix_spawnp?|clone3?)\(")

LIBRARIES = {"libc.so", "libm.so", "libgcc_s.so", "libatomic.so", "ld-linux-x86-64.so", "ld-linux-aarch64.so", "libpcre2-8.so",
             "libutf8proc.so", "libcurl.so", "libcrypto.so", "libjansson.so", "libxxhash.so", "libhwloc.so", "libedit.so"}


def named(cell):
    """The tests of a row; nothing else stands there."""
    assert TEST.sub("", cell).strip() == "", f"not a test: {TEST.sub('', cell).strip()}"
    return TEST.findall(cell)


def is_there(test):
    path, name = re.fullmatch(r"(.*?)(?:: |::)(\w+)", test).groups()
    file = ROOT / path
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    if path.endswith(".py"):
        return re.search(rf"^def {name}\(", text, re.M) is not None
    defined = re.search(rf"^static void {name}\(void \*\*\w+\)$", text, re.M)
    return defined is not None and re.search(rf"cmocka_unit_test\w*\(\s*{name}\b", text) is not None


def test_rows():
    assert [int(row[0]) for row in ROWS] == list(range(1, N_ROWS + 1))
    assert len(ROWS) == len(re.findall(r"^\| \d", PAGE, re.M))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_test_is_there(row):
    """What is claimed has a test; a row without one is about what is not built."""
    number, _, here, shown = row
    tests = named(shown)
    assert tests or here.strip().startswith("*not here yet"), number
    for test in tests:
        assert is_there(test), f"{number}: there is no {test}"


def test_links():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


def test_only_ranks_are_started():
    """No source but the spawner's, and the bench's that runs ranks of its own, starts a process."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        code = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', "", path.read_text(encoding="utf-8"), flags=re.S)
        calls = STARTS.findall(code)
        if calls:
            found[str(path.relative_to(ROOT))] = calls
    assert set(found) == STARTERS, found


def test_the_machine_is_known_without_other_programs(run, tmp_path):
    """The same facts where no other program can be found."""
    def facts(**environment):
        process = run("doctor", "--json", env={**os.environ, **environment})
        assert (process.returncode, process.stderr) == (0, "")
        report = json.loads(process.stdout)
        return {key: report[key] for key in ("topology", "memory_bytes", "level", "libraries")}

    assert facts(PATH=str(tmp_path)) == facts()


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf here")
def test_what_the_program_is_linked_to(lockstep):
    shown = subprocess.run(["readelf", "-d", lockstep], capture_output=True, text=True, check=True, timeout=60).stdout
    needed = {name.split(".so")[0] + ".so" for name in re.findall(r"\(NEEDED\).*\[(.*?)\]", shown)}
    assert "libc.so" in needed and needed <= LIBRARIES, needed - LIBRARIES
