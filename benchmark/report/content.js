/* Content and concept: what of its prompt a text keeps as a concept is moved in. */
"use strict";

const content = page.content && {
  scorer: page.content.scorers[0].scorer, injection: page.content.injections[0] || "readout", verbalizer: "",
};
const retentionOf = (name) => page.content.scorers.find((s) => s.scorer === content.scorer)?.verbalizers.find((v) => v.verbalizer === name)?.cells || [];
const unmovedOf = (cells) => cells.find((c) => c.arm === "neutral");

/** The trade-off: one point per r that has both figures, from r = 0 on, where no concept is in. */
function tradeOff(name) {
  const cells = retentionOf(name);
  const start = figureOf(unmovedOf(cells), "auroc");
  const concept = (page.dose[content.injection]?.curves[state.scorer] || {})[name]?.points || [];
  const moved = points(cells, "steered", slotsOf(cells), "auroc", { injection: content.injection });
  const found = cells.filter((c) => c.arm === "steered" && c.injection === content.injection && within(figureOf(c, "auroc")))
    .map((c) => ({ r: c.r, x: figureOf(c, "auroc"), y: concept.find((p) => p.r === c.r) })).filter((d) => within(d.y));
  return within(start) && moved.length && found.length ? [{ r: 0, x: start, y: { v: 0.5 } }, ...found] : found;
}

function drawContent() {
  fill("content-legend", armKey("steered", { label: "steered, r beside the point" }), el("span", { class: "key" }, el("i", { class: "rule chance" }), "chance, 0.5"),
    ...MOVED.slice(1).map((arm) => armKey(arm)), armKey("neutral", { line: false }));
  const judged = page.verbalizers.map((v) => v.name).filter((name) => retentionOf(name).some((c) => within(figureOf(c, "auroc"))));
  const silent = judged.filter((name) => tradeOff(name).length && tradeOff(name).every((d) => d.y.v === 0.5));
  const names = content.verbalizer ? [content.verbalizer] : judged.filter((name) => !silent.includes(name));
  byId("content-basis").textContent = contentOfOthers();
  const width = panelWidth("content-charts", names.length);
  const kept = names.flatMap((name) => retentionOf(name).map((c) => figureOf(c, "auroc"))).filter(within);
  const domain = domainOf(kept, { holds: [0.5], reach: 0.3, most: [0, 1] });
  fill("content-charts", ...names.map((name) => contentPanel(name, { width, domain })),
    !content.verbalizer && silent.length ? el("p", { class: "basis flat" }, `No concept at any r, so not drawn: ${silent.join(", ")}.`) : null);
  drawContentTable();
}

/** What a reader of the prompt and a text that says nothing of it come to: the ends between which content lies. */
function contentOfOthers() {
  const unmoved = page.verbalizers.map((v) => ({ ...v, c: figureOf(unmovedOf(retentionOf(v.name)), "auroc") })).filter((v) => within(v.c));
  const readers = unmoved.filter((v) => v.role === "reader").sort((a, b) => b.c.v - a.c.v);
  const floor = unmoved.find((v) => v.role === "floor");
  const told = [readers[0], floor].filter(Boolean).map((v) => `${v.name} (${v.role}) ${inWords(v.c)}`);
  return told.length ? `Content at r = 0, for comparison: ${told.join("; ")}.` : "";
}

function contentPanel(name, { width, domain }) {
  const cells = retentionOf(name);
  const box = el("div", { class: "multiple" }, headOf(name));
  const line = tradeOff(name);
  if (line.length) box.append(tradeOffChart(name, line, width));
  const slots = slotsOf(cells.filter((c) => c.injection !== (content.injection === "readout" ? "upstream" : "readout")));
  const start = mark(unmovedOf(cells), slots.at(0), "auroc", "r = 0");
  const series = [
    ...MOVED.map((arm) => ({ arm, name: arm, points: points(cells, arm, slots, "auroc", { injection: content.injection }) })),
    { arm: "neutral", name: "neutral", points: start, line: false },
  ];
  if (!series.some((s) => s.points.length)) box.append(el("p", { class: "muted" }, "not measured"));
  else box.append(el("p", { class: "chart-title" }, "Content kept, by r and arm"),
    curvesPanel(`Content kept in the texts of ${name}, by r and arm; the table below has the numbers`, { width, height: 150, series, slots, domain, rules: [0.5] }));
  return box;
}

