/* Two verbalizers of one board, paired on their items. */
"use strict";

/** The difference a - b of a column, whichever way round the pair is kept; null where it is undefined. */
function difference(b, first, second, column) {
  const straight = b.pairs[`${first.id}|${second.id}`], turned = b.pairs[`${second.id}|${first.id}`];
  const found = straight ? straight[column.id] : turned && turned[column.id];
  if (!found) return null;
  const [value, low, high] = straight ? found : [found[0], found[2], found[1]].map((x) => (isNumber(x) ? -x : x));
  return { value, low, high };
}

function verdict(d, column) {
  if (!d || !isNumber(d.low) || !isNumber(d.high)) return ["open", "no paired difference"];
  if (d.low <= 0 && d.high >= 0) return ["open", "≈ cannot be told apart"];
  if (!column.better) return ["open", d.value > 0 ? "higher" : "lower"];
  return (d.value > 0) === (column.better === "higher") ? ["better", "▲ better"] : ["worse", "▼ worse"];
}

function draw() {
  if (!page.boards.length) {
    fill("summary", "There are no entries yet.");
    return;
  }
  const state = readState();
  const holds = (x) => x.entries.some((e) => e.id === state.a);
  const b = page.boards.find((x) => x.key === state.board) || page.boards.find(holds) || page.boards[0];
  const first = b.entries.find((e) => e.id === state.a) || b.entries[0];
  const others = b.entries.filter((e) => e !== first);
  const second = b.entries.find((e) => e.id === state.b) || others[0] || first;
  byId("board-pick").hidden = page.boards.length === 1;
  options("board", boardOptions(), b.key);
  const names = b.entries.map((e) => [e.id, `${short(e.name)} (${e.role})`]);
  options("a", names, first.id);
  options("b", names, second.id);
  if (first === second) {
    fill("summary", "Choose two that differ.");
    fill("comparison");
    return;
  }
  const rows = b.columns.map((column) => ({ column, d: difference(b, first, second, column) }));
  fill("summary", nameOf(first.name), " less ", nameOf(second.name), ": ", tally(rows), ".");
  fill("comparison", table("Differences", [
    { head: "Metric", row: true, cell: ({ column }) => el("span", { title: column.what }, column.title, column.better ? el("span", { class: "sub" }, `${column.better} is better`) : null) },
    { head: "First is", cell: ({ column, d }) => { const [kind, words] = verdict(d, column); return el("span", { class: `verdict ${kind}` }, words); } },
    { head: "Difference", cell: ({ d }) => el("div", { class: "stack" }, valued(d), whisker(d, centred(d), { zero: true, kind: d && d.low <= 0 && d.high >= 0 ? "flat" : "" })) },
    { head: "First", cell: ({ column }) => valued(first.cells[column.id]) },
    { head: "Second", cell: ({ column }) => valued(second.cells[column.id]) },
  ], rows, { cards: true }));
}

/** An axis with 0 in its middle. */
function centred(d) {
  if (!d) return null;
  const reach = Math.max(...[d.value, d.low, d.high].filter(isNumber).map(Math.abs), 1e-9) * 1.05;
  return [-reach, reach];
}

function tally(rows) {
  const kinds = rows.map(({ column, d }) => verdict(d, column));
  const count = (kind) => kinds.filter(([k]) => k === kind).length;
  const apart = kinds.filter(([, words]) => words.includes("told apart")).length;
  const without = kinds.filter(([, words]) => words.startsWith("no paired")).length;
  return `of ${rows.length} metrics better on ${count("better")}, worse on ${count("worse")}, cannot be told apart on ${apart}; ${rows.length - count("better") - count("worse") - apart - without} have no better side, ${without} no paired difference`;
}

function change(choices) {
  writeState({ ...readState(), ...choices });
  draw();
}
for (const id of ["a", "b"]) byId(id).addEventListener("change", () => change({ a: byId("a").value, b: byId("b").value, board: byId("board").value }));
byId("board").addEventListener("change", () => change({ board: byId("board").value, a: "", b: "" }));
byId("swap").addEventListener("click", () => change({ a: byId("b").value, b: byId("a").value }));
addEventListener("hashchange", draw);
draw();
