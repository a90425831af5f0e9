# SPDX-License-Identifier: Apache-2.0
"""Writes the checkpoint of a fixture: random tensors as a Hugging Face folder or a GGUF file.

Every number comes from a counter-based generator keyed by (seed, tensor name), so a fixture does not
change when another is added. Standard deviations are chosen so that nothing hides an error: attention
is far from uniform, norm weights are not 1, logits spread over several units.
"""

import json
import zlib

import gguf
import numpy as np
import safetensors.numpy
import torch
import transformers

import model_file

BOS, EOS = 1, 2
GGML = {name: gguf.GGMLQuantizationType[name] for name, _, _ in model_file.GGML_TYPES.values()}


def generator(seed, name):
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))


def config_of(fixture):
    n_heads, n_kv_heads, head_dim = fixture.heads
    return transformers.AutoConfig.for_model(
        fixture.arch,
        hidden_size=fixture.hidden,
        intermediate_size=fixture.intermediate,
        num_hidden_layers=fixture.n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        vocab_size=fixture.vocab,
        tie_word_embeddings=fixture.tied,
        max_position_embeddings=fixture.max_positions,
        rope_parameters=fixture.rope | {"rope_theta": fixture.theta},
        architectures=[fixture.arch.capitalize() + "ForCausalLM"],
        bos_token_id=BOS,
        eos_token_id=EOS,
        **({} if fixture.arch == "qwen2" else {"head_dim": head_dim}),
        **fixture.extra,
    )


def shapes_of(fixture):
    """Name and shape of every tensor, from the model that transformers builds."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of(fixture))
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


def random_values(seed, name, shape):
    values = generator(seed, name).standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        return 1 + values / 4
    if name.endswith(".bias"):
        return values / 3
    return values * np.float32(deviation(name, shape))


def deviation(name, shape):
    if "embed_tokens" in name:
        return 2 / shape[-1] ** 0.5
    if "lm_head" in name:
        return 3 / shape[-1] ** 0.5
    return 1.2 / shape[-1] ** 0.5


def random_records(seed, name, shape, dtype):
    """Valid K-quant records with codes and scales all over their ranges."""
    rng = generator(seed, name)
    n = int(np.prod(shape)) // 256
    std = deviation(name, shape)
    spread = rng.uniform(0.7, 1.3, (n, 1))
    codes = lambda width: rng.integers(0, 256, (n, width), dtype=np.uint8)  # noqa: E731
    half = lambda value: value.astype(np.float16).view(np.uint8)  # noqa: E731
    if dtype == "Q6_K":
        records = [codes(128), codes(64), codes(16), half(spread * std / 1370)]
    else:
        size = 40 if dtype == "Q4_K" else 20  # of one code step, in units of the deviation
        middle = 7.5 if dtype == "Q4_K" else 15.5
        scale = rng.integers(16, 64, (n, 8))
        minimum = np.clip(scale + rng.integers(-4, 5, (n, 8)), 0, 63)
        d = spread * std / (5 * size)
        packed = pack_k_scales(scale.astype(np.uint8), minimum.astype(np.uint8))
        high = [codes(32)] if dtype == "Q5_K" else []
        records = [half(d), half(middle * d), packed, *high, codes(128)]
    return np.concatenate(records, axis=1).reshape(*shape[:-1], -1)


def pack_k_scales(scale, minimum):
    """The inverse of model_file.k_scales."""
    low = (scale[:, :4] & 63) | (scale[:, 4:] >> 4 << 6)
    mid = (minimum[:, :4] & 63) | (minimum[:, 4:] >> 4 << 6)
    high = (scale[:, 4:] & 15) | (minimum[:, 4:] & 15) << 4
    return np.concatenate([low, mid, high], axis=1)


# Hugging Face folders


def old_style(config):
    """What config.json looked like before transformers 5."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "default":
        rope = None
    elif rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")  # as the oldest files say it
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    return config


