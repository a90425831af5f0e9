# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as NumPy arrays: a Hugging Face folder or a GGUF file, with nothing but NumPy.

`load(path)` returns a `Checkpoint`: a configuration with the same fields whatever the file, and the
tensors under their Hugging Face names as exact float32 values. It exists so that the golden tests can
run the NumPy model without PyTorch, and it shares no code with the engine's readers or with the
packages that wrote the fixtures. It trusts its input: it is for our own fixtures, not for downloads.
"""

import dataclasses
import json
import pathlib
import struct

import numpy as np


@dataclasses.dataclass
class Config:
    arch: str
    hidden: int
    intermediate: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    max_positions: int
    rope: dict  # rope_theta, rope_type and that type's own fields, as transformers names them


@dataclasses.dataclass
class Integers:
    """A quantised matrix before scaling: each weight is codes * d + m, of its own group."""

    codes: np.ndarray  # int64 [rows, columns]
    d: np.ndarray  # float32 [rows, columns / 32], or / 16 for Q6_K
    m: np.ndarray  # float32 [rows, columns / 32], or None

    def with_rows(self, order):
        """The same with every array's rows reordered by a function."""
        return Integers(order(self.codes), order(self.d), None if self.m is None else order(self.m))


@dataclasses.dataclass
class Checkpoint:
    config: Config
    tensors: dict  # Hugging Face name -> float32 array
    dtypes: dict  # Hugging Face name -> stored type, "BF16", "Q4_K", ...
    integers: dict  # name of a quantised matrix -> its Integers

    def weight_type(self):
        """The stored type of the matrices (of the first layer's q, for a mixed file)."""
        return self.dtypes["model.layers.0.self_attn.q_proj.weight"]


def load(path):
    path = pathlib.Path(path)
    return load_gguf(path) if path.suffix == ".gguf" else load_folder(path)


# Hugging Face folders


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_safetensors(path):
    """Yields (name, stored type, float32 array)."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry["dtype"]]
        array = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
        array = bf16_to_f32(array) if entry["dtype"] == "BF16" else array.astype(np.float32)
        yield name, entry["dtype"], array


def rope_of(raw):
    """The RoPE fields of either style of config.json as one dict."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", raw.get("rope_theta", 10000.0))
    rope.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    return rope


