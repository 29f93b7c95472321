/* Figures of arms against r, in small panels side by side. Shapes repeat what colours say. */
"use strict";

const SHAPES = {
  natural: "star", neutral: "cross", steered: "circle", permuted: "square", random: "diamond", graft: "triangle", gaussian: "wye",
  graft_concept: "wye",
};
const ARM_WORDS = {
  natural: "natural", neutral: "neutral (r = 0)", gaussian: "gaussian noise", graft: "graft: toward another prompt",
  graft_concept: "graft: toward the concept",
};
const SHAPED = {
  circle: d3.symbolCircle, cross: d3.symbolCross, diamond: d3.symbolDiamond, square: d3.symbolSquare, star: d3.symbolStar,
  triangle: d3.symbolTriangle, wye: d3.symbolWye,
};
const MOVED = ["steered", "permuted", "random", "graft"];
const injectionWords = (injection) => (injection === "readout" ? "at the readout" : injection);

/** The own figure of a cell, or a control's. */
const figureOf = (cell, metric, control = "") => cell?.figures[metric]?.[control];

/** A key of the legend: the arm's line and shape, or the shape alone; dashed: a control of it. */
function armKey(arm, { label = ARM_WORDS[arm] || arm, line = true, hollow = false, dashed = false, colour = COLOURS[arm] } = {}) {
  const svg = d3.create("svg").attr("width", 26).attr("height", 12).attr("viewBox", "-13 -6 26 12").attr("aria-hidden", "true");
  if (line) svg.append("line").attr("x1", -13).attr("x2", 13).attr("stroke", colour).attr("stroke-width", 2).attr("stroke-dasharray", dashed ? "4,3" : null);
  svg.append("path").attr("d", d3.symbol(SHAPED[SHAPES[arm]], 44)()).attr("fill", hollow ? "var(--paper)" : colour).attr("stroke", colour).attr("stroke-width", 1.4);
  return el("span", { class: "key" }, svg.node(), label);
}

/** The places on the horizontal axis: those in front (such as "paired"), r from 0 on, and "noise" where there is some. */
function slotsOf(cells, { before = [], zero = true, after = [] } = {}) {
  const moved = cells.filter((c) => c.injection !== "none" && c.level !== "matched" && isNumber(c.r) && c.r > 0);
  const grid = [...(zero ? [0] : []), ...[...new Set(moved.map((c) => c.r))].sort((a, b) => a - b)];
  const labels = [...before, ...grid.map(strength), ...after];
  return { labels, at: (r) => before.length + grid.indexOf(r), last: labels.length - 1 };
}

/** The points of one arm's line over the grid. */
function points(cells, arm, slots, metric, { control = "", injection = "readout" } = {}) {
  return cells.filter((c) => c.arm === arm && c.level === "grid" && c.injection === injection && isNumber(c.r) && within(figureOf(c, metric, control)))
    .map((c) => ({ ...figureOf(c, metric, control), slot: slots.at(c.r), told: `r = ${strength(c.r)}` }));
}

/** A point of an arm that holds no r, as a list of one or none. */
function mark(cell, slot, metric, told, control = "") {
  const found = figureOf(cell, metric, control);
  return within(found) ? [{ ...found, slot, told }] : [];
}

/** Values always fit; intervals as far as `reach` beyond them, so that one wide interval does not flatten the rest. */
function domainOf(values, { holds = [], reach = 0.5, most = [-Infinity, Infinity] } = {}) {
  const numbers = [...values.map((c) => c.v), ...holds];
  const [low, high] = [d3.min(numbers), d3.max(numbers)];
  return [
    Math.max(most[0], low - reach, Math.min(low, d3.min(values, (c) => c.lo ?? c.v) ?? low)),
    Math.min(most[1], high + reach, Math.max(high, d3.max(values, (c) => c.hi ?? c.v) ?? high)),
  ];
}

/** A panel of lines and marks with their intervals.
    series: {arm, name, points, line: joined, dashed, hollow, colour}; slots: of `slotsOf`; rules: values to draw a line at. */
