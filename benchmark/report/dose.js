/* Dose and response: one small chart per verbalizer, with the behaviour gate beneath on the same axis. */
"use strict";

function strengths() {
  const dose = page.dose[state.injection];
  return [...new Set([0, ...(dose ? dose.strengths : []), ...page.gate.map((g) => g.r)])].sort((a, b) => a - b);
}

/** Where a strength stands on an axis whose grid points are evenly spaced. */
function position(r, grid) {
  if (r >= grid[grid.length - 1]) return grid.length - 1;
  const i = d3.bisectRight(grid, r) - 1;
  return i < 0 ? 0 : i + (r - grid[i]) / (grid[i + 1] - grid[i]);
}
const axisOf = (grid, label) => ({
  type: "linear", domain: [-0.3, grid.length - 0.7], ticks: d3.range(grid.length), tickFormat: (i) => strength(grid[i]), label,
});

function curveOf(name, grid) {
  const curve = ((page.dose[state.injection] || {}).curves || {})[state.scorer]?.[name];
  if (!curve || !curve.points.length) return { curve, points: [] };
  const measured = curve.points.filter(within).map((c) => ({ ...c, x: position(c.r, grid) }));
  return { curve, points: [{ r: 0, x: 0, v: 0.5, lo: 0.5, hi: 0.5 }, ...measured] };
}

function drawDose() {
  const grid = strengths();
  const dose = page.dose[state.injection];
  legend("dose-legend", [
    ["line steered", "steered against permuted, AUROC"], ["band", "95 % interval"], ceiling && ["rule ceiling", `ceiling (${ceiling.name})`],
    ["rule chance", "chance"], ["r50", "r50, with its interval along the axis"], ["shade", "share of directions that steer"],
  ]);
  if (!dose) {
    fill("dose-charts", el("p", { class: "muted" }, "This run has no dose curve."));
    fill("dose-table");
  } else {
    const others = page.verbalizers.filter((v) => v.role !== "ceiling").map((v) => v.name);
    const flat = others.map((name) => [name, curveOf(name, grid).points]).filter(([, points]) => points.length && points.every((c) => c.v === 0.5)).map(([name]) => name);
    const names = state.dose ? [state.dose] : others.filter((name) => !flat.includes(name));
    const full = widthOf("dose-charts");
    const columns = names.length === 1 || full < 520 ? 1 : full < 860 ? 2 : 3;
    const width = Math.floor((full - (columns - 1) * 20) / columns);
    fill("dose-charts", ...names.map((name) => doseFigure(name, grid, width, names.length === 1)),
      !state.dose && flat.length ? el("p", { class: "basis flat" }, `At one half at every r, so not drawn: ${flat.join(", ")}.`) : null);
    drawDoseTable(dose);
  }
  drawGate(grid);
}

function doseFigure(name, grid, width, large) {
  const { curve, points } = curveOf(name, grid);
  const best = ceiling ? curveOf(ceiling.name, grid).points : [];
  const half = curve && curve.r50;
  const margins = { marginLeft: 32, marginRight: 10 };
  const told = !half ? "" : isNumber(half.v) ? `r50 ${show(half.v)}` : isNumber(half.beyond) ? `r50 > ${strength(half.beyond)}` : "r50 —";
  const box = el("div", { class: "multiple" },
    el("div", { class: "multiple-head" }, el("b", {}, el("bdi", {}, name)), " ", roleBadge(byName.get(name).role), el("span", { class: "num muted" }, told)));
  if (!points.length) {
    box.append(el("p", { class: "muted" }, "no curve"));
    return box;
  }
  const lowest = d3.min(points, (d) => Math.min(d.v, d.lo ?? d.v));
  const halfway = best.length ? 0.5 + (best[best.length - 1].v - 0.5) / 2 : 0.5;
  box.append(plot(`Dose curve of ${name}; ${told || "no r50"}. The table below has the numbers`, {
    width, height: large ? 320 : 170, ...margins, marginTop: 8, marginBottom: 22,
    x: axisOf(grid, null), y: { domain: [Math.min(0.3, lowest), 1], ticks: 4, tickFormat: ".1f", grid: true, label: null },
    marks: [
      Plot.ruleY([0.5], { stroke: "currentColor", strokeWidth: 1 }),
      Plot.areaY(points.filter(bounded), { x: "x", y1: "lo", y2: "hi", fill: "var(--steered)", fillOpacity: 0.18 }),
      Plot.lineY(best, { x: "x", y: "v", stroke: "currentColor", strokeOpacity: 0.65, strokeDasharray: "5,4" }),
      Plot.lineY(points, { x: "x", y: "v", stroke: "var(--steered)", strokeWidth: 2 }),
      Plot.dot(points, { x: "x", y: "v", r: 3, fill: "var(--steered)" }),
      half && isNumber(half.v) && [
        Plot.ruleX([position(half.v, grid)], { y1: Math.min(0.3, lowest), y2: halfway, stroke: "currentColor", strokeWidth: 1.2, strokeDasharray: "2,2" }),
        Plot.dot([position(half.v, grid)], { x: (d) => d, y: halfway, symbol: "triangle", r: 4, fill: "currentColor" }),
      ],
      half && isNumber(half.lo) && Plot.ruleY([Math.min(0.3, lowest)], {
        x1: position(half.lo, grid), x2: isNumber(half.hi) ? position(half.hi, grid) : grid.length - 0.75, stroke: "currentColor", strokeWidth: 3, dy: -2 }),
      Plot.tip(points, Plot.pointerX({ x: "x", y: "v", title: (d) => `r = ${strength(d.r)}\n${inWords(d)}`, fill: "var(--paper)" })),
    ].flat().filter(Boolean),
  }));
  if (page.gate.length) box.append(gateStrip(grid, width, margins));
  return box;
}

