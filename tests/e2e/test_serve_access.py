# SPDX-License-Identifier: Apache-2.0
"""Who may call: keys, Host, Origin; and methods and types that an endpoint does not take."""

import json
import pathlib
import re

import pytest
from serving import serving
from wire import make_tiny

KEY, OTHER_KEY, FILE_KEY = "sk-first-4711", "sk-second-0815", "sk-file-2342"
PAGE = "https://page.example"
ROUTES = pathlib.Path(__file__).resolve().parents[2] / "src/api/routes.def"
STREAMS = {"/models/sse", "/trace"}
MISSING = {"/v1/responses/resp_1"}  # answers are not stored
MANAGED = {"/models/load", "/models/unload", "/fault"}

pytestmark = pytest.mark.san


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def server(lockstep, tiny, tmp_path_factory):
    """With keys, and one page that may call it; -v, so that all that is ever logged is."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# keys\n  {FILE_KEY}  # of a script\r\n")
    with serving(lockstep, tiny, "--tp", 1, "-v", "--api-key", KEY, "--api-key", OTHER_KEY,
                 "--api-key-file", keys, "--cors-origin", PAGE, "--allow-faults", key=KEY) as it:
        yield it
        assert it.stop() == 0, it.errors
        for text in (*it.lines, *it.errors):
            assert not any(key in text for key in (KEY, OTHER_KEY, FILE_KEY)), text


@pytest.fixture(scope="module")
def plain(lockstep, tiny):
    """Without keys, origins or faults."""
    with serving(lockstep, tiny, "--tp", 1) as it:
        yield it
        assert it.stop() == 0, it.errors


def routes():
    """(method, path) of every endpoint."""
    found = re.findall(r'^ROUTE\((\w+), "([^"]+)", \w+, ([^,]+),', ROUTES.read_text(), re.M)
    assert len(found) >= 15
    arguments = {"/v1/models/": "tiny", "/page/": "main.js", "/v1/responses/": "resp_1"}
    return [(method, path + arguments.get(path, "")) for method, path, _ in found]


def ask(server, method, path, headers=None, body=None):
    """Status, headers with lower-case names, body; no key but those of headers."""
    kept, server.key = server.key, None
    try:
        status, got, text = server.request(method, path, body, headers)
    finally:
        server.key = kept
    return status, {name.lower(): value for name, value in got.items()}, text


def error_of(text):
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- Keys ---


@pytest.mark.parametrize("headers", [
    {"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer   {OTHER_KEY}"},
    {"Authorization": f"Bearer {FILE_KEY}"}, {"x-api-key": KEY}, {"X-API-Key": FILE_KEY},
    {"Authorization": "Bearer wrong", "x-api-key": KEY}], ids=lambda h: "+".join(h))
def test_right_key(server, headers):
    assert ask(server, "GET", "/v1/models", headers)[0] == 200


@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}, {"x-api-key": "wrong"},
    {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY}{KEY}"}, {"Authorization": "Bearer "}, {"x-api-key": ""},
    {"Authorization": KEY}, {"x-api-key": KEY.upper()}], ids=lambda h: str(list(h.values()))[:40])
def test_wrong_key(server, headers):
    status, got, text = ask(server, "GET", "/v1/models", headers)
    assert status == 401 and got["www-authenticate"].startswith("Bearer")
    error = error_of(text)
    assert error["type"] == "authentication_error" and error["code"] == "invalid_api_key"
    for value in headers.values():
        given = value.split()[-1] if value.split() else ""
        assert len(given) < 4 or given not in text.decode()


def test_key_in_the_query_does_not_count(server):
    assert ask(server, "GET", f"/v1/models?api_key={KEY}")[0] == 401


@pytest.mark.parametrize("method, path", routes())
def test_what_needs_a_key(server, method, path):
    """Everything but health; and what is not there does not say so without a key."""
    body = {"model": "tiny"} if method == "POST" else None
    expected = {"/health": 200, "/v1/health": 200}.get(path, 401)
    assert ask(server, method, path, body=body)[0] == expected


def test_unknown_path_needs_a_key(server):
    assert ask(server, "GET", "/nowhere")[0] == 401
    assert server.request("GET", "/nowhere")[0] == 404


def test_no_key_wanted(plain):
    assert ask(plain, "GET", "/v1/models", {"Authorization": "Bearer anything"})[0] == 200
    assert ask(plain, "GET", "/v1/models", {"x-api-key": "anything"})[0] == 200


# --- Host ---


@pytest.mark.parametrize("host, allowed", [
    ("127.0.0.1", True), ("127.0.0.1:1234", True), ("localhost", True), ("LOCALHOST:8421", True),
    ("[::1]:8421", True), ("127.9.9.9", True), ("evil.example", False), ("evil.example:8421", False),
    ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("10.0.0.1", False),
    ("0.0.0.0", False), ("[::2]", False)])
def test_host(plain, host, allowed):
    """A page whose name leads here is not answered, whatever it asks for."""
    for path in ("/health", "/v1/models"):
        status, _, text = ask(plain, "GET", path, {"Host": host})
        assert status == (200 if allowed else 421), text
        if not allowed:
            assert error_of(text)["code"] == "wrong_host"


# --- Origin ---


def test_preflight(server, plain):
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,content-type"}
    status, got, text = ask(server, "OPTIONS", "/v1/chat/completions", asked)
    assert status in (200, 204) and text == b""
    assert got["access-control-allow-origin"] == PAGE
    assert "POST" in got["access-control-allow-methods"]
    assert "authorization" in got["access-control-allow-headers"].lower()
    for it, origin in ((server, "https://other.example"), (plain, PAGE)):
        status, got, _ = ask(it, "OPTIONS", "/v1/chat/completions", {**asked, "Origin": origin})
        assert status in (401, 405)
        assert not any(name.startswith("access-control") for name in got)


def test_answers_to_a_page(server, plain):
    def allowed(it, origin, key):
        return ask(it, "GET", "/v1/models", {"Origin": origin, "x-api-key": key})[1] \
            .get("access-control-allow-origin")

    assert allowed(server, PAGE, KEY) == PAGE
    assert allowed(server, PAGE, "wrong") == PAGE, "or the page could not read the error"
    for origin in ("https://other.example", "http://page.example", PAGE + ".evil", "null"):
        assert allowed(server, origin, KEY) is None
    assert allowed(plain, PAGE, "") is None


@pytest.mark.parametrize("path", sorted(MANAGED))
@pytest.mark.parametrize("origin, status", [
    (PAGE, 403), ("https://other.example", 403), ("null", 403), ("http://127.0.0.1:1", 403), (None, 404)])
def test_managing_from_a_page(server, path, origin, status):
    """Not even a page that may use the API manages the server; the server's own page does."""
    body = {"model": "nobody", "fault": "kill:rank=0"}
    own = f"http://127.0.0.1:{server.port}"
    headers = {"Origin": own if origin is None else origin}
    got, _, text = server.request("POST", path + "?model=nobody", body, headers)
    assert got == status, text


