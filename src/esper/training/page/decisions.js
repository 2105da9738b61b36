// The decisions: a table at a glance, then each round with its shadow scores, paired tests and outcomes.

const OPEN_ROUNDS = 6;
const BARS_AT_ONCE = 8;

const isCut = (judged) => judged.kind.includes("cut");
const isPruning = (judged) => judged.kind.includes("prune");
const proposed = (judged) => {
  if (isCut(judged)) return el("span", {}, "cut of ", el("code", {}, cutSite(judged.candidate)));
  return isPruning(judged) ? el("span", {}, judged.candidate) : candidateCode(judged.candidate);
};
const candidateCode = (candidate) => {
  const { site, recipe } = parseCandidate(candidate);
  return el("span", { class: "candidate" }, recipe ? [el("code", {}, recipe), " at "] : "", el("code", {}, site));
};
const chip = (accepted, yes, no) => el("span", { class: `chip ${accepted ? "yes" : "no"}` }, accepted ? `✓ ${yes}` : `✕ ${no}`);

/** A gain that was to be looked at again, and was not refused at once for another reason. */
const isDoubted = (trial, round) => trial.unsettled
  && !round.outcomes.some((fact) => fact.type === "Refused" && fact.candidate === trial.candidate && fact.step === trial.step);

/** What became of a judged proposal: only the best of those that passed is taken. */
function verdictChip(trial, round) {
  if (isCut(trial)) return chip(trial.accepted, "cut", "not cut");
  if (isPruning(trial)) return chip(trial.accepted, "pruned", "needed");
  if (isDoubted(trial, round)) return el("span", { class: "chip" }, "looked at again");
  const taken = round.outcomes.some((fact) => fact.type === "Attached" && fact.candidate === trial.candidate);
  return chip(trial.accepted, taken ? "kept" : "passed, another was better", "refused");
}

/** Refusals that no paired test of the same round explains already. */
function unexplained(round) {
  const judged = new Set(round.trials.filter((trial) => !trial.accepted && !isDoubted(trial, round)).map((trial) => trial.candidate));
  return round.outcomes.filter((fact) => fact.type === "Refused" && !judged.has(fact.candidate));
}

function glanceRow(step, number, what, verdict, ...rest) {
  return { step, row: el("tr", {}, el("td", { class: "number" }, el("a", { href: `#round-${number}` }, figure(step))), el("td", {}, what), el("td", {}, verdict), rest) };
}

const because = (reason) => el("td", { class: "because", colspan: 2 }, reason);

function glance(rounds) {
  const rows = rounds.flatMap((round, index) => [
    ...round.trials.map((trial) => glanceRow(trial.step, index + 1,
      proposed(trial),
      verdictChip(trial, round), el("td", { class: "number gained" }, `${figure(trial.gain)} (≥ ${figure(trial.lower)})`), el("td", { class: "number paid" }, figure(trial.price)))),
    ...unexplained(round).map((fact) => glanceRow(fact.step, index + 1, candidateCode(fact.candidate), chip(false, "", "refused"), because(fact.reason))),
    ...round.outcomes.filter((fact) => fact.type === "RolledBack").map((fact) =>
      glanceRow(fact.step, index + 1, "the guard", chip(false, "", `back to step ${figure(fact.to_step)}`), because(fact.reason))),
  ]).sort((a, b) => a.step - b.step).map(({ row }) => row);
  if (!rows.length) return "";
  return el("div", { class: "scroll" }, el("table", { class: "glance" }, el("thead", {}, el("tr", {},
    ["Step", "What was proposed", "Verdict"].map((head) => el("th", { scope: "col" }, head)),
    el("th", { scope: "col", class: "number" }, term("Gain", "gain")), el("th", { scope: "col", class: "number" }, term("Price", "price")))),
    el("tbody", {}, rows)));
}

