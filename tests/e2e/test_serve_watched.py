# SPDX-License-Identifier: Apache-2.0
"""What a server tells of itself while ranks die: metrics, log lines, a trace, its service manager."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Server, serving
from wire import make_tiny

RANKS = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched") / "tiny"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def watched(lockstep, tiny):
    # ranks only die here: one that a busy machine does not run for a while is no fault to be counted
    with serving(lockstep, tiny, "--tp", RANKS, "--allow-faults", "--hang-ms", 30000,
                 "--log-format", "json") as it:
        yield it
        assert it.process.poll() is None, it.errors[-20:]
        it.wait_idle()
        assert it.stop() == 0, it.errors[-20:]


def samples(server):
    """{(name, sorted labels without the model's): value} of all samples."""
    status, _, text = server.request("GET", "/metrics")
    assert status == 200
    return {(s.name, *sorted((k, v) for k, v in s.labels.items() if k not in ("model_name", "engine"))): s.value
            for family in text_string_to_metric_families(text.decode()) for s in family.samples}


def wait_for(condition, timeout=30):
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, "it does not come"
        time.sleep(0.05)


def test_metrics_follow_a_request(watched):
    before = samples(watched)
    _, answer = watched.chat("Name three colours.", max_tokens=12, ignore_eos=True)
    usage = answer["usage"]
    watched.wait_idle()
    wait_for(lambda: samples(watched)["vllm:generation_tokens_total",]
             == before["vllm:generation_tokens_total",] + usage["completion_tokens"])
    wait_for(lambda: samples(watched)["vllm:num_requests_running",] == 0)
    after = samples(watched)

    def grown(name, *labels):
        return after[(name, *labels)] - before.get((name, *labels), 0)

    assert grown("vllm:prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("vllm:request_success_total", ("finished_reason", "length")) == 1
    assert grown("vllm:request_success_total", ("finished_reason", "stop")) == 0
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time", "request_inference_time",
                 "request_prefill_time", "request_decode_time", "request_time_per_output_token"):
        assert grown(f"vllm:{name}_seconds_count") == 1, name
    assert grown("vllm:inter_token_latency_seconds_count") == usage["completion_tokens"] - 1
    assert grown("vllm:request_prompt_tokens_sum") == usage["prompt_tokens"]
    assert grown("vllm:request_generation_tokens_sum") == usage["completion_tokens"]
    assert grown("vllm:e2e_request_latency_seconds_sum") >= grown("vllm:time_to_first_token_seconds_sum") > 0
    assert grown("vllm:iteration_tokens_total_count") >= usage["completion_tokens"]
    assert grown("lockstep:http_requests_total", ("code", "200")) >= 1
    assert after["vllm:kv_cache_usage_perc",] == 0
    for rank in map(str, range(RANKS)):
        steps = grown("lockstep:rank_step_seconds_total", ("rank", rank))
        assert 0 < grown("lockstep:collective_seconds_total", ("rank", rank)) < steps
        assert grown("lockstep:rank_wait_seconds_total", ("rank", rank)) > 0


def test_refusals_are_counted_by_code(watched):
    before = samples(watched).get(("lockstep:http_requests_total", ("code", "404")), 0)
    assert watched.get("/nowhere")[0] == 404
    assert samples(watched)["lockstep:http_requests_total", ("code", "404")] == before + 1


def read_events(text):
    """{(pid, tid): events with a duration, by start} and {pid: name} of a trace."""
    trace = json.loads(text)
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    rows = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0
            rows.setdefault((event["pid"], event["tid"]), []).append(event)
    for row in rows.values():
        row.sort(key=lambda e: (e["ts"], -e["dur"]))
        for before, after in zip(row, row[1:]):
            assert before["ts"] + before["dur"] <= after["ts"] + 0.0015, (before, after)
    return trace, names, rows


def inside(inner, outer):
    return outer["ts"] - 0.0015 <= inner["ts"] and \
        inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 0.0015


def by_step(row):
    found = {}
    for event in row:
        found.setdefault(event["args"]["step"], []).append(event)
    return found


def check_rank(rows, pid, layers):
    """Each step has all its layers in order and the head, with collectives inside; returns how many."""
    of_layers, of_calls = by_step(rows[pid, 2]), by_step(rows[pid, 3])
    steps = {e["args"]["step"]: e for e in rows[pid, 1]}
    for number, step in steps.items():
        own = [e for e in of_layers[number] if inside(e, step)]
        assert [e["name"] for e in own] == [f"layer {i}" for i in range(layers)] + ["head"], number
        calls = [e for e in of_calls[number] if inside(e, step)]
        assert [e["args"]["number"] for e in calls] == list(range(1, len(calls) + 1))
        assert len(calls) >= 2 * layers
        for call in calls:
            layer = call["args"]["layer"]
            assert inside(call, own[layer]), (call, own[layer])
    return len(steps)


def test_trace_of_a_world_that_heals(watched):
    """Whole steps of all ranks, and of the leader, before and after a rank is killed."""
    rebuilds = watched.world()["rebuilds"]
    began = time.monotonic()
    text, _ = watched.chat("Write about the sea.", max_tokens=1500, ignore_eos=True)
    seconds = min(3 + 3 * (time.monotonic() - began), 40)  # long enough on this machine, as busy as it is
    asker = http.client.HTTPConnection("127.0.0.1", watched.port, timeout=90)
    asker.request("GET", f"/trace?seconds={seconds:.1f}") # it has begun long before the first token of what follows

    def kill(n_chunks):
        if n_chunks == 4:
            assert watched.get("/trace?seconds=0.1")[0] == 409 # one at a time
            os.kill(watched.ranks()[1], signal.SIGKILL)

    again, _ = watched.stream("Write about the sea.", on_chunk=kill, max_tokens=1500, ignore_eos=True)
    assert again == text
    watched.chat("And the hills.", max_tokens=5) # after the kill, even if that stream was faster
    answer = asker.getresponse()
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/json")
    body = answer.read()
    asker.close()
    trace, names, rows = read_events(body)
    assert trace["otherData"]["lost_records"] == 0
    assert names == {1: "leader", 2: "rank 0", 3: "rank 1"}
    layers = trace["otherData"]["layers"]
    committed = [e for (pid, _), row in rows.items() if pid == 1 for e in row if e["cat"] == "committed"]
    for rank in range(RANKS):
        assert check_rank(rows, 2 + rank, layers) >= len(committed) - 2 > 2
    world = rows[1, 1]
    assert [e["name"] for e in world] == ["rebuild"] and world[0]["args"]["epoch"] == watched.world()["epoch"]
    assert any(e["ts"] > world[0]["ts"] + world[0]["dur"] for e in committed)

    assert watched.world()["rebuilds"] == rebuilds + 1
    wait_for(lambda: samples(watched)["lockstep:recovery_seconds_count",] == rebuilds + 1)
    after = samples(watched)
    assert after["lockstep:rebuilds_total",] == rebuilds + 1
    assert after["lockstep:detection_seconds_count",] == rebuilds + 1
    assert 0 < after["lockstep:detection_seconds_sum",] < 60
    assert 0 < after["lockstep:recovery_seconds_sum",] < 60
    assert after["lockstep:epoch",] == watched.world()["epoch"]


def test_trace_refusals(watched):
    for query in ("?seconds=x", "?seconds=0", "?seconds=-1", "?seconds=nan", "?seconds=1e9"):
        status, body = watched.get("/trace" + query)
        assert status == 400 and body["error"]["param"] == "seconds", query


def test_log_lines_are_json(watched):
    """Also those that tell of the rank that died; a request's line has its answer's id."""
    _, answer = watched.chat("Hello", max_tokens=3)
    wait_for(lambda: any(answer["id"].split("-")[1] in line for line in watched.errors))
    lines = [json.loads(line) for line in watched.errors]
    for line in lines:
        assert line["level"] in ("error", "warning", "info", "debug") and ("text" in line) != ("event" in line)
        time.strptime(line["time"], "%Y-%m-%dT%H:%M:%S." + line["time"].split(".")[1])
    mine = [line for line in lines if line.get("id", "?") in answer["id"]]
    assert len(mine) == 1 and mine[0]["event"] == "request"
    assert mine[0]["code"] == 200 and mine[0]["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert any("died of signal 9" in line.get("text", "") for line in lines)


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.socket.settimeout(60)
        self.seen = []

    def wait(self, key):
        """The first datagram with this key that was not waited for yet, as {key: value}."""
        while True:
            text = self.socket.recv(4096).decode()
            self.seen.append(dict(line.split("=", 1) for line in text.splitlines()))
            if key in self.seen[-1]:
                return self.seen[-1]


def test_service_manager(lockstep, model, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    name = str(tmp_path / "notify")
    manager = Manager(name)
    server = Server(lockstep, model, "--tp", RANKS, "--api-key-file", keys, "--drain-timeout", 20, key="first",
                    env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000"})
    try:
        server.wait_listening()
        server.process.send_signal(signal.SIGHUP) # while it still loads: no readiness, and no reload
        manager.wait("READY")
        assert server.get("/health")[0] == 200
        assert not any("RELOADING" in seen for seen in manager.seen)
        manager.wait("WATCHDOG")
        manager.wait("WATCHDOG") # on an idle server too
        for pid in server.ranks().values():
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in environment and b"WATCHDOG" not in environment

        keys.write_text("second\n")
        server.process.send_signal(signal.SIGHUP)
        assert int(manager.wait("RELOADING")["MONOTONIC_USEC"]) > 0
        manager.wait("READY")
        wait_for(lambda: server.get("/v1/models")[0] == 401)
        server.key = "second"
        assert server.get("/v1/models")[0] == 200

        server.process.send_signal(signal.SIGTERM)
        manager.wait("STOPPING")
        assert int(manager.wait("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) >= 20e6
        assert server.process.wait(30) == 0
    finally:
        server.kill()
        with contextlib.suppress(OSError):
            manager.socket.close()
