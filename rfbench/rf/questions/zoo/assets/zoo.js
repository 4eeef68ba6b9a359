"use strict";
const rows = [...document.querySelectorAll("tbody tr")];
const maps = data;  // a PNG by model, base64
const chosen = document.getElementById("chosen");
const tools = document.querySelector(".tools");
const column = name => [...document.querySelectorAll("thead th")]
  .findIndex(th => th.textContent === name);
const at = {status: column("status"), shift: column("shift"), gridding: column("gridding")};
for (const row of rows) {
  const name = row.cells[0].textContent, map = maps[name];
  if (map) {
    const image = document.createElement("img"), pick = document.createElement("input");
    image.src = "data:image/png;base64," + map; image.alt = "";
    pick.type = "checkbox"; pick.setAttribute("aria-label", "compare " + name);
    pick.addEventListener("change", () => show(row, name, map, pick.checked));
    const label = document.createElement("label");
    label.append(pick, image, document.createTextNode(name));
    row.cells[0].replaceChildren(label);
    label.style.display = "flex"; label.style.gap = "0.5rem"; label.style.alignItems = "center";
  }
}
function show(row, name, map, on) {
  document.getElementById("fig-" + name)?.remove();
  if (!on) return;
  const figure = document.createElement("figure"), image = document.createElement("img");
  figure.id = "fig-" + name; image.src = "data:image/png;base64," + map; image.alt = name;
  const text = document.createElement("figcaption");
  text.textContent = `${name}: shift ${row.cells[at.shift].textContent}, ` +
    `gridding ${row.cells[at.gridding].textContent}`;
  figure.append(image, text); chosen.append(figure);
}
function number(row, name) { return Math.abs(parseFloat(row.cells[at[name]].textContent)); }
tools.addEventListener("input", () => {
  const status = tools.status.value, shift = parseFloat(tools.shift.value);
  const gridding = parseFloat(tools.gridding.value);
  let shown = 0;
  for (const row of rows) {
    const out = (status && row.cells[at.status].textContent !== status)
      || (shift >= 0 && !(number(row, "shift") > shift))
      || (gridding >= 0 && !(number(row, "gridding") > gridding));
    row.classList.toggle("out", out);
    row.style.display = out ? "none" : ""; shown += !out;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length}`;
});