def load_folder(folder):
    raw = json.loads((folder / "config.json").read_text())
    n_heads = raw["num_attention_heads"]
    config = Config(
        arch=raw["model_type"],
        hidden=raw["hidden_size"],
        intermediate=raw["intermediate_size"],
        n_layers=raw["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=raw.get("num_key_value_heads") or n_heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // n_heads,
        vocab=raw["vocab_size"],
        norm_eps=raw["rms_norm_eps"],
        max_positions=raw["max_position_embeddings"],
        rope=rope_of(raw),
    )
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        shards = ["model.safetensors"]
    tensors, dtypes = {}, {}
    for shard in shards:
        for name, dtype, array in read_safetensors(folder / shard):
            tensors[name], dtypes[name] = array, dtype
    return Checkpoint(config, tensors, dtypes, {})


# GGUF. Layout: the format's specification (ggml repository, docs/gguf.md).

GGUF_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
GGUF_STRING, GGUF_ARRAY = 8, 9

# number: (name, elements a record, bytes a record)
GGML_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


class GgufReader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def scalar(self, kind):
        (value,) = struct.unpack_from(kind, self.data, self.at)
        self.at += struct.calcsize(kind)
        return value

    def text(self):
        n = self.scalar("<Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == GGUF_STRING:
            return self.text()
        if kind == GGUF_ARRAY:
            element, n = self.scalar("<I"), self.scalar("<Q")
            return [self.value(element) for _ in range(n)]
        return self.scalar(GGUF_SCALARS[kind])


def nibbles(packed):
    """[n, bytes] -> [n, 2 * bytes]: all low halves of a row, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def halves(records, at):
    return records[:, at : at + 2].copy().view("<f2").astype(np.float32)


def fifth_bits(records, at):
    return np.unpackbits(records[:, at : at + 4], axis=1, bitorder="little")


def k_scales(packed):
    """The 6-bit scales and minima of Q4_K and Q5_K: 12 bytes -> two rows of 8."""
    low, mid, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    minimum = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=1)
    return scale, minimum


def integers_k45(r, high_bits):
    """Q4_K and Q5_K: d*scale and dmin*minimum are rounded to float32 first."""
    scale, minimum = k_scales(r[:, 4:16])
    qs = r[:, 16 + high_bits :].reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8).reshape(2, 1)
    codes = (qs & 15).reshape(-1, 8, 32)
    if high_bits:
        fifth = r[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(8, 1)
        codes = codes | (fifth & 1) << 4
    return codes, halves(r, 0) * scale, -(halves(r, 2) * minimum)


def integers_q6_k(r):
    low = r[:, 0:128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(2, 1)
    high = r[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
    codes = (low & 15).reshape(-1, 8, 32) | (high & 3).reshape(-1, 8, 32) << 4
    return codes.astype(np.int16) - 32, halves(r, 208) * r[:, 192:208].view(np.int8), None


def integers_of(dtype, r):
    """Records [n, record bytes] of a quantised type -> codes, d and m (or None)."""
    if dtype == "Q8_0":
        return r[:, 2:].view(np.int8), halves(r, 0), None
    if dtype == "Q4_0":
        return nibbles(r[:, 2:]).astype(np.int8) - 8, halves(r, 0), None
    if dtype == "Q4_1":
        return nibbles(r[:, 4:]), halves(r, 0), halves(r, 2)
    if dtype == "Q5_0":
        codes = nibbles(r[:, 6:]) | fifth_bits(r, 2) << 4
        return codes.astype(np.int8) - 16, halves(r, 0), None
    if dtype == "Q5_1":
        return nibbles(r[:, 8:]) | fifth_bits(r, 4) << 4, halves(r, 0), halves(r, 2)
    if dtype == "Q6_K":
        return integers_q6_k(r)
    return integers_k45(r, 32 if dtype == "Q5_K" else 0)


def read_integers(dtype, group_bytes, data, shape):
    codes, d, m = integers_of(dtype, np.frombuffer(data, np.uint8).reshape(-1, group_bytes))
    rows = shape[0]
    m = None if m is None else m.astype(np.float32).reshape(rows, -1)
    return Integers(codes.astype(np.int64).reshape(shape), d.astype(np.float32).reshape(rows, -1), m)


def dequantise(w):
    """fma(code, d, m), rounded once: the product has at most 24 + 8 bits, so float64 holds it."""
    rows, columns = w.codes.shape
    codes = w.codes.reshape(rows, w.d.shape[1], -1).astype(np.float64)
    m = 0.0 if w.m is None else w.m.astype(np.float64)[:, :, None]
    return (codes * w.d[:, :, None] + m).astype(np.float32).reshape(rows, columns)


def decode(dtype, data, shape):
    if dtype == "F32":
        return np.frombuffer(data, "<f4").reshape(shape)
    if dtype == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32).reshape(shape)
    assert dtype == "BF16"
    return bf16_to_f32(np.frombuffer(data, "<u2")).reshape(shape)


GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "rope_freqs.weight": "rope_freqs.weight",
}


def hugging_face_name(name):
    if not name.startswith("blk."):
        return GGUF_NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{GGUF_LAYER_NAMES[part]}.{kind}"


def rows_to_halves(array, n_heads):
    """Undoes the row order of llama GGUFs (pairs of a head side by side) to first half, second half."""
    pairs = array.reshape(n_heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(pairs, 2, 1)).reshape(array.shape)


def gguf_rope(meta, arch, max_positions):
    rope = {
        "rope_theta": meta.get(f"{arch}.rope.freq_base", 10000.0),
        "rope_type": meta.get(f"{arch}.rope.scaling.type", "default"),
        "original_max_position_embeddings": max_positions,
    }
    for field, key in {
        "factor": "rope.scaling.factor",
        "original_max_position_embeddings": "rope.scaling.original_context_length",
        "beta_fast": "rope.scaling.yarn_beta_fast",
        "beta_slow": "rope.scaling.yarn_beta_slow",
    }.items():
        if f"{arch}.{key}" in meta:
            rope[field] = meta[f"{arch}.{key}"]
    return rope


def load_gguf(path):
    reader = GgufReader(path.read_bytes())
    magic, version = reader.scalar("<I"), reader.scalar("<I")
    assert magic == 0x46554747 and version in (2, 3)
    n_tensors, n_fields = reader.scalar("<Q"), reader.scalar("<Q")
    meta = {}
    for _ in range(n_fields):
        name = reader.text()
        meta[name] = reader.value(reader.scalar("<I"))
    entries = []
    for _ in range(n_tensors):
        name = reader.text()
        shape = [reader.scalar("<Q") for _ in range(reader.scalar("<I"))][::-1]
        entries.append((name, shape, reader.scalar("<I"), reader.scalar("<Q")))
    alignment = meta.get("general.alignment", 32)
    start = (reader.at + alignment - 1) // alignment * alignment
    tensors, dtypes, integers = {}, {}, {}
    for name, shape, number, offset in entries:
        dtype, group, group_bytes = GGML_TYPES[number]
        n_bytes = int(np.prod(shape)) // group * group_bytes
        data = reader.data[start + offset : start + offset + n_bytes]
        name = hugging_face_name(name)
        if group > 1:
            integers[name] = read_integers(dtype, group_bytes, data, shape)
            tensors[name] = dequantise(integers[name])
        else:
            tensors[name] = decode(dtype, data, shape)
        dtypes[name] = dtype
    return Checkpoint(gguf_config(meta, tensors, integers), tensors, dtypes, integers)


def gguf_config(meta, tensors, integers):
    """The configuration; puts the rows of llama's q and k in our order."""
    arch = meta["general.architecture"]
    field = lambda key: meta[f"{arch}.{key}"]  # noqa: E731
    n_heads = field("attention.head_count")
    hidden = field("embedding_length")
    config = Config(
        arch=arch,
        hidden=hidden,
        intermediate=field("feed_forward_length"),
        n_layers=field("block_count"),
        n_heads=n_heads,
        n_kv_heads=meta.get(f"{arch}.attention.head_count_kv", n_heads),
        head_dim=meta.get(f"{arch}.attention.key_length", hidden // n_heads),
        vocab=len(tensors["model.embed_tokens.weight"]),
        norm_eps=field("attention.layer_norm_rms_epsilon"),
        max_positions=field("context_length"),
        rope=gguf_rope(meta, arch, field("context_length")),
    )
    if arch == "llama":
        for name, heads in [("q_proj", config.n_heads), ("k_proj", config.n_kv_heads)]:
            for key in [key for key in tensors if f".{name}." in key]:
                tensors[key] = rows_to_halves(tensors[key], heads)
                if key in integers:
                    integers[key] = integers[key].with_rows(lambda a, n=heads: rows_to_halves(a, n))
    return config
