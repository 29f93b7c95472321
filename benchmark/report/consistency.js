/* Self-consistency: how alike several texts of one vector are. */
"use strict";

const agreed = page.consistency && { metric: "agreement_over_others" };
const AGREEMENTS = { agreement_over_others: "over other vectors' texts", agreement: "by itself" };

function drawConsistency() {
  const over = agreed.metric === "agreement_over_others";
  fill("consistency-legend", armKey("steered"), armKey("permuted"), ...["natural", "neutral", "gaussian"].map((arm) => armKey(arm, { line: false })),
    over ? el("span", { class: "key" }, el("i", { class: "rule chance" }), "no more alike than other vectors' texts") : null);
  const width = panelWidth("consistency-charts", page.consistency.verbalizers.length);
  const panels = page.consistency.verbalizers.map(({ verbalizer, cells }) => {
    const slots = slotsOf(cells, { before: ["nat."], after: cells.some((c) => c.arm === "gaussian") ? ["noise"] : [] });
    const one = (arm, slot, told) => ({ arm, name: arm, points: mark(cells.find((c) => c.arm === arm), slot, agreed.metric, told), line: false });
    return { verbalizer, slots, series: [
      one("natural", 0, "unmoved"), one("neutral", slots.at(0), "r = 0"), one("gaussian", slots.last, "no r"),
      ...["steered", "permuted"].map((arm) => ({ arm, name: arm, points: points(cells, arm, slots, agreed.metric) })),
    ] };
  });
  const domain = domainOf(panels.flatMap(({ series }) => series.flatMap((s) => s.points)), { holds: over ? [0] : [0, 1], reach: 0.3, most: [-1, 1] });
  fill("consistency-charts", ...panels.map(({ verbalizer, slots, series }) => el("div", { class: "multiple" }, headOf(verbalizer),
    curvesPanel(`Agreement of the texts of ${verbalizer}, ${AGREEMENTS[agreed.metric]}, by arm and r; the table below has the numbers`, {
      width, height: 190, series, slots, domain, rules: [0], signed: over }))));
  drawConsistencyTable();
}

function drawConsistencyTable() {
  const notes = new Notes();
  const rows = page.consistency.verbalizers.flatMap(({ verbalizer, cells }) => cells.map((cell) => ({ verbalizer, cell })));
  fill("consistency-table", table("Agreement of several texts of one vector", [
    { head: "Verbalizer", row: true, cell: (row) => el("bdi", {}, row.verbalizer) },
    { head: "Arm", cell: ({ cell }) => cell.arm },
    { head: "r", n: true, cell: ({ cell }) => strength(cell.r) },
    { head: "Items", n: true, cell: ({ cell }) => String(cell.n) },
    { head: "Agreement", n: true, cell: ({ cell }) => interval(figureOf(cell, "agreement"), notes) },
    { head: "Over other vectors' texts", n: true, cell: ({ cell }) => interval(figureOf(cell, "agreement_over_others"), notes, { signed: true }) },
  ], rows), notes.list());
}

sections.push({
  name: "consistency",
  start() {
    choose("consistency-metric", Object.entries(AGREEMENTS), agreed.metric, (value) => { agreed.metric = value; drawConsistency(); });
  },
  draw: drawConsistency,
});
