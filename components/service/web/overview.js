// The overview: one panel a source, alarms by hour and shift, scores with the threshold, drift and rate in words.
import { $, count, el, every, json, kept, number, say, share, t, when } from "./base.js";
import { axis, drawn, frame, scale, svg, ticks, times, titled } from "./chart.js";

const STATES = { keep: "good", watch: "watch", retrain: "alarm", unknown: "", within: "good", above: "alarm", few: "" };
const badge = (state, text) => el("span", { class: "state " + (STATES[state] ?? state) }, text);
const fact = (name, value, note, big) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span", { class: big ? "big" : "" }, value), note ? el("small", {}, note) : null));
const key = (kind, text) => el("span", { class: "key" }, el("i", { class: kind, "aria-hidden": "true" }), text);

function lineFacts(data) {
  const { model, store, queue } = data;
  const alarms = data.sources.reduce((sum, s) => sum + s.alarms, 0);
  const pictures = data.sources.reduce((sum, s) => sum + s.n, 0);
  $("line-facts").replaceChildren(
    fact(t("overview.pictures"), count(pictures), t("overview.sources", { n: count(data.sources.length) }), true),
    fact(t("overview.alarms"), count(alarms), pictures ? share(alarms / pictures) : "", true),
    fact(t("overview.model"), model.name + (model.version ? " · " + t("models.version", { n: model.version }) : ""), `${model.detector}, ${model.model_version}`),
    fact(t("overview.threshold"), number(model.calibration.threshold), t("overview.promised", { share: share(model.calibration.alpha), low: share(model.calibration.false_alarm_interval[0]), high: share(model.calibration.false_alarm_interval[1]) })),
    fact(t("overview.store"), badge(store.state === "ok" ? "good" : "alarm", t("store." + store.state)), t("overview.queue", { n: count(queue.waiting), places: count(queue.places) })),
  );
}

function alarmChart(source, step) {
  const place = el("div"), buckets = source.buckets;
  const most = Math.max(1, ...buckets.map((b) => b.alarms));
  const label = t("overview.alarms_label", { source: source.source, n: count(source.alarms), most: count(most) });
  drawn(place, (width) => {
    const height = 116, left = 40, bottom = height - 20, root = frame(width, height, label);
    const y = scale(0, most, bottom, 8), slot = (width - left) / buckets.length;
    axis(root, left, ticks(0, most, 3).filter(Number.isInteger), y, count, width);
    buckets.forEach((b, i) => {
      const x = left + i * slot + slot * 0.12;
      if (b.n && !b.alarms) root.append(svg("rect", { x, y: bottom - 2, width: slot * 0.76, height: 2, class: "bar" }));
      if (b.alarms) root.append(svg("rect", { x, y: y(b.alarms), width: slot * 0.76, height: bottom - y(b.alarms), class: "hot", rx: 1.5 }));
      const whole = svg("rect", { x: left + i * slot, y: 0, width: slot, height: bottom, fill: "transparent" });
      root.append(titled(whole, `${when(b.at)}: ${t("overview.of", { k: count(b.alarms), n: count(b.n) })}`));
    });
    times(root, buckets.map((b) => b.at), (at) => left + (buckets.findIndex((b) => b.at === at) + 0.5) * slot, height - 4, (at) => when(at, step < 6 ? "time" : "day"), width - left);
    return root;
  });
  return place;
}

function scoreChart(source, step) {
  const place = el("div"), full = source.buckets.filter((b) => b.n);
  const values = [...full.flatMap((b) => [...b.band, b.threshold]), ...source.points.map((p) => p[1])];
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low) * 0.06 || 1;
  const label = t("overview.scores_label", { source: source.source, low: number(low), high: number(high), threshold: number(full.at(-1).threshold) });
  drawn(place, (width) => {
    const height = 168, left = 40, bottom = height - 20, root = frame(width, height, label), first = source.buckets[0].at;
    const end = source.buckets.at(-1).at + step * 3600;
    const x = scale(first, end, left, width), y = scale(low - pad, high + pad, bottom, 4);
    axis(root, left, ticks(low - pad, high + pad, 4), y, (v) => number(v, 3), width);
    const span = (b) => [x(b.at), x(b.at + step * 3600)];
    for (const b of full) {
      const [a, z] = span(b);
      root.append(svg("rect", { x: a, width: Math.max(1, z - a - 1), y: y(b.band[2]), height: Math.max(1, y(b.band[0]) - y(b.band[2])), class: "band" }));
      root.append(svg("line", { x1: a, x2: z - 1, y1: y(b.band[1]), y2: y(b.band[1]), class: "middle" }));
    }
    for (const [at, score, alarm] of source.points) root.append(svg("circle", { cx: x(at), cy: y(score), r: alarm ? 2.8 : 1.7, class: alarm ? "hot" : "dot" }));
    // The threshold of each stretch; it may have been changed in between.
    let path = "";
    full.forEach((b, i) => { const [a, z] = span(b); path += `${i ? "L" : "M"}${i ? a : left} ${y(b.threshold)}L${i === full.length - 1 ? width : z} ${y(b.threshold)}`; });
    root.append(svg("path", { d: path, class: "limit" }));
    times(root, source.buckets.map((b) => b.at), x, height - 4, (at) => when(at, step < 6 ? "time" : "day"), width - left);
    return root;
  });
  return place;
}

