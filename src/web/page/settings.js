// SPDX-License-Identifier: Apache-2.0
// System prompt and sampling, kept in this browser. An empty field is not sent.

import {byId} from "./dom.js";

const STORE = "lockstep.settings";
const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];
const NAMES = ["system", ...NUMBERS];

function field(name) {
  return byId(`set-${name}`);
}

function save() {
  const values = Object.fromEntries(NAMES.map((name) => [name, field(name).value]));
  localStorage.setItem(STORE, JSON.stringify(values));
}

export function startSettings() {
  let values = {};
  try {
    values = JSON.parse(localStorage.getItem(STORE) ?? "{}") ?? {};
  } catch {
    // What an older page left there does not matter.
  }
  for (const name of NAMES) {
    field(name).value = typeof values[name] === "string" ? values[name] : "";
  }
  byId("settings").addEventListener("input", save);
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  byId("settings-reset").addEventListener("click", () => {
    for (const name of NAMES) {
      field(name).value = "";
    }
    save();
  });
}

export function systemPrompt() {
  return field("system").value.trim();
}

// The fields of a request. A value out of range is sent as it is: the server says what is wrong.
export function sampling() {
  const fields = {};
  for (const name of NUMBERS) {
    const value = field(name).valueAsNumber;
    if (Number.isFinite(value)) {
      fields[name] = value;
    }
  }
  return fields;
}
