"use strict";
filters.push(row => {
  const held = data.rows[row.dataset.key], verdict = form.verdict.value;
  return (!verdict || held.verdicts.includes(verdict))
    && (!form.kind?.value || held.kind === form.kind.value);
});
// training curves of the rows that are shown
function curve(panel, series) {
  const spread = series.flatMap(s => [...s.low, ...s.high]);
  const chart = axes({xs: series.flatMap(s => s.x), ys: spread, xlabel: "step", ylabel: panel.title,
    label: `${panel.title} by step: ${series.map(s => s.label).join(", ")}`});
  series.forEach(s => {
    const path = ys => s.x.map((x, i) => `${chart.x(x)} ${chart.y(ys[i])}`);
    const colour = s.colour === "#000000" ? "var(--ink)" : s.colour;
    node("path", {d: `M${path(s.low).join("L")}L${path(s.high).reverse().join("L")}z`,
      fill: colour, opacity: 0.15}, chart.svg);
    node("path", {d: `M${path(s.mean).join("L")}`, stroke: colour, fill: "none",
      "stroke-width": 1.5, "stroke-dasharray": s.dash}, chart.svg);
    if (s.x.length < 20) s.x.forEach((x, i) =>
      mark(chart.svg, 0, chart.x(x), chart.y(s.mean[i]), 2, {fill: colour}));
  });
  return chart.svg;
}
const dashes = ["", "6 2", "2 2", "8 2 2 2"];
followers.push(shown => {
  for (const place of document.querySelectorAll("[data-curves]")) {
    const named = new Map();
    const figures = data.curves[place.dataset.curves].map(panel => {
      const series = panel.series.map((s, i) => ({...s, dash: dashes[i % 4]}))
        .filter(s => shown.has(s.key));
      series.forEach(s => named.set(s.label, s.colour));
      if (!series.length) return null;
      const figure = document.createElement("figure"), title = document.createElement("h4");
      title.textContent = panel.title;
      figure.append(title, curve(panel, series));
      return figure;
    }).filter(Boolean);
    const keys = place.nextElementSibling;
    keys.replaceChildren(...[...named].map(([label, colour]) => {
      const made = document.createElement("span");
      made.textContent = label;
      made.style.setProperty("--mark", colour === "#000000" ? "var(--ink)" : colour);
      return made;
    }));
    place.replaceChildren(...figures);
  }
});
