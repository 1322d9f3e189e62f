// The state and its link, choices among runs, and the smaller parts of the page.

const START = { run: null, run2: null, epoch: null, step: 0, images: "mean", class: 0, image: 0, against: "none", step2: 1, class2: 0, cell: null, range: "allowed" };
const WHOLE = new Set(["epoch", "step", "class", "image", "step2", "class2"]);
const LINK = "#explorer?";

// What differs from the start, as the part of the address behind the page's name. `epoch` is null at the last one.
function toLink(state) {
  const parts = Object.entries(state).filter(([name, value]) => value !== null && String(value) !== String(START[name]));
  return parts.length ? LINK + new URLSearchParams(parts.map(([n, v]) => [n, n === "cell" ? v.join("-") : v])) : "";
}

function fromLink(hash) {
  if (!hash.startsWith(LINK)) return null;
  const state = { ...START };
  for (const [name, value] of new URLSearchParams(hash.slice(LINK.length))) {
    if (!(name in START)) continue;
    if (name === "cell") state.cell = /^\d+-\d+$/.test(value) ? value.split("-").map(Number) : null;
    else if (WHOLE.has(name)) state[name] = /^\d{1,6}$/.test(value) ? Number(value) : START[name];
    else state[name] = value;
  }
  return state;
}

// The state with everything brought inside what the runs have. Returns what had to be given up, in words.
function tidy(state, runs) {
  const notes = [];
  const find = (name) => runs.find((run) => run.name === name);
  if (state.run && !find(state.run)) notes.push("The linked run is not on this page.");
  if (!find(state.run)) state.run = runs.find((run) => run.epochs)?.name ?? runs[0].name;
  if (state.run2 && !find(state.run2)) state.run2 = null;
  const shown = [find(state.run), find(state.run2)].filter((run) => run?.epochs);
  if (!shown.length) return notes;
  const [run] = shown;
  const most = (of) => Math.max(...shown.map(of));
  const inside = (value, last) => Math.min(Math.max(value, 0), last);
  if (!["mean", "class", "image"].includes(state.images)) state.images = "mean";
  const epochs = most((r) => r.epochs);
  if (state.epoch < 1 || state.epoch >= epochs) state.epoch = null;
  if (state.epoch !== null) {
    const kept = [...shown.flatMap((r) => r.keptEpochs(state)), epochs];
    const near = kept.reduce((best, e) => (Math.abs(e - state.epoch) < Math.abs(best - state.epoch) ? e : best));
    if (near !== state.epoch) notes.push(`Of these weights epoch ${state.epoch} is not kept; the nearest, ${near}, is shown.`);
    state.epoch = near === epochs ? null : near;
  }
  state.step = inside(state.step, most((r) => r.timesteps));
  state.step2 = Math.max(1, inside(state.step2, most((r) => r.timesteps)));
  state.class = inside(state.class, run.classes.length - 1);
  state.class2 = inside(state.class2, run.classes.length - 1);
  state.image = inside(state.image, run.images - 1);
  if (!["allowed", "shown"].includes(state.range)) state.range = "allowed";
  if (!["none", "uniform", "first", "step", "class", "run"].includes(state.against)) state.against = "none";
  if (state.against === "run" && !state.run2) state.against = "none";
  if (state.cell && !(state.cell[0] < run.student.length && state.cell[1] < run.teacher.length)) state.cell = null;
  return notes;
}

// Choice of a run by what it is. Of the runs that fit a choice, the one that keeps the first of the later fields.
const FIELDS = [["dataset", "Dataset"], ["pair", "Student & teacher"], ["timesteps", "Time steps T"], ["variant", "Variant"], ["seed", "Seed"], ["other", "Settings"]];

function chooseRun(runs, current, field, value) {
  const fields = FIELDS.map(([name]) => name);
  const at = fields.indexOf(field);
  const fits = runs.filter((r) => String(r[field]) === value && fields.slice(0, at).every((f) => r[f] === current[f]));
  const kept = (r) => fields.slice(at + 1).reduce((score, f) => 2 * score + (r[f] === current[f]), 0);
  return fits.reduce((best, r) => (kept(r) > kept(best) ? r : best));
}

function runSelects(runs, current, label, choose) {
  const fields = FIELDS.map(([name]) => name);
  return FIELDS.filter(([name]) => new Set(runs.map((r) => r[name])).size > 1).map(([name, title]) => {
    const before = fields.slice(0, fields.indexOf(name));
    const values = [...new Set(runs.filter((r) => before.every((f) => r[f] === current[f])).map((r) => r[name]))];
    if (values.every((v) => typeof v === "number")) values.sort((a, b) => a - b);
    const select = make("select", { name, "aria-label": `${title}${label}`, change: (e) => choose(chooseRun(runs, current, name, e.target.value)) },
      values.map((v) => make("option", { value: v, selected: v === current[name] }, String(v))));
    return make("label", { class: `field field-${name}` }, make("span", {}, title), select);
  });
}

