// The sentence: words that become blanks, and blanks that become answers.
//
// A blank is {key, start, end, original, answer}: a run of blanked words, and what was put there, if anything:
// {text, probability or null, tokens or null, kept}. A kept one was chosen by hand; it counts as text when the others are filled.

import { el, percent } from "./dom.js";
import { chinese, runs, segments } from "./words.js";

// What stands under an answer. Those of a search have a probability together, and none each.
export function said(answer) {
  if (answer.kept) return "your choice";
  return answer.probability === null ? "from the search" : percent(answer.probability);
}

// "or wife 16 %, daughter 1.6 %": what its first token might have been, for those who only point at it.
function instead(answer) {
  const [first] = answer.tokens ?? [];
  const others = (first?.alternatives ?? []).filter((one) => one.id !== first.id && !one.ends).slice(0, 3);
  return others.length ? `or ${others.map((one) => `${one.text.trim()} ${percent(one.probability)}`).join(", ")}` : null;
}

export class Board {
  // onChange(): other words are blanks; onOpen(blank, node): a filled blank was clicked.
  constructor(node, { onChange, onOpen }) {
    Object.assign(this, { node, onChange, onOpen, words: [], blanked: new Set(), answers: new Map(), order: [], current: 0, busy: false, fresh: false });
    node.addEventListener("click", (event) => this.#clicked(event));
    node.addEventListener("keydown", (event) => this.#key(event));
    node.addEventListener("pointerdown", (event) => this.#down(event));
    node.addEventListener("pointermove", (event) => this.#move(event));
    node.addEventListener("pointerup", () => this.#up());
    node.addEventListener("pointercancel", () => this.#endDrag());
  }

  // blanks: [[start, end]] in letters.
  setText(text, blanks = []) {
    this.words = segments(text, blanks.flat());
    this.blanked = new Set();
    let at = 0;
    this.words.forEach((one, index) => {
      if (one.word && blanks.some(([start, end]) => at >= start && at < end)) this.blanked.add(index);
      at += one.text.length;
    });
    this.answers.clear();
    this.order = [];
    this.current = this.words.findIndex((one) => one.word);
    this.node.lang = chinese(text) ? "zh" : "";
    this.changed();
  }

  get text() { return this.words.map((one) => one.text).join(""); }

  get blanks() {
    return runs(this.words, this.blanked).map(({ start, end }) => {
      const key = `${start}-${end}`;
      const original = this.words.slice(start, end + 1).map((one) => one.text).join("");
      return { key, start, end, original, answer: this.answers.get(key) ?? null };
    });
  }

  // Blanks that the next filling fills, in the order of the text.
  get open() { return this.blanks.filter((blank) => !blank.answer?.kept); }

  // The order in which they are filled, as indices into `open`.
  get permutation() {
    const keys = this.open.map((blank) => blank.key);
    return this.order.filter((key) => keys.includes(key)).map((key) => keys.indexOf(key));
  }

  // [{text} or {blank, of}] which joined are the sentence; `answers`: by key, instead of the board's own.
  parts(answers = this.answers, keptOnly = true) {
    const parts = [];
    const blanks = this.blanks;
    this.words.forEach((one, index) => {
      const blank = blanks.find(({ start, end }) => index >= start && index <= end);
      if (!blank) parts.push({ text: one.text });
      else if (index === blank.start) {
        const answer = answers.get(blank.key);
        if (answer && (answer.kept || !keptOnly)) parts.push({ text: answer.text, of: blank });
        else parts.push({ blank: "MASK", of: blank });
      }
    });
    return parts;
  }

  // The parts of a request.
  asked() { return this.parts().map((part) => (part.blank ? { blank: part.blank } : { text: part.text })); }

  put(key, answer) {
    this.answers.set(key, answer);
    this.fresh = true;
    this.render();
  }

  toggle(index) {
    const blank = this.blanks.find(({ start, end }) => index >= start && index <= end);
    if (blank) for (let word = blank.start; word <= blank.end; word++) this.blanked.delete(word);
    else this.blanked.add(index);
    this.current = index;
    this.changed();
  }

  restoreAll() {
    this.blanked.clear();
    this.changed();
  }

  // Answers of blanks that are no more are forgotten; new blanks come in the order of the text, or last.
  changed() {
    const keys = this.blanks.map((blank) => blank.key);
    for (const key of this.answers.keys()) if (!keys.includes(key)) this.answers.delete(key);
    const kept = this.order.filter((key) => keys.includes(key));
    const sorted = kept.every((key, at) => at === 0 || keys.indexOf(kept[at - 1]) < keys.indexOf(key));
    this.order = sorted ? keys : [...kept, ...keys.filter((key) => !kept.includes(key))];
    this.render();
    this.onChange();
  }

  render() {
    const focused = this.node.contains(document.activeElement);
    const blanks = this.blanks;
    const nodes = [];
    this.words.forEach((one, index) => {
      const blank = blanks.find(({ start, end }) => index >= start && index <= end);
      if (blank && index === blank.start) nodes.push(this.#pill(blank));
      else if (!blank && one.word) {
        nodes.push(el("button", { class: "word", "data-index": index, "aria-pressed": "false", tabindex: "-1" }, one.text));
      } else if (!blank) nodes.push(document.createTextNode(one.text));
    });
    this.node.replaceChildren(...nodes);
    this.fresh = false;
    this.#rove(focused);
  }

  #pill(blank) {
    const { answer, original } = blank;
    const number = String(this.order.indexOf(blank.key) + 1);
    const label = answer
      ? `Blank ${number}: ${answer.text || "nothing"}, ${said(answer)}. Opens alternatives.`
      : `Blank ${number}, was ${original}`;
    const pill = el("button", {
      class: ["pill", answer && "filled", answer?.kept && "kept", this.busy && !answer?.kept && "busy"].filter(Boolean).join(" "),
      "data-index": blank.start, "data-key": blank.key, "aria-label": label, tabindex: "-1",
      title: answer ? instead(answer) : null, "aria-haspopup": answer ? "dialog" : null, "aria-pressed": answer ? null : "true",
    });
    if (blank.answer?.kept !== true && this.order.length > 1) pill.append(el("span", { class: "number", "aria-hidden": "true" }, number));
    if (!answer) {
      pill.append(el("span", { "aria-hidden": "true" }, pill.childElementCount ? "\u200b" : "\u2026"));
      return pill;
    }
    const tokens = answer.tokens?.filter((token) => !token.ends).map((token) => token.text) ?? [answer.text];
    if (tokens.some((token) => token.includes("\ufffd"))) tokens.splice(0, tokens.length, answer.text);
    const shown = el("span", { class: "answer" });
    tokens.forEach((token, at) => {
      const text = at === 0 ? token.trimStart() : token;
      shown.append(this.fresh ? el("span", { class: "token", style: { "--i": at } }, text) : text);
    });
    if (!answer.text) shown.append("\u2205");
    pill.append(shown);
    if (answer.probability !== null) pill.append(el("span", { class: "bar", style: { "--p": answer.probability } }));
    pill.append(el("span", { class: "probability" }, said(answer)));
    return pill;
  }

  #stops() { return [...this.node.querySelectorAll("[data-index]")]; }

  #rove(focus) {
    const stops = this.#stops();
    const before = stops.filter((stop) => Number(stop.dataset.index) <= this.current);
    const chosen = before.at(-1) ?? stops[0];
    for (const stop of stops) stop.tabIndex = stop === chosen ? 0 : -1;
    if (focus) chosen?.focus();
  }

  #clicked(event) {
    const stop = event.target.closest("[data-index]");
    if (!stop || this.busy) return;
    if (this.dragged) { this.dragged = false; return; }
    this.#activate(stop);
  }

  #activate(stop) {
    const index = Number(stop.dataset.index);
    this.current = index;
    const blank = this.blanks.find((one) => one.key === stop.dataset.key);
    if (blank?.answer) this.onOpen(blank, stop);
    else this.toggle(index);
  }

  #key(event) {
    const stops = this.#stops(), at = stops.indexOf(event.target);
    if (at < 0) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -stops.length, End: stops.length }[event.key];
    if (step) {
      const to = stops[Math.min(Math.max(at + step, 0), stops.length - 1)];
      event.preventDefault();
      if (event.shiftKey && to.dataset.key === undefined && !this.busy) {
        for (const stop of [event.target, to]) this.blanked.add(Number(stop.dataset.index));
        this.current = Number(to.dataset.index);
        this.changed();
      } else {
        this.current = Number(to.dataset.index);
        this.#rove(true);
      }
    } else if ((event.key === "Delete" || event.key === "Backspace") && event.target.dataset.key && !this.busy) {
      event.preventDefault();
      this.toggle(Number(event.target.dataset.index));
    }
  }

  #down(event) {
    const word = event.target.closest(".word");
    this.dragged = false;
    this.anchor = word && event.button === 0 && !this.busy ? Number(word.dataset.index) : null;
  }

  #move(event) {
    if (this.anchor === null || this.anchor === undefined) return;
    const over = document.elementFromPoint(event.clientX, event.clientY)?.closest(".board .word");
    if (!over || !this.node.contains(over)) return;
    const index = Number(over.dataset.index);
    this.range = index === this.anchor ? null : [Math.min(index, this.anchor), Math.max(index, this.anchor)];
    for (const word of this.node.querySelectorAll(".word")) {
      const at = Number(word.dataset.index);
      word.classList.toggle("drawn", Boolean(this.range) && at >= this.range[0] && at <= this.range[1]);
    }
  }

  #up() {
    const range = this.range;
    this.#endDrag();
    if (!range) return;
    this.dragged = true;
    setTimeout(() => { this.dragged = false; });  // a click follows only where both ends share a node
    for (let index = range[0]; index <= range[1]; index++) if (this.words[index].word) this.blanked.add(index);
    this.current = range[0];
    this.changed();
  }

  #endDrag() {
    this.anchor = null;
    this.range = null;
    for (const word of this.node.querySelectorAll(".drawn")) word.classList.remove("drawn");
  }
}
