# SPDX-License-Identifier: Apache-2.0
"""lockstep bench recovery: kills ranks, and says how long it took; by both ways."""

import json
import pathlib

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"
KILLS = 3
LIMIT_MS = 60000  # of a tiny model on a busy machine: an end, not a figure


def test_a_kill_is_measured(run):
    process = run("bench", "recovery", GOLDEN / "llama-bf16", "--tp", 2, "--reps", KILLS, "--hang-ms", 30000, "--json")
    assert process.returncode == 0, process.stderr
    kept, again = json.loads(process.stdout)
    assert kept["kv_kept"] is True and again["kv_kept"] is False
    for report in kept, again:
        assert report["kills"] == KILLS and report["ranks"] == 2 and report["context"] == 256
        assert report["prefill_ms"] > 0
        for name in "detected", "ready", "next_token":
            times = report[name]
            assert 0 < times["p50_ms"] <= times["p99_ms"] <= times["max_ms"] < LIMIT_MS, (name, times)
        assert report["detected"]["p50_ms"] <= report["ready"]["p50_ms"] <= report["next_token"]["p50_ms"]
