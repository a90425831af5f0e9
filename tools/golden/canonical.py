# SPDX-License-Identifier: Apache-2.0
"""The model again, in the engine's canonical arithmetic: every rounding where the engine has it.

Rounding to bf16 makes a plain NumPy model useless as a yardstick: two sums that differ in their last
float32 bit now and then fall on different sides of a bf16 boundary, a difference of 2^-9 that the
layers above spread. So this model keeps not only the rounding points but the order of every sum, as
DESIGN.md ("Canonical arithmetic") and src/tensor/canon.h, src/cpu/kernels.h define them, and emulates
the fused multiply-add. What is left to differ is nothing; the tests allow 1e-5.

Rounded to bf16 (act="bf16"): the input of every linear map, q and k after norm and rotary embedding, v,
and the attention weights before their product with v (their sum takes them unrounded). float32:
everything else. act="f32" rounds nothing to bf16 and keeps the same order.

act="int8": attention as with bf16; quantised weights by integers (src/tensor/quant.h, and the integer chain
of src/cpu/kernels.h), of 16 bits for the values and the head; BF16 weights by rounded inputs, others
by inputs as they are.
"""

import math

import numpy as np

import numpy_model

F32 = np.float32
TINY = F32(2.0**-126)
STEP, LANES, KEYS, FFN_LEAVES = 32, 16, 64, 16
MOST, MOST_WIDE = 127, 32512


def flush(x):
    """Denormal results become zero."""
    small = np.abs(x) < TINY
    return np.where(small, F32(0), x) if small.any() else x


def fma(a, b, c):
    """a * b + c rounded once to float32.

    A product of two float32 has 48 bits, so it is exact in float64; the sum is rounded to 53 bits and
    then to 24. Rounding twice differs from rounding once only if the first rounding was inexact and
    ended on a midpoint of two float32 (its last 29 bits are 100...0). Such a sum is moved one unit of
    float64 towards the exact value, so that the second rounding goes the right way.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = np.asarray(product + c)
    midpoint = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    if midpoint.any():
        part = total - product  # TwoSum (Knuth): the exact error of product + c
        error = (product - (total - part)) + (c - part)
        nudged = np.nextafter(total, np.copysign(np.inf, error))
        total = np.where(midpoint & (error != 0), nudged, total)
    return flush(total.astype(F32))


def add(a, b):
    return flush(a + b)


def mul(a, b):
    return flush(a * b)


def round_bf16(x):
    bits = np.ascontiguousarray(x, F32).view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return flush((rounded & 0xFFFF0000).view(F32))


def exp(x):
    """canon_exp: n = round(x / ln 2), a polynomial on the rest, times 2^n."""
    big = fma(x, F32(1.44269504), F32(12582912))
    n = big - F32(12582912)
    r = fma(n, F32(2.12194440e-4), fma(n, F32(-0.693359375), x))
    p = np.full_like(r, 1.9875691500e-4)
    for coefficient in (
        1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
    ):  # fmt: skip
        p = fma(p, r, F32(coefficient))
    p = add(fma(p, mul(r, r), r), F32(1))
    with np.errstate(over="ignore", invalid="ignore"):
        value = mul(p, np.exp2(n.astype(np.float64)).astype(F32))
    value = np.where(x > F32(88.376259), F32(np.inf), value)
    return np.where(x < F32(-87.336544), F32(0), value)


def silu(x):
    return flush(x / add(F32(1), exp(-x)))


def lanes_sum(lanes):
    """[..., 16] -> [...]: 8 + 8, 4 + 4, 2 + 2, 1 + 1."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = add(lanes[..., :half], lanes[..., half:])
    return lanes[..., 0]


def padded(x, unit):
    """The last axis filled up with zeros to a multiple of unit."""
    extra = -x.shape[-1] % unit
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, extra)])


