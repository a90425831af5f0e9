// SPDX-License-Identifier: Apache-2.0
// Asks for an API key when the server answers 401.

import {apiEvents, hasKey, setKey} from "./api.js";
import {byId, setText} from "./dom.js";

export function startKey() {
  const form = byId("key");
  const input = byId("key-field");

  apiEvents.addEventListener("unauthorized", () => {
    setText(byId("key-why"), hasKey()
      ? "The server does not accept this API key."
      : "This server needs an API key. It is kept until this tab is closed.");
    if (form.hidden) {
      form.hidden = false;
      input.focus();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.hidden = true;
    setKey(input.value.trim());
    input.value = "";
    byId("prompt").focus();
  });
}
