/* Off-manifold detection: what tells a moved activation from an unmoved one. */
"use strict";

const sought = page.detection && { injection: page.detection.injections[0] || "readout", detector: 0 };
const detectorWords = (d) => d.detector.replaceAll("_", " ") + (d.verbalizer ? ` of ${d.verbalizer}` : "");

function drawDetection() {
  const arms = MOVED.filter((arm) => page.detection.detectors.some((d) => d.cells.some((c) => c.arm === arm && c.injection === sought.injection)));
  fill("detection-legend", ...arms.map((arm) => armKey(arm)), armKey("neutral", { line: false, label: "nothing moved: unmoved prompts against others" }),
    armKey("natural", { line: false, label: "natural: unmoved too, texts of a concept" }), el("span", { class: "key" }, el("i", { class: "rule chance" }), "chance, 0.5"));
  const width = panelWidth("detection-charts", page.detection.detectors.length);
  fill("detection-charts", ...page.detection.detectors.map((detector) => detectorPanel(detector, arms, width)));
  drawDetectionTable();
}

function detectorPanel(detector, arms, width) {
  const cells = detector.cells.filter((c) => c.injection === "none" || c.injection === sought.injection);
  const slots = slotsOf(cells, { before: ["nat."] });
  const series = [
    { arm: "natural", name: "natural", points: mark(cells.find((c) => c.arm === "natural"), 0, "auroc", "unmoved"), line: false },
    { arm: "neutral", name: "neutral", points: mark(cells.find((c) => c.arm === "neutral"), slots.at(0), "auroc", "r = 0"), line: false },
    ...arms.map((arm) => ({ arm, name: arm, points: points(cells, arm, slots, "auroc", { injection: sought.injection }) })),
  ];
  const all = series.flatMap((s) => s.points);
  return el("div", { class: "multiple" },
    el("div", { class: "multiple-head" }, el("b", {}, detector.detector.replaceAll("_", " ")),
      detector.verbalizer ? el("span", { class: "muted" }, "of ", el("bdi", {}, detector.verbalizer)) : null),
    el("p", { class: "chart-title" }, detector.meaning),
    all.length
      ? curvesPanel(`Detection by ${detectorWords(detector)}, by arm and r; the table below has the numbers`, { width, height: 180, series, slots, domain: [0, 1], rules: [0.5] })
      : el("p", { class: "muted" }, "not measured"));
}

function drawDetectionTable() {
  const notes = new Notes();
  const detector = page.detection.detectors[sought.detector];
  const cells = detector.cells.filter((c) => (c.injection === "none" || c.injection === sought.injection) && c.figures.auroc);
  const steadily = new Map(detector.cells.filter((c) => c.injection === sought.injection && c.r === null).map((c) => [c.arm, figureOf(c, "monotonicity")]));
  const controls = [...new Set(cells.flatMap((c) => Object.keys(c.figures.auroc)))].filter(Boolean);
  const moved = (c, shown) => (c.injection === "none" ? "" : shown());
  const last = (c) => c === cells.filter((other) => other.arm === c.arm).pop();
  fill("detection-table", table(`Detection by ${detectorWords(detector)}`, [
    { head: "Arm", row: true, cell: (c) => c.arm },
    { head: "r", n: true, cell: (c) => strength(c.r) },
    { head: "Items", n: true, cell: (c) => String(c.n) },
    { head: "AUROC", n: true, cell: (c) => interval(figureOf(c, "auroc"), notes) },
    { head: "Over the same prompts unmoved", n: true, cell: (c) => moved(c, () => interval(figureOf(c, "auroc_over_neutral"), notes, { signed: true })) },
    { head: "Rises with r", n: true, cell: (c) => moved(c, () => (last(c) ? interval(steadily.get(c.arm), notes, { signed: true }) : "")) },
    ...controls.map((control) => ({ head: controlName(control), n: true, cell: (c) => withLead(c, "auroc", control, notes) })),
  ], cells, { tight: controls.length > 0 }), notes.list(), el("p", { class: "footnotes" },
    "Rises with r: rank correlation of the AUROC with r, from −1 to 1, over the whole grid of the arm."
    + (controls.length ? " The columns after it: the same detector with another text in the text's place, and the own text's lead over it." : "")));
}

sections.push({
  name: "detection",
  start() {
    choose("detection-injection", page.detection.injections.map((key) => [key, injectionWords(key)]), sought.injection, (value) => { sought.injection = value; drawDetection(); });
    choose("detection-detector", page.detection.detectors.map((d, i) => [String(i), detectorWords(d)]), "0", (value) => { sought.detector = Number(value); drawDetectionTable(); });
  },
  draw: drawDetection,
});
