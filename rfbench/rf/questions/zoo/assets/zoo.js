"use strict";
const networks = data.networks;
const rowsOf = subjects.map(row => [row, networks[row.dataset.key]]);
const boxes = new Map();  // row -> its tick

filters.push(row => {
  const held = networks[row.dataset.key];
  const least = (field, value) => field.value === "" || Math.abs(value ?? NaN) > +field.value;
  return (!form.library?.value || held.model.startsWith(form.library.value + ":"))
    && (!form.status.value || held.status === form.status.value)
    && least(form.shift, held.shift) && least(form.gridding, held.gridding);
});

// -- maps: `side` px of the input around the unit; marks are as large as `px` of the screen asks
function drawn(map, side, px, label) {
  const svg = node("svg", {class: "map", viewBox: `${-side / 2} ${-side / 2} ${side} ${side}`});
  if (label) { svg.setAttribute("role", "img"); svg.setAttribute("aria-label", label); }
  else svg.setAttribute("aria-hidden", "true");
  node("rect", {class: "back", x: -side / 2, y: -side / 2, width: side, height: side}, svg);
  const [top, left, width] = map.box;
  node("image", {x: left, y: top, width, height: width,
    href: "data:image/png;base64," + map.png}, svg);
  const unit = side / px;  // of the input, in a px of the screen
  const r = 6 * unit, cross = `M${-r} 0H${r}M0 ${-r}V${r}`, [y, x] = map.offset;
  const ring = `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  if (!label) return svg;
  for (const [d, name] of [[cross, "unit"], [ring, "centre"]]) {
    node("path", {d, class: "outline", "stroke-width": 3.4 * unit}, svg);
    node("path", {d, class: name, "stroke-width": 1.6 * unit}, svg);
  }
  const bar = round(side / 4), at = side / 2 - 8 * unit;
  for (const [name, wide] of [["scale under", 6], ["scale", 3]])
    node("path", {class: name, d: `M${-at} ${at}h${bar}`, "stroke-width": wide * unit}, svg);
  node("text", {x: -at, y: at - 6 * unit, "font-size": 11 * unit, "stroke-width": 3 * unit},
    svg, `${bar} px`);
  return svg;
}
function round(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return Math.max(...[1, 2, 5].filter(n => n * power <= length)) * power;
}
function reach(map) {  // the least side of a square around the unit that holds the map and marks
  const [top, left, width] = map.box;
  return 2 * Math.max(-top, -left, top + width, left + width);
}
for (const [row, held] of rowsOf) {
  if (!held.maps.length) continue;
  const cell = row.cells[0], label = document.createElement("label");
  const tick = document.createElement("input");
  tick.type = "checkbox";
  tick.addEventListener("change", update);
  boxes.set(row, tick);
  const name = document.createElement("span");
  name.append(...cell.childNodes);
  label.append(tick, drawn(held.maps[0], data.span, 40, ""), name);
  cell.replaceChildren(label);
}

// -- the maps that are ticked and shown, in the order of the table, where one looks
const panel = document.getElementById("compared");
function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function remove(text, label, of) {
  const button = element("button", text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => {
    for (const tick of of) tick.checked = false;
    update();
  });
  return button;
}
function compared(row, side) {
  const held = networks[row.dataset.key], figure = element("figure", "", "network");
  const caption = element("figcaption", held.model), pair = element("div", "", "pair");
  caption.append(remove("\u00d7", "remove " + held.model, [boxes.get(row)]));
  for (const map of held.maps) {
    const own = element("figure");
    own.append(drawn(map, side, 200, `${held.model}, ${map.title}: ${map.text}`),
      element("figcaption", `${map.title}: ${map.text}`));
    pair.append(own);
  }
  if (held.maps.length < 2) pair.append(element("p", `${data.fix} changes nothing here.`, "legend"));
  figure.append(caption, pair);
  return figure;
}
followers.push(() => {
  const ticked = [...document.querySelectorAll("tr[data-text]")]
    .filter(row => boxes.get(row)?.checked);
  const rows = ticked.filter(row => !row.hidden);
  panel.hidden = !ticked.length;
  if (!ticked.length) return panel.replaceChildren();
  const side = Math.max(...rows.flatMap(row => networks[row.dataset.key].maps.map(reach)), 1);
  const head = element("header"), away = ticked.length - rows.length;
  head.append(element("strong", `${rows.length} compared`), element("span",
    rows.length ? `every panel is ${Math.round(side)} px of the input wide` : "", "legend"));
  if (away) head.append(element("span", `${away} more ticked, but filtered out`));
  head.append(remove("remove all", "remove all", ticked.map(row => boxes.get(row))));
  const list = element("div", "", "networks");
  list.tabIndex = 0;
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", "Maps side by side");
  list.append(...rows.map(row => compared(row, side)));
  panel.replaceChildren(head, list);
});

// -- published accuracy against what is measured
const law = document.getElementById("law");
const charted = [
  {title: "field size", of: held => held.size, log: true, xlabel: "theoretical field, px",
    area: held => held.macs},
  {title: "shift", of: held => Math.abs(held.shift), xlabel: "|shift|, px"},
  {title: "MACs", of: held => held.macs, log: true, xlabel: "multiply-accumulates"},
];
function fitted(points) {  // least squares of y = a + b ln x
  const n = points.length, logs = points.map(([x]) => Math.log(x));
  const mean = values => values.reduce((a, b) => a + b, 0) / n;
  const mx = mean(logs), my = mean(points.map(([, y]) => y));
  const sxx = mean(logs.map(x => (x - mx) ** 2));
  const sxy = mean(points.map(([, y], i) => (logs[i] - mx) * (y - my)));
  const syy = mean(points.map(([, y]) => (y - my) ** 2));
  if (n < 3 || !(sxx > 1e-12 && syy > 1e-12)) return null;
  const b = sxy / sxx;
  return {a: my - b * mx, b, r2: sxy ** 2 / (sxx * syy)};
}
function scatter({title, of, log, xlabel, area}, shown) {
  const points = shown.map(([row, held]) => [of(held), held.top1, row, held]);
  const xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  const line = title === "field size" ? fitted(points) : null;
  const ends = line ? [Math.min(...xs), Math.max(...xs)]
    .map(x => [x, line.a + line.b * Math.log(x)]) : [];
  const chart = axes({xs, ys: [...ys, ...ends.map(([, y]) => y)], log, xlabel, ylabel: "top-1, %",
    label: `Published top-1 against ${title}, ${points.length} networks`});
  if (line) node("path", {class: "fit",
    d: "M" + ends.map(([x, y]) => `${chart.x(x)} ${chart.y(y)}`).join("L")}, chart.svg);
  const most = area && Math.max(...shown.map(([, held]) => area(held)));
  for (const [x, y, row, held] of points) {
    const size = area ? 2 + 8 * Math.sqrt(area(held) / most) : 4;
    const kind = held.status === "local" ? "local" : "context";
    const made = mark(chart.svg, kind === "local" ? 0 : 1, chart.x(x), chart.y(y), size, {
      class: kind + (boxes.get(row)?.checked ? " chosen" : ""),
      "data-tip": `${held.model}: top-1 ${y.toFixed(2)} %, field ${held.size} px, ` +
        `shift ${held.shift.toFixed(2)} px, ${short(held.macs)} MACs`});
    made.addEventListener("click", () => boxes.get(row)?.click());
  }
  const figure = element("figure");
  figure.append(element("h3", title), chart.svg);
  return [figure, line];
}
if (law) followers.push(() => {
  const shown = rowsOf.filter(([row, held]) =>
    !row.hidden && held.top1 !== null && held.shift !== null && held.macs !== null);
  law.hidden = !shown.length;
  if (!shown.length) return;
  const made = charted.map(what => scatter(what, shown));
  law.querySelector(".charts").replaceChildren(...made.map(([figure]) => figure));
  const line = made[0][1];
  document.getElementById("fit").textContent = (line
    ? `top-1 = ${line.a.toFixed(1)} ${line.b < 0 ? "\u2212" : "+"} ` +
      `${Math.abs(line.b).toFixed(2)} ln(size), R\u00b2 = ${line.r2.toFixed(2)}, `
    : "") + `n = ${shown.length}. Circles: local; squares: local + global context; ` +
    "the larger, the more MACs (field size).";
});
