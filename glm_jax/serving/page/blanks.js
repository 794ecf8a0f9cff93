// The tab of blanks: what is asked of the server, and what becomes of the answers.

import { post, info, Problem } from "./api.js";
import { Board } from "./board.js";
import { sentence, showCompared } from "./compare.js";
import { byId, el, percent, show, tell } from "./dom.js";
import { drawTokens, drawWords } from "./drawing.js";
import { showOrder } from "./order.js";
import { closePopover, openPopover } from "./popover.js";
import { chinese, example } from "./words.js";

// Of the kind of text that the bundled model has read; in the first the order makes the largest difference.
const EXAMPLES = [
  "She wept, because her [son] was [dead].",
  "He took the [bread], and gave it to his [disciples].",
  "Moses stretched out his [hand] over the [sea].",
  "God made the [sky], and it was [so].",
  "They went up to [Jerusalem] to [worship] before [God].",
  "春[眠]不覺曉，處處聞啼[鳥]。",
  "床前明月[光]，疑是地上霜。",
];
const ALTERNATIVES = 5;
const COMPILING = "The server is still compiling its programs; the first answers take a little longer.";
// Orders of four blanks are 24; of five, 120 would be more than anyone reads.
const MOST_COMPARED = 4;

// Of a search, whose time grows with it.
const LONGEST_SEARCHED = 12;

let board, model, running = null, ways = [];
let known = { text: "", tokens: 0 }; // the text that was filled last, and how many tokens it has

export function startBlanks(served) {
  model = served;
  board = new Board(byId("board"), { onChange: changed, onOpen: opened });
  byId("examples").append(...EXAMPLES.map((marked) => {
    const { text, blanks } = example(marked);
    const spoken = marked.replaceAll(/\[[^\]]*\]/g, " blank ");
    return el("button", { "aria-label": spoken, lang: chinese(text) ? "zh" : null, on: { click: () => { leaveEditing(); start(text, blanks); } } },
      ...marked.split(/(\[[^\]]*\])/).map((part) => (part.startsWith("[") ? el("span", { class: "gap" }) : part)));
  }));
  const first = example(EXAMPLES[0]);
  start(first.text, first.blanks);
  byId("edit").addEventListener("click", () => (byId("own").hidden ? edit() : leaveEditing()));
  byId("own").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); leaveEditing(true); }
    if (event.key === "Escape") leaveEditing(true);
  });
  byId("restore").addEventListener("click", () => board.restoreAll());
  byId("fill").addEventListener("click", () => fill());
  byId("stop").addEventListener("click", () => running?.abort());
  byId("all-orders").addEventListener("click", () => fill("all"));
  byId("search").addEventListener("click", search);
  byId("another").addEventListener("click", () => { byId("seed").value = Math.floor(Math.random() * 1e6); });
  byId("temperature").addEventListener("input", () => { byId("temperature-now").value = byId("temperature").value; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("blanks").hidden) fill();
  });
}

function start(text, blanks) {
  running?.abort();
  show(byId("compare-part"), false);
  board.setText(text, blanks);
}

function edit() {
  closePopover();
  byId("own").value = board.text;
  for (const [name, seen] of [["own", true], ["board", false]]) show(byId(name), seen);
  byId("edit").textContent = "Done";
  byId("fill").disabled = true;
  tell(byId("status"), "");
  tell(byId("problem"), "");
  tell(byId("hint"), "Type a sentence; Enter ends it. Then choose the words to blank.");
  byId("own").focus();
  byId("own").select();
}

function leaveEditing(focus = true) {
  if (byId("own").hidden) return;
  const text = byId("own").value.trim();
  for (const [name, seen] of [["own", false], ["board", true]]) show(byId(name), seen);
  byId("edit").textContent = "Type your own";
  if (text && text !== board.text) start(text, []);
  else changed();
  if (focus) byId("board").querySelector("[tabindex='0']")?.focus();
}