function gateStrip(grid, width, margins) {
  const cells = page.gate.filter((g) => g.of).map((g) => ({ ...g, x: position(g.r, grid), share: g.steers / g.of }));
  return plot(`Share of directions that steer: ${cells.map((c) => `r ${strength(c.r)}: ${c.steers} of ${c.of}`).join(", ")}`, {
    width, height: 22, ...margins, marginTop: 1, marginBottom: 1, x: { ...axisOf(grid, null), axis: null }, y: { domain: [0, 1], axis: null },
    marks: [
      Plot.rect(cells, { x1: (d) => d.x - 0.46, x2: (d) => d.x + 0.46, y1: 0, y2: 1, fill: "var(--gate)", fillOpacity: (d) => 0.08 + 0.55 * d.share, r: 3 }),
      Plot.text(cells, { x: "x", y: 0.5, text: (d) => `${d.steers}/${d.of}`, fontSize: 11, fill: "currentColor" }),
    ],
    opacity: { type: "identity" },
  });
}

function drawGate(grid) {
  if (!page.gate.length) {
    fill("gate-charts", el("p", { class: "muted" }, "The behaviour gate did not run."));
    return;
  }
  const full = widthOf("gate-charts");
  const width = full < 700 ? full : Math.floor((full - 24) / 2);
  const cells = page.gate.map((g) => ({ ...g, x: position(g.r, grid), share: g.of ? g.steers / g.of : 0 }));
  const common = { width, height: 150, marginLeft: 44, marginRight: 10, marginTop: 10, x: axisOf(grid, "r (added upstream) →"), marginBottom: 36 };
  const losses = cells.filter((c) => isNumber(c.loss));
  fill("gate-charts",
    el("figure", {}, el("figcaption", {}, el("b", {}, "Directions that steer"), " share of concepts that pass the behaviour gate"),
      plot("Share of concepts whose direction passes the behaviour gate, by r", { ...common,
        y: { domain: [0, 1], ticks: 3, tickFormat: "%", grid: true, label: null },
        marks: [
          Plot.rect(cells, { x1: (d) => d.x - 0.3, x2: (d) => d.x + 0.3, y1: 0, y2: "share", fill: "var(--gate)" }),
          Plot.text(cells, { x: "x", y: "share", text: (d) => `${d.steers} of ${d.of}`, dy: -7, fontSize: 11 }),
        ] })),
    el("figure", {}, el("figcaption", {}, el("b", {}, "What it costs"), " mean loss of the steered answers, nats a token"),
      losses.length ? plot("Mean loss of steered answers by r", { ...common,
        y: { domain: [0, Math.max(1, d3.max(losses, (d) => d.loss) * 1.15)], ticks: 3, grid: true, label: null },
        marks: [
          Plot.lineY(losses, { x: "x", y: "loss", stroke: "var(--gate)", strokeWidth: 2 }), Plot.dot(losses, { x: "x", y: "loss", r: 3.5, fill: "var(--gate)" }),
          Plot.text(losses, { x: "x", y: "loss", text: (d) => show(d.loss), dy: -10, fontSize: 11 }),
        ] }) : el("p", { class: "muted" }, "No loss was recorded.")));
}

function drawDoseTable(dose) {
  const notes = new Notes();
  const curves = dose.curves[state.scorer] || {};
  const at = (row, r) => curves[row.name]?.points.find((c) => c.r === r);
  const summary = (metric, options) => (row) => interval(curves[row.name]?.[metric], notes, options);
  const built = table("Dose curves", [
    { head: "Verbalizer", row: true, cell: (row) => el("span", { class: "who" }, el("bdi", {}, row.name), " ", roleBadge(row.role)) },
    ...dose.strengths.map((r) => ({ head: `r = ${strength(r)}`, n: true, cell: (row) => interval(at(row, r), notes) })),
    { head: "r50", n: true, cell: summary("r50", { missing: "r50 is measured against the ceiling and from the floor" }) },
    { head: "Rises with r", n: true, cell: summary("monotonicity", { signed: true }) },
    { head: "Area over permuted", n: true, cell: summary("area", { signed: true }) },
  ], page.verbalizers);
  const words = el("p", { class: "footnotes" }, "Rises with r: rank correlation of the curve with r, from −1 to 1. Area: between the curve and one half, over the grid.");
  fill("dose-table", ...[built, notes.list(), words].filter(Boolean));
}