function scoreBar(score, best, chosen) {
  const bar = el("span", { class: "fill" });
  bar.style.width = `${best > 0 ? Math.max(0, (100 * (score.score ?? 0)) / best) : 0}%`;
  const detail = `gain ${figure(score.gain)} · R² ${figure(score.r2)} · ${compact(score.params)} parameters · ${compact(score.macs)} multiply-adds`;
  return el("li", { class: chosen ? "chosen" : "", tabindex: 0 }, candidateCode(score.candidate),
    el("span", { class: "track" }, bar), el("span", { class: "number" }, figure(score.score)),
    el("span", { class: "tag" }, chosen ? "to trial" : ""), el("small", {}, detail));
}

function scoreChart(scored) {
  const best = Math.max(...scored.scores.map((score) => score.score ?? 0), 0);
  const bars = scored.scores.map((score) => scoreBar(score, best, scored.chosen.includes(score.candidate)));
  const rest = bars.slice(BARS_AT_ONCE);
  return el("figure", { class: "scores" },
    el("figcaption", {}, term("Shadow scores", "score"), ` of ${plural(bars.length, "candidate")}, best first`,
      scored.scores.some((score) => !score.held_out) ? "; on batches not yet fitted" : ""),
    el("ol", { class: "bars" }, bars.slice(0, BARS_AT_ONCE)),
    rest.length ? el("details", { class: "more" }, el("summary", {}, `${rest.length} more`), el("ol", { class: "bars" }, rest)) : null);
}

function intervalRange(trials) {
  const values = trials.flatMap(({ gain, lower, price, detectable }) => [0, gain, lower, 2 * gain - lower, price, detectable])
    .filter((value) => Number.isFinite(value));
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || 1) * 0.07;
  return [low - room, high + room];
}

/** The gain with its interval on an axis of loss, against nothing (0) and against the price. */
function drawInterval(trial, [low, high], width) {
  const x = scale(low, high, 8, width - 8);
  const upper = trial.lower === null ? null : 2 * trial.gain - trial.lower;
  const kind = trial.accepted ? "yes" : "no";
  const flag = x(trial.price) > width - 60 ? "end" : "start";
  const words = `Gain ${figure(trial.gain)}, interval from ${figure(trial.lower)}${upper === null ? "" : ` to ${figure(upper)}`}, price ${figure(trial.price)}`;
  return svg("svg", { class: "interval", viewBox: `0 0 ${width} 84`, role: "img", "aria-label": words },
    ticks(low, high, width < 420 ? 3 : 6).map((value) => [
      svg("line", { class: "grid", x1: x(value), x2: x(value), y1: 20, y2: 62 }),
      svg("text", { class: "tick", x: x(value), y: 78, "text-anchor": "middle" }, figure(value))]),
    svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 20, y2: 62 }),
    svg("line", { class: "price", x1: x(trial.price), x2: x(trial.price), y1: 6, y2: 62 }),
    svg("text", { class: "tick price-word", x: x(trial.price) + (flag === "start" ? 5 : -5), y: 14, "text-anchor": flag }, "price"),
    upper === null ? null : svg("path", { class: `whisker ${kind}`, d: `M${x(trial.lower)} 36v12M${x(upper)} 36v12M${x(trial.lower)} 42H${x(upper)}` }),
    Number.isFinite(trial.detectable) ? svg("path", { class: "detectable", d: `M${x(trial.detectable)} 52l5 9h-10z` }) : null,
    Number.isFinite(trial.gain) ? svg("circle", { class: `point ${kind}`, cx: x(trial.gain), cy: 42, r: 6 }) : null);
}

