// SPDX-License-Identifier: Apache-2.0
// What the world panel knows: asks /world and /metrics while the page is seen, and turns counters into
// rates. Everything that a server leaves out is null.

import {apiEvents, getJson, getText, modelQuery} from "./api.js";
import {parseMetrics, rate, total} from "./metrics.js";

const CALM_MS = 1000;
const BUSY_MS = 250; // while the world is not ready: a rebuild is soon over
const LATE_MS = 5000;

const NAMES = new Set(["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:num_requests_running",
  "vllm:num_requests_waiting", "vllm:iteration_tokens_total_count", "lockstep:rank_step_seconds_total",
  "lockstep:collective_seconds_total", "lockstep:rank_wait_seconds_total", "lockstep:recovery_seconds_sum",
  "lockstep:recovery_seconds_count"]);

function numberOr(value, other) {
  return typeof value === "number" && Number.isFinite(value) ? value : other;
}

function ranksOf(world) {
  return (Array.isArray(world?.ranks) ? world.ranks : []).map((rank, i) => ({
    rank: numberOr(rank?.rank, i), pid: numberOr(rank?.pid, null), state: String(rank?.state ?? "unknown"),
  }));
}

function kvOf(world) {
  const kv = world?.kv;
  return kv === null || typeof kv !== "object" ? null : {
    total: numberOr(kv.total, 0), used: numberOr(kv.used, 0), cached: numberOr(kv.cached, 0),
    free: numberOr(kv.free, 0),
  };
}

function countersOf(samples, model, ranks) {
  const of = (name, rank = null) => total(samples, name, model, rank);
  return {
    tokens: of("vllm:generation_tokens_total"),
    steps: of("vllm:iteration_tokens_total_count"),
    recovered: of("lockstep:recovery_seconds_count"),
    recovery: of("lockstep:recovery_seconds_sum"),
    ranks: new Map(ranks.map(({rank}) => [rank, {
      step: of("lockstep:rank_step_seconds_total", rank),
      // In a step a rank waits for others in collectives; a server without that counter tells less.
      wait: of("lockstep:collective_seconds_total", rank) ?? of("lockstep:rank_wait_seconds_total", rank),
    }])),
  };
}

// Between two readings of a rank's counters, as shares of the time, and a step's mean in seconds.
function ratesOf(before, now, seconds, steps) {
  const step = rate(before?.step, now.step, seconds);
  const wait = rate(before?.wait, now.wait, seconds);
  if (step === null) {
    return {compute: null, wait: null, stepMs: null, waitMs: null};
  }
  const waited = Math.min(wait ?? 0, step);
  const each = steps > 0 ? seconds / steps * 1000 : null;
  return {
    compute: step - waited, wait: waited,
    stepMs: each === null ? null : step * each, waitMs: each === null ? null : waited * each,
  };
}

export class Feed extends EventTarget {
  #model;
  #timer = 0;
  #asking = false;
  #again = false;
  #before = null; // {at, counters, model}
  #locked = false; // the server wants a key
  healing = false;
  reading = null; // the last one

  // model(): the chosen model's name, or null.
  constructor(model) {
    super();
    this.#model = model;
    document.addEventListener("visibilitychange", () => this.soon());
    apiEvents.addEventListener("unauthorized", () => { this.#locked = true; });
    apiEvents.addEventListener("key", () => {
      this.#locked = false;
      this.soon();
    });
  }

  // Asks at once instead of in a while.
  soon() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#locked) {
      this.#before = null; // rates over the pause would say nothing
      return;
    }
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#ask();
  }

  async #ask() {
    this.#asking = true;
    const reading = await this.#read();
    this.#asking = false;
    this.healing = reading.state === "rebuilding";
    this.reading = reading;
    this.dispatchEvent(new Event("reading"));
    if (this.#again) {
      this.#again = false;
      this.soon();
    } else {
      this.#timer = setTimeout(() => this.soon(), reading.state === "ready" || reading.world === null ? CALM_MS : BUSY_MS);
    }
  }

  async #get(get, path) {
    try {
      return await get(path, AbortSignal.timeout(LATE_MS));
    } catch {
      return null; // unreachable, late, refused: the panel shows what is known
    }
  }

  async #read() {
    const model = this.#model();
    const [world, text] = await Promise.all([this.#get(getJson, `/world${modelQuery(model)}`), this.#get(getText, "/metrics")]);
    const at = performance.now();
    const ranks = ranksOf(world);
    const samples = text === null ? [] : parseMetrics(text, NAMES);
    const counters = countersOf(samples, model, ranks);
    const before = this.#before !== null && this.#before.model === model ? this.#before : null;
    const seconds = before === null ? 0 : (at - before.at) / 1000;
    const steps = rate(before?.counters.steps, counters.steps, 1) ?? 0;
    if (text !== null) {
      this.#before = {at, counters, model};
    }
    const recoveries = (counters.recovered ?? 0) - (before?.counters.recovered ?? counters.recovered ?? 0);
    const recovery = (counters.recovery ?? 0) - (before?.counters.recovery ?? 0);
    return {
      world, at, kv: kvOf(world), state: world === null ? "unreachable" : String(world.state ?? "unknown"),
      epoch: numberOr(world?.epoch, null), rebuilds: numberOr(world?.rebuilds, null),
      fault: world?.last_fault ?? null,
      running: numberOr(world?.running, total(samples, "vllm:num_requests_running", model)),
      waiting: numberOr(world?.waiting, total(samples, "vllm:num_requests_waiting", model)),
      tokensPerSecond: rate(before?.counters.tokens, counters.tokens, seconds),
      recoverySeconds: before !== null && recoveries > 0 ? recovery / recoveries : null,
      ranks: ranks.map((rank) => ({
        ...rank, ...ratesOf(before?.counters.ranks.get(rank.rank), counters.ranks.get(rank.rank), seconds, steps),
      })),
    };
  }
}
