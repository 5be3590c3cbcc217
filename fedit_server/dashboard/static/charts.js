// Draws every figure of class "chart" from the page's curves. Without this file the pages show the same figures as text.
"use strict";

const STROKES = ["--accent", "--rest", "--good", "--bad"];
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const BYTES = ["B", "kB", "MB", "GB", "TB"];
const drawn = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function bytes(value) {
  let place = 0;
  while (value >= 999.5 && place < BYTES.length - 1) { value /= 1000; place += 1; }
  return `${value.toFixed(place === 0 || value >= 100 ? 0 : 1)} ${BYTES[place]}`;
}

function shown(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "bytes") return bytes(value);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4);
}

function tick(value, unit) {
  return unit === "bytes" ? bytes(value) : Number(value.toPrecision(6)).toLocaleString("en");
}

function options(figure, plot, columns) {
  const unit = figure.dataset.unit || "";
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--quiet"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
  return {
    width: plot.clientWidth, height: 210,
    cursor: { y: false }, legend: { live: true },
    scales: { x: { time: false }, y: { range: (_, low, high) => limits(low, high, figure.dataset.zero) } },
    axes: [
      { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000] },
      {
        ...axis, size: unit === "bytes" ? 64 : 50, space: 36, values: (_, ticks) => ticks.map((value) => tick(value, unit)),
        ...(figure.dataset.unit === "devices" ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {}),
      },
    ],
    series: [
      { label: "Round", value: (_, value) => (value === null || value === undefined ? "–" : String(value)) },
      ...lines(figure, columns).map(([, label], place) => ({
        label, stroke: colour(STROKES[place % 4]), dash: DASHES[(place + (place >> 2)) % 4], width: 1.75, spanGaps: true,
        points: { show: false }, value: (_, value) => shown(value, unit),
      })),
    ],
    hooks: { setCursor: [(chart) => { if (chart.cursor.left < 0) showNewest(chart); }], ready: [showNewest] },
  };
}

function limits(low, high, zero) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [zero ? 0 : low - room, high + room];
}

// The newest round that has a figure: one that failed has none.
function showNewest(chart) {
  const newest = chart.data[0].findLastIndex((_, place) => chart.data.slice(1).every((line) => line[place] !== null));
  chart.setLegend({ idx: newest < 0 ? chart.data[0].length - 1 : newest }, false);
}

// Pairs of column and label: named in the page, or every column with a prefix.
function lines(figure, columns) {
  const prefix = figure.dataset.prefix;
  if (!prefix) return figure.dataset.lines.split(",").map((line) => line.split(":"));
  const names = Object.keys(columns).filter((name) => name.startsWith(prefix)).slice(0, 8);
  return names.map((name) => [name, name.slice(prefix.length)]);
}

function draw(figure, columns) {
  const plot = figure.querySelector(".plot");
  const data = [columns.round, ...lines(figure, columns).map(([name]) => columns[name])];
  if (drawn.has(figure)) drawn.get(figure).destroy();
  drawn.set(figure, new uPlot(options(figure, plot, columns), data, plot));
}

async function start() {
  const figures = [...document.querySelectorAll("figure.chart")];
  if (figures.length === 0) return;
  const answers = new Map();
  for (const figure of figures) {
    const address = figure.dataset.curves;
    if (!answers.has(address)) answers.set(address, fetch(address).then((reply) => reply.json()));
    const { columns } = await answers.get(address);
    if (columns.round.length < 2) continue;
    const again = () => draw(figure, columns);
    again();
    let width = figure.clientWidth;
    new ResizeObserver(() => {
      if (figure.clientWidth === width) return;
      width = figure.clientWidth;
      drawn.get(figure).setSize({ width: figure.querySelector(".plot").clientWidth, height: 210 });
    }).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }
  document.documentElement.dataset.charts = "drawn";
}

start();
