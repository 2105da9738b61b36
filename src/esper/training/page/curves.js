// The curves: panels over one axis of steps, with growth marks above them and one cursor through all.

const MARKS = {
  Attached: { kind: "attached", glyph: "M-4.500 0H4.500M0 -4.500V4.500", word: "grafted" },
  Cut: { kind: "cut", glyph: "M-4.500 0H-1.500M1.500 0H4.500", word: "own path cut" },
  Pruned: { kind: "cut", glyph: "M-3 3L3 -3M-3.500 0H3.500", word: "pruned" },
  Merged: { kind: "cut", glyph: "M-4 -3L0 0L-4 3M0 0H4.500", word: "melted into its layer" },
  Widened: { kind: "attached", glyph: "M-4.500 -3V3M4.500 -3V3M-4.500 0H4.500", word: "layers made larger" },
  Refused: { kind: "refused", glyph: "M-3 -3L3 3M3 -3L-3 3", word: "refused" },
  RolledBack: { kind: "rolled", glyph: "M3.500 -2.500A4.200 4.200 0 1 0 4.200 1M4 -5.500V-2.200H0.800", word: "put back by the guard" },
  Ended: { kind: "ended", glyph: "M-3 -3H3V3H-3Z", word: "growth ended" },
};

const describePart = (fact) =>
  fact.what === "units" || fact.what === "heads" ? `${figure(fact.num_removed)} of ${figure(fact.num_units)} ${fact.what} of ${fact.where}` : `the ${fact.what} ${fact.where}`;

function describeMark(fact) {
  switch (fact.type) {
    case "Attached":
      return `Grafted ${spoken(fact.candidate)}: ${figure(fact.params)} parameters more, ${figure(fact.total_params)} in all`;
    case "Cut":
      return `Cut the own path of ${fact.site}: ${figure(fact.params)} parameters less, ${figure(fact.total_params)} in all`;
    case "Pruned":
      return `Pruned ${describePart(fact)}: ${figure(fact.params)} parameters less, ${figure(fact.total_params)} in all; held-out loss up by ${figure(fact.increase)} (margin ${figure(fact.margin)})`;
    case "Merged":
      return `Melted ${spoken(fact.candidate)} into the layer beside it: ${figure(fact.params)} parameters less, ${figure(fact.total_params)} in all`;
    case "Widened":
      return `Widenings became units of ${fact.layers.join(", ")}: ${figure(fact.params)} parameters more, ${figure(fact.total_params)} in all`;
    case "Refused":
      return `Refused ${spoken(fact.candidate)}: ${fact.reason}`;
    case "RolledBack":
      return `Put back to step ${figure(fact.to_step)}: ${fact.reason}`;
    default:
      return `Growth ended: ${fact.reason}`;
  }
}

function panelsOf(data) {
  const { loss, smooth, held_out_loss: heldLoss, held_out_metric: heldMetric, params } = data.curves;
  const metric = data.run.metric;
  const panels = [
    { title: "Loss", height: 230, show: figure, series: [
      { kind: "raw", label: "training", curve: loss },
      { kind: "smooth", label: "smoothed", curve: smooth },
      { kind: "held", label: "held-out", curve: heldLoss }] },
    { title: capital(metric), height: 150, show: (value) => metricFigure(value, metric), series: [
      { kind: "held", label: "held-out", curve: heldMetric }] },
    { title: "Parameters", height: 84, show: figure, stairs: true, series: [
      { kind: "size", label: "in the network", curve: params }] },
  ];
  for (const panel of panels) panel.series = panel.series.filter((line) => line.curve[0].length);
  return panels.filter((panel) => panel.series.length);
}

/** The values that an axis must show: rare spikes of single steps may leave it. */
function rangeOf(panel) {
  const values = panel.series.flatMap(({ kind, curve }) => {
    if (kind !== "raw") return curve[1];
    const sorted = [...curve[1]].sort((a, b) => a - b);
    return [sorted[Math.floor(0.01 * sorted.length)], sorted[Math.ceil(0.98 * (sorted.length - 1))]];
  });
  const low = Math.min(...values);
  const high = Math.max(...values);
  const log = panel.title === "Loss" && low > 0 && high / low > 30;
  if (log) return { low: low / 1.1, high: high * 1.1, log };
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  if (panel.stairs) return { low: 0, high: high * 1.12, log };
  return { low: low >= 0 ? Math.max(0, low - room) : low - room, high: high + room, log };
}

function linePath([steps, values], x, y, stairs) {
  return steps.map((step, index) => {
    const point = `${x(step).toFixed(1)} ${y(values[index]).toFixed(1)}`;
    if (index === 0) return `M${point}`;
    return stairs ? `H${x(step).toFixed(1)}V${y(values[index]).toFixed(1)}` : `L${point}`;
  }).join("");
}

