# SPDX-License-Identifier: Apache-2.0
"""llama, qwen2 and qwen3 in NumPy: the second opinion of the golden tests.

`forward(checkpoint, ids)` gives the logits of every position in float64, written as the papers have it.
`planted` puts one known mistake in (see PLANTED), to show that a golden fixture notices it.
The engine's own arithmetic, with its rounding to bf16, is in canonical.py.
"""

import math

import numpy as np

# Mistake: in which checkpoints it can be made.
PLANTED = {
    "rope off by one": lambda checkpoint: True,
    "rope not scaled": lambda checkpoint: is_rope_scaled(checkpoint),
    "q and k norm swapped": lambda checkpoint: checkpoint.config.arch == "qwen3",
    "wrong KV head": lambda checkpoint: checkpoint.config.n_kv_heads > 1,
    "missing scale": lambda checkpoint: True,
    "wrong mask": lambda checkpoint: True,
    "missing bias": lambda checkpoint: any(name.endswith(".bias") for name in checkpoint.tensors),
}


def is_rope_scaled(checkpoint):
    scaled = checkpoint.config.rope["rope_type"] != "default"
    return scaled or "rope_freqs.weight" in checkpoint.tensors


def yarn_ramp(config):
    """1 where a dimension keeps its frequency, 0 where it is divided by the factor (YaRN, section 3.2)."""
    rope, dim = config.rope, config.head_dim
    context, theta = rope["original_max_position_embeddings"], rope["rope_theta"]

    def dimension(rotations):
        return dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension(rope.get("beta_fast") or 32)
    high = dimension(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0
    return 1 - np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)


def yarn_magnitude(rope):
    """What YaRN multiplies cos and sin with."""

    def magnitude(mscale):
        return 0.1 * mscale * math.log(rope["factor"]) + 1 if rope["factor"] > 1 else 1.0

    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return magnitude(rope["mscale"]) / magnitude(rope["mscale_all_dim"])
    return magnitude(1)


def rope_frequencies(checkpoint, planted=None):
    """Angle a position for each pair of dimensions, and the factor of cos and sin."""
    config = checkpoint.config
    rope, dim = config.rope, config.head_dim
    plain = rope["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
    if planted == "rope not scaled":
        return plain, 1.0
    if "rope_freqs.weight" in checkpoint.tensors:
        return plain / checkpoint.tensors["rope_freqs.weight"], 1.0
    if rope["rope_type"] == "linear":
        return plain / rope["factor"], 1.0
    if rope["rope_type"] == "llama3":
        turns = rope["original_max_position_embeddings"] * plain / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        return plain * ((1 - smooth) / rope["factor"] + smooth), 1.0
    if rope["rope_type"] == "yarn":
        keep = yarn_ramp(config)
        return plain * (keep + (1 - keep) / rope["factor"]), yarn_magnitude(rope)
    assert rope["rope_type"] == "default", rope["rope_type"]
    return plain, 1.0


def rotate(x, cos, sin):
    """x [T, heads, head_dim]: the pair (i, i + head_dim/2) is turned by its position's angle."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(scores):
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def kv_head_of(config, planted):
    """The KV head each query head reads: groups of neighbours."""
    group = config.n_heads // config.n_kv_heads
    heads = np.arange(config.n_heads)
    if planted != "wrong KV head":
        return heads // group
    return heads % config.n_kv_heads if group > 1 else (heads + 1) % config.n_kv_heads


class Layer:
    """The tensors of one layer in float64, by short name; a linear map adds its bias if there is one."""

    def __init__(self, checkpoint, number, without_bias):
        prefix = f"model.layers.{number}."
        self.tensors = {
            name.removeprefix(prefix): tensor.astype(np.float64)
            for name, tensor in checkpoint.tensors.items()
            if name.startswith(prefix) and not (without_bias and name.endswith(".bias"))
        }

    def norm(self, name, x, eps):
        return rms_norm(x, self.tensors[f"{name}.weight"], eps)

    def linear(self, name, x):
        bias = self.tensors.get(f"{name}.bias", 0.0)
        return x @ self.tensors[f"{name}.weight"].T + bias


def attention(config, layer, x, frequencies, planted):
    """x [T, hidden] -> [T, hidden]"""
    n, dim = len(x), config.head_dim
    q = layer.linear("self_attn.q_proj", x).reshape(n, config.n_heads, dim)
    k = layer.linear("self_attn.k_proj", x).reshape(n, config.n_kv_heads, dim)
    v = layer.linear("self_attn.v_proj", x).reshape(n, config.n_kv_heads, dim)
    if config.arch == "qwen3":
        names = ["self_attn.q_norm", "self_attn.k_norm"]
        if planted == "q and k norm swapped":
            names.reverse()
        q = layer.norm(names[0], q, config.norm_eps)
        k = layer.norm(names[1], k, config.norm_eps)
    frequency, magnitude = frequencies
    angle = np.arange(n + 1)[:, None] * frequency
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    ahead = 1 if planted == "rope off by one" else 0
    q = rotate(q, cos[ahead : n + ahead], sin[ahead : n + ahead])
    k = rotate(k, cos[:n], sin[:n])
    kv_head = kv_head_of(config, planted)
    scores = np.einsum("ihd,jhd->hij", q, k[:, kv_head])
    if planted != "missing scale":
        scores /= math.sqrt(dim)
    future = np.triu(np.ones((n, n), bool), 2 if planted == "wrong mask" else 1)
    weights = softmax(np.where(future, -np.inf, scores))
    heads = np.einsum("hij,jhd->ihd", weights, v[:, kv_head])
    return layer.linear("self_attn.o_proj", heads.reshape(n, -1))


def mlp(layer, x):
    gate, up = layer.linear("mlp.gate_proj", x), layer.linear("mlp.up_proj", x)
    return layer.linear("mlp.down_proj", silu(gate) * up)


def forward(checkpoint, ids, planted=None):
    """Logits [T, vocab] in float64."""
    config, tensors = checkpoint.config, checkpoint.tensors
    frequencies = rope_frequencies(checkpoint, planted)
    embedding = tensors["model.embed_tokens.weight"].astype(np.float64)
    x = embedding[np.asarray(ids)]
    for number in range(config.n_layers):
        layer = Layer(checkpoint, number, planted == "missing bias")
        normed = layer.norm("input_layernorm", x, config.norm_eps)
        x = x + attention(config, layer, normed, frequencies, planted)
        normed = layer.norm("post_attention_layernorm", x, config.norm_eps)
        x = x + mlp(layer, normed)
    x = rms_norm(x, tensors["model.norm.weight"], config.norm_eps)
    return x @ tensors.get("lm_head.weight", embedding).T.astype(np.float64)
