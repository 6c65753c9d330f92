// The enlarged record: original beside heat map, where its score lies, who said what, and the reasons as tags.
import { $, el, number, say, t, when } from "./base.js";
import { buttons, labelOf, picture, tagsOf } from "./cards.js";
import { drawn, frame, scale, svg } from "./chart.js";
import * as draw from "./draw.js";

let shown = null, tags = [], on = null;
export const open = () => $("viewer").open;

export function start(given) {
  on = given;
  draw.start(() => (labelOf(shown) === "defect" ? on.save(shown, "defect", tags, draw.drawn()) : say(t("draw.wait"))));
  $("viewer").addEventListener("cancel", (event) => { if (draw.busy()) event.preventDefault(); });
  $("viewer-close").addEventListener("click", () => $("viewer").close());
  $("viewer-next").addEventListener("click", () => step(1));
  $("viewer-back").addEventListener("click", () => step(-1));
  $("viewer").addEventListener("close", () => on.closed(shown));
  for (const name of ["defect", "false_alarm"]) $("viewer").querySelector("button." + name).addEventListener("click", () => label(name));
  $("tagging").addEventListener("submit", (event) => {
    event.preventDefault();
    const tag = $("tag").value.replaceAll(",", " ").trim();
    $("tag").value = "";
    if (tag && !tags.includes(tag)) change([...tags, tag]);
  });
}

export function show(record) {
  shown = record;
  tags = tagsOf(record);
  $("viewer-title").textContent = record.image_id;
  const panes = $("viewer").querySelectorAll(".pane");
  picture(panes[0], record, "image");
  picture(panes[1], record, "heat");
  draw.lay(record);
  if (!open()) $("viewer").showModal();
  strip(record);
  renew(record);
}

// After a label was saved.
export function renew(record) {
  if (!shown || record.record_id !== shown.record_id) return;
  shown = record;
  if (labelOf(record)) tags = tagsOf(record);
  buttons($("viewer"), record);
  const fact = (name, value) => el("div", {}, el("dt", {}, t(name)), el("dd", {}, value || "–"));
  $("viewer-facts").replaceChildren(
    fact("review.decision", t("decision." + record.decision)),
    fact("viewer.score", `${number(record.score)} / ${number(record.threshold)}`),
    fact("viewer.p", number(record.p_value, 3)),
    fact("review.source", record.source),
    fact("viewer.at", when(record.scored_at, "exact")),
    fact("viewer.model", record.model_version),
    ...["part", "lot", "recipe", "station", "operator"].filter((name) => record[name]).map((name) => fact("trace." + name, record[name])),
    ...(record.regions?.length ? [fact("viewer.regions", record.regions.map(({ box: [x, y, w, h] }) => `${w} × ${h} (${x}, ${y})`).join("; "))] : []),
    fact("review.label", labelOf(record) ? t("label." + labelOf(record)) : ""),
    fact("viewer.who", labelOf(record) ? [record.reviewer, record.labelled_at && when(record.labelled_at)].filter(Boolean).join(", ") : ""));
  $("tags").replaceChildren(...tags.map((tag) => el("button", { type: "button", class: "tag", "aria-label": t("viewer.remove", { tag }), onclick: () => change(tags.filter((one) => one !== tag)) }, tag, el("span", { "aria-hidden": "true" }, " ×"))));
}

// Tags belong to a label: without one they wait for it.
function change(now) {
  tags = now;
  if (labelOf(shown)) on.save(shown, labelOf(shown), tags, draw.drawn());
  else { renew(shown); say(t("viewer.wait")); }
}

export function label(name) {
  if (name === "false_alarm" && shown.decision !== "anomalous") return;
  on.save(shown, labelOf(shown) === name ? "withdrawn" : name, tags, draw.drawn());
}

export function step(by) { const next = on.beside(shown, by); if (next) show(next); }

// Where the score lies among those loaded, with the threshold marked.
function strip(record) {
  const others = on.scores(), low = Math.min(record.threshold, ...others), high = Math.max(record.threshold, ...others);
  const label = t("viewer.strip", { score: number(record.score), threshold: number(record.threshold) });
  $("strip").replaceChildren();
  delete $("strip").width;
  drawn($("strip"), (width) => {
    const root = frame(width, 46, label), x = scale(low, high, 6, width - 6);
    root.append(svg("line", { x1: 6, x2: width - 6, y1: 30, y2: 30, class: "grid" }));
    for (const one of others) root.append(svg("circle", { cx: x(one), cy: 30, r: 2, class: one > record.threshold ? "hot" : "dot" }));
    root.append(svg("path", { d: `M${x(record.threshold)} 18V42`, class: "limit" }));
    root.append(svg("path", { d: `M${x(record.score)} 24l-5 -9h10z`, class: record.decision === "anomalous" ? "hot" : "bar" }));
    const text = svg("text", { x: Math.min(Math.max(x(record.threshold), 40), width - 40), y: 11, "text-anchor": "middle" });
    text.textContent = t("key.threshold");
    root.append(text);
    return root;
  });
}
