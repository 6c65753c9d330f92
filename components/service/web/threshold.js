// The threshold: scores of late as a histogram, a slider over all operating points, what each would have done.
import { $, change, count, el, json, kept, number, say, share, t } from "./base.js";
import { axis, drawn, frame, scale, svg, ticks } from "./chart.js";

const EDGE = 1e-12;  // that of the service's own rule
let data = null, at = 0;
const step = () => data.steps[at];
const alarmed = (pictures, alpha) => pictures.filter(([, p]) => p <= alpha + EDGE).length;
const nearest = (alpha) => data.steps.reduce((best, s, i) => (Math.abs(s.alpha - alpha) < Math.abs(data.steps[best].alpha - alpha) ? i : best), 0);
// To the right there are fewer alarms, as a threshold grows.
const position = () => data.steps.length - 1 - Number($("slider").value);

function histogram() {
  const scores = data.pictures.map(([s]) => s), every = [...scores, ...data.normals, data.threshold].sort((a, b) => a - b);
  // A single wild score must not press all others into one bar: the last bar holds what lies beyond.
  const low = every[0], high = Math.max(every[Math.floor((every.length - 1) * 0.995)], data.threshold + (data.threshold - low) * 0.2);
  const label = t("threshold.label", { n: count(scores.length), threshold: number(step().threshold) });
  delete $("histogram").width;
  drawn($("histogram"), (width) => {
    const bars = Math.max(20, Math.min(70, Math.floor(width / 12))), height = 210, left = 44, bottom = height - 22, root = frame(width, height, label);
    const x = scale(low, high, left, width - 4), slot = (width - 4 - left) / bars;
    const bin = (value) => Math.min(bars - 1, Math.max(0, Math.floor(((value - low) / (high - low || 1)) * bars)));
    const quiet = Array(bars).fill(0), hot = Array(bars).fill(0), normal = Array(bars).fill(0);
    for (const [s, p] of data.pictures) (p <= step().alpha + EDGE ? hot : quiet)[bin(s)]++;
    for (const s of data.normals) normal[bin(s)] += (scores.length || data.normals.length) / data.normals.length;
    const most = Math.max(1, ...quiet.map((v, i) => v + hot[i]), ...normal), y = scale(0, most, bottom, 8);
    axis(root, left, ticks(0, most, 4).filter(Number.isInteger), y, count, width);
    for (let i = 0; i < bars; i++) {
      const from = left + i * slot;
      root.append(svg("rect", { x: from, width: Math.max(1, slot - 1), y: y(normal[i]), height: bottom - y(normal[i]), class: "band" }));
      root.append(svg("rect", { x: from + slot * 0.2, width: Math.max(1, slot * 0.6), y: y(quiet[i]), height: bottom - y(quiet[i]), class: "bar" }));
      root.append(svg("rect", { x: from + slot * 0.2, width: Math.max(1, slot * 0.6), y: y(quiet[i] + hot[i]), height: y(quiet[i]) - y(quiet[i] + hot[i]), class: "hot" }));
    }
    root.append(svg("path", { d: `M${x(data.threshold)} 4V${bottom}`, class: "limit" }), svg("path", { d: `M${x(step().threshold)} 4V${bottom}`, class: "chosen" }));
    for (const value of ticks(low, high, Math.max(3, width / 110))) {
      const text = svg("text", { x: x(value), y: height - 5, "text-anchor": "middle" });
      text.textContent = number(value, 3);
      root.append(text);
    }
    return root;
  });
}

function effect() {
  const { alpha } = step(), now = data.alpha;
  const of = (label) => data.labelled.filter(([, , given]) => given === label);
  const rows = [["threshold.row_last", data.pictures], ["threshold.row_defects", of("defect")], ["threshold.row_false", of("false_alarm")]];
  const cell = (list, limit) => (list.length ? `${count(alarmed(list, limit))} (${share(alarmed(list, limit) / list.length)})` : "–");
  const head = ["", "threshold.pictures_n", "threshold.now", "threshold.then"].map((k, i) => el("th", { scope: "col", class: i ? "num" : "" }, k ? t(k) : t("threshold.alarms_of")));
  $("effect").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map(([name, list]) =>
    el("tr", {}, el("th", { scope: "row" }, t(name)), el("td", { class: "num" }, count(list.length)), el("td", { class: "num" }, cell(list, now)), el("td", { class: "num" }, el("b", {}, cell(list, alpha))))))));
  $("notes").textContent = [t("threshold.note"), data.groups.length ? t("threshold.groups", { names: data.groups.join(", ") }) : ""].join(" ");
}

function show() {
  const { alpha, threshold } = step(), same = Math.abs(alpha - data.alpha) < 1e-9;
  const said = t(same ? "threshold.same" : "threshold.chosen", { threshold: number(threshold), alpha: share(alpha, 2), was: number(data.threshold), before: share(data.alpha, 2) });
  $("said").textContent = said;
  $("slider").setAttribute("aria-valuetext", said);
  for (const id of ["who", "reason", "apply", "reset"]) $(id).disabled = same || (id !== "reset" && !data.may_change);
  histogram();
  effect();
}

function go(to) { at = Math.min(data.steps.length - 1, Math.max(0, to)); $("slider").value = data.steps.length - 1 - at; show(); }

async function load(keep) {
  try {
    const wanted = keep && data ? step().alpha : null;
    data = await json("/v1/threshold?n=" + $("n").value);
    $("slider").max = data.steps.length - 1;
    $("may").textContent = t(data.may_change ? "change.right" : "change.off");
    go(nearest(wanted ?? data.alpha));
  } catch (error) { say(t("error.load", { why: error.message })); }
}

async function apply(event) {
  event.preventDefault();
  const body = { alpha: step().alpha, seen: data.alpha, reason: $("reason").value.trim(), ...($("who").value.trim() ? { who: $("who").value.trim() } : {}) };
  try {
    const answer = await change("/v1/threshold", body);
    if (!answer) return;
    $("reason").value = "";
    await load();
    say(t("threshold.done", { threshold: number(answer.model.calibration.threshold), at: answer.decision.at.slice(0, 19) }));
  } catch (error) { say(t("error.save", { why: error.message })); }
}

$("who").value = kept.get("reviewer") || "";
$("slider").addEventListener("input", () => { at = position(); show(); });
$("less").addEventListener("click", () => go(at + 1));
$("more").addEventListener("click", () => go(at - 1));
$("reset").addEventListener("click", () => go(nearest(data.alpha)));
$("n").addEventListener("change", () => load(true));
$("change").addEventListener("submit", apply);
load();
