// The interface, read from /openapi.json: each route with parameters, body, answers, a command, and a form for reading.
import { $, ask, el, say, t } from "./base.js";

let spec = null;
const target = (node) => (node?.$ref ? node.$ref.slice(2).split("/").reduce((at, part) => at?.[part], spec) : node) || {};

function kind(schema) {
  const node = target(schema);
  if (node.anyOf) return node.anyOf.map(kind).filter((k) => k !== "null").join(" | ");
  if (node.enum) return node.enum.join(" | ");
  if (node.const !== undefined) return String(node.const);
  if (node.type === "array") return kind(node.items) + "[]";
  return (node.format === "binary" && t("docs.file")) || node.type || t("docs.any");
}

function limits(schema) {
  const node = target(schema), parts = [];
  if (node.minimum !== undefined) parts.push("≥ " + node.minimum);
  if (node.exclusiveMinimum !== undefined) parts.push("> " + node.exclusiveMinimum);
  if (node.maximum !== undefined) parts.push("≤ " + node.maximum);
  if (node.maxLength !== undefined) parts.push(t("docs.letters", { n: node.maxLength }));
  if (node.default !== undefined && node.default !== null && node.default !== "") parts.push(t("docs.default", { value: node.default }));
  return parts.join(", ");
}

function table(heads, rows) {
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, t(h))))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));
}

function body(route) {
  return Object.entries(route.requestBody?.content || {}).map(([type, { schema }]) => {
    const node = target(schema), rows = Object.entries(node.properties || {}).map(([name, value]) => [name + ((node.required || []).includes(name) ? " *" : ""), kind(value), [target(value).description, limits(value)].filter(Boolean).join("; ")]);
    return el("div", {}, el("h2", {}, t("docs.body") + ": " + type), rows.length ? table(["docs.name", "docs.kind", "docs.meaning"], rows) : el("p", {}, kind(schema)));
  });
}

function command(method, path, route) {
  const type = Object.keys(route.requestBody?.content || {}).find((name) => name !== "multipart/form-data"), lines = [];
  if (method !== "get") lines.push("-X " + method.toUpperCase());
  lines.push(`-H 'Authorization: Bearer TOKEN'`);
  if (type) lines.push(`-H 'Content-Type: ${type}'`, type === "application/json" ? `-d '{…}'` : "--data-binary @picture.png");
  return `curl ${lines.join(" ")} '${location.origin}${path}'`;
}

// What only reads can be asked from here; what writes is shown as a command, so that no record comes of a click.
function attempt(path, route) {
  const fields = (route.parameters || []).map((p) => el("label", { class: "field" }, p.name, el("input", { name: p.name, required: p.required, placeholder: kind(p.schema) })));
  const out = el("pre", { tabIndex: 0, hidden: true, "aria-label": t("docs.answer") });
  return el("form", { class: "stack", onsubmit: async (event) => {
    event.preventDefault();
    let address = path;
    const query = new URLSearchParams();
    for (const p of route.parameters || []) {
      const value = event.target.elements[p.name].value;
      if (p.in === "path") address = address.replace(`{${p.name}}`, encodeURIComponent(value));
      else if (value) query.set(p.name, value);
    }
    try {
      const answer = await ask(address + (query.size ? "?" + query : ""));
      const type = answer.headers.get("content-type") || "";
      const text = type.startsWith("application/json") ? JSON.stringify(await answer.json(), null, 1) : type.startsWith("text/") ? await answer.text() : `${type}, ${(await answer.blob()).size} bytes`;
      out.textContent = text.slice(0, 20000);
    } catch (error) { out.textContent = (error.status || "") + " " + error.message; }
    out.hidden = false;
  } }, fields.length ? el("div", { class: "filters" }, ...fields) : null, el("div", { class: "row" }, el("button", {}, t("docs.try"))), out);
}

function answers(route) {
  return table(["docs.status", "docs.meaning"], Object.entries(route.responses || {}).map(([status, answer]) => [status, answer.description || ""]));
}

function entry(method, path, route) {
  const parameters = (route.parameters || []).map((p) => [p.name + (p.required ? " *" : ""), kind(p.schema), [p.description, limits(p.schema)].filter(Boolean).join("; ")]);
  // Descriptions are Markdown; its marks of code and names are left out.
  const [first, ...rest] = (route.description || route.summary || "").replace(/[`*]/g, "").split("\n\n");
  return el("details", { class: "panel route" }, el("summary", {}, el("b", { class: "method " + method }, method.toUpperCase()), el("code", {}, path), el("span", { class: "dim" }, first)),
    ...rest.map((text) => el("p", {}, text)),
    parameters.length ? el("div", {}, el("h2", {}, t("docs.parameters")), table(["docs.name", "docs.kind", "docs.meaning"], parameters)) : null,
    ...body(route), el("h2", {}, t("docs.answers")), answers(route),
    el("h2", {}, t("docs.command")), el("pre", { tabIndex: 0 }, command(method, path, route)), method === "get" ? attempt(path, route) : null);
}

function show() {
  const wanted = $("search").value.toLowerCase();
  const found = Object.entries(spec.paths).flatMap(([path, routes]) => Object.entries(routes).map(([method, route]) => [method, path, route]))
    .filter(([method, path, route]) => `${method} ${path} ${route.description || ""}`.toLowerCase().includes(wanted));
  $("routes").replaceChildren(...found.map((one) => entry(...one)), ...(found.length ? [] : [el("p", { class: "empty" }, t("docs.none"))]));
}

try { spec = await (await ask("/openapi.json")).json(); show(); } catch (error) { say(t("error.load", { why: error.message })); }
$("search").addEventListener("input", show);