function evidence(trial) {
  const share = trial.host_loss ? ` (${figure((100 * trial.gain) / trial.host_loss)} % of ${figure(trial.host_loss)})` : "";
  const pairs = [
    [term("gain", "gain"), figure(trial.gain) + share], ["at the least", figure(trial.lower)], [term("price", "price"), figure(trial.price)],
    ["examples", figure(trial.num_examples)], ["standard error", figure(trial.standard_error)],
    [term("α", "alpha"), figure(trial.alpha)], [el("span", {}, term("detectable", "detectable"), " ▲"), figure(trial.detectable)]];
  return el("dl", { class: "evidence" }, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function trialCard(trial, round, range, width) {
  const what = isCut(trial) ? ["Is the own path of ", el("code", {}, cutSite(trial.candidate)), " still needed?"] : proposed(trial);
  return el("figure", { class: "trial" },
    el("figcaption", {}, verdictChip(trial, round), el("span", { class: "what" }, what),
      el("span", { class: "when" }, `judged at step ${figure(trial.step)}`)),
    drawInterval(trial, range, width), evidence(trial), trial.reason ? el("p", { class: "reason" }, capital(trial.reason)) : "");
}

function outcome(fact) {
  const kind = MARKS[fact.type].kind;
  return el("li", {}, svg("svg", { viewBox: "-11 -11 22 22", class: `mark ${kind}`, "aria-hidden": "true" },
    svg("circle", { r: 9 }), svg("path", { d: MARKS[fact.type].glyph })),
    el("span", {}, el("b", {}, `Step ${figure(fact.step)} `), describeMark(fact)));
}

function roundSummary(round, number) {
  const grown = round.outcomes.filter((fact) => fact.type === "Attached").length;
  const cuts = round.outcomes.filter((fact) => fact.type === "Cut").length;
  const pruned = round.outcomes.filter((fact) => fact.type === "Pruned").length;
  const refused = round.trials.filter((trial) => !trial.accepted && !isDoubted(trial, round) && !isCut(trial) && !isPruning(trial)).length + unexplained(round).length;
  return el("summary", {}, el("h3", {}, round.scored ? `Round ${number}` : "Before the first round"),
    el("span", { class: "when" }, `from step ${figure(round.step)}`),
    grown ? chip(true, `${figure(grown)} grafted`) : "", cuts ? chip(true, `${figure(cuts)} cut`) : "",
    pruned ? chip(true, `${figure(pruned)} pruned`) : "", refused ? chip(false, "", `${figure(refused)} refused`) : "");
}

function roundCard(round, number, open, width) {
  const range = intervalRange(round.trials);
  const facts = [...round.outcomes.filter((fact) => fact.type !== "Refused"), ...unexplained(round)].sort((a, b) => a.step - b.step);
  return el("details", { class: "round", id: `round-${number}`, open: open ? "" : undefined }, roundSummary(round, number),
    round.scored?.scores.length ? scoreChart(round.scored) : "",
    round.trials.length ? el("p", { class: "sub" }, "Paired test on held-out examples: the point is the gain in loss, the bar its interval; the whole bar must lie right of the price.") : "",
    round.trials.map((trial) => trialCard(trial, round, range, width)),
    facts.length ? el("ul", { class: "outcomes" }, facts.map(outcome)) : "");
}

function drawDecisions(host, data, room) {
  const { rounds } = data;
  const opened = new Map([...host.querySelectorAll("details.round")].map((card) => [card.id, card.open]));
  const width = Math.max(260, Math.min(room - 44, 900));
  const last = data.marks.filter((fact) => ["Ended", "Folded"].includes(fact.type)).map((fact) => el("p", { class: "last" },
    fact.type === "Ended" ? describeMark(fact) + ` (step ${figure(fact.step)}).`
      : [`At the end ${plural(fact.num_grafts, "graft")} became plain PyTorch (`, term("fold"), `): ${figure(fact.total_params)} parameters.`]));
  if (!rounds.length) return host.replaceChildren(el("p", { class: "note" }, "No candidate has been scored yet."), ...last);
  return host.replaceChildren(glance(rounds), ...rounds.map((round, index) => {
    const notable = rounds.length <= OPEN_ROUNDS || round.trials.some((trial) => trial.accepted);
    return roundCard(round, index + 1, opened.get(`round-${index + 1}`) ?? notable, width);
  }), ...last);
}
