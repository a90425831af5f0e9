// SPDX-License-Identifier: Apache-2.0
// Markdown blocks: headings, paragraphs, lists, quotes, tables, fenced code, rules. A text is cut into
// blocks with their source; a growing text keeps the nodes of the blocks that did not change, so that
// streaming costs what is new and a selection in finished text stays.

import {copyText, el} from "./dom.js";
import {inline} from "./inline.js";

const MAX_DEPTH = 8; // of lists and quotes in each other
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const DELIMITER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

// --- Cutting ---

function fenceEnd(lines, at) {
  const [, , mark] = FENCE.exec(lines[at]);
  for (let i = at + 1; i < lines.length; i++) {
    const line = lines[i].trim();
    if (line.length >= mark.length && line === mark[0].repeat(line.length)) {
      return i + 1;
    }
  }
  return lines.length; // not closed yet: it is code all the same
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") &&
    DELIMITER.test(lines[at + 1]) && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function indentOf(line) {
  return /^\s*/.exec(line)[0].replace(/\t/g, "    ").length;
}

function listEnd(lines, at) {
  const base = indentOf(lines[at]);
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  let i = at + 1;
  for (; i < lines.length; i++) {
    const line = lines[i];
    if (line.trim() === "") {
      const next = lines[i + 1];
      if (next === undefined || next.trim() === "") {
        break;
      }
      const item = ITEM.exec(next);
      if (indentOf(next) <= base && (item === null || /\d/.test(item[2]) !== ordered)) {
        break;
      }
      continue;
    }
    if (indentOf(line) <= base) {
      const item = ITEM.exec(line);
      if (item !== null ? /\d/.test(item[2]) !== ordered || RULE.test(line)
        : HEADING.test(line) || FENCE.test(line) || QUOTE.test(line) || RULE.test(line)) {
        break;
      }
    } else if (FENCE.test(line.trimStart())) {
      i = fenceEnd(lines.map((text) => text.trimStart()), i) - 1;
    }
  }
  return i;
}

function startsBlock(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    ITEM.test(line) || isTable(lines, at);
}

function blockAt(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) {
    return ["code", fenceEnd(lines, at)];
  }
  if (HEADING.test(line)) {
    return ["heading", at + 1];
  }
  if (RULE.test(line)) {
    return ["rule", at + 1];
  }
  let end = at + 1;
  if (QUOTE.test(line)) {
    while (end < lines.length && lines[end].trim() !== "" && (QUOTE.test(lines[end]) || !startsBlock(lines, end))) {
      end++;
    }
    return ["quote", end];
  }
  if (ITEM.test(line)) {
    return ["list", listEnd(lines, at)];
  }
  if (isTable(lines, at)) {
    end = at + 2;
    while (end < lines.length && lines[end].includes("|") && lines[end].trim() !== "") {
      end++;
    }
    return ["table", end];
  }
  while (end < lines.length && lines[end].trim() !== "" && !startsBlock(lines, end)) {
    end++;
  }
  return ["paragraph", end];
}

// [{kind, source}] of text.
export function blocksOf(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at++;
      continue;
    }
    const [kind, end] = blockAt(lines, at);
    blocks.push({kind, source: lines.slice(at, end).join("\n")});
    at = end;
  }
  return blocks;
}

// --- Nodes ---

function cells(line) {
  const trimmed = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return trimmed.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

function table(source) {
  const [head, delimiter, ...rows] = source.split("\n");
  const sides = cells(delimiter).map((cell) => (/^:-+:$/.test(cell) ? "center" : /:$/.test(cell) ? "end" : "start"));
  const row = (line, tag) => {
    const texts = cells(line);
    return el("tr", {}, ...sides.map((side, i) => el(tag, {"data-align": side}, ...inline(texts[i] ?? ""))));
  };
  return el("div", {class: "wide", tabindex: 0, role: "region", "aria-label": "Table"},
    el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, ...rows.map((line) => row(line, "td")))));
}

