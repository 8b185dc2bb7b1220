/* The page: its tables, the strip plot, and the plots of the evaluation. */
const DATA = JSON.parse(document.getElementById("data").textContent);
const SHEETS = {};

const columnOf = (sheet, key) => {
  const place = sheet.columns.findIndex((column) => column.key === key);
  return place < 0 ? null : { ...sheet.columns[place], values: sheet.values[place] };
};
const titleOf = (column) => column.title + (column.unit && !column.title.includes("%") ? `, ${column.unit}` : "");
const identity = (sheet, row) => {
  const parts = ["participant_id", "session_id"].map((key) => columnOf(sheet, key)).map((column) => column && column.values[row]);
  return parts.filter((part) => part !== null && part !== undefined).join(" ");
};

/* Tables: sorting, filtering and download work on the numbers, not on what is written. */
function compare(values, numeric, sign) {
  const collator = new Intl.Collator("en", { numeric: true });
  return (first, second) => {
    const [a, b] = [values[first], values[second]];
    if (a === null || b === null) return (a === null) - (b === null) || first - second;
    return sign * (numeric ? a - b : collator.compare(a, b)) || first - second;
  };
}

function setUpSheet(box) {
  const sheet = DATA[box.dataset.sheet];
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join("\t").toLowerCase());
  const state = { order: rows.map((_, index) => index), shown: rows.map(() => true) };
  const count = box.querySelector(".count");
  SHEETS[box.dataset.sheet] = { links: rows.map((row) => row.querySelector("a")?.getAttribute("href") || "") };
  const refresh = () => {
    const left = state.shown.filter(Boolean).length;
    count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
  };
  box.querySelector(".filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    state.shown = texts.map((text) => words.every((word) => text.includes(word)));
    rows.forEach((row, index) => (row.hidden = !state.shown[index]));
    refresh();
  });
  [...box.querySelectorAll("thead th")].forEach((heading, place) => {
    heading.querySelector("button").addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      state.order.sort(compare(sheet.values[place], sheet.columns[place].numeric, sign));
      const sorted = document.createDocumentFragment();
      sorted.append(...state.order.map((index) => rows[index]));
      body.append(sorted);
    });
  });
  box.querySelector(".download").addEventListener("click", () => download(sheet, state, `group_${box.dataset.sheet}.tsv`));
  box.querySelector(".tools").hidden = false;
  refresh();
}

function tsvOf(sheet, state) {
  const clean = (value) => (value === null ? "n/a" : String(value).replace(/[\t\r\n]+/g, " "));
  const lines = state.order.filter((row) => state.shown[row]).map((row) => sheet.values.map((column) => clean(column[row])));
  return [sheet.columns.map((column) => column.key), ...lines].map((line) => line.join("\t")).join("\n") + "\n";
}

function download(sheet, state, name) {
  const address = URL.createObjectURL(new Blob([tsvOf(sheet, state)], { type: "text/tab-separated-values" }));
  const link = element("a", { href: address, download: name }, document.body);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/* The strip plot. */
function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const below = Math.floor(place);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (place - below);
}

function describe(points) {
  points.sort((first, second) => first.value - second.value);
  const values = points.map((point) => point.value);
  const [low, median, high] = [0.25, 0.5, 0.75].map((share) => quantile(values, share));
  const [least, most] = [low - 1.5 * (high - low), high + 1.5 * (high - low)];
  const enough = new Set(points.map((point) => point.participant)).size >= DATA.fewest;
  for (const point of points) point.outlier = enough && (point.value < least || point.value > most);
  const inside = points.filter((point) => !point.outlier);
  return { points, enough, low, median, high, least: inside[0].value, most: inside[inside.length - 1].value };
}

function categoryValues(name, key) {
  const own = columnOf(DATA[name], key);
  if (own) return own.values;
  const places = new Map(DATA.sessions.values[0].map((_, row) => [identity(DATA.sessions, row), row]));
  const values = columnOf(DATA.sessions, key).values;
  return DATA[name].values[0].map((_, row) => values[places.get(identity(DATA[name], row))] ?? null);
}

