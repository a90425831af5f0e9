// SPDX-License-Identifier: Apache-2.0
// Small charts over the last minute, newest at the right, drawn as one SVG path a series. All charts
// have the same time axis, so that what happened at once stands one above the other.

import {svg} from "./dom.js";

export const SPAN = 60; // samples, one a second

// A list of samples (numbers, or null where nothing is known) that forgets what is older than SPAN.
export class Series {
  values = [];

  push(value) {
    this.values.push(value);
    if (this.values.length > SPAN) {
      this.values.shift();
    }
  }

  get last() {
    return this.values.at(-1) ?? null;
  }

  // The place on the axis of sample i.
  place(i) {
    return SPAN - this.values.length + i;
  }
}

function number(x) {
  return Number(x.toFixed(2));
}

function barsPath(series, below, height, top) {
  let path = "";
  series.values.forEach((value, i) => {
    const base = below === null ? 0 : below.values[i] ?? 0;
    if (value !== null && value > 0 && top > 0) {
      const from = Math.min(1, base / top) * height;
      const to = Math.min(1, (base + value) / top) * height;
      path += `M${series.place(i) + 0.12} ${number(height - to)}h.76V${number(height - from)}h-.76z`;
    }
  });
  return path;
}

// Columns of one or more series stacked on each other, from the first upwards; marks: a Series with
// true where a thin line crosses the chart.
export class BarChart {
  #height;
  #paths;
  #marks;

  constructor(height, names, label) {
    this.#height = height;
    this.#paths = names.map((name) => svg("path", {class: `series ${name}`}));
    this.#marks = svg("path", {class: "marks"});
    this.root = svg("svg", {class: "chart", viewBox: `0 0 ${SPAN} ${height}`, preserveAspectRatio: "none",
      role: "img", "aria-label": label}, ...this.#paths, this.#marks);
  }

  draw(series, top, marks = null) {
    series.forEach((one, i) => {
      this.#paths[i].setAttribute("d", barsPath(one, i === 0 ? null : series[i - 1], this.#height, top));
    });
    let path = "";
    marks?.values.forEach((mark, i) => {
      path += mark ? `M${marks.place(i) + 0.5} 0V${this.#height}` : "";
    });
    this.#marks.setAttribute("d", path);
  }

  label(text) {
    this.root.setAttribute("aria-label", text);
  }
}

// Parts of a whole in one bar.
export class ShareBar {
  #parts;

  constructor(names, label) {
    this.#parts = names.map((name) => svg("rect", {class: `series ${name}`, y: 0, height: 1}));
    this.root = svg("svg", {class: "share", viewBox: "0 0 100 1", preserveAspectRatio: "none",
      role: "img", "aria-label": label}, ...this.#parts);
  }

  draw(values, label) {
    const sum = values.reduce((a, b) => a + b, 0);
    let at = 0;
    values.forEach((value, i) => {
      const width = sum > 0 ? value / sum * 100 : 0;
      this.#parts[i].setAttribute("x", number(at));
      this.#parts[i].setAttribute("width", number(width));
      at += width;
    });
    this.root.setAttribute("aria-label", label);
  }
}
