// The widget: controls are made anew only when what they offer changes; pictures are drawn anew with every change.

const identity = (node) => (node.classList.contains("cell")
  ? ["cell", node.closest(".panel").dataset.panel, `${node.dataset.s}-${node.dataset.a}`]
  : [node.tagName, node.name || node.id || node.textContent, node.closest("[aria-label]")?.getAttribute("aria-label"), node.type === "radio" && node.value]);

class Explorer extends Pictures {
  constructor(host) {
    super();
    this.host = host;
    host.dataset.ready = "true";
    const { runs, examples = [], data } = JSON.parse(host.querySelector('script[type="application/json"]').textContent);
    this.runs = runs.map((run) => new RecordedRun(run, data));
    this.examples = examples;
    this.inJupyter = document.body.hasAttribute("data-jp-theme-light");
    // In the book the state is in the address; in JupyterLab state and focus outlive a refresh in the page's memory.
    this.linked = !this.inJupyter && host === document.querySelector(".sastc-explorer");
    this.memory = (window.sastcExplorer ??= {})[this.runs.map((r) => r.name).join(" ")] ??= {};
    const linked = this.linked && fromLink(location.hash);
    this.state = linked || (this.inJupyter && this.memory.state) || { ...START };
    this.focus = [0, 0];
    this.shadow = host.attachShadow({ mode: "open" });
    this.build();
    this.update({}, tidy(this.state, this.runs));
    if (this.inJupyter) this.keepFocus();
    if (linked) this.host.scrollIntoView();
    new ResizeObserver(() => { if (this.width !== this.root.clientWidth) this.draw(); }).observe(this.root);
    for (const type of ["scroll", "click"]) addEventListener(type, () => this.tip(null), { capture: true, passive: true });
    const themed = new MutationObserver(() => this.draw());
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    themed.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    if (this.linked) {
      addEventListener("hashchange", () => {
        const state = fromLink(location.hash);
        if (state) this.update({ ...START, ...state }, null, false);
        if (state) this.host.scrollIntoView();
      });
    }
  }

  build() {
    const style = make("style", {}, this.host.querySelector("template.style").content.textContent);
    this.parts = {};
    const part = (name, tag, attributes = {}, ...children) => (this.parts[name] = make(tag, attributes, ...children));
    this.root = make("div", { class: "root", role: "region", "aria-label": "Attention explorer" },
      make("div", { class: "lead" },
        make("p", {}, make("strong", {}, "A high weight is no proof of meaning. "),
          "Weights multiply the distances that train them, so the loss also falls when weight moves to the teacher layer that is cheapest to imitate. Where ★ (highest weight of a row) meets ◇ (smallest distance), ease alone can explain the choice. ● (highest CKA) is the teacher layer that is most similar.")),
      part("examples", "div", { class: "bar examples", role: "group", "aria-label": "Examples" }),
      part("controls", "details", { class: "controls" }, make("summary", {}, "Choose run and images"),
        part("chooser", "div", { class: "bar", role: "group", "aria-label": "Runs" }),
        part("what", "div", { class: "bar", role: "group", "aria-label": "What is shown" })),
      make("div", { class: "bar stay", role: "group", "aria-label": "Time step and epoch" },
        part("steps", "div", { class: "steps" }),
        make("div", { class: "time" },
          make("label", { class: "hidden", for: "epoch" }, "Epoch"),
          part("play", "button", { type: "button", class: "play", click: () => this.play() }),
          part("slider", "input", { type: "range", id: "epoch", min: 1, step: 1, input: (e) => { this.pause(); this.update({ epoch: this.kept[e.target.value - 1] }); } }),
          part("epoch", "output", { for: "epoch", "aria-hidden": "true" }))),
      part("note", "p", { class: "muted" }),
      part("panels", "div", { class: "panels" }),
      part("behind", "section", { class: "behind", "aria-label": "Similarity matrices", tabindex: -1 }),
      make("details", {}, make("summary", {}, "The values as a table"), part("table", "div")),
      make("details", {}, make("summary", {}, "How to read this"), help()),
      make("div", { class: "tools", role: "group", "aria-label": "Save and share" },
        part("copy", "button", { type: "button", click: () => this.copyLink() }, "Copy link"),
        ...["SVG", "PNG", "CSV", "JSON"].map((kind) => make("button", { type: "button", click: () => this.save(kind) }, `Save ${kind}`)),
        part("link", "input", { type: "text", readonly: true, "aria-label": "Link to this view", hidden: true })),
      part("status", "div", { role: "status", class: "hidden" }));
    part("tip", "div", { class: "tip", "aria-hidden": "true", hidden: true }); // outside the root, which would contain it
    this.parts.copy.hidden = !this.linked;
    this.playing(false);
    this.shadow.append(style, this.root, this.parts.tip);
  }

