# SPDX-License-Identifier: Apache-2.0
"""lockstep render against Python's jinja2, byte for byte."""

import collections
import json
import os
import pathlib
import struct
import sys
import warnings

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402
import reference  # noqa: E402
from conversations import CONVERSATIONS, HI, WEATHER  # noqa: E402

TEMPLATES = sorted((HERE / "templates").glob("*.jinja"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
REQUESTS = list(CONVERSATIONS.values())
N_GENERATED = 3000
SEED = 20231  # LOCKSTEP_SEED gives others


@pytest.fixture(autouse=True)
def quiet():
    """jinja2 compiles templates to Python, which warns about what they do with constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        yield


def compare(lockstep, path, source, requests, tokens):
    answers = reference.render(lockstep, path, requests)
    kinds = collections.Counter()
    for request, answer in zip(requests, answers):
        expected = reference.expect(source, reference.complete(request, tokens))
        assert reference.same(expected, answer), (request, expected, answer)
        kinds[next(iter(expected))] += 1
    return kinds


def write_model(folder, source, tokens=TOKENS, **config):
    folder.mkdir(exist_ok=True)
    (folder / "chat_template.jinja").write_bytes(source.encode())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, **config}))
    return folder


def test_there_are_enough_templates():
    assert len(TEMPLATES) >= 30
    assert len(CONVERSATIONS) >= 30


@pytest.mark.san
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template(lockstep, tmp_path, path):
    source = path.read_bytes().decode()
    kinds = compare(lockstep, write_model(tmp_path / "model", source), source, REQUESTS, TOKENS)
    assert kinds["text"] >= 3, kinds  # not all errors, which would compare nothing
    compare(lockstep, path, source, REQUESTS, {})  # a bare template has no special tokens


@pytest.mark.san
def test_qwen3(lockstep, shared):
    folder = shared / "data/qwen3-tokenizer"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {name: value for name, value in config.items()
              if name.endswith("_token") and isinstance(value, str)}
    kinds = compare(lockstep, folder, config["chat_template"], REQUESTS, tokens)
    assert kinds["text"] >= 15, kinds


SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def gguf_metadata(path):
    """The key-value pairs at the start of a GGUF file."""

    def number(kind):
        size = struct.calcsize("<" + kind)
        return struct.unpack("<" + kind, file.read(size))[0]

    def value(kind):
        if kind == 8:
            return file.read(number("Q"))
        if kind == 9:
            kind, n = number("I"), number("Q")
            return [value(kind) for _ in range(n)]
        return number(SCALARS[kind])

    with open(path, "rb") as file:
        assert file.read(4) == b"GGUF" and number("I") in (2, 3)
        number("Q")
        return {value(8).decode(): value(number("I")) for _ in range(number("Q"))}


def test_default_model(lockstep, model):
    metadata = gguf_metadata(model)
    source = metadata["tokenizer.chat_template"].decode()
    tokens = {}
    for key, name in (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"),
                      ("padding", "pad_token")):
        if (token := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            tokens[name] = metadata["tokenizer.ggml.tokens"][token].decode()
    kinds = compare(lockstep, model, source, REQUESTS, tokens)
    assert kinds["text"] >= 15, kinds


def is_comparable(expected, answer):
    """Python has addresses, sets, complex numbers and integers beyond 64 bits; we do not."""
    text = expected.get("text", "")
    error = answer.get("error", "")
    return not (" at 0x" in text or "<built-in" in text or "64 bits" in error or
                "complex" in error or ("operand type(s)" in error and "'dict_" in error))


@pytest.mark.san
def test_generated(lockstep, tmp_path):
    seed = int(os.environ.get("LOCKSTEP_SEED", SEED))
    print("seed", seed)
    generator = generate.Generator(seed)
    path = tmp_path / "generated.jinja"
    variables = reference.complete(generate.VARIABLES)
    kinds = collections.Counter()
    wrong = []
    for _ in range(int(os.environ.get("LOCKSTEP_GENERATED", N_GENERATED))):
        source = generator.template()
        expected = reference.expect(source, variables)
        path.write_bytes(source.encode())
        answer = reference.render(lockstep, path, [generate.VARIABLES])[0]
        if not is_comparable(expected, answer):
            kinds["skipped"] += 1
            continue
        kinds[next(iter(expected))] += 1
        if not reference.same(expected, answer):
            wrong.append((source, expected, answer))
    print(kinds)
    assert not wrong, (seed, len(wrong), wrong[:3])
    assert kinds["text"] > 0.3 * kinds.total()
    assert kinds["skipped"] < 0.05 * kinds.total()


def test_strftime_now(lockstep, tmp_path):
    formats = ["%d %b %Y", "%Y-%m-%d", "%A %j %U %%", "", "%Z|%z", "day %-d"]
    path = tmp_path / "time.jinja"
    path.write_text("{{ strftime_now(f) }}")
    for _ in range(3):  # midnight may fall in between
        got = reference.render(lockstep, path, [{"f": f} for f in formats])
        if got == [reference.expect("{{ strftime_now(f) }}", {"f": f}) for f in formats]:
            return
    assert got == [reference.expect("{{ strftime_now(f) }}", {"f": f}) for f in formats]


# Which template is taken, and with what

def one(lockstep, folder, request):
    return reference.render(lockstep, folder, [request])[0]


def test_jinja_file_wins_over_config(lockstep, tmp_path):
    folder = write_model(tmp_path / "m", "file", chat_template="config")
    assert one(lockstep, folder, {}) == {"text": "file"}
    (folder / "chat_template.jinja").unlink()
    assert one(lockstep, folder, {}) == {"text": "config"}


def test_named_templates(lockstep, tmp_path):
    folder = write_model(tmp_path / "m", "", chat_template=[
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"},
        {"name": "rag", "template": "{% broken"}])
    (folder / "chat_template.jinja").unlink()
    assert one(lockstep, folder, {"messages": []}) == {"text": "plain"}
    assert one(lockstep, folder, {"tools": None}) == {"text": "plain"}
    assert one(lockstep, folder, {"tools": []}) == {"text": "tools"}
    assert one(lockstep, folder, {"tools": [WEATHER]}) == {"text": "tools"}


def test_additional_templates(lockstep, tmp_path):
    folder = write_model(tmp_path / "m", "plain")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("tools")
    (folder / "additional_chat_templates/notes.txt").write_text("{% broken")
    assert one(lockstep, folder, {"messages": []}) == {"text": "plain"}
    assert one(lockstep, folder, {"tools": [WEATHER]}) == {"text": "tools"}


def test_special_tokens(lockstep, tmp_path):
    source = ("{{ bos_token }} {{ eos_token }} {{ pad_token is defined }} {{ unk_token }} "
              "{{ image_token }} {{ add_bos_token is defined }} {{ audio_token }}")
    folder = write_model(tmp_path / "m", source, tokens={}, bos_token={
        "__type": "AddedToken", "content": "<s>", "lstrip": False}, eos_token="</s>",
        pad_token=None, add_bos_token=True, image_token="<img>",
        extra_special_tokens={"audio_token": "<snd>"})
    assert one(lockstep, folder, {}) == {"text": "<s> </s> False  <img> False <snd>"}
    assert one(lockstep, folder, {"bos_token": "mine"}) == {
        "text": "mine </s> False  <img> False <snd>"}


def test_what_is_absent(lockstep, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }} "
                    "{{ messages is defined }}")
    assert one(lockstep, path, {}) == {"text": "True True True False"}
    assert one(lockstep, path, {"messages": [], "tools": [], "documents": 0,
                                "add_generation_prompt": None}) == {"text": "False False None True"}


def test_hub_cache(lockstep, tmp_path):
    snapshot = tmp_path / "models--org--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name/refs").mkdir()
    (tmp_path / "models--org--name/refs/main").write_text("abc")
    blob = tmp_path / "models--org--name/blob"
    blob.write_text(json.dumps({"chat_template": "{{ eos_token }}", "eos_token": "E"}))
    (snapshot / "tokenizer_config.json").symlink_to(blob)
    assert one(lockstep, tmp_path / "models--org--name", {}) == {"text": "E"}


# Errors

UNSUPPORTED = {
    "a\n\n{% include 'x' %}": "line 3: tag 'include' is not supported",
    "{% extends 'x' %}": "line 1: tag 'extends' is not supported",
    "\n{% import 'x' as y %}": "line 2: tag 'import' is not supported",
    "{% from 'x' import y %}": "line 1: tag 'from' is not supported",
    "{% block x %}{% endblock %}": "line 1: tag 'block' is not supported",
    "{% autoescape true %}{% endautoescape %}": "line 1: tag 'autoescape' is not supported",
    "\n\n\n{{ 'a'|urlize }}": "line 4: filter 'urlize' is not supported",
    "{{ [1]|random }}": "line 1: filter 'random' is not supported",
    "\n{{ 'a'.encode() }}": "line 2: method 'encode' is not supported",
    "{{ lipsum() }}": "line 1: function 'lipsum' is not supported",
    "{{ 9223372036854775807 + 1 }}": "line 1: integer result needs more than 64 bits",
    "{{ 9223372036854775808 }}": "line 1: integer 9223372036854775808 needs more than 64 bits",
}


@pytest.mark.san
@pytest.mark.parametrize("source", UNSUPPORTED)
def test_unsupported(lockstep, tmp_path, source):
    path = tmp_path / "t.jinja"
    path.write_text(source)
    assert one(lockstep, path, {}) == {"error": UNSUPPORTED[source]}


@pytest.mark.san
def test_failed_lines_do_not_end_the_run(lockstep, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{% if x is defined %}{{ raise_exception(x) }}{% endif %}\nfine")
    long = "no \u00e9\u0000 " * 5000
    answers = reference.render(lockstep, path, [{"x": long}, {}, {"x": {"a": 1.0}}, {}])
    assert answers == [{"error": long}, {"text": "fine"}, {"error": "{'a': 1.0}"},
                       {"text": "fine"}]


@pytest.mark.san
def test_bad_lines(run, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ x }}")
    lines = ['{"x": 123456789012345678901234567890}', "[1]", "nonsense", '{"x": "\\u0000\\ud83d\\ude00"}',
             "", '{"x": 9223372036854775807}', "[" * 5000, '{"x": 1e400}']
    done = run("render", path, "--jsonl", input="\n".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(answers) == len(lines)
    assert "64 bits" in answers[0]["error"] or "too big" in answers[0]["error"]
    assert "object" in answers[1]["error"]
    assert "error" in answers[2] and "error" in answers[4] and "error" in answers[6]
    assert answers[3] == {"text": "\u0000\U0001f600"}
    assert answers[5] == {"text": "9223372036854775807"}
    assert "error" in answers[7]


def test_no_template(run, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    done = run("render", tmp_path, "--jsonl")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"lockstep: {tmp_path}: no chat template in it\n"
    assert run("render", tmp_path / "absent.jinja", "--jsonl").returncode == 1


@pytest.mark.san
@pytest.mark.parametrize("source, reason", [
    ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nests deeper"),
    ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
     "{% endfor %}", "MiB"),
    ("{{ 'x' * 4000000000000 }}", "MiB"),
    ("{{ [1] * 4000000000000 }}", "MiB"),
    ("{{ '%9999999999d' % 1 }}", "not supported"),
    ("{{ " + "(" * 100000 + "1" + ")" * 100000 + " }}", "nested brackets"),
    ("{{ " + "-" * 100000 + "1 }}", "nests deeper"),
    ("{{ " + "not " * 100000 + "1 }}", "nests deeper"),
    ("{{ " + "1 + " * 100000 + "1 }}", "nests deeper"),
    ("{{ x" + ".a" * 100000 + " }}", "nests deeper"),
    ("{{ 1" + "|abs" * 100000 + " }}", "nests deeper"),
    ("{% if 1 %}" * 100000, "nests deeper"),
    ("{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}"
     "{{ ns.x }}", "nests deeper"),
    ("{% set ns = namespace(x=[], y=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
     "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}", "steps"),
    ("{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
     "{% endfor %}{{ ns.x|tojson }}", "steps"),
    ("{{ range(100001)|length }}", "Range too big"),
])
def test_bounds(lockstep, tmp_path, source, reason):
    path = tmp_path / "t.jinja"
    path.write_text(source)
    assert reason in one(lockstep, path, {"x": {}})["error"]


def test_one_process_for_many_lines(lockstep, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ messages[0].content }}")
    answers = reference.render(lockstep, path, [{"messages": [HI]}] * 20000)
    assert answers == [{"text": HI["content"]}] * 20000
