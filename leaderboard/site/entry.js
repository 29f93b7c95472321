/* One entry: who made it, what it scored, by strength, and what it says. */
"use strict";

const { entry, board } = page;
const card = entry.card;
const address = (at, choices) => `${page.home}${at}#${new URLSearchParams(choices)}`;
const hide = (id, empty) => { byId(id).hidden = empty; return empty; };
const said = (text) => el("p", { class: "said", dir: "auto" }, text.length > 600 ? `${text.slice(0, 600)}…` : text || "(an empty text)");

fill("kicker", el("a", { href: address("index.html", { board: board.key }) }, board.title));
fill("title", nameOf(entry.name));
fill("badges", roleBadge(entry.role), " ", statusBadge(entry.status));
byId("description").dir = "auto";
fill("description", (card.description || "").slice(0, 2000));

/** A link only where it is a web address; anything else stays text. */
function outside(text) {
  return /^https?:\/\//i.test(text) ? el("a", { href: text, rel: "noopener noreferrer nofollow" }, nameOf(text)) : nameOf(text);
}
const verified = entry.verified;
const facts = [
  ["Version", nameOf(card.version || "—")], ["Authors", nameOf((card.authors || []).join(", ") || "—")],
  ["Licence", nameOf(card.licence || "not stated")], ["Link", card.link ? outside(card.link) : "—"],
  ["Training data", el("bdi", {}, (card.training_data || "not stated").slice(0, 2000))],
  ["Status", verified ? el("bdi", {}, `verified by ${verified.by}, ${verified.date} (${verified.how}): ${verified.evidence}`.slice(0, 500)) : "self-reported: the submitter's own run. Its metrics can be made again from its texts (nlabench validate); that the texts tell of these activations is taken on trust"],
  ["Cost", isNumber(entry.texts_per_second) ? `${strength(1000 / entry.texts_per_second)} ms per activation (${speed(entry.texts_per_second)} texts/s)` : "not measured"],
  ["Texts", `${entry.n_texts.toLocaleString("en")}, ${entry.failed.toLocaleString("en")} failed`], ["Entry", el("code", {}, entry.id)],
];
if (entry.rescored) facts.push(["Numbers", el("bdi", {}, `made again from its texts: ${entry.rescored.replace(/\b([0-9a-f]{10})[0-9a-f]{30}/, "$1")}`.slice(0, 200))]);
const LONG_FACTS = ["Training data", "Status"];
fill("facts", ...facts.map(([key, value]) => el("div", { class: LONG_FACTS.includes(key) ? "wide" : null }, el("dt", {}, key), el("dd", {}, value))));
if (entry.warnings.length) fill("warnings", el("details", {}, el("summary", {}, `${entry.warnings.length} warning${entry.warnings.length === 1 ? "" : "s"}`), ...entry.warnings.map((w) => said(w))));

fill("cells", table("On the board", [
  { head: "Metric", row: true, cell: (c) => c.title },
  { head: "Rank", cell: (c) => { const x = entry.cells[c.id], rank = x && rankText(x); return rank ? `${rank} of ${x.of}` : "—"; } },
  { head: "Value", cell: (c) => { const x = entry.cells[c.id]; return x ? el("span", { class: "num" }, el("b", {}, numberText(x)), el("span", { class: "range" }, rangeText(x)), x.place && isNumber(x.place.value) ? el("span", { class: "sub" }, `place ${show(x.place.value)}${rangeText(x.place)}`) : null, x.note ? el("span", { class: "sub" }, x.note) : null) : "—"; } },
  { head: "What it is", cell: (c) => el("span", { class: "muted" }, c.what) },
], board.columns, { cards: true }));
byId("compare-link").href = address("compare.html", { board: board.key, a: entry.id });

