/* Reconstruction: what comes back of the vector from the text. */
"use strict";

const rebuilt = page.reconstruction && { verbalizer: page.reconstruction.verbalizers[0].verbalizer, metric: "fve_over_mean" };
const rebuiltCells = (name) => page.reconstruction.verbalizers.find((v) => v.verbalizer === name)?.cells || [];
const isMatched = (c) => c.arm === "steered" && c.level === "matched";
const FIGURES = { fve: "FVE, as published", fve_over_mean: "FVE over the mean", fve_over_rock: "FVE over the concept's mean", cosine: "cosine" };

function drawReconstruction() {
  fill("reconstruction-legend", ...MOVED.map((arm) => armKey(arm)), armKey("natural", { line: false }), armKey("neutral", { line: false }),
    armKey("steered", { line: false, hollow: true, label: "steered at matched evidence, the natural items' partners" }));
  const names = page.reconstruction.verbalizers.map((v) => v.verbalizer);
  const width = panelWidth("reconstruction-charts", names.length);
  fill("reconstruction-charts", ...names.map((name) => fidelityPanel(name, width)));
  drawDisplacement();
  drawReconstructionTables();
}

function fidelityPanel(name, width) {
  const cells = rebuiltCells(name);
  const slots = slotsOf(cells, { before: ["paired"] });
  const series = [
    { arm: "natural", name: "natural", points: mark(cells.find((c) => c.arm === "natural"), 0, "fve_over_mean", "no r"), line: false },
    { arm: "steered", name: "steered", points: mark(cells.find(isMatched), 0, "fve_over_mean", "matched evidence"), line: false, hollow: true },
    { arm: "neutral", name: "neutral", points: mark(cells.find((c) => c.arm === "neutral"), slots.at(0), "fve_over_mean", "r = 0"), line: false },
    ...MOVED.map((arm) => ({ arm, name: arm, points: points(cells, arm, slots, "fve_over_mean") })),
  ];
  const all = series.flatMap((s) => s.points);
  const box = el("div", { class: "multiple" }, headOf(name), el("p", { class: "chart-title" }, "Explained over the held-out mean"));
  const label = `Variance explained over the held-out mean by the texts of ${name}, by arm and r; the table below has the numbers`;
  box.append(!all.length ? el("p", { class: "muted" }, "not measured") : curvesPanel(label, {
    width, height: 240, series, slots, domain: domainOf(all, { holds: [0], most: [-Infinity, 1] }), rules: [0] }));
  return box;
}

/** One panel per arm: what comes back of the displacement, beside what comes back from texts of other items. */
function drawDisplacement() {
  const cells = rebuiltCells(rebuilt.verbalizer);
  const metric = "displacement_recovered";
  const slots = slotsOf(cells, { zero: false });
  const controls = [...new Set(cells.flatMap((c) => Object.keys(c.figures[metric] || {})))].filter((control) => control && !FIXED.includes(control));
  const panels = MOVED.map((arm) => ({ arm, series: [
    { arm, name: arm, points: points(cells, arm, slots, metric) },
    ...controls.map((control) => ({ ...A_CONTROL, arm, name: `${arm}, ${controlName(control)}`, points: points(cells, arm, slots, metric, { control }) })),
  ] })).filter(({ series }) => series[0].points.length);
  const all = panels.flatMap(({ series }) => series.flatMap((s) => s.points));
  fill("displacement-legend", armKey("steered", { label: "the verbalizer's own texts" }),
    ...controls.map((control) => armKey("steered", { ...A_CONTROL, label: page.reconstruction.controls[control] || controlName(control) })));
  const width = panelWidth("displacement-charts", panels.length, { most: 4 });
  const domain = domainOf(all, { holds: [0], reach: 0.3 });
  fill("displacement-charts", ...panels.map(({ arm, series }) => el("div", { class: "multiple" }, el("div", { class: "multiple-head" }, el("b", {}, arm)),
    curvesPanel(`Share of the displacement recovered, ${arm}, by r, beside its controls`, { width, height: 170, series, slots, domain, rules: [0] }))),
    panels.length ? null : el("p", { class: "muted" }, "No displacement was measured."));
}
const A_CONTROL = { dashed: true, hollow: true, colour: "var(--muted)" };
/** One text of every item gives one vector: nothing of a displacement comes back from it, by construction. */
const FIXED = ["constant_text", "average_direction"];

