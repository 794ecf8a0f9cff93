// The order in which blanks are filled: a list whose items are dragged, or moved by their buttons.

import { el } from "./dom.js";

// Shows `blanks` [{key, original}] in their order; onOrder(keys): the user has changed it.
export function showOrder(list, blanks, onOrder, focus = null) {
  const keys = blanks.map((blank) => blank.key);
  const move = (at, to, button) => {
    if (to < 0 || to >= keys.length) return;
    const other = [...keys];
    other.splice(to, 0, ...other.splice(at, 1));
    onOrder(other, { key: keys[at], button });
  };
  list.replaceChildren(...blanks.map((blank, at) => {
    const button = (sign, name, to) => el("button", {
      "aria-label": `${blank.original}: ${name}`, title: name, "data-move": name, disabled: to < 0 || to >= keys.length,
      on: { click: () => move(at, to, name) },
    }, sign);
    const item = el("li", { "data-key": blank.key },
      el("span", { class: "grip" }, el("b", {}, String(at + 1)), el("span", {}, blank.answer?.text || blank.original)),
      button("\u2190", "earlier", at - 1), button("\u2192", "later", at + 1));
    item.firstChild.addEventListener("pointerdown", (event) => drag(event, list, item, at, move));
    return item;
  }));
  if (focus) {
    const item = [...list.children].find((one) => one.dataset.key === focus.key);
    const same = item?.querySelector(`[data-move="${focus.button}"]`);
    (same?.disabled ? item.querySelector("button:not(:disabled)") : same)?.focus();
  }
}

function drag(event, list, item, at, move) {
  if (event.button !== 0) return;
  event.preventDefault();
  const grip = event.currentTarget, startX = event.clientX, startY = event.clientY;
  grip.setPointerCapture(event.pointerId);
  item.classList.add("moving");
  let to = at;
  const boxes = [...list.children].map((one) => one.getBoundingClientRect());
  const moved = (now) => {
    item.style.transform = `translate(${now.clientX - startX}px, ${now.clientY - startY}px)`;
    const distance = (box) => Math.hypot(now.clientX - (box.left + box.right) / 2, 2 * (now.clientY - (box.top + box.bottom) / 2));
    to = boxes.reduce((best, box, index) => (distance(box) < distance(boxes[best]) ? index : best), at);
  };
  const ended = (now) => {
    for (const [name, does] of [["pointermove", moved], ["pointerup", ended], ["pointercancel", ended]]) grip.removeEventListener(name, does);
    item.classList.remove("moving");
    item.style.transform = "";
    if (now.type === "pointerup" && to !== at) move(at, to, to < at ? "earlier" : "later");
  };
  for (const [name, does] of [["pointermove", moved], ["pointerup", ended], ["pointercancel", ended]]) grip.addEventListener(name, does);
}
