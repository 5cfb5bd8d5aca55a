// Submit a task, possibly one like another. `#/new`, `#/new?from=ID`

/** @import { Route } from "../router.js" */
import { client } from "../api.js";
import { Allowed, Field, Form, Problem, Title, useLoaded } from "../components/basics.js";
import { countText } from "../format.js";
import { go, hrefOf } from "../router.js";
import { html, useEffect, useRef, useState } from "../ui.js";

/** Return what can be submitted of a contract: the plan without what the service adds. @param {Contract} contract */
const planOf = ({ goal, steps }) => ({ goal, steps });

/** @param {{ from: TaskView, used: boolean, use: (used: boolean) => void, prompt: string }} props */
function OldPlan({ from, used, use, prompt }) {
  const count = from.plan_object?.steps.length ?? 0;
  return html`
    <p class="choice">
      <label>
        <input type="checkbox" checked=${used} onChange=${() => use(!used)} />
        ${" Use its plan"} (${countText(count, "step")})
      </label>
    </p>
    <p class="note">
      ${used ? "No other plan is made. You can change its steps before you approve it." : "A new plan is made from your words."}
      ${used && prompt !== from.prompt && " Your changed words do not change the plan."}
    </p>
  `;
}

/** @param {{ route: Route }} props */
export function New({ route }) {
  const id = route.query.get("from") ?? "";
  const { value: from, error: missing } = useLoaded(async () => (id ? client.getTask(id) : null), [id]);
  const [prompt, setPrompt] = useState("");
  const [used, use] = useState(true);
  const form = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => form.current?.querySelector("textarea")?.focus(), []);
  useEffect(() => {
    if (from) setPrompt(from.prompt);
  }, [from]);
  const plan = used && from?.plan_object ? planOf(from.plan_object) : undefined;
  const submit = async () => {
    const made = await client.submit(prompt, { plan });
    go(hrefOf(["tasks", made.task_id]));
  };
  return html`
    <article class="narrow" ref=${form}>
      <${Title}>New task<//>
      ${id && html`<p class="note">Like <a href=${hrefOf(["tasks", id])}>${id}</a>. Nothing happens to that one.</p>`}
      <${Problem} text=${missing} />
      <${Allowed} needs=${["submit"]}>
        <${Form} verb="Plan it" action=${submit}>
          <${Field}
            label="What should be done?" rows=${4} required value=${prompt} set=${setPrompt}
            placeholder="Read notes.txt, count its words and save the count to count.txt"
            note="A plan is made first. Nothing runs before it is approved."
          />
          ${from?.plan_object && html`<${OldPlan} from=${from} used=${used} use=${use} prompt=${prompt} />`}
        <//>
      <//>
    </article>
  `;
}