/** Marks of one kind that would touch become one; kinds that would touch go to lanes above each other. */
function layMarks(facts, x) {
  const groups = [];
  for (const fact of facts.filter((each) => MARKS[each.type])) {
    const at = x(fact.step);
    const near = groups.find((group) => group.type === fact.type && Math.abs(group.at - at) < 20);
    if (near) near.facts.push(fact);
    else groups.push({ type: fact.type, at, facts: [fact] });
  }
  const ends = [];
  for (const group of groups.sort((a, b) => a.at - b.at)) {
    group.lane = ends.findIndex((end) => group.at - end >= 24);
    if (group.lane < 0) group.lane = ends.length;
    ends[group.lane] = group.at;
  }
  return { groups, lanes: ends.length };
}

function roundOf(step, rounds) {
  const before = rounds.filter((round) => round.step <= step);
  return before.length ? rounds.indexOf(before.at(-1)) + 1 : 1;
}

/** A line from a mark through every panel, broken where a panel has its title. */
function drawStem(group, y, panels) {
  const pieces = panels.map((panel, index) => [index ? panel.top : y + 9, index ? panel.top : panel.top - 32, panel.top, panel.top + panel.height]);
  return svg("path", { class: "stem", d: pieces.map(([from, to, top, bottom]) => `M${group.at} ${from}V${to}M${group.at} ${top}V${bottom}`).join("") });
}

function drawMark(group, y, panels, rounds) {
  const { kind, glyph, word } = MARKS[group.type];
  const { step } = group.facts[0];
  const lines = group.facts.slice(0, 6).map((fact) => el("p", {}, el("b", {}, `Step ${figure(fact.step)} `), describeMark(fact)));
  if (group.facts.length > 6) lines.push(el("p", {}, `and ${group.facts.length - 6} more`));
  const link = svg("a", { href: rounds.length ? `#round-${roundOf(step, rounds)}` : "#decisions", class: `mark ${kind}`, tabindex: 0,
    "aria-label": group.facts.map((fact) => `Step ${fact.step}: ${describeMark(fact)}`).join(". ") },
    kind === "refused" ? null : drawStem(group, y, panels),
    svg("circle", { cx: group.at, cy: y, r: 9 }),
    svg("path", { class: "glyph", d: glyph, transform: `translate(${group.at} ${y})` }),
    group.facts.length > 1 ? svg("text", { class: "count", x: group.at + 11, y: y - 5 }, String(group.facts.length)) : null);
  link.dataset.word = word;
  return explain(link, ...lines);
}

function drawPanel(panel, frame, x, number) {
  const { top, left, right, steps } = frame;
  const range = rangeOf(panel);
  const bottom = top + panel.height;
  const pass = range.log ? Math.log : (value) => value;
  const linear = scale(pass(range.low), pass(range.high), bottom, top);
  panel.y = (value) => linear(pass(Math.max(value, range.log ? range.low / 10 : -Infinity)));
  panel.top = top;
  const marks = range.log ? logTicks(range.low, range.high) : ticks(range.low, range.high, panel.height > 100 ? 5 : 3);
  const clip = `clip-${number}`;
  return svg("g", { class: "panel" },
    svg("clipPath", { id: clip }, svg("rect", { x: left, y: top, width: right - left, height: panel.height })),
    steps.map((step) => svg("line", { class: "grid", x1: x(step), x2: x(step), y1: top, y2: bottom })),
    marks.map((value) => [
      svg("line", { class: "grid", x1: left, x2: right, y1: panel.y(value), y2: panel.y(value) }),
      svg("text", { class: "tick", x: left - 8, y: panel.y(value) + 4, "text-anchor": "end" },
        panel.stairs && value ? compact(value) : panel.show(value).replace(".0 %", " %"))]),
    drawTitle(panel, frame, top - 14, range.log),
    svg("g", { "clip-path": `url(#${clip})` }, panel.series.map(({ kind, curve }) =>
      svg("path", { class: `line ${kind}`, d: linePath(curve, x, panel.y, panel.stairs) }))));
}

function drawTitle(panel, { left, right }, y, log) {
  const title = svg("text", { class: "title", x: left, y }, panel.title + (log ? " (logarithmic)" : ""));
  ruler.font = "600 13px Helvetica, Arial, sans-serif";
  let at = left + ruler.measureText(title.textContent).width * 1.1 + 16;
  const shown = panel.series.filter(({ kind }) => right - left > 260 || kind !== "raw");
  const keys = shown.map(({ kind, label }) => {
    const key = svg("g", { class: "key" },
      svg("line", { class: `line ${kind}`, x1: at, x2: at + 16, y1: y - 4, y2: y - 4 }),
      svg("text", { class: "tick", x: at + 21, y }, label));
    ruler.font = "12px Helvetica, Arial, sans-serif";
    at += 21 + ruler.measureText(label).width * 1.1 + 14;
    return key;
  });
  return svg("g", {}, title, panel.series.length > 1 ? keys : null);
}

function drawSteps(x, steps, y, right) {
  return steps.map((step, index) => {
    const last = index > 0 && index === steps.length - 1;
    return svg("text", { class: "tick", x: x(step), y: y + 18, "text-anchor": last && x(step) > right - 36 ? "end" : "middle" },
      figure(step) + (last ? " steps" : ""));
  });
}

