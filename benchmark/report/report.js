/* Ties the choices to the sections, and draws the page. */
"use strict";

function rightOptions() {
  return shownTexts.view === "pairs"
    ? [["", "any"], ["both", "both"], ["natural", "natural only"], ["steered", "steered only"], ["some", "at least one"], ["none", "neither"]]
    : [["", "any"], ["some", "at some r"], ["none", "at no r"]];
}
function fillRight() {
  byId("example-right").replaceChildren(...rightOptions().map(([key, label]) => el("option", { value: key }, label)));
  shownTexts.right = "";
}
function fillEnds() {
  const view = shownTexts.view;
  const present = [...new Set(page.examples[view].map((unit) => endOf(page.examples.items[view === "pairs" ? unit[1] : unit[unit.length - 1]])))];
  byId("example-end").replaceChildren(...[["", "any"], ...present.sort().map((end) => [end, end.replace("/", ", ")])].map(([key, label]) => el("option", { value: key }, label)));
  // The headline's pairs first; any other kind is one choice away.
  shownTexts.end = byId("example-end").value = present.includes("readout/function") ? "readout/function" : "";
}

function drawAll() {
  drawHeadline();
  drawDose();
  drawConcepts();
  drawCrossing();
  drawClaims();
  drawGeometry();
  for (const section of present()) section.draw();
}
const present = () => sections.filter((section) => page[section.name]);

function start() {
  const ends = page.headline.ends.map((end) => [end.key, end.title]);
  choose("scorer", page.scorers.map((s) => [s.name, s.ranks ? s.name : `${s.name} (failed its gate)`]), state.scorer, (value) => { state.scorer = value; drawAll(); });
  choose("end", ends, state.end, (value) => { state.end = value; drawHeadline(); });
  choose("dose-injection", Object.keys(page.dose).map((key) => [key, key === "readout" ? "at the readout" : key]), state.injection, (value) => { state.injection = value; drawDose(); });
  choose("dose-verbalizer", [["", "all, side by side"], ...verbalizerOptions()], "", (value) => { state.dose = value; drawDose(); });
  choose("concept-verbalizer", verbalizerOptions(), state.concept, (value) => { state.concept = value; drawCrossing(); drawConcepts(); });
  if (page.said) choose("said-strength", page.said.strengths.map((r) => [String(r), `r = ${strength(r)}`]), String(crossings.r), (value) => { crossings.r = Number(value); drawCrossing(); });
  choose("concept-end", ends, state.conceptEnd, (value) => { state.conceptEnd = value; drawConcepts(); });
  choose("claims-verbalizer", verbalizerOptions(), state.claims, (value) => { state.claims = value; drawClaimsTable(); });
  for (const section of present()) section.start();
  const filter = (key) => (value) => { shownTexts[key] = value; shownTexts.page = 0; drawTexts(); };
  choose("example-verbalizer", verbalizerOptions(), firstTested, filter("verbalizer"));
  choose("example-concept", [["", "all"], ...page.concepts.map((concept, i) => [String(i), concept.title])], "", filter("concept"));
  byId("example-end").addEventListener("change", (event) => filter("end")(event.target.value));
  byId("example-right").addEventListener("change", (event) => filter("right")(event.target.value));
  byId("example-search").addEventListener("input", (event) => filter("search")(event.target.value));
  byId("example-filters").addEventListener("submit", (event) => event.preventDefault());
  byId("example-view").addEventListener("change", (event) => {
    shownTexts.view = event.target.value;
    fillRight();
    fillEnds();
    filter("view")(event.target.value);
  });
  fillRight();
  fillEnds();
  drawAll();
  drawTexts();
  let width = document.documentElement.clientWidth;
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (document.documentElement.clientWidth === width) return;
      width = document.documentElement.clientWidth;
      drawAll();
    }, 150);
  });
}

start();
