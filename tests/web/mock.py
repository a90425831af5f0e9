# SPDX-License-Identifier: Apache-2.0
"""A server that behaves as the page expects the daemon to: its files, a model that says what a test
wants, and a world whose ranks can die. What the model says is chosen by the last user message, which
names a script of Mock.scripts, or is answered with a text of its own."""

import http.server
import json
import pathlib
import re
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "src/web/page"
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
         "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
# As src/web/web.h says it.
POLICY = "".join(re.findall(r'"([^"]*)"', re.search(
    r"#define WEB_SECURITY_POLICY(.*?)\n\n", (ROOT / "src/web/web.h").read_text(encoding="utf-8"), re.S)[1]))


class Failure(Exception):
    def __init__(self, status, message, code=None, headers=()):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers)


class Mock:
    """The state behind the requests; tests read and change it."""

    def __init__(self):
        self.scripts = {}  # what the user says -> list of steps, see Handler.play
        self.bodies = []  # of chat completions
        self.faults = []  # asked for
        self.gone = 0  # streams whose client went away
        self.key = None
        self.late_key = None  # /world refuses this one only once `late` is set; `waits` says that it was asked
        self.late, self.waits = threading.Event(), threading.Event()
        self.features = ["chat", "faults"]
        self.loading = 0  # so many chat requests are answered with 503 first
        self.state = "ready"
        self.epoch = 1
        self.rebuilds = 0
        self.last_fault = None
        self.healed = threading.Event()
        self.healed.set()
        self.heal_s = 1.2
        self.bare = False  # /world and /metrics say as little as possible
        self.began = time.monotonic()
        self.tokens = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.mock = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def kill(self, rank):
        self.faults.append(rank)
        self.state = "rebuilding"
        self.healed.clear()
        self.last_fault = {"rank": rank, "kind": "signal", "step": 9812, "layer": 17, "collective": 34}
        threading.Timer(self.heal_s, self.heal).start()

    def heal(self):
        self.epoch += 1
        self.rebuilds += 1
        self.state = "ready"
        self.healed.set()

    def world(self):
        if self.bare:
            return {"state": "ready"}
        ready = self.state == "ready"
        return {"epoch": self.epoch, "state": self.state, "rebuilds": self.rebuilds, "tp": 2, "class": "x86-64",
                "last_fault": self.last_fault, "running": 1, "waiting": 0,
                "ranks": [{"rank": r, "pid": 4000 + 10 * self.epoch + r if ready else 0,
                           "state": "ready" if ready else "down"} for r in range(2)],
                "kv": {"total": 256, "used": 64, "cached": 32, "free": 160}}

    def metrics(self):
        seconds = time.monotonic() - self.began
        label = 'model_name="small"'
        lines = ["# HELP vllm:generation_tokens_total Tokens generated.", "# TYPE vllm:generation_tokens_total counter",
                 f'vllm:generation_tokens_total{{{label},engine="0"}} {seconds * 42 + self.tokens:.0f}',
                 f'vllm:iteration_tokens_total_count{{{label},engine="0"}} {seconds * 40:.0f}',
                 f'vllm:num_requests_running{{{label},engine="0"}} 1.0',
                 f'lockstep:recovery_seconds_sum{{{label}}} {self.rebuilds * 0.31}',
                 f'lockstep:recovery_seconds_count{{{label}}} {self.rebuilds}']
        for rank in range(2):
            lines += [f'lockstep:rank_step_seconds_total{{{label},rank="{rank}"}} {seconds * 0.8}',
                      f'lockstep:rank_wait_seconds_total{{{label},rank="{rank}"}} {seconds * 0.2}',
                      f'lockstep:collective_seconds_total{{{label},rank="{rank}"}} {seconds * (0.1 + 0.1 * rank)}']
        return "" if self.bare else "\n".join(lines) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def mock(self):
        return self.server.mock

    def log_message(self, *args):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": len(data), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, failure):
        self.answer(failure.status, {"error": {"message": str(failure), "type": "error", "param": None,
                                               "code": failure.code}}, headers=failure.headers)

    def check_key(self):
        key = self.mock.key
        given = self.headers.get("Authorization")
        if key is not None and given != f"Bearer {key}":
            if given == f"Bearer {self.mock.late_key}" and self.path.startswith("/world"):
                self.mock.waits.set()
                self.mock.late.wait(20)
            raise Failure(401, "missing or wrong API key", "invalid_api_key")

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.mock.gone += 1
            self.close_connection = True

    def do_GET(self):
        path = self.path.split("?")[0]
        try:
            if path == "/" or path.startswith("/page/"):
                self.page_file("index.html" if path == "/" else path.removeprefix("/page/"))
                return
            self.check_key()
            answers = {
                "/world": self.mock.world,
                "/discovery": lambda: {"host": "mock", "features": self.mock.features},
                "/v1/models": lambda: {"object": "list", "data": [{"id": "small"}, {"id": "large-with-a-rather-long-name-Q4_K_M"}]},
            }
            if path == "/metrics":
                self.answer(200, self.mock.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
            elif path in answers:
                self.answer(200, answers[path]())
            else:
                raise Failure(404, f"there is no {path}", "not_found")
        except Failure as failure:
            self.fail(failure)

    def page_file(self, name):
        file = FOLDER / name
        if "/" in name or not file.is_file():
            raise Failure(404, f"there is no {name}", "not_found")
        self.answer(200, file.read_bytes(), TYPES[file.suffix[1:]],
                    {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self.check_key()
            if self.headers["Content-Type"] != "application/json":
                raise Failure(415, "not application/json", "unsupported_media_type")
            if self.path.split("?")[0] == "/fault":
                if set(body) != {"fault"}:
                    raise Failure(400, f"{body} is more than a fault")
                match = re.fullmatch(r"kill:rank=(\d+)", body["fault"])
                if match is None:
                    raise Failure(400, f"no such fault: {body['fault']}")
                self.mock.kill(int(match[1]))
                self.answer(200, {"status": "ok"})
            elif self.path == "/v1/chat/completions":
                self.chat(body)
            else:
                raise Failure(404, f"there is no {self.path}", "not_found")
        except Failure as failure:
            self.fail(failure)

    def chat(self, body):
        self.mock.bodies.append(body)
        if self.mock.loading > 0:
            self.mock.loading -= 1
            raise Failure(503, "the model is loading", "unavailable", {"Retry-After": 1})
        said = body["messages"][-1]["content"]
        steps = self.mock.scripts.get(said, [f"You said: {said}"])
        if isinstance(steps[0], Failure):
            raise steps[0]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.delta({"role": "assistant", "content": ""})
        if self.play(steps):
            self.raw(b"")

    def play(self, steps):
        """Each step is a text to say, a number of seconds to wait, or a dict: a delta, or with "error" a
        frame as it is; bytes go out as they are. "END" ends the stream without a word. False: it did."""
        n = 0
        finish = "stop"
        for step in steps:
            self.wait_for_world()
            if step == "END":
                self.close_connection = True
                return False
            if isinstance(step, (int, float)):
                time.sleep(step)
            elif isinstance(step, bytes):
                self.raw(step)
            elif isinstance(step, dict) and "error" in step:
                self.frame(step)
                self.raw(b"data: [DONE]\n\n")
                return True
            elif isinstance(step, dict) and "finish" in step:
                finish = step["finish"]
            else:
                n += 1
                self.mock.tokens += 1
                self.delta(step if isinstance(step, dict) else {"content": step})
        self.frame({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None})
        self.frame({"choices": [], "usage": {
            "prompt_tokens": 21, "completion_tokens": n, "total_tokens": 21 + n,
            "prompt_tokens_details": {"cached_tokens": 16}}})
        self.raw(b"data: [DONE]\n\n")
        return True

    def wait_for_world(self):
        while not self.mock.healed.wait(0.2):
            self.raw(b": ping\n\n")

    def delta(self, delta):
        self.frame({"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None})

    def frame(self, frame):
        self.raw(b"data: " + json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", **frame}
                                        if "error" not in frame else frame).encode() + b"\n\n")

    def raw(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
