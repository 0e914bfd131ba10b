"use strict";
// The state of the page is in its address (after #), so that it can be shared: sort, filter, axes and choices.
const RUNS = DATA.runs, COLUMNS = DATA.columns;
const METRICS = COLUMNS.filter(column => column.kind === "metric");
const CONFIG = COLUMNS.filter(column => column.kind === "config");
const MAX_COLOURED = 14, MAX_TABLE_KEYS = 12, MAX_BARS = 40, MAX_AXES = 8, MAX_LISTED = 100;
// Okabe and Ito's palette for colour-blind readers, without yellow, which is too faint on white, and black.
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98"];
// Colour and dashes change from run to run; their numbers have no common divisor, so that both together name a run.
const DASHES = ["solid", "dash", "dot"], STROKES = {solid: "", dash: "7 4", dot: "3 3"};

// ---- small parts -------------------------------------------------------------------------------------------------------------

const name = (run, length = 44) => literal(short(RUNS[run].label, length));
const signed = value => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(100 * value).toFixed(2);
const probability = p => p < 0.0001 ? "< 0.0001" : p.toPrecision(2);
const option = (value, text) => element("option", {value, textContent: text});

function fillSelect(id, entries, value) {
  $(id).replaceChildren(...entries.map(([key, text]) => option(key, text)));
  $(id).value = value;
  if ($(id).selectedIndex < 0) $(id).selectedIndex = 0;
}

// ---- state -------------------------------------------------------------------------------------------------------------------

const curveNames = [...new Set(RUNS.flatMap(run => Object.keys(run.curves)))].sort();
const firstOf = (...names) => names.find(entry => curveNames.includes(entry)) || curveNames[0] || "";
const DEFAULTS = {
  sort: "", order: "", filter: "", x: "epoch", xscale: "linear", yscale: "linear", smooth: "0",
  left: firstOf(`val/${DATA.monitor}`), right: firstOf("train/loss", "val/loss"),
  parameter: (CONFIG[0] || COLUMNS.find(column => column.kind === "cost") || COLUMNS[0] || {key: ""}).key,
  metric: (METRICS[0] || {key: ""}).key,
};
const state = {...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1)))};

function remember() {
  const changed = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  history.replaceState(null, "", "#" + new URLSearchParams(changed));
}

// ---- which runs are shown ----------------------------------------------------------------------------------------------------

const columnOf = key => COLUMNS.find(c => c.key === key || c.label === key) || COLUMNS.find(c => c.key.endsWith("." + key));
const TEXTS = RUNS.map((run, i) => [run.label, run.place, run.state, ...CONFIG.map(c => c.texts[i])].join(" ").toLowerCase());

