/* Shows the rows that match all controls above the table. */
function filterRows(samples) {
  const rows = [...samples.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const controls = Object.fromEntries(
    [...samples.querySelectorAll("[data-by]")].map((each) => [each.dataset.by, each]));
  const wanted = (name) => controls[name].value;
  const matches = (row, text) =>
    wanted("text").toLowerCase().split(/\s+/).every((word) => text.includes(word)) &&
    (!wanted("step") || row.dataset.step === wanted("step")) &&
    (!wanted("state") || row.dataset.state === wanted("state")) &&
    (!wanted("least") || (row.dataset.reward && +row.dataset.reward >= +wanted("least"))) &&
    (!wanted("most") || (row.dataset.reward && +row.dataset.reward <= +wanted("most")));
  const apply = () => {
    rows.forEach((row, i) => { row.hidden = !matches(row, texts[i]); });
    const left = rows.filter((row) => !row.hidden).length;
    samples.querySelector("output").textContent = `${left} of ${rows.length} completions`;
  };
  samples.addEventListener("input", apply);
  samples.querySelector(".filter").hidden = false;
  apply();  // a reloaded page may keep what was typed
}

async function drawAll() {
  for (const place of document.querySelectorAll(".charts")) {
    await drawCharts(place, JSON.parse(place.querySelector("script").textContent));
  }
}

document.querySelectorAll(".samples").forEach(filterRows);
drawAll();
