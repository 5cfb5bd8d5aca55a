// The servers of the tool registry: `#/servers`, one with its tools: `#/servers/ID`, and a form for one of these tools:
// `#/servers/ID/TOOL`.

/** @import { Route } from "../router.js" */
/** @import { Schema } from "../components/schema-form.js" */
import { client, findTool } from "../api.js";
import { Allowed, Button, Form, Json, Problem, Title, useLoaded } from "../components/basics.js";
import { SchemaForm } from "../components/schema-form.js";
import { countText } from "../format.js";
import { go, hrefOf } from "../router.js";
import { html, isRaw, useState } from "../ui.js";

/** @type {Record<string, string>} */
const EFFECTS = { read: "only reads", write: "writes", destructive: "may destroy", unknown: "effect unknown" };

/** @type {Record<string, string>} */
const TYPES = { builtin: "built-in", local_stdio: "process", python: "Python code", remote_http: "remote" };

const PENDING = ["not asked yet", "it was asked, and has not answered yet"];

/** @returns {Promise<ServerStatusView[]>} */
const loadServers = () => client.call("/v1/tools/status");

/** Return the class and the words for the state of a server. @param {ServerStatusView} server */
function stateOf({ enabled, connected, circuit, detail }) {
  if (!enabled) return ["skipped", "switched off"];
  if (circuit === "open") return ["failed", "failed too often, left alone for a while"];
  if (connected) return ["completed", "available"];
  return PENDING.includes(detail) ? ["pending", detail] : ["failed", "not available"];
}

/** @param {{ server: ServerStatusView }} props */
function State({ server }) {
  const [look, words] = stateOf(server);
  return html`<span class=${`status ${look}`}>${words}</span>`;
}

/** @param {{ server: ServerStatusView }} props */
const ServerRow = ({ server }) => html`
  <li class="step server">
    <div>
      <a href=${hrefOf(["servers", server.id])}><strong>${server.name}</strong></a>
      <p class="marks"><${State} server=${server} /><span>${TYPES[server.type] ?? server.type}</span><code>${server.id}</code></p>
      ${!PENDING.includes(server.detail) && html`<p class="note">${server.detail}</p>`}
    </div>
  </li>
`;

/** Say what a reload of the registry changed. @param {RegistryChangesView} changes */
function changesText({ added, changed, removed }) {
  const parts = Object.entries({ added, changed, removed }).filter(([, ids]) => ids.length);
  return parts.map(([what, ids]) => `${what}: ${ids.join(", ")}`).join("; ") || "The registry has not changed.";
}

/** @param {{ reload: () => void }} props */
function RegistryButtons({ reload }) {
  const [said, say] = useState("");
  const ask = async () => {
    await client.call("/v1/tools/refresh", {});
    reload();
  };
  const read = async () => {
    say(changesText(await client.call("/v1/tools/reload", {})));
    reload();
  };
  return html`
    <div class="buttons">
      <${Allowed} needs=${["submit"]}><${Button} action=${ask}>Ask all servers again<//><//>
      <${Allowed} needs=${["admin"]}><${Button} action=${read}>Read the registry again<//><//>
    </div>
    <p class="note" role="status">${said}</p>
  `;
}

function ServerList() {
  const { value, error, reload } = useLoaded(loadServers, []);
  return html`
    <article class="narrow">
      <${Title}>Servers<//>
      <p class="note">The MCP servers of the tool registry. Plans can use their tools.</p>
      <${Problem} text=${error} />
      ${value && html`<ul class="steps">${value.map((server) => html`<${ServerRow} key=${server.id} server=${server} />`)}</ul>`}
      ${value?.length === 0 && html`<p>The registry names no server.</p>`}
      <${RegistryButtons} reload=${reload} />
    </article>
  `;
}

/** @param {{ tool: ToolView }} props */
function Effect({ tool }) {
  const effect = tool.effect ?? "unknown";
  return html`<span class=${`effect ${effect}`}>${EFFECTS[effect] ?? effect}</span>`;
}

/** @param {{ tool: ToolView }} props */
const ToolRow = ({ tool }) => html`
  <li class="step server">
    <div>
      <p>
        ${tool.status === "available"
          ? html`<a href=${hrefOf(["servers", tool.server, tool.tool])}><strong>${tool.tool}</strong></a>`
          : html`<strong>${tool.tool}</strong>`}
      </p>
      ${tool.description && html`<p class="sentence">${tool.description}</p>`}
      <p class="marks">
        ${tool.status === "available" ? html`<${Effect} tool=${tool} />` : html`<span class="status failed">not available</span>`}
        ${tool.approval === "always" && html`<span>each call is asked for</span>`}
        ${tool.idempotent && html`<span>can be repeated</span>`}
      </p>
      ${tool.detail && html`<p class="note">${tool.detail}</p>`}
      ${tool.input_schema && html`
        <details class="raw"><summary>Schemas</summary>
          <p class="caption">Arguments</p><${Json} value=${tool.input_schema} />
          ${tool.output_schema && html`<p class="caption">Result</p><${Json} value=${tool.output_schema} />`}
        </details>
      `}
    </div>
  </li>
`;

