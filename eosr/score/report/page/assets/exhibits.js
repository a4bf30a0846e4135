// One exhibit: slider, error maps, spectra, power spectra.
const picture = (key) => content.pictures[key];

function slide(part, exhibit) {
  const slider = one("img-comparison-slider", part);
  const [colours, left, right] = [".colours", ".left", ".right"].map((name) => one(name, part));
  if (!exhibit.composites.length) { part.hidden = true; return; }
  fill(colours, exhibit.composites.map(({ name, bands }) => `${name} (${bands.join(", ")})`));

  function show() {
    const { images, note, stretch, bands } = exhibit.composites[colours.value];
    const sides = [left, right].map((select) => select.selectedOptions[0].textContent);
    all("img", slider).forEach((image, i) => {
      image.src = picture(images[sides[i]]);
      [image.height, image.width] = exhibit.shape;
      image.alt = `${bands.join(", ")} ${sides[i]}`;
    });
    one(".slide-note", part).textContent =
      `Left: ${sides[0]}. Right: ${sides[1]}. ${note} Both sides share one stretch (2 to 98 %): ${stretch}.`;
  }
  function choose() {
    const before = [left, right].map((select) => select.selectedOptions[0]?.textContent);
    const labels = Object.keys(exhibit.composites[colours.value].images);
    const methods = labels.filter((label) => exhibit.methods.includes(label));
    fill(left, labels, Math.max(0, labels.indexOf(before[0])));
    const last = labels.indexOf(methods.at(-1) ?? labels.at(-1));
    fill(right, labels, labels.includes(before[1]) ? labels.indexOf(before[1]) : last);
    show();
  }
  const say = () => slider.setAttribute("aria-valuenow", Math.round(slider.value));
  const move = (value) => { slider.value = Math.min(100, Math.max(0, value)); say(); };
  // The library's own keys move while a key is held; a short press must move too, as role=slider promises.
  slider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const target = {
      ArrowLeft: slider.value - step, ArrowDown: slider.value - step, ArrowRight: slider.value + step,
      ArrowUp: slider.value + step, PageDown: slider.value - 10, PageUp: slider.value + 10, Home: 0, End: 100,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    move(target);
  });
  slider.addEventListener("slide", say);
  colours.addEventListener("change", choose);
  for (const select of [left, right]) select.addEventListener("change", show);
  choose();
}

function maps(part, exhibit) {
  if (!part || !exhibit.maps.length) { if (part) part.hidden = true; return; }
  const band = one(".band", part);
  fill(band, exhibit.maps.map((entry) => entry.band));
  const colours = content.colours.map((rgb) => `rgb(${rgb.join(" ")})`);
  one(".ramp", part).style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  const tile = (key, caption, alt) => made("figure", {}, made("img", { src: picture(key), alt }),
    made("figcaption", {}, caption));
  function show() {
    const { limit, measured, methods, band: name } = exhibit.maps[band.value];
    one(".grid", part).replaceChildren(
      tile(measured, `${name} as measured`, `Band ${name} as measured, in grey`),
      ...methods.map(({ method, picture: key, rmse }) => tile(key, `${method}: RMSE ${rmse} DN in this window`,
        `Error of ${method} in ${name}, blue where too low, orange where too high; RMSE ${rmse} DN`)));
    one(".low", part).textContent = `−${digits(limit)} DN`;
    one(".high", part).textContent = `+${digits(limit)} DN`;
    one(".legend", part).setAttribute("aria-label",
      `Scale from blue, ${digits(limit)} DN too low, over white, exact, to orange, ${digits(limit)} DN too high`);
  }
  band.addEventListener("change", show);
  show();
}

