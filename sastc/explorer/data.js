// Recorded runs: arrays are decoded when first asked for (format: see packing.py), and views of them are computed here.

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

function decode({ type, low, high, log, data }) {
  const bytes = bytesOf(data);
  const top = type === "u2" ? 65534 : 254;
  const codes = type === "u2" ? new Uint16Array(bytes.buffer) : bytes;
  const step = (high - low) / top || 1;
  return Float64Array.from(codes, (c) => (c > top ? NaN : log ? Math.exp(low + c * step) : low + c * step));
}

class RecordedRun {
  constructor(json, data) {
    Object.assign(this, json);
    for (const array of Object.values(this.arrays)) array.data = data[array.data];
    this.decoded = new Map();
  }

  has(name) {
    return name in this.arrays;
  }

  shape(name) {
    return this.arrays[name].shape;
  }

  values(name) {
    if (!this.decoded.has(name)) this.decoded.set(name, decode(this.arrays[name]));
    return this.decoded.get(name);
  }

  // The part of an array at some leading indices, flat.
  part(name, ...indices) {
    const shape = this.shape(name);
    let size = shape.reduce((a, b) => a * b, 1);
    let start = 0;
    indices.forEach((index, axis) => {
      size /= shape[axis];
      start += index * size;
    });
    return this.values(name).subarray(start, start + size);
  }

  // Row of an array by epoch: the recorded epoch nearest to the one wanted (one-based).
  row(name, epoch) {
    const kept = this.arrays[name].epochs;
    return kept.reduce((best, e, i) => (Math.abs(e - epoch) < Math.abs(kept[best] - epoch) ? i : best), 0);
  }

  // Epoch (one-based) of this run when the page shows some epoch: a shorter run stays at its last.
  epochAt(epoch) {
    return Math.min(epoch, this.epochs);
  }

  // S x A values of an array by epoch at a time step (one-based; 0: mean over all steps).
  matrix(name, epoch, step, ...within) {
    const [steps, students, teachers] = this.shape(name).slice(-3);
    const slab = this.part(name, this.row(name, this.epochAt(epoch)), ...within);
    const size = students * teachers;
    const chosen = step ? [Math.min(step, steps) - 1] : [...Array(steps).keys()];
    return grid(students, teachers, (s, a) => {
      let sum = 0;
      for (const t of chosen) sum += slab[t * size + s * teachers + a];
      return sum / chosen.length;
    });
  }

  // The weights of a selection {epoch, step, images, class, image}; null where the run has not recorded them.
  weights({ epoch, step, images, class: label, image }) {
    const [name, ...within] = { mean: ["attention"], class: ["attention_class", label], image: ["attention_instance", image] }[images];
    if (!this.has(name) || within[0] >= this.shape(name)[1]) return null;
    return this.matrix(name, epoch, step, ...within);
  }

  // The epoch that weights() takes; by class and by image, long runs keep only some.
  shownEpoch({ epoch, images }) {
    const name = { mean: "attention", class: "attention_class", image: "attention_instance" }[images];
    return this.arrays[name].epochs[this.row(name, this.epochAt(epoch))];
  }

  // The epochs of which it has the weights of a selection.
  keptEpochs({ images }) {
    return this.arrays[{ mean: "attention", class: "attention_class", image: "attention_instance" }[images]]?.epochs ?? [];
  }

  distances({ epoch, step }, name = "distance") {
    return this.has(name) ? this.matrix(name, epoch, step) : null;
  }

  // How many single-image weights reach the upper bound: share of (image, student layer, step) whose largest does.
  shareAtBound({ epoch, step }) {
    if (!this.has("attention_instance")) return null;
    const images = this.shape("attention_instance")[1];
    const steps = step ? [Math.min(step, this.timesteps)] : Array.from({ length: this.timesteps }, (_, t) => t + 1);
    let rows = 0;
    let reached = 0;
    for (let p = 0; p < images; p++) {
      for (const t of steps) {
        for (const row of this.matrix("attention_instance", epoch, t, p)) {
          rows += 1;
          reached += Math.max(...row) >= nearBound(this);
        }
      }
    }
    return reached / rows;
  }

  // Similarity matrices behind a pair of layers, of the last epoch; steps are averaged where step is 0.
  similarities(student, teacher, step) {
    if (!this.has("similarity_label")) return null;
    const labels = Array.from(this.values("similarity_label"), Math.round);
    const steps = step ? [Math.min(step, this.timesteps) - 1] : [...Array(this.timesteps).keys()];
    const mean = (names) => {
      const parts = names.map((name) => this.values(name));
      return Float64Array.from(parts[0], (_, i) => parts.reduce((sum, p) => sum + p[i], 0) / parts.length);
    };
    const one = `similarity_teacher_${teacher}`; // a teacher that sees each frame has one a step
    const ofTeacher = this.has(one) ? [one] : steps.map((t) => `similarity_teacher_${t}_${teacher}`);
    const square = (upper) => {
      const matrix = grid(labels.length, labels.length, () => 0);
      let k = 0;
      for (let i = 0; i < labels.length; i++) for (let j = i; j < labels.length; j++) matrix[i][j] = matrix[j][i] = upper[k++];
      return matrix;
    };
    return { labels, student: square(mean(steps.map((t) => `similarity_student_${t}_${student}`))), teacher: square(mean(ofTeacher)) };
  }
}

const grid = (rows, columns, value) =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => value(i, j)));

const nearBound = (run) => run.high - 0.01 * (run.high - run.low); // "at the bound": within 1 % of the range

const unequal = (row) => row.some((v) => v !== row[0]); // else no layer has the highest weight: uniform ones

const argmax = (row) => row.reduce((best, v, i) => (v > row[best] ? i : best), 0);
const argmin = (row) => row.reduce((best, v, i) => (v < row[best] ? i : best), 0);

const entropy = (row) => -row.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);

// Smallest entropy that the bounds allow. Entropy is concave, so it is smallest where k weights are e^(2 scale) times
// the others, for some k.
function leastEntropy(run) {
  const layers = run.teacher.length;
  if (run.low <= 0) return 0;
  const ratio = (run.high * (layers - 1)) / (1 - run.high);
  const entropies = [];
  for (let k = 1; k < layers; k++) {
    const rest = 1 / (k * ratio + layers - k);
    entropies.push(entropy(Array.from({ length: layers }, (_, i) => (i < k ? ratio * rest : rest))));
  }
  return Math.min(...entropies, Math.log(layers));
}

const fixed = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace("-", "") : "–");
const signed = (value, digits = 2) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + fixed(value, digits);
const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–");
const percent = (value) => `${Math.round(100 * value)}\u00a0%`;
