# SPDX-License-Identifier: Apache-2.0
"""The command line from outside: help, version, suggestions, exit statuses, one line of error."""

import os
import re
import resource
import subprocess

import pytest

pytestmark = pytest.mark.san

COMMANDS = ["run", "chat", "serve", "pull", "logits", "inspect", "tokenize", "detokenize", "render", "bench",
            "smoke", "fault", "doctor"]


def one_line_error(process, status, text):
    """The process failed with this status and exactly one line on stderr that begins so."""
    assert process.returncode == status, process.stderr
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("lockstep: " + text), process.stderr


def test_help_lists_every_command(run):
    process = run("--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert re.findall(r"^  (\w+) ", process.stdout, re.M) == COMMANDS
    assert run("-h").stdout == process.stdout
    assert run("help").stdout == process.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(run, command):
    process = run(command, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"Usage: lockstep {command} ")
    assert " --help " in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 100
    assert run(command, "--quiet", "-h").stdout == process.stdout


def test_the_documented_flags_exist(run):
    """The flags that people's own checks call."""
    wanted = {
        "run": "-p -n --temp --top-k --top-p --seed --threads --chunk --tp --ids --raw --prompt-ids",
        "chat": "--tp --fault --restart-budget --hang-ms --reprefill --allow-faults --devices",
        "serve": "--tp --port --host --api-key --api-key-file --allow-faults --restart-budget"
                 " --hang-ms --drain-timeout --max-running --max-queue --header-timeout"
                 " --body-timeout --idle-timeout --cors-origin --config",
        "pull": "--endpoint --revision --cache",
        "logits": "--prompt-ids --chunk --threads --tp --cpu-mask --act --out",
        "smoke": "--tp --devices --hang-ms --fault",
        "fault": "--kill --stop --hang-in-collective --drop-frame --corrupt-frame --slow --oom --rank"
                 " --at-step --at-layer --pid --socket",
        "inspect": "--json --tp",
        "tokenize": "--no-special --jsonl",
        "detokenize": "--jsonl",
        "render": "--jsonl",
        "bench": "--threads -p -n --json --shape",
        "doctor": "--json",
    }
    for command, flags in wanted.items():
        text = run(command, "--help").stdout
        for flag in flags.split():
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), (command, flag)


def test_version(run):
    process = run("--version")
    assert process.returncode == 0
    assert re.fullmatch(r"lockstep \d+\.\d+\.\d+\n", process.stdout)


def test_suggestions(run):
    one_line_error(run("rnu"), 2, "unknown command rnu, did you mean run?")
    one_line_error(run("run", "m", "--temperatur", "1"), 2,
                   "run: unknown option --temperatur, did you mean --temp?")
    one_line_error(run("doctor", "--jsno"), 2, "doctor: unknown option --jsno, did you mean --json?")
    one_line_error(run("run", "--shape", "x"), 2,
                   "run: unknown option --shape (it is one of lockstep bench)")


def test_usage_errors(run):
    one_line_error(run(), 2, "a command is missing")
    one_line_error(run(""), 2, "unknown command")
    one_line_error(run("run"), 2, "run: MODEL is missing")
    one_line_error(run("run", "m", "-n", "many"), 2, "run: --max-tokens: many is not a whole number")
    one_line_error(run("run", "m", "--top-p", "2"), 2, "run: --top-p: 2 is not between 1e-06 and 1")
    one_line_error(run("bench", "--shape", "x"), 2, "bench: --shape: x is none of qwen3-0.6b|")
    one_line_error(run("run", "m", "-q", "-v"), 2, "run: --quiet and --verbose exclude each other")


@pytest.mark.parametrize("command", ["run", "chat", "logits", "bench", "smoke"])
def test_options_of_the_world(run, command):
    """What is wrong with them is said before anything is opened or started."""
    model = [] if command == "smoke" else ["m"]
    one_line_error(run(command, *model, "--tp", "17"), 2, f"{command}: --tp: 17 is not between 1 and 16")
    one_line_error(run(command, *model, "--hang-ms", "1"), 2, f"{command}: --hang-ms: 1 is not between")


def test_ranks_are_not_for_people(run):
    for words in [(), ("--rank", "0"), ("--rank", "x", "--epoch", "1", "--leader", "1")]:
        one_line_error(run("rank", *words), 2, "rank: ranks are started by the other commands")


def test_control_characters_are_escaped(run):
    one_line_error(run("x\x1b[31m\n"), 2, "unknown command x\\x1b[31m\\x0a")
    one_line_error(run("run", "m", os.fsdecode(b"--\xff\n")), 2,
                   "run: unknown option --\\xff\\x0a")


def test_a_missing_file_is_named_on_one_line(run):
    for command in ["run", "inspect", "logits", "tokenize", "bench"]:
        extra = {"run": ["-p", "x"], "logits": ["--prompt-ids", "1", "--out", os.devnull]}
        process = run(command, "no/such\nfile", *extra.get(command, []))
        one_line_error(process, 1, "no/such\\x0afile: ")


def test_lost_output_is_an_error(lockstep):
    """A full disk must not look like success."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.run([lockstep, "--help"], stdout=full, stderr=subprocess.PIPE,
                                 encoding="utf-8", check=False)
    assert process.returncode == 1
    assert process.stderr == "lockstep: standard output: No space left on device\n"


def test_quiet_help_works_with_little_memory(lockstep):
    """Help needs no model, no device and next to no memory."""
    if b"__asan_init" in lockstep.read_bytes():
        pytest.skip("sanitizers reserve terabytes of addresses")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (64 << 20, 64 << 20))

    process = subprocess.run([lockstep, "run", "--help"], capture_output=True, check=False,
                             preexec_fn=limit)
    assert process.returncode == 0
