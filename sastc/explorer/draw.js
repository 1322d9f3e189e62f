// Pictures. Each function returns an <svg> with its colours written out, so that a picture can be saved as it stands.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "rect", "path", "line", "text", "circle", "polyline", "title", "defs", "linearGradient", "stop"]);

// An element; attributes that are functions listen to events, null and false ones are left out.
function make(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Colours

// cividis, at seventeen places: dark blue to yellow, even in lightness, the same to all kinds of colour vision.
const CIVIDIS = "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838".split(" ");
const rgb = (hex) => [0, 2, 4].map((i) => parseInt(hex.replace("#", "").slice(i, i + 2), 16));
const hex = (colour) => `#${colour.map((v) => Math.round(v).toString(16).padStart(2, "0")).join("")}`;
const blend = (from, to, share) => hex(rgb(from).map((v, i) => v + (rgb(to)[i] - v) * share));

function sequential(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const i = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return blend(CIVIDIS[i], CIVIDIS[i + 1], place - i);
}

// Blue below, orange above, the ground between: kept apart by all kinds of colour vision.
const diverging = (theme) => (share) =>
  blend(theme.middle, share < 0 ? theme.negative : theme.positive, Math.min(Math.abs(share), 1));

const luminance = (colour) => {
  const [r, g, b] = rgb(colour).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
// Of black and white, the one that stands out more: always at least 4.5 to 1.
const inkOn = (colour) => (luminance(colour) > 0.179 ? "#000000" : "#ffffff");

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const text = (x, y, content, attributes = {}) => make("text", { x, y, ...attributes }, content);
const picture = (width, height, label, attributes, ...children) =>
  make("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT, "font-size": 12,
                role: "img", "aria-label": label, ...attributes }, ...children);

const clip = (name, room) => (name.length * 6.6 > room ? `${name.slice(0, Math.max(3, Math.floor(room / 6.6) - 1))}…` : name);

// Heat map, student layers down and teacher layers across. `cells[s][a]` is {colour, lines, label, title, marks}; each
// kind of mark has its own shape and place in a cell.
const MARK_PLACES = { "★": 0.2, "◇": 0.5, "●": 0.8 };

function heatMap({ run, cells, width, theme, label, chosen, focus, on }) {
  const left = Math.min(84, width * 0.24);
  const top = 40;
  const cell = { width: (width - left) / run.teacher.length, height: 78 };
  const bottom = top + cell.height * run.student.length;
  const height = bottom + 20;
  const svg = picture(width, height, label, { role: "grid", "aria-rowcount": run.student.length + 1, "aria-colcount": run.teacher.length + 1, class: "heat" });
  const names = (y) => run.teacher.map((name, a) => text(left + (a + 0.5) * cell.width, y, clip(name, cell.width), { "text-anchor": "middle", fill: theme.text }));
  const heads = names(32).map((name) => make("g", { role: "columnheader" }, name));
  svg.append(
    make("g", { role: "row" },
      make("g", { role: "columnheader" }, text(0, 32, "student", { fill: theme.muted }), text(left, 13, "teacher layer →", { fill: theme.muted })),
      ...heads));
  cells.forEach((row, s) => {
    const y = top + s * cell.height;
    const group = make("g", { role: "row" }, make("g", { role: "rowheader" },
      symbol(s, 6, y + cell.height / 2, theme.series[s % theme.series.length]),
      text(16, y + cell.height / 2 + 4, clip(run.student[s], left - 18), { fill: theme.text })));
    row.forEach((item, a) => {
      const x = left + a * cell.width;
      const ink = inkOn(item.colour);
      const picked = chosen && chosen[0] === s && chosen[1] === a;
      const g = make("g", {
        role: "gridcell", class: "cell", tabindex: focus[0] === s && focus[1] === a ? 0 : -1, "data-s": s, "data-a": a,
        "aria-label": item.label, "aria-selected": String(Boolean(picked)),
        click: () => on.choose(s, a), keydown: (event) => on.key(event, s, a), focus: () => on.focus(s, a),
        pointermove: (event) => on.tip(event, item.title), pointerleave: () => on.tip(null),
      },
      make("rect", { class: "ground", x: x + 1, y: y + 1, width: cell.width - 2, height: cell.height - 2, rx: 4, fill: item.colour }),
      picked ? make("rect", { x: x + 3.5, y: y + 3.5, width: cell.width - 7, height: cell.height - 7, rx: 3, fill: "none", stroke: ink, "stroke-width": 2.5 }) : null,
      text(x + cell.width / 2, y + (item.lines.length > 1 ? 37 : 46), item.lines[0], { class: "value", "text-anchor": "middle", fill: ink, "font-size": cell.width < 90 ? 14 : 16, "font-weight": 600 }),
      item.lines.slice(1).map((line, i) => text(x + cell.width / 2, y + 55 + 15 * i, line, { "text-anchor": "middle", fill: ink, "font-size": 11.5 })),
      item.marks.map((mark) => text(x + MARK_PLACES[mark] * cell.width, y + 17, mark, { class: "mark", "text-anchor": "middle", fill: ink, "font-size": 13 })));
      group.append(g);
    });
    svg.append(group);
  });
  svg.append(make("g", { "aria-hidden": "true", class: "again" }, ...names(bottom + 15))); // where the bar that stays hides those above
  return svg;
}

// Flow: a band from every student layer to every teacher layer, as wide as its weight (or as its difference).
function flow({ run, matrix, width, theme, label, difference, span, on }) {
  const unit = difference ? 26 / span : 58; // height of weight 1
  const gap = 12;
  const top = 22;
  const edge = Math.min(84, width * 0.24);
  const size = (value) => Math.abs(value || 0) * unit;
  const rowSums = matrix.map((row) => row.reduce((sum, v) => sum + Math.abs(v || 0), 0));
  const columnSums = run.teacher.map((_, a) => matrix.reduce((sum, row) => sum + Math.abs(row[a] || 0), 0));
  const least = difference ? 22 : 0;
  const stack = (sums, names) => {
    const heights = sums.map((sum) => Math.max(sum * unit, least, 2));
    return { heights, total: heights.reduce((a, b) => a + b, 0) + gap * (names.length - 1) };
  };
  const [l, r] = [stack(rowSums, run.student), stack(columnSums, run.teacher)];
  const inner = Math.max(l.total, r.total, 120);
  const place = ({ heights, total }) => {
    let y = top + (inner - total) / 2;
    return heights.map((h) => { const at = y; y += h + gap; return at; });
  };
  const [ly, ry] = [place(l), place(r)];
  const [x0, x1] = [edge, width - edge];
  const svg = picture(width, top + inner + 8, label, { class: "flow" },
    text(0, 13, "student", { fill: theme.muted }), text(width, 13, "teacher layer", { fill: theme.muted, "text-anchor": "end" }));
  const centred = (starts, heights, sums) => starts.map((y, i) => y + (heights[i] - sums[i] * unit) / 2);
  const [lo, ro] = [centred(ly, l.heights, rowSums), centred(ry, r.heights, columnSums)];
  matrix.forEach((row, s) => row.forEach((value, a) => {
    const h = size(value);
    const [y0, y1, middle] = [lo[s], ro[a], (x0 + x1) / 2];
    lo[s] += h;
    ro[a] += h;
    const colour = difference ? (value < 0 ? theme.negative : theme.positive) : theme.series[s % theme.series.length];
    const what = `${run.student[s]} → ${run.teacher[a]}: ${difference ? signed(value, 3) : fixed(value, 3)}`;
    svg.append(make("path", {
      class: "band", fill: colour, "fill-opacity": 0.55, "data-value": value,
      d: `M${x0 + 6},${y0} C${middle},${y0} ${middle},${y1} ${x1 - 6},${y1} v${h} C${middle},${y1 + h} ${middle},${y0 + h} ${x0 + 6},${y0 + h} Z`,
      pointermove: (event) => on.tip(event, what), pointerleave: () => on.tip(null),
    }));
  }));
  run.student.forEach((name, s) => svg.append(
    make("rect", { x: x0, y: ly[s], width: 6, height: l.heights[s], rx: 2, fill: difference ? theme.muted : theme.series[s % theme.series.length] }),
    text(x0 - 6, ly[s] + l.heights[s] / 2 + 4, clip(name, edge - 8), { "text-anchor": "end", fill: theme.text })));
  run.teacher.forEach((name, a) => svg.append(
    make("rect", { x: x1 - 6, y: ry[a], width: 6, height: r.heights[a], rx: 2, fill: theme.muted }),
    text(x1 + 6, ry[a] + r.heights[a] / 2 + (difference ? 4 : -2), clip(name, edge - 8), { fill: theme.text }),
    difference ? null : text(x1 + 6, ry[a] + r.heights[a] / 2 + 13, `Σ ${fixed(columnSums[a])}`, { fill: theme.muted, "font-size": 11.5 })));
  return svg;
}

// Axes for lines and points. `marks` are horizontal lines {y, label, strong, below, left}: where the label stands.
function chart({ width, height, x, y, xLabel, yLabel, marks = [], theme, label, draw }) {
  const levels = ticks(y);
  const distinct = new Set(levels.map(short)).size === levels.length; // 18.86 and 18.91 are both 18.9
  const box = { left: distinct ? 44 : 60, right: 10, top: 12, bottom: 40 };
  const scale = ({ range: [low, high], log }, from, to) => {
    const place = log ? Math.log : (v) => v;
    const span = place(high) - place(low) || 1;
    return (v) => from + ((place(v) - place(low)) / span) * (to - from);
  };
  const px = scale(x, box.left, width - box.right);
  const py = scale(y, height - box.bottom, box.top);
  const svg = picture(width, height, label, { class: "chart" });
  for (const tick of levels) {
    svg.append(make("line", { x1: box.left, x2: width - box.right, y1: py(tick), y2: py(tick), stroke: theme.line }),
      text(box.left - 6, py(tick) + 4, distinct ? short(tick) : String(Number(tick.toPrecision(6))), { "text-anchor": "end", fill: theme.muted, "font-size": 11 }));
  }
  for (const tick of ticks(x)) {
    svg.append(text(px(tick), height - box.bottom + 16, short(tick), { "text-anchor": "middle", fill: theme.muted, "font-size": 11 }));
  }
  svg.append(
    text((box.left + width - box.right) / 2, height - 6, xLabel, { "text-anchor": "middle", fill: theme.text }),
    text(12, (height - box.bottom) / 2, yLabel, { "text-anchor": "middle", fill: theme.text, transform: `rotate(-90 12 ${(height - box.bottom) / 2})` }));
  for (const mark of marks) {
    const at = py(mark.y);
    svg.append(make("line", { x1: box.left, x2: width - box.right, y1: at, y2: at, stroke: mark.strong ? theme.mark : theme.muted, "stroke-width": 1.4, "stroke-dasharray": mark.strong ? "none" : "2 3" }),
      text(mark.left ? box.left + 2 : width - box.right - 2, at + (mark.below ? 13 : -4), mark.label, { "text-anchor": mark.left ? "start" : "end", fill: mark.strong ? theme.mark : theme.muted, "font-size": 11,
        "paint-order": "stroke", stroke: theme.ground, "stroke-width": 3 }));
  }
  draw(svg, px, py, box);
  return svg;
}

function ticks({ range: [low, high], log, whole }) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of high / low > 60 ? [1] : high / low > 8 ? [1, 3] : [1, 2, 5]) {
        const v = m * 10 ** e;
        if (v >= low && v <= high) found.push(v);
      }
    }
    return found;
  }
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9; v += step) found.push(Number(v.toPrecision(10)));
  return found;
}

