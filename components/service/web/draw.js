// Boxes and strokes drawn on the enlarged picture, with pointer, finger or keys, in pixels of the picture.
import { $, count, t } from "./base.js";
import { svg } from "./chart.js";

let sheet = null, size = [1, 1], tool = null, shapes = [], live = null, changed = null;
export const drawn = () => shapes;
export const busy = () => live?.keys === true;

export function start(on) {
  changed = on;
  for (const name of ["box", "stroke"]) $("draw-" + name).addEventListener("click", () => choose(tool === name ? null : name));
  $("draw-back").addEventListener("click", () => set(shapes.slice(0, -1)));
  $("draw-clear").addEventListener("click", () => set([]));
}

// Lay an empty sheet over the picture of *record*; it is fitted as the picture is, so their pixels lie on each other.
export function lay(record) {
  size = [record.width, record.height];
  shapes = JSON.parse(record.shapes || "[]");
  live = null;
  sheet = svg("svg", { viewBox: `0 0 ${size.join(" ")}`, class: "sheet", tabindex: 0, role: "img", "aria-label": t("draw.sheet") });
  sheet.addEventListener("pointerdown", begin);
  sheet.addEventListener("pointermove", go);
  sheet.addEventListener("pointerup", finish);
  sheet.addEventListener("pointercancel", () => { live = null; show(); });
  $("canvas").append(sheet);
  choose(null);
}

function choose(name) {
  tool = name;
  for (const one of ["box", "stroke"]) $("draw-" + one).setAttribute("aria-pressed", String(tool === one));
  sheet?.classList.toggle("live", Boolean(tool));
  live = null;
  show();
}

const pen = () => Math.max(2, Math.round(Math.max(...size) / 50));
const inside = ([x, y]) => [Math.min(size[0], Math.max(0, Math.round(x))), Math.min(size[1], Math.max(0, Math.round(y)))];
function place(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(sheet.getScreenCTM().inverse());
  return inside([at.x, at.y]);
}

function begin(event) {
  if (!tool) return;
  event.preventDefault();
  sheet.setPointerCapture(event.pointerId);
  const at = place(event);
  live = tool === "box" ? { kind: "box", points: [at, at] } : { kind: "stroke", points: [at], width: pen() };
  show();
}

function go(event) {
  if (!live || live.keys || !event.buttons) return;
  const at = place(event), last = live.points.at(-1);
  if (live.kind === "box") live.points[1] = at;
  else if (Math.hypot(at[0] - last[0], at[1] - last[1]) >= live.width / 3 && live.points.length < 2000) live.points.push(at);
  show();
}

function finish() {
  if (!live || live.keys) return;
  keep();
}

function keep() {
  const [a, b] = [live.points[0], live.points.at(-1)];
  const { keys, ...shape } = live;
  live = null;
  if (shape.kind === "stroke" || (Math.abs(a[0] - b[0]) > 1 && Math.abs(a[1] - b[1]) > 1)) set([...shapes, shape]);
  else show();
}

function set(now) { shapes = now.slice(0, 50); show(); changed(shapes); }

// Without a pointer: b puts a box into the middle, arrows move it, with Shift they size it, Enter keeps, Escape drops it.
export function key(event) {
  if (!live?.keys) {
    if (event.key !== "b") return false;
    const [w, h] = size;
    live = { kind: "box", keys: true, points: [inside([w * 0.4, h * 0.4]), inside([w * 0.6, h * 0.6])] };
    sheet.focus();
    show();
    return true;
  }
  const step = Math.max(1, Math.round(Math.max(...size) / 50));
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (by) {
    const moved = live.points.map(([x, y], i) => (event.shiftKey && i === 0 ? [x, y] : [x + by[0], y + by[1]]));
    const kept = moved.map(inside);
    // At the edge a box stops; it does not shrink.
    if (event.shiftKey || kept.every(([x, y], i) => x === moved[i][0] && y === moved[i][1])) live.points = kept;
    show();
  } else if (event.key === "Enter") keep();
  else if (event.key === "Escape") { live = null; show(); }
  else return false;
  event.preventDefault();
  return true;
}

function figure(shape) {
  if (shape.kind === "box") {
    const [[a, b], [c, d]] = shape.points;
    return svg("rect", { x: Math.min(a, c), y: Math.min(b, d), width: Math.abs(a - c), height: Math.abs(b - d), class: "shape" });
  }
  if (shape.kind === "polygon") return svg("polygon", { points: shape.points.map((p) => p.join()).join(" "), class: "shape" });
  const points = shape.points.length > 1 ? shape.points : [shape.points[0], shape.points[0]];
  return svg("polyline", { points: points.map((p) => p.join()).join(" "), class: "stroke", "stroke-width": shape.width });
}

function show() {
  sheet?.replaceChildren(...[...shapes, ...(live ? [live] : [])].map(figure));
  $("draw-back").disabled = $("draw-clear").disabled = !shapes.length;
  $("drawn").textContent = live?.keys ? t("draw.moving", { place: live.points.map((p) => p.join(", ")).join(" – ") }) : shapes.length ? t("draw.count", { n: count(shapes.length) }) : "";
}
