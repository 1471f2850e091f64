"use strict";

const POLL_MS = 3000;

const nameOf = (element) => element.href ?? element.value;

/* The server renders the page again; the marked parts are replaced where they changed. */
async function refreshParts() {
  const response = await fetch(location.href);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || fresh.innerHTML === part.innerHTML) continue;
    const chosen = [...part.querySelectorAll("input:checked")].map((box) => box.value);
    const focused = part.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    part.replaceChildren(...fresh.childNodes);
    for (const box of part.querySelectorAll("input")) box.checked = chosen.includes(box.value);
    for (const each of part.querySelectorAll("a, input")) if (nameOf(each) === focused) each.focus();
  }
}

async function refreshCharts(place) {
  const response = await fetch(place.dataset.source);
  if (response.ok) await drawCharts(place, await response.json());
}

async function poll() {
  const place = document.getElementById("charts");
  for (let first = true; ; first = false) {
    try {
      if (!first) await refreshParts();
      if (place) await refreshCharts(place);
      document.getElementById("connection").hidden = true;
    } catch (error) {
      document.getElementById("connection").hidden = false;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

poll();
