# SPDX-License-Identifier: Apache-2.0
"""Small random models as GGUF files: every architecture in every weight type, with NumPy alone.

Codes and scales inside a block of 32 or 256 weights are random bytes; only the half-precision factors
of a block are chosen, so that the weights have about the deviation that keeps activations near 1 and
attention far from uniform. The shapes are meant to divide badly: heads, units of the feed-forward and
blocks of the vocabulary are dealt out unevenly at 2 ranks and more, and some ranks get none. A model
depends on nothing but its architecture, its type and SEED.
"""

import dataclasses
import struct
import zlib

import numpy as np

SEED = 20250801
N_LAYERS = 2
VOCAB = 2100  # three blocks of 1,024, the last one short
CONTEXT = 512
ALIGNMENT = 32

U32, F32_VALUE, STRING = 4, 6, 8  # types of metadata values


@dataclasses.dataclass
class Type:
    """A weight type of GGUF files. factors: (offset, units) of the half-precision numbers of a block,
    in the unit of the block's d; spread: the deviation of a weight in that unit."""

    number: int
    group: int = 1
    block_bytes: int = 0
    factors: tuple = ()
    spread: float = 1.0


# Codes are uniform: 8 bits have a deviation of 74, 5 bits 9.2, 4 bits 4.6; the 6-bit scales of Q4_K
# and Q5_K have a mean of 31.5, and the 8-bit ones of Q6_K a deviation of 74 beside one of 18.5.
TYPES = {
    "F32": Type(0),
    "F16": Type(1),
    "BF16": Type(30),
    "Q8_0": Type(8, 32, 34, ((0, 1),), 74),
    "Q4_0": Type(2, 32, 18, ((0, 1),), 4.6),
    "Q4_1": Type(3, 32, 20, ((0, 1), (2, -7.5)), 4.6),
    "Q5_0": Type(6, 32, 22, ((0, 1),), 9.2),
    "Q5_1": Type(7, 32, 24, ((0, 1), (2, -15.5)), 9.2),
    "Q4_K": Type(12, 256, 144, ((0, 1), (2, 7.5)), 240),
    "Q5_K": Type(13, 256, 176, ((0, 1), (2, 15.5)), 480),
    "Q6_K": Type(14, 256, 210, ((208, 1),), 1370),
}


@dataclasses.dataclass
class Shape:
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden: int
    ffn: int
    tied: bool


# By group of the type, whose multiples the rows of every matrix must be.
SHAPES = {
    "llama": {
        1: Shape(9, 3, 20, 90, 330, False),
        32: Shape(9, 3, 32, 96, 544, False),
        256: Shape(6, 3, 128, 256, 512, False),
    },
    "qwen2": {
        1: Shape(5, 1, 12, 100, 200, True),
        32: Shape(4, 1, 40, 160, 352, True),
        256: Shape(8, 2, 32, 256, 768, True),
    },
    "qwen3": {
        1: Shape(6, 2, 24, 72, 456, True),
        32: Shape(12, 4, 24, 128, 608, True),
        256: Shape(4, 1, 64, 256, 768, True),
    },
}
ARCHITECTURES = list(SHAPES)


def shape_of(architecture, dtype):
    return SHAPES[architecture][TYPES[dtype].group]


def tensors_of(architecture, shape):
    """{name: (rows, columns) or (size,)}, in file order."""
    q, kv = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    tensors = {"token_embd.weight": (VOCAB, shape.hidden), "output_norm.weight": (shape.hidden,)}
    if not shape.tied:
        tensors["output.weight"] = (VOCAB, shape.hidden)
    layer = {
        "attn_norm.weight": (shape.hidden,),
        "attn_q.weight": (q, shape.hidden),
        "attn_k.weight": (kv, shape.hidden),
        "attn_v.weight": (kv, shape.hidden),
        "attn_output.weight": (shape.hidden, q),
        "ffn_norm.weight": (shape.hidden,),
        "ffn_gate.weight": (shape.ffn, shape.hidden),
        "ffn_up.weight": (shape.ffn, shape.hidden),
        "ffn_down.weight": (shape.hidden, shape.ffn),
    }
    if architecture == "qwen2":
        layer |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if architecture == "qwen3":
        layer |= {f"attn_{part}_norm.weight": (shape.head_dim,) for part in "qk"}
    for i in range(N_LAYERS):
        tensors |= {f"blk.{i}.{name}": dims for name, dims in layer.items()}
    return tensors


def metadata_of(architecture, shape):
    values = {
        "block_count": N_LAYERS,
        "context_length": CONTEXT,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    return {"general.architecture": architecture} | {
        f"{architecture}.{key}": value for key, value in values.items()}


def generator(name):
    return np.random.Generator(np.random.Philox(key=[SEED, zlib.crc32(name.encode())]))


def vector(name, dims):
    values = generator(name).standard_normal(dims, dtype=np.float32)
    return 1 + values / 4 if name.endswith("norm.weight") else values / 3


def matrix(name, dims, dtype):
    """The bytes of a matrix."""
    kind = TYPES[dtype]
    random = generator(f"{dtype} {name}")
    deviation = (2.0 if "attn_q" in name or "attn_k" in name else 1.2) / dims[1] ** 0.5
    if kind.group == 1:
        values = random.standard_normal(dims, dtype=np.float32) * np.float32(deviation)
        if dtype == "BF16":
            return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    n = dims[0] * dims[1] // kind.group
    blocks = random.integers(0, 256, (n, kind.block_bytes), dtype=np.uint8)
    d = random.uniform(0.7, 1.3, (n, 1)) * deviation / kind.spread
    for offset, units in kind.factors:
        blocks[:, offset : offset + 2] = (d * units).astype("<f2").view(np.uint8)
    return blocks.tobytes()


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", F32_VALUE, value)
    return text(key) + struct.pack("<II", U32, value)


def padding(n_bytes):
    return bytes(-n_bytes % ALIGNMENT)


def write(path, architecture, dtype):
    """Writes the model: matrices in the type, vectors in F32."""
    shape = shape_of(architecture, dtype)
    tensors = tensors_of(architecture, shape)
    metadata = metadata_of(architecture, shape)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    header += b"".join(pair(*item) for item in metadata.items())
    data = b""
    for name, dims in tensors.items():
        is_matrix = len(dims) == 2
        number = TYPES[dtype if is_matrix else "F32"].number
        header += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims[::-1])
        header += struct.pack("<IQ", number, len(data))
        data += matrix(name, dims, dtype) if is_matrix else vector(name, dims).tobytes()
        data += padding(len(data))
    path.write_bytes(header + padding(len(header)) + data)
