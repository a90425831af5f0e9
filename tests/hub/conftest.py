# SPDX-License-Identifier: Apache-2.0
"""A hub in miniature: its API and small files on one port, large files behind a redirect on another."""

import hashlib
import http.server
import json
import os
import random
import shutil
import ssl
import subprocess
import threading
import urllib.parse

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.hub.answer(self, self.server.role)

    def send(self, status, headers=(), body=b""):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients of these tests do go away


class Hub:
    """One repository, org/model. Faults: see fail()."""

    def __init__(self):
        self.files = {}
        self.large = set()  # paths that are kept as LFS does
        self.sizes = {}  # other sizes than the true ones, in the list
        self.hashes = {}  # likewise checksums
        self.page = 1000
        self.requests = []  # (role, path, headers) in order
        self.faults = []
        self.lock = threading.Lock()
        self.redirect = None  # instead of the other server's address
        self.servers = {}
        for role in ("hub", "store"):
            server = Server(("127.0.0.1", 0), Handler)
            server.hub, server.role = self, role
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers[role] = server
        self.endpoint = f"http://127.0.0.1:{self.servers['hub'].server_port}"
        self.store = f"http://127.0.0.1:{self.servers['store'].server_port}"

    def encrypt(self, folder):
        """From now on the hub speaks TLS; the path of the certificate to trust."""
        assert shutil.which("openssl"), "openssl is missing (ca-certificates brings it)"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hub",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
                        "-out", folder / "cert.pem"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        server = self.servers["hub"]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.endpoint = self.endpoint.replace("http:", "https:")
        return str(folder / "cert.pem")

    def close(self):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def add(self, path, data, large=None):
        self.files[path] = data.encode() if isinstance(data, str) else data
        if large if large is not None else path.endswith((".safetensors", ".gguf")):
            self.large.add(path)

    def hash(self, path):
        data = self.files[path]
        return self.hashes.get(path) or (
            hashlib.sha256(data).hexdigest() if path in self.large else git_sha1(data))

    def fail(self, role, part, times=1, **how):
        """The next requests to role whose path holds part: status=N (with headers={}), cut=N bytes then
        the end, wait=event after `cut` bytes, corrupt=True, whole=True (the range is ignored), extra=N
        bytes too many, range_at=N (another range than asked for)."""
        self.faults.append({"role": role, "part": part, "times": times, **how})

    def take_fault(self, role, path):
        with self.lock:
            for fault in self.faults:
                if fault["role"] == role and fault["part"] in path and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return {}

    def asked(self, role, part):
        """The headers of the requests to role whose path holds part."""
        return [headers for r, path, headers in self.requests if r == role and part in path]

    def answer(self, request, role):
        path = urllib.parse.unquote(request.path)
        with self.lock:
            self.requests.append((role, path, {k.lower(): v for k, v in request.headers.items()}))
        fault = self.take_fault(role, path)
        if "status" in fault:
            request.send(fault["status"], fault.get("headers", {}), b'{"error": "so it is"}')
        elif path.startswith("/api/models/org/model/revision/"):
            request.send(200, body=json.dumps({"id": "org/model", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith(f"/api/models/org/model/tree/{COMMIT}"):
            self.answer_tree(request, path)
        elif path.startswith(f"/org/model/resolve/{COMMIT}/"):
            self.answer_file(request, path.split(COMMIT + "/")[1], fault)
        elif path.startswith("/blob/") and role == "store":
            self.send_file(request, path.removeprefix("/blob/").split("?")[0], fault, etag="of-the-store")
        else:
            request.send(404, {"X-Error-Code": "RepoNotFound"})

    def answer_tree(self, request, path):
        start = int(path.split("cursor=")[1]) if "cursor=" in path else 0
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "additional_chat_templates"}]
        for name, data in self.files.items():
            size = self.sizes.get(name, len(data))
            entry = {"type": "file", "oid": self.hash(name) if name not in self.large else "1" * 40,
                     "size": size, "path": name}
            if name in self.large:
                entry["lfs"] = {"oid": self.hash(name), "size": size, "pointerSize": 130}
            entries.append(entry)
        headers = {}
        if start + self.page < len(entries):
            headers["Link"] = (f"<{self.endpoint}/api/models/org/model/tree/{COMMIT}"
                               f"?recursive=true&cursor={start + self.page}>; rel=\"next\"")
        request.send(200, headers, json.dumps(entries[start:start + self.page]).encode())

    def answer_file(self, request, name, fault):
        if name not in self.files:
            request.send(404, {"X-Error-Code": "EntryNotFound"})
        elif name in self.large:
            to = self.redirect or f"{self.store}/blob/{name}?signature=secret"
            request.send(302, {"Location": to, "X-Linked-Etag": f'"{self.hash(name)}"'}, b"Found")
        else:
            self.send_file(request, name, fault, etag=self.hash(name))

    def send_file(self, request, name, fault, etag):
        data = self.files[name]
        wanted = request.headers.get("Range")
        start = 0
        if wanted and not fault.get("whole"):
            condition = request.headers.get("If-Range")
            if condition is None or condition == f'"{etag}"':
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        total = len(data) + fault.get("extra", 0)
        body = bytearray(data[start:] + b"x" * fault.get("extra", 0))
        if fault.get("corrupt"):
            body[len(body) // 2] ^= 1
        request.send_response(206 if start else 200)
        if start:
            shown = fault.get("range_at", start)
            request.send_header("Content-Range", f"bytes {shown}-{total - 1}/{total}")
        request.send_header("ETag", f'"{etag}"')
        if "extra" in fault:
            request.close_connection = True  # a body without a length
        else:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        cut = fault.get("cut", len(body))
        request.wfile.write(body[:cut])
        request.wfile.flush()
        if "wait" in fault:
            fault["wait"].wait(20)
            request.wfile.write(body[cut:])
        elif cut < len(body):
            request.close_connection = True


@pytest.fixture
def hub():
    made = Hub()
    made.add("config.json", '{"model_type": "llama"}\n')
    made.add("tokenizer.json", '{"version": "1.0"}\n' * 100)
    made.add("README.md", "not fetched\n")
    made.add("model.safetensors", random.Random(1).randbytes(300_000))
    yield made
    made.close()


@pytest.fixture
def pull(hub, run, tmp_path):
    """pull(*arguments, env={}): `lockstep pull` against the hub above, with a cache of its own."""

    def pull_it(*arguments, env=(), **options):
        return run("pull", *(arguments or ("org/model",)), env=environment(hub, tmp_path, env), **options)

    pull_it.environment = lambda env=(): environment(hub, tmp_path, env)
    return pull_it


def environment(hub, tmp_path, more=()):
    kept = {k: v for k, v in os.environ.items()
            if not k.startswith(("HF_", "LOCKSTEP_", "SSL_CERT", "CURL_CA")) and not k.lower().endswith("_proxy")}
    return {**kept, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.endpoint, **dict(more)}


@pytest.fixture
def repo(tmp_path):
    """The folder of org/model in the cache."""
    return tmp_path / "hf/hub/models--org--model"
