// SPDX-License-Identifier: Apache-2.0
// Markdown within a line: code, emphasis, links. The result is DOM nodes; text from a model never
// becomes markup, and no image is fetched: an image's description is shown as a link.

import {el} from "./dom.js";

const MAX_DEPTH = 12; // of emphasis within emphasis; deeper is plain text
const MAX_TRIES = 300; // marks that close nothing cost a search each; beyond, marks are plain text
const MAX_SPAN = 3000; // characters that are emphasised at once
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const URL_TEXT = /^https?:\/\/[^\s<>"'`]+/;
const LINK = /^!?\[((?:\\.|[^\[\]\\]|\[[^\[\]]*\])*)\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/;
const STYLES = [["***", "strong", "em"], ["___", "strong", "em"], ["**", "strong"], ["__", "strong"],
  ["~~", "s"], ["*", "em"], ["_", "em"]];

// The address if it may be followed, else null. Control characters within it hide its scheme.
export function safeUrl(text) {
  const address = text.replace(/[\u0000-\u0020\u007f]/g, "");
  try {
    const url = new URL(address);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function anchor(url, children) {
  return el("a", {href: url, rel: "noopener noreferrer nofollow", target: "_blank"}, ...children);
}

function isWord(c) {
  return c !== undefined && /[\p{L}\p{N}]/u.test(c);
}

function isSpace(c) {
  return c === undefined || /\s/.test(c);
}

// Each takes text and a place and returns [nodes, end], or null if it is not there.

function codeSpan(text, at) {
  const ticks = /^`+/.exec(text.slice(at))[0];
  let end = at + ticks.length;
  for (;;) {
    end = text.indexOf(ticks, end);
    if (end < 0) {
      return null;
    }
    const run = /^`+/.exec(text.slice(end))[0].length;
    if (run === ticks.length) {
      break;
    }
    end += run;
  }
  let inner = text.slice(at + ticks.length, end).replace(/\n/g, " ");
  if (/^ .*[^ ].* $/.test(inner)) {
    inner = inner.slice(1, -1);
  }
  return [[el("code", {}, inner)], end + ticks.length];
}

function link(text, at, depth) {
  const match = LINK.exec(text.slice(at));
  if (match === null) {
    return null;
  }
  const url = safeUrl(match[2]);
  const children = inline(match[1] === "" ? match[2] : match[1], depth + 1, false);
  return [url === null ? children : [anchor(url, children)], at + match[0].length];
}

function bareUrl(text, at) {
  const match = URL_TEXT.exec(text.slice(at));
  if (match === null || isWord(text[at - 1])) {
    return null;
  }
  let word = match[0].replace(/[.,;:!?*_~]+$/, "");
  while (word.endsWith(")") && word.split(")").length > word.split("(").length) {
    word = word.slice(0, -1);
  }
  const url = safeUrl(word);
  return url === null ? null : [[anchor(url, [word])], at + word.length];
}

// The end of emphasis opened by mark at a place, or -1. An underscore within a word is no mark.
function closing(text, at, mark) {
  const from = at + mark.length;
  const under = mark[0] === "_";
  if (isSpace(text[from]) || (under && isWord(text[at - 1]))) {
    return -1;
  }
  const stop = Math.min(text.length, from + MAX_SPAN);
  for (let end = from + 1; end < stop; end++) {
    if (text[end] === "\\") {
      end++;
    } else if (text[end] === "`") {
      const span = codeSpan(text, end);
      end = span === null ? end : span[1] - 1;
    } else if (text.startsWith(mark, end) && !isSpace(text[end - 1])) {
      const after = text[end + mark.length];
      const longer = mark.length === 1 && (after === mark || text[end - 1] === mark);
      if (!longer && !(under && isWord(after))) {
        return end;
      }
      if (longer) { // a double mark belongs to what is within
        end += after === mark ? 1 : 0;
      }
    }
  }
  return -1;
}

function emphasis(text, at, depth, links) {
  for (const [mark, ...tags] of STYLES) {
    if (!text.startsWith(mark, at)) {
      continue;
    }
    const end = closing(text, at, mark);
    if (end > 0) {
      const inner = inline(text.slice(at + mark.length, end), depth + 1, links);
      const node = tags.reduceRight((nodes, tag) => [el(tag, {}, ...nodes)], inner);
      return [node, end + mark.length];
    }
  }
  return null;
}

function special(text, at, depth, links) {
  const c = text[at];
  if (c === "`") {
    return codeSpan(text, at);
  }
  if (links && (c === "[" || (c === "!" && text[at + 1] === "["))) {
    return link(text, at, depth);
  }
  if (links && c === "h") {
    return bareUrl(text, at);
  }
  if (links && c === "<") {
    const match = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/.exec(text.slice(at));
    const url = match === null ? null : safeUrl(match[1]);
    return url === null ? null : [[anchor(url, [match[1]])], at + match[0].length];
  }
  if (c === "*" || c === "_" || c === "~") {
    return emphasis(text, at, depth, links);
  }
  if (c === "\n") {
    return [[el("br")], at + 1];
  }
  return null;
}

// The nodes of text; links: whether there may be any (not within another).
export function inline(text, depth = 0, links = true) {
  const nodes = [];
  let plain = "";
  let at = 0;
  let tries = 0;

  while (at < text.length) {
    const c = text[at];
    if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const marked = depth < MAX_DEPTH && "`[!h<*_~\n".includes(c) && tries < MAX_TRIES;
    const found = marked ? special(text, at, depth, links) : null;
    if (found === null) {
      tries += marked && c !== "h" && c !== "!" ? 1 : 0;
      // A run of marks that opened nothing opens nothing further on.
      const run = marked && /[`*_~]/.test(c) ? /^(.)\1*/.exec(text.slice(at, at + 64))[0] : c;
      plain += run;
      at += run.length;
      continue;
    }
    if (plain !== "") {
      nodes.push(plain);
      plain = "";
    }
    nodes.push(...found[0]);
    at = found[1];
  }
  if (plain !== "") {
    nodes.push(plain);
  }
  return nodes;
}