// A row of choices, of which one holds: radio buttons.
function choices(name, legend, options, value, choose) {
  return make("fieldset", { class: "choices" }, make("legend", {}, legend),
    make("div", { class: "segments" }, options.map(([key, title]) =>
      make("label", {}, make("input", { type: "radio", name, value: key, checked: String(key) === String(value), change: () => choose(key) }), make("span", {}, title)))));
}

// Images of the test split

function thumbnail(run, image) {
  if (!run.has("instance_image")) return null;
  const [, channels, height, width] = run.shape("instance_image");
  const values = run.part("instance_image", image);
  const canvas = make("canvas", { width, height, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const plane = width * height;
  const gain = channels === 2 ? 255 / Math.max(1, ...values) : 1; // counts of events are small
  const channel = channels === 1 ? [0, 0, 0] : channels === 2 ? [0, null, 1] : [0, 1, 2]; // two: events on and off
  for (let i = 0; i < plane; i++) {
    channel.forEach((c, k) => { pixels.data[4 * i + k] = c === null ? 0 : gain * values[c * plane + i]; });
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// An image by its place in the test split, which a run records when it ends.
const imageName = (run, i) => (run.index ? `test image ${run.index[i]}` : `recorded image ${i + 1}`);

// Label and prediction of an image, as far as they are recorded.
function imageFacts(run, image) {
  const label = run.label ? run.label[image] : null;
  const logits = run.has("instance_logits") ? run.part("instance_logits", image) : null; // (T, N)
  const classes = run.classes.length;
  const prediction = logits ? argmax(Array.from(logits.subarray(logits.length - classes))) : null;
  return { label, prediction, logits, classes, right: label === prediction };
}

function imageStrip(run, state, choose) {
  const radios = Array.from({ length: run.images }, (_, i) => {
    const { label, prediction, right } = imageFacts(run, i);
    const said = [imageName(run, i), label !== null && `label ${run.classes[label]}`, prediction !== null && `predicted ${run.classes[prediction]}, ${right ? "right" : "wrong"}`];
    const under = label === null ? `#${i + 1}` : prediction === null || right ? run.classes[label] : `${run.classes[label]}→${run.classes[prediction]}`;
    return make("label", { class: prediction !== null && !right ? "thumb wrong" : "thumb", title: said.filter(Boolean).join(", ") },
      make("input", { type: "radio", name: "image", value: i, checked: i === state.image, "aria-label": said.filter(Boolean).join(", "), change: () => choose(i) }),
      make("span", { class: "frame" }, thumbnail(run, i) ?? make("span", { class: "blank" }, `#${i + 1}`)),
      make("span", { class: "under", "aria-hidden": "true" }, under, prediction === null ? null : right ? " ✓" : " ✗"));
  });
  return make("fieldset", { class: "strip" }, make("legend", {}, `Test images (the ${run.images} recorded)`), make("div", { class: "thumbs" }, radios));
}

// One image: its picture, label, prediction, and the output after each step.
function imageDetail(run, state) {
  const image = Math.min(state.image, run.images - 1);
  const { label, prediction, logits, classes, right } = imageFacts(run, image);
  const missing = run.complete ? "not recorded in this run" : "written when the run ends";
  const facts = [["Image", imageName(run, image)], ["Label", label === null ? missing : run.classes[label]],
    ["Prediction", prediction === null ? missing : `${run.classes[prediction]} (${right ? "right ✓" : "wrong ✗"})`]];
  const list = make("dl", { class: "facts" }, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  const node = make("div", { class: "image" }, make("div", { class: "portrait" }, thumbnail(run, image), list));
  if (!logits) return node;
  const steps = logits.length / classes;
  const last = Array.from(logits.subarray(logits.length - classes));
  const ranked = [...last.keys()].sort((a, b) => last[b] - last[a]);
  const rows = classes <= 10 ? [...last.keys()] : [...new Set([...ranked.slice(0, 7), label].filter((c) => c !== null))];
  const [low, high] = [Math.min(...logits), Math.max(...logits)];
  const body = rows.map((c) => make("tr", { class: c === prediction ? "predicted" : null },
    make("th", { scope: "row" }, run.classes[c], c === label ? " (label)" : ""),
    Array.from({ length: steps }, (_, t) => {
      const value = logits[t * classes + c];
      const colour = sequential((value - low) / (high - low || 1));
      return make("td", { style: `background:${colour};color:${inkOn(colour)}` }, fixed(value, 1));
    })));
  node.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Logits of ${run.title}` }, make("table", {},
    make("caption", {}, `Logits after 1 to ${steps} steps, last epoch${rows.length < classes ? `; ${rows.length} of ${classes} classes` : ""}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "class"), Array.from({ length: steps }, (_, t) => make("th", { scope: "col" }, `t = ${t + 1}`)))),
    make("tbody", {}, body))));
  return node;
}