function matches(run, word) {
  const [, key, sign, wanted] = word.match(/^([^<>=]+)(<=|>=|=|<|>)(.+)$/) || [];
  const column = key === "state" ? {values: RUNS.map(r => r.state), texts: RUNS.map(r => r.state)} : key && columnOf(key);
  if (!column) return TEXTS[run].includes(word.toLowerCase());
  const value = column.values[run], isPercent = wanted.endsWith("%"), number = parseFloat(wanted) / (isPercent ? 100 : 1);
  if (sign === "=") return column.texts[run] === wanted || String(value) === wanted || (isNumber(value) && value === Number(wanted));
  if (!isNumber(value)) return false;
  return {"<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number}[sign];
}

function shownRuns() {
  const words = state.filter.split(/\s+/).filter(Boolean);
  return RUNS.map((_, i) => i).filter(i => words.every(word => matches(i, word)));
}

let shown = shownRuns();
const rankShown = run => shown.indexOf(run);
function lineOf(run) {
  const rank = rankShown(run);
  if (rank < 0 || rank >= MAX_COLOURED) return {color: css("--other"), dash: "solid", width: 1};
  return {color: PALETTE[rank % PALETTE.length], dash: DASHES[rank % DASHES.length], width: 2};
}

function swatch(run) {
  const {color, dash} = lineOf(run);
  const svg = `<svg viewBox="0 0 26 11"><line x1="0" y1="6" x2="26" y2="6" stroke="${color}" stroke-width="3"` +
    ` stroke-dasharray="${STROKES[dash]}"/></svg>`;
  return element("span", {className: "swatch", innerHTML: svg});
}

// ---- the table ---------------------------------------------------------------------------------------------------------------

function sortedRuns() {
  const column = {run: {values: RUNS.map(r => r.label)}, state: {values: RUNS.map(r => r.state)}}[state.sort] || columnOf(state.sort);
  if (!state.sort || !column) return shown;
  const sign = state.order === "desc" ? -1 : 1, missing = i => column.values[i] === null;
  return [...shown].sort((a, b) => missing(a) - missing(b) || sign * compare(column.values[a], column.values[b]));
}

function sortBy(key, kind) {
  const first = kind === "metric" && key.endsWith("." + DATA.monitor) && DATA.greater ? "desc" : "asc";
  const other = first === "asc" ? "desc" : "asc";
  state.order = state.sort === key && state.order === first ? other : first;
  state.sort = key;
  remember();
  drawTable();
}

function headCell(key, label, kind, detail = "") {
  const button = element("button", {type: "button", textContent: label, onclick: () => sortBy(key, kind)});
  const sort = state.sort === key ? (state.order === "desc" ? "descending" : "ascending") : "none";
  const small = detail ? [element("small", {textContent: detail})] : [];
  return element("th", {"data-key": key, "aria-sort": sort, scope: "col", className: kind === "text" ? "text" : ""}, ...small, button);
}

function tableColumns() {
  return [...METRICS, ...CONFIG.slice(0, MAX_TABLE_KEYS), ...COLUMNS.filter(c => c.kind === "cost" && c.key !== "run.epochs")];
}

function drawTable() {
  const columns = tableColumns(), best = shown.length && METRICS.length ? METRICS[0] : null;
  const values = best ? shown.map(i => best.values[i]).filter(isNumber) : [];
  const top = values.length ? (DATA.greater ? Math.max(...values) : Math.min(...values)) : null;
  const cut = text => text.lastIndexOf(".") + 1;
  const head = element("tr", {}, headCell("run", "run", "text"), headCell("state", "state", "text"), ...columns.map(c =>
    c.kind === "config" ? headCell(c.key, c.label.slice(cut(c.label)), "config", c.label.slice(0, cut(c.label)))
      : headCell(c.key, c.label, c.kind)), element("th", {textContent: "epochs"}));
  const rows = sortedRuns().map(i => element("tr", {"data-run": i},
    element("td", {className: "text", title: RUNS[i].folder}, swatch(i), short(RUNS[i].label, 48)),
    element("td", {className: "text", title: RUNS[i].state, textContent: short(RUNS[i].state, 40)}),
    ...columns.map(c => element("td", {
      textContent: short(c.texts[i], 40), title: c.texts[i].length > 40 ? c.texts[i] : "",
      className: c === best && c.values[i] === top ? "best" : "",
    })),
    element("td", {textContent: RUNS[i].progress})));
  $("runs").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  const more = CONFIG.length - MAX_TABLE_KEYS;
  $("hidden-keys").textContent = more > 0 ? `${more} more keys that differ are listed under Configuration.` : "";
  $("shown").textContent = shown.length === RUNS.length ? "" : `${shown.length} of ${RUNS.length} runs are shown`;
}

// ---- charts ------------------------------------------------------------------------------------------------------------------

function axisOf(column) {
  const values = column.values.filter(isNumber), isNumeric = column.values.every(v => v === null || isNumber(v)) && values.length > 0;
  if (!isNumeric) return {type: "category"};
  const low = Math.min(...values), high = Math.max(...values), different = [...new Set(values)].sort((a, b) => a - b);
  const type = low > 0 && high / low >= 8 && column.format !== "percent" ? "log" : "linear";
  const isFew = column.kind === "config" && different.length <= 8;
  const ticks = isFew ? {tickvals: different, ticktext: different.map(String)} : type === "log" ? {dtick: high / low < 50 ? "D2" : 1} : {};
  return {type, ...ticks, ...(column.format === "percent" ? {tickformat: ".2~%"} : {})};
}

// Debiased as Adam's averages are, so that the first values are not drawn towards zero.
function smoothed(values, weight) {
  let average = 0, total = 0;
  return values.map(value => {
    average = weight * average + (1 - weight) * value;
    total = weight * total + 1 - weight;
    return average / total;
  });
}

function timeUnit() {
  const last = Math.max(0, ...shown.flatMap(i => Object.values(RUNS[i].curves).map(c => c.seconds ? c.seconds.at(-1) : 0)));
  return last > 7200 ? [3600, "hours"] : last > 180 ? [60, "minutes"] : [1, "seconds"];
}

function positions(run, curve, unit) {
  if (state.x === "time") return curve.seconds && curve.seconds.map(value => value / unit);
  if (state.x === "update") return curve.updates;
  return RUNS[run].updates_per_epoch && curve.updates.map(value => value / RUNS[run].updates_per_epoch);
}

function drawCurves(id, metric) {
  const weight = Number(state.smooth), [unit, unitName] = timeUnit(), traces = [];
  const grey = {x: [], y: [], text: []};
  let longest = 0;
  for (const run of [...shown].reverse()) {
    const curve = RUNS[run].curves[metric], x = curve && positions(run, curve, unit);
    if (!x) continue;
    longest = Math.max(longest, x.length);
    const y = weight > 0 ? smoothed(curve.values, weight) : curve.values;
    if (rankShown(run) >= MAX_COLOURED) {
      grey.x.push(...x, null); grey.y.push(...y, null); grey.text.push(...x.map(() => name(run)), null);
      continue;
    }
    const line = lineOf(run), mode = x.length < 40 ? "lines+markers" : "lines";
    if (weight > 0) traces.push({x, y: curve.values, mode: "lines", line: {...line, width: 1}, opacity: 0.3, hoverinfo: "skip"});
    traces.push({x, y, mode, line, marker: {size: 5}, name: name(run), hovertemplate: "%{y}<br>%{x}"});
  }
  if (grey.x.length) traces.unshift({...grey, mode: "lines", line: {color: css("--other"), width: 1}, hovertemplate: "%{y}<br>%{x}<br>%{text}<extra></extra>"});
  const isPercent = METRICS.some(c => c.format === "percent" && metric.split("/").pop() === c.key.split(".").pop());
  draw(id, traces, {
    xaxis: {title: {text: {epoch: "epoch", update: "update", time: unitName}[state.x]}, type: state.xscale},
    yaxis: {title: {text: literal(metric)}, type: state.yscale, tickformat: isPercent ? ".3~%" : ""},
  });
}

function drawLegend() {
  const entries = shown.slice(0, MAX_COLOURED).map(i =>
    element("span", {title: RUNS[i].folder}, swatch(i), short(RUNS[i].label, 60) + (RUNS[i].state === "finished" ? "" : ` (${short(RUNS[i].state, 30)})`)));
  const more = shown.length - MAX_COLOURED;
  if (more > 0) entries.push(element("span", {}, swatch(-1), `${more} other runs; the filter chooses which have colours`));
  $("legend").replaceChildren(...entries);
}

function drawAllCurves() {
  $("smooth-value").textContent = state.smooth;
  drawCurves("curves-left", state.left);
  drawCurves("curves-right", state.right);
}

function drawScatter() {
  const x = columnOf(state.parameter), y = columnOf(state.metric);
  if (!x || !y) return;
  const at = c => shown.map(i => axisOf(c).type === "category" ? c.texts[i] : c.values[i]);
  draw("scatter", [{
    x: at(x), y: at(y), mode: "markers", marker: {size: 10, color: shown.map(i => lineOf(i).color), line: {width: 1, color: css("--back")}},
    text: shown.map(i => name(i, 80)), customdata: shown.map(i => [literal(x.texts[i]), literal(y.texts[i])]),
    hovertemplate: "%{text}<br>" + literal(x.label) + " %{customdata[0]}<br>" + literal(y.label) + " %{customdata[1]}<extra></extra>",
  }], {xaxis: {title: {text: literal(x.label)}, ...axisOf(x)}, yaxis: {title: {text: literal(y.label)}, ...axisOf(y)}});
}

function dimension(column, runs) {
  const label = literal(short(column.label, 26)), {type, tickvals, ticktext} = axisOf(column);
  if (type === "category") {
    const different = [...new Set(runs.map(i => column.texts[i]))].sort(compare);
    const names = different.map(text => literal(short(text, 18)));
    return {label, values: runs.map(i => different.indexOf(column.texts[i])), tickvals: different.map((_, k) => k), ticktext: names};
  }
  const scale = type === "log" ? Math.log10 : value => value, values = runs.map(i => scale(column.values[i]));
  if (tickvals) return {label, values, tickvals: tickvals.map(scale), ticktext};
  if (type === "linear") return {label, values, tickformat: column.format === "percent" ? ".2~%" : ""};
  const powers = Array.from({length: 40}, (_, k) => k - 20);
  return {label, values, tickvals: powers, ticktext: powers.map(p => "1e" + p)};
}

function drawParallel() {
  const metric = columnOf(state.metric), columns = [...CONFIG.slice(0, MAX_AXES - 1), metric].filter(Boolean);
  const runs = metric ? shown.filter(i => isNumber(metric.values[i])) : [];
  const usable = columns.filter(c => axisOf(c).type === "category" || runs.every(i => isNumber(c.values[i])));
  if (runs.length < 2 || usable.length < 2) {
    Plotly.purge("parallel");
    $("parallel").textContent = "Two runs with a result, and a configuration value that differs, are needed.";
    return;
  }
  if (!$("parallel").classList.contains("js-plotly-plot")) $("parallel").textContent = "";
  const isPercent = metric.format === "percent";
  draw("parallel", [{
    type: "parcoords", dimensions: usable.map(c => dimension(c, runs)), labelfont: {size: 12}, tickfont: {size: 11},
    rangefont: {size: 11, color: "rgba(0,0,0,0)"},
    line: {color: runs.map(i => metric.values[i]), colorscale: [[0, "#d55e00"], [0.5, css("--quiet")], [1, css("--strong")]], showscale: true,
      colorbar: {title: {text: literal(metric.label)}, thickness: 14, tickformat: isPercent ? ".2~%" : ""}},
  }], {margin: {l: 90, r: 40, t: 56, b: 24}, height: 340});
}

function drawBars() {
  const keys = ["run.images_per_second", "run.peak_device_bytes", "run.peak_host_bytes", "run.data_wait_share"];
  const runs = shown.slice(0, MAX_BARS).reverse();
  const columns = keys.map(key => COLUMNS.find(c => c.key === key)).filter(Boolean)
    .filter(c => c.key !== "run.peak_host_bytes" || !COLUMNS.some(other => other.key === "run.peak_device_bytes"));
  if (!columns.length) { $("bars").textContent = "No run has measured its speed yet."; return; }
  const width = 1 / columns.length, extra = {height: 90 + 22 * Math.max(runs.length, 3), margin: {l: 20, r: 20, t: 30, b: 44}};
  const traces = columns.map((c, k) => {
    const axis = k ? `x${k + 1}` : "x", scale = c.format === "bytes" ? 2 ** 20 : 1;
    extra[`xaxis${k ? k + 1 : ""}`] = {
      domain: [k * width + (k ? 0.02 : 0), (k + 1) * width - 0.02], tickformat: c.format === "percent" ? ".0%" : "",
      title: {text: c.label + (c.format === "bytes" ? " (MiB)" : "")}, rangemode: "tozero", nticks: 6,
      range: [0, 1.28 * Math.max(1e-9, ...runs.map(i => (c.values[i] || 0) / scale))],
    };
    return {
      type: "bar", orientation: "h", xaxis: axis, yaxis: "y", y: runs.map(i => i), x: runs.map(i => c.values[i] === null ? null : c.values[i] / scale),
      text: runs.map(i => c.texts[i]), textposition: "outside", cliponaxis: false, marker: {color: runs.map(i => lineOf(i).color)},
      hovertemplate: "%{text}<extra>%{customdata}</extra>", customdata: runs.map(i => name(i, 80)),
    };
  });
  extra.yaxis = {type: "category", tickvals: runs, ticktext: runs.map(i => name(i, 48)), showgrid: false};
  draw("bars", traces, extra);
  $("bars-note").textContent = "Speed is that of training without evaluation." +
    (shown.length > MAX_BARS ? ` The ${MAX_BARS} best of the shown runs.` : "");
}
