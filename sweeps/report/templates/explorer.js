// The explorer: single trials of one data set, chosen by depth, activation, learning rate and momentum.

const AXES = { depth: "hidden layers", activation: "activation", learning_rate: "learning rate", bn_momentum: "momentum" };
const choices = document.getElementById("choices");
const at = (id) => document.getElementById(id);
let groups = []; // of the chosen data set, see sweeps/report/explorer.py

async function unpack(name) {
  const packed = document.querySelector(`script[data-curves="${CSS.escape(name)}"]`).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const steps = (runs) => runs.flatMap(([first, distance, count]) => Array.from({ length: count }, (_, n) => first + n * distance));
const experimentOf = (group) => [group.study.replaceAll("_", " "), group.experiment].filter(Boolean).join(": ");
const ascending = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
const inWords = (value) => (typeof value === "number" ? `${Number(value.toPrecision(4))}` : value);
const valuesOf = (name, among = groups) => [...new Set(among.map((group) => group[name]))].filter((value) => value != null).sort(ascending);

// Networks without batch norm have no momentum, so they fit any.
const fits = (group, place, names = Object.keys(AXES)) =>
  names.every((name) => group[name] === place[name] || (name === "bn_momentum" && group[name] == null));
const distance = (group, place) => Object.keys(AXES).filter((name) => !fits(group, place, [name])).length;

function place() {
  return Object.fromEntries(Object.keys(AXES).map((name) => [name, JSON.parse(choices.elements[name].value || "null")]));
}

function offer(name, chosen) {
  const others = Object.keys(AXES).filter((axis) => axis !== name);
  const here = place();
  choices.elements[name].replaceChildren(...valuesOf(name).map((value) => {
    const run = groups.some((group) => group[name] === value && fits(group, here, others));
    return element("option", { value: JSON.stringify(value), selected: value === chosen }, run ? inWords(value) : `${inWords(value)} (not run)`);
  }));
}

function choose(chosen) {
  for (const name of Object.keys(AXES)) {
    const wanted = chosen[name] ?? place()[name] ?? valuesOf(name)[0];
    choices.elements[name].replaceChildren(...valuesOf(name).map((value) => element("option", { value: JSON.stringify(value), selected: value === wanted }, inWords(value))));
    choices.elements[name].disabled = !valuesOf(name).length;
  }
  show();
}

// The group to begin with: of the experiments with several depths, the networks with the most trials
// in both arms, and the deepest of these.
function first() {
  const axes = Object.keys(AXES);
  const alike = (group, names) => groups.filter((other) => experimentOf(other) === experimentOf(group) && fits(other, group, names));
  const normed = groups.filter((group) => group.arm === values.arms[1]);
  const ranked = (normed.length ? normed : groups).map((group) => ({
    group,
    several: valuesOf("depth", alike(group, axes.filter((name) => name !== "depth"))).length > 1,
    count: alike(group, axes).reduce((sum, other) => sum + other.trials.length, 0),
  }));
  return ranked.sort((a, b) => b.several - a.several || b.count - a.count || b.group.depth - a.group.depth)[0].group;
}

function show() {
  const here = place();
  for (const name of Object.keys(AXES)) offer(name, here[name]);
  const found = groups.filter((group) => fits(group, here));
  const names = [...new Set(found.map(experimentOf))];
  const arms = (name) => found.filter((group) => experimentOf(group) === name).reduce((sum, group) => sum + group.trials.length, 0);
  names.sort((a, b) => arms(b) - arms(a));
  const select = choices.elements.experiment;
  const wanted = names.includes(select.value) ? select.value : names[0];
  select.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === wanted }, name)));
  select.disabled = !names.length;
  at("trials").hidden = !found.length;
  at("nearest").replaceChildren();
  if (!found.length) {
    at("found").textContent = "This combination was not run, so there is nothing to show.";
    suggest(here);
    return;
  }
  const experiment = groups.filter((group) => experimentOf(group) === wanted);
  const shown = experiment.filter((group) => fits(group, here));
  const missing = [...new Set(experiment.map((group) => group.label))].filter((label) => !shown.some((group) => group.label === label));
  const count = shown.reduce((sum, group) => sum + group.trials.length, 0);
  at("found").textContent = [`${count} trials are shown.`, ...missing.map((label) => `Not run with these settings: ${label}.`)].join(" ");
  drawCurves(shown);
  drawSteps(experiment, here);
  tabulate(shown);
}