  get shown() {
    return [this.state.run, this.state.run2].map((name) => this.runs.find((r) => r.name === name)).filter(Boolean);
  }

  get epochs() {
    return Math.max(1, ...this.shown.map((r) => r.epochs));
  }

  get epoch() {
    return this.state.epoch ?? this.epochs;
  }

  // The epochs at which the slider stops: those of which a shown run has the chosen weights, and the last.
  get kept() {
    return [...new Set([...this.shown.flatMap((r) => (r.epochs ? r.keptEpochs(this.state) : [])), this.epochs])].sort((a, b) => a - b);
  }

  // Change the state, then everything that shows it.
  update(changes, notes = null, write = true) {
    Object.assign(this.state, changes);
    notes ??= tidy(this.state, this.runs);
    this.parts.note.textContent = notes.join(" ");
    this.parts.note.hidden = !notes.length;
    if (this.linked && write && Object.keys(changes).length) {
      history.replaceState(history.state, "", toLink(this.state) || location.pathname + location.search);
    }
    this.memory.state = this.state;
    this.controls();
    this.draw();
    if (!this.timer) this.announce();
  }

  controls() {
    const { state, parts, epochs, epoch, kept } = this;
    parts.slider.max = kept.length;
    parts.slider.value = kept.indexOf(epoch) + 1;
    parts.slider.disabled = parts.play.disabled = kept.length < 2;
    this.offerExamples();
    parts.slider.setAttribute("aria-valuetext", `epoch ${epoch} of ${epochs}`);
    parts.epoch.textContent = `epoch ${epoch} of ${epochs}`;
    const { epoch: _, cell: __, ...offered } = state; // all that the controls below depend on
    if (this.offered === JSON.stringify(offered)) return;
    this.offered = JSON.stringify(offered);
    const focused = this.focused;
    const scrolled = this.root.querySelector(".thumbs")?.scrollLeft;
    const [run, other] = this.shown;
    const set = (name) => (r) => this.update({ [name]: r.name });
    const two = make("label", { class: "check" }, make("input", { type: "checkbox", name: "two", checked: Boolean(other),
      change: (e) => this.update({ run2: e.target.checked ? (this.runs.find((r) => r !== run && r.pair === run.pair) ?? this.runs.find((r) => r !== run)).name : null }) }), "A second run beside it");
    const group = (title, current, name) => make("fieldset", { class: "runs" }, make("legend", { class: other ? null : "hidden" }, title), runSelects(this.runs, current, title === "Run" ? "" : `, ${title}`, set(name)));
    parts.chooser.hidden = this.runs.length < 2;
    parts.chooser.replaceChildren(group(other ? "Run A" : "Run", run, "run"), ...(other ? [group("Run B", other, "run2")] : []), two);
    parts.what.hidden = !run.epochs;
    parts.steps.hidden = !run.epochs;
    if (!run.epochs) return;
    const steps = Math.max(...this.shown.map((r) => r.timesteps));
    const stepNames = Array.from({ length: steps }, (_, t) => [t + 1, String(t + 1)]);
    const classSelect = (name, title) => make("label", { class: "field" }, make("span", {}, title), make("select", { name, "aria-label": title, change: (e) => this.update({ [name]: Number(e.target.value) }) },
      run.classes.map((c, i) => make("option", { value: i, selected: i === state[name] }, c))));
    const references = [["none", "none: show weights"], ["uniform", "from uniform 1/A"], ["first", "from the first epoch"], ["step", "from a time step"], ["class", "from a class"], ...(other ? [["run", "from the other run"]] : [])];
    parts.steps.replaceChildren(choices("step", "Time step", [[0, "mean"], ...stepNames], state.step, (step) => this.update({ step })));
    parts.what.replaceChildren(
      choices("images", "Test images", [["mean", "mean"], ["class", "one class"], ["image", "one image"]], state.images, (images) => this.update({ images })),
      ...(state.images === "class" ? [classSelect("class", "Class")] : []),
      make("label", { class: "field" }, make("span", {}, "Difference"), make("select", { name: "against", "aria-label": "Difference", change: (e) => this.update({ against: e.target.value }) },
        references.map(([key, title]) => make("option", { value: key, selected: key === state.against }, title)))),
      ...(state.against === "step" ? [choices("step2", "… from step", stepNames, state.step2, (step2) => this.update({ step2 }))] : []),
      ...(state.against === "class" ? [classSelect("class2", "… from class")] : []),
      ...(state.against === "none" ? [make("label", { class: "field" }, make("span", {}, "Colours span"), make("select", { name: "range", "aria-label": "Colours span", change: (e) => this.update({ range: e.target.value }) },
        [["allowed", "all allowed weights"], ["shown", "the weights shown"]].map(([key, title]) => make("option", { value: key, selected: key === state.range }, title))))] : []),
      ...(state.images === "image" ? [imageStrip(run, state, (image) => this.update({ image }))] : []));
    const thumbs = this.root.querySelector(".thumbs");
    if (thumbs && scrolled) thumbs.scrollLeft = scrolled;
    this.refocus(focused); // the control that was used
  }

