// What all pages share: words, numbers and times in the reader's language, requests with the token, small elements.
export const $ = (id) => document.getElementById(id);
export const lang = document.documentElement.lang;
const words = JSON.parse($("words").textContent);

export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

export const number = (value, digits = 4) =>
  value == null ? "–" : new Intl.NumberFormat(lang, { maximumSignificantDigits: digits }).format(value);
export const count = (value) => new Intl.NumberFormat(lang).format(value);
export const share = (value, digits = 1) =>
  value == null ? "–" : new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: digits }).format(value);
// A fixed German or English form, whatever the region of the browser: dates on a line must not be guessed.
const region = lang === "de" ? "de-DE" : "en-GB";
const forms = {
  time: { hour: "2-digit", minute: "2-digit" },
  day: { day: "numeric", month: "short" },
  moment: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  exact: { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" },
};
export const when = (at, form = "moment") =>
  new Intl.DateTimeFormat(region, forms[form]).format(typeof at === "number" ? at * 1000 : new Date(at));

export function say(text) { $("status").textContent = text; clearTimeout(say.timer); if (text) say.timer = setTimeout(() => say(""), 6000); }

export function el(name, settings = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(settings)) {
    if (value == null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export const kept = {
  get: (key) => { try { return localStorage.getItem("loupe-" + key); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem("loupe-" + key, value); } catch { /* a private window keeps nothing */ } },
};

// One question at a time: twenty pictures that are refused together must not open twenty dialogs.
let asking = null;
function askToken(title) {
  asking ??= new Promise((done) => {
    const dialog = $("token");
    $("token-title").textContent = title;
    $("token-field").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => { asking = null; done(dialog.returnValue === "ok" ? $("token-field").value : null); }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function attempt(path, options, token) {
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: "Bearer " + token } : {}) };
  return fetch(path, { ...options, headers });
}

// options.operator: what only an operator may do; that token is asked for each time and kept nowhere.
export async function ask(path, options = {}) {
  const { operator, ...rest } = options;
  let answer = await attempt(path, rest, operator || kept.get("token"));
  while (answer.status === 401 && !operator) {
    const tried = kept.get("token");
    const given = await askToken(t("token.access"));
    if (!given) break;
    if (given !== tried) kept.set("token", given);
    answer = await attempt(path, rest, given);
  }
  if (!answer.ok) {
    const said = (await answer.json().catch(() => ({}))).detail;
    throw Object.assign(new Error(typeof said === "string" ? said : t("error.status", { status: answer.status })), { status: answer.status });
  }
  return answer;
}

export async function json(path, options) { return (await ask(path, options)).json(); }

export async function change(path, body) {
  const operator = await askToken(t("token.operator"));
  if (!operator) return null;
  return json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), operator });
}

// Again every so often while the page is looked at; the first time at once.
export function every(seconds, task) {
  let timer;
  const run = async () => {
    clearTimeout(timer);
    if (!document.hidden) await task();
    timer = setTimeout(run, seconds * 1000);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  run();
  return run;
}
