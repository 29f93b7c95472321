/* Steers and said: the four cells of two verdicts on every direction, at one strength. */
"use strict";

/** In the order of a crossing's cells. */
const QUADRANTS = [
  { name: "both", label: "steers and is said", gist: "the text names what moves the subject" },
  { name: "unsaid", label: "steers but is not said", gist: "the subject is moved, and the text is silent" },
  { name: "idle", label: "is said but does not steer", gist: "the text names what moves nothing" },
  { name: "neither", label: "neither", gist: "nothing moves, and nothing is said" },
];
const crossings = { r: page.said && page.said.start };
const crossingOf = (name) => page.said.crossings.find((c) => c.verbalizer === name)?.at.find((at) => at.r === crossings.r);
const countsOf = (name) => crossingOf(name)?.cells.map((cell) => cell.length);

function drawCrossing() {
  if (!page.said) return;
  const found = crossingOf(state.concept);
  if (!found) {
    byId("said-basis").textContent = `The texts of ${state.concept} were not judged here.`;
    for (const id of ["said-picture", "said-others", "said-tests"]) fill(id);
    return;
  }
  const [both, unsaid, idle, neither] = countsOf(state.concept);
  const steer = both + unsaid;
  byId("said-basis").textContent = `Upstream at r = ${strength(crossings.r)}, ${steer} of ${steer + idle + neither} directions steer. ` +
    `${state.concept} says ${both} of them, and ${idle} that do not steer.${besides()}`;
  fill("said-picture", el("div", { class: "crossing" },
    el("span", { class: "axis", "aria-hidden": "true" }, "said"), el("span", { class: "axis", "aria-hidden": "true" }, "not said"),
    el("span", { class: "axis down", "aria-hidden": "true" }, "steers"), el("span", { class: "axis down second", "aria-hidden": "true" }, "does not steer"),
    ...found.cells.map((cell, i) => quadrant(QUADRANTS[i], cell))));
  drawCrossingTables(found);
}

function quadrant({ name, label, gist }, concepts) {
  return el("div", { class: `quadrant ${name}` },
    el("p", { class: "count num" }, String(concepts.length)),
    el("p", { class: "verdict" }, el("b", {}, label), el("span", { class: "gist" }, gist)),
    concepts.length ? el("ul", { class: "names" }, ...concepts.map((i) => el("li", {}, el("bdi", {}, page.concepts[i].title)))) : null);
}

/** What the ceiling and the floors say of the same directions: what it takes to have said something. */
function besides() {
  const floors = page.verbalizers.filter((v) => v.role === "floor" && countsOf(v.name)).map((v) => countsOf(v.name));
  const top = ceiling && countsOf(ceiling.name);
  const most = (i) => d3.max(floors, (counts) => counts[i]);
  const parts = [top && `${ceiling.name}, the ceiling, says ${top[0]} and ${top[2]}`, floors.length && `the floors say ${most(0)} and ${most(2)} at most`];
  const told = parts.filter(Boolean).join("; ");
  return told && ` For comparison: ${told}.`;
}

function drawCrossingTables(found) {
  const count = (i) => (v) => String(countsOf(v.name)[i]);
  fill("said-others", table(`Steers and said at r = ${strength(crossings.r)}, by verbalizer`, [
    { head: "Verbalizer", row: true, cell: (v) => el("span", { class: "who" }, el("bdi", {}, v.name), " ", roleBadge(v.role)) },
    ...QUADRANTS.map(({ label }, i) => ({ head: label[0].toUpperCase() + label.slice(1), n: true, cell: count(i) })),
  ], page.verbalizers.filter((v) => countsOf(v.name))));
  const gateOf = (concept) => concept.gate.find((g) => g.r === crossings.r);
  const said = new Set([...found.cells[0], ...found.cells[2]]);
  const rows = found.tests.map(([i, score, permuted, q]) =>
    ({ concept: page.concepts[i], gate: gateOf(page.concepts[i]), score, permuted, q, said: said.has(i) }));
  fill("said-tests", table(`The two tests of ${state.concept} at r = ${strength(crossings.r)}`, [
    { head: "Concept", row: true, cell: (row) => el("bdi", {}, row.concept.title) },
    { head: "Steers?", cell: (row) => passed(row.gate?.steers) },
    { head: "Answers: score", n: true, cell: (row) => show(row.gate?.score) },
    { head: "permuted", n: true, cell: (row) => show(row.gate?.permuted) },
    { head: "q", n: true, cell: (row) => rate(row.gate?.q) },
    { head: "Said?", cell: (row) => passed(row.said) },
    { head: "Texts: score", n: true, cell: (row) => show(row.score) },
    { head: "permuted", n: true, cell: (row) => show(row.permuted) },
    { head: "q", n: true, cell: (row) => rate(row.q) },
  ], rows), el("p", { class: "footnotes" },
    "Scores are standardized, in the concept's column. q: the false discovery rate at which the verdict would just pass. To steer, answers must also keep a bounded loss and not loop."));
}

const passed = (does) => (does === undefined ? "—" : does ? "✓ yes" : "✗ no");
const rate = (q) => (isNumber(q) && q < 0.001 ? "< 0.001" : show(q, 3));