  // One click each; the words of the one that is shown stand below.
  offerExamples() {
    const { parts, state, examples } = this;
    const shows = ({ state: wanted }) => ["run", "run2", "cell"].every((name) => (name === "cell" && !wanted.cell) || String(wanted[name] ?? START[name]) === String(state[name]));
    const current = examples.findLast(shows);
    if (parts.examples.hidden = !examples.length) return;
    if (!parts.examples.firstChild) {
      parts.examples.append(make("span", { class: "name" }, "See"),
        ...examples.map((example) => make("button", { type: "button", click: () => this.showExample(example) }, example.title)),
        make("p", { class: "look" }));
    }
    [...parts.examples.querySelectorAll("button")].forEach((button, i) => button.setAttribute("aria-pressed", String(examples[i] === current)));
    const look = parts.examples.querySelector(".look");
    if (look.textContent !== (current?.look ?? "")) look.textContent = current?.look ?? "";
    look.hidden = !current;
  }

  showExample({ state, look }) {
    this.pause();
    if (state.cell) this.focus = [...state.cell];
    this.update({ ...START, ...state });
    this.say(look);
  }

  // What has the focus, in terms that what is made in its place shares.
  get focused() {
    return this.shadow.activeElement && identity(this.shadow.activeElement);
  }

  refocus(focused) {
    if (!focused) return;
    const nodes = [...this.root.querySelectorAll("input, select, button, summary, .cell")];
    const like = (parts) => nodes.find((node) => String(identity(node).slice(0, parts)) === String(focused.slice(0, parts)));
    (like(4) ?? like(3))?.focus({ preventScroll: true }); // of choices that have changed, the first
  }

  draw() {
    if (this.root.clientWidth < 100) return; // not laid out yet, or hidden: the observer of its size draws it then
    const { parts, state } = this;
    const { focused } = this;
    const narrow = this.root.clientWidth <= 480;
    if (this.narrow !== narrow) this.parts.controls.open = !narrow; // on a phone they would fill the screen
    this.narrow = narrow;
    this.width = this.root.clientWidth;
    const style = getComputedStyle(this.host);
    const theme = Object.fromEntries(["text", "muted", "ground", "line", "accent", "mark", "middle", "negative", "positive"].map((n) => [n, style.getPropertyValue(`--x-${n}`).trim()]));
    theme.series = style.getPropertyValue("--x-series").trim().split(/\s+/);
    this.theme = theme;
    this.views = this.shown.map((run) => this.view(run));
    const drawn = this.views.filter((v) => !v.missing);
    const flat = drawn.flatMap((v) => (v.difference ?? v.weights).flat());
    this.span = Math.max(0.002, ...flat.map(Math.abs));
    const shown = [Math.min(...flat), Math.max(...flat)];
    this.range = (run) => (state.range === "shown" ? shown : [run.low, run.high]);
    const two = this.views.length > 1;
    parts.panels.className = two ? "panels two" : "panels";
    // The width of one picture, from the style's grid: two in a row from 720 px on.
    const wide = this.width >= 720;
    this.pictureWidth = Math.min(wide ? (this.width - (two ? 26 : 29)) / 2 : this.width, 680);
    this.panels = this.views.map((v, i) => this.panel(v, i));
    parts.panels.replaceChildren(...this.panels.map((p) => p.node));
    if (!this.panels.length) return;
    this.behind();
    const [figures] = this.panels[0].node.getElementsByClassName("figures");
    if (two || !figures) parts.panels.after(parts.behind);
    else figures.firstChild.after(parts.behind); // beside the map that it explains, or right below it
    parts.table.replaceChildren(...drawn.map((v) => valueTable(v, `epoch ${v.epoch}, step ${v.step}, ${v.images}`)), make("p", { class: "muted" }, CAVEATS));
    if (!this.shadow.activeElement) this.refocus(focused);
  }

  choose(s, a) {
    this.focus = [s, a];
    this.update({ cell: String(this.state.cell) === String([s, a]) ? null : [s, a] });
    if (!this.state.cell) return;
    this.parts.behind.scrollIntoView({ block: "nearest" });
    const where = this.shown.length > 1 ? "below the pictures" : "after the heat map";
    this.say(`Similarity matrices of ${this.shown[0].student[s]} and ${this.shown[0].teacher[a]} are shown ${where}.`);
  }

