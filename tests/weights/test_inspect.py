# SPDX-License-Identifier: Apache-2.0
"""lockstep inspect: what it says about good models, and that each bad file gets exit status 1 and one
line on standard error that names the path and the thing."""

import json
import os
import pathlib
import resource
import shutil
import struct

import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "model/golden"
BASE = GOLDEN / "llama-f32"
GGUF = GOLDEN / "gguf-q4_1/model.gguf"
U32, STRING = 4, 8


# --- model files -------------------------------------------------------------------------------------


def read_safetensors(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def write_safetensors(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


@pytest.fixture
def folder(tmp_path):
    """A good model, for a test to spoil."""
    target = tmp_path / "model"
    shutil.copytree(BASE, target)
    return target


def shard(folder):
    """Splits the model's file into two shards with an index; returns the index's weight_map."""
    header, data = read_safetensors(folder / "model.safetensors")
    header.pop("__metadata__", None)
    names = sorted(header)
    weight_map = {}
    for number, part in enumerate([names[::2], names[1::2]], 1):
        file = f"model-{number:05}-of-00002.safetensors"
        shard_header, shard_data = {}, b""
        for name in part:
            begin, end = header[name]["data_offsets"]
            shard_header[name] = {**header[name],
                                  "data_offsets": [len(shard_data), len(shard_data) + end - begin]}
            shard_data += data[begin:end]
            weight_map[name] = file
        write_safetensors(folder / file, shard_header, shard_data)
    (folder / "model.safetensors").unlink()
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def gguf_string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_pair(key, kind, raw):
    return gguf_string(key) + struct.pack("<I", kind) + raw


def gguf_file(pairs=(), tensors=(), data=b"", version=3, counts=None):
    """tensors: (name, dims innermost first, type number, offset)."""
    n_tensors, n_pairs = counts or (len(tensors), len(pairs))
    raw = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_pairs) + b"".join(pairs)
    for name, dims, kind, offset in tensors:
        raw += gguf_string(name) + struct.pack("<I", len(dims))
        raw += struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
    return raw + bytes(-len(raw) % 32) + data


# --- what a refusal looks like -------------------------------------------------------------------------


def refused(run, path, *words, **options):
    done = run("inspect", path, **options)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.split("\n")
    assert len(lines) == 2 and lines[1] == "", done.stderr
    assert lines[0].startswith("lockstep: "), done.stderr
    assert all(character.isprintable() for character in lines[0]), repr(lines[0])
    for word in words:
        assert word in lines[0], (word, lines[0])
    return lines[0]


def accepted(run, path, *arguments, **options):
    done = run("inspect", path, "--json", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- good models ---------------------------------------------------------------------------------------


@pytest.mark.san
@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_fixtures(run, name):
    path = GOLDEN / name
    report = accepted(run, path)
    held = 0
    for tensor in report["tensors"]:
        *outer, inner = tensor["shape"]
        if outer:  # rows are padded to 16, columns of two bytes and less to 2; the start to 64 bytes
            rows, columns = -(-outer[0] // 16) * 16, inner
            if tensor["type"] == "BF16":
                columns += columns % 2
            held += tensor["bytes"] * rows * columns // (outer[0] * inner) + 3 * 64
        else:
            held += 4 * inner + 64
    assert report["memory"]["weight_bytes"] <= held
    assert report["tokenizer"] is None or report["tokenizer"]["tokens"] <= report["config"]["vocab"]


@pytest.mark.san
def test_default_model(run, model):
    report = accepted(run, model)
    assert report["format"] == "gguf"
    assert report["architecture"] == "llama"
    assert report["parameters"] == 134515008
    assert report["config"]["heads"] == 9 and report["config"]["kv_heads"] == 3
    assert report["tokenizer"]["tokens"] == 49152
    assert "Hello" in report["chat_template"]["sample"]
    assert len(report["tensors"]) == 272
    assert report["tensors"][0] == {"name": "token_embd.weight", "type": "Q8_0",
                                    "shape": [49152, 576], "bytes": 30081024}
    assert report["memory"]["weight_bytes"] <= 1.03 * report["memory"]["stored_bytes"]


def test_bf16_at_12_bits(run):
    """Three quarters of plain BF16 and at most 3 %, where all matrices are large enough."""
    plain, packed = (accepted(run, GOLDEN / "qwen3-bf16", "--bf16", how)["memory"] for how in ("plain", "12"))
    assert packed["bf16_12"] and not plain["bf16_12"]
    assert 0.75 < packed["weight_bytes"] / plain["weight_bytes"] < 0.78
    done = run("inspect", GOLDEN / "qwen3-bf16", "--bf16", "12")
    assert "BF16 at 12 bits" in done.stdout
    assert not accepted(run, GOLDEN / "gguf-q4_1", "--bf16", "12")["memory"]["bf16_12"]


def test_text(run, model):
    done = run("inspect", model)
    assert done.returncode == 0 and done.stderr == ""
    assert "llama: 30 layers" in done.stdout
    assert "[49152, 576] token_embd.weight" in done.stdout


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16, 64])
@pytest.mark.parametrize("source", ["gguf-q4_1", "qwen3-bf16", "default"])
def test_shares(run, model, n, source):
    path = model if source == "default" else GOLDEN / source
    report = accepted(run, path, "--tp", n)
    config, ranks = report["config"], report["memory"]["ranks"]
    group = config["heads"] // config["kv_heads"]
    assert [rank["rank"] for rank in ranks] == list(range(n))
    for part, total in [("heads", config["heads"]), ("ffn", config["ffn"]),
                        ("vocab", config["vocab"])]:
        bounds = [rank[part] for rank in ranks]
        assert bounds[0][0] == 0 and bounds[-1][1] == total
        assert all(left[1] == right[0] for left, right in zip(bounds, bounds[1:]))
    for rank in ranks:
        begin, end = rank["heads"]
        if end > begin:
            assert rank["kv_heads"] == [begin // group, (end - 1) // group + 1]
        assert rank["kv_bytes_per_token"] == ranks[0]["kv_bytes_per_token"] or n > 1
    whole = accepted(run, path)["memory"]["weight_bytes"]
    assert report["memory"]["weight_bytes"] >= whole
    assert max(rank["weight_bytes"] for rank in ranks) >= whole / n / 2


@pytest.mark.san
def test_shards(run, folder):
    single = accepted(run, folder)
    shard(folder)
    sharded = accepted(run, folder)
    assert sharded["memory"] == single["memory"]
    assert accepted(run, folder / "model.safetensors.index.json")["memory"] == single["memory"]


@pytest.mark.san
def test_hub_cache(run, folder, tmp_path):
    """models--org--name with refs, snapshots and symlinks into blobs; shards as symlinks too."""
    shard(folder)
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots/0123abcd"
    (cache / "blobs").mkdir(parents=True)
    (cache / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (cache / "refs/main").write_text("0123abcd")
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(cache / f"blobs/{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    assert accepted(run, cache)["architecture"] == "llama"
    assert accepted(run, snapshot)["architecture"] == "llama"
    (cache / "refs/main").write_text("../../../etc")
    refused(run, cache, str(cache), "refs/main")


def limited(bytes_):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))


def test_address_space(run, folder, model):
    """Works under 2 GiB of address space, also where a tensor alone is larger."""
    header, data = read_safetensors(folder / "model.safetensors")
    big = 5 << 30
    header["big.weight"] = {"dtype": "BF16", "shape": [big // 2],
                            "data_offsets": [len(data), len(data) + big]}
    write_safetensors(folder / "model.safetensors", header, data)
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) + big)  # a hole: takes no disk space
    assert accepted(run, folder, preexec_fn=limited(2 << 30))["architecture"] == "llama"
    assert accepted(run, model, preexec_fn=limited(2 << 30))["architecture"] == "llama"


# --- bad safetensors -------------------------------------------------------------------------------------

NORM = "model.norm.weight"


def spoil_entry(**changes):
    def spoil(folder):
        header, data = read_safetensors(folder / "model.safetensors")
        header[NORM].update(changes)
        write_safetensors(folder / "model.safetensors", header, data)
    return spoil


def spoil_overlap(folder):
    header, data = read_safetensors(folder / "model.safetensors")
    size = header[NORM]["data_offsets"][1] - header[NORM]["data_offsets"][0]
    header[NORM]["data_offsets"] = [0, size]
    write_safetensors(folder / "model.safetensors", header, data)


def spoil_missing(folder):
    header, data = read_safetensors(folder / "model.safetensors")
    header["other"] = header.pop(NORM)
    write_safetensors(folder / "model.safetensors", header, data)


def spoil_type(folder):
    header, data = read_safetensors(folder / "model.safetensors")
    header[NORM]["dtype"] = "I32"
    write_safetensors(folder / "model.safetensors", header, data)


def spoil_duplicate(folder):
    header, data = read_safetensors(folder / "model.safetensors")
    text = json.dumps(header)
    again = json.dumps({NORM: header[NORM]})
    write_safetensors(folder / "model.safetensors", (text[:-1] + ", " + again[1:]).encode(), data)


def spoil_bytes(change):
    def spoil(folder):
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))
    return spoil


