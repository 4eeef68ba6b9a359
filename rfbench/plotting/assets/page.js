"use strict";
const units = {k: 1e3, M: 1e6, G: 1e9};
function value(cell) {
  const found = cell.textContent.match(/^[\[×<]?([+-]?[\d.]+(?:e[+-]?\d+)?)\s*([kMG]\b)?/);
  return found ? parseFloat(found[1]) * (units[found[2]] || 1) : null;
}
function order(table, column, up) {
  const numbers = table.tHead.rows[0].cells[column].classList.contains("n");
  const keyed = [...table.tBodies[0].rows].map(row => {
    const cell = row.cells[column];
    return [numbers ? value(cell) : cell.textContent || null, row];
  });
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const less = numbers ? a - b : a.localeCompare(b, undefined, {numeric: true});
    return up ? less : -less;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      order(table, column, up);
    });
  });
}
const box = document.querySelector(".search input");
box?.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const row of document.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    all += 1;
    shown += !row.hidden;
  }
  document.querySelector(".search output").value = words.length ? `${shown} of ${all} rows` : "";
});
