"use strict";
const {items, pictures} = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#3b82d6", "#e4572e", "#2a9d5c", "#b8860b", "#8e5bd0", "#1ba7b8", "#d6478f", "#7a8490", "#9acd32", "#a0522d"];
const SHAPES = ["circle", "rectRot", "triangle", "rect", "star"];

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties))
    if (key in made && key !== "style") made[key] = value; else made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* ---- tables: a click on a heading sorts, another one turns round ---- */

function sort(table, place, direction) {
  const isNumber = table.tHead.rows[0].cells[place].classList.contains("number");
  const value = row => row.cells[place].dataset.value;
  const compare = isNumber
    ? (a, b) => (value(a) - value(b)) * direction
    : (a, b) => value(a).localeCompare(value(b), "en", {numeric: true}) * direction;
  const rows = [...table.tBodies[0].rows];
  const empty = rows.filter(row => value(row) === "");  // last, whichever way
  table.tBodies[0].append(...rows.filter(row => value(row) !== "").sort(compare), ...empty);
}
for (const table of document.querySelectorAll("table"))
  [...table.tHead.rows[0].cells].forEach((cell, place, cells) =>
    cell.querySelector("button").addEventListener("click", () => {
      const isAscending = cell.getAttribute("aria-sort") !== "ascending";
      cells.forEach(other => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      sort(table, place, isAscending ? 1 : -1);
    }));

/* ---- charts ---- */

const charts = new Map();  // canvas -> a function that says what is drawn there
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(canvas, described) {
  charts.set(canvas, described);
  Chart.getChart(canvas)?.destroy();
  Chart.defaults.color = style("--quiet");
  Chart.defaults.borderColor = style("--line");
  Chart.defaults.font.family = "system-ui, -apple-system, 'Segoe UI', sans-serif";
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  return new Chart(canvas, described());
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((described, canvas) => draw(canvas, described)));

const axis = (text, more = {}) => ({title: {display: Boolean(text), text}, ...more});
const compact = value => Number(value.toPrecision(2)).toString();
/** Of a logarithmic axis only 1, 2 and 5 are named: others would lie over one another. */
const seldom = value => /^[125]/.test(value.toExponential()) ? compact(value) : "";

/** Names beside points, left out where they would lie over one another. */
const names = {
  id: "names",
  afterDatasetsDraw(chart) {
    const taken = [], {ctx, chartArea} = chart;
    ctx.save();
    ctx.font = "12px system-ui, sans-serif";
    ctx.fillStyle = style("--ink");
    chart.data.datasets.forEach((set, index) => {
      if (!chart.isDatasetVisible(index)) return;
      const point = chart.getDatasetMeta(index).data[0], width = ctx.measureText(set.label).width;
      const isRight = point.x + 10 + width < chartArea.right;
      const x = isRight ? point.x + 9 : point.x - 9 - width, y = point.y + 4;
      if (x < chartArea.left || taken.some(([a, b, w]) => Math.abs(b - y) < 13 && x < a + w + 6 && a < x + width + 6)) return;
      taken.push([x, y, width]);
      ctx.fillText(set.label, x, y);
    });
    ctx.restore();
  },
};
function scatter(item) {
  const groups = [...new Set(item.points.map(point => point.group))];
  return () => ({
    type: "scatter",
    plugins: [names],
    data: {datasets: item.points.map((point, index) => ({
      label: point.label, data: [{x: point.x, y: point.y}], pointRadius: 6, pointHoverRadius: 8,
      pointStyle: SHAPES[groups.indexOf(point.group) % SHAPES.length],
      backgroundColor: COLOURS[index % COLOURS.length], borderColor: COLOURS[index % COLOURS.length], borderWidth: 2,
    }))},
    options: {
      layout: {padding: {right: 12}},
      scales: {
        x: axis(item.x_label, {
          type: item.is_x_logarithmic ? "logarithmic" : "linear",
          ticks: {maxRotation: 0, autoSkipPadding: 12, callback: item.is_x_logarithmic ? seldom : compact}, grace: "5%",
        }),
        y: axis(item.y_label, {grace: "8%"}),
      },
      plugins: {
        legend: {position: "bottom", labels: {usePointStyle: true, boxHeight: 7}},
        tooltip: {callbacks: {label: at => `${at.dataset.label}: ${compact(at.parsed.x)}, ${at.parsed.y.toFixed(2)}`}},
      },
    },
  });
}
const bars = item => () => ({
  type: "bar",
  data: {labels: item.names, datasets: item.parts.map((part, index) => ({
    label: part.label, data: part.values, backgroundColor: COLOURS[index % COLOURS.length], maxBarThickness: 34,
  }))},
  options: {
    indexAxis: "y",
    scales: {x: axis(item.value_label, {stacked: true, max: item.most ?? undefined}), y: {stacked: true, ticks: {autoSkip: false}}},
    plugins: {legend: {position: "bottom", labels: {boxWidth: 14}}},
    interaction: {mode: "index", axis: "y"},
  },
});
const lines = item => () => ({
  type: "line",
  data: {labels: item.x, datasets: item.lines.map((line, index) => ({
    label: line.label, data: line.values, borderColor: COLOURS[index % COLOURS.length], spanGaps: true,
    backgroundColor: COLOURS[index % COLOURS.length], borderWidth: 2, pointRadius: item.x.length > 40 ? 0 : 3,
  }))},
  options: {
    interaction: {mode: "index", intersect: false},
    scales: {x: axis(item.x_label), y: axis(item.y_label, {grace: "5%"})},
    plugins: {legend: {position: "bottom", labels: {boxWidth: 14}}},
  },
});
const DESCRIBED = {Scatter: scatter, Bars: bars, Lines: lines};

function chart(place, item) {
  const canvas = element("canvas", {role: "img", "aria-label": item.title});
  const box = element("div", {className: "chart"}, canvas);
  if (item.kind === "Bars") box.style.height = `${110 + 34 * item.names.length}px`;
  place.querySelector("h3, .note")?.after(box);
  if (!box.isConnected) place.append(box);
  draw(canvas, DESCRIBED[item.kind](item));
}

/* ---- the player ---- */

const decoded = new Map();  // number of a picture -> promise of it
const inColour = new Map();  // the same of maps of errors

function picture(number) {
  if (!decoded.has(number)) {
    const image = new Image();
    image.src = pictures[number];
    decoded.set(number, image.decode().then(() => image));
  }
  return decoded.get(number);
}
/** Black, violet, orange, pale yellow: equal steps of error look like equal steps. */
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
function heatColour(value) {
  const at = value * (HEAT.length - 1), low = Math.min(HEAT.length - 2, Math.floor(at));
  return HEAT[low].map((from, channel) => from + (at - low) * (HEAT[low + 1][channel] - from));
}
function heat(number) {
  if (!inColour.has(number)) inColour.set(number, picture(number).then(image => {
    const canvas = element("canvas", {width: image.width, height: image.height});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const grey = context.getImageData(0, 0, image.width, image.height), data = grey.data;
    for (let at = 0; at < data.length; at += 4) [data[at], data[at + 1], data[at + 2]] = heatColour(data[at] / 255);
    context.putImageData(grey, 0, 0);
    return canvas;
  }));
  return inColour.get(number);
}

class Player {
  constructor(place, item, wanted) {
    this.item = item;
    this.keys = Object.keys(item.scenes[0].keys);
    this.state = {scene: 0, left: "", right: "", wipe: 50, frame: 0, heat: false, loupe: false, x: .5, y: .5};
    this.build(place);
    this.show(wanted.scene ?? 0, wanted);
  }
  get scene() { return this.item.scenes[this.state.scene]; }
  view(name) { return this.scene.views.find(view => view.name === name); }
  get truth() { return this.scene.views.find(view => view.name === "truth"); }

  build(place) {
    this.choices = element("div", {className: "choices"});
    this.selects = {};
    const add = (key, label, changed) => {
      const select = element("select");
      select.addEventListener("change", () => changed(select.value));
      this.selects[key] = select;
      this.choices.append(element("label", {}, label, select));
    };
    for (const key of this.keys) add(key, key, () => this.choose(key));
    add("left", "left", name => this.set({left: name}));
    add("right", "right", name => this.set({right: name}));
    this.canvas = element("canvas");
    this.tags = {left: element("span", {className: "tag left"}), right: element("span", {className: "tag right"})};
    this.box = element("div", {className: "view", tabIndex: 0, role: "slider", "aria-label": "wipe between left and right", "aria-valuemin": 0, "aria-valuemax": 100},
      this.canvas, this.tags.left, this.tags.right);
    this.play = element("button", {className: "plain", type: "button", textContent: "play"});
    this.slider = element("input", {type: "range", min: 0, value: 0, "aria-label": "frame"});
    this.count = element("output");
    this.heatBox = element("input", {type: "checkbox"});
    this.loupeBox = element("input", {type: "checkbox"});
    this.heatLabel = element("label", {}, this.heatBox, "errors");
    this.transport = element("div", {className: "transport"}, this.play, this.slider, this.count, this.heatLabel, element("label", {}, this.loupeBox, "loupe"));
    this.scale = element("div", {className: "scale"});
    this.loupe = element("div", {className: "loupe"});
    this.facts = element("div", {className: "scroll"});
    this.sceneNote = element("p", {className: "note"});
    this.curves = element("div", {className: "chart"});
    this.help = element("p", {className: "note"});
    this.help.innerHTML = "Drag, or <kbd>←</kbd> <kbd>→</kbd> to wipe, <kbd>space</kbd> plays, <kbd>,</kbd> <kbd>.</kbd> one frame, <kbd>x</kbd> swaps, <kbd>e</kbd> errors, <kbd>l</kbd> loupe.";
    place.append(this.choices, this.box, this.transport, this.scale, this.loupe, this.facts, this.sceneNote, this.help, this.curves);
    this.listen();
  }
  listen() {
    const move = event => {
      const box = this.box.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      if (event.buttons || event.type === "pointerdown") this.set({wipe: Math.min(100, Math.max(0, 100 * x)), x, y});
      else if (this.state.loupe) this.set({x, y});
    };
    this.box.addEventListener("pointerdown", event => { this.box.setPointerCapture(event.pointerId); move(event); });
    this.box.addEventListener("pointermove", move);
    this.box.addEventListener("keydown", event => this.key(event));
    this.slider.addEventListener("input", () => { this.pause(); this.set({frame: Number(this.slider.value)}); });
    this.play.addEventListener("click", () => this.toggle());
    this.heatBox.addEventListener("change", () => this.set({heat: this.heatBox.checked}));
    this.loupeBox.addEventListener("change", () => this.set({loupe: this.loupeBox.checked}));
  }
  key(event) {
    const step = event.shiftKey ? 10 : 2, {wipe, heat, loupe, left, right} = this.state;
    const turn = by => { this.pause(); this.set({frame: (this.state.frame + by + this.frames) % this.frames}); };
    const keys = {
      ArrowLeft: () => this.set({wipe: Math.max(0, wipe - step)}), ArrowRight: () => this.set({wipe: Math.min(100, wipe + step)}),
      Home: () => this.set({wipe: 0}), End: () => this.set({wipe: 100}), " ": () => this.toggle(),
      ",": () => turn(-1), ".": () => turn(1), x: () => this.set({left: right, right: left}),
      e: () => this.hasHeat && this.set({heat: !heat}), l: () => this.set({loupe: !loupe}),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  }
  toggle() { this.timer ? this.pause() : this.start(); }
  start() {
    this.play.textContent = "pause";
    this.timer = setInterval(() => this.set({frame: (this.state.frame + 1) % this.frames}), 1000 / this.scene.frames_per_second);
  }
  pause() { clearInterval(this.timer); this.timer = null; this.play.textContent = "play"; }

  /** The scene with the chosen value of `changed`, as like the others as there is one. */
  choose(changed) {
    const chosen = key => this.selects[key].value;
    const fit = scene => this.keys.filter(key => scene.keys[key] === chosen(key)).length + (scene.keys[changed] === chosen(changed) ? this.keys.length : 0);
    const fits = this.item.scenes.map(fit);
    this.show(fits.indexOf(Math.max(...fits)), {});
  }
  show(index, wanted) {
    this.pause();
    const before = this.state;
    this.state = {...before, scene: index};
    const {scene} = this, has = name => name && this.view(name);
    this.frames = Math.max(...scene.views.map(view => view.strip.frames));
    this.hasHeat = scene.views.some(view => view.heat);
    for (const key of this.keys)
      this.fill(this.selects[key], [...new Set(this.item.scenes.map(each => each.keys[key]))], scene.keys[key]);
    for (const side of ["left", "right"]) this.fill(this.selects[side], scene.views.map(view => view.name));
    this.canvas.width = scene.width; this.canvas.height = scene.height;
    this.box.style.maxWidth = `${Math.max(640, Math.min(3 * scene.width, 1140))}px`;
    this.slider.max = this.frames - 1;
    this.heatLabel.hidden = !this.hasHeat;
    this.sceneNote.textContent = scene.note;
    this.sceneNote.hidden = !scene.note;
    this.set({
      left: [wanted.left, before.left, scene.left].find(has), right: [wanted.right, before.right, scene.right].find(has),
      frame: Math.min(wanted.frame ?? before.frame, this.frames - 1), wipe: wanted.wipe ?? before.wipe,
      heat: this.hasHeat && (wanted.heat ?? before.heat), loupe: wanted.loupe ?? before.loupe, x: wanted.x ?? before.x, y: wanted.y ?? before.y,
    });
    this.sayMore();
  }
  fill(select, options, chosen) {
    select.replaceChildren(...options.map(option => element("option", {value: option, textContent: option})));
    if (chosen !== undefined) select.value = chosen;
    select.parentElement.hidden = options.length < 2;
  }
  set(changes) {
    const before = this.state;
    this.state = {...before, ...changes};
    const {left, right, wipe, frame, heat, loupe} = this.state;
    this.selects.left.value = left; this.selects.right.value = right;
    this.tags.left.textContent = left; this.tags.right.textContent = right;
    this.box.setAttribute("aria-valuenow", Math.round(wipe));
    this.box.setAttribute("aria-valuetext", `${Math.round(wipe)} % ${left}, the rest ${right}`);
    this.slider.value = frame;
    this.count.textContent = `${frame + 1} / ${this.frames}`;
    this.heatBox.checked = heat; this.loupeBox.checked = loupe;
    this.paint();
    if (before.left !== left || before.right !== right) this.sayMore();
    if (before.frame !== frame) this.markFrame();
  }
  async pixels(view) { return this.state.heat && view.heat ? [await heat(view.heat.data_uri), view.heat] : [await picture(view.strip.data_uri), view.strip]; }

  async paint() {
    const painting = this.painting = Symbol("the latest of all");
    const [left, right] = await Promise.all([this.view(this.state.left), this.view(this.state.right)].map(view => this.pixels(view)));
    if (this.painting !== painting) return;
    const {width, height} = this.scene, context = this.canvas.getContext("2d"), {frame} = this.state;
    const cut = Math.round(width * this.state.wipe / 100), line = Math.max(1, Math.round(width / 500));
    const put = ([image, strip], from, to) => {
      if (to <= from) return;
      const across = strip.width / width, at = Math.min(frame, strip.frames - 1);
      context.imageSmoothingEnabled = this.state.heat;
      context.drawImage(image, from * across, at * strip.height, (to - from) * across, strip.height, from, 0, to - from, height);
    };
    put(right, cut, width);
    put(left, 0, cut);
    if (cut > 0 && cut < width) { context.fillStyle = "#fff"; context.fillRect(cut - Math.floor(line / 2), 0, line, height); }
    this.paintScale();
    await this.paintLoupe();
    if (this.painting !== painting) return;
    this.box.dataset.painted = `${this.state.scene} ${this.state.left} ${this.state.right} ${frame} ${cut} ${this.state.heat}`;
  }
  paintScale() {
    const {heat} = this.state;
    this.scale.hidden = !heat;
    if (!heat) return;
    const ramp = [0, .25, .5, .75, 1].map(at => `rgb(${heatColour(at).map(Math.round)})`).join(", ");
    this.scale.replaceChildren("0", element("i", {style: `background: linear-gradient(to right, ${ramp})`}), `${this.scene.heat_levels} levels of 255 and more: ${this.item.heat_label}`);
  }
  async paintLoupe() {
    this.loupe.hidden = !this.state.loupe;
    if (!this.state.loupe) return;
    const shown = [...new Set([this.state.left, this.state.right, this.truth?.name].filter(Boolean))];
    const {width, height} = this.scene, side = Math.min(40, width, height);
    const corner = (at, whole) => Math.round(Math.min(Math.max(at * whole - side / 2, 0), whole - side));
    const x = corner(this.state.x, width), y = corner(this.state.y, height);
    const figures = await Promise.all(shown.map(async name => {
      const {strip} = this.view(name), image = await picture(strip.data_uri);
      const canvas = element("canvas", {width: 4 * side, height: 4 * side}), context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      const across = strip.width / width, down = strip.height / height, at = Math.min(this.state.frame, strip.frames - 1);
      context.drawImage(image, x * across, at * strip.height + y * down, side * across, side * down, 0, 0, 4 * side, 4 * side);
      return element("figure", {}, canvas, element("figcaption", {textContent: `${name}, ${side} x ${side} pixels at ${x}, ${y}`}));
    }));
    this.loupe.replaceChildren(...figures);
  }
  /** What is beside the picture, of the two views that are shown. */
  sayMore() {
    this.sayFacts();
    this.drawCurves();
  }
  sayFacts() {
    const views = [...new Set([this.state.left, this.state.right])].map(name => this.view(name));
    const labels = [...new Set(views.flatMap(view => Object.keys(view.facts)))];
    this.facts.hidden = labels.length === 0;
    this.facts.replaceChildren(element("table", {}, element("tbody", {},
      element("tr", {}, element("th"), ...labels.map(label => element("th", {className: "number", textContent: label}))),
      ...views.map(view => element("tr", {}, element("td", {textContent: view.name}),
        ...labels.map(label => element("td", {className: "number", textContent: view.facts[label] ?? ""})))))));
  }
  drawCurves() {
    const views = [...new Set([this.state.left, this.state.right])].map(name => this.view(name));
    const label = views.flatMap(view => view.curves.map(curve => curve.label))[0];
    this.curves.hidden = !label;
    if (!label) return;
    if (!this.curveCanvas) {
      this.curveCanvas = element("canvas", {role: "img", "aria-label": "frame by frame"});
      this.curves.append(this.curveCanvas);
      this.curves.style.height = "220px";
    }
    const curve = view => view.curves.find(each => each.label === label);
    draw(this.curveCanvas, () => lines({
      x: Array.from({length: this.frames}, (_, at) => String(at + 1)), x_label: "frame", y_label: label,
      lines: views.filter(curve).map(view => ({label: view.name, values: curve(view).values})),
    })());
    this.markFrame();
  }
  /** Larger dots where the frame that is shown is in the curves. */
  markFrame() {
    const chart = this.curveCanvas && Chart.getChart(this.curveCanvas);
    if (!chart) return;
    for (const set of chart.data.datasets)
      set.pointRadius = Array.from({length: this.frames}, (_, at) => at === this.state.frame ? 6 : 2);
    chart.update("none");
  }
}

/* ---- all of it; `#scene=1&left=..&right=..&wipe=25&frame=3&heat=1&loupe=1` says where to begin ---- */

const hash = new URLSearchParams(location.hash.slice(1));
const number = key => hash.has(key) ? Number(hash.get(key)) : undefined;
const isSet = key => hash.has(key) ? hash.get(key) === "1" : undefined;
const wanted = {
  scene: number("scene"), left: hash.get("left"), right: hash.get("right"), wipe: number("wipe"), frame: number("frame"),
  heat: isSet("heat"), loupe: isSet("loupe"), x: number("x"), y: number("y"),
};
const players = [];
for (const place of document.querySelectorAll("[data-item]")) {
  const item = items[place.dataset.item];
  if (item.kind === "Player") players.push(new Player(place, item, wanted)); else chart(place, item);
}
document.documentElement.dataset.ready = "1";
