# SPDX-License-Identifier: Apache-2.0
"""Models that come and go: several side by side, loading and unloading, loads that fail."""

import json
import shutil
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Server, children, rank_of, serving
from wire import Call, chat_body, frozen, holdings, make_tiny, poll

SAMPLED = {"ignore_eos": True, "seed": 6, "temperature": 0.8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def config(folder):
    """Two models with sections of their own, of different architectures and numbers of ranks."""
    make_tiny(folder / "tiny-a")
    make_tiny(folder / "tiny-b", "qwen3-bf16")
    file = folder / "lockstep.conf"
    file.write_text(f"""
ctx = 4096
kv-memory = 64

[model alpha]
path = {folder}/tiny-a
tp = 2
served-model-name = alpha
served-model-name = first

[model beta]
path = {folder}/tiny-b
tp = 1
max-running = 4
hang-ms = 60000
""")
    return file


@pytest.fixture(scope="module")
def server(lockstep, config):
    it = Server(lockstep, None, "--config", config)
    try:
        it.wait_ready()
        yield it
        assert it.stop() == 0, it.errors
    finally:
        it.kill()


def ranks_of(server):
    return [pid for pid in children(server.pid) if rank_of(pid) is not None]


def describe(server, name):
    found = [m for m in server.get("/models")[1]["models"] if m["id"] == name]
    assert len(found) == 1, found
    return found[0]


def wait_status(server, name, status):
    return poll(lambda: (m := describe(server, name))["status"] == status and m, 60,
                lambda: f"{status}: {describe(server, name)}")


def load(server, name):
    status, body = server.post("/models/load", {"model": name})
    if status == 202:
        body = wait_status(server, body["id"], "loaded")
    return status, body


def unload(server, name, **fields):
    return server.post("/models/unload", {"model": name, **fields})


def text_of(server, model, text, n=40):
    return server.chat(text, model=model, max_tokens=n, **SAMPLED)[0]


def counters(server, model):
    """{(name, reason): value} of the model's metrics."""
    text = server.get("/metrics")[1]
    return {(s.name, s.labels.get("reason") or s.labels.get("finished_reason") or s.labels.get("rank") or ""): s.value
            for family in text_string_to_metric_families(text) for s in family.samples
            if s.labels.get("model_name") == model and "le" not in s.labels}


def test_list(server):
    """What each model is: state, devices, memory, limits, capabilities."""
    alpha, beta = describe(server, "alpha"), describe(server, "beta")
    assert alpha["status"] == "loaded" and alpha["names"] == ["alpha", "first"]
    assert alpha["tp"] == 2 and alpha["devices"] == ["cpu", "cpu"]
    assert alpha["memory"]["weight_bytes"] > 0 and alpha["memory"]["kv_bytes"] > 0
    assert alpha["limit"]["context"] == 4096 and "chat" in alpha["capabilities"]
    assert alpha["class"].startswith("canonical")
    assert beta["status"] == "unloaded", "the first one alone is loaded from the start"
    ids = [m["id"] for m in server.get("/v1/models")[1]["data"]]
    assert ids == ["alpha", "first", "beta"]


def test_not_loaded(server):
    status, body = server.post("/v1/chat/completions", chat_body(server, "hi", model="beta"))
    assert status == 503 and body["error"]["code"] == "not_loaded"
    assert server.get("/health")[0] == 200
    assert unload(server, "beta")[0] == 409


def test_load(server):
    """Asynchronous; whoever asks again is told of the same load."""
    before = len(ranks_of(server))
    answers = [server.post("/models/load", {"model": "beta"}) for _ in range(3)]
    assert answers[0][0] == 202 and {a[0] for a in answers} <= {200, 202}
    assert all(a[1]["id"] == "beta" for a in answers)
    wait_status(server, "beta", "loaded")
    assert len(ranks_of(server)) == before + 1
    assert server.post("/models/load", {"model": "beta"})[0] == 200
    assert len(ranks_of(server)) == before + 1


def test_side_by_side(server):
    """Both answer under load, each with its exact texts."""
    load(server, "beta")
    alone = {(m, i): text_of(server, m, f"Number {i}") for m in ("first", "beta") for i in range(4)}
    assert alone["first", 0] != alone["beta", 0]
    calls = {(m, i): Call(server, "/v1/chat/completions",
                          chat_body(server, f"Number {i}", model=m, stream=True, max_tokens=40, **SAMPLED))
             for m, i in alone}
    for key, call in calls.items():
        frames = call.frames()
        assert {f["model"] for f in frames} == {key[0]}
        assert "".join(c["delta"].get("content") or "" for f in frames for c in f["choices"]) == alone[key]


def test_worlds_are_apart(server):
    load(server, "beta")
    assert server.get("/world?model=alpha")[1]["tp"] == 2
    assert server.get("/world?model=beta")[1]["tp"] == 1
    assert server.get("/world?model=nobody")[0] == 404


def begin(server, text, **fields):
    """An answer of beta that runs; to be called while its rank is frozen."""
    call = Call(server, "/v1/chat/completions", chat_body(server, text, model="beta", stream=True,
                                                          **{**SAMPLED, **fields}))
    poll(lambda: server.get("/world?model=beta")[1]["running"] == 1, 30, "it runs")
    return call


def rank_of_beta(server):
    return server.get("/world?model=beta")[1]["ranks"][0]["pid"]


def test_unload_drains(server):
    """What runs goes on to its end, nothing new is taken, others see nothing."""
    load(server, "beta")
    expected = text_of(server, "beta", "drains", 600)
    before = counters(server, "beta")["vllm:admission_rejections_total", "draining"]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(unload(server, "beta")))
    with frozen(rank_of_beta(server)):
        call = begin(server, "drains", max_tokens=600)
        thread.start()
        wait_status(server, "beta", "unloading")
        status, body = server.post("/v1/chat/completions", chat_body(server, "late", model="beta"))
        assert status == 503 and body["error"]["message"], body
        poll(lambda: counters(server, "beta")["vllm:admission_rejections_total", "draining"] == before + 1, 30,
             "the refusal is counted")
        assert text_of(server, "alpha", "still here", 3)
        assert not answers
    assert "".join(c["delta"].get("content") or "" for f in call.frames() for c in f["choices"]) == expected
    thread.join()
    assert answers == [(200, {"model": "beta", "status": "unloaded"})]
    assert describe(server, "beta")["status"] == "unloaded"
    assert len(ranks_of(server)) == 2


