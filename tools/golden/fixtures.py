# SPDX-License-Identifier: Apache-2.0
"""The golden fixtures: what each checkpoint is made of. One table, no code but the table's helpers.

Together they cover llama, qwen2 and qwen3; KV head counts that divide the heads by 1, 3, 5 and 8; a
head_dim that is not hidden / heads; sizes that are no multiple of 32; vocabularies of 257, 1025 and
2500; tied and separate heads; biases; every RoPE variant in both styles of config.json; single and
sharded safetensors in F32, F16 and BF16; every GGUF type. Prompts of 150 tokens and more cross several
attention blocks of 64 keys and the original context of the scaled RoPE variants.
"""

import dataclasses


@dataclasses.dataclass
class Fixture:
    name: str
    arch: str  # llama, qwen2, qwen3
    heads: tuple  # query heads, KV heads, head_dim
    hidden: int
    intermediate: int
    vocab: int = 257
    n_layers: int = 2
    dtype: str = "BF16"  # of every matrix
    tied: bool = False
    n_prompt: int = 24
    n_rows: int = 12  # positions whose logits are stored
    style: str = "new"  # of config.json: "new" is transformers 5's, "old" what came before
    rope: dict = dataclasses.field(default_factory=lambda: {"rope_type": "default"})
    theta: float = 10000.0
    max_positions: int = 512
    extra: dict = dataclasses.field(default_factory=dict)  # further config fields
    n_shards: int = 1
    weights_of: str = ""  # the fixture whose weights this one links to
    gguf_version: int = 0  # 0: a Hugging Face folder
    other_dtypes: dict = dataclasses.field(default_factory=dict)  # part of a name -> dtype (GGUF)


LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
YARN_ALL = YARN | {"attention_factor": 1.25, "beta_fast": 16.0, "beta_slow": 2.0}
YARN_MSCALE = YARN | {"mscale": 1.0, "mscale_all_dim": 0.7, "truncate": False}

ROPE_BASE = dict(
    arch="llama", heads=(4, 2, 16), hidden=64, intermediate=96, tied=True, n_prompt=200, n_rows=10
)

SAFETENSORS = [
    Fixture("qwen3-bf16", "qwen3", (4, 2, 32), 96, 136, tied=True, n_prompt=160, theta=1e6),
    Fixture("llama-f32", "llama", (9, 3, 8), 72, 104, 1025, 1, "F32", True, 40, 8, "old"),
    Fixture(
        "llama-bias-f16", "llama", (6, 2, 16), 48, 200, dtype="F16", n_prompt=70, n_shards=3,
        extra={"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5},
    ),
    Fixture("llama-bf16", "llama", (4, 4, 10), 40, 72, 2500, 2, style="old", n_shards=2, n_rows=4),
    Fixture("qwen2-bf16", "qwen2", (8, 1, 12), 96, 104, tied=True, n_prompt=150, style="old"),
    Fixture("qwen2-f16", "qwen2", (5, 1, 16), 80, 96, dtype="F16", n_prompt=33),
    Fixture(
        "qwen3-f32", "qwen3", (3, 1, 40), 56, 100, dtype="F32", n_prompt=65, style="old",
        extra={"attention_bias": True},
    ),
    Fixture("rope-default", **ROPE_BASE),
    Fixture("rope-default-old", **ROPE_BASE, style="old", weights_of="rope-default"),
]  # fmt: skip
for _kind, _rope in [
    ("linear", LINEAR),
    ("llama3", LLAMA3),
    ("yarn", YARN),
    ("yarn-all", YARN_ALL),
    ("yarn-mscale", YARN_MSCALE),
]:
    SAFETENSORS += [
        Fixture(f"rope-{_kind}{_suffix}", **ROPE_BASE, style=_style, rope=_rope,
                weights_of="rope-default")
        for _style, _suffix in [("new", ""), ("old", "-old")]
    ]  # fmt: skip

# Rows of the quantised types hold a whole number of records: 32 elements, or 256 for the K types.
SMALL = dict(heads=(6, 2, 16), hidden=96, intermediate=160)
LARGE = dict(heads=(8, 1, 32), hidden=256, intermediate=256, n_layers=1)

GGUF = [
    Fixture("gguf-f32", "qwen2", (3, 1, 20), 60, 100, dtype="F32", n_layers=1, gguf_version=3),
    Fixture("gguf-f16", "llama", (9, 3, 8), 72, 104, dtype="F16", gguf_version=3),
    Fixture(
        "gguf-bf16", "qwen3", (5, 5, 24), 64, 100, tied=True, n_prompt=130, gguf_version=3
    ),
    Fixture("gguf-q8_0", "llama", dtype="Q8_0", gguf_version=2, rope=LINEAR, n_prompt=80, **SMALL),
    Fixture("gguf-q4_0", "qwen3", dtype="Q4_0", gguf_version=3, tied=True, **SMALL),
    Fixture("gguf-q4_1", "llama", dtype="Q4_1", gguf_version=3, tied=True, n_prompt=150, **SMALL),
    Fixture("gguf-q5_0", "qwen2", dtype="Q5_0", gguf_version=3, **SMALL),
    Fixture("gguf-q5_1", "llama", dtype="Q5_1", gguf_version=3, **SMALL),
    Fixture(
        "gguf-q4_k", "llama", dtype="Q4_K", gguf_version=3, rope=LLAMA3, n_prompt=100, tied=True,
        **LARGE,
    ),
    Fixture(
        "gguf-q5_k", "qwen3", dtype="Q5_K", gguf_version=3, rope=YARN, n_prompt=100, tied=True,
        **LARGE,
    ),
    Fixture("gguf-q6_k", "qwen2", dtype="Q6_K", gguf_version=3, tied=True, **LARGE),
    Fixture(
        "gguf-mixed", "llama", dtype="Q4_0", gguf_version=3, tied=False,
        other_dtypes={
            "embed_tokens": "Q8_0", "lm_head": "F16", "v_proj": "Q5_1", "layers.0.mlp.down": "BF16",
            "layers.1.self_attn.o_proj": "Q4_1",
        },
        **SMALL,
    ),
]  # fmt: skip

ALL = SAFETENSORS + GGUF