def write_config(fixture, folder):
    config = config_of(fixture)
    config.dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[
        fixture.dtype
    ]
    config = json.loads(config.to_json_string(use_diff=False))
    config = {key: value for key, value in config.items() if value is not None}
    for key in ("transformers_version", "_name_or_path", "id2label", "label2id"):
        config.pop(key, None)
    if fixture.style == "old":
        config = old_style(config)
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text)


def to_torch(values, dtype):
    tensor = torch.from_numpy(values)
    return tensor.to({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype])


def write_folder(fixture, seed, folder):
    write_config(fixture, folder)
    if fixture.weights_of:
        for path in sorted((folder.parent / fixture.weights_of).glob("model*")):
            (folder / path.name).symlink_to(f"../{fixture.weights_of}/{path.name}")
        return
    tensors = {
        name: to_torch(random_values(seed, name, shape), fixture.dtype)
        for name, shape in shapes_of(fixture).items()
    }
    if fixture.n_shards == 1:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(fixture.n_shards):
        file = f"model-{i + 1:05}-of-{fixture.n_shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i :: fixture.n_shards]}
        safetensors.torch.save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    n_bytes = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": n_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


# GGUF, as llama.cpp's converter writes it


def gguf_name(name):
    for theirs, ours in model_file.GGUF_NAMES.items():
        if ours == name:
            return theirs
    part, kind = name.rsplit(".", 1)
    _, _, layer, part = part.split(".", 3)
    names = {ours: theirs for theirs, ours in model_file.GGUF_LAYER_NAMES.items()}
    return f"blk.{layer}.{names[part]}.{kind}"


def halves_to_rows(array, n_heads):
    """The row order of llama GGUFs: element i of a head's first and second half side by side."""
    halves = array.reshape(n_heads, 2, -1, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(halves, 1, 2)).reshape(array.shape)


def llama3_divisors(fixture):
    """rope_freqs.weight: what llama.cpp divides each frequency by."""
    rope, head_dim = fixture.rope, fixture.heads[2]
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    wavelengths = 2 * np.pi * fixture.theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((context / wavelengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def write_metadata(writer, fixture):
    n_heads, n_kv_heads, head_dim = fixture.heads
    writer.add_name(fixture.name)
    writer.add_block_count(fixture.n_layers)
    writer.add_context_length(fixture.max_positions)
    writer.add_embedding_length(fixture.hidden)
    writer.add_feed_forward_length(fixture.intermediate)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(fixture.theta)
    if fixture.arch != "qwen2":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if fixture.arch == "llama":
        writer.add_vocab_size(fixture.vocab)
        writer.add_rope_dimension_count(head_dim)
    if fixture.rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(fixture.rope["rope_type"]))
        writer.add_rope_scaling_factor(fixture.rope["factor"])
    if fixture.rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(fixture.rope["original_max_position_embeddings"])


def stored(fixture, seed, name, shape):
    """The tensor's stored type and bytes (or values, for the plain types) in the file's row order."""
    if len(shape) == 1:
        return "F32", random_values(seed, name, shape)
    dtype = next((d for part, d in fixture.other_dtypes.items() if part in name), fixture.dtype)
    if dtype.endswith("_K"):
        return dtype, random_records(seed, name, shape, dtype)
    return dtype, gguf.quants.quantize(random_values(seed, name, shape), GGML[dtype])


def write_gguf(fixture, seed, folder):
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, fixture.arch)
    write_metadata(writer, fixture)
    if fixture.rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(fixture))
    for name, shape in shapes_of(fixture).items():
        dtype, array = stored(fixture, seed, name, shape)
        if fixture.arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            array = halves_to_rows(array, fixture.heads[0 if ".q_proj." in name else 1])
        writer.add_tensor(gguf_name(name), array, raw_dtype=GGML[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if fixture.gguf_version == 2:  # differs from version 3 by nothing else on this byte order
        data = bytearray(path.read_bytes())
        data[4] = 2
        path.write_bytes(data)


def write(fixture, seed, folder):
    if fixture.gguf_version:
        write_gguf(fixture, seed, folder)
    else:
        write_folder(fixture, seed, folder)
