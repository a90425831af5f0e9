# SPDX-License-Identifier: Apache-2.0
"""lockstep doctor: the facts are this machine's, and a missing or broken library is a line."""

import json
import os

import pytest


def doctor(run, *arguments, **options):
    process = run("doctor", "--json", *arguments, **options)
    assert (process.returncode, process.stderr) == (0, "")
    return json.loads(process.stdout)


@pytest.mark.san
def test_facts(run):
    report = doctor(run)
    topology = report["topology"]
    assert topology["cpus_bound"] == len(os.sched_getaffinity(0))
    assert 1 <= topology["cpus_usable"] <= topology["cpus_bound"] <= topology["cpus"]
    assert sum(node["cpus"] for node in topology["numa_nodes"]) <= topology["cpus"]
    with open("/proc/meminfo", encoding="ascii") as lines:
        assert report["memory_bytes"] == int(lines.readline().split()[1]) * 1024
    assert 0 < report["memory_available_bytes"] <= report["memory_bytes"]
    rates = report["read_bytes_per_s"]
    assert rates["threads"] == topology["cpus_usable"]
    assert 1e8 < rates["one_thread"] < 1e12
    assert 1e8 < rates["all_threads"] < 1e14


def test_levels(run):
    report = doctor(run)
    levels = ["ref", "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx"]
    assert report["level_supported"] in levels
    assert levels.index(report["level"]) <= levels.index(report["level_supported"])
    assert doctor(run, "--cpu-mask", "ref")["level"] == "ref"
    process = run("doctor", "--cpu-mask", "sse9")
    assert process.returncode == 1
    assert process.stderr == f"lockstep: --cpu-mask: 'sse9' is none of {', '.join(levels)}\n"


def test_affinity_is_respected(run):
    first = min(os.sched_getaffinity(0))
    report = doctor(run, preexec_fn=lambda: os.sched_setaffinity(0, {first}))
    assert report["topology"]["cpus_bound"] == 1
    assert report["topology"]["cpus_usable"] == 1
    assert report["read_bytes_per_s"]["threads"] == 1


@pytest.mark.san
def test_a_broken_library_is_named(run, tmp_path):
    for name in ["libcuda.so.1", "libnccl.so.2", "libmpi.so.12", "libmpi.so.40"]:
        (tmp_path / name).write_text("no library", encoding="ascii")
    report = doctor(run, env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    for name in ["CUDA", "NCCL", "MPI"]:
        assert report["libraries"][name]["found"] is False
        assert str(tmp_path) in report["libraries"][name]["detail"]


def test_text(run):
    process = run("doctor")
    assert (process.returncode, process.stderr) == (0, "")
    names = [line.split()[0] for line in process.stdout.splitlines() if not line.startswith(" ")]
    assert names == ["processor", "features", "kernels", "packages", "usable", "NUMA", "caches",
                     "memory", "read", "choices", "CUDA", "NCCL", "MPI"]
