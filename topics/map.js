"use strict";
const canvas = document.getElementById("map"), pen = canvas.getContext("2d");
const tip = document.getElementById("tip"), find = document.getElementById("find"), found = document.getElementById("found");
const buttons = [...document.querySelectorAll("#legend button")];
const CELL = 40, cells = new Map();
const X = 0, Y = 1, FIELD = 2, KIND = 3, FIRST = 4, LAST = 5, NUMBER = 6, SUBFIELD = 7, TITLE = 8;
const words = DATA.seeds.map(seed => seed[TITLE].toLowerCase());
let view = null, moved = false, chosen = null, hits = null, under = -1;

DATA.seeds.forEach((seed, i) => {
  const key = Math.floor(seed[X] / CELL) * 1000 + Math.floor(seed[Y] / CELL);
  if (!cells.has(key)) cells.set(key, []);
  cells.get(key).push(i);
});

function whole() {
  const margin = 16, scale = Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * margin;
  view = { scale: scale / DATA.size, x: (canvas.clientWidth - scale) / 2, y: (canvas.clientHeight - scale) / 2 };
}

const shown = i => (chosen === null || DATA.seeds[i][FIELD] === chosen) && (hits === null || hits.has(i));

function draw() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const zoom = view.scale * DATA.size / Math.min(width, height), radius = Math.min(6, 1.5 * Math.sqrt(zoom));
  const filtered = chosen !== null || hits !== null;
  const paint = (visible, color, size) => {
    DATA.seeds.forEach((seed, i) => {
      if (shown(i) !== visible) return;
      const x = view.x + seed[X] * view.scale, y = view.y + seed[Y] * view.scale;
      if (x < -8 || y < -8 || x > width + 8 || y > height + 8) return;
      pen.fillStyle = color || DATA.colors[seed[FIELD]];
      pen.beginPath(); pen.arc(x, y, size, 0, 7); pen.fill();
    });
  };
  if (filtered) { pen.globalAlpha = 0.35; paint(false, "#9a968d", radius * 0.6); }
  pen.globalAlpha = 0.85; paint(true, null, filtered ? radius * 1.4 : radius);
  pen.globalAlpha = 1;
  if (under >= 0) {
    const seed = DATA.seeds[under];
    pen.strokeStyle = getComputedStyle(document.body).color; pen.lineWidth = 2;
    pen.beginPath(); pen.arc(view.x + seed[X] * view.scale, view.y + seed[Y] * view.scale, radius + 3, 0, 7); pen.stroke();
  }
}

function nearest(x, y) {
  const mx = (x - view.x) / view.scale, my = (y - view.y) / view.scale, reach = Math.ceil(12 / view.scale / CELL);
  let best = -1, least = (12 / view.scale) ** 2;
  for (let cx = Math.floor(mx / CELL) - reach; cx <= Math.floor(mx / CELL) + reach; cx++)
    for (let cy = Math.floor(my / CELL) - reach; cy <= Math.floor(my / CELL) + reach; cy++)
      for (const i of cells.get(cx * 1000 + cy) || []) {
        const seed = DATA.seeds[i], far = (seed[X] - mx) ** 2 + (seed[Y] - my) ** 2;
        if (far < least && shown(i)) { least = far; best = i; }
      }
  return best;
}

function point(event) {
  const x = event.offsetX, y = event.offsetY, seen = nearest(x, y);
  if (seen !== under) { under = seen; draw(); }
  tip.hidden = under < 0;
  if (under < 0) return;
  const seed = DATA.seeds[under], levels = DATA.levels.slice(seed[FIRST], seed[LAST] + 1).join(", ");
  tip.replaceChildren(seed[TITLE]);
  for (const line of [`${DATA.fields[seed[FIELD]]}-${seed[NUMBER]}`, `${seed[SUBFIELD]} · ${DATA.kinds[seed[KIND]]} · ${levels}`]) {
    const small = document.createElement("small"); small.textContent = line; tip.append(small);
  }
  tip.style.left = Math.max(4, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 6)) + "px";
  tip.style.top = (y + tip.offsetHeight + 24 < canvas.clientHeight ? y + 16 : y - tip.offsetHeight - 12) + "px";
}

let drag = null;
canvas.addEventListener("pointerdown", event => { drag = { x: event.clientX - view.x, y: event.clientY - view.y }; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointerup", event => { drag = null; point(event); });
canvas.addEventListener("pointermove", event => {
  if (!drag) return point(event);
  moved = true;
  view.x = event.clientX - drag.x; view.y = event.clientY - drag.y; tip.hidden = true; draw();
});
canvas.addEventListener("pointerleave", () => { under = -1; tip.hidden = true; draw(); });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  moved = true;
  const factor = Math.exp(-event.deltaY * 0.0015);
  view.x = event.offsetX - (event.offsetX - view.x) * factor; view.y = event.offsetY - (event.offsetY - view.y) * factor;
  view.scale *= factor; draw();
}, { passive: false });

function count() {
  const number = DATA.seeds.reduce((sum, _, i) => sum + shown(i), 0);
  found.textContent = chosen === null && hits === null ? "" : number.toLocaleString("en") + " seeds";
}
buttons.forEach(button => button.addEventListener("click", () => {
  const field = Number(button.dataset.field);
  chosen = chosen === field ? null : field;
  buttons.forEach(other => other.setAttribute("aria-pressed", String(Number(other.dataset.field) === chosen)));
  count(); draw();
}));
find.addEventListener("input", () => {
  const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  hits = wanted.length ? new Set(words.flatMap((text, i) => wanted.every(word => text.includes(word)) ? [i] : [])) : null;
  count(); draw();
});
document.getElementById("reset").addEventListener("click", () => {
  chosen = hits = null; find.value = "";
  buttons.forEach(button => button.setAttribute("aria-pressed", "false"));
  moved = false;
  whole(); count(); draw();
});
new ResizeObserver(() => { if (!moved) whole(); draw(); }).observe(canvas);
whole(); draw();