// Numbers as a table and as files

function valueRows(views) {
  return views.flatMap(({ run, epoch, step, images, weights, difference, distances, cka }) =>
    weights.flatMap((row, s) => row.map((weight, a) => ({
      run: run.name, epoch, step, images, student_layer: run.student[s], teacher_layer: run.teacher[a], weight,
      difference: difference ? difference[s][a] : null, distance: distances ? distances[s][a] : null, cka: cka ? cka[s][a] : null,
    }))));
}

const round = (v) => (typeof v === "number" ? (Number.isFinite(v) ? Number(v.toPrecision(6)) : null) : v);
const toRecords = (rows) => rows.map((row) => Object.fromEntries(Object.entries(row).map(([k, v]) => [k, round(v)])));

function toCsv(rows) {
  const names = Object.keys(rows[0]);
  const quote = (v) => (v === null ? "" : /[",\n]/.test(String(v)) ? `"${String(v).replaceAll('"', '""')}"` : String(v));
  return [names.join(","), ...toRecords(rows).map((row) => names.map((n) => quote(row[n])).join(","))].join("\n") + "\n";
}

function valueTable({ run, weights, difference, distances, cka }, what) {
  const some = [["weight η", weights, (v) => fixed(v, 3)], ["difference", difference, (v) => signed(v, 3)], ["distance", distances, short], ["CKA", cka, (v) => fixed(v, 3)]].filter(([, m]) => m);
  const rows = weights.flatMap((row, s) => row.map((_, a) => make("tr", {},
    make("th", { scope: "row" }, `${run.student[s]} → ${run.teacher[a]}`), some.map(([, m, format]) => make("td", {}, format(m[s][a]))))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Values of ${run.title}` }, make("table", { class: "values" }, make("caption", {}, `${run.title}: ${what}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "student → teacher layer"), some.map(([name]) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows)));
}

function download(name, type, content) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Words in lines of about so many pixels.
function wrap(words, width) {
  const most = Math.floor(width / 6.6);
  return words.split(" ").reduce((lines, word) => {
    if (lines.at(-1).length + word.length < most) lines.push(`${lines.pop()} ${word}`.trim());
    else lines.push(word);
    return lines;
  }, [""]);
}

// All pictures of the page in one: words over each run's, two pictures in a row.
function poster(panels, theme) {
  const gap = 24;
  const across = gap + Math.max(...panels[0].pictures.map(({ svg }) => Number(svg.getAttribute("width")) + gap)) * 2;
  let [y, width] = [gap, across];
  const parts = [];
  for (const { title, facts, marks, pictures } of panels) {
    parts.push(text(gap, y + 14, title, { "font-size": 16, "font-weight": 600, fill: theme.text }));
    for (const line of wrap(`${facts} ${marks}`, across - 2 * gap)) parts.push(text(gap, (y += 19) + 16, line, { fill: theme.muted }));
    y += 36;
    for (let i = 0; i < pictures.length; i += 2) {
      let x = gap;
      const pair = pictures.slice(i, i + 2);
      for (const { name, svg } of pair) {
        const copy = svg.cloneNode(true);
        copy.setAttribute("x", x);
        copy.setAttribute("y", y + 20);
        copy.querySelectorAll("[tabindex]").forEach((node) => node.removeAttribute("tabindex"));
        parts.push(text(x, y + 6, name, { "font-weight": 600, fill: theme.text }), copy);
        x += Number(svg.getAttribute("width")) + gap;
        width = Math.max(width, x);
      }
      y += 20 + Math.max(...pair.map(({ svg }) => Number(svg.getAttribute("height")))) + gap;
    }
  }
  const svg = picture(width, y, panels.map((p) => `${p.title}. ${p.facts}`).join(" "), {}, make("rect", { width, height: y, fill: theme.ground }), parts);
  return new XMLSerializer().serializeToString(svg);
}

async function toPng(svg, scale = 2) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = make("canvas", { width: image.width * scale, height: image.height * scale });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