// Other words are blanks: what was said of the old ones is taken away.
function changed() {
  closePopover();
  tell(byId("problem"), "");
  tell(byId("search-problem"), "");
  tell(byId("status"), "");
  tell(byId("hint"), board.blanks.length
    ? "Click words to blank them, or drag across several. A blank is clicked again to bring its words back."
    : "Click a word to blank it, or drag across several; with the keyboard, arrows and Enter.");
  byId("fill").disabled = board.open.length === 0 || running !== null;
  show(byId("compare-part"), false);
  forgetWays();
  drawOrder();
  drawWords(board.parts(), board.permutation);
}

function forgetWays() {
  ways = [];
  byId("ways").replaceChildren();
  show(byId("ways-part"), board.open.length > 0);
  byId("search").disabled = false;
  tell(byId("search-status"), "");
}

function drawOrder(focus = null) {
  const open = board.open, order = board.permutation.map((blank) => open[blank]);
  show(byId("order-part"), open.length > 1);
  showOrder(byId("order"), order, (keys, moved) => {
    const kept = board.order.filter((key) => !keys.includes(key));
    board.order = [...keys, ...kept];
    board.render();
    drawOrder(moved);
    drawWords(board.parts(), board.permutation);
    tell(byId("status"), `The order is now ${keys.map((key) => open.find((blank) => blank.key === key).original).join(", then ")}.`);
  }, focus);
}

function options() {
  const temperature = Number(byId("temperature").value);
  const typed = byId("longest").value.trim(), longest = Number(typed), seed = Number(byId("seed").value);
  if (typed && (!Number.isInteger(longest) || longest < 1)) throw new Problem("The longest answer must be a whole number of tokens, one at least.");
  if (!Number.isInteger(seed) || seed < 0) throw new Problem("The seed must be a whole number, not below 0.");
  return { ...(typed ? { max_tokens: longest } : {}), ...(temperature > 0 ? { temperature, seed } : {}) };
}

// The order that the user has chosen, and one to compare it with.
function ordersOf(mine, which) {
  if (mine.length < 2) return [mine];
  if (which === "all") return "all";
  const right = [...mine.keys()], left = [...right].reverse();
  return [mine, String(mine) === String(right) ? left : right];
}

async function fill(which = "two") {
  if (running || !board.open.length || !byId("own").hidden) return;
  const open = board.open, mine = board.permutation, parts = board.parts();
  await working(byId("status"), byId("problem"), async (asked) => {
    const response = await asked("/v1/blanks", {
      text: board.asked(), order: ordersOf(mine, which), logprobs: ALTERNATIVES, ...options(),
    });
    const { results: [{ fillings, tokens }] } = await response.json();
    known = { text: JSON.stringify(board.asked()), tokens: tokens.length };
    const chosen = fillings.find((one) => String(one.order) === String(mine));
    board.busy = false;
    board.fresh = true;
    open.forEach((blank, index) => board.answers.set(blank.key, chosen.answers[index]));
    board.render();
    drawOrder();
    drawTokens(tokens, chosen);
    tell(byId("hint"), "Choose an answer to see what else might stand there.");
    show(byId("compare-part"), fillings.length > 1);
    show(byId("all-orders"), open.length > 2 && open.length <= MOST_COMPARED && which !== "all");
    if (fillings.length > 1) {
      const shown = which === "all" ? fillings.toSorted((a, b) => b.log_probability - a.log_probability) : fillings;
      byId("compare-part").querySelector("h2").textContent = which === "all" ? `All ${shown.length} orders` : "Two orders, side by side";
      showCompared(byId("compare"), shown, { parts, open, mine });
    }
    const said = open.map((_, index) => `${chosen.answers[index].text || "nothing"}, ${percent(chosen.answers[index].probability)}`);
    return `Filled: ${said.join("; ")}.`;
  });
}

