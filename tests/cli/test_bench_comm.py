# SPDX-License-Identifier: Apache-2.0
"""lockstep bench comm: the shape of what it prints, with Open MPI and without."""

import json
import os
import shutil

import pytest

pytestmark = pytest.mark.san

SIZES = [1024, 2048, 5120, 65536]


def check_timing(timing, beside=None):
    """beside: the timing it is compared with, at the median."""
    assert 0 < timing["p50_us"] <= timing["p99_us"]
    assert timing["mean_us"] > 0
    assert set(timing) == {"p50_us", "p99_us", "mean_us"} | ({"ratio"} if beside else set())
    if beside:
        assert timing["ratio"] == pytest.approx(timing["p50_us"] / beside["p50_us"])


def check(process, ranks):
    """The JSON is whole; returns why Open MPI was not measured, or None if it was."""
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert set(result) == {"cpu", "cores", "load_average", "rounds", "without_mpi", "worlds"}
    assert result["rounds"] == 400
    assert result["cores"] == len(os.sched_getaffinity(0))
    assert [world["ranks"] for world in result["worlds"]] == ranks
    for world in result["worlds"]:
        check_timing(world["sleeping_barrier"])
        check_timing(world["barrier"], world["sleeping_barrier"])
        assert [size["floats"] for size in world["sizes"]] == SIZES
        for size in world["sizes"]:
            mpi = size.get("mpi_allreduce")
            assert (mpi is None) == (result["without_mpi"] is not None)
            check_timing(size["sum_tree"], mpi)
            check_timing(size["all_reduce"], mpi)
            if mpi:
                check_timing(mpi)
    return result["without_mpi"]


@pytest.fixture
def alone(lockstep, tmp_path):
    """A copy of the program with nothing beside it."""
    return shutil.copy(lockstep, tmp_path / "lockstep")


def run_alone(run, program, *arguments, **options):
    return run("bench", "comm", *arguments, executable=program, **options)


def write_script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_two_and_four_ranks(run):
    """With or without Open MPI, as the machine has it."""
    check(run("bench", "comm", "--reps", 1, "--json"), [2, 4])


def test_without_the_program_for_mpi(run, alone):
    why = check(run_alone(run, alone, "--reps", 1, "--json", "--tp", 3), [3])
    assert why.startswith("there is neither bench_comm_mpi nor bench/bench_comm_mpi beside this")


@pytest.mark.parametrize("mpirun, why", [(None, "mpirun cannot be run"),
                                         ("exit 9", "mpirun ended with status 9")])
def test_an_mpirun_that_does_not_work(run, alone, tmp_path, mpirun, why):
    """The ranks are measured all the same."""
    write_script(tmp_path / "bench_comm_mpi", "exit 1")
    (tmp_path / "path").mkdir()
    if mpirun:
        write_script(tmp_path / "path/mpirun", mpirun)
    environment = {**os.environ, "PATH": str(tmp_path / "path")}
    process = run_alone(run, alone, "--reps", 1, "--json", "--tp", 2, env=environment)
    assert check(process, [2]) == why


def test_the_table(run, alone):
    process = run_alone(run, alone, "--reps", 1, "--tp", 1)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert "load average" in lines[0] and lines[0].endswith("400 rounds")
    assert [line.split()[0] for line in lines[3:5]] == ["barrier", "sleeping"]
    assert [line.split()[:3:2] for line in lines[5:13]] == [
        [str(size), name] for size in SIZES for name in ("sum_tree", "all_reduce")]
    assert lines[-1].startswith("without Open MPI: ")


OPERATIONS = ["all_reduce", "all_gather", "broadcast", "barrier", "reduce_scatter", "reduce", "all_to_all",
              "all_to_allv", "send"]
BYTES = [8, 64, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20]


def check_operations(process, ranks):
    """The JSON is whole; returns the names of the operations in their order."""
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert set(result) == {"cpu", "cores", "load_average", "ranks", "without_mpi", "operations"}
    assert result["ranks"] == ranks
    names = list(dict.fromkeys(line["operation"] for line in result["operations"]))
    for name in names:
        lines = [line for line in result["operations"] if line["operation"] == name]
        assert [line["bytes"] for line in lines] == ([0] if name == "barrier" else BYTES)
        for line in lines:
            assert line["rounds"] >= 5
            assert 0 < line["p50_us"] <= line["p99_us"]
            assert ("ratio" in line) == (result["without_mpi"] is None)
            assert ("floor_p50_us" in line) == (ranks == 2)
            assert line.get("floor_p50_us", 1) > 0
            if "ratio" in line:
                assert line["ratio"] == pytest.approx(line["p50_us"] / line["mpi_p50_us"])
    return names


def test_all_operations(run, alone):
    process = run_alone(run, alone, "--reps", 1, "--json", "--tp", 2, "--op", "all")
    assert check_operations(process, 2) == OPERATIONS


def test_one_operation(run):
    """With or without Open MPI, as the machine has it."""
    assert check_operations(run("bench", "comm", "--reps", 1, "--json", "--op", "send"), 2) == ["send"]


def test_the_table_of_operations(run, alone):
    process = run_alone(run, alone, "--reps", 1, "--tp", 3, "--op", "barrier")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert "3 ranks" in lines[0]
    assert lines[3].split()[:2] == ["barrier", "0"]
    assert lines[-1].startswith("without Open MPI: ")


def test_no_such_operation(run):
    process = run("bench", "comm", "--op", "all_shuffle")
    assert process.returncode == 2
    assert "--op all_shuffle: there is no such collective" in process.stderr
