// SPDX-License-Identifier: Apache-2.0
// Server-sent events out of text that arrives in pieces cut anywhere.

export class EventParser {
  #rest = "";
  #data = [];

  // The data of each event that text completes. Comments (": ping") and other fields are passed over.
  feed(text) {
    const events = [];
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this.#data.length > 0) {
          events.push(this.#data.join("\n"));
          this.#data = [];
        }
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}
