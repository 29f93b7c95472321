/* Where the activations lie: angle by strength. */
"use strict";

function drawGeometry() {
  const points = page.geometry.filter((row) => isNumber(row.r) && row.level === "grid" && row.kind === "function" && row.injection !== "none" && isNumber(row.angle));
  const arms = [...new Set(points.map((row) => row.arm))];
  legend("geometry-legend", arms.map((arm) => [`line ${arm}`, arm]));
  const injections = [...new Set(points.map((row) => row.injection))];
  if (!points.length) {
    fill("geometry-chart", el("p", { class: "muted" }, "No arm was moved over a grid."));
    return;
  }
  const grid = [0, ...new Set(points.map((row) => row.r))].sort((a, b) => a - b);
  const full = widthOf("geometry-chart");
  const columns = full < 700 ? 1 : injections.length;
  const width = Math.floor((full - (columns - 1) * 24) / columns);
  const high = Math.max(90, d3.max(points, (row) => row.angle));
  fill("geometry-chart", ...injections.map((injection) => {
    const here = points.filter((row) => row.injection === injection);
    return el("figure", {}, el("figcaption", {}, el("b", {}, injection === "readout" ? "Moved at the readout" : "Moved upstream"), " angle from the unmoved activation, degrees"),
      plot(`Angle by r, ${injection}`, { width, height: 230, marginLeft: 36, marginRight: 12, marginTop: 10, marginBottom: 34,
        x: axisOf(grid, "r →"), y: { domain: [0, high], ticks: [0, 30, 60, 90], grid: true, label: null },
        marks: arms.flatMap((arm) => {
          const of = [{ x: 0, angle: 0 }, ...here.filter((row) => row.arm === arm).map((row) => ({ ...row, x: position(row.r, grid) }))];
          return of.length === 1 ? [] : [
            Plot.lineY(of, { x: "x", y: "angle", stroke: COLOURS[arm] || "currentColor", strokeWidth: 2, strokeOpacity: 0.85 }),
            Plot.dot(of, { x: "x", y: "angle", r: 3, fill: COLOURS[arm] || "currentColor", symbol: arm === "steered" ? "circle" : arm === "permuted" ? "square" : "diamond" }),
          ];
        }) }));
  }));
}
