// The page: which model is here, and which tabs it has.

import { info, Problem } from "./api.js";
import { startBlanks } from "./blanks.js";
import { startChat } from "./chat.js";
import { byId, show, tell } from "./dom.js";
import { startTheme } from "./theme.js";

const TABS = ["blanks", "chat"];

function choose(name, focus = false) {
  for (const one of TABS) {
    const tab = byId(`tab-${one}`), chosen = one === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) tab.focus();
    show(byId(one), chosen);
  }
}

function startTabs(model) {
  const there = TABS.filter((name) => (name === "blanks" ? model.fills_blanks : model.chats));
  if (!there.length) {
    tell(byId("notice"), "This model neither fills blanks nor chats; /docs lists what it can be asked.");
    return;
  }
  show(byId("tabs"), there.length > 1);
  byId("tabs").addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab.id.slice("tab-".length));
  });
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = there.findIndex((name) => byId(`tab-${name}`) === document.activeElement);
    choose(there[(at + step + there.length) % there.length], true);
  });
  choose(there[0]);
}

const short = (count) => new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 2 }).format(count);

async function start() {
  startTheme();
  try {
    const model = await info();
    byId("model").textContent = model.name;
    byId("facts").textContent =
      `${short(model.parameters)} parameters in ${model.layers} layers; texts of up to ${model.context.toLocaleString("en")} tokens.`;
    if (model.fills_blanks) startBlanks(model);
    if (model.chats) startChat(model);
    startTabs(model);
  } catch (error) {
    const known = error instanceof Problem;
    tell(byId("notice"), known ? error.message : "The server cannot be reached; load the page again in a moment.");
    if (!known) console.error(error);
  }
}

start();