function grouped(name, key, split) {
  const column = columnOf(DATA[name], key);
  const levels = split ? categoryValues(name, split) : null;
  const participants = columnOf(DATA[name], "participant_id")?.values || column.values.map((_, row) => row);
  const groups = new Map();
  column.values.forEach((value, row) => {
    if (!present(value)) return;
    const level = levels ? (levels[row] === null ? "n/a" : String(levels[row])) : "";
    if (!groups.has(level)) groups.set(level, []);
    const who = identity(DATA[name], row);
    const text = `${titleOf(column)}: ${show(value)}`;
    const href = SHEETS[name].links[row];
    groups.get(level).push({ value, who, href, level, participant: participants[row], label: [who, text, ...(level ? [level] : [])].join("\n") });
  });
  const collator = new Intl.Collator("en", { numeric: true });
  const names = [...groups.keys()].sort((a, b) => (a === "n/a") - (b === "n/a") || collator.compare(a, b));
  return names.map((level) => ({ level, ...describe(groups.get(level)) }));
}

/* Points side by side where they would cover each other, closer where there is no room. */
function swarm(points, axis, middle, half, radius) {
  const bins = new Map();
  for (const point of points) {
    point.x = Number(axis(point.value).toFixed(1));
    const bin = Math.round(point.x / (2 * radius));
    if (!bins.has(bin)) bins.set(bin, []);
    bins.get(bin).push(point);
  }
  for (const members of bins.values()) {
    const step = Math.min(2 * radius, (2 * half) / members.length);
    members.forEach((point, index) => (point.y = Number((middle + (index % 2 ? 1 : -1) * Math.ceil(index / 2) * step).toFixed(1))));
  }
}

function boxPlot(svg, group, axis, y, colour) {
  draw("line", { x1: axis(group.least), x2: axis(group.most), y1: y, y2: y, stroke: "#1f2328" }, svg);
  const width = Math.max(1, axis(group.high) - axis(group.low));
  draw("rect", { class: "box", x: axis(group.low), y: y - 7, width, height: 14, fill: "#fff", stroke: colour, "stroke-width": 2 }, svg);
  draw("line", { x1: axis(group.median), x2: axis(group.median), y1: y - 9, y2: y + 9, stroke: "#1f2328", "stroke-width": 3 }, svg);
}