function spectra(part, exhibit) {
  const { points, series, bands, wavelengths } = exhibit.spectra;
  if (!points.length) { part.hidden = true; return; }
  const point = one(".point", part);
  fill(point, points.map(({ label, row, column }, i) => `${i + 1}: ${label} (row ${row}, column ${column})`));
  const where = one(".where", part);
  const view = exhibit.composites[0];
  const [rows, columns] = exhibit.shape;
  if (view) {
    const key = view.images[content.measured] ?? view.images[content.given] ?? Object.values(view.images)[0];
    where.append(made("img", { src: picture(key), alt: "Where the points lie" }));
    points.forEach((_, i) => where.append(made("b", { "aria-hidden": "true" }, String(i + 1))));
    all("b", where).forEach((mark, i) => {
      mark.style.left = `${(100 * (points[i].column + 0.5)) / columns}%`;
      mark.style.top = `${(100 * (points[i].row + 0.5)) / rows}%`;
    });
  }
  const labels = Object.keys(series).sort((a, b) => (b === content.measured) - (a === content.measured));
  const values = (label) => series[label][point.value];
  function recipe() {
    return {
      type: "line",
      label: `Spectrum of point ${point.selectedOptions[0].textContent}: digital numbers against wavelength.`,
      data: { datasets: labels.map((label) => line(label, wavelengths.flatMap((x, i) =>
        values(label)[i] === null ? [] : [{ x, y: values(label)[i], band: bands[i] }]),
        { pointRadius: label === content.measured ? 5 : 4, order: label === content.measured ? 1 : 0 })) },
      options: {
        scales: { x: { type: "linear", name: "wavelength [nm]" }, y: { name: "digital number [DN]" } },
        plugins: { tooltip: { callbacks: {
          title: ([item]) => `${item.raw.band}, ${item.raw.x} nm`,
          label: (item) => `${item.dataset.label}: ${digits(item.raw.y)} DN`,
        } } },
      },
    };
  }
  function show() {
    all("b", where).forEach((mark, i) => mark.classList.toggle("now", i === Number(point.value)));
    const head = made("tr", {}, made("th", { scope: "col" }, "Image"),
      ...bands.map((band) => made("th", { scope: "col", class: "n" }, band)));
    const body = labels.map((label) => made("tr", {}, made("th", { scope: "row" }, label),
      ...values(label).map((value) => made("td", { class: "n" }, digits(value)))));
    const caption = made("caption", {}, `Point ${point.selectedOptions[0].textContent}, digital numbers`);
    one(".numbers", part).replaceChildren(
      made("table", {}, caption, made("thead", {}, head), made("tbody", {}, ...body)));
    draw(one("canvas", part), recipe);
  }
  point.addEventListener("change", show);
  show();
}

function power(part, exhibit) {
  if (!exhibit.power.length) { part.hidden = true; return; }
  const band = one(".band", part);
  const errors = one(".errors", part);
  fill(band, exhibit.power.map((entry) => entry.band));
  const trace = (entry, values) => values.map((y, i) => ({ x: entry.frequency[i], y }));
  function recipe() {
    const entry = exhibit.power[band.value];
    const datasets = Object.entries(entry.power).map(([label, values]) =>
      line(label, trace(entry, values), { pointRadius: 0 }));
    if (errors?.checked) {
      for (const [label, values] of Object.entries(entry.error)) {
        datasets.push({ ...line(label, trace(entry, values), { pointRadius: 0, borderDash: [5, 4], borderWidth: 1.5 }),
          label: `error of ${label}` });
      }
    }
    // Eight decades are enough to look at; what interpolation leaves of the finest detail can be far less.
    const peak = Math.log10(Math.max(...Object.values(entry.power).flat()));
    const decade = (value) => (Number.isInteger(Math.log10(value)) ? value.toExponential(0) : "");
    const lines = [{ at: entry.given_nyquist, color: paint("--quiet"), dash: [6, 4] },
      ...Object.entries(entry.noise_from).map(([label, at]) =>
        ({ at, color: look(label).color, dash: [], short: true }))];
    const ends = [entry.frequency[0], entry.frequency.at(-1)];
    return {
      type: "line",
      label: `Radial power spectra of ${entry.band}, from ${digits(ends[0])} to ${digits(ends[1])} cycles per km.`,
      data: { datasets },
      options: {
        scales: {
          x: { type: "logarithmic", name: "frequency [cycles / km]", min: ends[0], max: ends[1],
               ticks: { callback: (value) => digits(value), maxTicksLimit: 10 } },
          y: { type: "logarithmic", name: "power [DN² pixel²]", min: 10 ** Math.floor(peak - 8), ticks: { callback: decade } },
        },
        plugins: {
          legend: { labels: { color: paint("--text"), usePointStyle: false, boxWidth: 24, boxHeight: 0 } },
          rules: { lines },
          tooltip: { callbacks: {
            title: ([item]) => `${digits(item.raw.x)} cycles / km, ${digits(item.raw.x * exhibit.gsd / 1000)} / pixel`,
            label: (item) => `${item.dataset.label}: ${digits(item.raw.y)}`,
          } },
        },
      },
    };
  }
  function show() {
    const entry = exhibit.power[band.value];
    one(".noise", part).replaceChildren(...Object.entries(entry.noise_from).map(([label, at]) => made("li", {},
      at === null ? `${label}: its error stays below the measurement at every frequency.`
        : `${label}: noise from ${digits(at)} cycles / km on (${digits(at * exhibit.gsd / 1000)} cycles / pixel).`)));
    draw(one("canvas", part), recipe);
  }
  for (const input of [band, errors]) input?.addEventListener("change", show);
  show();
}
