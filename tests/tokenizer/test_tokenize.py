# SPDX-License-Identifier: Apache-2.0
"""The commands tokenize and detokenize: forms of MODEL, lines in and out, errors, time."""
import base64
import json
import os
import select
import shutil
import struct
import subprocess
import time

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

import gguf_vocab
from corpus import Corpus

HELLO = [9707, 1879]  # "Hello world", Qwen3
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def qwen(shared):
    return shared / "data/qwen3-tokenizer"


def ids_of(run, path, text="Hello world"):
    done = run("tokenize", path, input=text)
    assert done.returncode == 0, done.stderr
    return [int(x) for x in done.stdout.split()]


def test_plain(run, qwen):
    done = run("tokenize", qwen, input="Hello<|im_end|>")
    assert done.stdout == "9707 151645\n"
    assert run("tokenize", qwen, "--no-special", input="<|im_end|>").stdout == "27 91 318 6213 91 29\n"
    assert run("tokenize", qwen, "--no-special", input="<think>").stdout == "151667\n"  # not special
    assert run("tokenize", qwen, input="").stdout == "\n"
    assert run("detokenize", qwen, input="9707 151645\n1879 ").stdout == "Hello<|im_end|> world"
    done = run("detokenize", qwen, input="9707 x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'lockstep: standard input: "x" is no id\n'


def test_forms_of_model(run, qwen, tmp_path):
    assert ids_of(run, qwen) == HELLO
    assert ids_of(run, qwen / "tokenizer.json") == HELLO
    only = tmp_path / "only"
    only.mkdir()
    (only / "tokenizer.json").symlink_to(qwen / "tokenizer.json")
    assert ids_of(run, only) == HELLO
    hub = tmp_path / "models--org--name"
    (hub / "blobs").mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("abc123")
    (hub / "snapshots/abc123").mkdir(parents=True)
    shutil.copy(qwen / "tokenizer.json", hub / "blobs/0f")
    (hub / "snapshots/abc123/tokenizer.json").symlink_to("../../blobs/0f")
    assert ids_of(run, hub) == HELLO


@pytest.mark.san
def test_missing_and_broken_files(run, tmp_path):
    def message(path):
        done = run("tokenize", path, input="x")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("lockstep: ") and done.stderr.count("\n") == 1
        return done.stderr[len("lockstep: "):-1]

    assert message(tmp_path) == f"{tmp_path}: no tokenizer.json in it"
    assert str(tmp_path / "nothing") in message(tmp_path / "nothing")
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    assert message(path).startswith(f"{path}: JSON, line 1")
    path.write_text('{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"Uni\\u001bgram"}}')
    assert message(tmp_path) == f'{path}: model: type "Uni\\x1bgram" is not supported'


@pytest.mark.san
def test_lines(run, qwen):
    lines = ['"Hello"', '{"b64":"SGVsbG8="}', '', '7', '["a"]', '{"b64":"SGVsbG8"}', '{"b64":"SGVs_G8="}',
             '{"b64":"SGVsbG9="}', '{"b64":""}', '"\\ud800"', '"a', '{"b64":"","x":1}', '"\\u0000"', '""',
             ' "Hello" \r', '"world"']
    done = run("tokenize", qwen, "--jsonl", input="\n".join(lines))  # no line feed at the end
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and done.stderr == ""
    assert len(out) == len(lines)
    good = {0: [9707], 1: [9707], 8: [], 12: [188], 13: [], 14: [9707], 15: [14615]}
    for i, got in enumerate(out):
        if i in good:
            assert got == good[i], lines[i]
        else:
            assert list(got) == ["error"] and got["error"].startswith(f"line {i + 1}: "), lines[i]


@pytest.mark.san
def test_detokenize_lines(run, qwen):
    lines = ["[9707,1879]", "[]", "[151645]", "[999999]", "[151670]", "[-1]", "[9007199254740993]", "7",
             '["a"]', "[1.5]", "", "[188]", "[235]", "[9707]"]
    done = run("detokenize", qwen, "--jsonl", input="\n".join(lines) + "\n")
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(out) == len(lines)
    assert out[0] == "Hello world" and out[1] == "" and out[2] == "<|im_end|>"
    assert out[3] == {"error": "line 4: id 999999 (at index 0) has no token"}
    for i in range(3, 11):
        assert list(out[i]) == ["error"], lines[i]
    assert out[11] == "\0" and out[13] == "Hello"
    raw = base64.b64decode(out[12]["b64"])
    assert len(raw) == 1 and raw[0] >= 0x80


@pytest.mark.san
def test_base64_of_every_length(run, qwen):
    inputs = [bytes(range(0x80, 0x80 + n)) for n in range(1, 9)]
    encoded = "\n".join(json.dumps({"b64": base64.b64encode(data).decode()}) for data in inputs)
    ids = run("tokenize", qwen, "--jsonl", input=encoded).stdout
    back = run("detokenize", qwen, "--jsonl", input=ids).stdout.splitlines()
    assert [base64.b64decode(json.loads(line)["b64"]) for line in back] == inputs


def test_answers_while_input_waits(lockstep, qwen):
    with subprocess.Popen([lockstep, "tokenize", qwen, "--jsonl"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        for _ in range(3):
            child.stdin.write(b'"Hello"\n')
            child.stdin.flush()
            assert select.select([child.stdout], [], [], 60)[0], "no answer"
            assert os.read(child.stdout.fileno(), 100) == b"[9707]\n"
        child.stdin.close()
        assert child.wait(60) == 0


def test_long_lines(run, qwen):
    text = "Hello world " * 500_000
    done = run("tokenize", qwen, "--jsonl", input=json.dumps(text) + '\n"Hello"\n')
    first, second = done.stdout.splitlines()
    assert second == "[9707]"
    back = run("detokenize", qwen, "--jsonl", input=first + "\n")
    assert json.loads(back.stdout) == text


PATHOLOGICAL = {
    "one letter": "a" * MEGABYTE,
    "letters": "the quick brown fox".replace(" ", "") * (MEGABYTE // 16),
    "digits": "7" * MEGABYTE,
    "spaces": " " * MEGABYTE,
    "spaces before a letter": " " * MEGABYTE + "x",
    "spaces and line feeds": " \n" * (MEGABYTE // 2),
    "beginnings of a special token": "<|im_" * (MEGABYTE // 5),
    "longer beginnings": "<|im_start|" * (MEGABYTE // 11),
    "combining marks": "\u0301" * (MEGABYTE // 2),
    "marks in descending order": "a" + "\u0345" * (MEGABYTE // 4) + "\u0334" * (MEGABYTE // 4),
    "marks in turn": "e" + "\u0345\u0334" * (MEGABYTE // 4),
    "jamo": "\u1100\u1161\u11a8" * (MEGABYTE // 9),
    "punctuation": "!" * MEGABYTE,
    "ideographs": "\u4e2d" * (MEGABYTE // 3),
    "apostrophes": "'s" * (MEGABYTE // 2),
}


@pytest.mark.parametrize("which", ["qwen3", "default"])
def test_a_megabyte_takes_linear_time(request, run, which):
    """About 0.3 s each; a quadratic step anywhere would take minutes."""
    path = request.getfixturevalue("qwen" if which == "qwen3" else "model")
    start = time.monotonic()
    done = run("tokenize", path, "--jsonl", timeout=120,
               input="".join(json.dumps(text) + "\n" for text in PATHOLOGICAL.values()))
    print(f"{time.monotonic() - start:.1f} s for {len(PATHOLOGICAL)} texts")
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert [type(ids) for ids in out] == [list] * len(PATHOLOGICAL)
    back = run("detokenize", path, "--jsonl", input=done.stdout).stdout.splitlines()
    form = normalizers.NFC().normalize_str if which == "qwen3" else str
    assert [json.loads(line) for line in back] == [form(text) for text in PATHOLOGICAL.values()]


# GGUF files name a kind of pre-tokenizer; these are the steps in the tokenizer.json of such models.
SPLITS = {
    "gpt-2": [],
    "smollm": [pre_tokenizers.Digits(individual_digits=True)],
    "llama-bpe": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"
                    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "qwen2": None,  # the pattern of the file in shared
}


def gguf_bytes(values):
    """A GGUF file of strings and arrays of strings, without tensors."""
    def string(text):
        return struct.pack("<Q", len(text)) + text

    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values))
    for key, value in values.items():
        out += string(key.encode())
        if isinstance(value, bytes):
            out += struct.pack("<I", 8) + string(value)
        else:
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))
    return out


@pytest.mark.parametrize("kind", SPLITS)
def test_gguf_kinds(run, model, shared, tmp_path, kind):
    meta = gguf_vocab.read(model)
    tokens = [token.decode() for token in meta["tokenizer.ggml.tokens"]]
    merges = [tuple(merge.decode().split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    path = tmp_path / "vocab.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": b"llama", "tokenizer.ggml.model": b"gpt2",
                                 "tokenizer.ggml.pre": kind.encode(),
                                 "tokenizer.ggml.tokens": meta["tokenizer.ggml.tokens"],
                                 "tokenizer.ggml.merges": meta["tokenizer.ggml.merges"]}))
    reference = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                                     ignore_merges=kind == "llama-bpe"))
    splits = SPLITS[kind]
    if kind == "qwen2":
        spec = json.loads((shared / "data/qwen3-tokenizer/tokenizer.json").read_text("utf-8"))
        splits = [spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]]
        reference.normalizer = normalizers.NFC()
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated") if isinstance(split, str) else split
         for split in splits] +
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt-2", "smollm"))])
    corpus = Corpus(3, ["<|im_end|>"])
    texts = [corpus.text() for _ in range(4000)]
    done = run("tokenize", path, "--jsonl", input="".join(json.dumps(text) + "\n" for text in texts))
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in done.stdout.splitlines()]
    want = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
    wrong = [i for i in range(len(texts)) if got[i] != want[i]]
    assert not wrong, (len(wrong), texts[wrong[0]], got[wrong[0]], want[wrong[0]])
