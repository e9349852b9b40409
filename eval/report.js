"use strict";
// The page is whole without this script: it adds values under the pointer, arrow keys in charts, a search, and opens
// what is folded away before the page is printed.

for (const chart of document.querySelectorAll(".chart")) {
  const points = [...chart.querySelectorAll(".point")];
  points.forEach((point, index) => point.setAttribute("tabindex", index ? "-1" : "0"));
  chart.addEventListener("keydown", (event) => {
    const here = points.indexOf(document.activeElement);
    const steps = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: points.length - 1 };
    const next = points[steps[event.key]];
    if (event.key === "Escape") hideTip();
    if (here < 0 || !(event.key in steps)) return;
    event.preventDefault();
    if (!next || next === points[here]) return;
    points[here].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  for (const point of points) {
    point.addEventListener("focus", () => showTip(point));
    point.addEventListener("blur", hideTip);
    point.addEventListener("pointerenter", () => showTip(point));
    point.addEventListener("pointerleave", hideTip);
  }
}

// The label of a point is read to those who hear the page; the box is for the others.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
let shown = null;
addEventListener("scroll", () => shown && showTip(shown), { passive: true, capture: true });

function showTip(point) {
  shown = point;
  const box = (point.querySelector(".mark") ?? point).getBoundingClientRect();
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const left = Math.max(8, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, room));
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above < 8 ? box.bottom + 8 : above}px`;
}

function hideTip() {
  shown = null;
  tip.hidden = true;
}

for (const group of document.querySelectorAll(".documents")) {
  const found = [...group.querySelectorAll(".document")].map((element) => [element, element.textContent.toLowerCase()]);
  const input = group.querySelector("input");
  const count = group.querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [element, text] of found) {
      element.hidden = !words.every((word) => text.includes(word));
      shown += element.hidden ? 0 : 1;
    }
    for (const source of group.querySelectorAll(".source")) {
      source.hidden = !source.querySelector(".document:not([hidden])");
    }
    count.textContent = words.length ? `${shown} of ${found.length}` : "";
  });
  group.querySelector(".search").hidden = false;
}

// A browser may print a page that a script cannot reach in time: the style sheet opens what is folded, too.
const opened = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    opened.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened.splice(0)) details.open = false;
});
