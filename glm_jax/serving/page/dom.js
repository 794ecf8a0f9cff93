// Small helpers. Text of users and of the model is set as textContent, never as markup.

export const byId = (id) => document.getElementById(id);

// el("button", {class: "word", on: {click: f}, "aria-pressed": "true"}, "text", child)
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, does] of Object.entries(value)) node.addEventListener(event, does);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name in node && typeof value === "boolean") node[name] = value;
    else node.setAttribute(name, value);
  }
  if (tag === "button") node.type = "button";
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const show = (node, visible = true) => { node.hidden = !visible; };

// One sentence near what caused it; "" takes it away.
export function tell(node, sentence) {
  node.textContent = sentence;
  if (node.classList.contains("problem")) show(node, sentence !== "");
}

// 0.7708 -> "77 %", 0.00312 -> "0.31 %", 0.00002 -> "1 in 50,000", 3e-9 -> "3 × 10⁻⁹"
export function percent(probability, digits = 2) {
  if (probability <= 0) return "0 %";
  if (probability < 1e-6) {
    const [factor, power] = probability.toExponential(0).split("e-");
    return `${factor} \u00d7 10\u207b${[...power].map((digit) => SUPERSCRIPTS[digit]).join("")}`;
  }
  if (probability < 0.0001) return `1 in ${(1 / probability).toLocaleString("en", { maximumSignificantDigits: 2 })}`;
  if (probability > 0.995) return probability > 0.9995 ? "100 %" : `${(100 * probability).toFixed(1)} %`;
  return `${Number((100 * probability).toPrecision(digits))} %`;
}

const SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
