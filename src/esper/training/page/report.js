// Puts the page together from the data that it carries.

const PRINTED_WIDTH = 680; // CSS pixels between the margins of A4 and Letter

function drawComparison(host, data) {
  const { result } = data.run;
  const own = data.called;
  const higher = data.run.direction === "higher";
  const known = Object.entries(result?.baselines ?? {});
  if (!known.length) return;
  const all = [[own, result.test], ...known].sort(([, a], [, b]) => (higher ? b - a : a - b));
  const most = Math.max(...all.map(([, score]) => Math.abs(score)), 1e-12);
  host.append(el("figure", { class: "compare" },
    el("figcaption", {}, `Test ${result.metric} on the same split, ${higher ? "higher" : "lower"} is better`),
    el("ol", { class: "bars" }, all.map(([name, score]) => {
      const bar = el("span", { class: "fill" });
      bar.style.width = `${Math.max(0, (100 * score) / most)}%`;
      return el("li", { class: name === own ? "chosen" : "" }, el("span", {}, name), el("span", { class: "track" }, bar),
        el("span", { class: "number" }, metricFigure(score, result.metric)));
    })), el("p", { class: "note" }, "The other models were fitted to the training and the held-out rows together.")));
}

function valueText(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function drawMade(host, { run }) {
  const plain = { Task: run.task, Run: run.id, Status: run.status, Started: run.created, Seed: run.seed, Steps: run.total_steps, "Data hash": run.data_hash };
  const groups = [["Run", plain], ["Settings", run.settings], ["Versions", run.versions]];
  host.replaceChildren(...groups.map(([title, facts]) => {
    const known = Object.entries(facts ?? {}).filter(([, value]) => value !== null);
    return known.length ? el("div", { class: "made" }, el("h3", {}, title),
      el("dl", {}, known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, valueText(value)))))) : "";
  }).filter(Boolean));
}

function explainTerms() {
  for (const link of document.querySelectorAll("a.term:not([data-explained])")) {
    link.dataset.explained = "";
    link.setAttribute("aria-describedby", link.hash.slice(1));
    explain(link, el("p", {}, document.querySelector(`${link.hash} dd`).textContent));
  }
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

function startTheme() {
  const button = document.getElementById("theme");
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = [["curves", drawCurves], ["network", drawNetwork], ["rounds", drawDecisions]];
  const draw = (room) => {
    for (const [id, paint] of figures) paint(document.getElementById(id), data, room);
    explainTerms();
  };
  const drawToFit = () => draw(document.querySelector("main").clientWidth);
  drawComparison(document.getElementById("compare"), data);
  drawSignals(document.getElementById("signals"), data);
  drawMade(document.getElementById("made"), data);
  drawToFit();
  startTheme();
  openTarget();
  addEventListener("resize", drawToFit);
  addEventListener("hashchange", openTarget);
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  addEventListener("beforeprint", () => {
    draw(PRINTED_WIDTH);
    document.querySelectorAll("details.round").forEach((card) => { card.open = true; });
  });
  addEventListener("afterprint", drawToFit);
}

start();