// Buttons that lead to the combinations that were run and differ least.
function suggest(here) {
  const near = new Map();
  for (const group of [...groups].sort((a, b) => distance(a, here) - distance(b, here))) {
    const there = Object.fromEntries(Object.keys(AXES).map((name) => [name, group[name] ?? here[name]]));
    const words = Object.keys(AXES).filter((name) => there[name] !== here[name]).map((name) => `${AXES[name]} ${inWords(there[name])}`).join(", ");
    if (!near.has(words)) near.set(words, there);
    if (near.size === 6) break;
  }
  at("nearest").append("These were run: ", ...[...near].map(([words, there]) =>
    element("button", { type: "button", onclick: () => choose(there) }, words)));
}

// One line per trial. Hovering marks the nearest point and names its trial.
function lines(rows, labels, field, title, scale, points) {
  const x = { field: "step", type: "quantitative", title: "training step" };
  const y = { field, type: "quantitative", title, scale };
  const detail = { field: "id" };
  return (width) => ({
    description: `${title} by training step, one line per trial. The table of trials has their final values.`,
    width: Math.max(width - 70, 150), height: 240, data: { values: rows },
    layer: [
      {
        mark: { type: "line", aria: false, point: points ? { size: 18, aria: false } : false },
        encoding: {
          x, y, detail, ...bySeries(labels, "strokeDash"), opacity: { value: 0.8 },
          strokeWidth: { condition: { param: "hover", value: 3.5, empty: false }, value: 1.3 },
        },
      },
      {
        mark: { type: "point", opacity: 0, aria: false },
        params: [{ name: "hover", select: { type: "point", on: "pointerover", clear: "pointerout", nearest: true, fields: ["id"] } }],
        encoding: {
          x, y,
          tooltip: [{ field: "id", title: "trial" }, { field: "label", title: "arm" }, { field: "seed" }, { field: "step" }, { field, title }],
        },
      },
    ],
  });
}

function rowsOf(shown, column, field) {
  return shown.flatMap((group) => group.trials.flatMap((trial) => {
    const [runs, numbers] = trial[column] ?? [[], []];
    return steps(runs).map((step, n) => ({ step, [field]: numbers[n], id: trial.id, seed: trial.seed, label: group.label })).filter((row) => row[field] != null);
  }));
}

function drawCurves(shown) {
  const labels = [...new Set(shown.map((group) => group.label))];
  const losses = rowsOf(shown, "curve", "loss");
  const log = choices.elements.log.checked && losses.every((row) => row.loss > 0);
  draw("loss-chart", losses.length
    ? lines(losses, labels, "loss", "training loss", log ? { type: "log", nice: false } : { zero: false }, false)
    : nothing("No training loss was recorded for these trials."), labels);
  const accuracies = rowsOf(shown, "accuracy", "accuracy");
  at("no-accuracy").hidden = accuracies.length > 0;
  at("accuracy-chart").hidden = !accuracies.length;
  at("accuracy-title").textContent = `Accuracy on the ${shown[0].settings["evaluated on"] ?? "test"} set`;
  if (accuracies.length) draw("accuracy-chart", lines(accuracies, labels, "accuracy", "accuracy", { zero: false }, true), labels);
}

const nothing = (text) => (width) => ({
  description: text, width: width - 20, height: 40, data: { values: [{ text }] },
  mark: { type: "text", color: "var(--text)", fontSize: 13 }, encoding: { text: { field: "text" } }, config: { view: { stroke: null } },
});

