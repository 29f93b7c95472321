/* The functional round trip: what the subject computes with the reconstruction in the vector's place. */
"use strict";

const tripped = page.round_trip && { verbalizer: page.round_trip.verbalizers[0].verbalizer, metric: "kl_closed" };
const tripCells = (name) => page.round_trip.verbalizers.find((v) => v.verbalizer === name)?.cells || [];
const SHARES = { kl_closed: "KL closed", loss_closed: "loss closed", kl_closed_to_plain: "KL closed, to the plain run", loss_closed_to_plain: "loss closed, to the plain run" };
const SCALES = {
  kl: "KL: rebuilt", kl_mean: "KL: mean", kl_plain: "KL from plain: rebuilt", kl_plain_mean: "KL from plain: mean", kl_plain_moved: "KL from plain: vector",
  loss: "Loss: rebuilt", loss_mean: "Loss: mean", loss_original: "Loss: vector", loss_plain: "Loss: plain state",
};
const tripWords = (c) => cellWords(c) + (isNumber(c.r) && c.r ? `, r = ${strength(c.r)}` : "");

function drawRoundTrip() {
  const cells = tripCells(tripped.verbalizer).filter((c) => c.figures[tripped.metric]);
  const controls = [...new Set(cells.flatMap((c) => Object.keys(c.figures[tripped.metric])))].filter(Boolean);
  fill("round-trip-legend", armKey("steered", { line: false, label: "its own text, in the arm's colour" }),
    ...controls.map((control, i) => el("span", { class: "key" }, controlSymbol(i), controlName(control))),
    el("span", { class: "key" }, el("i", { class: "rule chance" }), "0: as the mean; 1: as the vector"));
  const gap = cells.map((c) => figureOf(c, `${tripped.metric}_gap`)).find(within);
  byId("round-trip-basis").textContent = gap ? `Steered less natural, in pairs at matched evidence: ${inWords(gap, true)}.` : "";
  if (!cells.some((c) => within(figureOf(c, tripped.metric)))) fill("round-trip-chart", el("p", { class: "muted" }, "Nothing to draw: no share is defined here."));
  else fill("round-trip-chart", sharesChart(cells, controls));
  drawRoundTripTables(controls);
}

const CONTROL_SYMBOLS = ["square", "triangle", "diamond", "cross", "star", "wye"];
function controlSymbol(i) {
  const svg = d3.create("svg").attr("width", 14).attr("height", 12).attr("viewBox", "-7 -6 14 12").attr("aria-hidden", "true");
  svg.append("path").attr("d", d3.symbol(SHAPED[CONTROL_SYMBOLS[i % CONTROL_SYMBOLS.length]], 38)()).attr("fill", "var(--paper)").attr("stroke", "var(--muted)").attr("stroke-width", 1.4);
  return svg.node();
}

