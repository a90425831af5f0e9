# SPDX-License-Identifier: Apache-2.0
"""Holds a model in one of the Python engines and measures on demand; run by an environment that has the engine:
worker.py ENGINE MODEL THREADS KIND

KIND is the type that an engine computes in, bfloat16 or float32; OpenVINO's model has its own.

Standard input has a line [what, prompt tokens, generated tokens, sequences] each time, what being decode,
prefill or sequences; the answer is {"rate": tokens a second} or {"error": text}. The first line out says that
the model is loaded. An engine that generates another number of tokens than it was asked for is an error. Whatever
the engine prints itself goes to standard error."""

import json
import os
import sys
import time
import traceback

VOCABULARY = 30000
MAX_CONTEXT = 8192 + 128
VLLM_BATCH = 512  # tokens of a step, and of its warm-up, which takes minutes with its own default of 4,096


def prompts(n_sequences, n_prompt, seed):
    """Different each time, so that nothing comes from a cache."""
    return [[100 + (seed * 7919 + s * 104729 + i * 31337) % VOCABULARY for i in range(n_prompt)]
            for s in range(n_sequences)]


def check_counts(counts, n_sequences, n_tokens):
    if counts != [n_tokens] * n_sequences:
        raise RuntimeError(f"{n_tokens} tokens for each of {n_sequences} were asked for, not {counts}")


class Transformers:
    """Its models with its cache, greedily. The loop is here, so that the numbers of tokens are right."""

    def __init__(self, model, threads, kind):
        import torch
        import transformers

        self.torch = torch
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, kind))
        self.model.eval()

    def generate(self, ids, n_tokens):
        """(seconds to the first token, seconds to the last)"""
        with self.torch.inference_mode():
            start = time.monotonic()
            out = self.model(input_ids=self.torch.tensor(ids), use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1:].argmax(-1)
            first = time.monotonic() - start
            for _ in range(n_tokens - 1):
                out = self.model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1:].argmax(-1)
            return first, time.monotonic() - start


class OpenVino:
    """The pipeline as its guide has it. Its own clock tells the first token."""

    def __init__(self, model, threads, _kind):
        import numpy
        import openvino
        import openvino_genai

        self.numpy, self.openvino, self.genai = numpy, openvino, openvino_genai
        self.pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def generate(self, ids, n_tokens):
        array = self.numpy.array(ids, dtype=self.numpy.int64)
        inputs = self.genai.TokenizedInputs(self.openvino.Tensor(array),
                                            self.openvino.Tensor(self.numpy.ones_like(array)))
        config = self.genai.GenerationConfig(max_new_tokens=n_tokens, ignore_eos=True, do_sample=False)
        start = time.monotonic()
        result = self.pipe.generate(inputs, config)
        seconds = time.monotonic() - start
        check_counts([len(one) for one in result.tokens], len(ids), n_tokens)
        return result.perf_metrics.get_ttft().mean / 1e3, seconds


class Vllm:
    """The offline engine. It tells no times that are precise, so the first token is a request of its own."""

    def __init__(self, model, _threads, kind):
        import vllm

        self.vllm = vllm
        self.engine = vllm.LLM(model, dtype=kind, max_model_len=MAX_CONTEXT, max_num_batched_tokens=VLLM_BATCH,
                               enable_prefix_caching=False, disable_log_stats=True)

    def timed(self, ids, n_tokens):
        params = self.vllm.SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)
        start = time.monotonic()
        results = self.engine.generate([{"prompt_token_ids": one} for one in ids], params, use_tqdm=False)
        seconds = time.monotonic() - start
        check_counts([len(one.outputs[0].token_ids) for one in results], len(ids), n_tokens)
        return seconds

    def generate(self, ids, n_tokens):
        first = self.timed(ids, 1) if len(ids) == 1 else 0
        return first, self.timed(ids, n_tokens) if n_tokens > 1 else first


ENGINES = {"transformers": Transformers, "openvino": OpenVino, "vllm": Vllm}


def rate(engine, what, ids, n_tokens):
    first, last = engine.generate(ids, n_tokens)
    if what == "prefill":
        return len(ids[0]) / first
    if what == "decode":
        return (n_tokens - 1) / (last - first)
    return len(ids) * n_tokens / last


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    name, model, threads, kind = sys.argv[1:]
    try:
        engine = ENGINES[name](model, int(threads), kind)
        engine.generate(prompts(1, 64, 0), 4)  # what is compiled at the first use is compiled
        answer({})
        for seed, line in enumerate(sys.stdin, 1):
            what, n_prompt, n_tokens, n_sequences = json.loads(line)
            answer({"rate": rate(engine, what, prompts(n_sequences, n_prompt, seed), n_tokens)})
    except Exception as error:  # whatever the engine raises is the answer
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
        sys.exit(1)


if __name__ == "__main__":
    main()
