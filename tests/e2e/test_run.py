# SPDX-License-Identifier: Apache-2.0
"""The default model answers, from the file to the text."""

QUESTION = "Which city is the capital of France?"


def answer(run, model, *options):
    process = run("run", model, "-p", QUESTION, "-n", 32, "--temp", 0, *options)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_capital_of_france(run, model):
    assert "Paris" in answer(run, model)


def test_the_answer_does_not_depend_on_how_it_is_computed(run, model):
    """Threads, chunks and instruction sets change the time, not one character."""
    expected = answer(run, model)
    for options in (["--threads", 1], ["--threads", 3, "--chunk", 1], ["--chunk", 7],
                    ["--cpu-mask", "avx2"], ["--cpu-mask", "ref"]):
        assert answer(run, model, *options) == expected, options


def test_seeds_repeat(run, model):
    def sample(seed):
        process = run("run", model, "-p", "Tell me a story.", "-n", 24, "--temp", 1, "--seed", seed)
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(1, 5)}) > 1