def spoil_name(folder):
    header, data = read_safetensors(folder / "model.safetensors")
    header["line\nfeed \x1b[31m"] = {"dtype": "F99", "shape": [], "data_offsets": [0, 0]}
    write_safetensors(folder / "model.safetensors", header, data)


SAFETENSORS = {
    "size": (spoil_entry(data_offsets=[0, 4]), [NORM, "do not match"]),
    "reversed": (spoil_entry(data_offsets=[8, 0]), [NORM, "data_offsets"]),
    "far": (spoil_entry(data_offsets=[1 << 62, (1 << 62) + 4], shape=[1]), [NORM, "file ends"]),
    "2^60 elements": (spoil_entry(shape=[1 << 60]), [NORM, "shape"]),
    "negative": (spoil_entry(shape=[-1]), [NORM, "shape"]),
    "unknown type": (spoil_entry(dtype="F99"), [NORM, "dtype"]),
    "overlap": (spoil_overlap, [NORM, "overlaps"]),
    "missing": (spoil_missing, [NORM, "missing"]),
    "integers": (spoil_type, [NORM, "I32"]),
    "duplicate": (spoil_duplicate, ["header", "duplicate"]),
    "control characters": (spoil_name, ["line\\x0afeed \\x1b[31m", "dtype"]),
    "truncated data": (spoil_bytes(lambda raw: raw[:-1]), ["file ends at byte"]),
    "truncated header": (spoil_bytes(lambda raw: raw[:100]), ["inside the header"]),
    "tail": (spoil_bytes(lambda raw: raw + b"x"), ["1 bytes after the last tensor"]),
    "empty": (spoil_bytes(lambda raw: b""), ["too short"]),
    "huge header": (spoil_bytes(lambda raw: b"\xff" * 8 + raw[8:]), ["header of"]),
    "2^60 header": (spoil_bytes(lambda raw: struct.pack("<Q", 1 << 60) + raw[8:]), ["header of"]),
    "no JSON": (spoil_bytes(lambda raw: raw[:8] + b"!" + raw[9:]), ["JSON"]),
    "no object": (spoil_bytes(lambda raw: struct.pack("<Q", 2) + b"[]"), ["not a JSON object"]),
}


