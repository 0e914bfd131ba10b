"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const CLASSES = DATA.classes, COUNT = DATA.x.length;
// Okabe and Ito's palette for colour-blind readers, without yellow, which is too faint on white, and black. Colour and shape change
// from class to class; their numbers have no common divisor, so that a colour and a shape name a class.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "x", "star"];
const FEW = PALETTE.length * SHAPES.length;
const MANY_POINTS = 3000;  // More of them are drawn by WebGL.
const SCALE = 2;  // Pixels of the screen for one of a small image.
const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly reads tags in its texts.
const literal = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = text => text.length <= 30 ? text : text.slice(0, 29) + "\u2026";

const rows = CLASSES.map(() => []), unknown = [];
DATA.label.forEach((label, row) => (label < 0 ? unknown : rows[label]).push(row));
const hasColours = CLASSES.length <= FEW;
const size = COUNT > 4000 ? 5 : COUNT > 800 ? 7 : 9;

function trace(points, marker, extra = {}) {
  return {
    type: COUNT > MANY_POINTS ? "scattergl" : "scatter", mode: "markers", hoverinfo: "none", customdata: points,
    x: points.map(row => DATA.x[row]), y: points.map(row => DATA.y[row]),
    marker: {size, line: {width: 0.5, color: css("--back")}, ...marker}, ...extra,
  };
}

function traces(emphasised) {
  const faint = {color: css("--other"), opacity: 0.35};
  const others = CLASSES.length ? {name: "no label", showlegend: hasColours} : {showlegend: false};
  if (!CLASSES.length) return [trace(unknown, {color: css("--strong"), opacity: 0.8}, others)];
  if (hasColours) {
    const coloured = rows.map((points, i) => trace(points, {
      color: PALETTE[i % PALETTE.length], symbol: SHAPES[i % SHAPES.length],
      opacity: emphasised < 0 || emphasised === i ? 0.85 : 0.08,
    }, {name: literal(short(CLASSES[i])), showlegend: true}));
    return unknown.length ? [trace(unknown, faint, others), ...coloured] : coloured;
  }
  const all = trace(DATA.x.map((_, row) => row), {color: css("--other"), opacity: emphasised < 0 ? 0.8 : 0.5}, {showlegend: false});
  const points = emphasised < 0 ? [] : rows[emphasised];
  return [all, trace(points, {color: css("--strong"), size: size + 4}, {showlegend: false})];
}

function layout() {
  const axis = {visible: false, zeroline: false};
  return {
    margin: {l: 8, r: 8, t: 36, b: 8}, paper_bgcolor: css("--back"), plot_bgcolor: css("--back"), hovermode: "closest",
    font: {color: css("--text"), size: 13}, xaxis: axis, yaxis: {...axis, scaleanchor: "x"}, dragmode: "pan", uirevision: "same",
    modebar: {color: css("--quiet"), activecolor: css("--text"), bgcolor: "rgba(0,0,0,0)"}, legend: {itemsizing: "constant"},
  };
}

const CONFIG = {responsive: true, displaylogo: false, scrollZoom: true, modeBarButtonsToRemove: ["select2d", "lasso2d"]};
let chosen = -1, drawn = -1;

function draw(emphasised) {
  drawn = emphasised;
  return Plotly.react("map", traces(emphasised), layout(), CONFIG);
}

function place(event) {
  const box = $("hover"), gap = 14;
  const x = event.clientX + gap + box.offsetWidth < innerWidth ? event.clientX + gap : event.clientX - gap - box.offsetWidth;
  const y = Math.min(event.clientY + gap, innerHeight - box.offsetHeight - 4);
  box.style.left = Math.max(4, x) + "px";
  box.style.top = Math.max(4, y) + "px";
}

function showImage(row, event) {
  const image = $("image"), encoded = DATA.image[row], label = DATA.label[row];
  image.hidden = encoded === null;
  image.onload = () => {
    image.width = SCALE * image.naturalWidth;
    place(event);
  };
  if (encoded !== null) image.src = "data:image/jpeg;base64," + encoded;
  $("label").textContent = label < 0 ? "" : CLASSES[label];
  $("path").textContent = DATA.path[row];
  $("hover").hidden = false;
  place(event);
}

function emphasise() {
  const wanted = $("emphasised").value.trim().toLowerCase(), names = CLASSES.map(name => name.toLowerCase());
  chosen = !wanted ? -1 : names.includes(wanted) ? names.indexOf(wanted) : names.findIndex(name => name.includes(wanted));
  $("shown").textContent = chosen >= 0 ? `${CLASSES[chosen]}: ${rows[chosen].length} images` : wanted ? "no such class" : "";
  draw(chosen);
}

$("title").textContent = DATA.title;
$("about").textContent = DATA.note + (hasColours ? "" : " Pointing at an image emphasises its class.");
$("classes").append(...CLASSES.map(name => Object.assign(document.createElement("option"), {value: name})));
$("emphasised").oninput = emphasise;
document.querySelector(".controls").hidden = !CLASSES.length;
draw(-1).then(map => {
  map.on("plotly_hover", ({points, event}) => {
    const row = points[0].customdata;
    showImage(row, event);
    if (!hasColours && chosen < 0 && DATA.label[row] >= 0 && DATA.label[row] !== drawn) draw(DATA.label[row]);
  });
  map.on("plotly_unhover", () => { $("hover").hidden = true; });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(drawn));
