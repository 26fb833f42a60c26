// The page by its keys. What they do is in the page, as its help.
"use strict";

(() => {
  const help = document.getElementById("help");
  const button = document.getElementById("keys");
  const field = document.getElementById("q");
  const level = (row) => Number(row.getAttribute("aria-level"));
  const rows = () => [...document.querySelectorAll("main .row")];

  // Of a tree, Tab reaches one row: the one that had the focus last.
  function reach(row) {
    for (const each of document.querySelectorAll("#spans .row")) each.tabIndex = each === row ? 0 : -1;
  }

  function focus(row) {
    if (!row) return;
    row.focus();
    row.closest("tr, details").scrollIntoView({ block: "nearest" });
  }

  function move(row, step) {
    const all = rows();
    const place = all.indexOf(row);
    focus(all[Math.min(Math.max(place + step, 0), all.length - 1)]);
  }

  function ends(last) {
    focus(rows().at(last ? -1 : 0));
  }

  function open(row) {
    if (!row.parentElement.open) row.parentElement.open = true;
    else if (level(rows()[rows().indexOf(row) + 1] ?? row) > level(row)) move(row, 1);
  }

  function close(row) {
    if (row.parentElement.open) row.parentElement.open = false;
    else focus(rows().slice(0, rows().indexOf(row)).findLast((each) => level(each) < level(row)));
  }

  const anywhere = {
    "/": () => field?.focus(),
    "?": () => help.showModal(),
    j: (row) => move(row, 1),
    k: (row) => move(row, -1),
    ArrowDown: (row) => move(row, 1),
    ArrowUp: (row) => move(row, -1),
    Home: () => ends(false),
    End: () => ends(true),
  };
  const inTree = {
    ArrowRight: open,
    ArrowLeft: close,
  };

  function leave(row) {
    const span = row?.closest("details") ?? document.activeElement.closest("#spans > details");
    if (document.activeElement === field) field.blur();
    else if (span?.open) {
      span.open = false;
      span.firstElementChild.focus();
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || help.open) return;
    const at = document.activeElement;
    const row = at.closest(".row");
    if (event.key === "Escape") {
      if (at === field) event.preventDefault(); // the words stay
      leave(row);
    } else if (!at.matches("input, select, textarea") || (at === field && event.key === "ArrowDown")) {
      const act = (row?.matches("summary") && inTree[event.key]) || anywhere[event.key];
      if (!act) return;
      event.preventDefault();
      act(row);
    }
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches("#spans .row")) reach(event.target);
  });
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
})();
