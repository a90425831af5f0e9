// SPDX-License-Identifier: Apache-2.0
// The world panel: the ranks side by side over the last minute, what the world does and how full it is.

import {sendFault} from "./api.js";
import {BarChart, Series, ShareBar} from "./charts.js";
import {byId, disclose, el, setText} from "./dom.js";

const HEALED_MS = 6000; // how long a healed world is pointed out
const STATES = {ready: "Ready", loading: "Loading the model", rebuilding: "A rank died, healing\u2026",
  failed: "Failed: its ranks died too often", down: "No model is loaded", draining: "Draining: ends what runs",
  stopping: "Stopping", unreachable: "The server does not answer", unknown: "Unknown"};
const BRIEF = {rebuilding: "Healing\u2026", loading: "Loading", failed: "Failed", unreachable: "No answer"};

const FAULTS = {signal: "was killed", exit: "exited", hang: "hung", oom: "ran out of memory", device: "lost its device"};

function show(value, digits = 0) {
  return value === null || value === undefined ? "\u2013" : value.toLocaleString("en",
    {minimumFractionDigits: digits, maximumFractionDigits: digits});
}

export function faultText(fault) {
  if (fault === null || typeof fault !== "object") {
    return "None";
  }
  const where = [["step", fault.step], ["layer", fault.layer], ["all\u2011reduce", fault.collective]]
    .filter(([, value]) => typeof value === "number").map(([name, value]) => `${name} ${show(value)}`);
  const what = `Rank ${fault.rank ?? "?"} ${FAULTS[fault.kind] ?? `failed (${fault.kind ?? "unknown"})`}`;
  return where.length > 0 ? `${what} in ${where.join(", ")}` : what;
}

// One rank: state, pid, its last minute, and the button that kills it.
class Lane {
  compute = new Series();
  wait = new Series();

  constructor(rank, kill) {
    this.rank = rank;
    this.dot = el("span", {class: "dot"});
    this.state = el("span", {class: "state"});
    this.pid = el("span", {class: "pid"});
    this.figures = el("span", {class: "figures"});
    this.kill = el("button", {type: "button", class: "danger small", hidden: true, "aria-label": `Kill rank ${rank}`,
      on: {click: () => kill(this)}}, "Kill");
    this.chart = new BarChart(10, ["compute", "wait"], `Rank ${rank}, compute and wait`);
    this.root = el("li", {class: "lane"},
      el("div", {class: "lane-head"}, el("b", {}, `Rank ${rank}`), this.dot, this.state, this.pid, this.kill),
      this.chart.root, this.figures);
  }

  take(reading, marks, tick) {
    this.dot.dataset.state = reading.state;
    setText(this.state, reading.state);
    setText(this.pid, reading.pid ? `pid ${reading.pid}` : "");
    if (tick) {
      this.compute.push(reading.compute);
      this.wait.push(reading.wait);
      this.chart.draw([this.compute, this.wait], 1, marks);
      setText(this.figures, this.#text(reading));
      this.chart.label(`Rank ${this.rank}, last minute: ${this.figures.textContent}`);
    }
  }

  #text({compute, wait, stepMs, waitMs}) {
    if (compute === null) {
      return "no times yet";
    }
    if (stepMs !== null && stepMs > 0) {
      return `${show(stepMs, 1)} ms a step: ${show(stepMs - waitMs, 1)} compute, ${show(waitMs, 1)} wait`;
    }
    return compute + wait > 0 ? `${show(compute * 100)} % compute, ${show(wait * 100)} % wait` : "idle";
  }
}

function figure(label) {
  const value = el("dd", {}, "\u2013");
  return {value, root: el("div", {}, el("dt", {}, label), value)};
}

