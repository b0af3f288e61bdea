// Draws charts with Vega-Lite. Colours are CSS variables, so they follow the theme and the printer.

const values = JSON.parse(document.getElementById("values").textContent);
const SHAPES = { o: "circle", s: "square", D: "diamond", v: "triangle-down", X: "cross" };
const DASHES = { "-": [1, 0], "--": [6, 4], "-.": [6, 3, 1, 3], ":": [1, 3] };
const CONFIG = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: "var(--line)" },
  axis: {
    labelColor: "var(--text)", titleColor: "var(--text)", gridColor: "var(--line)",
    domainColor: "var(--faint)", tickColor: "var(--faint)", labelFontSize: 12, titleFontSize: 12,
    titleFontWeight: "normal",
  },
  legend: {
    labelColor: "var(--text)", labelFontSize: 12, title: null, orient: "top", symbolSize: 90,
    symbolStrokeWidth: 2, symbolOpacity: 1, labelLimit: 400,
  },
  title: { color: "var(--text)", fontSize: 13, fontWeight: "normal" },
};

// Makes an HTML element: `children` are texts or elements.
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function table(columns, rows) {
  const cells = (names, kind) =>
    element("tr", {}, ...names.map((text) => element(kind, kind === "th" ? { scope: "col" } : {}, text)));
  return element("table", {},
    element("thead", {}, cells(columns, "th")), element("tbody", {}, ...rows.map((row) => cells(row, "td"))));
}

// The look of each label, as sweeps/harness/charts/looks.py assigns them.
function looksOf(labels) {
  const chosen = new Map();
  values.arms.forEach((arm, index) => {
    const candidates = labels.filter((label) => label.startsWith(arm));
    if (candidates.length) chosen.set(candidates.includes(arm) ? arm : candidates[0], index);
  });
  let next = 0;
  const others = values.looks.length - values.arms.length;
  return labels.map((label) => chosen.get(label) ?? values.arms.length + (next++ % others));
}

// Encodings that tell series apart by colour and by shape or dash.
function bySeries(labels, channel) {
  const looks = looksOf(labels);
  const scale = (range) => ({ domain: labels, range });
  const encoding = {
    color: { field: "label", type: "nominal", scale: scale(looks.map((index) => `var(--look${index})`)) },
  };
  if (channel === "shape")
    encoding.shape = { field: "label", type: "nominal", scale: scale(looks.map((i) => SHAPES[values.looks[i].marker])) };
  if (channel === "strokeDash")
    encoding.strokeDash = { // without a scale, so that the legend keeps whole symbols
      condition: labels.map((label, n) => ({ test: { field: "label", equal: label }, value: DASHES[values.looks[looks[n]].linestyle] })),
      value: [1, 0],
    };
  return encoding;
}

const places = new Map(); // from a chart's element to {make, width, view}

// How many entries of a legend fit into a row. Otherwise, a long legend shrinks the whole chart.
function legendColumns(labels, width) {
  const longest = Math.max(0, ...labels.map((label) => label.length));
  return Math.max(1, Math.min(labels.length, Math.floor(width / (7 * longest + 30))));
}

// Draws a chart into an element, and draws it again when the element's width changes.
// `make` is a function of the width in pixels that returns a specification, and `labels` are those
// of the legend.
async function draw(id, make, labels) {
  const place = document.getElementById(id);
  const state = places.get(place) ?? {};
  if (!places.has(place)) new ResizeObserver(() => redraw(place)).observe(place);
  const turn = (state.turn ?? 0) + 1;
  Object.assign(state, { make, labels, turn, width: place.clientWidth });
  places.set(place, state);
  if (!state.width) return; // not visible, will be drawn when it is
  const spec = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...make(state.width) };
  const holder = element("div");
  const found = await vegaEmbed(holder, spec, {
    renderer: "svg", actions: false,
    config: { ...CONFIG, legend: { ...CONFIG.legend, columns: legendColumns(labels, state.width) } },
    tooltip: { theme: "custom" },
  });
  if (state.turn !== turn) return found.finalize();
  state.view?.finalize();
  state.view = found;
  place.replaceChildren(holder);
}

function redraw(place) {
  const state = places.get(place);
  if (Math.abs(place.clientWidth - state.width) > 8) draw(place.id, state.make, state.labels);
}

// A layer with the 95% intervals of medians. Ends beyond the budget are cut off there.
function intervalLayer(rows, x, offset = {}) {
  return {
    data: { values: rows.filter((row) => row.interval).map((row) => ({ ...row, to: row.high ?? row.budget, from: row.low ?? row.budget })) },
    mark: { type: "rule", strokeWidth: 2, aria: false },
    encoding: { x, ...offset, y: { field: "from", type: "quantitative" }, y2: { field: "to" } },
  };
}

