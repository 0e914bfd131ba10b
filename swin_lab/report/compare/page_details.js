"use strict";
// The lower half of the page: configuration, significance, confusion matrices and images; and what starts the page.

// ---- configuration -----------------------------------------------------------------------------------------------------------

function drawValues() {
  const rows = [...CONFIG, ...DATA.environment].map(column => {
    const counts = new Map();
    for (const i of shown) counts.set(column.texts[i], (counts.get(column.texts[i]) || 0) + 1);
    const sorted = [...counts].sort((a, b) => compare(a[0], b[0]));
    const texts = sorted.slice(0, 12).map(([text, count]) => count > 1 ? `${short(text, 60)} (${count} runs)` : short(text, 60));
    if (sorted.length > 12) texts.push(`and ${sorted.length - 12} others`);
    return [column.kind === "config" ? "configuration" : "follows, or environment", column.key, long(texts.join(",  "))];
  });
  simpleTable("values", ["", "key", "values"], rows.length ? rows : [["", "", "All runs have the same configuration."]]);
}

function drawDifference() {
  const a = Number($("diff-a").value), b = Number($("diff-b").value);
  const rows = [...CONFIG, ...DATA.environment].filter(c => c.texts[a] !== c.texts[b]).map(c => [c.key, long(c.texts[a]), long(c.texts[b])]);
  simpleTable("diff", ["key", short(RUNS[a].label, 60), short(RUNS[b].label, 60)], rows.length ? rows : [["", "", "No difference."]]);
}

// ---- predictions -------------------------------------------------------------------------------------------------------------

const SETS = DATA.predictions.filter(set => set.runs.length > 0);
let set = SETS[0];
const references = () => set.pairs.wins.map((_, r) => r);

function drawSignificance() {
  const r = Number($("reference").value), pairs = set.pairs;
  const rows = set.runs.map((run, s) => [run, s]).filter(([run, s]) => s !== r && rankShown(run) >= 0).map(([run, s]) => {
    const difference = (pairs.losses[r][s] - pairs.wins[r][s]) / set.images, isDifferent = pairs.adjusted[r][s] < 0.05;
    const verdict = isDifferent ? (difference > 0 ? "better" : "worse") : "no difference shown";
    return [short(RUNS[run].label, 60), number(percent(set.accuracy[s])), number(signed(difference)),
      number(`${signed(-pairs.high[r][s])} to ${signed(-pairs.low[r][s])}`), number(pairs.losses[r][s]), number(pairs.wins[r][s]),
      number(probability(pairs.p[r][s])), number(probability(pairs.adjusted[r][s])),
      element("td", {className: "text " + (isDifferent ? (difference > 0 ? "right" : "wrong") : ""), textContent: verdict})];
  });
  const heads = ["run", "top-1", "difference (points)", "95% interval", "only this run is right", "only the reference is right",
    "p (McNemar)", "p (Holm)", "verdict"];
  simpleTable("significance", heads, rows.slice(0, MAX_LISTED));
  const listed = rows.length > MAX_LISTED ? ` The first ${MAX_LISTED} runs are listed.` : "";
  $("significance-note").textContent = `${set.images.toLocaleString("en")} images. ${pairs.different} of ${pairs.tested} pairs of runs differ after the ` +
    "correction for their number: if all runs were equally accurate, that would happen for any pair with a probability of at most 5%. " +
    "The test is exact; the intervals are bootstrap percentiles of each pair by itself. What is compared is two trained networks: " +
    `to compare two settings, train each with several seeds.${listed}`;
}

function drawMatrix(id, r) {
  const {classes, counts} = set.confusion, names = classes.map(k => short(String(set.classes[k] ?? k), 18));
  const isCut = classes.length < set.classes.length, rows = counts[r].map(row => isCut ? row : row.slice(0, -1));
  drawCounts(id, rows, names, isCut ? [...names, "other"] : names, "true class", "predicted class");
}

function drawMatrices() {
  drawMatrix("matrix-a", Number($("confusion-a").value));
  drawMatrix("matrix-b", Number($("confusion-b").value));
  $("confusion-note").textContent = set.confusion.classes.length < set.classes.length
    ? `The ${set.confusion.classes.length} of ${set.classes.length} classes with the most errors; “other” are predictions of other classes.` : "";
}

