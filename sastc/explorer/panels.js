// The pictures of a state: numbers of each run, its four charts, and what is behind a cell. Explorer adds the controls.

class Pictures {
  // What a difference is taken from: {matrix, name}, or {why} there is none.
  reference(run) {
    const { state } = this;
    const selection = { ...state, epoch: this.epoch };
    const made = (matrix, name) => (matrix ? { matrix, name } : { why: `${name} is not recorded in this run` });
    if (state.against === "uniform") return { matrix: grid(run.student.length, run.teacher.length, () => 1 / run.teacher.length), name: "uniform" };
    if (state.against === "first") return made(run.weights({ ...selection, epoch: 1 }), "epoch 1");
    if (state.against === "step") return made(run.weights({ ...selection, step: state.step2 }), `step ${state.step2}`);
    if (state.against === "class") return made(run.weights({ ...selection, images: "class", class: state.class2 }), `class ${run.classes[state.class2] ?? state.class2}`);
    const other = this.shown.find((r) => r !== run);
    if (!other?.epochs) return { why: "The other run is this run, or has no epoch yet" };
    if (String([other.student, other.teacher]) !== String([run.student, run.teacher])) return { why: "The two runs have different layers: no difference" };
    return made(other.weights(selection), "the other run");
  }

  // All numbers behind one run's pictures.
  view(run) {
    const { state } = this;
    const selection = { ...state, epoch: this.epoch };
    const view = { run, epoch: run.epochs && run.shownEpoch(selection), weights: run.epochs ? run.weights(selection) : null };
    view.step = !state.step ? "mean" : Math.min(state.step, run.timesteps);
    view.images = { mean: "mean", class: `class ${run.classes?.[state.class]}`, image: imageName(run, Math.min(state.image, run.images - 1)) }[state.images];
    if (!view.weights) return { ...view, missing: run.epochs ? "Weights by class or image are not recorded in this run." : "No epoch is recorded yet: this run is still in its first." };
    if (!Number.isFinite(view.weights[0][0])) return { ...view, missing: `No recorded image belongs to ${view.images}.` };
    view.wanted = run.epochAt(this.epoch);
    selection.epoch = view.epoch; // beside a weight stands the distance of the same epoch, as near as they are kept
    view.distances = run.distances(selection);
    view.cka = run.distances(selection, "cka");
    if (state.against !== "none") {
      const { matrix, name, why } = this.reference(run);
      view.against = why ?? name;
      if (matrix && Number.isFinite(matrix[0][0])) view.difference = view.weights.map((row, s) => row.map((v, a) => v - matrix[s][a]));
      else view.missing = why ?? `No recorded image belongs to ${name}.`;
    }
    return view;
  }