// A mark of the s-th layer: shape repeats what colour says.
function symbol(s, x, y, colour, size = 4.5) {
  const r = size;
  const shapes = [
    `M${x - r},${y} a${r},${r} 0 1,0 ${2 * r},0 a${r},${r} 0 1,0 ${-2 * r},0`,
    `M${x - r},${y - r} h${2 * r} v${2 * r} h${-2 * r} Z`,
    `M${x},${y - r * 1.2} L${x + r * 1.1},${y + r} H${x - r * 1.1} Z`,
    `M${x},${y - r * 1.35} L${x + r * 1.35},${y} L${x},${y + r * 1.35} L${x - r * 1.35},${y} Z`,
    `M${x},${y + r * 1.2} L${x + r * 1.1},${y - r} H${x - r * 1.1} Z`,
    `M${x - r},${y - r / 2.5} h${r * 0.6} v${-r * 0.6} h${r * 0.8} v${r * 0.6} h${r * 0.6} v${r * 0.8} h${-r * 0.6} v${r * 0.6} h${-r * 0.8} v${-r * 0.6} h${-r * 0.6} Z`,
  ];
  return make("path", { d: shapes[s % shapes.length], fill: colour });
}

// The colour scale from 0 to 1: what the bounds rule out is hatched by a thin line only; 1/A has a mark.
function colourBar({ width, theme, low, high, from, to, layers, difference, span }) {
  const [x0, x1, y] = [8, width - 8, 20];
  const svg = picture(width, 54, difference ? `Colour scale from −${short(span)} to +${short(span)}`
    : `Colour scale: weights from ${fixed(low, 3)} to ${fixed(high, 3)} are possible; uniform is ${fixed(1 / layers, 3)}`, { class: "scale" });
  const at = difference ? (v) => x0 + ((v + span) / (2 * span)) * (x1 - x0) : (v) => x0 + v * (x1 - x0);
  const label = (v, content, anchor, below, colour) => text(at(v), below ? y + 28 : y - 6, content, { "text-anchor": anchor, fill: colour || theme.muted, "font-size": 11 });
  const steps = 64;
  if (difference) {
    const colour = diverging(theme);
    for (let i = 0; i < steps; i++) svg.append(make("rect", { x: x0 + ((x1 - x0) * i) / steps, y, width: (x1 - x0) / steps + 0.6, height: 12, fill: colour((2 * (i + 0.5)) / steps - 1) }));
    svg.append(label(-span, `−${short(span)}`, "start", true), label(0, "0", "middle", true), label(span, `+${short(span)}`, "end", true));
    return svg;
  }
  svg.append(make("line", { x1: x0, x2: x1, y1: y + 6, y2: y + 6, stroke: theme.muted, "stroke-width": 1.5, "stroke-dasharray": "2 4" }));
  for (let i = 0; i < steps; i++) {
    const v = low + ((high - low) * (i + 0.5)) / steps;
    svg.append(make("rect", { x: at(low) + ((at(high) - at(low)) * i) / steps, y, width: (at(high) - at(low)) / steps + 0.6, height: 12, fill: sequential((v - from) / (to - from)) }));
  }
  svg.append(make("line", { x1: at(1 / layers), x2: at(1 / layers), y1: y - 3, y2: y + 15, stroke: theme.mark, "stroke-width": 2.4 }),
    label(1 / layers, `uniform 1/${layers}`, "middle", false, theme.mark),
    label(0, "0", "start", true), label(1, "1", "end", true),
    label(low, low > 0.09 ? fixed(low, 3) : "", "middle", true), label(high, high < 0.92 ? fixed(high, 3) : "", "middle", true));
  if (low > 0 && low <= 0.09) svg.append(label(low, fixed(low, 3), "start", true));
  return svg;
}

