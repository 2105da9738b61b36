// The network before and after: layers from top to bottom, grafts beside the trunk, cut paths dashed.

const ROW = { weighted: 34, plain: 12, gap: 26, head: 42 };
const MANY_ROWS = 36;
const MONO = "12px Menlo, Consolas, monospace";
const SANS = "11px Helvetica, Arial, sans-serif";

const typeName = (type) => type.split(".").at(-1);

function shapeText(shape) {
  if (Array.isArray(shape)) return shape.join(" × ");
  return shape ?? "";
}

/** Features or channels that leave a layer; null when its shape is not known. */
function widthOf(row) {
  const sizes = Array.isArray(row.shape_out) ? row.shape_out : String(row.shape_out ?? "").match(/\d+/g)?.map(Number) ?? [];
  if (!sizes.length) return null;
  const channelsFirst = sizes.length === 3 || (sizes.length === 2 && /conv|pool|batchnorm|groupnorm/i.test(row.type));
  return channelsFirst ? sizes[0] : sizes.at(-1);
}

const pathOf = (row) => row.path || row.name;
const within = (row, path) => pathOf(row) === path || pathOf(row).startsWith(`${path}.`);

/** Grafts with the layers inside them: those of the record, and any other that the network itself shows. */
function graftsOf(rows, attached) {
  const known = new Map(attached.map((fact) => [fact.path, fact]));
  for (const row of rows.filter((each) => each.graft && !attached.some((fact) => within(each, fact.path)))) {
    const [path] = pathOf(row).match(/^.*?\.grafts\.\d+/) ?? [pathOf(row)];
    if (!known.has(path)) known.set(path, { path, candidate: `${path.split(".grafts.")[0]} ${typeName(row.type)}` });
  }
  return [...known.values()].map((fact) => {
    const parts = rows.filter((row) => row.graft && within(row, fact.path));
    const params = parts.reduce((sum, part) => sum + (part.params ?? 0), 0) || fact.params;
    return { ...parseCandidate(fact.candidate), path: fact.path, params, parts };
  }).filter((graft) => graft.parts.length);
}

/** The row called `name`, or the last row inside it; -1 when there is none. */
function findRow(trunk, name) {
  const exact = trunk.findIndex((row) => row.name === name);
  return exact >= 0 ? exact : trunk.findLastIndex((row) => row.name.startsWith(`${name}.`));
}

/** Rows of the trunk in order. Ends of grafts and cuts that are no layers any more stand where they were, as gone. */
function trunkOf(rows, before, ends) {
  const trunk = rows.filter((row) => !row.graft).map((row) => ({ ...row }));
  before.forEach((old, index) => {
    if (!ends.has(old.name) || findRow(trunk, old.name) >= 0) return;
    const previous = before.slice(0, index).findLast((row) => findRow(trunk, row.name) >= 0);
    trunk.splice(previous ? findRow(trunk, previous.name) + 1 : 0, 0, { ...old, gone: true });
  });
  return trunk;
}

/** Marks what was cut or is gone, and what became another layer than it was before. */
function markTrunk(trunk, before, cuts) {
  for (const { entry, exit } of cuts) {
    const to = findRow(trunk, exit);
    for (let index = Math.max(0, findRow(trunk, entry)); index <= to; index += 1) trunk[index].cut = true;
  }
  for (const row of trunk) {
    row.note = row.cut ? "own path cut" : "no longer needed";
    row.cut ||= row.gone;
    const old = before.find((each) => each.name === row.name);
    row.changed = before.length > 0 && row.params > 0 && old?.params !== row.params;
  }
  return trunk;
}

/** A deep network is drawn in short: stretches of layers where nothing happened become one row. */
function shorten(trunk, touched) {
  if (trunk.length <= MANY_ROWS) return trunk;
  const found = [];
  let quiet = [];
  const flush = () => {
    if (quiet.length < 4) found.push(...quiet);
    else found.push(quiet[0], { name: `+ ${quiet.length - 2} layers`, type: "", folded: true, shape_out: quiet.at(-2).shape_out,
      params: quiet.slice(1, -1).reduce((sum, row) => sum + (row.params ?? 0), 0) }, quiet.at(-1));
    quiet = [];
  };
  for (const row of trunk) {
    if (touched.has(row.name) || row.cut || row.changed) { flush(); found.push(row); }
    else quiet.push(row);
  }
  flush();
  return found;
}

function growthOf(data) {
  const before = data.run.network_before ?? [];
  const attached = data.standing.filter((fact) => fact.type === "Attached");
  const cuts = data.standing.filter((fact) => fact.type === "Cut").map((fact) => parseCandidate(fact.site));
  const soFar = attached.map((fact) => ({ name: fact.path, type: "", params: fact.params, graft: true, path: fact.path }));
  const rows = data.run.network_after ?? (attached.length ? [...before, ...soFar] : []);
  const grafts = graftsOf(rows, attached);
  const ends = new Set([...grafts, ...cuts].flatMap(({ entry, exit }) => [entry, exit]));
  const after = markTrunk(trunkOf(rows, before, ends), before, cuts);
  return { before: shorten(before, ends), after: shorten(after, ends), grafts };
}

