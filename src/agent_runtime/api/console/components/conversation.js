// What a model was asked in a turn of an agent step, and what it answered in its own words.

import { client, taskPath } from "../api.js";
import { html } from "../ui.js";
import { Captioned, Fold, Json, Problem, useLoaded } from "./basics.js";

/** @param {Record<string, any>} item */
function Asked(item) {
  if (item.type === "function_call_output") return html`<${Captioned} caption="Result of a call" text=${item.output} />`;
  return html`<${Captioned} caption="Asked" text=${item.content} />`;
}

/** @param {{ taskId: string, stepId: string, turn: number }} props */
function TurnOfModel({ taskId, stepId, turn }) {
  const load = () => client.call(taskPath(taskId, "conversations"));
  const { value, error } = useLoaded(/** @type {() => Promise<ConversationsView>} */ (load), [taskId, stepId, turn]);
  if (!value) return error ? html`<${Problem} text=${error} />` : html`<p class="note">Loading…</p>`;
  const conversation = value.conversations.find(({ step_id: id }) => id === stepId);
  const found = conversation?.turns[turn - 1];
  if (!conversation || !found) return html`<p class="note">The model was not asked.</p>`;
  return html`
    ${turn === 1 && html`
      <${Captioned} caption="Instructions" text=${value.instructions} />
      <p class="caption">Functions that it may call</p>
      ${conversation.functions.map(({ name, description }) => html`<p class="function"><code>${name}</code> ${description}</p>`)}
      ${!conversation.functions.length && html`<p class="note">None: it only writes text.</p>`}
    `}
    ${turn > 1 && html`<p class="note">All that was said in the turns before, and:</p>`}
    ${found.asked.map(Asked)}
    ${found.answered.length > 0 && html`<p class="caption">Its answer, as it gave it</p><${Json} value=${found.answered} />`}
  `;
}

/** A fold that loads a turn when it is opened. @param {{ taskId: string, stepId: string, turn: number }} props */
export const Conversation = (props) => html`
  <${Fold} class="raw conversation" title="What the model was asked" show=${() => html`<${TurnOfModel} ...${props} />`} />
`;