function curvesPanel(label, { width, height = 190, series, slots, domain, rules = [], signed = false }) {
  const drawn = series.filter((s) => s.points.length);
  const lines = drawn.filter((s) => s.line !== false);
  const step = Math.min(0.14, 0.6 / Math.max(1, drawn.length));
  /** Beside each other where they would hide each other: lines in all places, marks in the place that they share. */
  const aside = (s, slot) => {
    const beside = s.line !== false ? lines : drawn.filter((other) => other.line === false && other.points.some((d) => d.slot === slot));
    return (beside.indexOf(s) - (beside.length - 1) / 2) * step;
  };
  const all = drawn.flatMap((s) => s.points.map((d) => ({ ...d, series: s, x: d.slot + aside(s, d.slot) })));
  const colourOf = (s) => s.colour || COLOURS[s.arm];
  return plot(label, {
    width, height, marginLeft: 40, marginRight: 8, marginTop: 8, marginBottom: 22,
    x: { type: "linear", domain: [-0.45, slots.labels.length - 0.55], ticks: d3.range(slots.labels.length), tickFormat: (i) => slots.labels[i], label: null },
    y: { domain, ticks: 4, tickFormat: (y) => show(y, 1, signed), grid: true, label: null },
    marks: [
      ...rules.map((rule) => Plot.ruleY([rule], { stroke: "currentColor", strokeWidth: 1 })),
      ...drawn.flatMap((s) => {
        const of = all.filter((d) => d.series === s);
        return [
          Plot.ruleX(of.filter(bounded), { x: "x", y1: "lo", y2: "hi", stroke: colourOf(s), strokeWidth: 1.4, strokeOpacity: s.dashed ? 0.4 : 0.65, clip: true }),
          s.line === false ? null : Plot.lineY(of, { x: "x", y: "v", stroke: colourOf(s), strokeWidth: 1.8, strokeDasharray: s.dashed ? "4,3" : null }),
          Plot.dot(of, { x: "x", y: "v", r: 3.4, symbol: SHAPES[s.arm], fill: s.hollow ? "var(--paper)" : colourOf(s), stroke: colourOf(s), strokeWidth: 1.2 }),
        ];
      }),
      Plot.tip(all, Plot.pointer({ x: "x", y: "v", title: (d) => `${d.series.name}, ${d.told}\n${inWords(d, signed)}`, fill: "var(--paper)" })),
    ].filter(Boolean),
  });
}

/** How wide each of n panels is, side by side where there is room. */
function panelWidth(id, n, { most = 3, widest = 620 } = {}) {
  const full = widthOf(id);
  const columns = Math.max(1, Math.min(n, full < 520 ? 1 : full < 860 ? 2 : most));
  return Math.min(widest, Math.floor((full - (columns - 1) * 20) / columns));
}

/** A control's name in words. */
const controlName = (control) => (control === "other_items_text" ? "other items' text" : control.replaceAll("_", " "));

/** A control's figure, and under it the own text's lead over it. */
function withLead(cell, metric, control, notes) {
  const found = figureOf(cell, metric, control);
  const lead = () => el("span", { class: "place" }, "lead ", interval(cell.leads[metric]?.[control], notes, { signed: true }));
  return within(found) ? el("span", { class: "stacked" }, interval(found, notes), lead()) : "";
}

/** The head of a panel: whose it is. */
const roleOf = (name) => byName.get(name)?.role;
const headOf = (name) => el("div", { class: "multiple-head" }, el("b", {}, el("bdi", {}, name)), " ", roleBadge(roleOf(name)));

/** "steered, matched evidence", "permuted, upstream": a cell in words, its r apart. */
function cellWords(cell) {
  const where = cell.level === "matched" ? "matched evidence" : cell.level === "full" ? "the full way" : cell.injection === "upstream" ? "upstream" : "";
  return [cell.arm.replaceAll("_", " "), where].filter(Boolean).join(", ");
}

/** A section's verbalizers as choices. */
const optionsOf = (names) => names.map((name) => [name, `${name} (${roleOf(name)})`]);