/** @param {{ id: string }} props */
function Server({ id }) {
  const servers = useLoaded(loadServers, []);
  const catalogue = useLoaded(/** @type {() => Promise<ToolView[]>} */ (() => client.listTools()), []);
  const server = servers.value?.find((one) => one.id === id);
  const tools = catalogue.value?.filter((tool) => tool.server === id) ?? [];
  const ask = async () => {
    await client.call(`/v1/tools/refresh?server=${encodeURIComponent(id)}`, {});
    servers.reload();
    catalogue.reload();
  };
  return html`
    <article class="narrow">
      <p><a href=${hrefOf(["servers"])}>← Servers</a></p>
      <${Title}>${server?.name ?? id}<//>
      <${Problem} text=${servers.error || catalogue.error} />
      ${servers.value && !server && html`<${Problem} text=${`The tool registry has no server "${id}".`} />`}
      ${server && html`
        <p class="marks">
          <${State} server=${server} /><span>${TYPES[server.type] ?? server.type}</span><code>${id}</code>
          ${server.spares > 0 && html`<span>${server.spares === 1 ? "1 spare process" : `${server.spares} spare processes`}</span>`}
        </p>
        ${!server.connected && html`<p class="warning">${server.detail}</p>`}
        ${server.stderr && html`
          <details open=${!server.connected}><summary>What it last wrote to its stderr</summary><pre class="log">${server.stderr}</pre></details>
        `}
        <${Allowed} needs=${["submit"]}><p class="buttons"><${Button} action=${ask}>Ask it again<//></p><//>
      `}
      ${tools.length > 0 && html`
        <section aria-label="Tools">
          <h2>${countText(tools.length, "tool")}</h2>
          <p class="note">Choose a tool to try it by a form.</p>
          <ul class="steps">${tools.map((tool) => html`<${ToolRow} key=${tool.tool} tool=${tool} />`)}</ul>
        </section>
      `}
    </article>
  `;
}

/** Return a value with its texts as they are: a plan would take a `${` for a reference. @param {any} value @returns {any} */
function literal(value) {
  if (typeof value === "string") return value.replaceAll("${", () => "$${");
  if (Array.isArray(value)) return value.map(literal);
  if (typeof value !== "object" || value === null || isRaw(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, literal(one)]));
}

/** Makes a plan of one call, which is then approved as any other. @param {{ tool: ToolView }} props */
function ToolForm({ tool }) {
  const [values, setValues] = useState(/** @type {Record<string, any>} */ ({}));
  const submit = async () => {
    const goal = `Call ${tool.tool} of ${tool.server}`;
    const step = { id: "s1", kind: "tool", server: tool.server, tool: tool.tool, arguments: literal(values) };
    const made = await client.submit(goal, { plan: { goal, steps: [step] } });
    go(hrefOf(["tasks", made.task_id]));
  };
  return html`
    <${Allowed} needs=${["submit"]}>
      <${Form} class="editor" verb="Plan this call" action=${submit}>
        <${SchemaForm} schema=${/** @type {Schema} */ (tool.input_schema ?? {})} value=${values} set=${setValues} />
        <p class="note">This makes a plan of one call. Nothing runs before it is approved.</p>
      <//>
    <//>
  `;
}

/** @param {{ server: string, name: string }} props */
function Tool({ server, name }) {
  const { value, error } = useLoaded(async () => ({ tool: await findTool(server, name) }), []);
  const tool = value?.tool;
  return html`
    <article class="narrow">
      <p><a href=${hrefOf(["servers", server])}>← ${server}</a></p>
      <${Title}>${name}<//>
      <${Problem} text=${error} />
      ${value && !tool && html`<${Problem} text=${`The server "${server}" offers no tool "${name}".`} />`}
      ${tool && html`
        ${tool.description && html`<p class="sentence">${tool.description}</p>`}
        <p class="marks"><${Effect} tool=${tool} /></p>
        ${tool.status === "available" ? html`<${ToolForm} tool=${tool} />` : html`<${Problem} text=${tool.detail ?? "It is not available."} />`}
      `}
    </article>
  `;
}

/** @param {{ route: Route }} props */
export function Servers({ route: { path: [, server, tool] } }) {
  if (server === undefined) return html`<${ServerList} />`;
  return tool === undefined
    ? html`<${Server} key=${server} id=${server} />`
    : html`<${Tool} key=${`${server}/${tool}`} server=${server} name=${tool} />`;
}