  panel(view, index) {
    const { run, weights, distances, cka, difference } = view;
    const { state, theme } = this;
    const width = this.pictureWidth;
    const title = `${this.views.length > 1 ? `${"AB"[index]}: ` : ""}${run.title}`;
    const node = make("section", { class: "panel", "data-panel": index, "aria-label": title }, make("h3", {}, title));
    if (view.missing) {
      node.append(make("p", { class: "muted" }, view.missing));
      return { node, title, facts: view.missing, pictures: [] };
    }
    const [facts, verdict] = summary(view, state);
    node.append(make("p", { class: "muted facts-line" }, facts), make("p", { class: "verdict" }, verdict));
    if (state.images === "image") node.append(imageDetail(run, state));
    const [from, to] = this.range(run);
    const colour = difference ? (v) => diverging(theme)(v / this.span) : (v) => sequential((v - from) / (to - from || 1));
    const main = difference ?? weights;
    const cells = main.map((row, s) => row.map((value, a) => {
      const said = [`weight ${fixed(weights[s][a], 3)}`, difference && `difference ${signed(value, 3)}`, distances && `distance ${short(distances[s][a])}`, cka && `CKA ${fixed(cka[s][a], 3)}`].filter(Boolean);
      const marks = { "★": unequal(weights[s]) && argmax(weights[s]) === a, "◇": distances && argmin(distances[s]) === a, "●": cka && argmax(cka[s]) === a };
      const shown = Object.keys(marks).filter((mark) => marks[mark]);
      const words = [...shown.map((mark) => `${MARKS[mark][0]} of its row`), weights[s][a] >= nearBound(run) && "at the upper bound"].filter(Boolean);
      const name = `${run.student[s]} to ${run.teacher[a]}`;
      return { colour: colour(value), lines: [difference ? signed(value, this.span < 0.01 ? 4 : this.span < 0.1 ? 3 : 2) : fixed(value), ...(distances ? [`d ${short(distances[s][a])}`] : []), ...(cka ? [`CKA ${fixed(cka[s][a])}`] : [])],
               label: [name, ...said, ...words].join(", "), title: [name.replace(" to ", " → "), ...said, ...words].join("\n"), marks: shown };
    }));
    const on = { choose: (s, a) => this.choose(s, a), key: (e, s, a) => this.key(e, s, a, index), focus: (s, a) => { this.focus = [s, a]; }, tip: (e, what) => this.tip(e, what) };
    const focus = [Math.min(this.focus[0], run.student.length - 1), Math.min(this.focus[1], run.teacher.length - 1)];
    const what = difference ? `minus ${view.against}` : "attention η";
    const charts = [
      ["Heat map", `${difference ? `Weight ${what}` : "Weight"} in each cell, d the unweighted distance${cka ? ", CKA below" : " (CKA is not recorded in this run)"}. Click or Enter: what is behind it.`,
        heatMap({ run, cells, width, theme, chosen: state.cell, focus, on, label: `Heat map of ${what}: student layers down, teacher layers across. Arrow keys move, Enter opens similarity matrices.` })],
      ["Flow", difference ? "Width is the size of the difference: blue below, orange above." : "Width is the weight. Every student layer gives 1; Σ is what a teacher layer receives.",
        flow({ run, matrix: main, width, theme, difference: Boolean(difference), span: this.span, on, label: `Flow of ${what} from ${run.student.length} student layers to ${run.teacher.length} teacher layers; the values are in the heat map and the table.` })],
      ...(distances ? [["Weight against distance", "One line a student layer. Lines that fall to the right prefer what is easy to imitate.", this.scatter(view, width)]] : []),
      ["Entropy of attention", "Of the weights shown, by epoch. Low: one teacher layer takes the weight.", this.entropyChart(view, width)],
    ];
    const marked = Object.keys(MARKS).filter((mark) => ({ "★": weights.some(unequal), "◇": distances, "●": cka })[mark]);
    const bar = colourBar({ width: Math.min(width, 460), theme, low: run.low, high: run.high, from, to, layers: run.teacher.length, difference: Boolean(difference), span: this.span });
    node.append(make("div", { class: "figures" }, charts.map(([name, text, svg], i) => make("figure", {}, make("figcaption", {}, make("b", {}, name), text), svg, i ? null : [markLegend(marked), bar]))));
    return { node, title, facts: `${facts}. ${verdict}`, marks: `${marked.map((mark) => `${mark} ${markWords(mark)}`).join(", ")}; of each row. Weights multiply the distances that train them.`, pictures: [...charts.map(([name, , svg]) => ({ name, svg })), { name: "Colours", svg: bar }] };
  }

  referenceMarks(run) {
    const bounds = run.low > 0 ? [{ y: run.high, label: `highest possible ${fixed(run.high, 3)}`, below: true }, { y: run.low, label: `lowest possible ${fixed(run.low, 3)}`, below: true }] : [];
    return [{ y: 1 / run.teacher.length, label: `uniform 1/${run.teacher.length}`, strong: true }, ...bounds];
  }

  scatter({ run, weights, distances }, width) {
    const all = run.values("distance").filter((v) => v > 0); // of all epochs: the axis stands still
    const range = [Math.min(...all) / 1.15, Math.max(...all) * 1.15];
    const { theme } = this;
    return chart({ width, height: 270, theme, x: { range, log: true }, y: { range: run.low > 0 ? [0, run.high + 0.04] : [0, 1.02] }, xLabel: "unweighted distance (Eq. 6)", yLabel: "weight η", marks: this.referenceMarks(run),
      label: "Weight against distance of every pair of layers; the values are in the table.",
      draw: (svg, px, py) => weights.forEach((row, s) => {
        const colour = theme.series[s % theme.series.length];
        const points = row.map((v, a) => ({ x: px(Math.max(distances[s][a], range[0])), y: py(v), a })).sort((p, q) => p.x - q.x);
        svg.append(make("polyline", { points: points.map((p) => `${p.x},${p.y}`).join(" "), fill: "none", stroke: colour, "stroke-width": 1.5, "stroke-opacity": 0.7 }));
        for (const p of points) {
          const what = `${run.student[s]} → ${run.teacher[p.a]}\nweight ${fixed(row[p.a], 3)}, distance ${short(distances[s][p.a])}`;
          const mark = symbol(s, p.x, p.y, colour);
          mark.addEventListener("pointermove", (e) => this.tip(e, what));
          mark.addEventListener("pointerleave", () => this.tip(null));
          svg.append(mark);
        }
      }) });
  }

