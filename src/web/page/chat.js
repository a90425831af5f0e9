// SPDX-License-Identifier: Apache-2.0
// The conversation: what was said, the answer that is being streamed, and the controls around it.

import {ApiError, apiEvents, streamChat} from "./api.js";
import {byId} from "./dom.js";
import {AnswerMessage, UserMessage} from "./message.js";
import {sampling, systemPrompt} from "./settings.js";

const STORE = "lockstep.conversation";
const STALL_MS = 700; // silence in a stream that is worth an explanation
const NEAR_PX = 80;

function newAnswer() {
  return {role: "assistant", content: "", reasoning: "", tools: [], usage: null, finish: null, error: null,
    stopped: false, pieces: 0};
}

// What another version of the page, or a hand, left in the store is taken only where it fits.
function restored(item) {
  if (item?.role === "user" && typeof item.content === "string") {
    return {role: "user", content: item.content};
  }
  if (item?.role !== "assistant" || typeof item.content !== "string") {
    return null;
  }
  const text = (x) => (typeof x === "string" ? x : "");
  const tools = Array.isArray(item.tools) ? item.tools : [];
  return {...newAnswer(), ...item, reasoning: text(item.reasoning),
    tools: tools.map((tool) => ({name: text(tool?.name), arguments: text(tool?.arguments)}))};
}

function load() {
  try {
    const items = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return (Array.isArray(items) ? items : []).map(restored).filter((item) => item !== null);
  } catch {
    return [];
  }
}

// The request's messages. Answers without text are left out, and what then stands side by side from the
// user is one message: templates want the roles to alternate.
export function requestMessages(system, messages) {
  const out = system === "" ? [] : [{role: "system", content: system}];
  for (const {role, content} of messages) {
    const last = out[out.length - 1];
    if (role === "user" && last?.role === "user") {
      last.content += `\n\n${content}`;
    } else if (role === "user" || content !== "") {
      out.push({role, content});
    }
  }
  return out;
}

function applyTool(tools, delta) {
  const index = delta.index ?? Math.max(0, tools.length - 1);
  while (tools.length <= index && tools.length < 128) {
    tools.push({name: "", arguments: ""});
  }
  const tool = tools[index];
  if (tool !== undefined) {
    tool.name += delta.function?.name ?? "";
    tool.arguments += delta.function?.arguments ?? "";
  }
}

// Enters a chunk into an answer. True: it brought something to read.
export function applyChunk(answer, chunk) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning ?? "";
  const said = delta.content ?? "";
  answer.usage = chunk.usage ?? answer.usage;
  answer.finish = choice?.finish_reason ?? answer.finish;
  answer.reasoning += thought;
  answer.content += said;
  for (const call of delta.tool_calls ?? []) {
    applyTool(answer.tools, call);
  }
  return thought !== "" || said !== "" || (delta.tool_calls ?? []).length > 0;
}

function waitFor(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, {once: true});
  });
}

export class Chat {
  #messages = load();
  #views = [];
  #running = null; // AbortController of the answer under way
  #world;
  #model;
  #newKey = false; // given while an answer was under way
  #follow = true; // the newest text is kept in sight

  // world: has healing; model(): the chosen one's name, or null.
  constructor(world, model) {
    this.#world = world;
    this.#model = model;
    this.log = byId("log");
    this.scroll = byId("scroll");
    this.prompt = byId("prompt");
    for (const message of this.#messages) {
      this.#show(message);
    }
    this.#controls();
    this.#listen();
    this.#stick();
  }

