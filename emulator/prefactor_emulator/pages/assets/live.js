// Keeps a page up to date, and loads what a span carries when it is opened.
"use strict";

(() => {
  const SHORTEST_PAUSE = 1000;
  const main = document.querySelector("main");
  const sign = document.getElementById("live");
  const lists = ["tbody", "#spans"];
  let known = null; // the state of the page that is shown, by the server's name for it
  const shown = new Map(); // each row as the server sent it, to find those that changed

  const note = (row) => shown.set(row.id, row.outerHTML);
  const rowsOf = (list) => [...list.children];

  async function load(body) {
    const reply = await fetch(body.dataset.from);
    if (!reply.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    body.replaceChildren(...page.querySelector("article").childNodes);
  }

  function open(row) {
    if (row.matches("details[id^='s-']") && row.open) load(row.querySelector(".body")).catch(() => {});
  }

  // Rows that stayed the same stay as they are: opened, scrolled, selected.
  function bringUpToDate(list, fresh) {
    let place = list.firstElementChild;
    const wanted = new Set(rowsOf(fresh).map((row) => row.id));
    for (const row of rowsOf(list)) {
      if (!wanted.has(row.id)) {
        if (row === place) place = place.nextElementSibling;
        shown.delete(row.id);
        row.remove();
      }
    }
    for (const row of rowsOf(fresh)) {
      const old = document.getElementById(row.id);
      if (old && shown.get(row.id) === row.outerHTML) {
        if (old === place) place = place.nextElementSibling;
        else list.insertBefore(old, place);
        continue;
      }
      note(row);
      const wasOpen = old !== null && old.open;
      if (old !== null) {
        if (old === place) place = place.nextElementSibling;
        const body = old.querySelector(".body");
        if (wasOpen && body) row.querySelector(".body").replaceChildren(...body.childNodes);
        old.remove();
      }
      list.insertBefore(row, place);
      if (wasOpen) row.open = true;
    }
  }

  function show(page) {
    const fresh = page.querySelector("main");
    const kept = lists.map((name) => main.querySelector(name));
    lists.forEach((name, index) => {
      const list = fresh.querySelector(name);
      if (kept[index] && list) {
        bringUpToDate(kept[index], list);
        list.replaceWith(kept[index]);
      } else if (list) {
        rowsOf(list).forEach(note);
      }
    });
    for (const fold of main.querySelectorAll("details.fold[open]")) {
      const again = fresh.querySelector("#" + CSS.escape(fold.id));
      if (again) again.open = true;
    }
    const height = window.scrollY;
    main.replaceChildren(...fresh.childNodes);
    window.scrollTo(0, height);
    document.title = page.title;
  }

  async function refresh() {
    const headers = known ? { "If-None-Match": known } : {};
    const reply = await fetch(location.href, { headers, cache: "no-store" });
    if (reply.status === 200) {
      show(new DOMParser().parseFromString(await reply.text(), "text/html"));
      known = reply.headers.get("ETag");
    }
  }

  function tell(word) {
    sign.hidden = false;
    sign.className = word;
    sign.textContent = word;
  }

  async function keepUp() {
    const began = performance.now();
    if (!document.hidden) {
      try {
        await refresh();
        tell("live");
      } catch {
        tell("away");
      }
    }
    // A page that is slow to make must not keep the emulator busy.
    setTimeout(keepUp, Math.max(SHORTEST_PAUSE, 10 * (performance.now() - began)));
  }

  for (const name of lists) {
    const list = main.querySelector(name);
    if (list) rowsOf(list).forEach(note);
  }
  document.addEventListener("toggle", (event) => open(event.target), true);
  const meant = location.hash && document.getElementById(location.hash.slice(1));
  if (meant && meant.matches("details")) meant.open = true; // the address names a span
  setTimeout(keepUp, SHORTEST_PAUSE);
})();
