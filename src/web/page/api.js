// SPDX-License-Identifier: Apache-2.0
// Requests to the server that sent this page: the key, errors, streams of chat completions.

import {EventParser} from "./sse.js";

const KEY = "lockstep.key";

export const apiEvents = new EventTarget(); // "unauthorized": a key is missing or wrong; "key": there is a new one

export class ApiError extends Error {
  // status 0: no answer came. retryAfter: seconds, or null.
  constructor(message, {status = 0, code = null, param = null, retryAfter = null, midStream = false} = {}) {
    super(message);
    Object.assign(this, {status, code, param, retryAfter, midStream});
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
  apiEvents.dispatchEvent(new Event("key"));
}

export function hasKey() {
  return (sessionStorage.getItem(KEY) ?? "") !== "";
}

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? {...more, Authorization: `Bearer ${key}`} : more;
}

// Both shapes that servers use: {"error": {...}} and {"error": "text"}.
function errorFrom(body, fallback, more) {
  const error = body?.error ?? body;
  const message = typeof error === "string" ? error : error?.message;
  return new ApiError(typeof message === "string" && message !== "" ? message : fallback,
    {code: error?.code ?? null, param: error?.param ?? null, ...more});
}

async function errorOf(response) {
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const more = {status: response.status, retryAfter: Number.isFinite(wait) ? wait : null};
  let body = null;
  try {
    body = await response.json();
  } catch {
    // A proxy in between answers in HTML: the status has to do.
  }
  return errorFrom(body, `The server answered ${response.status} ${response.statusText}`.trim(), more);
}

async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  let response;
  try {
    response = await fetch(path, {cache: "no-store", ...options, headers: headers(options.headers ?? {})});
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") {
      throw error;
    }
    throw new ApiError("The server cannot be reached.");
  }
  if (!response.ok) {
    // A refusal of the key before says nothing of the one that was typed in meanwhile.
    if (response.status === 401 && key === sessionStorage.getItem(KEY)) {
      apiEvents.dispatchEvent(new Event("unauthorized"));
    }
    throw await errorOf(response);
  }
  return response;
}

function post(path, body, signal) {
  return request(path, {
    method: "POST", signal, body: JSON.stringify(body), headers: {"Content-Type": "application/json"},
  });
}

export async function getJson(path, signal) {
  return (await request(path, {signal})).json();
}

export async function getText(path, signal) {
  return (await request(path, {signal})).text();
}

// The query that asks for one of several models; null: the server's first.
export function modelQuery(model) {
  return model === null ? "" : `?model=${encodeURIComponent(model)}`;
}

export async function sendFault(fault, model) {
  await post(`/fault${modelQuery(model)}`, {fault});
}

function parseFrame(data) {
  let frame;
  try {
    frame = JSON.parse(data);
  } catch {
    throw new ApiError("The server sent an event that is no JSON.", {midStream: true});
  }
  if (frame?.error) {
    throw errorFrom(frame, "The answer failed.", {midStream: true});
  }
  return frame;
}

// The chunks of a streamed chat completion. onBytes is called for everything that arrives, also for
// the comments that keep a paused stream alive. Throws ApiError; AbortError once signal says so.
export async function* streamChat(body, signal, onBytes = () => {}) {
  const response = await post("/v1/chat/completions",
    {...body, stream: true, stream_options: {include_usage: true}}, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) {
        break;
      }
      onBytes();
      for (const data of parser.feed(value)) {
        if (data.startsWith("[DONE]")) {
          return;
        }
        yield parseFrame(data);
      }
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") {
      throw error;
    }
    throw new ApiError("The connection to the server broke.", {midStream: true});
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError("The stream ended before the answer was complete.", {midStream: true});
}