/** Where each row stands, with room beside it for its grafts, and where its own box is within. */
function heights(trunk, grafts) {
  let y = ROW.head;
  return trunk.map((row, index) => {
    const own = row.params || row.folded || row.cut ? ROW.weighted : ROW.plain;
    const here = grafts.filter((graft) => graft.row === index);
    const height = Math.max(own, here.length * 74 - 12);
    const top = y;
    y += height + ROW.gap + (here.some((graft) => graft.after) ? 28 : 0);
    return { top, bottom: top + height, boxTop: top + (height - own) / 2, own };
  });
}

function frameOf(width, hasGrafts) {
  const label = Math.min(190, Math.max(104, width * 0.32));
  const graft = hasGrafts ? Math.min(210, Math.max(108, width * 0.33)) : 0;
  return { width, label, graft, trunk: Math.min(260, width - label - graft - (hasGrafts ? 34 : 10)) };
}

/** What fits under a name: type, output and parameters, else fewer of them. */
function layerNote(row, room) {
  if (row.cut) return fitStart(row.note, room, SANS);
  const size = row.params ? compact(row.params) : "";
  const choices = row.folded ? [[`${size} parameters`], [size]]
    : [[typeName(row.type), shapeText(row.shape_out), size], [typeName(row.type), size], [fitStart(typeName(row.type), room, SANS)]];
  const texts = choices.map((parts) => parts.filter(Boolean).join(" · "));
  return texts.find((text) => fits(text, room, SANS)) ?? texts.at(-1);
}

function drawLabel(row, place, frame) {
  const middle = (place.top + place.bottom) / 2;
  const small = !row.params && !row.folded;
  const room = frame.label - 14;
  const full = `${row.name}: ${[row.type, shapeText(row.shape_out), `${figure(row.params ?? 0)} parameters`].filter(Boolean).join(", ")}`;
  const [x, anchor] = [frame.label - 12, "end"];
  return svg("g", { class: small ? "small" : "" }, svg("title", {}, full),
    svg("text", { class: "layer-name", x, y: small ? middle + 4 : middle - 3, "text-anchor": anchor }, fit(row.name, room, MONO)),
    small ? null : svg("text", { class: row.cut ? "layer-note cut" : "layer-note", x, y: middle + 12, "text-anchor": anchor }, layerNote(row, room)));
}

function drawTrunk(trunk, places, frame, half, share) {
  const centre = frame.label + frame.trunk / 2;
  const parts = trunk.map((row, index) => {
    const { top, bottom, boxTop, own } = places[index];
    const above = index ? { half: half[index - 1], y: places[index - 1].bottom } : { half: Math.min(half[0], 14), y: top - ROW.gap + 8 };
    const ribbon = svg("polygon", { class: row.cut ? "ribbon cut" : "ribbon", points:
      `${centre - above.half},${above.y} ${centre + above.half},${above.y} ${centre + half[index]},${top} ${centre + half[index]},${bottom} ${centre - half[index]},${bottom} ${centre - half[index]},${top}` });
    const kind = ["layer", row.cut && "cut", row.changed && !row.cut && "changed", row.folded && "folded", !row.params && "plain"].filter(Boolean).join(" ");
    const box = svg("rect", { class: kind, x: centre - half[index], y: boxTop, width: 2 * half[index], height: own, rx: 4,
      "fill-opacity": row.params ? (0.16 + 0.74 * Math.sqrt(share(row))).toFixed(2) : undefined });
    return [ribbon, [box, drawLabel(row, places[index], frame)]];
  });
  const end = places.at(-1).bottom;
  return svg("g", {},
    svg("text", { class: "layer-note", x: centre, y: 11, "text-anchor": "middle" }, "input"),
    parts.map(([ribbon]) => ribbon), parts.map(([, box]) => box),
    svg("path", { class: "wire", d: `M${centre} ${end}V${end + 14}` }),
    svg("text", { class: "layer-note", x: centre, y: end + 28, "text-anchor": "middle" }, "output"));
}

function graftText(graft, inner) {
  const size = graft.params ? `${compact(graft.params)} parameters` : "";
  const bold = `600 ${MONO}`;
  return [[graft.name || typeName(graft.recipe) || graft.path, "graft-name", bold], [graft.options, "layer-note", SANS], [size, "layer-note", SANS]]
    .filter(([text]) => text).map(([text, kind, font]) => [fitStart(text, inner, font), kind]);
}