export class WorldPanel {
  #feed;
  #model;
  #lanes = new Map();
  #tokens = new Series();
  #queue = new Series();
  #waiting = new Series();
  #marks = new Series();
  #epoch = null;
  #rebuilds = null;
  #marked = false; // an epoch began since the last sample
  #sampledAt = 0;
  #healedUntil = 0;
  #faults = false;
  #wide = matchMedia("(min-width: 60rem)");
  #open;

  // opened(open) is called when the panel is opened or closed.
  constructor(feed, model, opened) {
    this.#feed = feed;
    this.#model = model;
    this.#build();
    feed.addEventListener("reading", () => this.#take(feed.reading));
    // Wide windows show the panel always, narrow ones when asked.
    this.#open = disclose(byId("world-toggle"), byId("world"), opened);
    this.#wide.addEventListener("change", () => this.#open(this.#wide.matches));
    this.#open(this.#wide.matches);
  }

  // Gives its room to something else, where there is room for one only.
  yield() {
    if (!this.#wide.matches) {
      this.#open(false);
    }
  }

  #build() {
    // One line that is always there: nothing below it moves away from under a pointer.
    this.dot = el("span", {class: "dot", "data-state": "unknown"});
    this.status = el("span", {role: "status", "aria-live": "assertive"});
    this.alert = el("p", {class: "healing"}, this.dot, this.status);
    this.peak = el("span", {class: "key"});
    this.rate = el("b", {}, "\u2013");
    this.rateChart = new BarChart(10, ["compute"], "Tokens a second, last minute");
    this.lanes = el("ul", {class: "lanes"});
    this.trouble = el("p", {class: "error", role: "alert", hidden: true});
    this.kvBar = new ShareBar(["used", "cached", "free"], "KV cache");
    this.kvText = el("p", {class: "figures"}, "\u2013");
    this.queueText = el("p", {class: "figures"}, "\u2013");
    this.queueChart = new BarChart(10, ["running", "waiting"], "Running and waiting, last minute");
    this.epochText = figure("Epoch");
    this.rebuildsText = figure("Rebuilds");
    this.healedText = figure("Last recovery");
    this.faultText = figure("Last fault");
    byId("world").replaceChildren(
      el("h2", {class: "unseen"}, "World"), this.alert,
      el("section", {}, el("h3", {}, "Ranks", el("span", {class: "key"}, el("i", {class: "compute"}), "compute ",
        el("i", {class: "wait"}), "wait")), this.trouble, this.lanes),
      el("section", {}, el("h3", {}, "Tokens a second ", this.peak, this.rate), this.rateChart.root),
      el("dl", {class: "facts"}, this.epochText.root, this.rebuildsText.root, this.healedText.root, this.faultText.root),
      el("section", {}, el("h3", {}, "KV cache", el("span", {class: "key"}, el("i", {class: "used"}), "used ",
        el("i", {class: "cached"}), "cached ", el("i", {class: "free"}), "free")), this.kvBar.root, this.kvText),
      el("section", {}, el("h3", {}, "Requests", el("span", {class: "key"}, el("i", {class: "running"}), "running ",
        el("i", {class: "waiting"}), "waiting")), this.queueChart.root, this.queueText),
      el("p", {class: "axis"}, "Charts show the last minute. A vertical line is a new epoch."));
  }

  allowFaults(allowed) {
    this.#faults = allowed;
    for (const lane of this.#lanes.values()) {
      lane.kill.hidden = !allowed;
    }
  }

  async #kill(lane) {
    lane.kill.disabled = true;
    this.trouble.hidden = true;
    try {
      await sendFault(`kill:rank=${lane.rank}`, this.#model());
    } catch (error) {
      setText(this.trouble, `Rank ${lane.rank} was not killed: ${error.message}`);
      this.trouble.hidden = false;
    }
    this.#feed.soon();
    setTimeout(() => { lane.kill.disabled = false; }, 500);
  }

