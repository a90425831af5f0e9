# SPDX-License-Identifier: Apache-2.0
"""`lockstep tokenize` gives the ids of Hugging Face's `tokenizers`, and detokenize the text back."""
import base64
import json
import os
import random
import subprocess

import pytest
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import gguf_vocab
from corpus import Corpus

SEED = int(os.environ.get("LOCKSTEP_SEED", "20240611"))
N_TEXTS = 100_000


def dump(values):
    return [json.dumps(value, ensure_ascii=False) for value in values]


class Subject:
    """A tokenizer of ours and the reference for it."""

    def __init__(self, lockstep, path, reference, nfc):
        self.lockstep = lockstep
        self.path = path
        self.reference = reference
        self.nfc = nfc
        added = reference.get_added_tokens_decoder().values()
        self.specials = [token.content for token in added]
        vocab = reference.get_vocab()
        alphabet = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
        rest = [b for b in range(256) if b not in alphabet]
        spelling = {b: chr(b) for b in alphabet} | {b: chr(256 + i) for i, b in enumerate(rest)}
        self.missing = {b for b in range(256) if spelling[b] not in vocab}

    def run(self, command, lines, *flags):
        """One process, a JSON value a line in and out."""
        done = subprocess.run([self.lockstep, command, self.path, "--jsonl", *flags],
                              input="\n".join(lines) + "\n", stdout=subprocess.PIPE, check=True,
                              encoding="utf-8")
        out = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
        assert len(out) == len(lines)
        return out


def default_tokenizer(model):
    """What SmolLM2's tokenizer.json says, with the vocabulary of the GGUF file."""
    meta = gguf_vocab.read(model)
    tokens = [token.decode() for token in meta["tokenizer.ggml.tokens"]]
    merges = [tuple(merge.decode().split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    reference = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens(
        [AddedToken(tokens[i], special=True, normalized=False)
         for i, kind in enumerate(meta["tokenizer.ggml.token_type"]) if kind == 3])
    return reference


@pytest.fixture(scope="module", params=["qwen3", "default"])
def subject(request, lockstep):
    if request.param == "qwen3":
        path = request.getfixturevalue("shared") / "data/qwen3-tokenizer"
        return Subject(lockstep, path, Tokenizer.from_file(str(path / "tokenizer.json")), True)
    path = request.getfixturevalue("model")
    return Subject(lockstep, path, default_tokenizer(path), False)


@pytest.fixture(scope="module")
def texts(subject):
    print(f"seed {SEED}, tokenizers {tokenizers.__version__}")
    return Corpus(SEED, subject.specials).texts(N_TEXTS)


@pytest.fixture(scope="module")
def ids(subject, texts):
    return subject.run("tokenize", dump(texts))


def expected_text(subject, text):
    """What the ids stand for: the added tokens as they are, the rest normalised."""
    return subject.reference.normalizer.normalize_str(text) if subject.nfc else text


def test_ids_are_equal(subject, texts, ids):
    expected = []
    for start in range(0, len(texts), 5000):
        batch = subject.reference.encode_batch_fast(texts[start:start + 5000],
                                                    add_special_tokens=False)
        expected.extend(encoding.ids for encoding in batch)
    assert len(texts) >= N_TEXTS
    wrong = [i for i in range(len(texts)) if ids[i] != expected[i]]
    assert not wrong, (f"{len(wrong)} of {len(texts)} differ, seed {SEED}; the first: "
                       f"{texts[wrong[0]]!r} {ids[wrong[0]]} {expected[wrong[0]]}")


def test_no_special(subject, texts):
    some = [text for text in texts if any(token in text for token in subject.specials)][:3000]
    assert len(some) == 3000
    subject.reference.encode_special_tokens = True
    expected = [e.ids for e in subject.reference.encode_batch(some, add_special_tokens=False)]
    subject.reference.encode_special_tokens = False
    assert subject.run("tokenize", dump(some), "--no-special") == expected


def test_text_comes_back(subject, texts, ids):
    """decode(encode(x)) == normalise(x), less the bytes that no token expresses."""
    chosen = [i for i in range(0, len(texts), 4)
              if not any(token in texts[i] for token in subject.specials)]
    back = subject.run("detokenize", dump(ids[i] for i in chosen))
    for i, got in zip(chosen, back):
        got = got.encode() if isinstance(got, str) else base64.b64decode(got["b64"])
        want = bytes(b for b in expected_text(subject, texts[i]).encode() if b not in subject.missing)
        assert got == want, (texts[i], SEED)


def test_special_tokens_come_back(subject):
    text = "a".join(subject.specials) + " b"
    (ids,) = subject.run("tokenize", dump([text]))
    assert subject.run("detokenize", dump([ids])) == [text]


def test_any_bytes_come_back(subject):
    """Bytes that are not UTF-8 pass through; the valid runs between them are normalised."""
    rng = random.Random(SEED)
    pieces = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"a", b" ", b"\n", b"12",
              "e\u0301".encode(), "\u1100\u1161".encode(), "\U0001f600".encode(), b"\xed\xa0\x80"]
    inputs = [b"".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(3000)]
    inputs += [rng.randbytes(rng.randint(1, 40)) for _ in range(3000)]
    nfc = normalizers.NFC().normalize_str

    def want(data):
        out = data.decode("utf-8", "surrogateescape")
        parts, run_of_text = [], ""
        for c in out + "\udc80":
            if "\udc80" <= c <= "\udcff":
                parts += [nfc(run_of_text) if subject.nfc else run_of_text, c]
                run_of_text = ""
            else:
                run_of_text += c
        joined = "".join(parts[:-1]).encode("utf-8", "surrogateescape")
        return bytes(b for b in joined if b not in subject.missing)

    encoded = [json.dumps({"b64": base64.b64encode(data).decode()}) for data in inputs]
    back = subject.run("detokenize", dump(subject.run("tokenize", encoded)))
    for data, got in zip(inputs, back):
        if isinstance(got, str):
            got = got.encode()
        else:
            got = base64.b64decode(got["b64"])
            with pytest.raises(UnicodeDecodeError):
                got.decode()
        assert got == want(data), (data, SEED)


def test_the_bytes_without_a_token(subject):
    assert len(subject.missing) == (0 if subject.nfc else 21)
