// The table set and the bars of one setting.
const figureOf = (text) => Number.parseFloat(text);
// Tablesort hands over the pair that is in the wrong order for an ascending column, hence b before a.
Tablesort.extend("figure", () => false, (a, b) => {
  const [x, y] = [figureOf(a), figureOf(b)];
  return (Number.isNaN(y) ? -Infinity : y) - (Number.isNaN(x) ? -Infinity : x) || 0;
});
Tablesort.extend("words", () => false, (a, b) => b.localeCompare(a, "en", { numeric: true, sensitivity: "base" }));

function sortable(table) {
  new Tablesort(table);
  for (const heading of all("thead th", table)) {
    heading.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      heading.click();
    });
  }
  // What is no number stays last, whichever way the column is sorted.
  table.addEventListener("afterSort", () => {
    const heading = one("th[aria-sort]", table);
    if (heading?.dataset.sortMethod !== "figure") return;
    const rows = [...table.tBodies[0].rows];
    table.tBodies[0].append(...rows.filter((row) => Number.isNaN(figureOf(row.cells[heading.cellIndex].textContent))));
  });
}

function scores() {
  const form = document.getElementById("setting");
  const selects = all("select", form);
  const holder = document.getElementById("tables");
  const sets = new Map(all("[data-key]", holder).map((set) => [set.dataset.key, set]));
  const metrics = content.bars.metrics;
  const first = [...sets.keys()][0];
  if (first === undefined) return;
  first.split("|").forEach((place, i) => { selects[i].value = place; });
  const key = () => selects.map((select) => select.value).join("|");
  const metric = document.getElementById("bars-metric");
  const zero = document.getElementById("bars-zero");
  const drawable = metrics.flatMap((_, m) => Object.values(content.bars.settings).some(
    (values) => values[m].some((bands) => bands.some((cell) => cell[0] !== null))) ? [m] : []);
  metric.replaceChildren(...drawable.map((m) => made("option", { value: m }, metrics[m].name)));
  const rmse = drawable.find((m) => metrics[m].name === "rmse");
  if (rmse !== undefined) metric.value = rmse;

  function bars() {
    const { name, unit, better } = metrics[metric.value];
    const values = content.bars.settings[key()]?.[metric.value] ?? [];
    const shown = content.bars.bands.flatMap((_, b) => values.some((bands) => bands[b][0] !== null) ? [b] : []);
    const datasets = content.bars.methods.flatMap((label, i) => {
      if (!values[i]?.some((cell) => cell[0] !== null)) return [];
      const cells = shown.map((b) => values[i][b]);
      return [{
        label, data: cells.map((cell) => cell[0]), intervals: cells.map((cell) => cell.slice(1)),
        backgroundColor: look(label).color, borderColor: paint("--text"), borderWidth: 0.5, pointStyle: "rect",
      }];
    });
    const ends = datasets.flatMap((set) => set.intervals.map(([, high]) => high));
    const spread = datasets.some((set) => set.intervals.some(([low, high]) => low !== null && high !== null));
    document.getElementById("bars-note").textContent = spread ? "Whiskers: bootstrap interval over scenes." : "";
    return {
      type: "bar",
      label: `Bars: ${name} per band, grouped by method. The table "Band by band" holds the same numbers.`,
      data: { labels: shown.map((b) => content.bars.bands[b]), datasets },
      options: { scales: {
        x: { name: "band" },
        y: { name: `${name}${unit ? ` [${unit}]` : ""}${better ? `, ${better} is better` : ""}`,
             suggestedMax: Math.max(...ends), beginAtZero: zero.checked, grace: zero.checked ? 0 : "5%" },
      } },
    };
  }

  function change() {
    const set = sets.get(key());
    document.getElementById("setting-caption").textContent =
      set ? `${set.dataset.caption}.` : "There is no score of this combination.";
    const shown = made("div", { class: "tables" });
    if (set) shown.append(...(set.content ?? set).cloneNode(true).childNodes);
    holder.replaceChildren(shown);
    all("table", shown).forEach(sortable);
    if (drawable.length) draw(document.getElementById("bars-canvas"), bars);
  }
  form.addEventListener("change", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of [metric, zero]) input.addEventListener("change", change);
  form.hidden = false;
  one(".sorts").hidden = false;
  document.getElementById("bars").hidden = !drawable.length;
  change();
}