export function codeBlock(text, language) {
  const button = el("button", {type: "button", class: "copy", "aria-label": "Copy code"}, "Copy");
  button.addEventListener("click", () => copyText(text, button));
  return el("figure", {class: "code"},
    el("figcaption", {}, el("span", {}, language || "text"), button),
    el("pre", {tabindex: 0, role: "region", "aria-label": `Code, ${language || "text"}`}, el("code", {}, text)));
}

function code(source) {
  const lines = source.split("\n");
  const [, indent, mark, info] = FENCE.exec(lines[0]);
  const last = lines[lines.length - 1].trim();
  const closed = lines.length > 1 && last.length >= mark.length && last === mark[0].repeat(last.length);
  const body = lines.slice(1, closed ? -1 : undefined);
  const strip = new RegExp(`^ {0,${indent.length}}`);
  return codeBlock(body.map((line) => line.replace(strip, "")).join("\n"), info.trim().split(/\s+/)[0]);
}

// The items of a list: [{lines, loose}] with their indentation taken off.
function itemsOf(lines) {
  const base = indentOf(lines[0]);
  const items = [];
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (match !== null && indentOf(line) <= base && !(items.length > 0 && RULE.test(line))) {
      items.push({mark: match[2], width: line.length - match[3].length, lines: [match[3]]});
    } else {
      const item = items[items.length - 1];
      item.lines.push(line.replace(new RegExp(`^\\s{0,${Math.max(2, Math.min(item.width, indentOf(line)))}}`), ""));
    }
  }
  return items;
}

function list(source, depth) {
  const items = itemsOf(source.split("\n"));
  const ordered = /\d/.test(items[0].mark);
  const start = ordered ? Number.parseInt(items[0].mark, 10) : 1;
  return el(ordered ? "ol" : "ul", {start: ordered && start !== 1 ? start : null}, ...items.map((item) => {
    const text = item.lines.join("\n");
    const loose = /\n\s*\n/.test(text.trimEnd());
    const task = /^\[([ xX])\]\s+/.exec(text);
    const children = nodesOf(task === null ? text : text.slice(task[0].length), depth + 1, !loose);
    const box = task === null ? null : el("span", {class: "task", role: "img", "aria-label": task[1] === " " ? "to do" : "done"},
      task[1] === " " ? "\u2610 " : "\u2611 ");
    return el("li", {}, box, ...children);
  }));
}

// tight: a paragraph is its text alone, as in the items of a list without empty lines.
function nodeOf({kind, source}, depth, tight) {
  switch (kind) {
    case "code":
      return [code(source)];
    case "heading": {
      const [, marks, text] = HEADING.exec(source);
      // The page has its own h1, and each message's heading is h2.
      return [el(`h${Math.min(6, marks.length + 2)}`, {"data-level": marks.length}, ...inline(text.trimEnd().replace(/[ \t]#+$/, "").trim()))];
    }
    case "rule":
      return [el("hr")];
    case "quote": {
      const inner = source.split("\n").map((line) => line.replace(QUOTE, "")).join("\n");
      return [el("blockquote", {}, ...nodesOf(inner, depth + 1, false))];
    }
    case "list":
      return [list(source, depth)];
    case "table":
      return [table(source)];
    default: {
      const nodes = inline(source.split("\n").map((line) => line.trim()).join("\n"));
      return tight ? nodes : [el("p", {}, ...nodes)];
    }
  }
}

function nodesOf(text, depth, tight) {
  if (depth > MAX_DEPTH) {
    return [text];
  }
  return blocksOf(text).flatMap((block) => nodeOf(block, depth, tight));
}

// A place that shows a text which may grow.
export class MarkdownView {
  #root;
  #shown = []; // [{kind, source, node}]

  constructor(root) {
    this.#root = root;
  }

  show(text) {
    const blocks = blocksOf(text);
    let same = 0;
    while (same < blocks.length && same < this.#shown.length &&
        blocks[same].source === this.#shown[same].source && blocks[same].kind === this.#shown[same].kind) {
      same++;
    }
    for (const old of this.#shown.splice(same)) {
      old.node.remove();
    }
    for (const block of blocks.slice(same)) {
      const [node] = nodeOf(block, 0, false);
      this.#root.append(node);
      this.#shown.push({...block, node});
    }
  }
}
