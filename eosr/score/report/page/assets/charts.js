// Charts: Chart.js in the colours of the page, with whiskers and marked frequencies.
const whiskers = {
  id: "whiskers",
  afterDatasetsDraw(chart) {
    const { ctx, scales } = chart;
    chart.data.datasets.forEach((set, index) => {
      const elements = chart.getDatasetMeta(index);
      if (!set.intervals || elements.hidden) return;
      ctx.save();
      ctx.strokeStyle = paint("--text");
      set.intervals.forEach(([low, high], i) => {
        if (low === null || high === null || set.data[i] === null) return;
        const x = elements.data[i].x;
        const [top, bottom] = [scales.y.getPixelForValue(high), scales.y.getPixelForValue(low)];
        ctx.beginPath();
        for (const y of [top, bottom]) { ctx.moveTo(x - 4, y); ctx.lineTo(x + 4, y); }
        ctx.moveTo(x, top);
        ctx.lineTo(x, bottom);
        ctx.stroke();
      });
      ctx.restore();
    });
  },
};

const rules = {
  id: "rules",
  afterDatasetsDraw(chart, _, options) {
    const { ctx, chartArea, scales } = chart;
    for (const { at, color, dash, short } of options.lines || []) {
      if (at === null) continue;
      const x = scales.x.getPixelForValue(at);
      ctx.save();
      ctx.strokeStyle = color;
      ctx.lineWidth = short ? 4 : 1.5;
      ctx.setLineDash(dash);
      ctx.beginPath();
      ctx.moveTo(x, short ? chartArea.bottom - 22 : chartArea.top);
      ctx.lineTo(x, chartArea.bottom);
      ctx.stroke();
      ctx.restore();
    }
  },
};

// A drawing is remembered, so that it can be made again in other colours.
function draw(canvas, recipe) {
  charts.set(canvas, recipe);
  Chart.getChart(canvas)?.destroy();
  const { label, ...config } = recipe();
  canvas.setAttribute("aria-label", label);
  const grid = paint("--line");
  const text = paint("--text");
  for (const axis of Object.values(config.options.scales)) {
    axis.grid = { color: grid };
    axis.ticks = { ...axis.ticks, color: text };
    axis.title = { display: true, text: axis.name, color: text };
  }
  const plugins = { legend: { labels: { color: text, usePointStyle: true, boxHeight: 7 } }, ...config.options.plugins };
  const options = { animation: false, responsive: true, maintainAspectRatio: false, ...config.options, plugins };
  return new Chart(canvas, { ...config, options, plugins: [whiskers, rules] });
}

const redraw = () => charts.forEach((recipe, canvas) => draw(canvas, recipe));

function line(label, points, more = {}) {
  const { color, mark, width, dash } = look(label);
  return {
    label, data: points, borderColor: color, backgroundColor: color, pointStyle: mark, borderWidth: width,
    borderDash: dash, ...more,
  };
}
