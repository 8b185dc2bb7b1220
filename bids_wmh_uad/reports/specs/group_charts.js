"use strict";
/* Drawing: axes, points that keyboard and mouse can reach, curves with bands. No library. */
const COLOURS = ["#0072b2", "#b34700", "#00734f", "#8a3d7c", "#7a5c00", "#333f9e", "#a3195b", "#4d4d4d", "#006d77", "#6b3e26", "#5b2c9f", "#556b00"];
const MODEL = { name: "model", colour: "#0072b2", dash: "" };
const BRIGHTNESS = { name: "brightness", colour: "#00734f", dash: "2 3" };
const BASELINE = { name: "FLAIR z-score", colour: "#b34700", dash: "6 3" };
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const show = (value) => precise.format(value).replace("-", "\u2212");
const present = (value) => typeof value === "number";

function element(tag, attributes, parent, text) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function draw(tag, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function canvas(box, height, label) {
  const width = Math.max(240, Math.round(box.clientWidth));
  box.replaceChildren();
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label }, box);
  const tip = element("div", { class: "tip", hidden: "" }, box);
  return { box, svg, tip, width, height };
}

/* Redraws a plot whenever its width changes, so that text keeps its size at any zoom. */
function responsive(box, redraw) {
  let width = 0;
  const check = () => {
    if (box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      redraw();
    }
  };
  new ResizeObserver(() => requestAnimationFrame(check)).observe(box);
  check();
}

const FORWARD = { linear: (value) => value, log1p: Math.log1p, log: Math.log };

function scale(kind, low, high, start, end) {
  const map = FORWARD[kind];
  const from = map(low);
  const span = map(high) - from || 1;
  return Object.assign((value) => start + ((map(value) - from) / span) * (end - start), { kind, low, high, start, end });
}

function linearTicks(low, high, most) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = power * [1, 2, 5, 10].find((part) => span / (power * part) <= most);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * span; index++) ticks.push(Number((index * step).toPrecision(10)));
  return ticks;
}

/* Round values on a logarithmic axis, the roundest first, as long as their texts do not meet. */
function logTicks(axis, distance) {
  const wanted = axis.kind === "log" ? [1] : [0];
  for (const part of [1, 3, 2, 5]) for (let power = -3; power <= 7; power++) wanted.push(Number((part * 10 ** power).toPrecision(3)));
  const inside = wanted.filter((value) => value >= axis.low && value <= axis.high);
  const kept = [];
  for (const value of inside) if (kept.every((other) => Math.abs(axis(other) - axis(value)) >= distance)) kept.push(value);
  return kept;
}

function ticksOf(axis, distance) {
  if (axis.kind !== "linear") return logTicks(axis, distance);
  return linearTicks(axis.low, axis.high, Math.max(2, Math.floor(Math.abs(axis.end - axis.start) / distance)));
}

function bottomAxis(svg, axis, y, title) {
  draw("line", { x1: axis.start, x2: axis.end, y1: y, y2: y, stroke: "#57606a" }, svg);
  for (const value of ticksOf(axis, 56)) {
    draw("line", { x1: axis(value), x2: axis(value), y1: y, y2: y + 5, stroke: "#57606a" }, svg);
    draw("text", { x: axis(value), y: y + 19, "text-anchor": "middle" }, svg, show(value));
  }
  draw("text", { x: (axis.start + axis.end) / 2, y: y + 38, "text-anchor": "middle" }, svg, title);
}

function leftAxis(svg, axis, x, right, title) {
  for (const value of ticksOf(axis, 36)) {
    draw("line", { x1: x, x2: right, y1: axis(value), y2: axis(value), stroke: "#d8dee4" }, svg);
    draw("text", { x: x - 6, y: axis(value) + 4, "text-anchor": "end" }, svg, show(value));
  }
  draw("text", { x: 0, y: axis.end - 10 }, svg, title);
}