function drawReconstructionTables() {
  const notes = new Notes();
  const cells = rebuiltCells(rebuilt.verbalizer);
  const moved = (c, shown) => (MOVED.includes(c.arm) && c.level === "grid" ? shown() : "");
  fill("reconstruction-table", table(`Reconstruction from the texts of ${rebuilt.verbalizer}, by arm`, [
    { head: "Arm", row: true, cell: (c) => el("span", { class: "who" }, cellWords(c)) },
    { head: "r", n: true, cell: (c) => strength(c.r) },
    { head: "Items", n: true, cell: (c) => String(c.n) },
    ...Object.entries(FIGURES).map(([metric, head]) => ({ head, n: true, cell: (c) => interval(figureOf(c, metric), notes) })),
    { head: "FVE of the unmoved", n: true, cell: (c) => moved(c, () => interval(figureOf(c, "fve_unmoved"), notes)) },
    { head: "Displacement recovered", n: true, cell: (c) => moved(c, () => interval(figureOf(c, "displacement_recovered"), notes)) },
    { head: "… over other items' texts", n: true, cell: (c) => moved(c, () => interval(c.leads.displacement_recovered?.other_items_text, notes, { signed: true })) },
  ], cells, { tight: true }), notes.list(), el("p", { class: "footnotes" },
    "FVE: 1 − squared error ÷ spread, of directions. As published: the spread about the plain held-out mean. Over the mean: about that mean's own " +
    "direction. Over the concept's mean: about a mean that knows concept and r. Of the unmoved: the reconstruction against the activation before it was moved."));
  drawControls(cells);
}

/** Natural items and their matched partners: the figure of every text that might stand in the text's place. */
function drawControls(cells) {
  const notes = new Notes();
  const [natural, matched] = [cells.find((c) => c.arm === "natural"), cells.find(isMatched)];
  const held = [natural, matched].filter(Boolean);
  const names = ["", ...new Set(held.flatMap((c) => Object.keys(c.figures[rebuilt.metric] || {})).filter(Boolean))];
  const missing = { missing: "not measured here" };
  const lead = (cell, control) => (control ? interval(cell?.leads[rebuilt.metric]?.[control], notes, { signed: true, ...missing }) : "");
  fill("controls-table", table(`Controls of ${FIGURES[rebuilt.metric]}, ${rebuilt.verbalizer}`, [
    { head: "What is read back", row: true, cell: (control) => controlWords(control, page.reconstruction.controls) },
    { head: "Natural", n: true, cell: (control) => interval(figureOf(natural, rebuilt.metric, control), notes, missing) },
    { head: "own text's lead", n: true, cell: (control) => lead(natural, control) },
    { head: "Steered, matched", n: true, cell: (control) => interval(figureOf(matched, rebuilt.metric, control), notes, missing) },
    { head: "own text's lead", n: true, cell: (control) => lead(matched, control) },
  ], names, { cards: true }), notes.list());
}

/** A control's name with what it says in its place. */
const controlWords = (control, meanings) => (control
  ? el("span", { class: "who wide" }, controlName(control), el("span", { class: "sub" }, meanings[control] || ""))
  : el("span", { class: "who wide" }, "its own text", el("span", { class: "sub" }, "what the verbalizer wrote of the item")));

sections.push({
  name: "reconstruction",
  start() {
    choose("reconstruction-verbalizer", optionsOf(page.reconstruction.verbalizers.map((v) => v.verbalizer)), rebuilt.verbalizer, (value) => { rebuilt.verbalizer = value; drawReconstruction(); });
    choose("reconstruction-metric", Object.entries(FIGURES), rebuilt.metric, (value) => { rebuilt.metric = value; drawReconstructionTables(); });
  },
  draw: drawReconstruction,
});
