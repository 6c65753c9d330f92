// Cards of records and their pictures, which are fetched when they come into view, a few at a time.
import { $, ask, el, number, t, when } from "./base.js";

const AT_ONCE = 3;  // a heat map is a run of the model: a page full of them must not crowd out the line
let running = 0;
const waiting = [];

async function turn(task) {
  if (running >= AT_ONCE) await new Promise((go) => waiting.push(go));
  running++;
  try { return await task(); } finally { running--; waiting.shift()?.(); }
}

// What is shown of a record. What a watched stream alarmed on moves; a model of clips has no heat map of one picture.
const kinds = (record, what) => [what === "heat" ? "overlay" : null, record.source.startsWith("watch-") ? "clip" : null, "image"].filter(Boolean);

export async function picture(place, record, what) {
  const image = el("img", { alt: t(what === "heat" ? "alt.heat" : "alt.image", { name: record.image_id }) });
  place.replaceChildren(image);
  const tried = kinds(record, what);
  for (let attempt = 0; attempt < 5 && tried.length; attempt++) {
    try {
      const blob = await turn(async () => (await ask(`/v1/records/${record.record_id}/${tried[0]}`)).blob());
      if (!image.isConnected) return;
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      image.src = URL.createObjectURL(blob);
      return;
    } catch (error) {
      if (error.status === 404 || error.status === 422) { tried.shift(); continue; }
      await new Promise((done) => setTimeout(done, 400 * (attempt + 1)));
    }
  }
  place.replaceChildren(el("span", { class: "lost small" }, t("review.lost")));
}

export const views = (view) => (view === "both" ? ["image", "heat"] : [view]);

export function fill(element, view) {
  const places = views(view).map(() => el("span", { class: "pane" }));
  element.querySelector(".pictures").replaceChildren(...places);
  places.forEach((place, i) => picture(place, element.record, views(view)[i]));
}

export const labelOf = (record) => (record.label === "withdrawn" ? "" : record.label || "");
export const tagsOf = (record) => (record.tags ? record.tags.split(", ") : []);

// The two buttons of a card or of the viewer; only an alarm can be a false one.
export function buttons(element, record) {
  const defect = element.querySelector("button.defect"), wrong = element.querySelector("button.false_alarm");
  defect.textContent = t(record.decision === "anomalous" ? "label.defect" : "label.missed");
  wrong.hidden = record.decision !== "anomalous";
  for (const [button, name] of [[defect, "defect"], [wrong, "false_alarm"]]) button.setAttribute("aria-pressed", String(labelOf(record) === name));
}

export function card(record, on) {
  const element = $("card").content.firstElementChild.cloneNode(true);
  element.record = record;
  element.dataset.id = record.record_id;
  const decision = element.querySelector(".decision");
  decision.classList.add(record.decision);
  decision.textContent = t("decision." + record.decision);
  element.querySelector(".figures").textContent = t("review.figures", { score: number(record.score), threshold: number(record.threshold), p: number(record.p_value, 2) });
  element.querySelector(".name").textContent = [record.source, record.part, record.image_id, when(record.scored_at)].filter(Boolean).join(" · ");
  element.setAttribute("aria-label", `${t("decision." + record.decision)}, ${record.image_id}`);
  element.querySelector(".open").addEventListener("click", () => on.open(element));
  for (const name of ["defect", "false_alarm"]) element.querySelector("button." + name).addEventListener("click", () => on.label(element.record, name));
  mark(element);
  return element;
}

export function mark(element) {
  const record = element.record, label = labelOf(record);
  element.dataset.label = label;
  buttons(element, record);
  const who = label && record.reviewer ? t("review.by", { who: record.reviewer }) : "";
  element.querySelector(".said").textContent = label ? [t("label." + (label === "defect" && record.decision === "normal" ? "missed" : label)), who, record.tags].filter(Boolean).join(" · ") : "";
}