// A similarity matrix on a canvas, with lines between classes. The colours span what is off the diagonal: an image is
// most like itself, and that would leave the rest dark.
function similarityMap(matrix, labels, theme, name) {
  const n = matrix.length;
  const scale = Math.max(1, Math.floor(256 / n));
  const others = matrix.flatMap((row, i) => row.filter((_, j) => i !== j));
  const [low, high] = [Math.min(...others), Math.max(...others)];
  const label = `Similarity matrix of ${name}, ${n} test images sorted by class, from ${short(low)} to ${short(high)} off the diagonal`;
  const canvas = make("canvas", { width: n * scale, height: n * scale, role: "img", "aria-label": label, class: "similarity" });
  const context = canvas.getContext("2d");
  matrix.forEach((row, i) => row.forEach((v, j) => {
    context.fillStyle = sequential((v - low) / (high - low || 1));
    context.fillRect(j * scale, i * scale, scale, scale);
  }));
  context.fillStyle = theme.mark;
  labels.forEach((c, i) => {
    if (i && c !== labels[i - 1]) {
      context.fillRect(i * scale, 0, 1, n * scale);
      context.fillRect(0, i * scale, n * scale, 1);
    }
  });
  return { canvas, low, high };
}

// Names of the classes beside a matrix sorted by them, each at the middle of its rows; those without room are left out.
function classNames(names) {
  const column = make("div", { class: "classes", "aria-hidden": "true" });
  let last = -1;
  for (let i = 0; i < names.length; ) {
    let end = i;
    while (end < names.length && names[end] === names[i]) end++;
    const middle = (i + end) / 2 / names.length;
    if (middle - last > 0.05) {
      column.append(make("span", { style: `top:${100 * middle}%`, title: names[i] }, names[i]));
      last = middle;
    }
    i = end;
  }
  return column;
}

// A colour scale from low to high.
function rampBar({ width, theme, low, high, label }) {
  const svg = picture(width, 30, `Colour scale: dark ${short(low)} to light ${short(high)} ${label}`, { class: "ramp" });
  const steps = 32;
  for (let i = 0; i < steps; i++) svg.append(make("rect", { x: (width * i) / steps, y: 0, width: width / steps + 0.6, height: 10, fill: sequential((i + 0.5) / steps) }));
  svg.append(...[[0, "start", short(low)], [width / 2, "middle", label], [width, "end", short(high)]].map(([x, anchor, words]) => text(x, 24, words, { "text-anchor": anchor, fill: theme.muted, "font-size": 11 })));
  return svg;
}
