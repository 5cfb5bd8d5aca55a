// What helps to have a plan changed by words: what the planner understands, and why it could not make the last change.

import { client } from "../api.js";
import { html } from "../ui.js";
import { useLoaded } from "./basics.js";

/** Return in words which changes the planner understands; an empty text if it reads any. */
export function useRevisionHelp() {
  const load = async () => (await client.call("/v1/models/status")).revision_help ?? "";
  return useLoaded(/** @type {() => Promise<string>} */ (load), []).value ?? "";
}

/** Says that the plan is still the one before. @param {{ failed: RevisionFailedView | null }} props */
export const RevisionFailed = ({ failed }) => failed && html`
  <div class="warning" role="status">
    <p><strong>The plan is unchanged:</strong> no other could be made from these words.</p>
    <blockquote>${failed.feedback}</blockquote>
    <p>${failed.message}</p>
  </div>
`;
