# SPDX-License-Identifier: Apache-2.0
"""Malformed and hostile requests from raw sockets: refused once, nothing behind them is read, and the
server answers the next client at once."""

import concurrent.futures
import json
import re
import socket
import time

import pytest
from serving import serving
from wire import Call, chat_body, make_tiny, metric

pytestmark = pytest.mark.san

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # answered it would be a 404
PAGE = "http://page.example"
LIMIT_S = 1.0  # of the headers and of the body, in the server that is short of patience
MIB = 1 << 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def server(lockstep, tiny):
    with serving(lockstep, tiny, "--tp", 1) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


@pytest.fixture(scope="module")
def hasty(lockstep, tiny):
    with serving(lockstep, tiny, "--tp", 1, "--header-timeout", LIMIT_S, "--body-timeout", LIMIT_S,
                 "--idle-timeout", LIMIT_S, "--cors-origin", PAGE) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


@pytest.fixture(autouse=True)
def is_well(server):
    """After each test: /health within its second."""
    yield
    begin = time.monotonic()
    assert server.get("/health", timeout=5)[0] == 200
    assert time.monotonic() - begin < 1


def head(server, *lines, method="POST", path="/v1/chat/completions", host=True):
    """The bytes of a request's head."""
    names = [f"Host: 127.0.0.1:{server.port}"] if host else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", *names, *lines]).encode("latin-1") + b"\r\n\r\n"


def read_all(sock, timeout=20):
    """What comes until the server closes."""
    sock.settimeout(timeout)
    got = b""
    try:
        while part := sock.recv(65536):
            got += part
    except ConnectionResetError:  # it closed with bytes of ours unread
        pass
    return got


def exchange(server, sent, timeout=20):
    """Sends everything, in as many pieces as it takes; all that came until the close."""
    with server.connect() as sock:
        try:
            sock.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_all(sock, timeout)


def statuses(answers):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\nDate: ", answers)]


def body(server, **fields):
    return json.dumps({"model": server.model, "messages": [{"role": "user", "content": "a"}],
                       "max_tokens": 2, "temperature": 0, **fields}).encode()


def post(server, data, *lines):
    return head(server, "Content-Type: application/json", f"Content-Length: {len(data)}", *lines) + data


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
N = len(HIDDEN)

