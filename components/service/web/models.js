// The models: what serves, all versions with their figures, decisions with the gate's reasons, and the way back.
import { $, change, count, el, json, kept, number, say, share, t, when } from "./base.js";

const fact = (name, value) => el("div", {}, el("dt", {}, t(name)), el("dd", {}, value || "–"));
let data = null;

function served({ served: model }) {
  const { calibration } = model, interval = { low: share(calibration.false_alarm_interval[0]), high: share(calibration.false_alarm_interval[1]) };
  $("served").replaceChildren(
    fact("models.name", model.name + (model.version ? " · " + t("models.version", { n: model.version }) : "")), fact("models.detector", model.detector),
    fact("models.identity", model.model_version), fact("models.data", [model.dataset, model.groups].filter(Boolean).join(": ")),
    fact("overview.threshold", number(calibration.threshold)), fact("models.alpha", `${share(calibration.alpha)} (${interval.low} – ${interval.high})`),
    fact("models.normals", count(calibration.n)));
}

const role = (version) => (version === data.champion ? "good" : version === data.challenger ? "watch" : "");

function versions() {
  if (!data.versions.length) { $("versions").replaceChildren(el("p", { class: "dim" }, t("models.folder"))); return; }
  const names = [...new Set(data.versions.flatMap((v) => Object.keys(v.metrics)))].sort();
  const head = [t("models.column"), t("models.role"), t("models.detector"), ...names.map((n) => n.replaceAll("_", " "))];
  const row = (v) => {
    const state = role(v.version), said = state === "good" ? "models.champion" : state ? "models.challenger" : "";
    return el("tr", {}, el("th", { scope: "row" }, v.version), el("td", {}, said ? el("span", { class: "state " + state }, t(said)) : "–"),
      el("td", {}, v.tags.detector || "–", v.tags.recalibrated_from ? el("small", { class: "dim" }, " " + t("models.recalibrated", { n: v.tags.recalibrated_from })) : null),
      ...names.map((n) => el("td", { class: "num" }, number(v.metrics[n]))));
  };
  $("versions").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text, i) => el("th", { scope: "col", class: i > 2 ? "num" : "" }, text)))), el("tbody", {}, ...data.versions.map(row))));
}

// The gate's checks begin with failed or passed; the words behind are those that were stored.
function reason(text) {
  const [whole, kind, rest] = /^(failed|passed): ([\s\S]*)$/.exec(text) || [text];
  return kind ? el("li", { class: kind }, el("b", {}, t("gate." + kind)), " " + rest) : el("li", {}, whole);
}

function decision(one) {
  const title = t(`decided.${one.action}`, { version: one.version ?? "", previous: one.previous ?? "–" });
  const failed = one.reasons.filter((r) => r.startsWith("failed:")).length;
  const list = el("ul", { class: "reasons" }, ...one.reasons.map(reason));
  const body = one.reasons.length > 3 ? el("details", {}, el("summary", {}, failed ? t("gate.summary", { n: count(one.reasons.length), k: count(failed) }) : t("gate.all", { n: count(one.reasons.length) })), list) : list;
  return el("li", {}, el("p", {}, el("b", {}, title), el("span", { class: "dim small" }, " · " + when(one.at, "exact"))), body);
}

// The challenger behind the answers: both models on the same pictures.
function shadow({ shadow: found }) {
  $("shadow-panel").hidden = !found;
  if (!found) return;
  if (!found.n) { $("shadow").replaceChildren(el("p", { class: "dim" }, t(found.model_version ? "shadow.waits" : "shadow.none"))); }
  else {
    const part = (n) => `${share(n / found.n)} (${count(n)})`;
    const row = (name, detector, version, alarms) => el("tr", {}, el("th", { scope: "row" }, t(name)), el("td", {}, detector), el("td", {}, version), el("td", { class: "num" }, part(alarms)));
    $("shadow").replaceChildren(el("table", {},
      el("thead", {}, el("tr", {}, ...["models.role", "models.detector", "models.identity", "overview.alarms"].map((key, i) => el("th", { scope: "col", class: i > 2 ? "num" : "" }, t(key))))),
      el("tbody", {}, row("models.champion", data.served.detector, data.served.model_version, found.alarms[0]), row("models.challenger", found.detector, found.model_version, found.alarms[1]))),
    el("p", {}, t("shadow.agree", { share: share(found.agree / found.n), n: count(found.n) }), " ", el("span", { class: "dim small" }, t("shadow.dropped", { n: count(found.dropped + found.failed) }))));
  }
  const said = (one) => `${t("decision." + one.decision)}, ${number(one.score)} / ${number(one.threshold)}, p ${number(one.p_value, 2)}`;
  $("differ-title").hidden = !found.differ.length;
  $("differ").replaceChildren(...found.differ.map((one) => el("li", {}, el("a", { href: "/review?search=" + encodeURIComponent(one.record_id) }, one.image_id),
    el("span", { class: "small" }, ` · ${one.source} · ${t("models.champion")}: ${said(one)} · ${t("models.challenger")}: ${said(one.other)}`))));
}

function way() {
  $("back-panel").hidden = !data.champion;
  $("back-said").textContent = data.back ? t("models.back_to", { from: data.champion, to: data.back }) : t("models.no_back");
  for (const id of ["who", "reason", "apply"]) $(id).disabled = !data.back || !data.may_change;
  $("may").textContent = t(data.may_change ? "change.right" : "change.off");
}

async function load() {
  try {
    data = await json("/v1/models");
    served(data);
    versions();
    way();
    shadow(data);
    $("decisions").replaceChildren(...(data.decisions.length ? data.decisions.map(decision) : [el("li", { class: "dim" }, t("models.none"))]));
  } catch (error) { say(t("error.load", { why: error.message })); }
}

$("who").value = kept.get("reviewer") || "";
$("back").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const who = $("who").value.trim();
    const answer = await change("/v1/models/rollback", { seen: data.champion, reason: $("reason").value.trim(), ...(who ? { who } : {}) });
    if (!answer) return;
    $("reason").value = "";
    await load();
    say(t("models.done", { n: answer.version }));
  } catch (error) { say(t("error.save", { why: error.message })); }
});
load();
