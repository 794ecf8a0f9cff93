// Part A and part B of this very sentence, token by token, with both positions and who sees whom.

import { byId, el } from "./dom.js";

const START = "start", END = "end";

// Before the model has read it: words instead of tokens, and no positions.
export function drawWords(parts, order) {
  let blank = 0;
  const cells = parts.filter((part) => part.blank || part.text.trim()).map((part) => (
    part.blank ? { text: order.length > 1 ? `blank ${order.indexOf(blank++) + 1}` : "blank", kind: "mask" } : { text: part.text.trim() }));
  const spans = order.map((blank) => ({ blank, cells: [{ text: START, kind: "sign" }, { text: "?", kind: "answer" }] }));
  draw(cells, spans);
}

// tokens: of part A; filling: of /v1/blanks, with tokens.
export function drawTokens(tokens, filling) {
  const masks = ["[MASK]", "[sMASK]", "[gMASK]"];
  const names = { "[CLS]": "begin", "<|endoftext|>": "end of text" };
  let blank = 0;
  const at = [];
  const cells = tokens.map((token, position) => {
    const isMask = masks.includes(token.text) && blank < filling.answers.length;
    if (isMask) at[blank++] = position;
    const kind = isMask ? "mask" : names[token.text] ? "sign" : "";
    return { text: isMask ? `blank ${filling.order.indexOf(blank - 1) + 1}` : names[token.text] ?? token.text, kind, position, block: 0 };
  });
  const spans = filling.order.map((number) => {
    const answer = filling.answers[number].tokens.filter((token) => !token.ends);
    const inside = [{ text: START, kind: "sign" }, ...answer.map((token) => ({ text: token.text, kind: "answer" }))];
    return { blank: number, cells: inside.map((cell, step) => ({ ...cell, position: at[number], block: step + 1 })) };
  });
  draw(cells, spans);
}

function draw(partA, spans) {
  const node = byId("drawing");
  const all = [];
  const cellOf = (cell, index, isNew) => {
    const text = cell.text.replaceAll("\ufffd", "\u00b7").trim() || "\u2423";
    const item = el("li", { class: ["cell", cell.kind, isNew && "new"].filter(Boolean).join(" "), tabindex: "0" }, el("span", {}, text));
    if (cell.position !== undefined) {
      item.append(el("small", {}, `${cell.position} \u00b7 ${cell.block}`));
      item.setAttribute("aria-label", `${text}, position ${cell.position}, ${cell.block ? `step ${cell.block} of its blank` : "part A"}, sees ${index < partA.length ? partA.length : index + 1} tokens`);
    }
    const look = () => looking(node, all, index, partA.length);
    item.addEventListener("pointerenter", look);
    item.addEventListener("focus", look);
    for (const name of ["pointerleave", "blur"]) item.addEventListener(name, () => node.classList.remove("looking"));
    all.push(item);
    return item;
  };
  const a = partA.map((cell, index) => cellOf(cell, index, false));
  const b = [];
  for (const span of spans) for (const [step, cell] of span.cells.entries()) b.push(cellOf(cell, a.length + b.length, step === 0 && b.length > 0));
  const numbers = partA.some((cell) => cell.position !== undefined);
  node.replaceChildren(
    el("figure", {}, el("figcaption", {}, "Part A, read at once: every token sees all of part A."), el("ul", { class: "cells" }, ...a)),
    b.length === 0 ? "" : el("figure", {}, el("figcaption", {}, "Part B, written from left to right: every token sees part A and what stands before it."), el("ul", { class: "cells" }, ...b)),
    numbers ? el("p", { class: "hint" }, "Under each token stand its two positions: where it belongs in the sentence, and how far into its blank it is.") : "");
}

// Token `index` sees part A and, of part B, what is written up to itself.
function looking(node, all, index, sizeA) {
  node.classList.add("looking");
  all.forEach((item, other) => {
    item.classList.toggle("looks", other === index);
    item.classList.toggle("seen", other < sizeA || other <= index);
  });
}