const defined = (rows) => rows.filter((d) => isNumber(d.value));
const sized = () => Math.min(560, Math.max(280, byId("main").clientWidth - 40));
function drawDose() {
  const rows = defined(entry.dose);
  if (hide("dose-section", !rows.length)) return;
  const domain = [Math.min(0.4, ...rows.map((d) => d.low ?? d.value)), Math.max(1, ...rows.map((d) => d.high ?? d.value))];
  const injections = [...new Set(rows.map((d) => d.injection))];
  fill("dose", ...injections.map((injection) => {
    const own = rows.filter((d) => d.injection === injection);
    const width = sized();
    return el("figure", {}, el("figcaption", {}, el("b", {}, `added at: ${injection}`)), plot(`AUROC by strength, ${injection}`, {
      width, height: 270, marginLeft: 40, marginBottom: 42, x: { label: "strength r" }, y: { label: "AUROC", domain, grid: true },
      marks: [Plot.ruleY([0.5], { strokeDasharray: "3 3" }),
        Plot.ruleX(own.filter((d) => isNumber(d.low)), { x: "r", y1: "low", y2: "high", stroke: "var(--steered)" }),
        Plot.line(own, { x: "r", y: "value", stroke: "var(--steered)" }), Plot.dot(own, { x: "r", y: "value", fill: "var(--steered)", r: 4, title: (d) => `r ${d.r}: ${show(d.value)}` })],
    }));
  }));
}
function drawTradeoff() {
  const rows = entry.tradeoff.filter((d) => isNumber(d.concept) && isNumber(d.content));
  const spread = (key) => d3.max(rows, (d) => d[key]) - d3.min(rows, (d) => d[key]);
  // A text that never changes has one point for all strengths, and no trade-off.
  if (hide("tradeoff-section", !rows.length || (spread("concept") < 0.005 && spread("content") < 0.005))) return;
  fill("tradeoff", el("figure", {}, plot("Concept against content by strength", {
    width: sized(), height: 330, marginLeft: 45, marginBottom: 42, grid: true, x: { label: "concept found (AUROC) →" }, y: { label: "↑ content found" },
    marks: [Plot.ruleY(rows.filter((d) => isNumber(d.concept_low)), { y: "content", x1: "concept_low", x2: "concept_high", stroke: "var(--steered)", strokeOpacity: 0.5 }),
      Plot.ruleX(rows.filter((d) => isNumber(d.content_low)), { x: "concept", y1: "content_low", y2: "content_high", stroke: "var(--steered)", strokeOpacity: 0.5 }),
      Plot.line(rows, { x: "concept", y: "content", stroke: "var(--steered)", strokeDasharray: "2 3" }),
      Plot.dot(rows, { x: "concept", y: "content", fill: "var(--steered)", r: 4 }),
      Plot.text(rows, { x: "concept", y: "content", text: (d) => `r ${strength(d.r)}`, dx: 6, dy: -9, textAnchor: "start", fill: "currentColor", stroke: "var(--paper)", strokeWidth: 3 })],
  })));
}
drawDose();
drawTradeoff();
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawDose(); drawTradeoff(); } });

if (!hide("said-section", !entry.said)) {
  const counts = [["steers and is said", "steers_and_said"], ["steers, not said", "steers_unsaid"], ["said, does not steer", "said_without_steering"], ["neither", "neither"]];
  fill("said", el("p", { class: "explain" }, `Concepts at r = ${strength(entry.said.r)}: does adding the concept change what the subject writes, and does the verbalizer say so?`),
    el("dl", { class: "counts" }, ...counts.map(([label, key]) => el("div", {}, el("dt", {}, label), el("dd", {}, String(entry.said[key]))))));
}

const families = page.families.filter(([name]) => entry.families[name]);
if (!hide("families-section", !families.length)) {
  const axis = axisOf(families.flatMap(([name]) => [entry.families[name].natural, entry.families[name].steered]));
  const end = (kind) => ([name]) => { const c = entry.families[name][kind]; return c ? el("div", { class: "stack" }, valued(c), whisker(c, axis, { kind })) : "—"; };
  fill("families", table("By family", [
    { head: "Family", row: true, cell: ([name, href]) => link(href, inWords(name)) }, { head: "Natural", cell: end("natural") }, { head: "Steered", cell: end("steered") },
  ], families));
}

if (!hide("examples-section", !page.examples.length)) {
  fill("examples", ...page.examples.map((x) => el("article", { class: "card" },
    el("h3", {}, nameOf(x.title), el("span", { class: "muted" }, " on “", nameOf(x.word), `”, r = ${strength(x.r)}`)),
    el("div", { class: "sides" },
      el("div", { class: "text natural" }, el("p", { class: "text-head" }, "natural"), said(x.natural)),
      el("div", { class: "text steered" }, el("p", { class: "text-head" }, "steered"), said(x.steered))))));
}

const tasks = [...new Set(entry.metrics.map((m) => m.task))];
hide("metrics-section", !tasks.length);
fill("metrics", ...tasks.map((task) => {
  const rows = entry.metrics.filter((m) => m.task === task);
  const details = el("details", {}, el("summary", {}, `${inWords(task)} (${rows.length})`));
  // Drawn when opened: a suite has over a thousand rows.
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(metricTable(task, rows)); });
  return details;
}));
function metricTable(task, rows) {
  const where = (m) => [m.injection, m.level, m.kind].filter((x) => x && x !== "none").join(", ");
  return table(inWords(task), [
    { head: "Metric", row: true, cell: (m) => inWords(m.metric) }, { head: "Arm", cell: (m) => nameOf(m.arm) }, { head: "Injection, level, position", cell: where },
    { head: "r", n: true, cell: (m) => strength(m.r) }, { head: "Group", cell: (m) => nameOf(m.group || "") }, { head: "Versus", cell: (m) => nameOf(m.versus || "") },
    { head: "Value", cell: (m) => valued(m, 3) }, { head: "Items", n: true, cell: (m) => (isNumber(m.n_items) ? m.n_items.toLocaleString("en") : "—") },
    { head: "Note", cell: (m) => el("span", { class: "muted" }, m.note || "") },
  ], rows);
}
