// The run viewer: run.html#<name> loads _static/runs/<name>.js, which calls showRun. sastc/explorer/draw.js stands above.

const place = document.querySelector(".run-viewer");
const THEME = { text: "currentColor", muted: "currentColor", line: "color-mix(in srgb, currentColor 25%, transparent)", mark: "#c4290a" };
const el = (tag, content, attributes = {}) => make(tag, attributes, ...[content].flat());
const link = (url, words) => el("a", words, { href: url });
const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function facts(rows) {
  const list = make("dl", { class: "footer" });
  for (const [name, value] of rows) if (value !== null) list.append(el("dt", name), el("dd", value));
  return list;
}

// A table; `head` are words, the first cell of a row is its heading. Cells are words or {words, colour}.
function rowsTable(caption, head, rows) {
  const cell = (value, i) => {
    const { words, colour } = value !== null && typeof value === "object" && "words" in value ? value : { words: value };
    const style = colour ? `background:${colour};color:${inkOn(colour)}` : null;
    return el(i ? "td" : "th", words ?? "–", { style, scope: i ? null : "row" });
  };
  return el("div", el("table", [
    el("caption", caption),
    el("thead", el("tr", head.map((words) => el("th", words, { scope: "col" })))),
    el("tbody", rows.map((row) => el("tr", row.map(cell)))),
  ], { class: "results measured" }), { class: "table-box", tabindex: 0, role: "region", "aria-label": caption });
}

