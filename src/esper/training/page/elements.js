// Elements, numbers and words. Text from the run is only ever set as text: nothing here parses HTML.

const NAMESPACE = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null) continue;
    node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const el = (name, attributes = {}, ...children) => build(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => build(document.createElementNS(NAMESPACE, name), attributes, children);

function term(word, id = word) {
  const known = document.getElementById(`term-${id}`);
  return known ? el("a", { class: "term", href: `#term-${id}` }, word) : word;
}

const superscript = (digits) => [...digits].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("");

/** Three figures: 9,400 · 0.0123 · 1.2 · 10⁻⁵; a dash where there is no finite number. */
function figure(number) {
  if (number === null || number === undefined) return "–";
  if (Number.isInteger(number)) return number.toLocaleString("en").replace("-", "−");
  const size = Math.abs(number);
  if (size > 0 && size < 0.0005) {
    const [digits, power] = number.toExponential(1).split("e");
    return `${digits.replace("-", "−")} · 10${superscript(power)}`;
  }
  return number.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 3 }).replace("-", "−");
}

/** 9,400, 12.3k, 1.2M: where space is short. */
function compact(number) {
  if (number === null || number === undefined || Math.abs(number) < 10_000) return figure(number);
  return new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(number).replace("K", "k");
}

function metricFigure(number, metric) {
  if (number === null || number === undefined) return "–";
  return metric.endsWith("accuracy") ? `${(100 * number).toFixed(1)} %` : figure(number);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plural = (count, one, many = `${one}s`) => `${figure(count)} ${count === 1 ? one : many}`;

/** Candidate `l1..l2 mlp(ratio=2)` as its site (entry and exit), and its recipe (name and options). */
function parseCandidate(candidate) {
  const gap = candidate.indexOf(" ");
  const site = gap < 0 ? candidate : candidate.slice(0, gap);
  const recipe = gap < 0 ? "" : candidate.slice(gap + 1);
  const bracket = recipe.indexOf("(");
  const after = site.endsWith("+");
  const [entry, exit = entry] = after ? [site.slice(0, -1)] : site.split("..");
  return {
    site, recipe, after, entry, exit,
    name: bracket < 0 ? recipe : recipe.slice(0, bracket),
    options: bracket < 0 ? "" : recipe.slice(bracket + 1, -1),
  };
}

const cutSite = (candidate) => candidate.replace(/^cut /, "");

/** `mlp(ratio=2) at l1`: as people say it. */
function spoken(candidate) {
  const { site, recipe } = parseCandidate(candidate);
  return recipe ? `${recipe} at ${site}` : site;
}

const ruler = document.createElement("canvas").getContext("2d");

const fits = (text, width, font) => { ruler.font = font; return ruler.measureText(text).width <= width; };

/** `text` without its beginning, as far as needed to be at most `width` pixels wide in `font`: names differ at their ends. */
function fit(text, width, font) {
  if (fits(text, width, font)) return text;
  for (let start = 1; start < text.length; start += 1) {
    if (fits(`…${text.slice(start)}`, width, font)) return `…${text.slice(start)}`;
  }
  return "…";
}

/** `text` without its end, likewise. */
function fitStart(text, width, font) {
  if (fits(text, width, font)) return text;
  for (let end = text.length - 1; end > 0; end -= 1) {
    if (fits(`${text.slice(0, end)}…`, width, font)) return `${text.slice(0, end)}…`;
  }
  return "…";
}

/** About `count` round numbers inside [low, high]. */
function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high * (1 + 1e-9); index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of high / low > 300 ? [1] : [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

const scale = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

// One tooltip for the whole page.

const tip = document.getElementById("tip");

function showTip(x, y, ...lines) {
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, x - box.width / 2), document.documentElement.clientWidth - box.width - 8);
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${(y - box.height - 12 < 4 ? y + 20 : y - box.height - 12) + window.scrollY}px`;
}

function hideTip() {
  tip.hidden = true;
}

function explain(node, ...lines) {
  const show = () => {
    const box = node.getBoundingClientRect();
    showTip(box.left + box.width / 2, box.top, ...lines.map((line) => line.cloneNode(true)));
  };
  node.addEventListener("pointerenter", show);
  node.addEventListener("focus", show);
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("blur", hideTip);
  return node;
}
