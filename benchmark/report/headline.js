/* Natural against steered at matched evidence: two panels that share their rows, and the table. */
"use strict";

const headlineRows = () => (page.headline.rows[state.end] || {})[state.scorer] || [];

function drawHeadline() {
  const rows = headlineRows();
  const basis = page.headline.basis[state.end];
  byId("headline-basis").textContent = basis.pairs
    ? `${basis.pairs} pairs of ${basis.concepts} concepts${basis.prompts ? `; steered in ${basis.prompts} neutral prompts` : ""}. Scorer: ${state.scorer}.${basis.left_out ? ` Left out: ${basis.left_out}.` : ""}`
    : "This run has no token-matched pairs here.";
  drawHeadlineChart(rows);
  drawHeadlineTable(rows);
}

function drawHeadlineChart(rows) {
  const top = ceiling && rows.find((row) => row.verbalizer === ceiling.name);
  const floor = rows.find((row) => row.verbalizer === "constant");
  const shownFloor = floor && within(floor.natural) ? `; the constant text scores ${show(floor.natural.v)}` : "";
  legend("headline-legend", [
    ["dot natural", "natural"], ["diamond steered", "steered"], ["dot hollow", "hollow: ceiling, reader or floor"],
    ["rule chance", `floor: chance, 0.5${shownFloor}`],
    top && within(top.natural) && ["rule ceiling natural", `ceiling, natural: ${show(top.natural.v)}`],
    top && within(top.steered) && ["rule ceiling steered", `ceiling, steered: ${show(top.steered.v)}`],
  ]);
  if (!rows.some((row) => within(row.natural) || within(row.steered))) {
    fill("headline-chart", el("p", { class: "muted" }, "Nothing to draw: no pair was scored."));
    return;
  }
  const lines = [];
  let role = null;
  for (const row of rows) {
    const own = byName.get(row.verbalizer).role;
    if (own !== role) lines.push({ y: `role:${own}`, role: own });
    role = own;
    lines.push({ y: row.verbalizer, row, solid: own === "submitted" || own === "baseline" });
  }
  const small = narrow();
  const width = widthOf("headline-chart");
  const left = small ? Math.max(0, width - 16) : Math.floor(width * 0.6);
  const domain = lines.map((line) => line.y);
  const shared = { lines, domain, small };
  fill("headline-chart",
    aurocPanel({ ...shared, width: small ? width : left, top }),
    gapPanel({ ...shared, width: small ? width : width - left - 16 }));
}

function rowFrame({ lines, domain, small, labels }) {
  const margin = labels && !small ? 190 : 10;
  const heads = lines.filter((line) => line.role);
  const named = lines.filter((line) => line.row);
  return {
    margin,
    height: domain.length * (small ? 40 : 34) + 44,
    y: { type: "band", domain, axis: null, padding: 0 },
    marks: [
      Plot.ruleY(heads, { y: "y", stroke: "currentColor", strokeOpacity: 0.18, dy: small ? -14 : -12, insetLeft: -margin + 10 }),
      ...(labels || small ? [
        Plot.text(heads, { y: "y", text: (d) => d.role.toUpperCase(), frameAnchor: "left", dx: -margin + 10, textAnchor: "start",
          fill: "var(--muted)", fontSize: 10.5, fontWeight: 600 }),
        Plot.text(named, { y: "y", text: (d) => shorten(d.y, small ? 44 : 28), frameAnchor: "left", dx: -margin + 10, dy: small ? -14 : 0,
          textAnchor: "start", fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4, fontSize: 12.5 }),
      ] : []),
    ],
  };
}
const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function aurocPanel({ lines, domain, small, width, top }) {
  const frame = rowFrame({ lines, domain, small, labels: true });
  const named = lines.filter((line) => line.row);
  const numbers = named.flatMap(({ row }) => [row.natural, row.steered]).filter(within).flatMap((c) => [c.v, c.lo ?? c.v, c.hi ?? c.v]);
  const low = Math.max(0, Math.min(0.35, Math.floor(d3.min(numbers) * 20) / 20));
  const arm = (name, dy, symbol) => {
    const at = (list) => list.filter(({ row }) => within(row[name]));
    const common = { x: (d) => d.row[name].v, y: "y", dy: dy + (small ? 5 : 0), symbol, r: 4.5, stroke: COLOURS[name], strokeWidth: 1.6 };
    return [
      Plot.ruleY(named.filter(({ row }) => bounded(row[name])), { x1: (d) => d.row[name].lo, x2: (d) => d.row[name].hi, y: "y",
        dy: dy + (small ? 5 : 0), stroke: COLOURS[name], strokeWidth: 2 }),
      Plot.dot(at(named.filter((d) => d.solid)), { ...common, fill: COLOURS[name] }),
      Plot.dot(at(named.filter((d) => !d.solid)), { ...common, fill: "var(--paper)" }),
    ];
  };
  return plot("AUROC on natural and on steered activations, per verbalizer; the table below has the numbers", {
    width, height: frame.height, marginLeft: frame.margin, marginRight: 14, marginTop: 18, marginBottom: 30,
    x: { domain: [low, 1], label: null, ticks: small ? 5 : 8, tickFormat: ".1f", grid: true }, y: frame.y,
    marks: [
      Plot.ruleX([0.5], { stroke: "currentColor", strokeWidth: 1.4 }),
      ...["natural", "steered"].map((name) => top && within(top[name]) &&
        Plot.ruleX([top[name].v], { stroke: COLOURS[name], strokeDasharray: "5,4", strokeWidth: 1.4 })),
      ...frame.marks,
      ...arm("natural", -5, "circle"), ...arm("steered", 6, "diamond"),
      Plot.text(["AUROC"], { frameAnchor: "top-right", dy: -16, fill: "var(--muted)", fontWeight: 600 }),
    ],
  });
}

