// Light and dark: what the system prefers, until the button says otherwise in this tab.

import { byId } from "./dom.js";

const THEME = "glm_jax.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const theme = sessionStorage.getItem(THEME) ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

export function startTheme() {
  apply();
  dark.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    sessionStorage.setItem(THEME, other);
    apply();
  });
}
