# SPDX-License-Identifier: Apache-2.0
"""How each engine is measured. An engine is opened for weights and threads; its sessions answer measure(what)
with tokens a second, where what is a key of SIZES. Ours and llama.cpp run a process a measurement; the Python
engines keep their model loaded in worker.py, and are stopped by signal while others are measured."""

import json
import os
import pathlib
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
REPETITIONS = 3  # of a process; its median counts
SEQUENCES = 16
# prompt and generated tokens of a sequence. Decode counts what comes after the first token, prefill until
# it, and sequences the generated tokens of all by the whole time, prompts included.
SIZES = {"decode": (32, 64), "prefill": (512, 1), "sequences": (16, 64),
         "decode 8k": (8192, 32), "prefill 8k": (8192, 1)}
QUICK_SIZES = {"decode": (8, 8), "prefill": (64, 1), "sequences": (4, 8), "decode 8k": (256, 4),
               "prefill 8k": (256, 1)}
READY_S = 300
IDLE_S = 2  # of a server that is ready, before it is measured
MEASURE_S = 1800


def be_quick():
    """To see whether everything works, not to measure."""
    global REPETITIONS
    REPETITIONS = 1
    SIZES.update(QUICK_SIZES)


class Failed(Exception):
    """A measurement did not work; the text says why."""


def output(command, **more):
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", errors="replace", timeout=MEASURE_S, check=False, **more)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from None
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise Failed(f"{pathlib.Path(command[0]).name} has failed: {words}")
    return done.stdout


def parsed(text):
    """JSON of a program."""
    try:
        return json.loads(text)
    except ValueError:
        raise Failed(f"no JSON: {text[:100]!r}") from None


def llama_rate(text):
    """llama-bench -o json: the median of the repetitions of its one test."""
    tests = parsed(text)
    if not isinstance(tests, list) or len(tests) != 1 or not tests[0].get("samples_ts"):
        raise Failed("llama-bench gave no samples")
    return statistics.median(tests[0]["samples_ts"])


def batched_rate(text):
    """llama-batched-bench in JSON lines: generated tokens by the whole time of its one line."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    row = parsed(lines[0] if len(lines) == 1 else "")
    return row["pl"] * row["tg"] / row["t"]


class LlamaCpp:
    """Its own benchmarks, with its own defaults."""

    name = "llama.cpp"

    def __init__(self, folder, model, threads):
        self.folder, self.model, self.threads = folder, model, threads

    def measure(self, what):
        n_prompt, n_tokens = SIZES[what]
        common = ["-m", self.model, "-t", self.threads]
        if what == "sequences":
            return batched_rate(output([self.folder / "llama-batched-bench", *common, "-c",
                                        SEQUENCES * (n_prompt + n_tokens), "-npp", n_prompt, "-ntg", n_tokens,
                                        "-npl", SEQUENCES, "--output-format", "jsonl"]))
        test = ["-p", 0, "-n", n_tokens, "-d", n_prompt]
        if what.startswith("prefill"):
            test = ["-p", n_prompt, "-n", 0]
        # at 8k the warm-up would compute the whole prompt a second time, for minutes
        repeat = ["-r", 1, "--no-warmup"] if "8k" in what else ["-r", REPETITIONS]
        return llama_rate(output([self.folder / "llama-bench", *common, *test, *repeat, "-o", "json"]))

    def first_token(self):
        return first_output_s([self.folder / "llama-completion", "-m", self.model, "-t", self.threads, "-p",
                               "Once upon a time", "-n", 1, "--temp", 0, "-no-cnv", "--no-display-prompt"])

    def close(self):
        pass


class Lockstep:
    """lockstep bench, and the daemon under bench_serve for many sequences. yardsticks collects what the runs
    say of the machine: read rates, rates of multiply-adds (of f32 and of BF16) and of 8-bit products, and what share
    decode had of the first, and prefill of the one that it is made of."""

    name = "lockstep"

    def __init__(self, build, model, threads, options=()):
        self.build, self.model, self.threads, self.options = build, model, threads, list(options)
        self.yardsticks = {"read": [], "fma": [], "bf16": [], "int8": [], "decode": [], "prefill": []}

    def command(self, verb):
        return [self.build / "lockstep", verb, self.model, "--tp", 1, "--threads", self.threads, *self.options]

    def measure(self, what):
        if what == "sequences":
            return self.measure_sequences()
        n_prompt, n_tokens = SIZES[what]
        repetitions = 1 if "8k" in what else REPETITIONS
        result = parsed(output([*self.command("bench"), "-p", n_prompt, "-n", n_tokens, "--reps", repetitions,
                                "--json"]))
        self.yardsticks["read"].append(result["read_bytes_per_s"])
        self.yardsticks["fma"].append(result["fma_flops_per_s"])
        self.yardsticks["bf16"].append(result["bf16_flops_per_s"])
        self.yardsticks["int8"].append(result["int8_ops_per_s"])
        if what == "decode":
            self.yardsticks["decode"].append(result["decode"]["weight_bytes_per_s"] / result["read_bytes_per_s"])
        if what == "prefill":
            act = result["arithmetic_class"].partition(" act ")[2].partition(" ")[0]
            peak = {"int8": "int8_ops_per_s", "bf16": "bf16_flops_per_s"}.get(act, "fma_flops_per_s")
            self.yardsticks["prefill"].append(result["prefill"]["flops_per_s"] / result[peak])
        return result[what.split()[0]]["tokens_per_s"]

    def measure_sequences(self):
        n_prompt, n_tokens = SIZES["sequences"]
        with Server(self.command("serve") + ["--port", 0, "--max-running", SEQUENCES, "--ctx", 1024]) as server:
            time.sleep(IDLE_S)  # the other engines' processes have long been ready, too
            result = parsed(output([self.build / "bench/bench_serve", "--url", server.url, "--json", "--streams",
                                    SEQUENCES, "--tokens", n_tokens, "--prompt-tokens", n_prompt, "--requests", 1,
                                    "--vocab", 30000]))
        level = result["levels"][0]
        if level["errors"]:
            raise Failed(f"{level['errors']} requests to lockstep serve have failed")
        return level["tokens_per_s"]

    def first_token(self):
        return first_output_s([*self.command("run"), "--raw", "-p", "Once upon a time", "-n", 1, "--temp", 0])

    def close(self):
        pass


class Server:
    """lockstep serve with its model loaded."""

    def __init__(self, command):
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log,
                                        encoding="utf-8")
        found = re.search(r"http://\S+:\d+", self.process.stdout.readline())
        self.url = found.group(0) if found else None

    def __enter__(self):
        end = time.monotonic() + READY_S
        while self.url and time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    if json.load(answer)["state"] == "ready":
                        return self
            except (urllib.error.URLError, OSError, ValueError, KeyError):
                pass  # 503 while it loads
            time.sleep(0.05)
        self.__exit__()
        raise Failed(f"lockstep serve did not become ready: {self.words}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.seek(0)
        self.words = (self.log.read().strip().splitlines() or ["no output"])[-1]
        self.log.close()


def first_output_s(command):
    """Seconds from the start of a process to its first byte on standard output."""
    start = time.monotonic()
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        first = process.stdout.read(1)
        seconds = time.monotonic() - start
        process.stdout.read()
    if not first or process.returncode != 0:
        raise Failed(f"{pathlib.Path(command[0]).name} wrote no token")
    return seconds


def environment(folder, threads):
    """For a Python engine: its number of threads, nothing from the network, and what it compiles in its folder.
    vLLM's guide has Intel's OpenMP preloaded."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    more = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores,
            "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "VLLM_CACHE_ROOT": str(folder / "compiled"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled/inductor")}
    openmp = folder / "venv/lib/libiomp5.so"
    if openmp.exists():
        more["LD_PRELOAD"] = str(openmp)
    return {**os.environ, **more}