def test_counters_outlive_a_world(server):
    """What is counted of a model goes on when it is loaded again; what it holds is nothing meanwhile."""
    load(server, "beta")
    text_of(server, "beta", "counted", 30)
    assert unload(server, "beta")[0] == 200
    away = counters(server, "beta")
    load(server, "beta")
    again = counters(server, "beta")
    text_of(server, "beta", "counted", 30)
    assert unload(server, "beta")[0] == 200
    after = counters(server, "beta")
    for name in ("prompt_tokens_total", "generation_tokens_total", "prefix_cache_queries_total"):
        name = f"vllm:{name}", ""
        assert 0 < away[name] == again[name] < after[name], (name, away[name], again[name], after[name])
    assert away["vllm:kv_cache_usage_perc", ""] == away["vllm:num_requests_running", ""] == 0
    assert all(again[name] >= value for name, value in away.items() if name[0].endswith("_total"))


def test_unload_is_bounded(server):
    load(server, "beta")
    with frozen(rank_of_beta(server)):
        call = begin(server, "bounded", max_tokens=4000)
        assert unload(server, "beta", drain_timeout=0)[0] == 200
        assert "error" in call.frames()[-1]
    assert len(ranks_of(server)) == 2
    assert load(server, "beta")[0] == 202, "and it comes again at once"
    assert text_of(server, "beta", "again")