function drawImages() {
  const a = Number($("one").value), b = Number($("two").value), found = set.disagreements, className = k => String(set.classes[k] ?? k);
  const images = found.index.map((_, i) => i).filter(i => {
    const [label, one, two] = [found.label[i], found.class[a][i], found.class[b][i]];
    const wanted = {all: true, a: one === label, b: two === label, none: one !== label && two !== label}[$("who").value];
    return one !== two && wanted;
  });
  const guess = (r, i) => element("td", {
    className: "text " + (found.class[r][i] === found.label[i] ? "right" : "wrong"),
    textContent: `${found.class[r][i] === found.label[i] ? "\u2713" : "\u2717"} ${className(found.class[r][i])} (${percent(found.probability[r][i], 0)})`,
  });
  const imageCell = i => element("td", {className: "text"}, ...(found.thumbnail[i] ? [element("img", {src: found.thumbnail[i], alt: ""})] : []), found.path[i]);
  const rows = images.slice(0, MAX_LISTED).map(i => [imageCell(i), number(found.index[i]), className(found.label[i]), guess(a, i), guess(b, i)]);
  simpleTable("images", ["image", "index", "true class", "A", "B"], rows.length ? rows : [["", "", "No image.", "", ""]]);
  const cut = found.index.length < found.total ? ` The page contains ${found.index.length} of ${found.total} images on which the compared runs disagree.` : "";
  $("images-note").textContent = `${images.length} images${images.length > MAX_LISTED ? `, of which ${MAX_LISTED} are listed` : ""}.${cut}`;
}

function chooseSet(index) {
  set = SETS[index];
  const entries = references().map(r => [r, short(RUNS[set.runs[r]].label, 60)]);
  for (const id of ["reference", "confusion-a", "one"]) fillSelect(id, entries, 0);
  for (const id of ["confusion-b", "two"]) fillSelect(id, entries, Math.min(1, entries.length - 1));
  drawPredictions();
}

function drawPredictions() {
  if (!set) return;
  drawSignificance();
  drawMatrices();
  drawImages();
}

function startPredictions() {
  const without = RUNS.length - SETS.reduce((sum, entry) => sum + entry.runs.length, 0);
  $("with-predictions").hidden = !set;
  $("predictions-note").textContent = !set
    ? "No run has saved its predictions (predictions.parquet), which its final evaluation writes with save_predictions=true."
    : without ? `${without} of ${RUNS.length} runs have no predictions yet and are left out.` : "";
  if (!set) return;
  $("set-label").hidden = SETS.length < 2;
  fillSelect("set", SETS.map((entry, i) => [i, `${entry.images} images, ${entry.runs.length} runs`]), 0);
  chooseSet(0);
}

// ---- start -------------------------------------------------------------------------------------------------------------------

function drawCharts() {
  drawLegend();
  drawAllCurves();
  drawScatter();
  drawParallel();
  drawBars();
  drawValues();
}

function drawAll() {
  shown = shownRuns();
  drawTable();
  drawCharts();
  drawPredictions();
}

function start() {
  document.title = $("title").textContent = `${RUNS.length} run${RUNS.length === 1 ? "" : "s"} of swin_lab`;
  const unfinished = RUNS.filter(run => run.state !== "finished").length;
  $("about").textContent = `${DATA.generated}, best first by ${METRICS.length ? METRICS[0].label : DATA.monitor}` +
    (unfinished ? `; not finished: ${unfinished}` : "");
  const curves = curveNames.map(entry => [entry, entry]), columns = COLUMNS.map(c => [c.key, c.label]);
  fillSelect("left", curves, state.left);
  fillSelect("right", curves, state.right);
  fillSelect("parameter", columns, state.parameter);
  fillSelect("metric", columns.filter(([key]) => !CONFIG.some(c => c.key === key)), state.metric);
  const runs = RUNS.map((run, i) => [i, short(run.label, 60)]);
  fillSelect("diff-a", runs, 0);
  fillSelect("diff-b", runs, Math.min(1, runs.length - 1));
  const listen = (id, event, redraw) => {
    $(id).value = state[id];
    $(id).addEventListener(event, () => { state[id] = $(id).value; remember(); redraw(); });
  };
  let waiting = 0;
  listen("filter", "input", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
  for (const id of ["x", "xscale", "yscale", "left", "right"]) listen(id, "change", drawAllCurves);
  listen("smooth", "input", drawAllCurves);
  listen("parameter", "change", drawScatter);
  listen("metric", "change", () => { drawScatter(); drawParallel(); });
  for (const id of ["diff-a", "diff-b"]) $(id).addEventListener("change", drawDifference);
  for (const id of ["confusion-a", "confusion-b"]) $(id).addEventListener("change", drawMatrices);
  for (const id of ["one", "two", "who"]) $(id).addEventListener("change", drawImages);
  $("reference").addEventListener("change", drawSignificance);
  $("set").addEventListener("change", () => chooseSet(Number($("set").value)));
  startPredictions();
  drawTable();
  drawCharts();
  drawDifference();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}

start();