function phrase({ key: name, percent, now, then, n }) {
  return t(name, { percent: percent == null ? "" : number(percent, 3), now: number(now), then: number(then), n });
}

function driftPart(drift) {
  const list = drift.phrases.length ? el("ul", {}, ...drift.phrases.map((one) => el("li", {}, phrase(one)))) : null;
  const note = drift.at ? t("drift.window", { n: count(drift.n), at: when(drift.at) }) : t("drift.never");
  return el("div", {}, el("h3", {}, t("drift.title")), badge(drift.state, t("drift." + drift.state)), list, el("p", { class: "dim small" }, note));
}

function ratePart(rate) {
  const said = rate.n ? t("rate.figure", { share: share(rate.share), k: count(rate.alarms), n: count(rate.n), alpha: share(rate.alpha) }) : t("rate.none", { alpha: share(rate.alpha) });
  return el("div", {}, el("h3", {}, t("rate.title")), badge(rate.state, t("rate." + rate.state)), el("p", { class: "small" }, said),
    rate.n ? el("p", { class: "dim small" }, t("rate.interval", { low: share(rate.low), high: share(rate.high) })) : null,
    rate.other_models ? el("p", { class: "dim small" }, t("rate.others", { n: count(rate.other_models) })) : null);
}

function shiftPart(shifts) {
  if (!shifts.length) return null;
  const rows = shifts.slice(0, 9).map((s) => el("tr", {}, el("td", {}, when(s.at)), el("td", { class: "num" }, count(s.n)), el("td", { class: "num" }, count(s.alarms)), el("td", { class: "num" }, share(s.alarms / s.n))));
  const head = ["shift.begin", "shift.pictures", "shift.alarms", "shift.share"].map((k, i) => el("th", { class: i ? "num" : "", scope: "col" }, t(k)));
  return el("div", {}, el("h3", {}, t("shift.title")), el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

function panel(source, step) {
  const id = "source-" + source.source;
  const head = el("header", {}, el("h2", { id }, source.source),
    el("span", { class: "dim small" }, source.last ? t("overview.last", { at: when(source.last), n: count(source.n), k: count(source.alarms) }) : t("overview.quiet")),
    el("a", { href: "/review?" + new URLSearchParams({ source: source.source, decision: "anomalous", labelled: "no" }) }, t("overview.to_review", { n: count(source.to_review) })));
  const charts = el("div", { class: "charts" });
  if (source.n) charts.append(
    el("div", {}, el("h3", {}, t(step === 1 ? "overview.by_hour" : step === 6 ? "overview.by_six" : "overview.by_day")), alarmChart(source, step)),
    el("div", {}, el("h3", {}, t("overview.scores")), scoreChart(source, step), el("p", {}, key("band", t("key.band")), key("dot", t("key.picture")), key("hot", t("key.alarm")), key("limit", t("key.threshold")))),
    shiftPart(source.shifts));
  else charts.append(el("p", { class: "empty" }, t("overview.quiet")));
  return el("section", { class: "panel source", "aria-labelledby": id }, head, charts, el("div", { class: "side" }, driftPart(source.drift), ratePart(source.rate)));
}

async function load() {
  try {
    const data = await json("/v1/overview?hours=" + $("hours").value);
    lineFacts(data);
    $("asof").textContent = t(data.complete ? "overview.asof" : "overview.part", { at: when(data.at) });
    $("sources").replaceChildren(...(data.sources.length ? data.sources.map((s) => panel(s, data.step)) : [el("p", { class: "empty" }, t("overview.nothing"))]));
  } catch (error) { say(t("error.load", { why: error.message })); }
}

$("hours").value = kept.get("hours") || "24";
if (!$("hours").value) $("hours").value = "24";
const again = every(20, load);
$("hours").addEventListener("change", () => { kept.set("hours", $("hours").value); again(); });
