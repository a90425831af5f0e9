# SPDX-License-Identifier: Apache-2.0
"""lockstep.conf and the environment from outside, and the texts that the tables make."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.san


@pytest.fixture(name="conf")
def conf_fixture(tmp_path):
    """conf(text): a configuration file that says so."""

    def write(text):
        path = tmp_path / "lockstep.conf"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def failed(process, status, text):
    """The process failed with this status and one line that begins so."""
    assert process.returncode == status, process.stderr
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("lockstep: " + text), process.stderr


def test_texts_are_those_in_docs(run):
    for flag, name in [("--man", "lockstep.1"), ("--options-md", "options.md")]:
        process = run(flag)
        assert (process.returncode, process.stderr) == (0, "")
        assert process.stdout == (ROOT / "docs" / name).read_text(encoding="utf-8"), name


def test_errors_name_file_and_line(run, conf):
    path = conf("# ours\n\nprot = 80\n")
    failed(run("serve", "m", "--config", path), 2,
           f"serve: {path}:3: unknown option prot, did you mean port?")
    failed(run("doctor", "--config", path), 2, f"doctor: {path}:3: unknown option prot")
    assert run("serve", "--config", path, "--help").returncode == 0
    failed(run("doctor", "--config", path.parent / "none.conf"), 2,
           f"doctor: {path.parent}/none.conf: No such file")


def test_environment(run, conf):
    env = dict(os.environ, LOCKSTEP_PORT="tcp://10.0.0.1:8421")
    failed(run("serve", "m", env=env), 2, "serve: LOCKSTEP_PORT: tcp://10.0.0.1:8421 is not a whole")
    env = dict(os.environ, LOCKSTEP_CONFIG=str(conf("ctx = many\n")))
    failed(run("run", "m", "-p", "x", env=env), 2, f"run: {env['LOCKSTEP_CONFIG']}:1: ctx: many is")
    env["LOCKSTEP_CONFIG"] = ""
    failed(run("run", "/no/such/model", "-p", "x", env=env), 1, "/no/such/model: ")


def test_a_section_names_a_model(run, conf):
    path = conf("[model small]\npath = /no/such/model.gguf\n")
    for command, arguments in [("run", ["-p", "x"]), ("inspect", []), ("tokenize", [])]:
        failed(run(command, "small", *arguments, "--config", path), 1, "/no/such/model.gguf: ")


def test_keys_are_not_shown(run, conf):
    for text in ["api-key SECRET\n", "SECRET\n", "SECRET==\n", "api-kye = SECRET\n",
                 "api-key = SECRET\n" * 17]:
        process = run("serve", "m", "--config", conf(text))
        assert process.returncode == 2
        assert "SECRET" not in process.stderr
    process = run("serve", "m", "--config=", *["--api-key=SECRET"] * 17)
    assert process.returncode == 2
    assert "SECRET" not in process.stderr
