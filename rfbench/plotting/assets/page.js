"use strict";
const held = document.getElementById("data");
const data = held && JSON.parse(held.textContent);

// -- sorting: the best first; a second click turns it round
const units = {k: 1e3, M: 1e6, G: 1e9};
function value(cell) {
  const found = cell.textContent.trim()
    .match(/^[\[×<]?([+-]?[\d.]+(?:e[+-]?\d+)?)\s*([kMG]\b)?/);
  return found ? parseFloat(found[1]) * (units[found[2]] || 1) : null;
}
function keyOf(cell, best) {
  if (best === "name") return cell.textContent.trim() || null;
  const number = value(cell);
  return number !== null && best === "zero" ? Math.abs(number) : number;
}
function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
}
function sort(table, head) {
  const column = head.cellIndex, best = head.dataset.best, was = head.getAttribute("aria-sort");
  const first = best === "high" ? "descending" : "ascending";
  const other = best === "high" ? "ascending" : "descending";
  const now = was === first ? other : first;
  for (const cell of head.parentElement.cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", now);
  const keyed = [...table.tBodies[0].rows].map(row => [keyOf(row.cells[column], best), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return now === "ascending" ? compare(a, b) : compare(b, a);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table")) {
  for (const head of table.querySelector(".heads").cells) {
    head.querySelector("button").addEventListener("click", () => {
      sort(table, head);
      update();  // what follows the view follows its order
    });
  }
}

// -- filters: a row stays if all of them say so; rows of one key go together
const form = document.querySelector(".tools");
const subjects = [...document.querySelectorAll("tr[data-text]")];  // one a key: they are counted
const filters = [row => {
  const words = form.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = row.dataset.text.toLowerCase();
  return words.every(word => text.includes(word));
}];
const followers = [];  // called with the keys that are shown, whenever they may have changed
function update() {
  const shown = new Set(subjects.filter(row => filters.every(stays => stays(row)))
    .map(row => row.dataset.key));
  for (const row of document.querySelectorAll("tr[data-key]"))
    row.hidden = !shown.has(row.dataset.key);
  for (const part of document.querySelectorAll(".frame, [data-section]")) {
    const rows = [...part.querySelectorAll("tr[data-key]")];
    part.hidden = rows.length > 0 && rows.every(row => row.hidden);
  }
  document.getElementById("count").value =
    `${shown.size} of ${subjects.length} ${form.dataset.noun}`;
  document.getElementById("empty").hidden = shown.size > 0 || !subjects.length;
  for (const follow of followers) follow(shown);
  cues();
}
form.hidden = subjects.length < 2;
form.addEventListener("input", update);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update));  // after the fields are empty

// -- a cue where a table goes on to the right
function cues() {
  for (const frame of document.querySelectorAll(".frame")) {
    const inner = frame.firstElementChild;
    const left = inner.scrollWidth - inner.clientWidth - inner.scrollLeft;
    frame.classList.toggle("more", left > 4);
  }
}
for (const inner of document.querySelectorAll(".frame > .wide"))
  inner.addEventListener("scroll", cues, {passive: true});
window.addEventListener("resize", cues);
document.addEventListener("toggle", cues, true);

// -- what a term means: by pointer, keyboard or touch; Escape puts it away
const tip = document.getElementById("tip");
let explained = null;
function explain(target) {
  explained?.removeAttribute("aria-describedby");
  explained = target;
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = target.dataset.tip;
  if (target instanceof HTMLElement) target.setAttribute("aria-describedby", "tip");
  const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const below = at.bottom + 6 + own.height < innerHeight;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(0, at.top - 6 - own.height)}px`;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - own.width - 8))}px`;
}
const term = event => event.target.closest?.("[data-tip]");
document.addEventListener("pointerover", event => explain(term(event) || null));
document.addEventListener("focusin", event => explain(term(event) || null));
document.addEventListener("focusout", () => explain(null));
document.addEventListener("scroll", () => explain(null), true);
document.addEventListener("keydown", event => event.key === "Escape" && explain(null));
addEventListener("DOMContentLoaded", update);
