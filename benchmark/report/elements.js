/* What every section draws with: the data, the choices made on the page, numbers with their intervals and legends.
   Texts are untrusted: they reach the page through textContent and nothing else. */
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const byName = new Map(page.verbalizers.map((v) => [v.name, v]));
const tested = page.verbalizers.filter((v) => v.role === "submitted" || v.role === "baseline");
const ceiling = page.verbalizers.find((v) => v.role === "ceiling");
const firstTested = (tested[0] || page.verbalizers[0] || { name: "" }).name;
const COLOURS = {
  natural: "var(--natural)", steered: "var(--steered)", permuted: "var(--permuted)", random: "var(--random)",
  graft: "var(--graft)", gaussian: "var(--gaussian)", graft_concept: "var(--graft-concept)", neutral: "currentColor",
};

/** Sections of tasks that a run may leave out add themselves: {name of their data in `page`, start(), draw()}. */
const sections = [];

const state = {
  scorer: page.scorer, end: page.headline.ends[0].key, injection: Object.keys(page.dose)[0] || "readout",
  dose: "", concept: firstTested, conceptEnd: page.headline.ends[0].key, claims: firstTested,
};

const verbalizerOptions = () => page.verbalizers.map((v) => [v.name, `${v.name} (${v.role})`]);
const roleBadge = (role) => el("span", { class: `role ${role}`, title: page.roles[role] || "" }, role);

/** Notes of one table, numbered as they come up and listed beneath it. */
class Notes {
  constructor() { this.numbers = new Map(); }
  mark(note) {
    if (!note) return null;
    if (!this.numbers.has(note)) this.numbers.set(note, this.numbers.size + 1);
    return el("sup", { title: note, class: "mark" }, String(this.numbers.get(note)));
  }
  list() {
    if (!this.numbers.size) return null;
    const items = [...this.numbers].map(([note, number]) => el("span", {}, el("sup", {}, String(number)), ` ${note} `));
    return el("p", { class: "footnotes" }, ...items);
  }
}

/** "0.73 [0.55, 0.85]"; a dash with its note where there is no value; "> 2" where a strength lies past the grid. */
function interval(c, notes, { signed = false, digits = 2, missing = "not measured in this run" } = {}) {
  const box = el("span", { class: "num" });
  if (!c) {
    box.append("—", notes.mark(missing));
    return box;
  }
  const past = isNumber(c.beyond) ? `> ${strength(c.beyond)}` : null;
  box.append(isNumber(c.v) ? el("b", {}, show(c.v, digits, signed)) : past ? el("b", {}, past) : "—");
  const mark = notes.mark(c.note);
  if (isNumber(c.lo) || (isNumber(c.v) && past)) {
    const low = isNumber(c.lo) ? show(c.lo, digits, signed) : "?";
    const high = isNumber(c.hi) ? show(c.hi, digits, signed) : past || "?";
    if (isNumber(c.v) || low !== "?") {
      box.append(el("span", { class: "range" }, ` [${low}, ${high}]`, mark));
      return box;
    }
  }
  if (mark) box.append(mark);
  return box;
}
const inWords = (c, signed) =>
  !c || !isNumber(c.v) ? "undefined"
    : show(c.v, 2, signed) + (isNumber(c.lo) && isNumber(c.hi) ? ` [${show(c.lo, 2, signed)}, ${show(c.hi, 2, signed)}]` : "");

function legend(id, entries) {
  fill(id, ...entries.filter(Boolean).map(([mark, label]) => el("span", { class: "key" }, el("i", { class: mark }), label)));
}

const within = (c) => c && isNumber(c.v);
const bounded = (c) => c && isNumber(c.lo) && isNumber(c.hi);