function stripPlot(box, column, groups, logarithmic) {
  const total = groups.reduce((sum, group) => sum + group.points.length, 0);
  const half = groups.length > 1 ? 34 : total > 200 ? 80 : total > 20 ? 50 : 24;
  const [head, gap] = [groups.length > 1 ? 24 : 6, 38];
  const each = head + 2 * half + gap;
  const plot = canvas(box, each * groups.length + 52, `${titleOf(column)} of ${total} sessions`);
  const values = groups.flatMap((group) => [group.points[0].value, group.points[group.points.length - 1].value]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const near = least > 0 && least > 0.5 * most; // a volume starts at 0; an intracranial volume need not
  const pad = 0.03 * (most - least) || Math.abs(most) * 0.1 || 1;
  const low = logarithmic || (least >= 0 && !near) ? 0 : least - pad;
  const axis = scale(logarithmic ? "log1p" : "linear", low, most + (logarithmic ? 0.05 * most || 1 : pad), 12, plot.width - 16);
  const radius = total > 400 ? 3 : total > 100 ? 4 : 5;
  const marks = draw("g", {}, plot.svg);
  groups.forEach((group, place) => {
    const top = each * place;
    const colour = COLOURS[place % COLOURS.length];
    const n = group.points.length;
    if (groups.length > 1) draw("text", { x: 2, y: top + 15, class: "group" }, plot.svg, `${short(group.level)} (${n}), median ${show(group.median)}`);
    swarm(group.points, axis, top + head + half, half - radius, radius);
    for (const point of group.points) mark(marks, point, radius, colour);
    if (group.enough) boxPlot(plot.svg, group, axis, top + head + 2 * half + 16, colour);
  });
  bottomAxis(plot.svg, axis, each * groups.length + 4, titleOf(column));
  interact(plot, groups.flatMap((group) => group.points));
}

const short = (text) => (text.length > 18 ? `${text.slice(0, 17)}\u2026` : text);

function listOutliers(box, groups) {
  const found = groups.flatMap((group) => group.points.filter((point) => point.outlier)).sort((a, b) => b.value - a.value);
  box.replaceChildren();
  if (!found.length) {
    element("p", { class: "caption" }, box, "No outliers.");
    return;
  }
  const holder = element("details", found.length <= 12 ? { open: "" } : {}, box);
  element("summary", {}, holder, `${found.length} outlier${found.length > 1 ? "s" : ""}`);
  const list = element("ul", {}, holder);
  for (const point of found) {
    const item = element("li", {}, list);
    if (point.href) element("a", { href: point.href }, item, point.who);
    else item.append(point.who);
    item.append(`: ${show(point.value)}${point.level ? ` (${point.level})` : ""}`);
  }
}

function addMeasures(select, name, title) {
  const sheet = DATA[name];
  const keys = sheet ? sheet.measures.filter((key) => columnOf(sheet, key).values.some(present)) : [];
  if (!keys.length) return;
  const group = element("optgroup", { label: title }, select);
  for (const key of keys) element("option", { value: `${name} ${key}` }, group, titleOf(columnOf(sheet, key)));
}

function setUpStrip() {
  const outer = document.getElementById("strip");
  if (!outer) return;
  const [measure, split, log] = ["measure", "split", "log"].map((id) => document.getElementById(id));
  addMeasures(measure, "sessions", "Cohort");
  addMeasures(measure, "evaluation", "Evaluation");
  if (!measure.options.length) return;
  element("option", { value: "" }, split, "nothing");
  for (const key of DATA.sessions.categories) element("option", { value: key }, split, columnOf(DATA.sessions, key).title);
  document.getElementById("split-label").hidden = split.options.length < 2;
  outer.hidden = false;
  const box = document.getElementById("strip-plot");
  const update = () => {
    const [name, key] = measure.value.split(" ");
    const groups = grouped(name, key, split.value);
    const values = groups.flatMap((group) => group.points.map((point) => point.value));
    const possible = Math.min(...values) >= 0 && Math.max(...values) > 1.5;
    document.getElementById("log-label").hidden = !possible;
    stripPlot(box, columnOf(DATA[name], key), groups, possible && log.checked);
    listOutliers(document.getElementById("outliers"), groups);
  };
  const choose = () => {
    const [name, key] = measure.value.split(" ");
    log.checked = DATA[name].skewed.includes(key);
    update();
  };
  log.checked = DATA[measure.value.split(" ")[0]].skewed.includes(measure.value.split(" ")[1]);
  measure.addEventListener("change", choose);
  for (const input of [split, log]) input.addEventListener("change", update);
  responsive(box, update);
}

/* The evaluation's plots. */
const CHARTS = [
  { key: "roc", title: "ROC", xs: "fpr", x: "false positive rate", short: "FPR", y: "sensitivity" },
  { key: "precision", title: "Precision and recall", xs: "recall", x: "recall", short: "recall", y: "precision" },
  { key: "pro", title: "PRO: overlap per lesion", xs: "fpr", x: "false positive rate", short: "FPR", y: "mean overlap per lesion" },
  { key: "dice", title: "Dice against the threshold", xs: "ratio", kind: "log", mark: 1, x: "threshold / the session\u2019s own threshold", short: "ratio", y: "Dice" },
];

function legend(box, series) {
  const line = element("p", { class: "legend" }, box);
  for (const item of series) {
    const entry = element("span", {}, line);
    const svg = draw("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, entry);
    draw("line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: item.colour, "stroke-width": 3, "stroke-dasharray": item.dash }, svg);
    entry.append(item.name);
  }
}

function setUpCurves() {
  const box = document.getElementById("curves");
  if (!box || !DATA.curves) return;
  for (const chart of CHARTS) {
    const curves = DATA.curves[chart.key] || {};
    const series = [["model", MODEL], ["brightness", BRIGHTNESS], ["baseline", BASELINE]].filter(([key]) => curves[key]?.mean?.some(present)).map(([key, style]) => ({ ...style, ...curves[key] }));
    const xs = DATA.curves[chart.xs];
    if (!series.length || !xs?.some(present)) continue;
    const holder = element("div", {}, box);
    element("h3", {}, holder, chart.title);
    legend(holder, series);
    const plot = element("div", { class: "plot", "data-chart": chart.key }, holder);
    responsive(plot, () => curveChart(plot, { ...chart, xs, series }));
  }
}

function agreementPoints() {
  const [mine, reference] = ["wmh_volume_ml", "reference_volume_ml"].map((key) => columnOf(DATA.evaluation, key)?.values || []);
  const points = [];
  mine.forEach((volume, row) => {
    if (!present(volume) || !present(reference[row])) return;
    const [mean, difference] = [(volume + reference[row]) / 2, volume - reference[row]];
    const label = `${identity(DATA.evaluation, row)}\nWMH ${show(volume)} mL, reference ${show(reference[row])} mL`;
    points.push({ mean, difference, label, href: SHEETS.evaluation.links[row] });
  });
  return points.sort((first, second) => first.mean - second.mean);
}

function blandAltman(box, points, stats) {
  const plot = canvas(box, 360, "Bland-Altman plot: difference against mean of the two volumes");
  const lines = [["high", "upper limit"], ["bias", "bias"], ["low", "lower limit"]].filter(([key]) => present(stats[key]));
  const heights = [0, ...points.map((point) => point.difference), ...lines.map(([key]) => stats[key])];
  const [least, most] = [Math.min(...heights), Math.max(...heights)];
  const pad = 0.08 * (most - least) || 1;
  const up = scale("linear", least - pad, most + pad, 310, 28);
  const across = scale("linear", 0, 1.04 * Math.max(...points.map((point) => point.mean)) || 1, 48, plot.width - 14);
  leftAxis(plot.svg, up, 48, across.end, "WMH volume \u2212 reference, mL");
  bottomAxis(plot.svg, across, 310, "mean of the two volumes, mL");
  for (const [key] of lines) {
    const y = up(stats[key]);
    draw("line", { x1: 48, x2: across.end, y1: y, y2: y, stroke: key === "bias" ? "#0072b2" : "#b34700", "stroke-width": 2, "stroke-dasharray": key === "bias" ? "" : "6 3" }, plot.svg);
  }
  for (const point of points) {
    point.x = across(point.mean);
    point.y = up(point.difference);
    mark(plot.svg, point, points.length > 400 ? 3 : 4, "#4d4d4d");
  }
  let free = 0; // texts stay apart where the lines are close together
  for (const [key, name] of lines) {
    const y = Math.max(up(stats[key]) - 5, free);
    free = y + 16;
    draw("text", { x: across.end, y, "text-anchor": "end", class: "line-label" }, plot.svg, `${name} ${show(Number(stats[key].toFixed(2)))}`);
  }
  interact(plot, points);
}

function setUpAgreement() {
  const box = document.getElementById("agreement");
  const points = box && DATA.evaluation && DATA.agreement ? agreementPoints() : [];
  if (!points.length) return;
  box.hidden = false;
  responsive(box, () => blandAltman(box, points, DATA.agreement));
}

for (const box of document.querySelectorAll(".sheet")) setUpSheet(box);
setUpStrip();
setUpCurves();
setUpAgreement();
