// The planner and the language model. `#/models`

import { client } from "../api.js";
import { Problem, Title, useLoaded } from "../components/basics.js";
import { html } from "../ui.js";

/** @param {string} planner */
function plannerText(planner) {
  if (planner === "rules") return "Plans are made by the offline planner. It reads a small grammar and needs no model.";
  if (planner === "openai") return "Plans are made by the language model below.";
  return `Plans are made by ${planner}.`;
}

/** @type {Record<string, string>} */
const CIRCUITS = { closed: "available", open: "failed too often, left alone for a while", half_open: "being tried again" };

/** @param {{ model: ModelView }} props */
const Model = ({ model }) => html`
  <dl>
    <dt>Model</dt><dd>${model.model ?? "not known before the first request"}</dd>
    <dt>Endpoint</dt><dd><code>${model.endpoint}</code></dd>
    <dt>API</dt><dd>${model.api === "responses" ? "Responses" : "Chat Completions"}</dd>
    <dt>State</dt><dd>${CIRCUITS[model.circuit] ?? model.circuit}</dd>
    <dt>Answers</dt><dd>${model.output ? `held to a schema by ${model.output}` : "not known before the first request"}</dd>
  </dl>
  ${model.last_error && html`<p class="caption">Its last error</p><p class="problem">${model.last_error}</p>`}
`;

export function Models() {
  const load = () => client.call("/v1/models/status");
  const { value, error } = useLoaded(/** @type {() => Promise<ModelsStatusView>} */ (load), []);
  return html`
    <article class="narrow">
      <${Title}>Models<//>
      <${Problem} text=${error} />
      ${value && html`<p>${plannerText(value.planner)}</p>`}
      ${value && (value.model
        ? html`<${Model} model=${value.model} />`
        : html`<p class="note">No language model is configured, so plans cannot have steps that think.</p>`)}
      <p class="note">What a model was asked for a plan, and what it answered, is shown with each task.</p>
    </article>
  `;
}