function showTip(plot, x, y, text) {
  plot.tip.textContent = text;
  plot.tip.hidden = false;
  const ratio = plot.box.clientWidth / plot.width;
  const left = Math.min(Math.max(0, x * ratio + 12), plot.box.clientWidth - plot.tip.offsetWidth);
  const above = y * ratio - plot.tip.offsetHeight - 10;
  plot.tip.style.left = `${left}px`;
  plot.tip.style.top = `${above < 0 ? y * ratio + 14 : above}px`;
}

/* One mark; a link where the participant has a page. */
function mark(parent, point, radius, colour) {
  const holder = point.href ? draw("a", { href: point.href, class: "mark" }, parent) : draw("g", { role: "img", class: "mark still" }, parent);
  holder.setAttribute("tabindex", "-1");
  holder.setAttribute("aria-label", point.label.replace(/\n/g, ", ") + (point.outlier ? ", outlier" : ""));
  if (point.outlier) {
    const size = Math.max(radius + 2, 5);
    draw("path", { d: `M${point.x} ${point.y - size}l${size} ${size}l${-size} ${size}l${-size} ${-size}z`, fill: "#fff", stroke: colour, "stroke-width": 2 }, holder);
  } else {
    draw("circle", { cx: point.x, cy: point.y, r: radius, fill: colour, "fill-opacity": 0.65, stroke: "none" }, holder);
  }
  point.mark = holder;
}

function nearest(points, x, y, reach) {
  let [best, least] = [null, reach * reach];
  for (const point of points) {
    const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

/* Tooltips and keys for points that are drawn already, in the order in which the arrow keys visit them. */
function interact(plot, points) {
  if (!points.length) return;
  let active = null;
  const leave = () => {
    if (active) active.mark.classList.remove("active");
    active = null;
    plot.tip.hidden = true;
    plot.svg.style.cursor = "";
  };
  const enter = (point) => {
    if (point === active) return;
    leave();
    active = point;
    point.mark.classList.add("active");
    plot.svg.style.cursor = point.href ? "pointer" : "";
    showTip(plot, point.x, point.y, point.label);
  };
  const under = (event) => {
    const frame = plot.svg.getBoundingClientRect();
    const ratio = plot.width / frame.width;
    return nearest(points, (event.clientX - frame.left) * ratio, (event.clientY - frame.top) * ratio, 18);
  };
  const index = new Map(points.map((point, place) => [point.mark, place]));
  let reachable = points[0];
  reachable.mark.setAttribute("tabindex", "0");
  plot.svg.addEventListener("pointermove", (event) => {
    const point = under(event);
    if (point) enter(point);
    else leave();
  });
  plot.svg.addEventListener("pointerleave", leave);
  plot.svg.addEventListener("click", (event) => {
    if (event.target.closest("a")) return;
    const point = under(event);
    if (point && point.href) location.assign(point.href);
  });
  plot.svg.addEventListener("focusin", (event) => {
    const place = index.get(event.target.closest(".mark"));
    if (place !== undefined) enter(points[place]);
  });
  plot.svg.addEventListener("focusout", leave);
  plot.svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    const place = index.get(event.target.closest(".mark"));
    const goal = { ArrowRight: place + 1, ArrowUp: place + 1, ArrowLeft: place - 1, ArrowDown: place - 1, Home: 0, End: points.length - 1 }[event.key];
    if (place === undefined || goal === undefined) return;
    event.preventDefault();
    const next = points[Math.min(Math.max(goal, 0), points.length - 1)];
    reachable.mark.setAttribute("tabindex", "-1");
    next.mark.setAttribute("tabindex", "0");
    reachable = next;
    next.mark.focus({ preventScroll: true });
  });
}

/* SVG path of the points that exist; a gap where a value is missing. */
function trace(xs, ys, across, up) {
  let [path, pen] = ["", false];
  xs.forEach((x, index) => {
    if (!present(x) || !present(ys[index])) {
      pen = false;
      return;
    }
    path += `${pen ? "L" : "M"}${across(x).toFixed(1)} ${up(ys[index]).toFixed(1)}`;
    pen = true;
  });
  return path;
}

