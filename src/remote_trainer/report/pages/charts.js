"use strict";

/* Draws charts with plotly.js: in the report, and in the pages of `remote-trainer ui`. */
const GRID = "rgba(128,128,128,0.25)";
const COLOURS = ["#1f83c9", "#d55e00", "#009e73", "#c66a9f", "#c98a00", "#8268c8"];

/* Plotly reads names as HTML; a run or a reward may have any name. */
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

function solid(line, place, more) {
  const colour = COLOURS[place % COLOURS.length];
  return {
    x: line.x, y: line.y, name: plain(line.name), mode: "lines+markers",
    line: { color: colour, width: 1.5 }, marker: { size: 3, color: colour }, ...more,
  };
}

/* Quantiles from the lowest to the highest: two filled bands, a line in the middle, dots outside. */
function bands(lines) {
  const colour = COLOURS[0], last = lines.length - 1;
  return lines.map((line, place) => {
    const outside = place === 0 || place === last, middle = place === last / 2;
    const filled = !outside && place > 1;
    return {
      x: line.x, y: line.y, name: plain(line.name),
      mode: line.x.length === 1 || outside ? "markers" : "lines",
      line: { color: colour, width: middle ? 2 : 0 },
      marker: { size: outside ? 3 : 5, color: colour, opacity: outside ? .6 : 1 },
      fill: filled ? "tonexty" : "none",
      fillcolor: `rgba(31,131,201,${place === 2 || place === last - 1 ? .18 : .36})`,
    };
  });
}

const FORMS = {
  lines: (lines) => lines.map((line, place) => solid(line, place)),
  levels: (lines) => lines.map((line, place) => solid(line, place)),
  stacked: (lines) => lines.map((line, place) => solid(line, place, { stackgroup: "all" })),
  bands,
};

function layoutOf(chart) {
  const axis = { gridcolor: GRID, zerolinecolor: GRID, automargin: true };
  const vertical = { ...axis, title: { text: chart.unit } };
  if (chart.share) vertical.tickformat = ".0%";
  if (chart.share || chart.form === "levels") vertical.rangemode = "tozero";
  const limit = {
    type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1,
    line: { color: "#d33", width: 1, dash: "dash" },
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: "#7c7c7c", family: "system-ui, sans-serif", size: 12 },
    margin: { l: 44, r: 8, t: 8, b: 36 },
    xaxis: { ...axis, title: { text: "update" } },
    yaxis: vertical,
    shapes: chart.form === "levels" ? [limit] : [],
    showlegend: chart.lines.length > 1 && chart.form !== "bands",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    hovermode: "x", dragmode: false,  // a finger on a phone scrolls the page
  };
}

function figureOf(chart) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const title = document.createElement("b");
  const note = document.createElement("small");
  const plot = document.createElement("div");
  plot.className = "plot";
  figure.tabIndex = 0;
  title.textContent = chart.title;
  caption.append(title, note);
  figure.append(caption, plot);
  figure.addEventListener("keydown", (event) => walk(event, plot));
  return figure;
}

/* The arrow keys show the values of one update after the other. */
function walk(event, plot) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (!(event.key in moves) || !plot.data) return;
  event.preventDefault();
  const last = Math.max(...plot.data.map((line) => line.x.length)) - 1;
  const from = plot.shownPoint ?? (moves[event.key] > 0 ? -1 : last + 1);
  const point = Math.min(last, Math.max(0, from + moves[event.key]));
  plot.shownPoint = point;
  Plotly.Fx.hover(plot, plot.data.map((_, curve) => ({ curveNumber: curve, pointNumber: point })));
}

/* Draws the charts in ``place``; those that stand there are updated. */
async function drawCharts(place, charts) {
  const figures = new Map([...place.querySelectorAll("figure")].map((each) => [each.dataset.key, each]));
  for (const chart of charts) {
    const figure = figures.get(chart.key) ?? place.appendChild(figureOf(chart));
    figure.dataset.key = chart.key;
    figure.setAttribute("aria-label", `${chart.title}. ${chart.summary}`);
    figure.querySelector("small").textContent = chart.note;
    const known = chart.lines.map((line) => line.y.some((value) => value !== null));
    const lines = FORMS[chart.form](chart.lines).filter((_, i) => known[i]);
    const config = { displayModeBar: false, responsive: true };
    await Plotly.react(figure.querySelector(".plot"), lines, layoutOf(chart), config);
    await new Promise((resolve) => setTimeout(resolve));  // the page reacts between two charts
  }
}
