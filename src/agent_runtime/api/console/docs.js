// Shows /openapi.json as a page, without external assets.

/**
 * The parts of a JSON schema and of a call that the page shows.
 * @typedef {object} Schema
 * @property {string} [$ref]
 * @property {Schema[]} [anyOf]
 * @property {Schema[]} [oneOf]
 * @property {Schema} [items]
 * @property {string} [type]
 * @property {unknown[]} [enum]
 * @property {unknown} [const]
 * @property {unknown} [minimum]
 * @property {unknown} [maximum]
 * @property {unknown} [minLength]
 * @property {unknown} [maxLength]
 * @property {unknown} [default]
 * @property {string} [description]
 * @property {Record<string, Schema>} [properties]
 * @property {string[]} [required]
 *
 * @typedef {Record<string, { schema: Schema }>} Content
 *
 * @typedef {object} Operation
 * @property {string} summary
 * @property {string} [description]
 * @property {{ name: string, required: boolean, schema: Schema, description?: string }[]} [parameters]
 * @property {{ required: boolean, content: Content }} [requestBody]
 * @property {Record<string, { description: string, content?: Content }>} responses
 */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string} [text] @param {string} [className]
 */
const element = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};

/** Format a description; text between backticks is code. @param {"p" | "td"} tag @param {string} [text] */
const prose = (tag, text) => {
  const node = element(tag);
  (text ?? "").split("`").forEach((part, index) => node.append(index % 2 ? element("code", part) : part));
  return node;
};

/** @param {string} reference */
const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);

const BOUNDS = /** @type {const} */ (["minimum", "maximum", "minLength", "maxLength", "default"]);

/** @param {Schema} [schema] */
function typeOf(schema) {
  if (!schema) return element("span", "");
  if (schema.$ref) {
    const link = element("a", nameOf(schema.$ref));
    link.href = `#${nameOf(schema.$ref)}`;
    return link;
  }
  const node = element("span");
  const inner = schema.anyOf ?? schema.oneOf ?? (schema.items ? [schema.items] : []);
  if (schema.type === "array") node.append("array of ");
  else if (schema.enum) node.append(schema.enum.map((value) => JSON.stringify(value)).join(" | "));
  else if (schema.const !== undefined) node.append(JSON.stringify(schema.const));
  else if (!inner.length) node.append(schema.type ?? "any");
  inner.forEach((part, index) => node.append(index ? " | " : "", typeOf(part)));
  const bounds = BOUNDS.filter((name) => schema[name] !== undefined)
    .map((name) => `${name} ${JSON.stringify(schema[name])}`);
  if (bounds.length) node.append(` (${bounds.join(", ")})`);
  return node;
}

/** @param {string} name @param {boolean} required @param {Schema} [schema] @param {string} [description] */
function row(name, required, schema, description) {
  const line = element("tr");
  const type = element("td");
  type.append(typeOf(schema));
  line.append(element("td", required ? `${name} *` : name, "name"), type, prose("td", description));
  return line;
}

/** @param {Node[]} rows */
function table(rows) {
  const node = element("table");
  node.append(...rows);
  return node;
}

/** @param {string} method @param {string} path @param {Operation} described */
function operation(method, path, { summary, description, parameters = [], requestBody, responses }) {
  const section = element("section");
  section.append(element("h3", `${method.toUpperCase()} ${path}`));
  section.append(prose("p", description ?? summary));
  const rows = parameters.map((item) => row(item.name, item.required, item.schema, item.description));
  if (requestBody) {
    rows.push(row("body", requestBody.required, requestBody.content["application/json"].schema, ""));
  }
  for (const [status, response] of Object.entries(responses)) {
    const [content] = Object.values(response.content ?? {});
    rows.push(row(`→ ${status}`, false, content?.schema ?? { type: "nothing" }, response.description));
  }
  section.append(table(rows));
  return section;
}

/** @param {string} name @param {Schema} described */
function schema(name, { description, properties = {}, required = [], ...rest }) {
  const section = element("section");
  section.id = name;
  section.append(element("h3", name), prose("p", description));
  const rows = Object.entries(properties).map(([field, part]) =>
    row(field, required.includes(field), part, part.description));
  if (rows.length) section.append(table(rows));
  else section.append(typeOf(rest));
  return section;
}

export {};

const response = await fetch("openapi.json");
const { info, paths, components } = await response.json();
const page = /** @type {HTMLElement} */ (document.getElementById("calls"));
page.append(element("p", `${info.description} Version ${info.version}.`), element("h2", "Calls"));
for (const [path, methods] of Object.entries(paths)) {
  for (const [method, described] of Object.entries(methods)) page.append(operation(method, path, described));
}
page.append(element("h2", "Shapes"));
for (const [name, described] of Object.entries(components.schemas)) page.append(schema(name, described));
