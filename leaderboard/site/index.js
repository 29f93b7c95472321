/* The board: sort, filter and choose columns; every choice is in the address. */
"use strict";

const NAME = { id: "name", title: "Verbalizer" };
const SPEED = { id: "speed", title: "Texts/s", what: "Texts a second in the submitter's own run, on their own machine." };
const board = (state) => page.boards.find((b) => b.key === state.board) || page.boards[0];
const firstSort = (b) => (b.columns.find((c) => c.ranked) || NAME).id;
const firstDirection = (column) => (column === NAME || column.better === "lower" ? "asc" : "desc");

function shownColumns(b, state) {
  const wanted = state.cols === undefined ? null : state.cols.split(",");
  return b.columns.filter((c) => (wanted ? wanted.includes(c.id) : c.headline));
}

function sorted(entries, b, state) {
  const id = state.sort || firstSort(b);
  const column = [...b.columns, SPEED].find((c) => c.id === id) || NAME;
  const sign = (state.dir || firstDirection(column)) === "asc" ? 1 : -1;
  const key = (e) => {
    if (column === SPEED) return e.texts_per_second;
    const c = e.cells[id];
    return c && (isNumber(c.value) ? c.value : isNumber(c.censored_at) ? c.censored_at : null);
  };
  return [...entries].sort((x, y) => {
    if (column === NAME) return sign * x.name.localeCompare(y.name);
    const [a, c] = [key(x), key(y)];
    if (!isNumber(a) || !isNumber(c)) return isNumber(a) ? -1 : isNumber(c) ? 1 : x.name.localeCompare(y.name);
    return sign * (a - c) || x.name.localeCompare(y.name);
  });
}

function header(column, b, state) {
  const current = (state.sort || firstSort(b)) === column.id;
  const direction = current ? state.dir || firstDirection(column) : null;
  const button = el("button", { type: "button", class: "sort", title: column.what || null, "data-sort": column.id },
    column.title, el("span", { class: "arrow", "aria-hidden": "true" }, current ? (direction === "asc" ? " ↑" : " ↓") : ""));
  button.addEventListener("click", () => {
    const next = current ? (direction === "asc" ? "desc" : "asc") : firstDirection(column);
    change({ sort: column.id, dir: next });
    document.querySelector(`[data-sort="${CSS.escape(column.id)}"]`).focus();
  });
  const better = column.better ? el("span", { class: "sub" }, `${column.better} is better`) : null;
  return el("th", { scope: "col", "aria-sort": current ? (direction === "asc" ? "ascending" : "descending") : null }, button, better);
}

function drawTable(b, state) {
  const words = (state.q || "").toLowerCase();
  const kept = b.entries.filter((e) => e.name.toLowerCase().includes(words)
    && (!state.role || e.role === state.role) && (!state.status || e.status === state.status));
  const columns = shownColumns(b, state);
  const axes = new Map(columns.map((c) => [c.id, axisOf(b.entries.map((e) => e.cells[c.id]))]));
  const rows = sorted(kept, b, state).map((e) => el("tr", { class: rowClass(e), "data-id": e.id },
    el("th", { scope: "row" }, el("span", { class: "clip" }, link(e.page, e.name)), roleBadge(e.role), " ", statusBadge(e.status),
      e.eligible || !ranked(e) ? null : el("span", { class: "sub" }, `no rank: ${e.why_not}`),
      e.failed ? el("span", { class: "sub" }, `${e.failed.toLocaleString("en")} of ${e.n_texts.toLocaleString("en")} failed`) : null),
    ...columns.map((c) => el("td", { class: c.ranked ? null : "unranked" }, boardCell(e.cells[c.id], c, axes.get(c.id)))),
    el("td", { class: "n" }, speed(e.texts_per_second))));
  const head = el("tr", {}, header(NAME, b, state), ...columns.map((c) => header(c, b, state)), header(SPEED, b, state));
  fill("board-table", el("div", { class: "scroll board", tabindex: "0", role: "region", "aria-label": boardName(b) },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
  fill("count", `${kept.length} of ${b.entries.length} shown`);
}

/** Which columns there are to choose from. */
function drawChooser(b, state) {
  const shown = new Set(shownColumns(b, state).map((c) => c.id));
  const group = (title, columns) => columns.length && el("fieldset", {}, el("legend", {}, title), ...columns.map((c) => {
    const box = el("input", { type: "checkbox", checked: shown.has(c.id), value: c.id });
    box.addEventListener("change", () => {
      const chosen = [...byId("columns").querySelectorAll("input:checked")].map((i) => i.value);
      const usual = b.columns.filter((c) => c.headline).map((c) => c.id);
      change({ cols: chosen.join() === usual.join() ? "" : chosen.join() || "-" }, false);
    });
    return el("label", {}, box, ` ${c.title}`);
  }));
  fill("columns-head", `Columns (${shown.size} of ${b.columns.length})`);
  fill("columns", group("Ranked", b.columns.filter((c) => c.ranked)), group("Without a rank", b.columns.filter((c) => !c.ranked)));
}

function draw(chooser = true) {
  const state = readState();
  if (!page.boards.length) {
    byId("filters").hidden = true;
    byId("families").hidden = true;
    fill("count", "There are no entries yet.");
    return;
  }
  const b = board(state);
  byId("board-pick").hidden = page.boards.length === 1;
  const open = page.boards.filter((x) => !x.private), closed = page.boards.filter((x) => x.private);
  const group = (label, list) => list.length && el("optgroup", { label }, ...list.map((x) => el("option", { value: x.key }, x.title)));
  fill("board", group("Public packs", open), group("Private packs", closed));
  byId("board").value = b.key;
  const values = (field) => [...new Set(b.entries.map((e) => e[field]))].sort();
  options("role", [["", "all"], ...values("role").map((r) => [r, r])], state.role || "");
  options("status", [["", "all"], ...values("status").map((r) => [r, r])], state.status || "");
  if (document.activeElement !== byId("q")) byId("q").value = state.q || "";
  fill("basis", b.private ? el("span", { class: "badge private" }, "private pack") : null,
    `${b.private ? " " : ""}${b.subject}, block ${b.layer} of ${b.blocks}; suite ${b.suite} ${b.suite_version}; pack ${b.pack}; ${b.n_concepts} concepts, ${b.n_items.toLocaleString("en")} items; scorer ${b.scorer}.`);
  drawTable(b, state);
  if (chooser) drawChooser(b, state);
  fill("meanings", ...b.columns.map((c) => el("div", {}, el("dt", {}, c.title), el("dd", {}, c.what))));
  byId("families").hidden = !b.families.length;
  fill("family-links", ...b.families.map(([name, href]) => link(href, inWords(name))));
}

function change(choices, chooser = true) {
  writeState({ ...readState(), ...choices });
  draw(chooser);
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("board").addEventListener("change", () => change({ board: byId("board").value, sort: "", dir: "", cols: "" }));
byId("q").addEventListener("input", () => change({ q: byId("q").value }));
for (const id of ["role", "status"]) byId(id).addEventListener("change", () => change({ [id]: byId(id).value }));
addEventListener("hashchange", () => draw());
draw();
