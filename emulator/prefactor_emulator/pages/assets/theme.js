// Light or dark: as the system has it, or as was chosen here. Comes before the page, which so never flashes.
"use strict";

(() => {
  const NAME = "prefactor-emulator-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function remembered() {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // a browser that keeps nothing
    }
  }

  function remember(theme) {
    try {
      if (theme) localStorage.setItem(NAME, theme);
      else localStorage.removeItem(NAME);
    } catch {
      // It holds for this page.
    }
  }

  function choose(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  function turn() {
    const usual = system.matches ? "dark" : "light";
    const next = (root.dataset.theme || usual) === "dark" ? "light" : "dark";
    const chosen = next === usual ? null : next; // back at what the system has, it is followed again
    remember(chosen);
    choose(chosen);
  }

  choose(remembered());
  addEventListener("storage", (event) => event.key === NAME && choose(event.newValue));
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", turn);
  });
})();
