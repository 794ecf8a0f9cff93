// The tab of chat: a conversation that is kept in this page alone, answered by parts as they come.

import { events, info, post, Problem } from "./api.js";
import { byId, el, show, tell } from "./dom.js";

const COMPILING = "The server is still compiling its programs; the first answer takes a little longer.";

let history = [], running = null, model;

export function startChat(served) {
  model = served;
  empty();
  const field = byId("say");
  field.addEventListener("keydown", (event) => {
    // While an input method composes, Enter chooses a character.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  field.addEventListener("input", grow);
  byId("send").addEventListener("click", send);
  byId("chat-stop").addEventListener("click", () => running?.abort());
  byId("clear").addEventListener("click", () => {
    running?.abort();
    history = [];
    empty();
    tell(byId("chat-problem"), "");
    tell(byId("chat-status"), "The conversation is cleared.");
    field.focus();
  });
}

function grow() {
  const field = byId("say");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

function empty() {
  byId("messages").replaceChildren(el("p", { class: "empty" }, "Nothing has been said yet."));
}

async function send() {
  const field = byId("say"), text = field.value.trim();
  if (running || !text) return;
  if (!history.length) byId("messages").replaceChildren();
  const asked = { role: "user", content: text };
  const mine = el("div", { class: "message user", dir: "auto" }, text);
  byId("messages").append(mine);
  field.value = "";
  grow();
  const answer = new Answer();
  byId("messages").append(answer.node);
  answer.node.scrollIntoView({ block: "end" });
  const ended = await stream([...history, asked], answer);
  if (ended) history.push(asked, answer.message());
  else {
    // Refused: the message goes back to where it was typed.
    for (const node of [mine, answer.node]) node.remove();
    if (!history.length) empty();
    if (!field.value) field.value = text;
    grow();
  }
}

function body(messages) {
  const system = byId("system").value.trim(), temperature = byId("chat-temperature").value.trim();
  return {
    model: model.name,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    stream: true,
    ...(temperature ? { temperature: Number(temperature) } : {}),
  };
}

// Whether anything was answered.
async function stream(messages, answer) {
  running = new AbortController();
  const { signal } = running, status = byId("chat-status"), problem = byId("chat-problem");
  tell(problem, "");
  tell(status, "");
  byId("send").disabled = true;
  show(byId("chat-stop"));
  const slow = setTimeout(async () => {
    const state = await info().then((one) => one.state, () => "");
    if (running && state === "compiling" && !answer.begun) tell(status, COMPILING);
  }, 700);
  try {
    const response = await post("/v1/chat/completions", body(messages), { signal, onWait: (sentence) => tell(status, sentence) });
    for await (const event of events(response)) {
      const [choice] = event.choices ?? [];
      if (!choice) continue;
      if (answer.add(choice.delta ?? {})) tell(status, "");
      if (choice.finish_reason) answer.finished = choice.finish_reason;
    }
    tell(status, answer.finished === "length" ? "The answer is cut: it is as long as it may be." : "Answered.");
  } catch (error) {
    if (signal.aborted) {
      answer.finished = "stopped";
      tell(status, "Stopped.");
    } else {
      tell(status, "");
      tell(problem, error instanceof Problem ? error.message : "The connection was lost.");
      if (!(error instanceof Problem)) console.error(error);
    }
  } finally {
    clearTimeout(slow);
    running = null;
    show(byId("chat-stop"), false);
    byId("send").disabled = false;
    byId("say").focus();
    answer.end();
  }
  return answer.begun || Boolean(answer.finished && answer.finished !== "stopped");
}

// An answer that grows: thoughts, which are folded; text; and calls of tools.
export class Answer {
  constructor() {
    Object.assign(this, { thoughts: "", text: "", calls: [], finished: null });
    this.textNode = el("div", { class: "text" });
    this.thoughtNode = el("div", { class: "thought" });
    this.summary = el("summary", {}, "Thinking \u2026");
    this.folded = el("details", { hidden: true }, this.summary, this.thoughtNode);
    this.callsNode = el("div", {});
    this.foot = el("div", { class: "foot" });
    this.node = el("div", { class: "message assistant coming", dir: "auto" }, this.folded, this.textNode, this.callsNode, this.foot);
  }

  get begun() { return Boolean(this.thoughts || this.text || this.calls.length); }

  // Takes the delta of a chunk; returns whether it held anything.
  add({ content, reasoning_content: thoughts, tool_calls: calls }) {
    if (!content && !thoughts && !calls) return false;
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
    if (thoughts) {
      this.thoughts += thoughts;
      show(this.folded);
      this.thoughtNode.textContent = this.thoughts;
    }
    if (content) {
      this.text += content;
      this.textNode.textContent = this.text;
      this.summary.textContent = "Thoughts";
    }
    for (const { index = 0, id, function: called } of calls ?? []) {
      this.calls[index] ??= { id, type: "function", function: { name: "", arguments: "" } };
      this.calls[index].function.name += called?.name ?? "";
      this.calls[index].function.arguments += called?.arguments ?? "";
      this.callsNode.replaceChildren(...this.calls.map((one) => el("pre", { "aria-label": "Call of a tool" },
        `${one.function.name}(${one.function.arguments})`)));
    }
    if (atEnd) this.node.scrollIntoView({ block: "end" });
    return true;
  }

  end() {
    this.node.classList.remove("coming");
    show(this.textNode, this.text !== "");
    if (this.thoughts) this.summary.textContent = "Thoughts";
    const copy = el("button", { class: "quiet", on: { click: () => this.#copy(copy) } }, "Copy");
    this.foot.replaceChildren(...(this.text ? [copy] : []),
      { length: "cut at its longest length", stopped: "stopped by you" }[this.finished] ?? "");
  }

  async #copy(button) {
    try {
      await navigator.clipboard.writeText(this.text);
      button.textContent = "Copied";
    } catch {
      // Without a secure origin there is no clipboard: the text is selected instead.
      getSelection().selectAllChildren(this.textNode);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  message() {
    const found = { role: "assistant", content: this.text };
    if (this.calls.length) found.tool_calls = this.calls;
    return found;
  }
}
