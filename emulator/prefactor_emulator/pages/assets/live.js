// Keeps a page up to date, searches while words are typed, and loads what a span carries when it is opened.
"use strict";

(() => {
  const SHORTEST_PAUSE = 1000;
  const LONGEST_PAUSE = 10000;
  const TYPING_PAUSE = 250;
  const main = document.querySelector("main");
  const sign = document.getElementById("live");
  const search = document.getElementById("search");
  const shown = new Map(); // each part as the server sent it, by its id, to find those that changed
  let known = null; // the state of the page that is shown, by the server's name for it
  let latest = 0; // the number of the latest request
  let typing = null; // what waits for the next letter

  function noteAll(parent) {
    for (const part of parent.children) {
      if ("live" in part.dataset) noteAll(part);
      else shown.set(part.id, part.outerHTML);
    }
  }

  async function load(body) {
    const reply = await fetch(body.dataset.from);
    if (!reply.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    body.replaceChildren(...page.querySelector("article").childNodes);
  }

  function toggled(row) {
    if (!row.matches("details[id^='s-']")) return;
    row.firstElementChild.setAttribute("aria-expanded", row.open);
    if (row.open) load(row.querySelector(".body")).catch(() => {});
  }

  // What stayed the same stays as it is: opened, scrolled, selected, focused. Of a part that is marked as live,
  // this holds for each part in it.
  function bringUpToDate(parent, fresh) {
    const old = new Map([...parent.children].map((part) => [part.id, part]));
    const wanted = new Set([...fresh.children].map((part) => part.id));
    for (const [id, part] of old) {
      if (!wanted.has(id)) {
        shown.delete(id);
        part.remove();
      }
    }
    let place = parent.firstElementChild;
    for (const part of [...fresh.children]) {
      const present = old.get(part.id);
      if (present === undefined) {
        noteAll({ children: [part] });
        parent.insertBefore(part, place);
        continue;
      }
      if (present === place) place = place.nextElementSibling;
      else parent.insertBefore(present, place);
      if ("keep" in part.dataset) continue;
      if ("live" in part.dataset) bringUpToDate(present, part);
      else if (shown.get(part.id) !== part.outerHTML) replace(present, part);
    }
  }

  function replace(old, part) {
    shown.set(part.id, part.outerHTML);
    const focused = old.contains(document.activeElement);
    const bodies = [old, part].map((each) => each.querySelector(":scope > .body"));
    if (old.open && bodies[0]) bodies[1].replaceChildren(...bodies[0].childNodes);
    if ("open" in old) part.open = old.open;
    old.replaceWith(part);
    if (focused) (part.matches("details") ? part.firstElementChild : part.querySelector("a"))?.focus();
  }

  async function refresh() {
    const number = ++latest;
    const asked = location.href;
    const headers = known ? { "If-None-Match": known } : {};
    const reply = await fetch(asked, { headers, cache: "no-store" });
    const page = reply.status === 200 ? await reply.text() : null;
    if (number !== latest) return; // by now something else is wanted
    if (!reply.ok && reply.status !== 304) throw new Error(reply.statusText);
    if (reply.redirected) location.assign(asked); // the words are the id of a span, whose run is elsewhere
    else if (page !== null) {
      const fresh = new DOMParser().parseFromString(page, "text/html");
      bringUpToDate(main, fresh.querySelector("main"));
      document.title = fresh.title;
      known = reply.headers.get("ETag");
    }
  }

  function tell(word) {
    if (sign.textContent === word) return;
    sign.hidden = false;
    sign.className = word;
    sign.textContent = word;
  }

  const refreshAndTell = () => refresh().then(() => tell("live"), () => tell("away"));

  async function keepUp() {
    const began = performance.now();
    if (!document.hidden && !typing) await refreshAndTell();
    // A page that is slow to make must not keep the emulator busy.
    const pause = Math.max(SHORTEST_PAUSE, 10 * (performance.now() - began));
    setTimeout(keepUp, Math.min(pause, LONGEST_PAUSE));
  }

  function searchSoon() {
    search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        typing = null;
        const address = new URL(search.action);
        for (const [name, value] of new FormData(search)) if (value.trim()) address.searchParams.set(name, value);
        history.replaceState(null, "", address);
        known = null;
        refreshAndTell();
      }, TYPING_PAUSE);
    });
  }

  noteAll(main);
  document.addEventListener("toggle", (event) => toggled(event.target), true);
  document.querySelectorAll("#spans > [open]").forEach(toggled);
  if (search) searchSoon();
  setTimeout(keepUp, SHORTEST_PAUSE);
})();
