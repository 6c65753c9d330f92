// The review page: filters, cards in pages, labels with undo, automatic refresh, keys.
import { $, ask, count, el, every, json, kept, say, t } from "./base.js";
import { card, fill, labelOf, mark, tagsOf } from "./cards.js";
import * as draw from "./draw.js";
import * as viewer from "./viewer.js";

const PAGE = 60, SECONDS = 10;
const FILTERS = ["decision", "labelled", "source", "since", "until", "min_score", "max_score", "search"];
let loads = 0, next = null, pages = 1;  // an answer to an earlier question may come after that to the last one
let known = new Map();
const undo = [];

const shapesOf = (record) => JSON.parse(record.shapes || "[]");
const cards = () => [...$("grid").children];
const elementOf = (id) => cards().find((element) => element.dataset.id === id);
const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) { watcher.unobserve(entry.target); fill(entry.target, $("view").value); }
}), { rootMargin: "300px" });

function query(more = {}) {
  const asked = new URLSearchParams();
  for (const name of FILTERS) if ($(name).value) asked.set(name, $(name).value);
  // Days are those of the reader's clock; the service is asked in UTC, and the last day is whole.
  const utc = (day, add) => { const [y, m, d] = day.split("-").map(Number); return new Date(y, m - 1, d + add).toISOString().slice(0, 19); };
  if ($("since").value) asked.set("since", utc($("since").value, 0));
  if ($("until").value) asked.set("until", utc($("until").value, 1));
  for (const [name, value] of Object.entries(more)) asked.set(name, value);
  return asked;
}

const alike = () => $("order").value === "alike";

function remember() {
  const address = new URLSearchParams();
  for (const name of FILTERS) if ($(name).value) address.set(name, $(name).value);
  history.replaceState(null, "", address.size ? "?" + address : location.pathname);
}

function offer(sources) {
  const chosen = $("source").value, names = chosen && !sources.includes(chosen) ? [...sources, chosen] : sources;
  $("source").replaceChildren(new Option(t("review.all"), ""), ...names.map((name) => new Option(name)));
  $("source").value = chosen;
}

function place(records, how) {
  let kind = null;
  const made = records.filter((record) => !known.has(record.record_id)).map((record) => card(record, { open: (element) => viewer.show(element.record), label: toggle }));
  for (const element of made) { known.set(element.dataset.id, element); watcher.observe(element); }
  for (const element of made) {  // where a new kind begins, by likeness
    if (element.record.kind != null && element.record.kind !== kind) element.dataset.begins = "true";
    kind = element.record.kind;
  }
  $("grid")[how](...made);
  $("known-tags").replaceChildren(...[...new Set(cards().flatMap((e) => tagsOf(e.record)))].map((tag) => new Option(tag)));
}

function told(complete) {
  $("more").hidden = !next;
  $("many").textContent = known.size ? t(complete ? "review.many" : "review.part", { n: count(known.size) }) : "";
  const empty = $("grid").nextElementSibling.id === "after" && !known.size;
  $("after").querySelector(".empty")?.remove();
  if (empty) $("after").append(el("span", { class: "empty" }, t("review.none")));
}

async function load() {
  const mine = ++loads;
  remember();
  try {
    const answer = await json(alike() ? "/v1/records/alike?" + query() : "/v1/records?" + query({ limit: PAGE }));
    if (mine !== loads) return;
    watcher.disconnect();
    known = new Map();
    pages = 1;
    $("grid").replaceChildren();
    $("fresh").hidden = true;
    ({ next } = answer);
    offer(answer.sources);
    place(answer.records, "append");
    told(answer.complete);
    if (!answer.complete) setTimeout(() => { if (mine === loads && !viewer.open()) refresh(); }, 1500);
  } catch (error) { if (mine === loads) say(t("error.load", { why: error.message })); }
}

async function more() {
  if (!next) return;
  const mine = loads;
  $("more").disabled = true;
  try {
    const answer = await json("/v1/records?" + query({ limit: PAGE, before: next }));
    if (mine !== loads) return;
    const first = known.size;
    ({ next } = answer);
    pages++;
    place(answer.records, "append");
    told(answer.complete);
    cards()[first]?.focus();
  } catch (error) { say(t("error.load", { why: error.message })); } finally { $("more").disabled = false; }
}

// New records come on top at once where nobody is reading further down; otherwise a button says how many there are.
async function refresh() {
  if (alike()) return;  // an order that somebody works through stays
  const mine = loads;
  const answer = await json("/v1/records?" + query({ limit: PAGE }));
  if (mine !== loads) return;
  offer(answer.sources);
  for (const record of answer.records) {
    const element = known.get(record.record_id);
    if (element && !element.saving) { element.record = record; mark(element); viewer.renew(record); }
  }
  const fresh = answer.records.filter((record) => !known.has(record.record_id));
  const busy = viewer.open() || scrollY > 200 || document.activeElement?.closest(".card");
  if (fresh.length && !busy) { if (!known.size) next = answer.next; place(fresh, "prepend"); $("fresh").hidden = true; }
  else if (fresh.length) { $("fresh").textContent = t("review.fresh", { n: count(fresh.length) }); $("fresh").hidden = false; }
  told(answer.complete);
}

