// Requests to this server: with a key where it wants one, again where it is full, errors as one sentence.

import { byId, show } from "./dom.js";

const KEY = "glm_jax.key";
const PATIENCE = 120; // seconds for which a full server is asked again
const LONGEST_WAIT = 30;

export class Problem extends Error {}

let asking = null; // the promise of a key, while the dialog is open

function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog"), field = byId("key");
    byId("key-text").textContent = wrong
      ? "The server does not know this key. Another one?"
      : "It is kept in this tab alone, until the tab is closed.";
    const finish = (key) => {
      asking = null;
      field.value = "";
      dialog.close();
      resolve(key);
    };
    byId("key-save").onclick = () => finish(field.value.trim());
    byId("key-cancel").onclick = () => finish("");
    dialog.oncancel = (event) => { event.preventDefault(); finish(""); };
    field.onkeydown = (event) => { if (event.key === "Enter") finish(field.value.trim()); };
    show(dialog);
    dialog.showModal();
    field.focus();
  });
  return asking;
}

const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, 1000 * seconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    return `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`.replace(/([.?!])\.$/, "$1");
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

// The response to a POST of JSON, its status 200.
//   signal: of an AbortController; onWait(sentence): called while the server is full, "" when it no longer is.
export async function post(path, body, { signal, onWait = () => {} } = {}) {
  const until = Date.now() + 1000 * PATIENCE;
  for (;;) {
    const used = sessionStorage.getItem(KEY);
    let response;
    try {
      response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(used ? { Authorization: `Bearer ${used}` } : {}) },
        body: JSON.stringify(body),
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem("The server cannot be reached; is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // Another request may have asked meanwhile.
      const known = sessionStorage.getItem(KEY);
      const key = known && known !== used ? known : await askForKey(Boolean(used));
      if (!key) throw new Problem("This server answers with an API key alone.");
      sessionStorage.setItem(KEY, key);
      continue;
    }
    const after = Number(response.headers.get("Retry-After"));
    if ((response.status === 429 || response.status === 503) && after > 0 && Date.now() < until) {
      await waited(Math.min(after, LONGEST_WAIT), signal, onWait);
      continue;
    }
    throw new Problem(await sentenceOf(response));
  }
}

async function waited(seconds, signal, onWait) {
  for (let left = Math.ceil(seconds); left > 0; left--) {
    onWait(`The server is full; it is asked again in ${left} s.`);
    await pause(1, signal);
  }
  onWait("");
}

export async function info() {
  const response = await fetch("/page/info");
  if (!response.ok) throw new Problem(await sentenceOf(response));
  return response.json();
}

// The data of server-sent events, until [DONE]; a broken line ends it with a Problem.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Problem("The server ended the answer early.");
      rest += value;
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
        if (data === "[DONE]") return;
        if (!data) continue;
        const event = JSON.parse(data);
        if (event.error) throw new Problem(event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