# A process beside each worker: where we end without a word its input does, and it ends the worker's processes,
# which would hold their memory for ever while they are stopped.
GUARD = """import os, signal, sys
sys.stdin.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


class Worker:
    """A Python engine in its own environment: a request and an answer are a line of JSON each."""

    def __init__(self, name, folder, model, threads, kind):
        self.name = f"{name} {kind}".strip()
        self.folder = folder
        self.log = open(folder / "worker.log", "w", encoding="utf-8")
        self.process = subprocess.Popen([str(folder / "venv/bin/python"), str(HERE / "worker.py"), name, str(model),
                                         str(threads), kind],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        encoding="utf-8", env=environment(folder, threads), start_new_session=True)
        self.guard = subprocess.Popen([sys.executable, "-c", GUARD, str(self.process.pid)], stdin=subprocess.PIPE,
                                      start_new_session=True)
        self.answer()  # loaded
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        """To the engine with all processes it has started."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def answer(self):
        """Its next line, which is one for each request: what select() sees is the whole of it or the end."""
        try:
            if not select.select([self.process.stdout], [], [], MEASURE_S)[0]:
                raise Failed(f"no answer in {MEASURE_S} s")
            line = self.process.stdout.readline()
            result = parsed(line) if line else {"error": self.end()}
            if "error" in result:
                raise Failed(f"{result['error']} (its log: {self.folder / 'worker.log'})")
        except Failed as error:
            self.close()
            raise Failed(f"{self.name}: {error}") from None
        return result.get("rate")

    def end(self):
        """How it ended without a word."""
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "it has closed its output"
        if status == -signal.SIGILL:
            return "killed by SIGILL: its package was built for instructions that this CPU lacks"
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"

    def measure(self, what):
        n_prompt, n_tokens = SIZES[what]
        self.signal(signal.SIGCONT)
        n_sequences = SEQUENCES if what == "sequences" else 1
        try:
            self.process.stdin.write(json.dumps([what.split()[0], n_prompt, n_tokens, n_sequences]) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Failed(f"{self.name}: it has ended") from None
        rate = self.answer()
        self.signal(signal.SIGSTOP)
        return rate

    def close(self):
        self.guard.kill()
        self.guard.wait()
        self.guard.stdin.close()
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()