  close() {
    const [s, a] = this.state.cell ?? this.focus;
    this.update({ cell: null });
    this.root.querySelector(`[data-s="${s}"][data-a="${a}"]`)?.focus();
  }

  // Arrow keys walk over the heat map.
  key(event, s, a, panel) {
    const run = this.views[panel].run;
    const [rows, columns] = [run.student.length, run.teacher.length];
    const moves = { ArrowUp: [s - 1, a], ArrowDown: [s + 1, a], ArrowLeft: [s, a - 1], ArrowRight: [s, a + 1], Home: [s, 0], End: [s, columns - 1] };
    if (event.key === "Enter" || event.key === " ") this.choose(s, a);
    else if (event.key === "Escape" && this.state.cell) this.close();
    else if (event.key in moves) {
      const [row, column] = moves[event.key];
      this.focus = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
      const svg = event.currentTarget.closest("svg");
      event.currentTarget.setAttribute("tabindex", -1);
      const next = svg.querySelector(`[data-s="${this.focus[0]}"][data-a="${this.focus[1]}"]`);
      next.setAttribute("tabindex", 0);
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has keys of its own
  }

  // A refresh in JupyterLab puts a new explorer in the place of this one: it takes the focus that this one had.
  keepFocus() {
    if (document.activeElement === document.body) this.refocus(this.memory.focused);
    this.shadow.addEventListener("focusin", () => { this.memory.focused = this.focused; });
    this.shadow.addEventListener("focusout", () => setTimeout(() => {
      if (this.host.isConnected && !this.focused) this.memory.focused = null;
    }));
  }

  play() {
    if (this.timer) return this.pause();
    if (this.epoch >= this.epochs) this.update({ epoch: this.kept[0] });
    const pace = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1500 : Math.min(500, Math.max(120, 12000 / this.kept.length));
    this.timer = setInterval(() => {
      if (!this.host.isConnected || this.epoch >= this.epochs) this.pause();
      else this.update({ epoch: this.kept.find((e) => e > this.epoch) });
    }, pace);
    this.playing(true);
  }

  pause() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = null;
    this.playing(false);
    this.announce();
  }

  // What the button would do.
  playing(now) {
    const [mark, word] = now ? ["❚❚", "Pause"] : ["▶", "Play"];
    this.parts.play.replaceChildren(make("span", { "aria-hidden": "true" }, mark), make("span", { class: "word" }, word));
  }

  announce() {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.say((this.panels ?? []).map((p) => `${p.title}. ${p.facts}`).join(" ")), 400);
  }

  say(what) {
    clearTimeout(this.saying);
    this.parts.status.textContent = what;
  }

  // Words beside a mouse, until it is pressed or the page moves; a finger opens what is behind a cell.
  tip(event, what) {
    const { tip } = this.parts;
    tip.hidden = !event || event.pointerType === "touch";
    if (tip.hidden) return;
    tip.textContent = what;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${(event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18)}px`;
  }

  copyLink() {
    const link = location.href.split("#")[0] + toLink(this.state);
    const { parts } = this;
    const byHand = () => { parts.link.hidden = false; parts.link.value = link; parts.link.select(); this.say("Copy the selected link."); };
    if (!navigator.clipboard) return byHand();
    navigator.clipboard.writeText(link).then(() => {
      parts.copy.textContent = "Link copied";
      this.say("Link copied.");
      setTimeout(() => { parts.copy.textContent = "Copy link"; }, 2000);
    }, byHand);
  }

  async save(kind) {
    const views = this.views.filter((v) => !v.missing);
    if (!views.length) return this.say("There is nothing to save yet.");
    const name = `attention-${views.map((v) => v.run.name).join("-and-")}-epoch${views[0].epoch}`;
    const svg = () => poster(this.panels.filter((p) => p.pictures.length), this.theme);
    if (kind === "SVG") download(`${name}.svg`, "image/svg+xml", svg());
    if (kind === "PNG") download(`${name}.png`, "image/png", await toPng(svg()));
    if (kind === "CSV") download(`${name}.csv`, "text/csv", toCsv(valueRows(views)));
    if (kind === "JSON") {
      const runs = views.map(({ run }) => ({ run: run.name, title: run.title, layers: run.teacher.length, uniform: 1 / run.teacher.length, lowest_possible: run.low, highest_possible: run.high }));
      download(`${name}.json`, "application/json", JSON.stringify({ state: this.state, against: views[0].against ?? null, runs, rows: toRecords(valueRows(views)) }, null, 1));
    }
    this.say(`${kind} saved.`);
  }
}

for (const host of document.querySelectorAll(".sastc-explorer:not([data-ready])")) new Explorer(host);