@pytest.mark.san
@pytest.mark.parametrize("kind", SAFETENSORS)
def test_bad_safetensors(run, folder, kind):
    spoil, words = SAFETENSORS[kind]
    spoil(folder)
    line = refused(run, folder, "model.safetensors" if kind not in ("missing", "integers") else "",
                   *words)
    assert line.startswith(f"lockstep: {folder}: ")
    if kind not in ("missing", "integers"):
        refused(run, folder / "model.safetensors", *words)


@pytest.mark.san
@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b", "..", ""])
def test_escaping_shards(run, folder, name):
    weight_map = shard(folder)
    weight_map[NORM] = name
    write_index(folder, weight_map)
    refused(run, folder, str(folder), NORM, "not a file of this folder")


@pytest.mark.san
def test_bad_index(run, folder):
    index = folder / "model.safetensors.index.json"
    weight_map = shard(folder)
    write_index(folder, {**weight_map, "ghost": "model-00001-of-00002.safetensors"})
    refused(run, folder, "ghost", "missing in its shard")
    write_index(folder, {**weight_map, "ghost": "model-00003-of-00002.safetensors"})
    refused(run, folder, "model-00003-of-00002.safetensors", "No such file")
    write_index(folder, {**weight_map, "ghost": None})
    refused(run, folder, "ghost")
    index.write_text('{"weight_map": []}')
    refused(run, folder, "weight_map")
    index.write_text("{")
    refused(run, folder, "index.json", "JSON")