def test_no_faults_unless_allowed(plain):
    assert plain.post("/fault", {"fault": "kill:rank=0"})[0] == 404
    assert plain.get("/world")[1]["rebuilds"] == 0


# --- Methods and types ---


@pytest.mark.parametrize("path", sorted({p for _, p in routes()}))
def test_methods(server, path):
    """Each other method is refused, with what would have been right."""
    taken = {m for m, p in routes() if p == path or (p in MISSING and path.startswith("/v1/responses/"))}
    for other in {"GET", "POST", "PUT", "DELETE", "PATCH"} - taken:
        status, got, text = server.request(other, path, {} if other != "GET" else None)
        assert status == 405, f"{other} {path}: {text}"
        assert json.loads(text)["error"]["message"]
        allowed = {name.lower(): value for name, value in got.items()}["allow"].split(", ")
        assert set(allowed) - {"HEAD"} == taken and ("HEAD" in allowed) == ("GET" in taken)


@pytest.mark.parametrize("path", [p for m, p in routes() if m == "GET" and p not in STREAMS | MISSING])
def test_head(server, path):
    status, got, text = server.request("HEAD", path)
    assert status == 200 and text == b""
    whole = server.request("GET", path)
    assert got["Content-Type"] == whole[1]["Content-Type"]
    assert int(got["Content-Length"]) > 0


@pytest.mark.parametrize("path", [p for m, p in routes() if m == "POST"])
def test_types(server, path):
    """A form of some page is no JSON, so a browser must ask before it sends any."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                 "application/jsonp", "text/json"):
        status, _, text = server.request("POST", path, b'{"model":"tiny"}', {"Content-Type": kind})
        assert status == 415 and "application/json" in json.loads(text)["error"]["message"]
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        status, _, text = server.request("POST", path, b"[1]", {"Content-Type": kind})
        assert status == 400, text


def test_request_id(server):
    """It is the client's own where that is fit to be printed."""
    def id_of(headers):
        return {k.lower(): v for k, v in server.request("GET", "/version", None, headers)[1].items()}["x-request-id"]

    assert id_of({"X-Request-Id": "my-id.7"}) == "my-id.7"
    made = {id_of({}), id_of({}), id_of({"X-Request-Id": "a b"}), id_of({"X-Request-Id": "x" * 500})}
    assert len(made) == 4 and all(re.fullmatch(r"[0-9a-f]{8,}", one) for one in made)