  #listen() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    this.prompt.addEventListener("input", () => this.#fit());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.stop();
      }
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("clear").addEventListener("click", () => this.clear());
    byId("latest").addEventListener("click", () => {
      this.#follow = true;
      this.#stick();
      this.prompt.focus(); // the button is about to go
    });
    this.scroll.addEventListener("scroll", () => {
      const {scrollTop, scrollHeight, clientHeight} = this.scroll;
      this.#follow = scrollHeight - scrollTop - clientHeight < NEAR_PX;
      byId("latest").hidden = this.#follow;
    });
    const observer = new ResizeObserver(() => this.#stick());
    observer.observe(this.scroll);
    observer.observe(this.log);
    apiEvents.addEventListener("key", () => {
      this.#newKey = true;
      if (this.#messages.at(-1)?.error?.status === 401) {
        this.regenerate();
      }
    });
  }

  // The field grows with its text.
  #fit() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight, 240)}px`;
  }

  #stick() {
    if (this.#follow) {
      this.scroll.scrollTop = this.scroll.scrollHeight;
    }
  }

  #show(message) {
    const actions = {edit: () => this.edit(), regenerate: () => this.regenerate()};
    const view = message.role === "user" ? new UserMessage(message, actions) : new AnswerMessage(message, actions);
    this.#views.push(view);
    this.log.append(view.root);
    view.render?.();
    view.onrender = () => this.#stick();
    return view;
  }

  #drop() {
    this.#messages.pop();
    this.#views.pop().root.remove();
  }

  #controls() {
    const running = this.#running !== null;
    byId("send").hidden = running;
    byId("stop").hidden = !running;
    byId("empty").hidden = this.#messages.length > 0;
    const lastUser = this.#messages.findLastIndex((message) => message.role === "user");
    this.#views.forEach((view, i) => {
      view.setLast(!running && i === (view instanceof UserMessage ? lastUser : this.#views.length - 1));
    });
  }

  #save() {
    try {
      localStorage.setItem(STORE, JSON.stringify(this.#messages));
    } catch {
      // The store is full: the conversation goes on, it only is not kept.
    }
  }

  send() {
    const content = this.prompt.value.trim();
    if (content === "" || this.#running !== null) {
      return;
    }
    const message = {role: "user", content};
    this.#messages.push(message);
    this.#show(message);
    this.prompt.value = "";
    this.#fit();
    this.#follow = true;
    this.#run();
  }

  regenerate() {
    if (this.#running === null && this.#messages.at(-1)?.role === "assistant") {
      this.#drop();
      this.#run();
      this.prompt.focus();
    }
  }

  // Takes the last message back into the field, and with it the answer.
  edit() {
    if (this.#running !== null) {
      return;
    }
    while (this.#messages.at(-1)?.role === "assistant") {
      this.#drop();
    }
    const last = this.#messages.at(-1);
    if (last !== undefined) {
      this.prompt.value = last.content;
      this.#drop();
    }
    this.#controls();
    this.#save();
    this.#fit();
    this.prompt.focus();
  }

  stop() {
    this.#running?.abort();
  }

  clear() {
    this.stop();
    this.#messages.length = 0;
    this.#views.length = 0;
    this.log.replaceChildren();
    this.#controls();
    this.#save();
    this.prompt.focus();
  }

  async #run() {
    const abort = new AbortController();
    const history = requestMessages(systemPrompt(), this.#messages);
    const answer = newAnswer();
    this.#running = abort;
    this.#newKey = false;
    this.#messages.push(answer);
    const view = this.#show(answer);
    view.setRunning(true);
    this.#controls();
    this.#stick();
    try {
      await this.#stream(answer, view, history, abort.signal);
    } catch (error) {
      if (abort.signal.aborted) {
        answer.stopped = true;
      } else {
        answer.error = this.#errorOf(error);
      }
    }
    view.setNote("");
    view.setRunning(false);
    view.render();
    if (this.#running === abort) {
      this.#running = null;
    }
    this.#controls();
    this.#save();
    this.#stick();
    if (answer.error?.status === 401 && this.#newKey) { // it was refused with the old one
      this.regenerate();
    }
  }

  #errorOf(error) {
    if (!(error instanceof ApiError)) {
      throw error; // a fault of the page: the console should have it
    }
    return {message: error.message, status: error.status, code: error.code, param: error.param};
  }

  // Streams an answer; where the server asks for patience before anything came, tries again.
  async #stream(answer, view, messages, signal) {
    const model = this.#model();
    const body = {...(model === null ? {} : {model}), messages, ...sampling()};
    for (;;) {
      try {
        await this.#streamOnce(answer, view, body, signal);
        return;
      } catch (error) {
        const patient = error instanceof ApiError && (error.status === 503 || error.status === 429) &&
          error.retryAfter !== null && !signal.aborted;
        if (!patient) {
          throw error;
        }
        await this.#pause(error, view, signal);
      }
    }
  }

  async #pause(error, view, signal) {
    const why = error.status === 429 ? "The server is busy" : "The server is loading or not ready";
    const seconds = Math.min(30, Math.max(1, Math.round(error.retryAfter)));
    for (let left = seconds; left > 0; left--) {
      view.setNote(`${why}: ${error.message} Trying again in ${left} s.`);
      await waitFor(1000, signal);
    }
    view.setNote("");
  }

  async #streamOnce(answer, view, body, signal) {
    const began = performance.now();
    let heard = began;
    const watch = setInterval(() => {
      const silent = performance.now() - heard > STALL_MS;
      view.setNote(silent && this.#world.healing ? "A rank died. The world is healing; the answer goes on from here." : "");
    }, 200);
    try {
      for await (const chunk of streamChat(body, signal)) {
        if (applyChunk(answer, chunk)) {
          heard = performance.now();
          answer.firstMs ??= heard - began;
          answer.totalMs = heard - began;
          answer.pieces++;
          view.changed();
        }
      }
    } finally {
      clearInterval(watch);
    }
  }
}