async function save(record, label, tags, shapes, how = {}) {
  const before = { record, label: labelOf(record) || "withdrawn", tags: tagsOf(record), shapes: shapesOf(record), reviewer: record.reviewer };
  const element = known.get(record.record_id);
  if (element) element.saving = true;
  try {
    const answer = await json(`/v1/records/${record.record_id}/label`, {
      method: "PUT", headers: { "Content-Type": "application/json" }, keepalive: true,  // a tab closed right after the key still delivers it
      body: JSON.stringify({ label, reviewer: how.reviewer ?? $("reviewer").value, tags: label === "withdrawn" ? [] : tags, shapes: label === "defect" ? shapes : [] }),
    });
    const now = { ...record, ...answer };
    if (element) { element.record = now; mark(element); }
    viewer.renew(now);
    if (!how.undoing) undo.push(before);
    $("undo").disabled = !undo.length;
    say(t(how.undoing ? "review.undone" : "saved." + label));
    return true;
  } catch (error) { say(t("error.save", { why: error.message })); return false; } finally { if (element) element.saving = false; }
}

const toggle = (record, name) => {
  if (name === "false_alarm" && record.decision !== "anomalous") return null;
  return save(record, labelOf(record) === name ? "withdrawn" : name, tagsOf(record), shapesOf(record));
};

async function back() {
  const last = undo.pop();
  if (!last) return;
  const record = known.get(last.record.record_id)?.record ?? last.record;
  if (!(await save(record, last.label, last.tags, last.shapes, { undoing: true, reviewer: last.reviewer }))) undo.push(last);
  $("undo").disabled = !undo.length;
}

async function table() {
  $("csv").disabled = true;
  try {
    const blob = await (await ask("/v1/records.csv?" + query())).blob();
    const link = el("a", { href: URL.createObjectURL(blob), download: "loupe-records.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) { say(t("error.load", { why: error.message })); } finally { $("csv").disabled = false; }
}

function move(by) {
  const all = cards(), at = all.indexOf(document.activeElement.closest(".card"));
  const element = all[Math.min(all.length - 1, Math.max(0, at + by))];
  if (element) { element.focus(); element.scrollIntoView({ block: "nearest" }); }
}

function turnView() { const select = $("view"); select.selectedIndex = (select.selectedIndex + 1) % select.options.length; showView(); }
function showView() {
  kept.set("view", $("view").value);
  $("grid").dataset.view = $("view").value;
  for (const element of cards()) if (element.querySelector("img, .lost")) fill(element, $("view").value);
}

const inViewer = { d: () => viewer.label("defect"), f: () => viewer.label("false_alarm"), z: back, ArrowRight: () => viewer.step(1), ArrowLeft: () => viewer.step(-1) };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("select, input, textarea") || $("token").open) return;
  if (viewer.open() && draw.key(event)) return;
  const here = document.activeElement.closest(".card")?.record;
  const wide = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
  const step = (by) => () => { event.preventDefault(); move(document.activeElement.closest(".card") ? by : 0); };
  const onPage = {
    ArrowRight: step(1), ArrowLeft: step(-1), ArrowDown: step(wide), ArrowUp: step(-wide), h: turnView, r: load, z: back,
    "/": () => { event.preventDefault(); $("search").focus(); },
    d: () => here && toggle(here, "defect"), f: () => here && toggle(here, "false_alarm"),
    u: () => here && labelOf(here) && save(here, "withdrawn", [], []),
    Enter: () => here && document.activeElement.matches(".card") && viewer.show(here),
  };
  (viewer.open() ? inViewer : onPage)[event.key]?.();
});

viewer.start({
  save,
  closed: (record) => elementOf(record?.record_id)?.focus(),
  beside: (record, by) => { const all = cards(); return all[all.findIndex((e) => e.dataset.id === record.record_id) + by]?.record; },
  scores: () => cards().map((element) => element.record.score),
});
const address = new URLSearchParams(location.search);
if (address.get("source")) $("source").append(new Option(address.get("source")));
for (const name of FILTERS) if (address.get(name)) $(name).value = address.get(name);
// A telephone shows pictures first; filters that are set stay in sight.
$("box").open = innerWidth > 560 || FILTERS.some((name) => address.get(name));
$("view").value = kept.get("view") || "both";
if (!$("view").value) $("view").value = "both";
$("grid").dataset.view = $("view").value;
$("reviewer").value = kept.get("reviewer") || "";
$("reviewer").addEventListener("change", () => kept.set("reviewer", $("reviewer").value.trim()));
$("filters").addEventListener("change", load);
$("filters").addEventListener("submit", (event) => { event.preventDefault(); load(); });
$("filters").addEventListener("reset", () => setTimeout(load));
$("view").addEventListener("change", showView);
$("order").addEventListener("change", load);
$("reload").addEventListener("click", load);
$("fresh").addEventListener("click", () => { scrollTo(0, 0); load(); });
$("more").addEventListener("click", more);
$("undo").addEventListener("click", back);
$("csv").addEventListener("click", table);
load();
setTimeout(() => every(SECONDS, async () => { if ($("auto").checked) await refresh().catch((error) => say(t("error.load", { why: error.message }))); }), SECONDS * 1000);
