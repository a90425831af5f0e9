// SPDX-License-Identifier: Apache-2.0
// Reading Prometheus text and turning counters into rates.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:\\.|[^"\\])*)"/g;

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
  }
  return labels;
}

// Those samples of the text whose name is in names: [{name, labels, value}].
export function parseMetrics(text, names) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (match !== null && names.has(match[1])) {
      const value = Number(match[3]);
      if (Number.isFinite(value)) {
        samples.push({name: match[1], labels: labelsOf(match[2] ?? ""), value});
      }
    }
  }
  return samples;
}

// The sum of a metric's samples for one model (a sample without the label counts for all), and for
// one rank if it is given. null: there is none.
export function total(samples, name, model, rank = null) {
  let sum = null;
  for (const sample of samples) {
    const {model_name: of = model, rank: at = null} = sample.labels;
    if (sample.name === name && (model === null || of === model) && (rank === null || at === String(rank))) {
      sum = (sum ?? 0) + sample.value;
    }
  }
  return sum;
}

// Growth of a counter a second; null when it is not known, 0 when the counter was restarted.
export function rate(before, now, seconds) {
  if (before === null || now === null || before === undefined || !(seconds > 0)) {
    return null;
  }
  return Math.max(0, now - before) / seconds;
}
