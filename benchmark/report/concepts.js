/* Steers x verbalized: one row per concept. */
"use strict";

function drawConcepts() {
  const kind = state.conceptEnd.split("/")[1];
  const cells = (page.identified[state.scorer] || {})[state.concept] || {};
  const rows = page.concepts.map((concept, i) => ({
    concept, natural: cells[`natural/${kind}`]?.[i] ?? null, steered: cells[state.conceptEnd]?.[i] ?? null,
  }));
  const about = (list, does) => list.length && `${list.length} of ${rows.length} directions ${does}; there ${state.concept} has a mean AUROC of ` +
    `${mean(list, "natural")} natural and ${mean(list, "steered")} steered.`;
  const steering = rows.filter((row) => row.concept.steers.length);
  byId("concept-basis").textContent = !page.gate.length ? "The behaviour gate did not run."
    : [about(steering, "pass the gate at some r"), about(rows.filter((row) => !row.concept.steers.length), "pass it at none")].filter(Boolean).join(" ");
  const scaled = (x) => (isNumber(x) ? el("span", { class: "scaled num" }, meter(x), show(x)) : "—");
  const wide = state.conceptEnd.startsWith("upstream");
  const built = table("Concepts: steering and identification", [
    { head: "Concept", row: true, cell: ({ concept }) => el("span", { class: "who", title: concept.description }, el("bdi", {}, concept.title), el("span", { class: "sub" }, concept.family.replaceAll("_", " "))) },
    { head: "Steers at r", cell: ({ concept }) => steers(concept) },
    { head: "Natural AUROC", n: true, cell: (row) => scaled(row.natural) },
    { head: "Steered AUROC", n: true, cell: (row) => scaled(row.steered) },
    { head: "Matched r", n: true, cell: ({ concept }) => strength(concept.matched_r[state.conceptEnd]) },
    { head: wide ? "Split-half, upstream" : "Split-half", n: true, cell: ({ concept }) => show(wide ? concept.split_half_upstream : concept.split_half) },
    { head: "Left out because", cell: ({ concept }) => concept.excluded[state.conceptEnd] || "" },
    { head: "Answers", cell: ({ concept }) => answers(concept) },
  ], rows, { cards: true, rowClass: ({ concept }) => (concept.excluded[state.conceptEnd] ? "bracket" : null) });
  fill("concept-table", built, el("p", { class: "footnotes" },
    "Filled squares: strengths at which the direction passes the gate. Matched r: how far a concept is steered in the comparison. Split-half: cosine of two half directions. Grey rows are left out of the headline."));
}

const mean = (list, key) => show(d3.mean(list.map((row) => row[key]).filter(isNumber)));

function meter(x) {
  const bar = el("i", { class: "meter", "aria-hidden": "true" });
  bar.style.setProperty("--from", `${Math.round(100 * Math.min(x, 0.5))}%`);
  bar.style.setProperty("--to", `${Math.round(100 * Math.max(x, 0.5))}%`);
  return bar;
}

function steers(concept) {
  if (!concept.gate.length) return "—";
  const on = concept.gate.map((g) => g.steers);
  const unbroken = on.lastIndexOf(true) - on.indexOf(true) + 1 === concept.steers.length;
  const [low, high] = [concept.steers[0], concept.steers[concept.steers.length - 1]].map(strength);
  const words = !concept.steers.length ? "never" : unbroken && low !== high ? `${low} to ${high}` : concept.steers.map(strength).join(", ");
  return el("span", { class: "steers" },
    el("span", { class: "squares", "aria-hidden": "true" }, ...concept.gate.map((g) => el("i", { class: g.steers ? "on" : null, title: `r = ${strength(g.r)}` }))),
    words);
}

/** A button that opens, as a row of its own, what the subject wrote under the direction at every strength. */
function answers(concept) {
  if (!concept.gate.length) return "—";
  const button = el("button", { type: "button", class: "more", "aria-expanded": "false" }, "show");
  button.addEventListener("click", () => {
    const row = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    if (open) row.nextSibling.remove();
    else row.after(el("tr", { class: "answers" }, el("td", { colspan: String(row.children.length) }, ...concept.gate.map(answer))));
    button.setAttribute("aria-expanded", String(!open));
    button.textContent = open ? "show" : "hide";
  });
  return button;
}

function answer(g) {
  const q = isNumber(g.q) && g.q < 0.001 ? "q < 0.001" : `q = ${show(g.q, 3)}`;
  return el("div", { class: "answer" }, el("b", { class: "num" }, `r = ${strength(g.r)}`),
    el("div", {}, said(g.example), el("p", { class: "where" },
      `${g.steers ? "✓ steers" : ["✗ does not steer", ...g.fails].join(" · ")}: score ${show(g.score)} against ${show(g.permuted)} permuted (${q}), loss ${show(g.loss)}, distinct bigrams ${show(g.distinct)}`)));
}
