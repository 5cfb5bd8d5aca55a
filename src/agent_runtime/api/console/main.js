// The page at `/`. How it is made:
//
// * It is written with Preact and htm, without a build step: a browser loads these files as they are. `just types`
//   checks them by their JSDoc; the shapes of answers are in `shapes.d.ts`.
// * **A view** is a component in `views/NAME.js` that gets `{ route }` and returns html`<article>...</article>` with one
//   `<${Title}>` of `components/basics.js`, which gets the focus when the view opens. Its address is a row of `VIEWS`
//   below: add one row there, and one in `NAVIGATION` if it belongs into the menu. Links are made with `hrefOf(path, query)`. A part of a
//   task (`#/tasks/ID/plan`) is shown by `views/task.js`, by `route.path[2]`.
// * **A component** is in `components/NAME.js`. Import `html` and the hooks from `ui.js` and nothing from the libraries:
//   `html` makes hidden characters visible in every text and never parses HTML. `components/basics.js` has buttons,
//   fields, JSON, digests, times and the like: use them, because they show errors, busy states and missing scopes.
// * **The API** is called through `client` of `api.js` (`../client.js`; `client.call(path, body)` for what it has no
//   method for). Integers keep all their digits: pass its values to `JSON.stringify` unchanged, and send what people
//   typed as text. To show what a GET returns: `const { value, error, reload } = useLoaded(() => client.call(...), [id])`
//   and `<${Problem} text=${error} />`. To act: `<${Button} action=${async () => ...}>`, which shows the error where it
//   happened; in a form `<${Form} verb="Send" action=${...}>`. Put both into `<${Allowed} needs=${["approve"]}>` with the scopes of the route.
// * **Changes** arrive by the feed: `onChange(listener)` of `feed.js`. A component below a task gets `opened` (an
//   `OpenTask`): `opened.decide(verb, body)` decides and shows the task as it then is.
// * **State** that components share is a `Store`, read with `useStore(store)`.
// * **Looks** are classes of `style.css`, with its variables for colours; there are no inline styles, as the security
//   policy forbids them.
// * **Tests** are in `tests/e2e/test_console*.py`, in a real Chromium: `Browser` of `tests/support/browser.py`.

/** @import { Route } from "./router.js" */
import { render } from "preact";
import { textOf } from "./api.js";
import { Problem, Title } from "./components/basics.js";
import { Help } from "./components/help.js";
import { theme } from "./device.js";
import { connection, followFeed } from "./feed.js";
import { listenToKeys } from "./keyboard.js";
import { useRoute } from "./router.js";
import { identify, session } from "./session.js";
import { useStore } from "./store.js";
import { inbox, keepFresh } from "./tasks.js";
import { html, useEffect, useErrorBoundary, useState } from "./ui.js";
import { Access, SignIn } from "./views/access.js";
import { Inbox } from "./views/inbox.js";
import { Models } from "./views/models.js";
import { New } from "./views/new.js";
import { Servers } from "./views/servers.js";
import { Task } from "./views/task.js";

/** The views by the first part of their address. @type {Record<string, (props: { route: Route }) => unknown>} */
const VIEWS = { tasks: Task, new: New, servers: Servers, models: Models, access: Access };

/** @type {[name: string, text: string][]} */
const NAVIGATION = [["", "Inbox"], ["servers", "Servers"], ["models", "Models"], ["access", "Access"]];

/** The views that are shown beside the inbox where there is room. */
const BESIDE = new Set(["", "tasks"]);

/** @param {{ route: Route }} props */
function View({ route }) {
  const [failure, again] = useErrorBoundary();
  const [name = ""] = route.path;
  useEffect(again, [route.path.join("/")]);
  if (failure) return html`<${Problem} text=${`This view cannot be shown: ${textOf(failure)}`} />`;
  if (!name) return html`<p class="note placeholder">Choose a task to see it here. Press ? for the keyboard.</p>`;
  const Shown = VIEWS[name];
  if (Shown) return html`<${Shown} key=${route.path[1] ?? name} route=${route} />`;
  return html`<article class="narrow"><${Title}>There is nothing at this address.<//><p><a href="#/">Inbox</a></p></article>`;
}

/** Says when the page is not up to date. */
function ConnectionNotice() {
  const { state, message } = useStore(connection);
  const text = state === "lost" ? `Disconnected; what you see may be out of date. Trying again. ${message}` : "";
  return html`<p id="connection" role="status" data-state=${state}>${text}</p>`;
}

/** @type {Record<string, string>} */
const NEXT_THEME = { system: "light", light: "dark", dark: "system" };

/** @param {{ name: string, help: () => void }} props */
function Header({ name, help }) {
  const current = useStore(theme);
  const { me } = useStore(session);
  return html`
    <header class="bar">
      <a class="brand" href="#/">Agent Runtime</a>
      <nav aria-label="Views">
        ${NAVIGATION.map(([path, text]) => {
          const here = path === name || (path === "" && name === "tasks");
          return html`<a key=${path} href=${`#/${path}`} aria-current=${here ? "page" : undefined}>${text}</a>`;
        })}
        <a href="docs">API</a>
      </nav>
      <div class="tools">
        ${me && me.via !== "anonymous" && html`<a class="me" href="#/access">${me.name}</a>`}
        <button type="button" class="quiet" onClick=${() => theme.set(NEXT_THEME[current] ?? "system")}>Theme: ${current}</button>
        <button type="button" class="quiet" aria-label="Keyboard shortcuts" onClick=${help}>?</button>
      </div>
    </header>
  `;
}

/** @param {{ route: Route }} props */
function SignedIn({ route }) {
  const { count } = useStore(inbox);
  const { me } = useStore(session);
  useEffect(() => followFeed(me), [me?.name]);
  useEffect(keepFresh, []);
  useEffect(() => {
    document.title = count ? `(${count}) Agent Runtime` : "Agent Runtime";
  }, [count]);
  const [name = ""] = route.path;
  if (!BESIDE.has(name)) return html`<main id="main"><${View} route=${route} /></main>`;
  return html`
    <main id="main" class=${name ? "split on-task" : "split"}>
      <${Inbox} route=${route} />
      <div class="detail"><${View} route=${route} /></div>
    </main>
  `;
}

function App() {
  const route = useRoute();
  const { state } = useStore(session);
  const [failure, setFailure] = useState("");
  const [helps, setHelps] = useState(false);
  useEffect(() => listenToKeys({ help: () => setHelps(true) }), []);
  useEffect(() => {
    identify().catch((error) => setFailure(textOf(error)));
  }, []);
  return html`
    <${Header} name=${route.path[0] ?? ""} help=${() => setHelps(true)} />
    ${helps && html`<${Help} close=${() => setHelps(false)} />`}
    <${ConnectionNotice} />
    <${Problem} text=${failure} />
    ${state === "in" && html`<${SignedIn} route=${route} />`}
    ${state === "out" && html`<main id="main"><${SignIn} /></main>`}
  `;
}

render(html`<${App} />`, document.body);
