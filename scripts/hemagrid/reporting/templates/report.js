// What the page does beyond showing itself. Without it all text and tables stand as they are.
"use strict";

// Acts on each element once, when it comes into view; what is in a closed fold waits.
function whenInView(selector, act) {
  const seen = (entries, observer) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      act(target);
    }
  };
  const observer = new IntersectionObserver(seen, { rootMargin: "400px" });
  for (const element of document.querySelectorAll(selector)) observer.observe(element);
}

// Charts: drawn when they come into view, or before the page is printed

let drawing; // Vega, and the specifications of all charts

async function unpacked(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function prepare() {
  const script = document.createElement("script");
  const [vega, charts] = await Promise.all([unpacked("vega"), unpacked("charts")]);
  script.textContent = vega;
  document.head.append(script);
  return JSON.parse(charts);
}

const AXIS = 70; // pixels beside a panel

// A chart that is too wide has panels and legends one above the other, with names in two columns.
function fitted(spec, width) {
  const narrowed = (key, value) => {
    if (key === "legend" && value?.columns) return { ...value, columns: 2 };
    if (key === "layout") return { bottom: { ...value.bottom, direction: "vertical" } };
    if (key === "labelLimit") return Math.min(value, width / 2 - AXIS);
    if (key === "width" && value > width - AXIS) return width - AXIS;
    return value;
  };
  const { hconcat, ...rest } = JSON.parse(JSON.stringify(spec), narrowed);
  if (hconcat) return { ...rest, vconcat: hconcat };
  return rest.concat ? { ...rest, columns: 1 } : rest;
}

async function draw(place) {
  const number = place.dataset.chart;
  delete place.dataset.chart;
  if (number === undefined) return;
  drawing ??= prepare();
  const spec = (await drawing)[number];
  // The interpreter (`ast`) needs no eval, which the page's policy forbids.
  const options = { mode: "vega-lite", ast: true, renderer: "svg", actions: false };
  options.defaultStyle = false;
  options.logLevel = 1; // errors alone
  options.bind = place.nextElementSibling;
  const { view } = await vegaEmbed(place, spec, options);
  if (place.scrollWidth > place.clientWidth) {
    view.finalize();
    options.bind.replaceChildren();
    await vegaEmbed(place, fitted(spec, place.clientWidth), options);
  }
  // The place has the text for readers who cannot see the drawing.
  place.querySelector("svg").setAttribute("aria-hidden", "true");
  place.dataset.drawn = "";
  offerScrolling();
}

// The keyboard reaches a chart that is wider than its place, to scroll it.
function offerScrolling() {
  for (const place of document.querySelectorAll("[data-drawn]")) {
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }
}

whenInView("[data-chart]", draw);
addEventListener("resize", offerScrolling);
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll("[data-chart]")) {
    if (place.checkVisibility()) draw(place);
  }
});

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

let album; // the pictures, and the numbers of those in each cell

function offerPictures(matrix) {
  for (const cell of matrix.querySelectorAll("td[data-cell]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = cell.title;
    button.setAttribute("aria-pressed", "false");
    button.append(...cell.childNodes);
    button.addEventListener("click", () => showPictures(cell, button));
    cell.append(button);
    cell.removeAttribute("title");
  }
}

function showPictures(cell, button) {
  album ??= JSON.parse(document.getElementById("album").textContent);
  const table = cell.closest("table");
  const place = document.getElementById(table.dataset.shows);
  for (const other of place.parentElement.querySelectorAll("[aria-pressed=true]")) {
    other.setAttribute("aria-pressed", "false");
  }
  button.setAttribute("aria-pressed", "true");
  const { run, subset } = table.dataset;
  const shown = album.cells[run]?.[subset]?.[cell.dataset.cell] ?? [];
  const heading = document.createElement("p");
  const count = Number(cell.dataset.count);
  const few = shown.length < count ? `; ${shown.length || "no"} of them shown` : "";
  heading.textContent = `${button.title}${few}`;
  const gallery = document.createElement("div");
  gallery.className = "gallery";
  for (const [number, confidence] of shown) {
    const figure = document.createElement("figure");
    figure.className = "narrow";
    const image = document.createElement("img");
    image.src = album.pictures[number];
    image.alt = `${button.title}, confidence ${confidence} %`;
    const caption = document.createElement("figcaption");
    caption.textContent = `${confidence} % sure`;
    figure.append(image, caption);
    gallery.append(figure);
  }
  place.replaceChildren(heading, gallery);
}

whenInView(".matrix[data-shows]", offerPictures);

// Folds

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target?.closest("details");
  if (fold && !fold.open) {
    fold.open = true;
    target.scrollIntoView();
  }
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