/** Rows of cells: the own share with its interval, and under it the controls'. */
function sharesChart(cells, controls) {
  const small = narrow();
  const names = cells.map(tripWords);
  const dots = cells.flatMap((c, i) => ["", ...controls].map((control) => ({ ...figureOf(c, tripped.metric, control), cell: c, control, y: names[i] })).filter(within));
  const own = dots.filter((d) => !d.control);
  const domain = domainOf(dots, { holds: [0, 1], reach: 0.35 });
  const left = small ? 10 : 230;
  return plot(`${SHARES[tripped.metric]} by arm, ${tripped.verbalizer}, with its controls; the table below has the numbers`, {
    width: Math.min(900, widthOf("round-trip-chart")), height: names.length * (small ? 50 : 40) + 40,
    marginLeft: left, marginRight: 14, marginTop: 6, marginBottom: 30,
    x: { domain, ticks: small ? 4 : 8, tickFormat: (x) => show(x, 1), grid: true, label: null },
    y: { type: "band", domain: names, axis: null, padding: 0 },
    marks: [
      Plot.ruleX([0, 1], { stroke: "currentColor", strokeWidth: 1.2 }),
      Plot.text(names, { y: (d) => d, text: (d) => d, frameAnchor: "left", textAnchor: "start", dx: 10 - left, dy: small ? -17 : 0, fontSize: 12.5,
        fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4 }),
      ...controls.flatMap((control, i) => {
        const of = dots.filter((d) => d.control === control);
        return [
          Plot.ruleY(of.filter(bounded), { x1: "lo", x2: "hi", y: "y", dy: 8, stroke: "var(--muted)", strokeOpacity: 0.35, clip: true }),
          Plot.dot(of, { x: "v", y: "y", dy: 8, r: 3.4, symbol: CONTROL_SYMBOLS[i % CONTROL_SYMBOLS.length], stroke: "var(--muted)", fill: "var(--paper)" }),
        ];
      }),
      ...[...new Set(own.map((d) => d.cell.arm))].flatMap((arm) => {
        const of = own.filter((d) => d.cell.arm === arm);
        return [
          Plot.ruleY(of.filter(bounded), { x1: "lo", x2: "hi", y: "y", dy: -5, stroke: COLOURS[arm] || "currentColor", strokeWidth: 2, clip: true }),
          Plot.dot(of, { x: "v", y: "y", dy: -5, r: 4.5, symbol: SHAPES[arm] || "circle", fill: COLOURS[arm] || "currentColor" }),
        ];
      }),
      Plot.tip(dots, Plot.pointer({ x: "v", y: "y", title: (d) => `${d.y}\n${d.control ? controlName(d.control) : "its own text"}\n${inWords(d)}`, fill: "var(--paper)" })),
    ],
  });
}

function drawRoundTripTables(controls) {
  const notes = new Notes();
  const cells = tripCells(tripped.verbalizer);
  const own = (metric, head, marks) => ({ head, n: true, cell: (c) => (c.figures[metric] ? interval(figureOf(c, metric), marks) : "") });
  const first = [
    { head: "Arm", row: true, cell: (c) => el("span", { class: "who" }, cellWords(c)) },
    { head: "r", n: true, cell: (c) => strength(c.r) }, { head: "Items", n: true, cell: (c) => String(c.n) },
  ];
  fill("round-trip-controls", table(`${SHARES[tripped.metric]}: own text and controls, ${tripped.verbalizer}`, [
    ...first, own(tripped.metric, "Its own text", notes),
    ...controls.map((control) => ({ head: controlName(control), n: true, cell: (c) => withLead(c, tripped.metric, control, notes) })),
  ], cells.filter((c) => c.figures[tripped.metric]), { tight: true }), notes.list(), el("dl", { class: "meanings" }, ...controls.map((control) =>
    el("div", {}, el("dt", {}, controlName(control)), el("dd", {}, page.round_trip.controls[control] || "")))));
  const [shares, scales] = [new Notes(), new Notes()];
  const columns = (metrics, notes) => Object.entries(metrics).map(([metric, head]) => own(metric, head, notes));
  fill("round-trip-table",
    table(`Shares closed by the texts of ${tripped.verbalizer}, by arm`, [...first, ...columns(SHARES, shares)], cells), shares.list(),
    el("h3", {}, "What they are shares of, in nats"),
    table(`Divergences and losses, ${tripped.verbalizer}, by arm`, [...first.slice(0, 2), ...columns(SCALES, scales)], cells, { tight: true }), scales.list(),
    el("p", { class: "footnotes" }, "KL: of the next token's distribution, from the run on the vector to the run on what took its place (rebuilt: the " +
      "reconstruction); from plain: from the run before anything was added. Loss: mean over the tokens that follow. A share of a small KL is a small thing."));
}

sections.push({
  name: "round_trip",
  start() {
    const present = Object.entries(SHARES).filter(([metric]) => page.round_trip.verbalizers.some((v) => v.cells.some((c) => c.figures[metric])));
    const names = page.round_trip.verbalizers.map((v) => v.verbalizer);
    choose("round-trip-verbalizer", optionsOf(names), tripped.verbalizer, (value) => { tripped.verbalizer = value; drawRoundTrip(); });
    choose("round-trip-metric", present, tripped.metric, (value) => { tripped.metric = value; drawRoundTrip(); });
  },
  draw: drawRoundTrip,
});