function band(xs, series, across, up) {
  if (!series.low || !series.high) return "";
  const places = xs.map((_, index) => index).filter((index) => present(xs[index]) && present(series.low[index]) && present(series.high[index]));
  if (places.length < 2) return "";
  const edge = (values) => (index) => `${across(xs[index]).toFixed(1)} ${up(values[index]).toFixed(1)}`;
  return `M${places.map(edge(series.high)).join("L")}L${places.reverse().map(edge(series.low)).join("L")}Z`;
}

/* A chart of curves: {title, x, xs, kind, series: [{name, colour, dash, mean, low, high}], mark}. */
function curveChart(box, chart) {
  const plot = canvas(box, 330, chart.title);
  const kind = chart.kind || "linear";
  const known = chart.xs.filter((value) => present(value) && (kind !== "log" || value > 0));
  const across = scale(kind, kind === "log" ? Math.min(...known) : 0, Math.max(...known), 42, plot.width - 14);
  const tops = chart.series.flatMap((series) => [...series.mean, ...(series.high || [])]).filter(present);
  const up = scale("linear", 0, Math.max(...tops, 0) > 0.5 ? 1 : Math.max(...tops, 0.1), 280, 28);
  const xs = chart.xs.map((value) => (present(value) && (kind !== "log" || value > 0) ? value : null));
  leftAxis(plot.svg, up, 42, plot.width - 14, chart.y);
  bottomAxis(plot.svg, across, 280, chart.x);
  for (const series of chart.series) draw("path", { d: band(xs, series, across, up), fill: series.colour, "fill-opacity": 0.15 }, plot.svg);
  if (chart.mark && across.low <= chart.mark && chart.mark <= across.high) {
    draw("line", { x1: across(chart.mark), x2: across(chart.mark), y1: 28, y2: 280, stroke: "#1f2328", "stroke-dasharray": "3 3" }, plot.svg);
    draw("text", { x: across(chart.mark) + 5, y: 274 }, plot.svg, "operating point");
  }
  for (const series of chart.series) {
    const style = { fill: "none", stroke: series.colour, "stroke-width": 2.2, "stroke-dasharray": series.dash };
    draw("path", { d: trace(xs, series.mean, across, up), class: "curve", ...style }, plot.svg);
  }
  readout(plot, xs, chart, across);
}

/* A vertical line that follows the pointer or the arrow keys, with the values there. */
function readout(plot, xs, chart, across) {
  const line = draw("line", { y1: 28, y2: 280, stroke: "#57606a", visibility: "hidden" }, plot.svg);
  const places = xs.map((_, index) => index).filter((index) => present(xs[index]));
  let at = -1;
  const put = (place) => {
    at = Math.min(Math.max(place, 0), places.length - 1);
    const index = places[at];
    const x = across(xs[index]);
    for (const side of ["x1", "x2"]) line.setAttribute(side, x);
    line.setAttribute("visibility", "visible");
    const values = chart.series.map((series) => `${series.name}: ${present(series.mean[index]) ? show(series.mean[index]) : "n/a"}`);
    showTip(plot, x, 90, [`${chart.short} ${show(xs[index])}`, ...values].join("\n"));
    plot.svg.setAttribute("aria-label", `${chart.title}. ${chart.short} ${show(xs[index])}; ${values.join("; ")}`);
  };
  const leave = () => {
    line.setAttribute("visibility", "hidden");
    plot.tip.hidden = true;
  };
  plot.svg.setAttribute("tabindex", "0");
  plot.svg.addEventListener("pointermove", (event) => {
    const frame = plot.svg.getBoundingClientRect();
    const x = ((event.clientX - frame.left) * plot.width) / frame.width;
    put(places.reduce((best, index, place) => (Math.abs(across(xs[index]) - x) < Math.abs(across(xs[places[best]]) - x) ? place : best), 0));
  });
  plot.svg.addEventListener("pointerleave", leave);
  plot.svg.addEventListener("blur", leave);
  plot.svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    put(at + step * Math.max(1, Math.round(places.length / 50)));
  });
}
