/* What every page of the site draws with: its data, its choices in the address, names, badges, dots with whiskers. */
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);

/** The choices in the address: {name: value}. */
const readState = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
/** Put choices into the address without a step in the history; empty ones are left out. */
function writeState(state) {
  const kept = Object.entries(state).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

const LONGEST_NAME = 200;
const short = (text) => (text.length > LONGEST_NAME ? `${text.slice(0, LONGEST_NAME)}…` : text);
const nameOf = (text) => el("bdi", {}, short(String(text)));
/** A field's name in words. */
const inWords = (name) => String(name).replaceAll("_", " ");
const link = (href, text) => el("a", { href: page.home + href }, nameOf(text));
const ROLE_WORDS = {
  submitted: "under test", baseline: "a published method, for comparison", floor: "says nothing of the activation",
  ceiling: "sees the answer", reader: "reads text, not activations",
};
const roleBadge = (role) => el("span", { class: `role ${role}`, title: ROLE_WORDS[role] || "" }, role);
const statusBadge = (status) => el("span", { class: `badge ${status === "verified" ? "verified" : ""}` }, status === "verified" ? "✓ verified" : status);
const ranked = (entry) => entry.role === "submitted" || entry.role === "baseline";
const rowClass = (entry) => (ranked(entry) ? null : "bracket");

/** Bounds of a column over all that is drawn in it, so that rows share an axis. */
function axisOf(cells) {
  const all = cells.filter(Boolean).flatMap((c) => [c.value, c.low, c.high]).filter(isNumber);
  if (!all.length) return null;
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = high > low ? 0 : 0.5;
  return [low - room, high + room];
}
const numberText = (c, digits = 2) => (isNumber(c.value) ? show(c.value, digits) : isNumber(c.censored_at) ? `> ${strength(c.censored_at)}` : "—");
/** A bound keeps its sign where it rounds to 0: the sign says on which side of it. */
const boundText = (x) => (x < 0 && Number(x.toFixed(2)) === 0 ? "−0.00" : show(x));
const upperText = (c) => (isNumber(c.high) ? boundText(c.high) : isNumber(c.censored_at) ? `> ${strength(c.censored_at)}` : null);
const rangeText = (c) => (isNumber(c.low) && upperText(c) ? ` [${boundText(c.low)}, ${upperText(c)}]` : "");

/** A value and its interval as a dot and a line on `axis` = [low, high]; null where there is no value. */
function whisker(c, axis, { zero = false, kind = "" } = {}) {
  if (!c || !isNumber(c.value) || !axis) return null;
  const make = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const at = (x) => 4 + (112 * (x - axis[0])) / (axis[1] - axis[0]);
  const svg = make("svg", { viewBox: "0 0 120 14", class: `whisker ${kind}`, "aria-hidden": "true", preserveAspectRatio: "none" });
  svg.append(make("line", { class: "track", x1: 0, x2: 120, y1: 7, y2: 7 }));
  if (zero) svg.append(make("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 14 }));
  if (isNumber(c.low) && upperText(c)) svg.append(make("line", { class: "span", x1: at(c.low), x2: isNumber(c.high) ? at(c.high) : 120, y1: 7, y2: 7 }));
  svg.append(make("circle", { cx: at(c.value), cy: 7, r: 3.6 }));
  return svg;
}

const rankText = (c) => (!isNumber(c.best) ? null : c.best === c.worst ? String(c.best) : `${c.best}–${c.worst}`);
/** A cell of the board: rank interval, value with its interval, and both drawn. */
function boardCell(c, column, axis) {
  if (!c) return el("span", { class: "muted" }, "—");
  const rank = rankText(c);
  return el("div", { class: "cell", title: c.note || null },
    column.ranked ? el("span", { class: `rank ${rank ? (c.best === 1 ? "first" : "") : "none"}`, title: rank ? `rank ${rank}` : "no rank" }, rank || "–") : null,
    el("span", { class: "num" }, el("b", {}, numberText(c)), el("span", { class: "range" }, rangeText(c))),
    whisker(c, axis),
    c.place && isNumber(c.place.value) ? el("span", { class: "place" }, `place ${show(c.place.value)}${rangeText(c.place)}`) : null);
}

const valued = (c, digits = 2) => el("span", { class: "num" }, el("b", {}, c ? numberText(c, digits) : "—"), el("span", { class: "range" }, c ? rangeText(c) : ""));
const boardName = (board) => board.title + (board.private ? " (private pack)" : "");
const boardOptions = () => page.boards.map((b) => [b.key, boardName(b)]);

/** A select whose options are redrawn with the page. */
function options(id, pairs, value) {
  byId(id).replaceChildren(...pairs.map(([key, label]) => el("option", { value: key }, label)));
  byId(id).value = value;
}
