# SPDX-License-Identifier: Apache-2.0
"""Small made-up tokenizers: every component and flag that we accept gives the ids of `tokenizers`."""
import json
import random
import subprocess

import pytest
from tokenizers import Tokenizer

SEED = 7
ALPHABET = [*range(33, 127), *range(161, 173), *range(174, 256)]
SPELLING = {b: chr(b) for b in ALPHABET}
SPELLING |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in SPELLING)}
PATTERNS = [r"\p{L}+", r"\s", r"[^\s\p{L}\p{N}]+", r"\p{N}{1,3}", r"\w+", r"\W", r"[\w']+", r"a*",
            r"(?i:'s|'ll)", r"\s+(?!\S)|\s+", r"^a|b$", r".+", r"(?<=a)b", r"\d", r"[\u0061-c]",
            r"\p{Han}+|\P{Lu}", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\/|\-", r"x??b", r"(a|ab)(c|bcd)?",
            "[\u4e00-\u9fa5]+", r"[\p{^L}]", r"a++|[^\S\n]"]
BEHAVIORS = ["Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"]
PIECES = ["a", "b", "ab", "abc", "AB", " ", "  ", "\n", "\t", "1", "234", "\u00b2", "'s", "'LL", "-", "/",
          "\u4e2d", "\u6587\u5b57", "e\u0301", "\u00e9", "\u0301", "\U0001f600", "\u2003", "<x>", "<y>",
          "<xx", "[Z]", "[z]", "zz", "_", "\u200d", "\u0904", "caf\u00e9", "cafe\u0301", "\u24b6", "\r\n"]


def spell(text):
    return "".join(SPELLING[b] for b in text.encode())


def model(rng):
    tokens = [SPELLING[b] for b in range(256)]
    if rng.random() < 0.3:
        tokens = [t for t in tokens if rng.random() < 0.9]
    merges = []
    for _ in range(40):
        pair = [rng.choice(tokens), rng.choice(tokens)]
        if rng.random() < 0.7:  # one that the texts have
            word = spell(rng.choice(PIECES) + rng.choice(PIECES))
            cut = rng.randint(1, len(word) - 1)
            pair = [word[:cut][-rng.randint(1, 3):], word[cut:][:rng.randint(1, 3)]]
        if pair[0] in tokens and pair[1] in tokens:
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
            merges.append(pair)
    for word in ("abc", "zz", " ab"):  # for ignore_merges: tokens that no merge makes
        if spell(word) not in tokens:
            tokens.append(spell(word))
    out = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": rng.random() < 0.5, "byte_fallback": False,
           "ignore_merges": rng.random() < 0.5}
    if rng.random() < 0.3:
        tokens.append("<unk>")
        out["unk_token"] = "<unk>"
    rng.shuffle(tokens)
    out["vocab"] = {token: i for i, token in enumerate(tokens)}
    out["merges"] = [" ".join(m) for m in merges] if rng.random() < 0.5 else merges
    return out


def split(rng):
    pattern = {"Regex": rng.choice(PATTERNS)}
    if rng.random() < 0.2:
        pattern = {"String": rng.choice([" ", "a", "<x>", ".", "\n", "[z]"])}
    return {"type": "Split", "pattern": pattern, "behavior": rng.choice(BEHAVIORS),
            "invert": rng.random() < 0.3}


def pre_tokenizer(rng):
    steps = []
    for _ in range(rng.randint(0, 3)):
        steps.append(split(rng) if rng.random() < 0.8 else
                     {"type": "Digits", "individual_digits": rng.random() < 0.5})
    steps.append({"type": "ByteLevel", "add_prefix_space": rng.random() < 0.3, "trim_offsets": True,
                  "use_regex": rng.random() < 0.5})
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def added_tokens(rng, vocab):
    out = []
    next_id = len(vocab)
    for content in rng.sample(["<x>", "<y>", "<x><y>", "[Z]", "zz", "cafe\u0301", " ", "  <y>", "a",
                               "<xx", "\u00e9", "-"], rng.randint(0, 6)):
        token_id = vocab.get(content, next_id)
        next_id += token_id == next_id
        out.append({"id": token_id, "content": content,
                    **{flag: rng.random() < 0.3
                       for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}})
    return out


def tokenizer_json(rng):
    bpe = model(rng)
    normalizer = rng.choice([None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []},
                             {"type": "Sequence", "normalizers": [{"type": "NFC"}]}])
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added_tokens(rng, bpe["vocab"]), "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer(rng),
            "post_processor": rng.choice([None, {"type": "ByteLevel", "add_prefix_space": True,
                                                 "trim_offsets": False, "use_regex": True}]),
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": bpe}


@pytest.mark.parametrize("seed", range(SEED, SEED + 150))
def test_components(lockstep, tmp_path, seed):
    rng = random.Random(seed)
    spec = tokenizer_json(rng)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    reference = Tokenizer.from_file(str(path))
    texts = ["".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(60)]
    for special in (True, False):
        reference.encode_special_tokens = not special
        done = subprocess.run([lockstep, "tokenize", path, "--jsonl"] + ["--no-special"] * (not special),
                              input="".join(json.dumps(text) + "\n" for text in texts),
                              capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == len(texts)
        for text, line in zip(texts, lines):
            try:
                expected = reference.encode(text, add_special_tokens=False).ids
            except BaseException as panic:  # a token inside white space that another one stripped
                assert "bad split" in str(panic)
                continue
            assert json.loads(line) == expected, (text, spec["pre_tokenizer"], spec["added_tokens"],
                                                  spec["normalizer"])