def chain(x, w):
    """x [T, K] by w [N, K] -> [T, N]: steps of 32 k, each an even and an odd chain of fused
    multiply-adds from zero; the two are added, and the sum is added to the running value."""
    x = padded(x, STEP).reshape(len(x), -1, STEP // 2, 2)
    w = padded(w, STEP).reshape(len(w), -1, STEP // 2, 2)
    n_steps = x.shape[1]
    sums = np.zeros((n_steps, 2, len(x), len(w)), F32)
    for i in range(STEP // 2):
        left = x[:, :, i].transpose(1, 2, 0)[:, :, :, None]
        right = w[:, :, i].transpose(1, 2, 0)[:, :, None, :]
        sums = fma(left, right, sums)
    run = np.zeros((len(x), len(w)), F32)
    for step in range(n_steps):
        run = add(run, add(sums[step, 0], sums[step, 1]))
    return run


def quantise(x, most):
    """A group [T, n] to codes [T, n] and scales [T]."""
    amax = np.abs(x).max(-1)
    used = amax >= F32(2.0**-100)
    factor = F32(most) / np.where(used, amax, F32(1))
    codes = np.where(used[:, None], np.rint(x * factor[:, None]), 0).astype(np.int64)
    return codes, np.where(used, amax / F32(most), F32(0))


def integer_chain(x, w, begin, end, most):
    """x [T, end - begin] by the columns [begin, end) of Integers w [N, K] -> [T, N]: for each group of
    32 columns, or what of it lies there, an exact sum, scaled once (for Q6_K two)."""
    run = np.zeros((len(x), len(w.codes)), F32)
    width = w.codes.shape[1] // w.d.shape[1]
    for group in range(begin // STEP, -(-end // STEP)):
        low, high = max(begin, group * STEP), min(end, (group + 1) * STEP)
        codes, scale = quantise(x[:, low - begin : high - begin], most)
        for part in range(group * STEP, (group + 1) * STEP, width):
            a, b = max(low, part), max(min(high, part + width), max(low, part))
            dot = codes[:, a - low : b - low] @ w.codes[:, a:b].T
            run = fma(dot.astype(F32), mul(w.d[:, part // width], scale[:, None]), run)
        if w.m is not None:
            total = mul(scale, codes.sum(-1).astype(F32))
            run = fma(w.m[:, group], total[:, None], run)
    return run


def tree(parts, merge):
    """Merges neighbours by halving the range, first half the larger."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) - len(parts) // 2
    return merge(tree(parts[:middle], merge), tree(parts[middle:], merge))


def ffn_bounds(k, dtype):
    """Offsets of the leaves of a down projection: whole units of 32, or of a K type's records."""
    unit = 256 if dtype.endswith("_K") else STEP
    n = math.ceil(k / unit)
    n_leaves = min(FFN_LEAVES, n)
    return [min(i * n // n_leaves * unit, k) for i in range(n_leaves + 1)]


def rms_norm(x, weight, eps):
    squares = padded(x, LANES).reshape(*x.shape[:-1], -1, LANES)
    lanes = np.zeros((*x.shape[:-1], LANES), F32)
    for i in range(squares.shape[-2]):
        lanes = fma(squares[..., i, :], squares[..., i, :], lanes)
    mean = flush(lanes_sum(lanes) / F32(x.shape[-1]))
    r = F32(1) / np.sqrt(add(mean, F32(eps)))
    return mul(mul(x, r[..., None]), weight)


def rotate(x, cos, sin):
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.broadcast_arrays(cos[:, None], sin[:, None])
    return np.concatenate(
        [fma(-second, sin, mul(first, cos)), fma(first, sin, mul(second, cos))], axis=-1
    )


class Model:
    def __init__(self, checkpoint, act):
        self.config, self.tensors = checkpoint.config, checkpoint.tensors
        self.dtypes, self.integers = checkpoint.dtypes, checkpoint.integers
        self.act = act
        self.rounded = (lambda x: x) if act == "f32" else round_bf16
        frequencies, magnitude = numpy_model.rope_frequencies(checkpoint)
        self.frequencies, self.magnitude = frequencies.astype(F32), F32(magnitude)
        self.scale = F32(1) / np.sqrt(F32(self.config.head_dim))

    def product(self, name, x, bounds, wide):
        """Leaves between the given offsets, added as a tree."""
        spans = list(zip(bounds, bounds[1:]))
        if self.act == "int8" and name in self.integers:
            w, most = self.integers[name], MOST_WIDE if wide else MOST
            return tree([integer_chain(x[:, a:b], w, a, b, most) for a, b in spans], add)
        w = self.tensors[name]
        x = x if self.act == "int8" and self.dtypes[name] != "BF16" else self.rounded(x)
        return tree([chain(x[:, a:b], w[:, a:b]) for a, b in spans], add)

    def linear(self, name, x, bounds=None, wide=False):
        """Row-parallel maps have leaves between the given offsets; the others are one chain."""
        y = self.product(f"{name}.weight", x, bounds or [0, x.shape[1]], wide)
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else add(y, bias)

    def norm(self, name, x):
        return rms_norm(x, self.tensors[f"{name}.weight"], self.config.norm_eps)

    def rotation(self, n):
        """cos and sin [n, head_dim/2]: of a float32 angle, in double, rounded once."""
        angle = (np.arange(n, dtype=F32)[:, None] * self.frequencies).astype(np.float64)
        return (mul(f(angle).astype(F32), self.magnitude) for f in (np.cos, np.sin))

    def attention_block(self, q, k, v, positions, start):
        """q [T, dim] against the keys of one block -> (m [T], l [T], o [T, dim])."""
        scores = mul(chain(q, k), self.scale)
        absent = np.arange(start, start + KEYS) > positions[:, None]
        scores = np.where(absent, -np.inf, scores).astype(F32)
        m = scores.max(-1)
        with np.errstate(invalid="ignore"):  # absent keys: their result is replaced
            p = np.where(absent, F32(0), exp(np.where(absent, F32(0), scores - m[:, None])))
        lanes = np.zeros((len(q), LANES), F32)
        for i in range(0, KEYS, LANES):
            lanes = add(lanes, p[:, i : i + LANES])
        return m, lanes_sum(lanes), chain(self.rounded(p), v.T)

    def attend(self, q, k, v):
        """One query head: q [T, dim], k and v [T, dim] -> [T, dim]."""
        n = len(q)
        out = np.empty_like(q)
        k, v = (padded(x.T, KEYS).T for x in (k, v))  # pages are zeroed when taken
        for first in range(0, n, KEYS):  # queries that see the same blocks
            rows = np.arange(first, min(first + KEYS, n))
            parts = [
                self.attention_block(
                    q[rows], k[start : start + KEYS], v[start : start + KEYS], rows, start
                )
                for start in range(0, first + 1, KEYS)
            ]
            _, l, o = tree(parts, merge_blocks)
            out[rows] = flush(o / l[:, None])
        return out

    def attention(self, prefix, x):
        config, n = self.config, len(x)
        q, k, v = (
            self.linear(f"{prefix}.{name}_proj", x, wide=name == "v").reshape(
                n, -1, config.head_dim
            )
            for name in ("q", "k", "v")
        )
        if config.arch == "qwen3":
            q, k = self.norm(f"{prefix}.q_norm", q), self.norm(f"{prefix}.k_norm", k)
        cos, sin = self.rotation(n)
        q, k = self.rounded(rotate(q, cos, sin)), self.rounded(rotate(k, cos, sin))
        v = self.rounded(v)
        kv_head = numpy_model.kv_head_of(config, None)
        heads = [
            self.attend(q[:, h], k[:, kv_head[h]], v[:, kv_head[h]]) for h in range(config.n_heads)
        ]
        width = config.n_heads * config.head_dim
        bounds = list(range(0, width + 1, config.head_dim))  # one leaf a query head
        return self.linear(f"{prefix}.o_proj", np.concatenate(heads, axis=1), bounds)

    def mlp(self, prefix, x):
        gate, up = self.linear(f"{prefix}.gate_proj", x), self.linear(f"{prefix}.up_proj", x)
        bounds = ffn_bounds(self.config.intermediate, self.dtypes[f"{prefix}.down_proj.weight"])
        return self.linear(f"{prefix}.down_proj", mul(silu(gate), up), bounds)

    def forward(self, ids):
        embedding = self.tensors["model.embed_tokens.weight"]
        x = embedding[np.asarray(ids)]
        for number in range(self.config.n_layers):
            prefix = f"model.layers.{number}"
            normed = self.norm(f"{prefix}.input_layernorm", x)
            x = add(x, self.attention(f"{prefix}.self_attn", normed))
            normed = self.norm(f"{prefix}.post_attention_layernorm", x)
            x = add(x, self.mlp(f"{prefix}.mlp", normed))
        head = "lm_head" if "lm_head.weight" in self.tensors else "model.embed_tokens"
        return self.linear(head, self.norm("model.norm", x), wide=True)


def merge_blocks(a, b):
    """(m, l, o) of two neighbouring ranges of keys, a the earlier."""
    top = np.maximum(a[0], b[0])
    ca, cb = exp(a[0] - top), exp(b[0] - top)
    o = fma(b[2], cb[:, None], mul(a[2], ca[:, None]))
    return top, fma(b[1], cb, mul(a[1], ca)), o


def forward(checkpoint, ids, act):
    """Logits [T, vocab] in float32; act is "f32", "bf16" or "int8"."""
    return Model(checkpoint, act).forward(ids)
