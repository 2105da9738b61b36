// The signals of the sites: a heat table of the last window, each cell with the way it came.

const SIGNALS = ["health", "novelty_gain", "effective_rank", "dead_ratio", "correlation", "variance", "gradient_norm"];
const RATIOS = new Set(["health", "effective_rank", "dead_ratio", "correlation"]);

function trace(values) {
  const finite = values.filter((value) => value !== null);
  if (finite.length < 2) return "";
  const x = scale(0, values.length - 1, 1, 59);
  const y = scale(Math.min(...finite), Math.max(...finite), 13, 2);
  const points = values.map((value, index) => (value === null ? "" : `${x(index).toFixed(1)},${y(value).toFixed(1)}`));
  return svg("svg", { class: "trace", viewBox: "0 0 60 15", "aria-hidden": "true" }, svg("polyline", { points: points.join(" ") }));
}

function heat(value, name, all) {
  if (value === null || value === undefined) return 0;
  if (RATIOS.has(name)) return Math.min(1, Math.max(0, value));
  const high = Math.max(...all.filter((each) => each !== null && each !== undefined), 0);
  return high > 0 ? Math.max(0, value) / high : 0;
}

function drawSignals(host, data) {
  const windows = data.sensed;
  if (!windows.length) return host.replaceChildren(el("p", { class: "note" }, "No window has been sensed yet."));
  const last = windows.at(-1);
  const cell = (signal, name) => {
    const history = windows.map((window) => window.signals.find((each) => each.site === signal.site)?.[name] ?? null);
    const share = heat(signal[name], name, last.signals.map((each) => each[name]));
    const box = el("td", { class: "number" }, figure(signal[name]), trace(history));
    box.style.setProperty("--heat", `${(38 * share).toFixed(0)}%`);
    return box;
  };
  const word = (name) => document.querySelector(`#term-${name} dt`).textContent;
  return host.replaceChildren(el("div", { class: "scroll" }, el("table", { class: "heat" },
    el("caption", {}, `Window that ended at step ${figure(last.step)}; small lines: ${plural(windows.length, "window")} from step ${figure(windows[0].step)}`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Site"), SIGNALS.map((name) => el("th", { scope: "col", class: "number" }, term(word(name), name))))),
    el("tbody", {}, last.signals.map((signal) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, signal.site)), SIGNALS.map((name) => cell(signal, name))))))));
}