  #take(reading) {
    // While the world heals readings come faster than the charts' samples.
    const tick = reading.at - this.#sampledAt > 900;
    this.#epochs(reading);
    if (tick) {
      this.#sampledAt = reading.at;
      this.#marks.push(this.#marked);
      this.#marked = false;
      this.#sample(reading);
    }
    this.#ranks(reading, tick);
    this.#facts(reading);
    this.#kv(reading.kv);
  }

  #epochs(reading) {
    const changed = this.#epoch !== null && reading.epoch !== null && reading.epoch > this.#epoch;
    const since = reading.rebuilds !== null && reading.rebuilds > (this.#rebuilds ?? reading.rebuilds);
    this.#epoch = reading.epoch ?? this.#epoch;
    this.#rebuilds = reading.rebuilds ?? this.#rebuilds;
    this.#marked ||= changed;
    if (reading.recoverySeconds !== null) {
      setText(this.healedText.value, `${show(reading.recoverySeconds, 2)} s`);
    }
    if (reading.state === "rebuilding" || changed || since) {
      this.#healedUntil = reading.at + HEALED_MS;
    }
    const healed = reading.state === "ready" && reading.at < this.#healedUntil;
    const state = STATES[reading.state] ?? reading.state;
    const why = reading.world?.why ? `: ${reading.world.why}` : "";
    setText(this.status, healed ? `Healed. Epoch ${show(reading.epoch)} goes on.` : state + why);
    this.alert.dataset.state = healed ? "healed" : reading.state;
    this.dot.dataset.state = reading.state;
    byId("world-toggle").firstElementChild.dataset.state = reading.state;
    setText(byId("world-brief"), BRIEF[reading.state] ?? "World");
  }

  #sample({tokensPerSecond, running, waiting}) {
    this.#tokens.push(tokensPerSecond);
    this.#queue.push(running);
    this.#waiting.push(waiting);
    const top = Math.max(1, ...this.#tokens.values);
    setText(this.peak, top > 1 ? `at most ${show(top)}` : "");
    this.rateChart.draw([this.#tokens], top, this.#marks);
    setText(this.rate, show(tokensPerSecond, tokensPerSecond !== null && tokensPerSecond < 100 ? 1 : 0));
    this.rateChart.label(`Tokens a second: ${this.rate.textContent} now, at most ${show(top)} in the last minute`);
    const most = Math.max(4, ...this.#queue.values.map((value, i) => (value ?? 0) + (this.#waiting.values[i] ?? 0)));
    this.queueChart.draw([this.#queue, this.#waiting], most, this.#marks);
    setText(this.queueText, `${show(running)} running, ${show(waiting)} waiting`);
    this.queueChart.label(`Requests: ${this.queueText.textContent}`);
  }

  #ranks(reading, tick) {
    for (const rank of reading.ranks) {
      if (!this.#lanes.has(rank.rank)) {
        const lane = new Lane(rank.rank, (which) => this.#kill(which));
        lane.kill.hidden = !this.#faults;
        this.#lanes.set(rank.rank, lane);
        this.lanes.append(lane.root);
      }
      this.#lanes.get(rank.rank).take(rank, this.#marks, tick);
    }
    if (reading.world !== null) { // a world of another size, or another model's
      for (const [number, lane] of this.#lanes) {
        if (!reading.ranks.some(({rank}) => rank === number)) {
          lane.root.remove();
          this.#lanes.delete(number);
        }
      }
    }
  }

  #facts({epoch, rebuilds, fault}) {
    setText(this.epochText.value, show(epoch));
    setText(this.rebuildsText.value, show(rebuilds));
    setText(this.faultText.value, faultText(fault));
  }

  #kv(kv) {
    if (kv === null) {
      return;
    }
    const text = `${show(kv.used)} used, ${show(kv.cached)} cached, ${show(kv.free)} free of ${show(kv.total)} pages`;
    this.kvBar.draw([kv.used, kv.cached, kv.free], `KV cache: ${text}`);
    setText(this.kvText, text);
  }
}
