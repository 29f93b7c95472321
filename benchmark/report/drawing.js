/* Drawing for any page: elements, numbers in words, tables and plots. Knows no data.
   Texts are untrusted: they reach a page through textContent and nothing else. */
"use strict";

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const byId = (id) => document.getElementById(id);
const fill = (id, ...children) => byId(id).replaceChildren(...children.filter(Boolean));

/** Fill a select and call `changed` when another value is chosen. options: [value, label] pairs. */
function choose(id, options, value, changed) {
  const select = byId(id);
  select.replaceChildren(...options.map(([key, label]) => el("option", { value: key }, label)));
  select.value = value;
  select.addEventListener("change", () => changed(select.value));
  return select;
}

const isNumber = (x) => typeof x === "number";
/** As Python rounds, which writes the findings: what lies exactly halfway goes to the even digit. */
function fixed(x, digits) {
  const scaled = x * 10 ** digits, down = Math.floor(scaled);
  return (scaled - down === 0.5 ? (down + (down % 2)) / 10 ** digits : x).toFixed(digits);
}
function show(x, digits = 2, signed = false) {
  if (!isNumber(x)) return "—";
  const text = fixed(Math.abs(x), digits);
  const zero = Number(text) === 0;
  return (x < 0 && !zero ? "−" : signed && !zero ? "+" : "") + text;
}
const strength = (r) => (isNumber(r) ? String(Number(r.toPrecision(3))) : "—");
const percent = (x) => (isNumber(x) ? `${Math.round(100 * x)} %` : "—");
function speed(x) {
  return !isNumber(x) ? "—" : x >= 100 ? Math.round(x).toLocaleString("en") : x.toFixed(1);
}

/** A table of `rows`; columns: {head, cell(row) -> node or text, n: numeric, row: names the row}.
    cards: on a phone, a card per row; tight: intervals beneath their values, where columns are many. */
function table(label, columns, rows, { cards = false, tight = false, rowClass = () => null } = {}) {
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: c.n ? "n" : null }, c.head)));
  const body = rows.map((row) => el("tr", { class: rowClass(row) }, ...columns.map((c) =>
    el(c.row ? "th" : "td", { scope: c.row ? "row" : null, class: c.n ? "n" : null, "data-label": c.head.textContent ?? c.head }, c.cell(row)))));
  return el("div", { class: `scroll${cards ? " cards" : ""}${tight ? " tight" : ""}`, tabindex: "0", role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}

const narrow = () => document.documentElement.clientWidth < 700;
const widthOf = (id) => Math.max(260, Math.floor(byId(id).getBoundingClientRect().width));
function plot(label, options) {
  const chart = Plot.plot({ style: { fontSize: "12px", fontFamily: "inherit", overflow: "visible" }, ...options });
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", label);
  return chart;
}