@pytest.mark.san
def test_every_truncation(run, folder):
    """Cut anywhere in the header or at a few places of the data."""
    raw = (folder / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    for n in [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(raw) - 1]:
        (folder / "model.safetensors").write_bytes(raw[:n])
        refused(run, folder, "model.safetensors")


# --- other files of a folder -----------------------------------------------------------------------------


def spoil_config(**changes):
    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps(config))
    return spoil


FOLDER = {
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json"]),
    "config no JSON": (lambda folder: (folder / "config.json").write_text("{"), ["config.json"]),
    "architecture": (spoil_config(model_type="mamba", architectures=["Mamba"]), ["mamba"]),
    "hidden": (spoil_config(hidden_size=4096), ["tensor", "shape"]),
    "layers": (spoil_config(num_hidden_layers=99), ["tensor model.layers.", "missing"]),
    "layers wrong": (spoil_config(num_hidden_layers="two"), ["num_hidden_layers"]),
    "vocabulary": (spoil_config(vocab_size=7), ["embed_tokens", "shape"]),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), ["tokenizer.json"]),
    "tokenizer no JSON": (lambda folder: (folder / "tokenizer.json").write_text("["),
                          ["tokenizer.json", "JSON"]),
    "template": (lambda folder: (folder / "chat_template.jinja").write_text("a\n{% if %}"),
                 ["chat template", "line 2"]),
    "generation": (lambda folder: (folder / "generation_config.json").write_text("["),
                   ["generation_config.json"]),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ["no weights"]),
    "a folder for weights": (lambda folder: ((folder / "model.safetensors").unlink(),
                                             (folder / "model.safetensors").mkdir()), ["no"]),
}


@pytest.mark.san
@pytest.mark.parametrize("kind", FOLDER)
def test_bad_folder(run, folder, kind):
    spoil, words = FOLDER[kind]
    spoil(folder)
    line = refused(run, folder, *words)
    assert line.startswith(f"lockstep: {folder}: ")


@pytest.mark.san
def test_bad_path(run, tmp_path, folder):
    refused(run, tmp_path / "missing", "missing", "No such file")
    odd = tmp_path / "odd\nname \x07"
    refused(run, odd, "odd\\x0aname \\x07")
    folder.rename(odd)
    assert accepted(run, odd)["architecture"] == "llama"
    assert "odd\\x0aname \\x07" in run("inspect", odd).stdout
    os.mkfifo(tmp_path / "fifo.gguf")
    refused(run, tmp_path / "fifo.gguf", "fifo.gguf")


# --- bad GGUF --------------------------------------------------------------------------------------------

