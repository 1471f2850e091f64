"use strict";

const POLL_MS = 3000;
const GREY = "#7c7c7c", GRID = "rgba(128,128,128,0.25)", BLUE = "#1f83c9";

/* The server renders the page again; the marked parts are replaced where they changed. */
async function refreshParts() {
  const response = await fetch(location.href);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || fresh.innerHTML === part.innerHTML) continue;
    const chosen = [...part.querySelectorAll("input:checked")].map((box) => box.value);
    part.replaceChildren(...fresh.childNodes);
    for (const box of part.querySelectorAll("input")) box.checked = chosen.includes(box.value);
  }
}

function figureFor(chart, place) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const title = document.createElement("b");
  const note = document.createElement("small");
  title.textContent = chart.title;
  note.textContent = " " + chart.note;
  caption.append(title, note);
  const plot = document.createElement("div");
  figure.append(caption, plot);
  place.append(figure);
  return plot;
}

async function refreshCharts(place, plots) {
  const response = await fetch(place.dataset.source);
  if (!response.ok) return;
  for (const chart of await response.json()) {
    if (!plots.has(chart.title)) plots.set(chart.title, figureFor(chart, place));
    const axis = { gridcolor: GRID, zerolinecolor: GRID, automargin: true };
    const lines = [{
      x: chart.steps, y: chart.values, mode: "lines+markers",
      line: { color: BLUE, width: 1.5 }, marker: { size: 3 },
    }];
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: GREY, family: "system-ui, sans-serif", size: 12 },
      margin: { l: 44, r: 8, t: 8, b: 36 },
      xaxis: { ...axis, title: { text: "update" } },
      yaxis: chart.share ? { ...axis, tickformat: ".0%" } : axis,
      showlegend: false, hovermode: "x", dragmode: false,
    };
    Plotly.react(plots.get(chart.title), lines, layout, { displayModeBar: false, responsive: true });
  }
}

async function poll() {
  const place = document.getElementById("charts");
  const plots = new Map();
  for (let first = true; ; first = false) {
    try {
      if (!first) await refreshParts();
      if (place) await refreshCharts(place, plots);
      document.getElementById("connection").hidden = true;
    } catch (error) {
      document.getElementById("connection").hidden = false;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

poll();