function gapPanel({ lines, domain, small, width }) {
  const frame = rowFrame({ lines, domain, small, labels: false });
  const named = lines.filter((line) => line.row);
  const there = named.filter(({ row }) => within(row.gap));
  const numbers = there.flatMap(({ row: { gap } }) => [gap.v, gap.lo ?? gap.v, gap.hi ?? gap.v].map(Math.abs));
  const far = Math.max(0.1, Math.ceil((d3.max(numbers) || 0.1) * 10) / 10);
  const common = { x: (d) => d.row.gap.v, y: "y", symbol: "square", r: 4, stroke: "currentColor", strokeWidth: 1.5, dy: small ? 4 : 0 };
  return plot("Gap, steered less natural AUROC, per verbalizer; the table below has the numbers", {
    width, height: frame.height, marginLeft: frame.margin, marginRight: 14, marginTop: 18, marginBottom: 30,
    x: { domain: [-far, far], label: null, ticks: 5, tickFormat: (x) => show(x, 1, true), grid: true }, y: frame.y,
    marks: [
      Plot.ruleX([0], { stroke: "currentColor", strokeWidth: 1.4 }),
      ...frame.marks,
      Plot.ruleY(named.filter(({ row }) => bounded(row.gap)), { x1: (d) => d.row.gap.lo, x2: (d) => d.row.gap.hi, y: "y",
        stroke: "currentColor", strokeWidth: 2, dy: small ? 4 : 0 }),
      Plot.dot(there.filter((d) => d.solid), { ...common, fill: "currentColor" }),
      Plot.dot(there.filter((d) => !d.solid), { ...common, fill: "var(--paper)" }),
      Plot.text(["gap: steered − natural"], { frameAnchor: "top-right", dy: -16, fill: "var(--muted)", fontWeight: 600 }),
    ],
  });
}

function drawHeadlineTable(rows) {
  const notes = new Notes();
  const none = "no token-matched pairs";
  const own = (row) => byName.get(row.verbalizer);
  const r = page.headline.false_claims_r;
  const at = isNumber(r) ? `, r = ${strength(r)}` : "";
  const built = table("Natural against steered, per verbalizer", [
    { head: "Verbalizer", row: true, cell: (row) => el("span", { class: "who" }, el("bdi", {}, row.verbalizer), " ", roleBadge(own(row).role)) },
    { head: "Natural AUROC, and place", n: true, cell: (row) => placed(row, "natural", notes) },
    { head: "Steered AUROC, and place", n: true, cell: (row) => placed(row, "steered", notes) },
    { head: "Gap", n: true, cell: (row) => interval(row.gap, notes, { signed: true, missing: none }) },
    { head: `False claims (permuted${at})`, n: true, cell: (row) => interval(row.false_claims, notes, { signed: true }) },
    { head: "r50", n: true, cell: (row) => interval(row.r50, notes, { missing: "r50 is measured against the ceiling and from the floor" }) },
    { head: "Texts/s", n: true, cell: (row) => speed(own(row).speed) },
    { head: "Failed", n: true, cell: (row) => el("span", { class: own(row).failed ? "bad" : null }, String(own(row).failed)) },
  ], rows, { cards: true, rowClass: (row) => (["submitted", "baseline"].includes(own(row).role) ? "tested" : "bracket") });
  fill("headline-table", built, notes.list());
}

/** An AUROC, and under it its place between floor and ceiling (which have none of their own). */
function placed(row, arm, notes) {
  const auroc = interval(row[arm], notes, { missing: "no token-matched pairs" });
  const place = row[`place_${arm}`];
  return place ? el("span", { class: "stacked" }, auroc, el("span", { class: "place" }, "place ", interval(place, notes))) : auroc;
}
