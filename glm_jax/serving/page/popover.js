// What might stand in a blank instead: the tokens' alternatives, and answers of other fillings.

import { said } from "./board.js";
import { byId, el, percent, show } from "./dom.js";

const AFTER_END = 2; // alternatives to an end that are shown

let opener = null, close = () => {};

export const closePopover = () => close();

// blank: filled, of the board; ways: [{text, probability}] of other fillings.
//   onChoose(text, probability or null), onRestore(), onEmpty(): what the user wants.
export function openPopover(blank, node, { ways, onChoose, onRestore, onEmpty }) {
  close();
  const box = byId("popover"), key = blank.key;
  const done = (does) => () => { close(); does(); };
  box.replaceChildren(
    el("h3", {}, blank.answer.text || "nothing"),
    el("p", { class: "hint" }, heading(blank)),
    ...tokenLists(blank.answer, (text) => done(() => onChoose(text))()),
    ...wayList(ways, (text) => done(() => onChoose(text))()),
    el("div", { class: "row" },
      el("button", { class: "quiet", on: { click: done(onRestore) } }, `Restore \u201c${blank.original}\u201d`),
      blank.answer.kept ? el("button", { class: "quiet", on: { click: done(onEmpty) } }, "Blank it again") : null));
  show(box);
  place(box, node);
  opener = key;
  const outside = (event) => { if (!box.contains(event.target)) close(); };
  const keys = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); close(); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...box.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    if (step && at >= 0) { event.preventDefault(); buttons[(at + step + buttons.length) % buttons.length].focus(); }
    if (event.key === "Tab") {
      const to = at + (event.shiftKey ? -1 : 1);
      event.preventDefault();
      buttons[(to + buttons.length) % buttons.length].focus();
    }
  };
  document.addEventListener("pointerdown", outside);
  document.addEventListener("keydown", keys);
  close = () => {
    close = () => {};
    document.removeEventListener("pointerdown", outside);
    document.removeEventListener("keydown", keys);
    const had = box.contains(document.activeElement);
    show(box, false);
    if (had) document.querySelector(`[data-key="${opener}"]`)?.focus();
  };
  box.querySelector("button")?.focus({ preventScroll: true });
}

function heading({ answer, original }) {
  const same = answer.text === original ? "as it stood there" : `where \u201c${original}\u201d stood`;
  return `${said(answer).replace(/^./, (letter) => letter.toUpperCase())}, ${same}.`;
}

// Of each token of the answer, its alternatives; one of them puts what stands before it and itself.
function tokenLists(answer, choose) {
  if (!answer.tokens) return [];
  const lists = [];
  let before = "";
  answer.tokens.forEach((token, at) => {
    const first = at === 0;
    const title = token.ends && !first ? "Then it ends; it might go on with" : first ? "First token" : `After \u201c${before.trim()}\u201d`;
    const begun = before;
    const buttons = token.alternatives.map((one) => choice(
      one.ends ? (first ? "nothing at all" : "the end") : one.text.trim() || "a space", one.probability,
      one.id === token.id, () => choose((begun + one.text).trim())));
    lists.push(el("h4", {}, title), ...(token.ends ? buttons.filter((_, index) => !token.alternatives[index].ends).slice(0, AFTER_END) : buttons));
    before += token.text;
  });
  return lists;
}

function wayList(ways, choose) {
  if (!ways.length) return [];
  return [el("h4", {}, "In other ways to fill the sentence"),
    ...ways.map((way) => choice(way.text || "nothing", way.probability, false, () => choose(way.text)))];
}

function choice(text, probability, current, click) {
  return el("button", { class: "choice", "aria-current": current ? "true" : null, style: { "--p": probability }, on: { click } },
    el("span", { class: "what" }, text), el("span", { class: "much" }, percent(probability)));
}

function place(box, node) {
  const at = node.getBoundingClientRect(), width = box.offsetWidth, page = document.documentElement.clientWidth;
  const left = Math.min(Math.max(16, at.left + at.width / 2 - width / 2), page - width - 16);
  box.style.left = `${left + scrollX}px`;
  box.style.top = `${at.bottom + scrollY + 18}px`;
}
