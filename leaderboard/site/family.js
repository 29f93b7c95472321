/* One family of concepts: every verbalizer, natural and steered, and its concepts one by one. */
"use strict";

fill("title", nameOf(inWords(page.family)));
fill("kicker", el("a", { href: `${page.home}index.html#${new URLSearchParams({ board: page.board.key })}` }, page.board.title));

const measured = page.entries.filter((e) => e.ends);
const axis = axisOf(measured.flatMap((e) => [e.ends.natural, e.ends.steered]));
const end = (c, kind) => (c ? el("div", { class: "stack" }, valued(c), whisker(c, axis, { kind })) : "—");
const byValue = (e) => -((e.ends.steered && e.ends.steered.value) || 0);
const order = [...measured].sort((x, y) => byValue(x) - byValue(y));
const board = table("Verbalizers", [
  { head: "Verbalizer", row: true, cell: (e) => el("span", {}, el("span", { class: "clip" }, link(e.page, e.name)), roleBadge(e.role)) },
  { head: "Natural", cell: (e) => end(e.ends.natural, "natural") },
  { head: "Steered", cell: (e) => end(e.ends.steered, "steered") },
  { head: "Concepts", n: true, cell: (e) => String((e.ends.steered || e.ends.natural || { n: "—" }).n) },
], order, { rowClass });
board.classList.add("board");
fill("verbalizers", measured.length ? board : el("p", {}, "No entry was measured on this family."));

const titles = new Map(order.flatMap((e) => e.concepts.map((c) => [c.name, c.title])));
const matrix = table("Concepts", [
  { head: "Concept", row: true, cell: ([, title]) => nameOf(title) },
  ...order.map((e) => {
    const own = new Map(e.concepts.map((c) => [c.name, c]));
    return { head: nameOf(e.name), cell: ([name]) => {
      const c = own.get(name);
      return el("span", { class: "num" }, el("span", { class: "natural" }, show(c && c.natural)), el("span", { class: "steered" }, show(c && c.steered)));
    } };
  }),
], [...titles]);
matrix.classList.add("board", "matrix");
fill("concepts", matrix);
