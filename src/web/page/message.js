// SPDX-License-Identifier: Apache-2.0
// How one message of the conversation looks.

import {copyText, el, setText} from "./dom.js";
import {MarkdownView, codeBlock} from "./markdown.js";

const REASONS = {length: "cut at max tokens", tool_calls: "calls a tool", content_filter: "filtered"};

function count(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

// "128 tokens · 41.2 tokens/s · first after 0.21 s · 312 in the prompt, 256 of them cached"
export function statsText(answer) {
  const {usage, firstMs, totalMs, pieces} = answer;
  const parts = [];
  const n = usage?.completion_tokens ?? pieces ?? 0;
  if (n > 0) {
    parts.push(usage ? count(n, "token") : `about ${count(n, "token")}`);
  }
  if (n > 1 && totalMs > firstMs) {
    parts.push(`${((n - 1) * 1000 / (totalMs - firstMs)).toFixed(1)} tokens/s`);
  }
  if (firstMs !== undefined) {
    parts.push(`first after ${(firstMs / 1000).toFixed(2)} s`);
  }
  if (usage?.prompt_tokens !== undefined) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`${usage.prompt_tokens.toLocaleString("en")} in the prompt` +
      (cached > 0 ? `, ${cached.toLocaleString("en")} of them cached` : ""));
  }
  if (answer.stopped) {
    parts.push("stopped");
  } else if (REASONS[answer.finish]) {
    parts.push(REASONS[answer.finish]);
  }
  return parts.join(" \u00b7 ");
}

function errorText(error) {
  const about = [error.status > 0 ? String(error.status) : null, error.code, error.param].filter(Boolean);
  return about.length > 0 ? ` (${about.join(", ")})` : "";
}

// Tool arguments are JSON in a string that may still be growing.
function prettyArguments(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export class UserMessage {
  constructor(message, actions) {
    this.message = message;
    this.edit = el("button", {type: "button", class: "link", on: {click: actions.edit}}, "Edit");
    this.foot = el("footer", {}, this.edit);
    this.root = el("article", {class: "message user", "aria-label": "You"},
      el("div", {class: "said"}, message.content), this.foot);
  }

  setLast(last) {
    this.foot.hidden = !last;
  }
}

export class AnswerMessage {
  #text;
  #thought;
  #frame = 0;
  #tools = [];

  constructor(message, actions) {
    this.message = message;
    this.thinking = el("summary", {}, "Reasoning");
    this.thoughts = el("div", {class: "prose"});
    this.reasoning = el("details", {class: "reasoning", hidden: true}, this.thinking, this.thoughts);
    this.prose = el("div", {class: "prose"});
    this.calls = el("div", {class: "calls"});
    this.note = el("p", {class: "note", role: "status", hidden: true});
    this.error = el("p", {class: "error", role: "alert", hidden: true});
    this.stats = el("span", {class: "stats"});
    this.copy = el("button", {type: "button", class: "link"}, "Copy");
    this.copy.addEventListener("click", () => copyText(this.message.content, this.copy));
    this.again = el("button", {type: "button", class: "link", on: {click: actions.regenerate}}, "Regenerate");
    this.foot = el("footer", {}, this.stats, this.copy, this.again);
    this.root = el("article", {class: "message answer", "aria-label": "Answer"}, this.reasoning, this.prose,
      this.calls, this.note, this.error, this.foot);
    this.#text = new MarkdownView(this.prose);
    this.#thought = new MarkdownView(this.thoughts);
  }

  // Shows the message as it is now, with the next frame.
  changed() {
    if (this.#frame === 0) {
      this.#frame = requestAnimationFrame(() => this.render());
    }
  }

  setNote(text) {
    setText(this.note, text);
    this.note.hidden = text === "";
  }

  setRunning(running) {
    this.root.classList.toggle("running", running);
    this.root.setAttribute("aria-busy", String(running));
    this.foot.hidden = running;
  }

  setLast(last) {
    this.again.hidden = !last;
  }

  render() {
    const {content, reasoning, tools, error} = this.message;
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.reasoning.hidden = reasoning === "";
    this.#thought.show(reasoning);
    this.#text.show(content);
    this.#showTools(tools);
    this.error.hidden = error === null;
    this.root.classList.toggle("blank", content === "" && tools.length === 0 && error === null);
    setText(this.error, error === null ? "" : error.message + errorText(error));
    setText(this.stats, statsText(this.message));
    this.copy.hidden = content === "";
    this.onrender?.();
  }

  #showTools(tools) {
    tools.forEach((tool, i) => {
      const source = `${tool.name}\n${tool.arguments}`;
      if (this.#tools[i] !== source) {
        const node = codeBlock(`${tool.name}(${prettyArguments(tool.arguments)})`, "tool call");
        this.calls.children[i] ? this.calls.children[i].replaceWith(node) : this.calls.append(node);
        this.#tools[i] = source;
      }
    });
  }
}