/** A graft box with its wire out of the trunk above its entry, and back into it below its exit. */
function drawGraft(graft, number, places, frame) {
  const centre = frame.label + frame.trunk / 2;
  const left = frame.label + frame.trunk + 26;
  const middle = left + frame.graft / 2;
  const out = graft.after ? places[graft.row].bottom + 22 : places[graft.from].top - 8;
  const back = places[graft.row].bottom + (graft.after ? 38 : 13);
  const top = (places[graft.row].top + places[graft.row].bottom) / 2 - 31 + (graft.slot - (graft.siblings - 1) / 2) * 74;
  const words = graftText(graft, frame.graft - 16);
  const side = left - 12 + 4 * (number % 3);
  const into = `M${centre} ${out}H${side - 8}Q${side} ${out} ${side} ${out + (top + 18 > out ? 8 : -8)}V${top + 10}Q${side} ${top + 18} ${left} ${top + 18}`;
  const home = `M${left} ${top + 44}Q${side} ${top + 44} ${side} ${top + 52}V${Math.max(back - 8, top + 52)}Q${side} ${back} ${side - 8} ${back}H${centre + 6}`;
  const inner = graft.parts.map((part) => [typeName(part.type), shapeText(part.shape_out)].filter(Boolean).join(" ")).filter(Boolean).join(" → ");
  const title = svg("title", {}, `${graft.recipe} at ${graft.site}, ${figure(graft.params)} parameters (${graft.path})${inner ? `: ${inner}` : ""}`);
  return svg("g", { class: "graft" }, title,
    svg("path", { class: "wire", d: into }), svg("path", { class: "wire", d: home }),
    svg("circle", { class: "tap", cx: centre, cy: out, r: 3 }),
    svg("circle", { class: "join", cx: centre, cy: back, r: 6.5 }),
    svg("path", { class: "wire", d: `M${centre - 3.5} ${back}h7M${centre} ${back - 3.5}v7` }),
    svg("rect", { class: "box", x: left, y: top, width: frame.graft, height: 62, rx: 8 }),
    words.map(([text, kind], line) => svg("text", { class: kind, x: middle, y: top + 35 + (line - (words.length - 1) / 2) * 17, "text-anchor": "middle" }, text)));
}

function placeGrafts(grafts, trunk) {
  const placed = grafts.map((graft) => ({ ...graft, from: Math.max(0, findRow(trunk, graft.entry)),
    row: findRow(trunk, graft.exit) < 0 ? trunk.length - 1 : findRow(trunk, graft.exit) }));
  for (const graft of placed) {
    const same = placed.filter((other) => other.row === graft.row);
    graft.slot = same.indexOf(graft);
    graft.siblings = same.length;
  }
  return placed;
}

function drawTower(trunk, grafts, width, sizes) {
  const frame = frameOf(width, grafts.length > 0);
  const placed = placeGrafts(grafts, trunk);
  const places = heights(trunk, placed);
  const room = Math.min(frame.trunk, sizes.trunk) / 2;
  let last = 0.3;
  const half = trunk.map((row) => {
    const outputs = widthOf(row);
    last = outputs === null ? last : Math.sqrt(outputs / sizes.widest);
    return Math.max(5, room * last);
  });
  const share = (row) => row.params / sizes.heaviest;
  const words = [...trunk.map((row) => row.name + (row.cut ? " (cut)" : "")), ...grafts.map((graft) => `graft ${graft.recipe} at ${graft.site}`)];
  return svg("svg", { viewBox: `0 0 ${width} ${places.at(-1).bottom + 36}`, width, role: "img", "aria-label": `Layers: ${words.join(", ")}` },
    drawTrunk(trunk, places, frame, half, share), placed.map((graft, number) => drawGraft(graft, number, places, frame)));
}

function tower(title, count, drawing) {
  return el("figure", { class: "tower" }, el("figcaption", {}, el("b", {}, title), count ? ` ${figure(count)} parameters` : ""), drawing);
}

function drawNetwork(host, data, room) {
  const { before, after, grafts } = growthOf(data);
  if (!before.length && !after.length) return host.replaceChildren(el("p", { class: "note" }, "The network has not been written down yet."));
  const whole = Math.max(290, room);
  const beside = whole >= 820 && before.length && after.length;
  const wide = beside ? Math.round((whole - 40) * 0.6) : Math.min(whole, 620);
  const narrow = beside ? whole - 40 - wide : wide;
  const rows = [...before, ...after];
  const sizes = {
    trunk: Math.min(frameOf(wide, grafts.length > 0).trunk, frameOf(narrow, false).trunk),
    widest: Math.max(...rows.map((row) => widthOf(row) ?? 0), 1),
    heaviest: Math.max(...rows.map((row) => row.params ?? 0), 1),
  };
  const result = data.run.result ?? {};
  const start = result.params_start ?? before.reduce((sum, row) => sum + (row.params ?? 0), 0);
  return host.replaceChildren(el("div", { class: "towers" },
    before.length ? tower("Before", start, drawTower(before, [], narrow, sizes)) : null,
    after.length ? tower(data.run.network_after ? "After" : "So far", result.params_end, drawTower(after, grafts, wide, sizes)) : null),
    layerTable(data));
}

function layerTable(data) {
  const rows = data.run.network_after ?? data.run.network_before ?? [];
  return el("details", { class: "more" }, el("summary", {}, "All layers as a table"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ["Layer", "Type", "Output", "Parameters"].map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", { class: row.graft ? "grafted" : "" }, el("td", {}, el("code", {}, row.graft && row.path ? row.path : row.name)),
      el("td", {}, typeName(row.type)), el("td", { class: "number" }, shapeText(row.shape_out)), el("td", { class: "number" }, figure(row.params))))))));
}