ARCH = gguf_pair("general.architecture", STRING, gguf_string("llama"))
GGUFS = {
    "magic": (b"GGML" + bytes(64), ["not a GGUF file"]),
    "empty": (b"", ["file ends"]),
    "version 1": (gguf_file(version=1), ["version 1"]),
    "big endian": (gguf_file(version=0x03000000), ["big-endian"]),
    "2^60 tensors": (gguf_file(counts=(1 << 60, 0)), ["tensors"]),
    "2^60 pairs": (gguf_file(counts=(0, 1 << 60)), ["metadata pairs"]),
    "2^60 characters": (gguf_file([gguf_pair("k", STRING, struct.pack("<Q", 1 << 60))]),
                        ["metadata 'k'", "file ends"]),
    "2^60 numbers": (gguf_file([gguf_pair("k", 9, struct.pack("<IQ", U32, 1 << 60))]),
                     ["metadata 'k'", "array"]),
    "2^26 strings": (gguf_file([gguf_pair("k", 9, struct.pack("<IQ", STRING, 1 << 26))]),
                     ["metadata 'k'", "file ends"]),
    "2^60 elements": (gguf_file([ARCH], [("t", [1 << 60], 0, 0)]), ["tensor 't'", "file ends"]),
    "2^120 elements": (gguf_file([ARCH], [("t", [1 << 60, 1 << 60], 0, 0)]),
                       ["tensor 't'", "too large"]),
    "type": (gguf_file([ARCH], [("t", [256], 23, 0)], bytes(136)), ["tensor 't'", "IQ4_XS"]),
    "unknown type": (gguf_file([ARCH], [("t", [256], 99, 0)]), ["tensor 't'", "99"]),
    "groups": (gguf_file([ARCH], [("t", [48], 3, 0)], bytes(99)), ["tensor 't'", "groups of 32"]),
    "alignment": (gguf_file([ARCH], [("t", [8], 0, 8)], bytes(99)), ["tensor 't'", "offset 8"]),
    "overlap": (gguf_file([ARCH], [("t", [16], 0, 0), ("u", [16], 0, 32)], bytes(128)),
                ["tensor 'u'", "overlaps"]),
    "truncated": (gguf_file([ARCH], [("t", [16], 0, 0)], bytes(60)), ["tensor 't'", "file ends"]),
    "twice": (gguf_file([ARCH], [("t", [8], 0, 0), ("t", [8], 0, 32)], bytes(64)),
              ["tensor 't'", "two"]),
    "key twice": (gguf_file([ARCH, ARCH]), ["general.architecture", "two"]),
    "architecture": (gguf_file([gguf_pair("general.architecture", STRING, gguf_string("rwkv\n"))]),
                     ["rwkv"]),
    "no architecture": (gguf_file(), ["general.architecture"]),
    "no numbers": (gguf_file([ARCH]), ["llama."]),
    "name": (gguf_file([ARCH], [("a\nb\xff".encode("latin-1"), [256], 23, 0)]),
             ["a\\x0ab\\xff", "IQ4_XS"]),
    "split": (gguf_file([ARCH, gguf_pair("split.count", U32, struct.pack("<I", 3))]), ["split.count"]),
}


@pytest.mark.san
@pytest.mark.parametrize("kind", GGUFS)
def test_bad_gguf(run, tmp_path, kind):
    raw, words = GGUFS[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw)
    line = refused(run, path, *words)
    assert line.startswith(f"lockstep: {path}: ")


@pytest.mark.san
def test_gguf_truncations(run, tmp_path):
    raw = GGUF.read_bytes()
    path = tmp_path / "cut.gguf"
    for n in [0, 3, 4, 8, 23, 24, 30, 100, 500, 1000, 1500, len(raw) // 2, len(raw) - 1]:
        path.write_bytes(raw[:n])
        refused(run, path, str(path), "file ends")


def test_hostile_under_limit(run, tmp_path, folder):
    """The largest header allowed, filled with the smallest values: refused without the memory."""
    write_safetensors(folder / "model.safetensors", b'{"a":[' + b"{}," * 33_000_000 + b"{}]}")
    refused(run, folder, "header", preexec_fn=limited(1 << 30))
    path = tmp_path / "many.gguf"
    count = 15_000_000
    path.write_bytes(gguf_file([gguf_pair("k", 9, struct.pack("<IQ", STRING, count) +
                                          bytes(8 * count))]))
    refused(run, path, "general.architecture", preexec_fn=limited(1 << 30))
