"use strict";
// The page of an evaluation. Tables are sorted by a click on the name of a column.

// ---- tables ------------------------------------------------------------------------------------------------------------------

// Returns the number with which a text such as 97.2% or 1,024 begins, else the text.
function sortKey(text) {
  const number = parseFloat(text.replace(/,/g, ""));
  return /^[-\d.]/.test(text) && !isNaN(number) ? number : text;
}

// Draws an interval such as 85.1% to 97.2% beside its text.
function range(text) {
  const ends = text.match(/^([\d.]+)% to ([\d.]+)%$/);
  if (!ends) return [];
  const [low, high] = ends.slice(1).map(Number), width = Math.max(high - low, 1);
  const svg = `<svg class="range" width="104" height="12" aria-hidden="true"><rect x="2" y="5" width="100" height="2" fill="var(--line)"/>` +
    `<rect x="${2 + low}" y="3" width="${width}" height="6" rx="3" fill="var(--strong)"/></svg>`;
  return [element("span", {innerHTML: svg})];
}

function sortableTable(table, columns, rows) {
  const isText = columns.map((_, i) => rows.some(row => typeof sortKey(row[i]) === "string"));
  let sorted = -1, sign = 1;
  const body = () => rows.map(row => element("tr", {}, ...row.map((text, i) =>
    element("td", {className: isText[i] ? "text" : "", title: text.length > 60 ? text : ""}, short(text, 60), ...range(text)))));
  function sortBy(i) {
    sign = sorted === i ? -sign : 1;
    sorted = i;
    rows.sort((a, b) => sign * compare(sortKey(a[i]), sortKey(b[i])));
    fill();
  }
  function fill() {
    const head = columns.map((text, i) => element("th", {
      scope: "col", className: isText[i] ? "text" : "", "aria-sort": sorted !== i ? "none" : sign > 0 ? "ascending" : "descending",
    }, element("button", {type: "button", textContent: text, onclick: () => sortBy(i)})));
    table.replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body()));
  }
  fill();
}

function drawTables() {
  for (const {title, columns, rows} of DATA.tables) {
    const table = element("table");
    sortableTable(table, columns, rows);
    $("tables").append(element("section", {}, element("h2", {textContent: title}), element("div", {className: "scroll"}, table)));
  }
}

function drawRecord() {
  const words = $("filter").value.toLowerCase().split(/\s+/);
  const rows = DATA.record.filter(row => words.every(word => row.join(" ").toLowerCase().includes(word)));
  simpleTable("record", ["key", "value"], rows.map(([key, value]) => [key, long(value)]));
}

// ---- figures -----------------------------------------------------------------------------------------------------------------

function drawCalibration() {
  $("calibration").hidden = !DATA.curves.length;
  if (!DATA.curves.length) return;
  const line = {x: [0, 1], y: [0, 1], mode: "lines", line: {color: css("--quiet"), dash: "dot", width: 1.5}, name: "perfect calibration", hoverinfo: "skip"};
  const looks = DATA.curves.length === 1 ? [["--strong", "circle", "solid"]] : [["--wrong", "diamond-open", "dash"], ["--strong", "circle", "solid"]];
  const traces = DATA.curves.map((curve, c) => {
    const filled = curve.images.map((_, i) => i).filter(i => curve.images[i] > 0), at = values => filled.map(i => values[i]);
    const [colour, symbol, dash] = looks[c], label = curve.label ? `${curve.label}, ` : "";
    return {
      x: at(curve.confidence), y: at(curve.accuracy), customdata: at(curve.images), mode: "lines+markers",
      name: literal(`${label}expected error ${percent(curve.ece)}`), line: {color: css(colour), dash, width: 2},
      marker: {size: 9, symbol, color: css(colour)},
      hovertemplate: "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata} images<extra></extra>",
    };
  });
  const share = {tickformat: ".0%", range: [-0.02, 1.02]}, above = {orientation: "h", y: 1.02, yanchor: "bottom", x: 0};
  draw("reliability", [line, ...traces], {
    height: 460, showlegend: true, legend: above, margin: {l: 60, r: 16, t: 90, b: 44},
    xaxis: {...share, title: {text: "confidence: probability of the predicted class"}}, yaxis: {...share, title: {text: "accuracy"}},
  });
  const bars = DATA.curves.map((curve, c) => ({
    type: "bar", x: curve.images.map((_, i) => (i + 0.5) / curve.bins), y: curve.images, name: literal(curve.label || "images"),
    marker: {color: css(looks[c][0]), pattern: {shape: looks[c][2] === "dash" ? "/" : "", bgcolor: css(looks[c][0]), fgcolor: css("--back"), size: 7}},
    hovertemplate: "%{y} images<extra></extra>",
  }));
  draw("confidence", bars, {
    height: 460, showlegend: bars.length > 1, legend: above, margin: {l: 60, r: 16, t: 90, b: 44}, bargap: 0.08,
    xaxis: {...share, title: {text: "confidence: probability of the predicted class"}}, yaxis: {title: {text: "images"}},
  });
  $("calibration-note").textContent = "Predictions in bins by their confidence: above the dotted line the network is more often right than it " +
    "says. The expected error is the mean distance from the line over all images." + (DATA.same_images ? " The temperature was fitted on the same " +
    "images, so that its error is too small; evaluate the calibrated checkpoint on other images." : "");
}

function drawMatrices() {
  DATA.matrices.forEach((matrix, i) => {
    const id = `matrix-${i}`, isGrouped = matrix.names.length < matrix.classes;
    if (!$(id)) {
      const note = isGrouped ? `${matrix.classes} classes in ${matrix.names.length} groups of often confused ones, named after one of them.` : "";
      $("matrices").append(element("section", {}, element("h2", {textContent: `Confusion matrix, ${matrix.title}`}),
        element("div", {id, className: "plot"}), element("p", {className: "note", textContent: note})));
    }
    drawCounts(id, matrix.counts, matrix.names, matrix.names, matrix.row, matrix.column);
  });
}

function drawSheets() {
  for (const {title, images, captions, columns} of DATA.sheets) {
    const figures = images.map((src, i) => {
      const image = element("img", {src, alt: captions[i], className: src.startsWith("data:image/png") ? "small" : ""});
      return element("figure", {}, image, element("figcaption", {textContent: captions[i]}));
    });
    const sheet = element("div", {className: "sheet"}, ...figures);
    if (columns) sheet.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 12rem))`;
    $("sheets").append(element("section", {}, element("h2", {textContent: title}), sheet));
  }
}

// ---- start -------------------------------------------------------------------------------------------------------------------

function drawCharts() {
  drawCalibration();
  drawMatrices();
}

function start() {
  $("title").textContent = document.title;
  $("about").textContent = `${DATA.checkpoint}: ${DATA.about}`;
  $("metrics").replaceChildren(...DATA.metrics.map(({label, value, interval}) => element("div", {}, label,
    element("strong", {textContent: value}), element("span", {textContent: interval ? `95% interval ${interval}` : ""}))));
  drawTables();
  drawSheets();
  drawRecord();
  drawCharts();
  $("filter").addEventListener("input", drawRecord);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
}

start();