// Layers with a point per trial. A triangle at the budget is a miss.
function trialLayers(trials, x, offset, title) {
  const tooltip = [
    { field: "id", title: "trial" }, { field: "label", title: "arm" }, { field: "seed" },
    { field: "place", title }, { field: "steps", title: "steps to the target" },
  ];
  const layer = (rows, mark, field) => ({
    data: { values: rows },
    mark: { type: "point", aria: false, ...mark },
    encoding: { x, ...offset, y: { field, type: "quantitative" }, tooltip },
  });
  return [
    layer(trials.filter((row) => row.steps != null), { filled: true, opacity: 0.45, size: 28 }, "steps"),
    layer(
      trials.filter((row) => row.steps == null).map((row) => ({ ...row, steps: `not reached in ${row.budget}` })),
      { shape: "triangle-up", filled: false, size: 60 }, "budget"),
  ];
}

// Layers with the colour of their series, and points with its shape.
const inLooks = (labels, layers) => layers.map((layer) =>
  ({ ...layer, encoding: { ...bySeries(labels, layer.mark.type === "point" ? "shape" : ""), ...layer.encoding } }));

// A scale for steps: logarithmic if some runs missed the target, as budgets are far away.
function stepScale(rows) {
  const finite = rows.flatMap((row) => [row.steps ?? row.median ?? row.budget, row.high ?? 0]).filter((n) => n > 0);
  const missed = rows.some((row) => "seed" in row && row.steps == null);
  const most = Math.max(...finite, ...rows.filter((row) => "seed" in row && row.steps == null).map((row) => row.budget));
  const least = Math.min(...finite);
  return missed ? { type: "log", domain: [least / 1.3, most * 1.3], nice: false } : { type: "linear", domain: [0, most * 1.05], nice: false };
}

function headline(width) {
  const panels = [...new Set(values.headline.map((point) => point.panel))];
  const labels = values.arms.filter((arm) => values.headline.some((point) => point.arm === arm));
  const columns = width < 520 ? 1 : panels.length;
  const depths = [...new Set(values.headline.map((point) => point.depth))].sort((a, b) => a - b);
  const shifted = (point) => point.depth + 0.1 * (labels.indexOf(point.arm) - (labels.length - 1) / 2);
  const medians = values.headline.map((point) => ({ ...point, label: point.arm, x: shifted(point) }));
  const trials = medians.flatMap((point) =>
    point.trials.map((trial) => ({ ...trial, label: point.arm, x: point.x, panel: point.panel, budget: point.budget, place: point.depth })));
  const scale = stepScale([...trials, ...medians]);
  const x = {
    field: "x", type: "quantitative", title: "hidden layers",
    scale: { domain: [depths[0] - 0.4, depths.at(-1) + 0.4], nice: false },
    axis: { values: depths, format: "d", grid: false },
  };
  const panel = (name, index) => {
    const of = (rows) => rows.filter((row) => row.panel === name);
    const own = of(medians);
    const line = { data: { values: own }, mark: { type: "line", aria: false, strokeWidth: 2 }, encoding: { x, y: { field: "median", type: "quantitative" }, ...bySeries(labels, "strokeDash") } };
    const dots = {
      data: { values: own }, mark: { type: "point", filled: true, size: 80, opacity: 1 },
      encoding: {
        x, y: { field: "median", type: "quantitative" },
        tooltip: [
          { field: "label", title: "arm" }, { field: "depth", title: "hidden layers" }, { field: "rate", title: "learning rate" },
          { field: "text", title: "median steps" }, { field: "reached", title: "reached the target" },
        ],
      },
    };
    return {
      title: name,
      width: width / columns - 62 + (index % columns ? 14 : 0), height: columns === 1 ? 210 : Math.min(380, Math.max(230, innerHeight - 500)),
      layer: inLooks(labels, [...trialLayers(of(trials), x, {}, "hidden layers"), intervalLayer(own, x), line, dots]),
      encoding: { y: { type: "quantitative", scale, title: index % columns ? null : "training steps", axis: { gridOpacity: 0.5 } } },
    };
  };
  return {
    description: `${values.title}. The table below has all medians.`,
    columns, spacing: 18, concat: panels.map(panel),
    resolve: { scale: { color: "shared", shape: "shared" }, legend: { color: "shared", shape: "shared" } },
  };
}

if (values.headline.length) draw("headline-chart", headline, values.arms);
