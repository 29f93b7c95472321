/* Privileged information: what a text says beyond what the words of the prompt give away. */
"use strict";

const informed = page.information && { injection: page.information.injections[0] || "readout", verbalizer: "" };
const informationOf = () => page.information.scorers.find((s) => s.scorer === state.scorer) || { verbalizers: [], readers: [] };
const cellsHere = (cells) => cells.filter((c) => c.injection === "none" || c.injection === informed.injection);
/** The readers with the highest AUROC of a cell, by name; "every reader" where they tie because they say the same. */
const strongestWords = (names, readers) => (names.length > 1 && names.length === readers.length ? "every reader" : names.join(", "));

function drawInformation() {
  const { verbalizers, readers } = informationOf();
  fill("information-legend", armKey("natural", { line: false, label: "natural, at the same word" }), armKey("steered", { label: "steered, in the same prompt" }),
    armKey("natural", { line: false, hollow: true, colour: "var(--muted)", label: "readers of text, natural" }),
    armKey("steered", { dashed: true, hollow: true, colour: "var(--muted)", label: "the strongest reader of text, steered" }));
  const flat = verbalizers.filter((v) => cellsHere(v.cells).every((c) => !within(c.auroc) || c.auroc.v === 0.5)).map((v) => v.verbalizer);
  const names = informed.verbalizer ? [informed.verbalizer] : verbalizers.map((v) => v.verbalizer).filter((name) => !flat.includes(name));
  const shown = verbalizers.filter((v) => names.includes(v.verbalizer));
  const width = panelWidth("information-charts", shown.length);
  const domain = domainOf(shown.flatMap((v) => cellsHere(v.cells).map((c) => c.auroc).filter(within)), { holds: [0.5, 1], most: [0, 1] });
  fill("information-charts", ...shown.map((v) => informationPanel(v, readers, { width, domain })),
    !verbalizers.length ? el("p", { class: "muted" }, `${state.scorer} did not judge these items.`) : null,
    !informed.verbalizer && flat.length ? el("p", { class: "basis flat" }, `At one half everywhere, so not drawn: ${flat.join(", ")}.`) : null);
  drawInformationTable();
}

function informationPanel({ verbalizer, cells }, readers, { width, domain }) {
  const here = cellsHere(cells);
  const steered = here.filter((c) => c.arm === "steered");
  const slots = slotsOf(steered, { before: ["nat."], zero: false });
  const at = (c) => ({ slot: c.arm === "natural" ? 0 : slots.at(c.r), told: c.arm === "natural" ? "same word" : `r = ${strength(c.r)}` });
  const own = (arm) => here.filter((c) => c.arm === arm && within(c.auroc)).map((c) => ({ ...c.auroc, ...at(c) }));
  const theirs = (reader, arm) => cellsHere(reader.cells).filter((c) => c.arm === arm && within(c.auroc)).map((c) => ({ ...c.auroc, ...at(c) }));
  const best = steered.filter((c) => c.strongest).map((c) => ({ c, reader: readers.find((r) => r.verbalizer === c.strongest[0]) }))
    .map(({ c, reader }) => ({ ...theirs(reader, "steered").find((d) => d.slot === slots.at(c.r)), strongest: strongestWords(c.strongest, readers) })).filter(within);
  const series = [
    { arm: "natural", name: verbalizer, points: own("natural"), line: false },
    { arm: "steered", name: verbalizer, points: own("steered") },
    ...readers.map((reader) => ({ arm: "natural", name: reader.verbalizer, points: theirs(reader, "natural"), line: false, hollow: true, colour: "var(--muted)" })),
    { arm: "steered", name: best[0]?.strongest || "", points: best, dashed: true, hollow: true, colour: "var(--muted)" },
  ];
  return el("div", { class: "multiple" }, headOf(verbalizer),
    curvesPanel(`AUROC of ${verbalizer} among items that share their words, beside readers of text; the table below has the numbers`, {
      width, height: 190, series, slots, domain, rules: [0.5] }));
}

function drawInformationTable() {
  const { verbalizers, readers } = informationOf();
  const name = informed.verbalizer || firstTested;
  const notes = new Notes();
  const cells = cellsHere(verbalizers.find((v) => v.verbalizer === name)?.cells || []);
  const reader = (c) => readers.find((r) => r.verbalizer === c.strongest?.[0])?.cells.find((d) => d.arm === c.arm && d.injection === c.injection && d.r === c.r);
  fill("information-table", table(`Information over text, ${name}`, [
    { head: "Arm", row: true, cell: (c) => (c.arm === "natural" ? "natural, same word" : "steered, same prompt") },
    { head: "r", n: true, cell: (c) => strength(c.r) },
    { head: "Items", n: true, cell: (c) => String(c.n) },
    { head: "AUROC", n: true, cell: (c) => interval(c.auroc, notes) },
    { head: "Strongest reader of text", cell: (c) => (c.strongest ? el("bdi", {}, strongestWords(c.strongest, readers)) : "—") },
    { head: "its AUROC", n: true, cell: (c) => (c.strongest ? interval(reader(c)?.auroc, notes) : "") },
    { head: "Information over it", n: true, cell: (c) => interval(c.over, notes, { signed: true, missing: "no reader of text ran" }) },
    { head: "Told from neutral", n: true, cell: (c) => (c.arm === "steered" ? interval(c.told, notes) : "") },
  ], cells, { cards: true }), notes.list(), el("p", { class: "footnotes" },
    `Texts of ${name}, judged by ${state.scorer}. The strongest reader is the one with the highest AUROC in that row: picked after the fact, so the lead over it errs on the cautious side.`));
}

sections.push({
  name: "information",
  start() {
    const names = [...new Set(page.information.scorers.flatMap((s) => s.verbalizers.map((v) => v.verbalizer)))];
    choose("information-injection", page.information.injections.map((key) => [key, injectionWords(key)]), informed.injection, (value) => { informed.injection = value; drawInformation(); });
    choose("information-verbalizer", [["", "all, side by side"], ...optionsOf(names)], "", (value) => { informed.verbalizer = value; drawInformation(); });
  },
  draw: drawInformation,
});