  entropyChart({ run, epoch }, width) {
    const { state, theme } = this;
    const name = { mean: "attention", class: "attention_class", image: "attention_instance" }[state.images];
    const epochs = run.arrays[name].epochs;
    const curves = epochs.map((e) => run.weights({ ...state, epoch: e }).map(entropy)); // [epoch][student layer]
    const top = Math.log(run.teacher.length);
    const least = leastEntropy(run);
    const marks = [{ y: top, label: `ln ${run.teacher.length} = ${fixed(top)}: uniform`, strong: true, below: true, left: true }, ...(least > 0 ? [{ y: least, label: `lowest possible ${fixed(least)}`, below: true, left: true }] : [])];
    return chart({ width, height: 270, theme, x: { range: [1, Math.max(run.epochs, 2)], whole: true }, y: { range: [least > 0 ? least - 0.12 * top : 0, top * 1.03] }, xLabel: "epoch", yLabel: "entropy (nats)", marks,
      label: `Entropy of each student layer's attention by epoch; at epoch ${epoch}: ${run.student.map((l, s) => `${l} ${fixed(curves[epochs.indexOf(epoch)][s])}`).join(", ")}.`,
      draw: (svg, px, py, box) => {
        svg.append(make("line", { x1: px(epoch), x2: px(epoch), y1: box.top, y2: 270 - box.bottom, stroke: theme.text, "stroke-width": 1.2, "stroke-dasharray": "4 3" }));
        run.student.forEach((layer, s) => {
          const colour = theme.series[s % theme.series.length];
          svg.append(make("polyline", { points: epochs.map((e, i) => `${px(e)},${py(curves[i][s])}`).join(" "), fill: "none", stroke: colour, "stroke-width": 1.8 }));
          const every = Math.max(1, Math.ceil(epochs.length / 12));
          epochs.forEach((e, i) => { if (i % every === 0 || e === epoch) svg.append(symbol(s, px(e), py(curves[i][s]), colour, e === epoch ? 5.5 : 3.2)); });
        });
      } });
  }

  // Similarity matrices behind the chosen cell.
  behind() {
    const { parts, state, theme } = this;
    parts.behind.hidden = !state.cell;
    if (!state.cell) return;
    const [s, a] = state.cell;
    const blocks = this.views.filter(({ run, weights }) => weights && s < run.student.length && a < run.teacher.length).map((view) => {
      const { run, weights, distances, cka } = view;
      const found = run.similarities(s, a, state.step);
      const values = [`weight ${fixed(weights[s][a], 3)}`, distances && `distance ${short(distances[s][a])}`, cka ? `CKA ${fixed(cka[s][a], 3)}` : "CKA not recorded in this run"].filter(Boolean).join(", ");
      const box = make("div", {}, make("p", { class: "muted" }, `${this.views.length > 1 ? `${run.title}: ` : ""}${values} (epoch ${view.epoch}).`));
      if (!found) box.append(make("p", {}, run.complete ? "This run has no similarity matrices on record." : "Similarity matrices are written when the run ends."));
      else {
        const names = found.labels.map((c) => run.classes[c]);
        const figure = (matrix, name) => {
          const { canvas, low, high } = similarityMap(matrix, found.labels, theme, name);
          return make("figure", {}, make("figcaption", {}, make("b", {}, name)),
            make("div", { class: "named" }, classNames(names), canvas), rampBar({ width: 200, theme, low, high, label: "off the diagonal" }));
        };
        box.append(make("div", { class: "matrices" }, figure(found.student, `Student ${run.student[s]}, ${state.step ? `step ${Math.min(state.step, run.timesteps)}` : "mean of all steps"}`), figure(found.teacher, `Teacher ${run.teacher[a]}`)));
      }
      return box;
    });
    const run = this.shown[0];
    parts.behind.replaceChildren(make("header", {}, make("h3", {}, `Behind ${run.student?.[s]} → ${run.teacher?.[a]}`), make("button", { type: "button", click: () => this.close() }, "Close")), make("div", { class: "blocks" }, blocks),
      this.shown.some((r) => r.has("similarity_label")) ? make("p", { class: "muted source" }, "Dot products of every two of the first test images (Eq. 3) at the last epoch, sorted by class, columns as rows; lines part the classes. Queries and keys are made of such rows.") : "");
    parts.behind.onkeydown = (e) => { if (e.key === "Escape") this.close(); };
  }
}