function tradeOffChart(name, line, width) {
  const low = (axis) => Math.min(0.3, d3.min(line, (d) => d[axis].v) - 0.05);
  const frame = { width, height: Math.min(300, Math.round(width * 0.72)), marginLeft: 36, marginRight: 14, marginTop: 24, marginBottom: 38 };
  const x = d3.scaleLinear([low("x"), 1], [frame.marginLeft, width - frame.marginRight]);
  const y = d3.scaleLinear([low("y"), 1.02], [frame.height - frame.marginBottom, frame.marginTop]);
  const labels = placeLabels(line.map((d) => ({ x: x(d.x.v), y: y(d.y.v), text: strength(d.r) })));
  const at = { x: (d) => d.x.v, y: (d) => d.y.v };
  const bar = { stroke: "var(--steered)", strokeOpacity: 0.4, strokeWidth: 1.4, clip: true };
  const words = (text, frameAnchor, dx, dy) => Plot.text([text], { frameAnchor, dx, dy, fontSize: 12, fill: "var(--muted)" });
  return plot(`Concept against content in the texts of ${name}: ${line.map((d) => `r ${strength(d.r)}: content ${show(d.x.v)}, concept ${show(d.y.v)}`).join("; ")}`, {
    ...frame,
    x: { domain: x.domain(), ticks: 4, tickFormat: ".1f", grid: true, label: null },
    y: { domain: y.domain(), ticks: [0.4, 0.6, 0.8, 1], tickFormat: ".1f", grid: true, label: null },
    marks: [
      Plot.ruleY([0.5], { stroke: "currentColor" }), Plot.ruleX([0.5], { stroke: "currentColor" }),
      words("↑ concept, told from permuted", "top-left", -frame.marginLeft, -20),
      words("content: its own prompt, told from others →", "bottom-right", 8, 34),
      words("both ↗", "top-right", -4, 6),
      Plot.ruleY(line.filter((d) => bounded(d.x)), { ...bar, y: at.y, x1: (d) => d.x.lo, x2: (d) => d.x.hi }),
      Plot.ruleX(line.filter((d) => bounded(d.y)), { ...bar, x: at.x, y1: (d) => d.y.lo, y2: (d) => d.y.hi }),
      Plot.line(line, { ...at, stroke: "var(--steered)", strokeWidth: 2 }),
      ...[["var(--steered)", (d) => d.r], ["var(--paper)", (d) => !d.r]].map(([fill, which]) =>
        Plot.dot(line.filter(which), { ...at, r: 3.6, stroke: "var(--steered)", strokeWidth: 1.5, fill })),
      ...line.map((d, i) => Plot.text([d], { ...at, ...labels[i], text: () => strength(d.r), fontSize: 12, fontWeight: 600,
        fill: "currentColor", stroke: "var(--paper)", strokeWidth: 4 })),
      Plot.tip(line, Plot.pointer({ ...at, fill: "var(--paper)",
        title: (d) => `r = ${strength(d.r)}\ncontent ${inWords(d.x)}\nconcept ${d.r ? inWords(d.y) : "0.50 by construction"}` })),
    ],
  });
}

/** Where the labels of points go [{x, y, text}, in pixels]: beside their point, off other labels and points. */
function placeLabels(dots) {
  const places = [
    ["start", 7, -9], ["end", -7, -9], ["start", 7, 10], ["end", -7, 10], ["middle", 0, -13], ["middle", 0, 14],
    ["start", 20, 0], ["end", -20, 0], ["start", 20, -18], ["end", -20, 14],
  ];
  const taken = dots.map((d) => ({ left: d.x - 4, right: d.x + 4, top: d.y - 4, bottom: d.y + 4 }));
  const overlaps = (a) => taken.filter((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).length;
  return dots.map((d) => {
    const tried = places.map(([textAnchor, dx, dy]) => {
      const wide = 7.5 * d.text.length;
      const left = d.x + dx - (textAnchor === "end" ? wide : textAnchor === "middle" ? wide / 2 : 0);
      return { textAnchor, dx, dy, box: { left, right: left + wide, top: d.y + dy - 6, bottom: d.y + dy + 6 } };
    });
    const { box, ...place } = d3.least(tried, (a) => overlaps(a.box));
    taken.push(box);
    return place;
  });
}

function drawContentTable() {
  const name = content.verbalizer || firstTested;
  const notes = new Notes();
  const cells = retentionOf(name).filter((c) => c.arm === "neutral" || c.injection === content.injection);
  const concept = new Map(tradeOff(name).map((d) => [d.r, d.y]));
  const moved = (c, shown) => (c.arm === "neutral" ? "" : shown());
  const steered = (c, shown) => (c.arm === "steered" ? shown() : "");
  fill("content-table", table(`Content and concept in the texts of ${name}`, [
    { head: "Arm", row: true, cell: (c) => c.arm },
    { head: "r", n: true, cell: (c) => strength(c.r) },
    { head: "Items", n: true, cell: (c) => String(c.n) },
    { head: "Content (AUROC)", n: true, cell: (c) => interval(figureOf(c, "auroc"), notes) },
    { head: "Lost since r = 0", n: true, cell: (c) => moved(c, () => interval(figureOf(c, "auroc_lost"), notes, { signed: true })) },
    { head: "Steered − permuted", n: true, cell: (c) => steered(c, () => interval(figureOf(c, "auroc_gap"), notes, { signed: true })) },
    { head: "Concept (AUROC)", n: true, cell: (c) => steered(c, () => interval(concept.get(c.r), notes)) },
  ], cells), notes.list(), el("p", { class: "footnotes" },
    `Texts of ${name}. Lost: the neutral arm's figure of the same prompts, less this one. Steered − permuted: below 0, ` +
    "a concept's direction displaces more of the prompt than a meaningless one of its length."));
}

sections.push({
  name: "content",
  start() {
    const names = page.verbalizers.map((v) => v.name).filter((name) => retentionOf(name).length);
    choose("content-injection", page.content.injections.map((key) => [key, injectionWords(key)]), content.injection, (value) => { content.injection = value; drawContent(); });
    choose("content-verbalizer", [["", "all, side by side"], ...optionsOf(names)], "", (value) => { content.verbalizer = value; drawContent(); });
    choose("content-scorer", page.content.scorers.map((s) => [s.scorer, s.scorer]), content.scorer, (value) => { content.scorer = value; drawContent(); });
  },
  draw: drawContent,
});
