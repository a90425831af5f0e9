// SPDX-License-Identifier: Apache-2.0
// Building DOM nodes. Text always becomes a text node: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, options, children) {
  for (const [name, value] of Object.entries(options)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) {
        node.addEventListener(type, listener);
      }
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// el("button", {class: "quiet", on: {click}}, "text", node, ...)
export function el(tag, options = {}, ...children) {
  return fill(document.createElement(tag), options, children);
}

export function svg(tag, options = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), options, children);
}

export function byId(id) {
  return document.getElementById(id);
}

// Sets a node's text only when it differs, so that what is selected stays selected.
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

// A button that opens and closes the section it names in aria-controls.
export function disclose(button, section, changed = () => {}) {
  const set = (open) => {
    section.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    changed(open);
  };
  button.addEventListener("click", () => set(section.hidden));
  return set;
}

export async function copyText(text, button) {
  const before = button.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = copyBySelection(text) ? "Copied" : "Not copied";
  }
  button.textContent = said;
  setTimeout(() => { button.textContent = before === said ? "Copy" : before; }, 1500);
}

// The clipboard interface is there only on loopback and over TLS; a server on the network has neither.
function copyBySelection(text) {
  const area = el("textarea", {class: "unseen", readonly: true});
  const focused = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}