def test_nothing_is_held_after_unload(server):
    unload(server, "beta")
    load(server, "beta")
    unload(server, "beta")
    before = holdings(server.pid)
    for _ in range(2):
        load(server, "beta")
        assert text_of(server, "beta", "hold", 5)
        assert unload(server, "beta")[0] == 200
    poll(lambda: not holdings(server.pid) - before, 10,
         lambda: f"what was held, and not {holdings(server.pid) - before} more")


def test_progress_as_events(server):
    """The states of a load, to its end; then the stream ends by itself."""
    unload(server, "beta")
    assert server.post("/models/load", {"model": "beta"})[0] == 202
    status, headers, text = server.request("GET", "/models/sse?model=beta")
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]
    assert events[-1]["status"] == "loaded" and {e["id"] for e in events} == {"beta"}
    for event in events:
        if event["status"] == "loading":
            for rank in event["progress"]:
                assert {"rank", "bytes", "total", "bytes_per_second", "eta_seconds"} == set(rank)
    assert server.get("/models/sse?model=nobody")[0] == 404


def test_load_by_path(server, folder):
    """A folder that no section names."""
    path = make_tiny(folder / "tiny-c", "qwen2-bf16")
    status, body = load(server, str(path))
    assert status == 202 and body["id"] == "tiny-c"
    assert text_of(server, "tiny-c", "by path")
    assert server.post("/models/load", {"model": str(path)})[0] == 200, "it is the same one"
    assert unload(server, "tiny-c")[0] == 200


@pytest.mark.san
def test_bad_loads(server, folder):
    """Refused before anything is allocated, or ended with a reason; nothing is left behind."""
    before, ranks = holdings(server.pid), ranks_of(server)
    broken = make_tiny(folder / "broken")
    weights = next(broken.glob("*-00001-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    no_config = make_tiny(folder / "no-config")
    (no_config / "config.json").unlink()
    strange = make_tiny(folder / "strange")
    (strange / "config.json").write_text(json.dumps(
        {**json.loads((strange / "config.json").read_text()), "architectures": ["NobodyForCausalLM"],
         "model_type": "nobody"}))
    for path, word in ((broken, "safetensors"), (no_config, "config.json"), (strange, "nobody"),
                       (folder / "nowhere", "nowhere")):
        status, body = server.post("/models/load", {"model": str(path)})
        assert status in (400, 404) and word in body["error"]["message"].lower(), body
        assert body["error"]["param"] == "model"
    for body, param in (({}, "model"), ({"model": 7}, "model"), ({"model": None}, "model")):
        status, answer = server.post("/models/load", body)
        assert status == 400 and answer["error"]["param"] == param
    assert unload(server, "nobody")[0] == 404
    status, answer = unload(server, "alpha", drain_timeout=-1)
    assert status == 400 and answer["error"]["param"] == "drain_timeout"
    poll(lambda: not holdings(server.pid) - before, 5, lambda: str(holdings(server.pid) - before))
    assert ranks_of(server) == ranks
    assert describe(server, "alpha")["status"] == "loaded"


def test_load_fails_late(server, folder):
    """Files that vanish after a first look at them: the ranks cannot load, and the entry says why."""
    path = make_tiny(folder / "vanishes")
    assert load(server, str(path))[0] == 202
    assert unload(server, "vanishes")[0] == 200
    before, ranks = holdings(server.pid), ranks_of(server)
    shutil.rmtree(path)
    for _ in range(2):  # more than once: the server's end must not count them wrongly
        assert server.post("/models/load", {"model": "vanishes"})[0] == 202
        model = wait_status(server, "vanishes", "unloaded")
        assert "vanishes" in model["why"], model
    poll(lambda: not holdings(server.pid) - before, 5, lambda: str(holdings(server.pid) - before))
    assert ranks_of(server) == ranks
    assert server.get("/health")[0] == 200


def test_shutdown_while_loading(lockstep, folder, config):
    """A load that is under way does not hold up the end."""
    with serving(lockstep, None, "--config", config) as server:
        assert server.post("/models/load", {"model": "beta"})[0] == 202
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
