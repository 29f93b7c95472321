/* Claims where nothing is there. */
"use strict";

const claimsOf = (name) => (page.confabulation[state.scorer] || {})[name] || [];

function drawClaims() {
  legend("claims-legend", [["line permuted", "permuted"], ["line random", "random"], ["dot gaussian", "gaussian noise"], ["rule chance", "as on neutral activations"]]);
  const counted = page.verbalizers.filter((v) => claimsOf(v.name).some((row) => within(row.false_claims_over_neutral)));
  const flat = counted.filter((v) => claimsOf(v.name).every((row) => !within(row.false_claims_over_neutral) || row.false_claims_over_neutral.v === 0));
  const withCurve = flat.length < counted.length ? counted.filter((v) => !flat.includes(v)) : counted;
  if (!counted.length) {
    fill("claims-charts", el("p", { class: "muted" }, "This run did not count false claims."));
    fill("claims-table");
    return;
  }
  const over = (row) => row.false_claims_over_neutral;
  const all = withCurve.flatMap((v) => claimsOf(v.name).map(over).filter(within));
  const domain = [Math.min(-0.1, d3.min(all, (c) => c.lo ?? c.v)), Math.max(0.1, d3.max(all, (c) => c.hi ?? c.v))];
  const grid = [...new Set(withCurve.flatMap((v) => claimsOf(v.name).filter((row) => over(row) && isNumber(row.r)).map((row) => row.r)))].sort((a, b) => a - b);
  const ticks = [0, ...grid];
  const full = widthOf("claims-charts");
  const columns = full < 520 ? 1 : full < 860 ? 2 : 3;
  const width = Math.floor((full - (columns - 1) * 20) / columns);
  fill("claims-charts", ...withCurve.map((v) => {
    const points = claimsOf(v.name).filter((row) => within(over(row)) && isNumber(row.r))
      .map((row) => ({ ...over(row), arm: row.arm, x: position(row.r, ticks) + (row.arm === "random" ? 0.08 : -0.08) }));
    const noise = claimsOf(v.name).filter((row) => row.arm === "gaussian" && within(over(row))).map((row) => ({ ...over(row), x: ticks.length }));
    const line = (arm) => {
      const of = points.filter((d) => d.arm === arm);
      return [
        Plot.ruleX(of.filter(bounded), { x: "x", y1: "lo", y2: "hi", stroke: COLOURS[arm], strokeWidth: 1.5, strokeOpacity: 0.7 }),
        Plot.lineY(of, { x: "x", y: "v", stroke: COLOURS[arm], strokeWidth: 1.8 }),
        Plot.dot(of, { x: "x", y: "v", r: 3, fill: COLOURS[arm], symbol: arm === "random" ? "diamond" : "circle" }),
      ];
    };
    return el("div", { class: "multiple" },
      el("div", { class: "multiple-head" }, el("b", {}, el("bdi", {}, v.name)), " ", roleBadge(v.role)),
      plot(`False claims over neutral of ${v.name}, by r`, {
        width, height: 150, marginLeft: 38, marginRight: 8, marginTop: 8, marginBottom: 22,
        x: { type: "linear", domain: [-0.3, ticks.length + 0.4], ticks: d3.range(ticks.length + (noise.length ? 1 : 0)), label: null,
          tickFormat: (i) => (i === ticks.length ? "noise" : strength(ticks[i])) },
        y: { domain, ticks: 4, tickFormat: (y) => show(y, 1, true), grid: true, label: null },
        marks: [
          Plot.ruleY([0], { stroke: "currentColor" }), ...line("permuted"), ...line("random"),
          Plot.ruleX(noise.filter(bounded), { x: "x", y1: "lo", y2: "hi", stroke: COLOURS.gaussian, strokeWidth: 1.5 }),
          Plot.dot(noise, { x: "x", y: "v", r: 3.5, fill: COLOURS.gaussian, symbol: "square" }),
        ],
      }));
  }), flat.length && flat.length < counted.length
    ? el("p", { class: "basis flat" }, `As on neutral activations at every r, so not drawn: ${flat.map((v) => v.name).join(", ")}.`) : null);
  drawClaimsTable();
}

function drawClaimsTable() {
  const notes = new Notes();
  const or = (c, row, arms, options) => (arms.includes(row.arm) ? interval(c, notes, options) : "");
  const built = table(`Claims of ${state.claims}`, [
    { head: "Arm", row: true, cell: (row) => row.arm },
    { head: "r", n: true, cell: (row) => strength(row.r) },
    { head: "Items", n: true, cell: (row) => String(row.n || "—") },
    { head: "True claims", n: true, cell: (row) => or(row.true_claims, row, ["natural"]) },
    { head: "False claims", n: true, cell: (row) => or(row.false_claims, row, ["neutral", "permuted", "random", "gaussian"]) },
    { head: "Over neutral", n: true, cell: (row) => or(row.false_claims_over_neutral, row, ["permuted", "random", "gaussian"], { signed: true }) },
    { head: "Changed texts", n: true, cell: (row) => or(row.changed_texts, row, ["steered", "permuted", "random"]) },
  ], claimsOf(state.claims));
  fill("claims-table", ...[built, notes.list(), el("p", { class: "footnotes" },
    "True claims: natural items whose own concept is claimed, near one half by the choice of threshold. Changed texts: moved items whose text differs from the unmoved one's; it needs no scorer.")].filter(Boolean));
}
