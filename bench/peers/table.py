# SPDX-License-Identifier: Apache-2.0
"""The results as one markdown table. Pure: figures in, text out."""

import statistics

# shared/docs/cpu-perf.md, section 8: decode and prefill at 2 threads of both on one machine. Where it is not
# installed, ik_llama.cpp is llama.cpp of this run times their ratio there, the same for one thread.
REFERENCE = {"bf16": {"decode": (16.2, 15.8), "prefill": (129, 140)},
             "8bit": {"decode": (25.6, 21.6), "prefill": (175, 132)},
             "4bit": {"decode": (44.8, 29.4), "prefill": (225, 191)}}
ESTIMATE = "ik_llama.cpp (estimate)"
OURS = "lockstep"


def medians(samples):
    """samples: {(weights, engine, threads, what): [tokens/s, ...]}."""
    return {key: statistics.median(values) for key, values in samples.items() if values}


def with_estimates(figures):
    """figures and those of ik_llama.cpp that follow from llama.cpp's."""
    more = dict(figures)
    for (weights, engine, threads, what), rate in figures.items():
        reference = REFERENCE.get(weights, {}).get(what)
        if engine.split(" ")[0] == "llama.cpp" and reference:
            more[weights, ESTIMATE, threads, what] = rate * reference[0] / reference[1]
    return more


def engines_of(figures, weights):
    """In the order in which they came, ours first."""
    names = dict.fromkeys(engine for w, engine, _, _ in figures if w == weights)
    return sorted(names, key=lambda name: not name.startswith(OURS))


def best(figures, weights, column, ours):
    """(rate, engine) of the fastest of ours or of the others; None without any."""
    found = [(rate, engine) for (w, engine, threads, what), rate in figures.items()
             if w == weights and (threads, what) == column and engine.startswith(OURS) == ours]
    return max(found, default=None)


def ratio_cell(figures, weights, column):
    our, other = best(figures, weights, column, True), best(figures, weights, column, False)
    if our is None or other is None:
        return "-"
    return f"**{our[0] / other[0]:.2f}** ({other[1].split(' ')[0]})"


def number(rate):
    if rate is None:
        return "-"
    return f"{rate:.2f}" if rate < 10 else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def table(figures):
    """Rows of weights and engines, columns of threads and measurements, and after each kind of weights our best
    against the best of the others, which is named."""
    figures = with_estimates(figures)
    columns = list(dict.fromkeys((threads, what) for _, _, threads, what in figures))
    head = ["weights", "engine"] + [f"{what}, {threads} thr." for threads, what in columns]
    lines = [head, ["---"] * 2 + ["---:"] * len(columns)]
    for weights in dict.fromkeys(w for w, _, _, _ in figures):
        for engine in engines_of(figures, weights):
            lines.append([weights, engine] + [number(figures.get((weights, engine, *c))) for c in columns])
        lines.append([weights, "ratio to the best other"] + [ratio_cell(figures, weights, c) for c in columns])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values, unit):
    """median (least to greatest)"""
    scaled = [value / unit for value in values]
    return f"{statistics.median(scaled):.1f} ({min(scaled):.1f} to {max(scaled):.1f})" if scaled else "not measured"
