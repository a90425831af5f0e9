# SPDX-License-Identifier: Apache-2.0
"""What /metrics writes, read by the official parser."""

import os
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

# Of vLLM, as its dashboards query them.
FIRST = [.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
TOKEN = [.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
LATENCY = [.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": FIRST,
    "vllm:inter_token_latency_seconds": TOKEN,
    "vllm:time_per_output_token_seconds": TOKEN,
    "vllm:request_time_per_output_token_seconds": TOKEN,
    "vllm:e2e_request_latency_seconds": LATENCY,
    "vllm:request_queue_time_seconds": LATENCY,
    "vllm:request_inference_time_seconds": LATENCY,
    "vllm:request_prefill_time_seconds": LATENCY,
    "vllm:request_decode_time_seconds": LATENCY,
    "vllm:request_params_n": [1, 2, 5, 10, 20],
    "vllm:iteration_tokens_total": [1] + [8 << i for i in range(12)],
    "vllm:request_prompt_tokens": None,
    "vllm:request_generation_tokens": None,
    "vllm:request_max_num_generation_tokens": None,
    "vllm:request_params_max_tokens": None,
    "vllm:request_prefill_kv_computed_tokens": None,
    "lockstep:detection_seconds": None,
    "lockstep:recovery_seconds": None,
}
OTHERS = {
    "gauge": ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
              "vllm:cache_config_info", "lockstep:epoch", "process_resident_memory_bytes",
              "process_open_fds", "process_start_time_seconds"],
    "counter": ["vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions",
                "vllm:prompt_tokens", "vllm:prompt_tokens_cached", "vllm:generation_tokens",
                "vllm:request_success", "vllm:admission_rejections", "vllm:corrupted_requests",
                "lockstep:rebuilds", "lockstep:rank_step_seconds", "lockstep:rank_wait_seconds",
                "lockstep:collective_seconds", "lockstep:frames_dropped", "lockstep:http_requests",
                "process_cpu_seconds"],
}


@pytest.fixture(scope="module")
def text(lockstep, tmp_path_factory):
    program = lockstep.parent / "metrics_test_metrics"
    if not program.exists():
        pytest.skip("this build has no unit tests")
    path = tmp_path_factory.mktemp("metrics") / "sample"
    subprocess.run([program], env={**os.environ, "METRICS_SAMPLE": str(path)}, check=True, timeout=60)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def families(text):
    found = list(text_string_to_metric_families(text))
    names = [family.name for family in found]
    assert len(names) == len(set(names)), "each name's HELP and TYPE stand once"
    return {family.name: family for family in found}


def test_names_and_types(families):
    for name in HISTOGRAMS:
        assert families[name].type == "histogram", name
    for kind, names in OTHERS.items():
        for name in names:
            assert families[name].type == kind, name
            assert families[name].documentation


def test_buckets(families):
    for name, bounds in HISTOGRAMS.items():
        samples = [s for s in families[name].samples if s.labels["model_name"] == "org/tiny"]
        found = [float(s.labels["le"]) for s in samples if s.name.endswith("_bucket")]
        values = [s.value for s in samples if s.name.endswith("_bucket")]
        assert found == sorted(found) and found[-1] == float("inf"), name
        assert values == sorted(values), name
        assert bounds is None or found[:-1] == bounds, name
        assert values[-1] == next(s.value for s in samples if s.name == name + "_count")


def test_labels(families):
    for name, family in families.items():
        for sample in family.samples:
            if name.startswith("vllm:"):
                assert sample.labels["engine"] == "0"
            if not name.startswith("process_") and name != "lockstep:http_requests":
                assert sample.labels["model_name"] in ("org/tiny", 'o\\dd "name"\n')
    assert {s.labels["finished_reason"] for s in families["vllm:request_success"].samples} == {
        "stop", "length", "abort", "error", "tool_calls"}
    dropped = {s.labels["rank"]: s.value for s in families["lockstep:frames_dropped"].samples
               if s.labels["model_name"] == "org/tiny"}
    assert dropped == {"0": 0, "1": 0, "2": 0, "3": 1e15}


def test_values_read_back(families):
    latency = families["vllm:e2e_request_latency_seconds"].samples
    sums = [s.value for s in latency if s.name.endswith("_sum")]
    assert sums == [pytest.approx(sum(0.1 * i for i in range(0, 50, 2)), rel=1e-12),
                    pytest.approx(sum(0.1 * i for i in range(1, 50, 2)), rel=1e-12)]