function nearest([steps, values], step, stairs) {
  let low = 0;
  let high = steps.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (steps[middle] <= step) low = middle;
    else high = middle - 1;
  }
  const closer = !stairs && low + 1 < steps.length && steps[low + 1] - step < step - steps[low] ? low + 1 : low;
  return steps[0] > step && stairs ? null : values[closer];
}

function readAt(step, panels) {
  return panels.flatMap((panel) => panel.series.filter(({ kind }) => kind !== "raw").map(({ label, kind, curve }) => ({
    name: panel.series.length > 1 ? `${panel.title}, ${label}` : panel.title, kind, panel,
    value: nearest(curve, step, panel.stairs) })));
}

/** The cursor is a slider: pointer, touch and arrow keys move it, and a screen reader hears the values. */
function addCursor(root, panels, frame, x, last) {
  const line = svg("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" });
  const dots = svg("g");
  const area = svg("rect", { class: "area", x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top,
    tabindex: 0, role: "slider", "aria-label": "Step", "aria-valuemin": 0, "aria-valuemax": last, "aria-valuenow": 0 });
  const move = (to) => {
    const step = Math.round(Math.min(last, Math.max(0, to)));
    const values = readAt(step, panels).filter(({ value }) => value !== null);
    build(line, { x1: x(step), x2: x(step), visibility: "visible" }, []);
    dots.replaceChildren(...values.map(({ kind, panel, value }) => svg("circle", { class: `dot ${kind}`, cx: x(step), cy: panel.y(value), r: 3.5 })));
    build(area, { "aria-valuenow": step,
      "aria-valuetext": `step ${step}: ${values.map(({ name, panel, value }) => `${name} ${panel.show(value)}`).join("; ")}` }, []);
    const box = root.getBoundingClientRect();
    const ratio = box.width / root.viewBox.baseVal.width;
    showTip(box.left + x(step) * ratio, box.top + frame.top * ratio, el("p", {}, el("b", {}, `Step ${figure(step)}`)),
      ...values.map(({ name, panel, value }) => el("p", { class: "pair" }, el("span", {}, name), el("span", {}, panel.show(value)))));
  };
  const leave = () => { line.setAttribute("visibility", "hidden"); dots.replaceChildren(); hideTip(); };
  const stepAt = (event) => {
    const box = root.getBoundingClientRect();
    const at = (event.clientX - box.left) * (root.viewBox.baseVal.width / box.width);
    return ((at - frame.left) / (frame.right - frame.left)) * last;
  };
  area.addEventListener("pointermove", (event) => move(stepAt(event)));
  area.addEventListener("pointerleave", leave);
  area.addEventListener("blur", leave);
  area.addEventListener("focus", () => move(Number(area.getAttribute("aria-valuenow"))));
  area.addEventListener("keydown", (event) => {
    const jump = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 }[event.key];
    if (jump === undefined) return;
    event.preventDefault();
    move(Number(area.getAttribute("aria-valuenow")) + jump * last);
  });
  root.append(line, dots, area);
}

function drawCurves(host, data, room) {
  const panels = panelsOf(data);
  if (!panels.length) return host.replaceChildren(el("p", { class: "note" }, "No step has been measured yet."));
  const width = Math.max(300, room);
  const left = width < 420 ? 42 : 54;
  const right = width - 14;
  const last = Math.max(data.run.total_steps ?? 0, ...panels.flatMap(({ series }) => series.map(({ curve }) => curve[0].at(-1))), 1);
  const x = scale(0, last, left, right);
  const { groups, lanes } = layMarks(data.marks, x);
  let top = 14 + lanes * 24 + 30;
  const first = top;
  const tops = panels.map((panel) => { const here = top; top += panel.height + 46; return here; });
  const bottom = top - 46;
  const root = svg("svg", { viewBox: `0 0 ${width} ${bottom + 26}`, role: "group", "aria-label": `Curves over ${figure(last)} steps` });
  const steps = ticks(0, last, width < 560 ? 3 : 6);
  root.append(...drawSteps(x, steps, bottom, right),
    ...panels.map((panel, number) => drawPanel(panel, { top: tops[number], left, right, steps }, x, number)));
  addCursor(root, panels, { left, right, top: first, bottom }, x, last);
  root.append(...groups.map((group) => drawMark(group, 14 + (lanes - 1 - group.lane) * 24, panels, data.rounds)));
  host.replaceChildren(root, markLegend(groups), notFinite(data.num_not_finite));
  return undefined;
}

function markLegend(groups) {
  const shown = Object.keys(MARKS).filter((type) => groups.some((group) => group.type === type));
  return el("ul", { class: "legend" }, shown.map((type) => el("li", {},
    svg("svg", { viewBox: "-11 -11 22 22", class: `mark ${MARKS[type].kind}`, "aria-hidden": "true" },
      svg("circle", { r: 9 }), svg("path", { d: MARKS[type].glyph })), MARKS[type].word)));
}

function notFinite(count) {
  return count ? el("p", { class: "note" }, `${plural(count, "step")} had no finite training loss and ${count === 1 ? "is" : "are"} not drawn.`) : "";
}
