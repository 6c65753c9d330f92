// Charts in SVG, drawn for the width they have, so that letters keep their size at 400 pixels.
const NS = "http://www.w3.org/2000/svg";

export function svg(name, settings = {}, ...children) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(settings)) if (value != null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// draw(width) gives the SVG; it is called again when the place gets another width.
export function drawn(place, draw) {
  let width = 0;
  const redraw = () => {
    const now = Math.floor(place.clientWidth);
    if (now && now !== width) { width = now; place.replaceChildren(draw(now)); }
  };
  place.watcher?.disconnect();
  place.watcher = new ResizeObserver(redraw);
  place.watcher.observe(place);
  redraw();
}

export function ticks(low, high, most = 4) {
  const raw = (high - low) / most || 1;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

export const scale = (from, to, a, b) => (value) => a + ((value - from) / (to - from || 1)) * (b - a);

export function frame(width, height, label) {
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "chart" });
}

export function axis(root, x, values, y, format, right) {
  for (const value of values) {
    root.append(svg("line", { x1: x, x2: right, y1: y(value), y2: y(value), class: "grid" }));
    const text = svg("text", { x: x - 6, y: y(value) + 4, "text-anchor": "end" });
    text.textContent = format(value);
    root.append(text);
  }
}

// Times below a chart, as many as fit.
export function times(root, values, x, y, format, width) {
  const every = Math.max(1, Math.ceil(values.length / Math.max(2, Math.floor(width / 80))));
  values.forEach((value, i) => {
    if (i % every) return;
    const text = svg("text", { x: x(value), y, "text-anchor": "middle" });
    text.textContent = format(value);
    root.append(text);
  });
}

export function titled(element, text) { const title = svg("title"); title.textContent = text; element.append(title); return element; }
