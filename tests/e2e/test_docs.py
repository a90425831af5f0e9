# SPDX-License-Identifier: Apache-2.0
"""docs/serve.md: its examples are run as they stand, and every endpoint and status is in it.

An example is a sh block with a curl command, and behind it a block `json STATUS` or `text STATUS`. The
answer has all fields of a json block, in text every line: a data line as JSON with its fields, any other
line as it is."""

import json
import pathlib
import re
import subprocess

import pytest
from serving import serving

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serve.md").read_text()
EXAMPLES = re.findall(r"^```sh\n(.*?)^```\n+^```(json|text) (\d+)\n(.*?)^```$", PAGE, re.M | re.S)
NAME = "SmolLM2-135M-Instruct.Q4_1"


@pytest.fixture(scope="module")
def server(lockstep, model):
    with serving(lockstep, model, "--tp", 2, "--allow-faults", "--hang-ms", 5000, "--kv-memory", 512,
                 "--served-model-name", NAME) as it:
        yield it
        it.wait_ready()
        assert it.stop() == 0, it.errors


def missing(shown, got, where=""):
    """The first field of shown that got has not, or that is of another kind; "" if all are there."""
    if isinstance(shown, dict):
        if not isinstance(got, dict):
            return where or "an object"
        return next((m for k in shown if (m := missing(shown[k], got[k], f"{where}.{k}")
                                          if k in got else f"{where}.{k}")), "")
    if isinstance(shown, list):
        if not isinstance(got, list):
            return where
        return next((m for i, s in enumerate(shown) if (m := missing(s, got[i], f"{where}[{i}]")
                                                        if i < len(got) else f"{where}[{i}]")), "")
    if isinstance(shown, str):
        return "" if isinstance(got, str) else where
    if isinstance(shown, int | float) and not isinstance(shown, bool):
        return "" if isinstance(got, int | float) else where
    return "" if got is None or shown is None or isinstance(got, type(shown)) else where


def test_every_example_is_found():
    assert len(EXAMPLES) == PAGE.count("```sh\n") > 15


@pytest.mark.parametrize("command, kind, status, shown", EXAMPLES,
                         ids=[re.search(r"8421([^' ]*)", e[0]).group(1)[:40] for e in EXAMPLES])
def test_example(server, command, kind, status, shown):
    if "/models/sse" not in command and "/models/load" not in command:
        server.wait_ready()
    elif "/models/load" in command and server.get("/health")[0] == 200:
        server.post("/models/unload", {"model": NAME})  # when this example alone is run
    command = re.sub(r"\bcurl ", r"curl -sS -w '\\n%{http_code}' ", command, count=1)
    command = command.replace("127.0.0.1:8421", f"127.0.0.1:{server.port}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", timeout=120,
                          check=True)
    text, _, code = done.stdout.rpartition("\n")
    assert code == status, done
    if kind == "json":
        assert missing(json.loads(shown), json.loads(text)) == "", text
        return
    lines = text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for line in shown.splitlines():
        if line.startswith("data: {"):
            assert any(missing(json.loads(line[6:]), event) == "" for event in events), (line, text)
        else:
            assert any(got.lower().startswith(line.lower()) for got in lines), (line, text)


def test_every_endpoint_is_there():
    """Those of routes.def, each with its path, and each of the errors' statuses."""
    routes = re.findall(r'^ROUTE\(\w+, "([^"]+)"', (ROOT / "src/api/routes.def").read_text(), re.M)
    assert len(routes) > 15
    for path in {r for r in routes if not r.startswith(("/index", "/favicon"))}:
        assert path in PAGE, f"{path} is not in docs/serve.md"
    kinds = re.findall(r"^    \{(\d{3}), \"", (ROOT / "src/api/error.c").read_text(), re.M)
    for status in kinds:
        assert f"\n| {status} |" in PAGE, f"{status} is not in the table of errors"


def test_states():
    """What the page says of states is what the server may say."""
    states = re.findall(r'\[HOST_\w+\] = "(\w+)"', (ROOT / "src/gateway/host.c").read_text())
    assert len(states) == 7
    for state in states:
        assert f"`{state}`" in PAGE, state