// Steps to the target along one axis, everything else as chosen. Places that were not run say so.
function drawSteps(experiment, here) {
  const axis = at("along").value;
  const others = Object.keys(AXES).filter((name) => name !== axis);
  const line = experiment.filter((group) => group[axis] != null && fits(group, here, others) && group.steps);
  at("steps-chart").hidden = !line.length;
  at("no-steps").hidden = line.length > 0;
  at("no-steps").textContent = experiment.some((group) => group.steps)
    ? `There are no steps along ${AXES[axis]} here.` : "These trials have no target.";
  if (!line.length) return;
  const labels = [...new Set(line.map((group) => group.label))];
  const ticks = valuesOf(axis, experiment.filter((group) => labels.includes(group.label)));
  const medians = line.map((group) => ({ ...group.steps, label: group.label, place: group[axis], reached: `${group.steps.reached}/${group.trials.length}` }));
  const trials = line.flatMap((group) => group.trials.map((trial) =>
    ({ id: trial.id, seed: trial.seed, label: group.label, place: group[axis], steps: trial.steps_to_target, budget: group.steps.budget })));
  const absent = ticks.flatMap((value) => labels.filter((label) => !line.some((group) => group[axis] === value && group.label === label)).map((label) => ({ place: value, label, text: "not run" })));
  const scale = stepScale([...trials, ...medians]);
  const x = { field: "place", type: "ordinal", title: AXES[axis], scale: { domain: ticks }, axis: { labelAngle: 0, grid: false, ...(typeof ticks[0] === "number" && { labelExpr: "format(datum.value, '.4~g')" }) } };
  const xOffset = { field: "label", type: "nominal", scale: { domain: labels, paddingOuter: 1.5 } };
  const y = (field) => ({ field, type: "quantitative" });
  draw("steps-chart", (width) => ({
    description: `Training steps to the target by ${AXES[axis]}, for ${labels.join(" and ")}. ${medians.map((row) => `${AXES[axis]} ${row.place}, ${row.label}: ${row.text}`).join("; ")}`,
    width: Math.max(Math.min(width - 70, 160 * ticks.length), 150), height: 230,
    encoding: { y: { type: "quantitative", scale, title: `training steps to ${line[0].steps.target}`, axis: { gridOpacity: 0.5 } } },
    layer: [
      { data: { values: [{ place: here[axis] }] }, mark: { type: "bar", color: "var(--soft)", aria: false }, encoding: { x, y: { datum: scale.domain[0] }, y2: { datum: scale.domain[1] } } },
      ...inLooks(labels, [
        ...trialLayers(trials, x, { xOffset }, AXES[axis]),
        intervalLayer(medians, x, { xOffset }),
        {
          data: { values: medians }, mark: { type: "point", filled: true, size: 90, opacity: 1 },
          encoding: { x, xOffset, y: y("median"), tooltip: [{ field: "label", title: "arm" }, { field: "place", title: AXES[axis] }, { field: "text", title: "median steps" }, { field: "reached", title: "reached the target" }] },
        },
      ]),
      { data: { values: absent }, mark: { type: "text", angle: 270, align: "left", dx: 6, color: "var(--faint)", fontSize: 11 }, encoding: { x, xOffset, y: { datum: scale.domain[0] }, text: { field: "text" } } },
    ],
  }), labels);
}

function tabulate(shown) {
  const names = [...new Set(shown.flatMap((group) => Object.keys(group.settings)))];
  const result = (group) => (group.steps ? `${group.steps.text} (${group.steps.reached}/${group.trials.length})` : "no target");
  at("settings").replaceChildren(table(["", ...shown.map((group) => group.label)], [
    ["median steps to the target", ...shown.map(result)],
    ...names.map((name) => [name, ...shown.map((group) => group.settings[name] ?? "")]),
  ]));
  const percent = (value) => (value == null ? "" : `${(100 * value).toFixed(2)}%`);
  const reached = (trial, group) => trial.steps_to_target ?? (group.steps ? `not reached in ${group.steps.budget}` : "");
  at("trial-table").replaceChildren(table(
    ["Trial", "Arm", "Seed", "Status", "Steps to the target", "Accuracy after training", "Best accuracy", "Steps trained"],
    shown.flatMap((group) => group.trials.map((trial) => [
      trial.id, group.label, `${trial.seed}`, trial.status, `${reached(trial, group)}`, percent(trial.final_accuracy), percent(trial.best_accuracy), `${trial.final_step ?? ""}`,
    ]))));
}

async function load() {
  groups = await unpack(choices.elements.dataset.value);
  choose(first());
}

if (choices) {
  choices.addEventListener("submit", (event) => event.preventDefault());
  choices.addEventListener("change", (event) => (event.target.name === "dataset" ? load() : show()));
  at("along").addEventListener("change", show);
  // The first screen comes first. The explorer fills in right after it.
  setTimeout(load);
}