SMUGGLED = {  # what stands before the hidden request: header lines, bytes behind the empty line
    "length and chunks": (["Content-Length: 5", CHUNKED], b"0\r\n\r\n"),
    "chunks and length": ([CHUNKED, f"Content-Length: {N + 5}"], b"0\r\n\r\n"),
    "two lengths": (["Content-Length: 2", f"Content-Length: {N + 2}"], b"{}"),
    "two equal lengths": (["Content-Length: 2", "Content-Length: 2"], b"{}"),
    "list of lengths": (["Content-Length: 2, 2"], b"{}"),
    "signed length": (["Content-Length: +2"], b"{}"),
    "hexadecimal length": (["Content-Length: 0x2"], b"{}"),
    "negative length": (["Content-Length: -1"], b""),
    "length beyond 64 bits": (["Content-Length: 18446744073709551618"], b"{}"),
    "empty length": (["Content-Length:"], b""),
    "space before the colon": (["Content-Length : 2"], b"{}"),
    "tab before the colon": (["Transfer-Encoding\t: chunked"], b"0\r\n\r\n"),
    "folded line": (["Content-Length: 2", "X-A: b", " Transfer-Encoding: chunked"], b"{}"),
    "folded first line": ([" Content-Length: 2"], b"{}"),
    "NUL in a value": (["Content-Length: 2\0"], b"{}"),
    "NUL in a name": (["Content-Len\0gth: 2"], b"{}"),
    "bare CR": (["X-A: b\rContent-Length: 2"], b"{}"),
    "bare LF": (["X-A: b\nContent-Length: 2"], b"{}"),
    "vertical tab": (["Transfer-Encoding: \x0bchunked"], b"0\r\n\r\n"),
    "no colon": (["Content-Length 2"], b"{}"),
    "unknown coding": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "coding twice": ([CHUNKED, CHUNKED], b"0\r\n\r\n"),
    "chunked not last": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    "chunked and gzip": (["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"),
    "quoted coding": (['Transfer-Encoding: "chunked"'], b"0\r\n\r\n"),
    "second Host": (["Host: other", "Content-Length: 2"], b"{}"),
    "size with a sign": ([CHUNKED], b"+2\r\n{}\r\n0\r\n\r\n"),
    "size with 0x": ([CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n"),
    "size with space": ([CHUNKED], b" 2\r\n{}\r\n0\r\n\r\n"),
    "size with space behind": ([CHUNKED], b"2 \r\n{}\r\n0\r\n\r\n"),
    "size beyond 64 bits": ([CHUNKED], b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    "no size": ([CHUNKED], b"\r\n{}\r\n0\r\n\r\n"),
    "chunk with LF": ([CHUNKED], b"2\n{}\n0\n\n"),
    "chunk without its end": ([CHUNKED], b"2\r\n{}0\r\n\r\n"),
    "longer than its size": ([CHUNKED], b"2\r\n{}xx\r\n0\r\n\r\n"),
    "LF in an extension": ([CHUNKED], b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "NUL in an extension": ([CHUNKED], b"2;a\0b\r\n{}\r\n0\r\n\r\n"),
    "bad trailer": ([CHUNKED], b"0\r\nA : b\r\n\r\n"),
}


def hidden(server):
    return metric(server, "lockstep:http_requests_total", code="404")


@pytest.mark.parametrize("case", SMUGGLED)
def test_smuggling(server, case):
    lines, rest = SMUGGLED[case]
    before = hidden(server)
    got = exchange(server, head(server, JSON, *lines) + rest + HIDDEN)
    assert statuses(got) == [400], got
    assert b"Connection: close" in got and json.loads(got.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert hidden(server) == before


def test_the_counter_counts(server):
    """The hidden request behind a sound one is one more, so that the tests above say something."""
    before = hidden(server)
    end = HIDDEN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert statuses(exchange(server, post(server, b"{}") + end)) == [400, 404]
    assert hidden(server) == before + 1


def test_refused_before_its_body(server):
    """Where the answer comes before the body, what follows is no request, be it body or not."""
    before = hidden(server)
    for first in (head(server, f"Content-Length: {N}", "Content-Type: text/plain"),
                  head(server, JSON, f"Content-Length: {N}", path="/nothing"),
                  head(server, JSON, f"Content-Length: {N}", method="PUT")):
        got = exchange(server, first + HIDDEN)
        assert len(statuses(got)) == 1 and statuses(got)[0] in (404, 405, 415), got
        before += statuses(got) == [404]
    assert hidden(server) == before


LINES = {
    "no version": (b"GET /version\r\n\r\n", {400}),
    "two spaces": (b"GET  /version HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    "HTTP/9": (b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", {505}),
    "lower case": (b"GET /version http/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400, 505}),
    "no Host": (b"GET /version HTTP/1.1\r\n\r\n", {400}),
    "no path": (b"GET version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "fragment": (b"GET /version#x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "encoded NUL": (b"GET /version%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "half an escape": (b"GET /version%4 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "overlong UTF-8": (b"GET /%c0%af HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400}),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", {400, 501}),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {501}),
    "noise": (bytes(range(256)) * 2, {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, {400}),
}


@pytest.mark.parametrize("case", LINES)
def test_request_line(server, case):
    sent, expected = LINES[case]
    before = hidden(server)
    got = exchange(server, sent + HIDDEN)
    assert len(statuses(got)) == 1 and statuses(got)[0] in expected, got
    assert hidden(server) == before


def test_limits(server):
    got = exchange(server, head(server, JSON, f"Content-Length: {16 * MIB + 1}") + b"{" * 1000)
    assert statuses(got) == [413], got
    chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
    got = exchange(server, head(server, JSON, CHUNKED) + chunk * 16 + b"1\r\n \r\n0\r\n\r\n")
    assert statuses(got) in ([413], []), got  # [] where the reset overtook the answer
    got = exchange(server, head(server, "X-A: " + "a" * (64 * 1024), method="GET", path="/version"))
    assert statuses(got) == [431], got
    got = exchange(server, head(server, *["A: b"] * 300, method="GET", path="/version"))
    assert statuses(got) == [431], got
    got = exchange(server, b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(got)[0] in (414, 431), got


def test_largest_body(server):
    """16 MiB to the byte is a request: spaces, then an object."""
    data = body(server)
    data = b" " * (16 * MIB - len(data)) + data
    got = exchange(server, post(server, data, "Connection: close"), timeout=60)
    assert statuses(got) == [200], got


def test_pieces(server):
    """One byte at a time; a head that ends in the middle of everything; chunks of one byte."""
    data = body(server)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    for sent in (post(server, data, "Connection: close"),
                 head(server, JSON, CHUNKED, "Connection: close") + chunks):
        with server.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(sent)):
                sock.sendall(sent[i:i + 1])
            assert statuses(read_all(sock)) == [200]


def test_pipelined(server):
    """Several at once are answered in their order; behind a bad one nothing is."""
    first = head(server, method="GET", path="/version")
    answers = exchange(server, first + post(server, body(server)) + first +
                       head(server, "Connection: close", method="GET", path="/nothing") + HIDDEN)
    assert statuses(answers) == [200, 200, 200, 404], answers
    before = hidden(server)
    answers = exchange(server, first + head(server, "Content-Length: x", JSON) + HIDDEN + first)
    assert statuses(answers) == [200, 400] and hidden(server) == before, answers


def test_http_1_0(server):
    data = body(server, stream=True)
    got = exchange(server, b"GET /version HTTP/1.0\r\n\r\n")
    assert statuses(got) == [200]
    got = exchange(server, b"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(data) + data)
    assert statuses(got) == [200] and b"chunked" not in got and got.endswith(b"data: [DONE]\n\n"), got
    got = exchange(server, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN)
    assert statuses(got) == [400], got


def test_head(server):
    for path in ("/version", "/health", "/metrics", "/v1/models", "/"):
        got = exchange(server, head(server, "Connection: close", method="HEAD", path=path))
        assert statuses(got) == [200] and got.endswith(b"\r\n\r\n"), got
    got = exchange(server, head(server, "Connection: close", method="HEAD"))
    assert statuses(got) == [405] and b"\r\nAllow: POST\r\n" in got and got.endswith(b"\r\n\r\n"), got


def test_expect(server):
    data = body(server)
    with server.connect() as sock:
        sock.sendall(head(server, JSON, f"Content-Length: {len(data)}", "Expect: 100-continue",
                          "Connection: close"))
        sock.settimeout(20)
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(data)
        assert statuses(read_all(sock)) == [200]
    got = exchange(server, head(server, JSON, "Content-Length: 2", "Expect: tea"))
    assert statuses(got) == [417], got
    got = exchange(server, head(server, "Content-Length: 2", "Expect: 100-continue"))
    assert statuses(got) == [415], got  # the body is not asked for


def test_absolute_form(server):
    url = f"http://127.0.0.1:{server.port}/version"
    assert statuses(exchange(server, head(server, "Connection: close", method="GET", path=url))) == [200]
    got = exchange(server, b"GET http://evil.example/version HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                           b"Connection: close\r\n\r\n")
    assert statuses(got)[0] in (400, 421), got  # the target's host counts, or they must be one


def test_answers_carry_no_lines_of_the_client(server):
    """What is given back of a request splits no header and no body."""
    for given in ("a b", "x" * 41, "\xe9", "a;b", '"', "<a>"):
        got = exchange(server, head(server, f"x-request-id: {given}", "Connection: close", method="GET",
                                    path="/version"))
        names = [line for line in got.split(b"\r\n") if line.lower().startswith(b"x-request-id:")]
        assert len(names) == 1 and given.encode("latin-1") not in names[0], got
    name = 'tiny"\r\nX-Evil: 1\r\n\r\n\u2028'
    got = exchange(server, post(server, body(server, model=name), "Connection: close"))
    assert statuses(got) == [404] and b"\r\nX-Evil" not in got, got
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["param"] == "model"
    got = exchange(server, head(server, "Connection: close", method="GET",
                                path="/v1/models/a%0d%0aX-Evil:%201"))
    assert statuses(got) in ([404], [400]) and b"\r\nX-Evil" not in got, got


def test_preflight_is_counted(hasty):
    """As what it was answered with."""
    before = metric(hasty, "lockstep:http_requests_total", code="200")
    assert hasty.request("OPTIONS", "/v1/chat/completions", headers={
        "Origin": PAGE, "Access-Control-Request-Method": "POST"})[0] == 200
    assert metric(hasty, "lockstep:http_requests_total", code="200") >= before + 1
    assert metric(hasty, "lockstep:http_requests_total", code="0") == 0


BODIES = {
    "nothing": b"", "space": b" ", "half": b'{"model": "ti', "array": b"[]", "number": b"1",
    "deep": b'{"model":"x","messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "open": b'{"a":' * 5000, "twice": b'{"model":"a","model":"b"}', "UTF-8": b'{"model":"\xff"}',
    "UTF-16": '{"model":"a"}'.encode("utf-16"), "BOM": b'\xef\xbb\xbf{"model":"a"}', "NUL": b'{"a":1}\0',
    "behind": b'{"model":"a"} {}', "infinity": b'{"model":"a","temperature":Infinity}',
    "1e400": b'{"model":"a","temperature":1e400}', "comma": b'{"model":"a",}', "quote": b"{'model':'a'}",
    "surrogate": b'{"model":"\\ud800"}', "digits": b'{"n":' + b"9" * 100000 + b"}",
}


def test_bodies(server):
    """No JSON object: 400 in the words of each API, on a connection that goes on."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        def ask(case):
            path, data = case
            return case, server.request("POST", path, data)

        paths = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize")
        for case, (status, _, text) in pool.map(ask, [(p, b) for p in paths for b in BODIES.values()]):
            assert status == 400 and json.loads(text)["error"]["message"], (case, text)


def closes_after(sock, send, begin):
    """Seconds from begin until the server closes, while send() feeds it; and what it said."""
    sock.settimeout(0.1)
    got = b""
    while time.monotonic() - begin < 10:
        try:
            part = sock.recv(65536)
            if not part:
                break
            got += part
        except TimeoutError:
            pass
        except ConnectionResetError:
            break
        try:
            send(sock)
        except (BrokenPipeError, ConnectionResetError):
            break
    return time.monotonic() - begin, got


def test_slow(hasty):
    """The whole head and the whole body have their time; that something comes does not extend it."""
    feeds = {
        "head": (b"GET /version HTTP/1.1\r\nHost: a\r\nX-A: ", b"a", 408),
        "line": (b"G", b"E", 408),
        "body": (head(hasty, JSON, "Content-Length: 1000"), b" ", 408),
        "chunks": (head(hasty, JSON, CHUNKED), b"1\r\n \r\n", 408),
        "silent head": (b"GET /version HTTP/1.1\r\n", b"", 408),
        "silent": (b"", b"", None),
        "idle": (head(hasty, method="GET", path="/version"), b"", 200),
    }

    def run(case):
        first, then, _ = feeds[case]
        with hasty.connect() as sock:
            begin = time.monotonic()
            sock.sendall(first)
            return case, *closes_after(sock, lambda it: it.sendall(then), begin)

    with concurrent.futures.ThreadPoolExecutor(len(feeds)) as pool:
        for case, seconds, got in pool.map(run, feeds):
            expected = feeds[case][2]
            assert statuses(got) in ([expected] if expected else [], [408][:expected is None]), (case, got)
            assert 0.9 * LIMIT_S <= seconds < LIMIT_S + 5, (case, seconds)
    assert hasty.get("/health")[0] == 200


def test_stream_outlives_the_limits(hasty):
    """None of them cuts an answer that runs."""
    call = Call(hasty, "/v1/chat/completions", chat_body(hasty, "a", max_tokens=3900, ignore_eos=True,
                                                         stream=True))
    begin, n = time.monotonic(), 0
    while time.monotonic() - begin < 1.5 * LIMIT_S and b"[DONE]" not in call.read:
        n += 1
        call.read_chunks(n)
    assert n > 10
    call.close()
    hasty.wait_idle()


def test_too_many_keys(run, tiny, tmp_path):
    """None is left out in silence."""
    keys = tmp_path / "keys"
    keys.write_text("".join(f"key-{i}\n" for i in range(257)))
    ended = run("serve", tiny, "--port", 0, "--api-key-file", keys, timeout=20)
    assert ended.returncode != 0 and "257 API keys, at most 256" in ended.stderr, ended
    assert "key-256" not in ended.stderr


def test_silent_crowd(server):
    """Connections that say nothing or half a request hold nobody up."""
    sockets = [server.connect() for _ in range(200)]
    try:
        for i, sock in enumerate(sockets):
            sock.sendall((b"", b"GET / HT", post(server, body(server))[:-5])[i % 3])
        begin = time.monotonic()
        assert server.get("/health", timeout=5)[0] == 200
        assert time.monotonic() - begin < 1
        assert server.chat("a", max_tokens=2)[1]["usage"]["completion_tokens"] == 2
    finally:
        for sock in sockets:
            sock.close()
