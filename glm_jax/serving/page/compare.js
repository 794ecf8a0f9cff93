// Fillings of the same sentence in several orders, side by side.

import { el, percent } from "./dom.js";

// fillings: of /v1/blanks; parts: of the board; open: its blanks; mine: the order that the user has chosen.
export function showCompared(node, fillings, { parts, open, mine }) {
  const best = Math.max(...fillings.map((one) => one.log_probability));
  node.replaceChildren(...fillings.map((filling) => {
    const isMine = String(filling.order) === String(mine);
    const leads = filling.log_probability === best && fillings.some((one) => one.log_probability < best);
    const names = filling.order.map((blank) => filling.answers[blank].text || "\u2205");
    return el("article", { class: leads ? "way best" : "way" },
      el("h3", {}, isMine ? "Your order" : nameOf(filling.order)),
      sentence(parts, open, filling.answers.map((answer) => answer.text)),
      el("ol", { class: "steps" }, ...filling.order.map((blank, step) => el("li", {},
        el("span", {}, `${step + 1}. ${names[step]}`), el("span", {}, percent(filling.answers[blank].probability))))),
      el("p", { class: "total" }, el("span", {}, leads ? "All together (the most probable)" : "All together"),
        el("b", {}, percent(filling.probability, 3))));
  }));
}

function nameOf(order) {
  const numbers = [...order];
  if (numbers.every((blank, at) => blank === at)) return "Left to right";
  if (numbers.every((blank, at) => blank === order.length - 1 - at)) return "Right to left";
  return "Another order";
}

// The sentence with answers marked.
export function sentence(parts, open, answers) {
  return el("p", { class: "sentence", dir: "auto" }, ...parts.map((part) => {
    if (!part.blank) return part.text;
    return el("mark", {}, answers[open.findIndex((blank) => blank.key === part.of.key)] || "\u2205");
  }));
}
