// Sign in with a key, and see who one is. `#/access`

import { Button, Field, Form, Title } from "../components/basics.js";
import { session, signIn, signOut } from "../session.js";
import { useStore } from "../store.js";
import { html, useState } from "../ui.js";

/** The form that asks for a key. Every view is behind it while the service requires a key and has none. */
export function SignIn() {
  const { refusal } = useStore(session);
  const [key, setKey] = useState("");
  return html`
    <article class="narrow">
      <${Title}>Sign in<//>
      <p>This service requires an API key.</p>
      <${Form} verb="Sign in" action=${() => signIn(key.trim())}>
        <${Field}
          label="API key" type="password" autocomplete="off" spellcheck=${false} required value=${key} set=${setKey}
          note="It stays in this tab, and is forgotten when you close it."
        />
        ${refusal && html`<p class="problem" role="alert">This key is wrong. ${refusal}</p>`}
      <//>
    </article>
  `;
}

/** @type {[scope: string, means: string][]} */
const SCOPES = [
  ["submit", "Submit tasks, run them again and cancel them."],
  ["approve", "Approve, revise and reject plans, and answer questions."],
  ["read", "Read tasks, tools and the state of the service."],
  ["admin", "Everything, and delete tasks and reload the tool registry."],
];

export function Access() {
  const { me } = useStore(session);
  if (!me) return null;
  return html`
    <article class="narrow">
      <${Title}>Access<//>
      <p>
        ${me.via === "anonymous"
          ? "This service requires no keys: whoever reaches it may do everything."
          : html`You are <strong>${me.name}</strong>, by an API key.`}
      </p>
      <table>
        <thead><tr><th scope="col">Scope</th><th scope="col">You</th><th scope="col">What it allows</th></tr></thead>
        <tbody>
          ${SCOPES.map(([scope, means]) => html`
            <tr><td><code>${scope}</code></td><td>${me.scopes.includes(scope) ? "yes" : "no"}</td><td>${means}</td></tr>
          `)}
        </tbody>
      </table>
      ${me.via !== "anonymous" && html`<p class="buttons"><${Button} action=${signOut}>Sign out<//></p>`}
    </article>
  `;
}
