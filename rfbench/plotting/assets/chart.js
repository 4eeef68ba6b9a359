"use strict";
// -- charts as SVG, drawn anew from what the filters leave
const SVG = "http://www.w3.org/2000/svg";
function node(name, attributes = {}, parent = null, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, val] of Object.entries(attributes)) made.setAttribute(key, val);
  if (text) made.textContent = text;
  parent?.append(made);
  return made;
}
function ticks(low, high, log) {
  if (log) {
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of [1, 2, 5]) all.push(digit * 10 ** power);
    return all.filter(x => x >= low * 0.999 && x <= high * 1.001);
  }
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(n => n * power >= rough);
  const all = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++)
    all.push(+(i * step).toPrecision(12));
  return all;
}
function short(x) {
  const [factor, unit] = [[1e9, " G"], [1e6, " M"], [1e3, " k"], [0, ""]]
    .find(([least]) => Math.abs(x) >= (least === 1e3 ? 1e4 : least));
  return +(x / (factor || 1)).toPrecision(4) + unit;
}
function range(values, log) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) return [low / 1.15, high * 1.15];
  const spare = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return [low - spare, high + spare];
}
// where: {width, height, xs, ys: all values to be shown, log: of x, xlabel, ylabel, label}
function axes(where) {
  const {width = 420, height = 270} = where;
  const box = {left: 52, right: width - 12, top: 10, bottom: height - 42};
  const [x0, x1] = range(where.xs, where.log), [y0, y1] = range(where.ys, false);
  const f = where.log ? Math.log : x => x;
  const x = v => box.left + (f(v) - f(x0)) / (f(x1) - f(x0)) * (box.right - box.left);
  const y = v => box.bottom - (v - y0) / (y1 - y0) * (box.bottom - box.top);
  const svg = node("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": where.label});
  let free = -Infinity;
  for (const v of ticks(x0, x1, where.log)) {
    node("line", {class: "grid", x1: x(v), x2: x(v), y1: box.top, y2: box.bottom}, svg);
    if (x(v) < free) continue;
    node("text", {x: x(v), y: box.bottom + 14, "text-anchor": "middle"}, svg, short(v));
    free = x(v) + 12 + 6 * short(v).length;
  }
  for (const v of ticks(y0, y1, false)) {
    node("line", {class: "grid", x1: box.left, x2: box.right, y1: y(v), y2: y(v)}, svg);
    node("text", {x: box.left - 5, y: y(v) + 4, "text-anchor": "end"}, svg, short(v));
  }
  node("path", {class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`}, svg);
  const middle = (box.top + box.bottom) / 2;
  node("text", {x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle"}, svg,
    where.xlabel);
  node("text", {x: 12, y: middle, "text-anchor": "middle",
    transform: `rotate(-90 12 ${middle})`}, svg, where.ylabel);
  return {svg, x, y, x0, x1};
}
// shape by number, so that series differ without colour as well
function mark(svg, kind, x, y, size, attributes) {
  const s = size;
  const paths = [
    `M${x - s} ${y}a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`,
    `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}z`,
    `M${x} ${y - 1.3 * s}l${1.2 * s} ${2.2 * s}h${-2.4 * s}z`,
    `M${x} ${y - 1.4 * s}l${1.4 * s} ${1.4 * s}l${-1.4 * s} ${1.4 * s}l${-1.4 * s} ${-1.4 * s}z`,
  ];
  return node("path", {d: paths[kind % paths.length], ...attributes}, svg);
}