// Runs `work(asked)` with the buttons, the status and the errors that go with it.
async function working(status, problem, work) {
  running = new AbortController();
  const { signal } = running;
  closePopover();
  tell(problem, "");
  tell(status, "");
  board.busy = true;
  board.render();
  byId("fill").disabled = byId("search").disabled = true;
  const slow = setTimeout(async () => {
    show(byId("stop"));
    const state = await info().then((one) => one.state, () => "");
    if (!signal.aborted && state === "compiling" && !status.textContent) tell(status, COMPILING);
  }, 700);
  try {
    const said = await work((path, body) => post(path, body, { signal, onWait: (sentence) => tell(status, sentence) }));
    tell(status, signal.aborted ? "" : said);
  } catch (error) {
    tell(status, signal.aborted ? "Stopped." : "");
    if (!signal.aborted) {
      tell(problem, error instanceof Problem ? error.message : "The page could not read the server's answer.");
      if (!(error instanceof Problem)) console.error(error);
    }
  } finally {
    clearTimeout(slow);
    running = null;
    if (board.busy) { board.busy = false; board.render(); }
    show(byId("stop"), false);
    byId("fill").disabled = board.open.length === 0;
    byId("search").disabled = false;
  }
}

async function search() {
  if (running || !board.open.length) return;
  const open = board.open, parts = board.parts();
  await working(byId("search-status"), byId("search-problem"), async (asked) => {
    const count = model.candidates;
    const response = await asked("/v1/blanks", { text: board.asked(), candidates: count, max_tokens: searchLength(open.length) });
    const { results: [{ candidates }] } = await response.json();
    ways = candidates.map((one) => ({ ...one, keys: open.map((blank) => blank.key) }));
    byId("ways").replaceChildren(...ways.map((way) => el("li", {}, el("button", { on: { click: () => putAll(way) } },
      sentenceInline(parts, open, way.answers), el("span", {}, percent(way.probability))))));
    return candidates.length ? "" : "The search found nothing.";
  });
}

// Tokens of the longest answer that is searched for; nothing: what the server takes.
function searchLength(blanks) {
  const { max_tokens: typed } = options();
  if (typed || known.text !== JSON.stringify(board.asked())) return typed;
  return Math.max(1, Math.min(LONGEST_SEARCHED, Math.floor((model.context - known.tokens) / blanks)));
}

function sentenceInline(parts, open, answers) {
  const line = sentence(parts, open, answers);
  return el("span", { dir: "auto" }, ...line.childNodes);
}

function putAll(way) {
  board.fresh = true;
  way.keys.forEach((key, index) => board.answers.set(key, { text: way.answers[index], probability: null, tokens: null, kept: false }));
  board.render();
  afterChoice(`Put in: ${way.answers.map((answer) => answer || "nothing").join("; ")}, together ${percent(way.probability)}.`);
}

function afterChoice(sentenceSaid) {
  tell(byId("status"), sentenceSaid);
  tell(byId("problem"), "");
  show(byId("compare-part"), false);
  byId("fill").disabled = board.open.length === 0;
  drawOrder();
  drawWords(board.parts(), board.permutation);
  show(byId("ways-part"), board.open.length > 0 || ways.length > 0);
}

function opened(blank, node) {
  const others = new Map();
  for (const way of ways) {
    const at = way.keys.indexOf(blank.key);
    if (at >= 0 && !others.has(way.answers[at])) others.set(way.answers[at], { text: way.answers[at], probability: way.probability });
  }
  openPopover(blank, node, {
    ways: [...others.values()],
    onChoose: (text) => {
      board.put(blank.key, { text, probability: null, tokens: null, kept: true });
      focusOn(blank.key);
      afterChoice("Your choice counts as text now. Fill again to see what the other blanks become.");
    },
    onRestore: () => { board.toggle(blank.start); byId("board").querySelector("[tabindex='0']")?.focus(); },
    onEmpty: () => {
      board.answers.delete(blank.key);
      board.changed();
      focusOn(blank.key);
    },
  });
}

function focusOn(key) {
  byId("board").querySelector(`[data-key="${key}"]`)?.focus();
}
