"use strict";
// What all pages share: the data, elements, tables and charts in the colours of the page.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value); else made[key] = value;
  }
  made.append(...children);
  return made;
}

const short = (text, length) => text.length <= length ? text : text.slice(0, length - 1) + "\u2026";
// Plotly reads tags in its texts.
const literal = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const percent = (value, digits = 2) => (100 * value).toFixed(digits) + "%";
const isNumber = value => typeof value === "number";

function compare(a, b) {
  const [one, two] = [a, b].map(value => isNumber(value) || (typeof value === "string" && value.trim()) ? Number(value) : NaN);
  if (!isNaN(one) && !isNaN(two)) return one - two;
  return String(a).localeCompare(String(b), undefined, {numeric: true});
}

function simpleTable(id, heads, rows) {
  const cell = entry => typeof entry === "object" && entry !== null ? entry : element("td", {className: "text", textContent: entry});
  const cells = rows.map(row => row.map(cell)), isText = i => cells.every(row => row[i].classList.contains("text"));
  const head = heads.map((text, i) => element("th", {className: isText(i) ? "text" : "", textContent: text}));
  $(id).replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...cells.map(row => element("tr", {}, ...row))));
}

const long = text => element("td", {className: "text long", textContent: text});
const number = (text, className = "") => element("td", {textContent: text, className});

function layout(extra = {}) {
  const axis = {gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: true, exponentformat: "power"};
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, margin: {l: 60, r: 16, t: 30, b: 44},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--text")},
    font: {color: css("--text"), size: 12, family: getComputedStyle(document.body).fontFamily}, hovermode: "closest",
    hoverlabel: {namelength: -1, align: "left"}, height: 340,
  };
  const axes = Object.keys(extra).filter(key => /^[xy]axis/.test(key));
  for (const key of new Set(["xaxis", "yaxis", ...axes])) base[key] = {...axis, ...extra[key]};
  return {...extra, ...Object.fromEntries(Object.entries(base).map(([k, v]) => [k, /^[xy]axis/.test(k) ? v : extra[k] ?? v]))};
}

const draw = (id, traces, extra) =>
  Plotly.react(id, traces, layout(extra), {
    responsive: true, displaylogo: false, displayModeBar: "hover", plotlyServerURL: "",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "downloadJson", "sendChartToCloud"],
  });

// Draws counts with every row scaled to a sum of 1; names are those of rows and columns.
function drawCounts(id, rows, names, columns, rowLabel, columnLabel) {
  const sums = rows.map(row => Math.max(1, row.reduce((a, b) => a + b, 0))), isSmall = names.length <= 20;
  const share = rows.map((row, i) => row.map(value => value / sums[i])), isLong = names.some(text => text.length > 3);
  const hover = rows.map((row, i) => row.map((value, j) =>
    literal(`${rowLabel} ${names[i]}, ${columnLabel} ${columns[j]}: ${value} images (${percent(share[i][j], 1)})`)));
  const trace = {
    type: "heatmap", z: share.map(row => row.map(Math.sqrt)), zmin: 0, zmax: 1, x: columns.map((_, i) => i), y: names.map((_, i) => i),
    // The square root makes shares of a few percent visible.
    colorscale: [[0, css("--back")], [0.05, css("--grid")], [1, css("--strong")]], xgap: 1, ygap: 1,
    colorbar: {thickness: 12, tickvals: [0, 0.1, 0.25, 0.5, 1].map(Math.sqrt), ticktext: ["0%", "10%", "25%", "50%", "100%"],
      title: {text: "share of row", side: "right"}},
    text: rows.map(row => row.map(value => value ? String(value) : "")), texttemplate: isSmall ? "%{text}" : "",
    hovertext: hover, hovertemplate: "%{hovertext}<extra></extra>",
  };
  const axis = (title, labels) => ({
    title: {text: title}, tickvals: labels.map((_, i) => i), ticktext: labels.map(literal), showgrid: false, zeroline: false,
    tickfont: {size: isSmall ? 12 : 10},
  });
  draw(id, [trace], {
    height: Math.max(360, Math.min(760, 120 + 22 * names.length)), margin: {l: 50, r: 10, t: 30, b: 50},
    xaxis: {...axis(columnLabel, columns), tickangle: isLong ? -90 : 0}, yaxis: {...axis(rowLabel, names), autorange: "reversed"},
  });
}
