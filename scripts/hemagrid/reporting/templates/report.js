// What the page does beyond showing itself. Without it all text and tables stand as they are.
"use strict";

const live = JSON.parse(document.getElementById("live").textContent);

// Draws the charts and makes the cells buttons of what is open; a fold waits until it opens.
function enliven(root) {
  const hidden = (element) => element.parentElement.closest("details:not([open])");
  for (const place of root.querySelectorAll("[data-chart]")) {
    if (!hidden(place)) draw(place);
  }
  for (const cell of root.querySelectorAll("td[data-cell]")) {
    if (!hidden(cell)) offerPictures(cell);
  }
}

async function draw(place) {
  const spec = live.charts[place.dataset.chart];
  delete place.dataset.chart;
  // The interpreter (`ast`) needs no eval, which the page's policy forbids.
  const options = { mode: "vega-lite", ast: true, renderer: "svg", actions: false };
  options.defaultStyle = false;
  options.logLevel = 1; // errors alone
  await vegaEmbed(place, spec, options);
  place.dataset.drawn = "";
}

// Tables that are sorted by a click on a heading

function offerSorting(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
}

function sort(table, heading) {
  const descending = heading.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const column = heading.cellIndex;
  const value = (row) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return descending ? -order : order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

// Confusion matrices whose cells show their images

function offerPictures(cell) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = cell.title;
  button.setAttribute("aria-label", cell.title);
  button.setAttribute("aria-pressed", "false");
  button.append(...cell.childNodes);
  button.addEventListener("click", () => showPictures(cell, button));
  cell.append(button);
  cell.removeAttribute("title");
  cell.dataset.key = cell.dataset.cell;
  delete cell.dataset.cell;
}

function showPictures(cell, button) {
  const table = cell.closest("table");
  const place = document.getElementById(table.dataset.shows);
  for (const other of place.parentElement.querySelectorAll("[aria-pressed=true]")) {
    other.setAttribute("aria-pressed", "false");
  }
  button.setAttribute("aria-pressed", "true");
  const { run, subset } = table.dataset;
  const pictures = live.cells[run]?.[subset]?.[cell.dataset.key] ?? [];
  const heading = document.createElement("p");
  const count = Number(cell.dataset.count);
  const few = pictures.length < count ? `; ${pictures.length || "no"} of them shown` : "";
  heading.textContent = `${button.title}${few}`;
  const gallery = document.createElement("div");
  gallery.className = "gallery";
  for (const [number, confidence] of pictures) {
    const figure = document.createElement("figure");
    figure.className = "narrow";
    const image = document.createElement("img");
    image.src = live.pictures[number];
    image.alt = `${button.title}, confidence ${confidence} %`;
    const caption = document.createElement("figcaption");
    caption.textContent = `${confidence} % sure`;
    figure.append(image, caption);
    gallery.append(figure);
  }
  place.replaceChildren(heading, gallery);
}

// Folds

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target?.closest("details");
  if (fold && !fold.open) {
    fold.open = true;
    target.scrollIntoView();
  }
}

for (const fold of document.querySelectorAll("details")) {
  fold.addEventListener("toggle", () => fold.open && enliven(fold));
}
for (const table of document.querySelectorAll("table.sortable")) offerSorting(table);
const runs = document.getElementById("open-runs");
runs.hidden = false;
runs.addEventListener("click", () => {
  const folds = [...document.querySelectorAll("#runs > details")];
  const open = folds.some((fold) => !fold.open);
  for (const fold of folds) fold.open = open;
});
addEventListener("hashchange", openTarget);
openTarget();
enliven(document.body);
