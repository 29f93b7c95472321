/* Reading the texts: natural and steered side by side, or by strength, with filters. */
"use strict";

const PER_PAGE = 12;

const shownTexts = { view: "pairs", verbalizer: firstTested, concept: "", end: "", right: "", search: "", page: 0 };

/** An untrusted text: its own direction, its own lines, and nothing but characters. */
function said(text, cutFrom) {
  const box = el("p", { class: "said", dir: "auto" });
  if (!text) {
    box.classList.add("muted");
    box.textContent = "(empty text)";
    return box;
  }
  const short = 420;
  box.textContent = text.length > short ? `${text.slice(0, short)}…` : text;
  if (text.length <= short) return box;
  const more = el("button", { type: "button", class: "more" }, `show all ${text.length.toLocaleString("en")} characters`);
  more.addEventListener("click", () => {
    box.textContent = text + (cutFrom ? `… (cut: ${cutFrom.toLocaleString("en")} characters in items.parquet)` : "");
    more.remove();
  });
  const both = el("div", {}, box, more);
  return both;
}

function entry(number) {
  const found = number === null ? null : page.examples.said[shownTexts.verbalizer]?.[number];
  if (!found || found[0] === null) return null;
  const [text, rank, top, error] = found;
  return { text: page.examples.texts[text], cut: page.examples.cut[text], rank, top, error, item: page.examples.items[number] };
}
const isRight = (found) => (found && isNumber(found.rank) ? found.rank === 1 : null);

function verdict(found) {
  if (!found) return null;
  const best = isNumber(found.top) && page.concepts[found.top] ? page.concepts[found.top].title : null;
  if (!isNumber(found.rank)) return best && found.item.concept === null ? el("span", { class: "chip" }, "most like: ", el("bdi", {}, best)) : el("span", { class: "chip" }, "not scored");
  const first = found.rank === 1;
  const rank = Number.isInteger(found.rank) ? found.rank : found.rank.toFixed(1);
  return el("span", { class: `chip ${first ? "right" : "wrong"}` },
    first ? "✓ right concept ranks first" : `✗ right concept ranks ${rank} of ${page.concepts.length}`,
    !first && best && best !== page.concepts[found.item.concept]?.title ? el("span", {}, ", most like: ", el("bdi", {}, best)) : null);
}

function textBlock(kind, heading, found) {
  const where = found && el("p", { class: "where" }, el("q", { dir: "auto" }, found.item.word), ` at position ${found.item.position} of `, el("code", {}, found.item.prompt));
  return el("div", { class: `text ${kind}` },
    el("p", { class: "text-head" }, el("b", {}, heading), " ", verdict(found)), where,
    found ? said(found.text, found.cut) : el("p", { class: "muted" }, "not in this run"),
    found && found.error ? el("p", { class: "bad" }, `failed: ${found.error}`) : null);
}

const titleOf = (item) => (item && item.concept !== null && page.concepts[item.concept] ? page.concepts[item.concept].title : "no concept");
const endOf = (item) => `${item.injection}/${item.kind}`;

function matching() {
  const { view, concept, end, right, search } = shownTexts;
  const needle = search.trim().toLowerCase();
  const found = [];
  for (const unit of page.examples[view]) {
    const entries = unit.map(entry);
    const steered = page.examples.items[view === "pairs" ? unit[1] : unit[unit.length - 1]];
    if (concept !== "" && steered.concept !== Number(concept)) continue;
    if (end && endOf(steered) !== end) continue;
    if (needle && !entries.some((e) => e && e.text.toLowerCase().includes(needle))) continue;
    if (right && !fits(right, view, entries)) continue;
    found.push({ entries, steered });
  }
  return found;
}

function fits(right, view, entries) {
  if (view === "series") {
    const some = entries.some((e) => e && e.item.arm === "steered" && isRight(e) === true);
    return right === "some" ? some : right === "none" ? !some : true;
  }
  const natural = isRight(entries[0]) === true;
  const steered = isRight(entries[1]) === true;
  return { both: natural && steered, natural: natural && !steered, steered: steered && !natural, none: !natural && !steered, some: natural || steered }[right];
}

function drawTexts() {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  shownTexts.page = Math.min(shownTexts.page, pages - 1);
  const from = shownTexts.page * PER_PAGE;
  const here = found.slice(from, from + PER_PAGE);
  const unit = shownTexts.view === "pairs" ? "pairs" : "series";
  byId("example-count").textContent = found.length
    ? `${found.length.toLocaleString("en")} ${unit} fit; ${from + 1} to ${from + here.length} shown.` : `No ${unit} fit these filters.`;
  fill("example-list", ...here.map(shownTexts.view === "pairs" ? pairCard : seriesCard));
  const step = (by, label) => {
    const button = el("button", { type: "button", disabled: shownTexts.page + by < 0 || shownTexts.page + by >= pages }, label);
    button.addEventListener("click", () => {
      shownTexts.page += by;
      drawTexts();
      byId("example-filters").scrollIntoView({ block: "start" });
    });
    return button;
  };
  fill("example-pager", ...(pages > 1 ? [step(-1, "← previous"), el("span", { class: "num" }, `page ${shownTexts.page + 1} of ${pages}`), step(1, "next →")] : []));
}

function cardHead(steered, extra) {
  return el("h3", {}, el("bdi", {}, titleOf(steered)), el("span", { class: "muted" }, ` ${extra}`));
}

function pairCard({ entries: [natural, moved, neutral], steered }) {
  return el("article", { class: "card" }, cardHead(steered, `${steered.injection}, ${steered.kind === "final" ? "last token" : "function word"}`),
    el("div", { class: "sides" }, textBlock("natural", "natural", natural), textBlock("steered", `steered, r = ${strength(steered.r)}`, moved)),
    textBlock("neutral", "the neutral prompt, unmoved", neutral));
}

function seriesCard({ entries, steered }) {
  return el("article", { class: "card" }, cardHead(steered, `${steered.injection}, in ${steered.prompt}, word “${steered.word}” at ${steered.position}`),
    el("ol", { class: "series" }, ...entries.filter(Boolean).map((found) => el("li", {},
      el("span", { class: "num r" }, found.item.arm === "neutral" ? "r = 0" : `r = ${strength(found.item.r)}`),
      el("div", {}, said(found.text, found.cut), found.error ? el("p", { class: "bad" }, `failed: ${found.error}`) : null),
      verdict(found)))));
}