function shaded(values) {
  const known = values.flat(3).filter((v) => v !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return (value, words) => (value === null ? "–" : { words, colour: sequential((value - low) / (high - low || 1)) });
}

// 3.3 × 10⁸ for what is too long to write out.
const large = (v) => (v >= 1e5 ? v.toExponential(1).replace(/e\+(\d+)$/, (_, power) => ` × 10${[...power].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("")}`) : short(v));

// What a table of layers shows, and how to read it.
const MAPS = {
  attention: ["Attention: weight η of each teacher layer (Eq. 5)", "A row sums to 1."],
  distance: ["Distance between projected student features and teacher features", "Lower: nearer."],
  mismatch_mse: ["Mismatch: mean squared difference of the similarity matrices", "Lower: the student is nearer to its teacher. Its size follows that of the features: compare it only within one pair of networks."],
  cka: ["Similarity of the features (CKA)", "From 0 to 1; higher: more similar."],
};

function maps(run) {
  const { student, teacher } = run.layers;
  return Object.entries(MAPS).filter(([name]) => run.maps && run.maps[name]).map(([name, [title, read]]) => {
    const shade = shaded(run.maps[name]);
    const rows = run.maps[name].flatMap((step, t) => step.map((row, s) => [`t = ${t + 1}, ${student[s]}`, ...row.map((v) => shade(v, large(v)))]));
    return rowsTable(`${title}, after the last epoch. ${read} Rows: time step and student layer; columns: teacher layer.`, ["student layer", ...teacher], rows);
  });
}

const CURVES = [
  ["Test accuracy (%)", ["test_accuracy", "train_accuracy"], false],
  ["Training loss (nats)", ["train_loss", "cross_entropy"], true],
  ["Mismatch score (STM)", ["stm"], false],
];

function curves(run) {
  const epochs = run.history.epoch;
  return CURVES.map(([title, columns, log]) => {
    const lines = columns.filter((name) => run.history[name] && run.history[name].some((v) => v !== null && (!log || v > 0)));
    if (!lines.length) return null;
    const all = lines.flatMap((name) => run.history[name]).filter((v) => v !== null && (!log || v > 0));
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
    const dashes = ["none", "5 4"];
    const words = lines.map((name, i) => `${name.replaceAll("_", " ")} (${i ? "dashed" : "solid"})`).join(", ");
    const svg = chart({
      width: 460, height: 230, x: { range: [Math.min(...epochs) - 0.01, Math.max(...epochs)], whole: true }, y: { range: [low, high], log },
      xLabel: "epoch", yLabel: title, theme: THEME, label: `${title} by epoch: ${words}; at the end ${lines.map((name) => short(run.history[name].at(-1))).join(" and ")}`,
      draw: (svg, px, py) => lines.forEach((name, i) => svg.append(make("polyline", {
        points: run.history[name].map((v, e) => (v === null || (log && v <= 0) ? null : `${px(epochs[e])},${py(v)}`)).filter(Boolean).join(" "),
        fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-dasharray": dashes[i],
      }))),
    });
    return el("figure", [svg, el("figcaption", words)]);
  }).filter(Boolean);
}

function confusion(run) {
  const names = run.classes;
  const shade = shaded(run.confusion);
  const rows = run.confusion.map((row, c) => [names[c], ...row.map((v) => shade(v, String(v)))]);
  return rowsTable("Confusion: rows are the true class, columns what the network says; counts of test images.", ["true class", ...names], rows);
}

const ENERGY = {
  input_rate: "input that is not zero (share)", macs: "multiply-accumulate operations (MAC)", acs: "accumulate operations (AC)",
  dense_macs: "MAC if all were computed", energy_nj: "energy (nJ)", special_energy_nj: "energy at 77 fJ an AC (nJ)",
};

function energy([columns, ...rows]) {
  const cell = (v) => (typeof v !== "number" ? v : v >= 1000 ? Math.round(v).toLocaleString("en") : short(v));
  const parted = (layer) => layer.replace(/^stages\./, "").split(/(?<=\.)/).flatMap((part) => [part, el("wbr", [])]); // where there is little room
  return rowsTable("Operations and energy of one image by layer, sums over the time steps.", columns.map((name) => ENERGY[name] ?? name), rows.map(([layer, ...row]) => [parted(layer), ...row.map(cell)]));
}

// The command that needs no default to be known, and what else the same numbers need.
function repeat(run) {
  const commit = run.commit ? [el("code", `git checkout ${run.commit}`), run.dirty ? " (there were uncommitted changes besides)" : ""] : ["unknown"];
  return [
    el("p", ["The same numbers, bit for bit, need the same commit: ", ...commit, "; and a CPU with the same features, as many threads and the same library versions: see “How it was made”. This command names every setting that decides the numbers:"]),
    el("pre", run.command, { tabindex: 0, class: "explicit" }),
    el("p", ["Shorter, by the presets of that commit: ", el("code", run.short)]),
  ];
}

const duration = (seconds) => (seconds < 120 ? `${number(seconds, 0)} s` : seconds < 7200 ? `${number(seconds / 60, 0)} min` : `${number(seconds / 3600, 1)} h`);

function time({ train_seconds_per_epoch: epoch, inference_seconds: test, epochs }) {
  if (epoch === undefined) return null;
  return `${duration(epoch * epochs)} of training: ${epochs} epoch${epochs > 1 ? "s" : ""} of ${number(epoch)} s each on average${test === undefined ? "" : `; ${number(test)} s for the test split`}`;
}

const links = (pairs) => pairs.map(([words, url]) => link(url, words));

function beside(run) {
  const toRuns = (pairs) => links(pairs.map(([words, name]) => [words, `#${name}`]));
  const rows = [["Used in", links(run.used_in ?? [])], ["Other seeds", toRuns(run.seeds ?? [])], ["Other methods", toRuns(run.methods ?? [])]];
  if (run.taught) rows.push(["Students", [link(`every_run.html?find=${run.name.split("-").at(-1)}`, `${run.taught} run${run.taught > 1 ? "s" : ""} of this teacher`)]]);
  if (run.notebook) rows.push(["Executed notebook", [link(run.notebook, "open")]]);
  const known = rows.filter(([, content]) => content.length);
  return known.length ? [make("dl", { class: "footer links" }, ...known.flatMap(([name, content]) => [el("dt", name), el("dd", content)]))] : [];
}

// The folder and its files as they lie in the repository, and what this page is drawn from.
function files(run) {
  const { "": folder, ...names } = run.files ?? {};
  const path = `results/${run.scale}/${run.name}`;
  return [
    ["Folder", folder ? link(folder, path) : path],
    ["Files", Object.keys(names).length ? Object.entries(names).flatMap(([name, url], i) => [i ? " · " : "", link(url, name)]) : null],
    ["Data of this page", link(`_static/runs/${run.name}.js`, `${run.name}.js`)],
  ];
}

// Those that differ from the presets, and all of them folded.
function settings(run) {
  const all = Object.entries(run.settings);
  const own = run.changed.map((name) => `${name}=${run.settings[name]}`).join(", ");
  const table = rowsTable("Settings that decide the numbers; those with a star differ from the presets.", ["setting", "value"], all.map(([name, value]) => [run.changed.includes(name) ? `${name} ★` : name, value]));
  return [el("p", own ? `Different from the presets: ${own}.` : "All as the presets have them."), el("details", [el("summary", `All ${all.length} settings`), table])];
}

function save(name, content) {
  const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function draw(run) {
  const { metrics, provenance: made } = run;
  const part = (title, ...content) => (content.flat().filter(Boolean).length ? [el("h2", title), ...content.flat().filter(Boolean)] : []);
  const commit = run.commit ? [run.commit_url ? link(run.commit_url, run.commit.slice(0, 10)) : run.commit.slice(0, 10), run.dirty ? " with uncommitted changes" : ""] : "unknown";
  const teacher = run.teacher ? [link(`#${run.teacher.run}`, run.teacher.run), run.teacher.accuracy === undefined ? "" : `, ${number(run.teacher.accuracy)} %`] : null;
  const accuracy = metrics.last_accuracy ?? metrics.accuracy;
  const steps = run.accuracy_by_step.map((v, t) => `t = ${t + 1}: ${number(v)} %`).join(", ");
  const differs = Math.abs(run.accuracy_by_step.at(-1) - accuracy) > 0.004; // in older records, see Network.logits_by_step
  place.replaceChildren(...[
    el("p", el("strong", run.title), { class: "run-title", tabindex: -1 }),
    facts([
      ["Test accuracy", `${number(accuracy)} % after the last epoch; best ${number(metrics.best_accuracy)} % in epoch ${metrics.best_epoch} of ${metrics.epochs}`],
      ["STM score", metrics.stm === undefined ? null : `${number(metrics.stm, 3)} (mismatch of student and teacher; lower: nearer; to be compared only within one pair of networks)`],
      ["Accuracy by time step", steps + (differs ? `; counted on the mean of the steps' logits, the accuracy above on the logits of the mean features, which ${run.settings.precision} rounds otherwise` : "")],
      ["Data", `${run.data}, ${run.scale_label}`],
      ["Teacher", teacher],
      ["Parameters", metrics.parameters.toLocaleString("en")],
      ["Training time", time(metrics)],
      ["Commit", commit],
    ]),
    ...part("Repeat it", repeat(run)),
    ...part("Pages and runs beside it", beside(run)),
    ...part("Curves", el("div", curves(run), { class: "curves" })),
    ...part("Layers", run.layers.student ? maps(run) : []),
    ...part("Confusion", run.confusion ? confusion(run) : []),
    ...part("Energy", run.energy ? energy(run.energy) : []),
    ...part("How it was made",
      facts([
        ["Started", made.started], ["Hardware", `${made.device}, ${made.threads} thread${made.threads > 1 ? "s" : ""}`],
        ["Versions", [`Python ${made.python}`, ...Object.entries(made.versions).map(([name, v]) => `${name} ${v}`)].join(", ")],
        ["Weights (SHA-256)", metrics.weights_sha256 ?? null], ...files(run),
      ])),
    ...part("Settings", settings(run)),
    run.left_out ? el("p", `Left out of this page, see the run's folder: ${run.left_out.join(", ")}.`) : null,
    el("p", el("button", "Download as JSON", { type: "button", click: () => save(`${run.name}.json`, JSON.stringify(run, null, 1)) })),
  ].filter(Boolean));
  document.title = `${run.title} — run`;
}

function say(words) {
  place.replaceChildren(el("p", [words, " ", link("every_run.html", "All runs"), "."], { role: "status" }));
}

function load() {
  const name = decodeURIComponent(location.hash.slice(1)) || new URLSearchParams(location.search).get("name") || "";
  if (!/^\w[\w.+-]*$/.test(name)) return say(name ? "This is no name of a run." : "Choose a run from the table.");
  window.showRun = (run) => run.name === name && draw(run);
  const script = make("script", { src: `_static/runs/${name}.js`, error: () => say(`No run ${name} is recorded here.`) });
  document.head.append(script);
  script.addEventListener("load", () => script.remove());
}

window.addEventListener("hashchange", () => { if (document.getElementById(location.hash.slice(1))) return; load(); window.scrollTo(0, 0); });
load();
