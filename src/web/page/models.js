// SPDX-License-Identifier: Apache-2.0
// Which model is spoken to.

import {getJson} from "./api.js";
import {byId, el} from "./dom.js";

const STORE = "lockstep.model";

// null: the server has told of none yet.
export function chosenModel() {
  const select = byId("model");
  return select.disabled ? null : select.value;
}

// Fills the selector; false: the server did not answer as it should.
export async function loadModels() {
  let names;
  try {
    const list = await getJson("/v1/models");
    names = (Array.isArray(list?.data) ? list.data : []).map((model) => model?.id).filter((id) => typeof id === "string");
  } catch {
    return false;
  }
  const select = byId("model");
  const before = select.disabled ? localStorage.getItem(STORE) : select.value;
  select.replaceChildren(...names.map((name) => el("option", {value: name}, name)));
  select.disabled = names.length === 0;
  if (names.includes(before)) {
    select.value = before;
  }
  return names.length > 0;
}

export function startModels(changed) {
  byId("model").addEventListener("change", () => {
    localStorage.setItem(STORE, byId("model").value);
    changed();
  });
}
