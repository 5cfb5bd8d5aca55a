// The tasks: first those that wait for a person, then all. `#/?show=GROUP&q=WORDS`

/** @import { Route } from "../router.js" */
import { Ago, Button, Problem, Status } from "../components/basics.js";
import { notifying } from "../device.js";
import { cut } from "../format.js";
import { canNotify, startNotifying } from "../notify.js";
import { go, hrefOf, routeOf } from "../router.js";
import { useStore } from "../store.js";
import { GROUPS, filterTasks, inbox, loadMore } from "../tasks.js";
import { html, useEffect, useRef, useState } from "../ui.js";

const TYPING_MS = 250;

/** @type {Record<string, string>} */
const TITLES = {
  all: "All", waiting: "Waiting", running: "Running", completed: "Completed", failed: "Failed", stopped: "Stopped",
};

/** @param {{ task: SummaryView, isCurrent: boolean, query: Record<string, string> }} props */
const Row = ({ task, isCurrent, query }) => html`
  <li class="row" data-task=${task.task_id}>
    <a href=${hrefOf(["tasks", task.task_id], query)} aria-current=${isCurrent ? "true" : undefined}>
      <span class="prompt">${cut(task.prompt, 200)}</span>
      <span class="marks">
        <${Status} status=${task.status} />
        ${Object.entries(task.metadata).slice(0, 2).map(([name, value]) => html`<span class="label">${cut(`${name}: ${value}`, 40)}</span>`)}
        ${task.created_at && html`<${Ago} at=${task.created_at} />`}
      </span>
    </a>
  </li>
`;

/** A field that changes the address shortly after one stopped typing. @param {{ words: string, set: (words: string) => void }} props */
function Search({ words, set }) {
  const [text, setText] = useState(words);
  const timer = useRef(0);
  useEffect(() => setText(words), [words]);
  useEffect(() => () => clearTimeout(timer.current), []);
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget: { value } }) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => set(value.trim()), TYPING_MS);
  };
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    clearTimeout(timer.current);
    set(text.trim());
  };
  return html`
    <form role="search" onSubmit=${submit}>
      <label class="hidden" for="search">Search tasks</label>
      <input id="search" type="search" maxlength="256" placeholder="Search prompts and labels" value=${text} onInput=${change} />
    </form>
  `;
}

/** A button that loads more, and presses itself when it comes into view. */
function More() {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const { tasks } = useStore(inbox);
  useEffect(() => {
    const seen = new IntersectionObserver(([entry]) => {
      if (entry.isIntersecting) place.current?.querySelector("button")?.click();
    });
    if (place.current) seen.observe(place.current);
    return () => seen.disconnect();
  }, [tasks]);
  return html`<p ref=${place} class="buttons"><${Button} action=${loadMore}>More<//></p>`;
}

/** @param {{ state: string }} props */
const Notifying = ({ state }) => {
  if (!canNotify) return null;
  if (state === "on") return html`<${Button} kind="quiet" action=${() => notifying.set("off")}>Stop notifying me<//>`;
  return html`<${Button} kind="quiet" action=${startNotifying}>Notify me<//>`;
};

/** Return the parameters of the address of a list. @param {string} show @param {string} q */
const queryOf = (show, q) => ({ show: show === "all" ? "" : show, q });

/** Search in the group that is shown now. @param {string} words */
function search(words) {
  const { path, query } = routeOf(location.hash);
  go(hrefOf(path, queryOf(query.get("show") ?? "", words)), { replace: true });
}

/** Say why the list is empty, and what to do. @param {string} group @param {string} words */
function emptyText(group, words) {
  if (words) return "No task has all of these words in its prompt, labels, thread or id.";
  return group === "all" ? "No tasks yet. Begin with “New task”." : "No task is in this group.";
}

/** The list of tasks, beside which the current one is shown. @param {{ route: Route }} props */
export function Inbox({ route: { path, query } }) {
  const { waiting, count, tasks, ended, loaded, error } = useStore(inbox);
  const notifies = useStore(notifying);
  const current = path[0] === "tasks" ? path[1] : "";
  const group = Object.hasOwn(GROUPS, query.get("show") ?? "") ? /** @type {string} */ (query.get("show")) : "all";
  const words = query.get("q") ?? "";
  useEffect(() => {
    filterTasks(group, words);
  }, [group, words]);
  const first = group === "all" && !words ? waiting : [];
  const isFirst = new Set(first.map((task) => task.task_id));
  const others = tasks.filter((task) => !isFirst.has(task.task_id));
  /** @param {SummaryView} task */
  const row = (task) => html`
    <${Row} key=${task.task_id} task=${task} isCurrent=${task.task_id === current} query=${queryOf(group, words)} />
  `;
  return html`
    <section class="inbox" aria-label="Inbox">
      ${!current && html`<h1 class="hidden">Inbox</h1>`}
      <div class="filters">
        <${Search} words=${words} set=${search} />
        <a class="button primary" href="#/new">New task</a>
      </div>
      <ul class="chips" aria-label="Which tasks">
        ${Object.keys(GROUPS).map((one) => html`
          <li key=${one}>
            <a href=${hrefOf(path, queryOf(one, words))} aria-current=${one === group ? "true" : undefined}>
              ${TITLES[one]}${one === "waiting" && count > 0 && html` <span class="count">${count}</span>`}
            </a>
          </li>
        `)}
      </ul>
      <p class="hidden" role="status">${loaded ? `${count || "No"} ${count === 1 ? "task waits" : "tasks wait"} for you.` : ""}</p>
      <${Problem} text=${error} />
      ${first.length > 0 && html`
        <h2>Waits for you (${count})</h2>
        <ul class="rows waiting">${first.map(row)}</ul>
      `}
      ${others.length > 0 && html`
        <h2>${words ? "Found" : first.length ? "Everything else" : TITLES[group]}</h2>
        <ul class="rows">${others.map(row)}</ul>
      `}
      ${loaded && ended && !first.length && !others.length && html`
        <p class="note empty">${emptyText(group, words)}</p>
      `}
      ${!loaded && !error && html`<p class="note empty">Loading…</p>`}
      ${loaded && !ended && html`<${More} />`}
      <p class="foot-row"><${Notifying} state=${notifies} /></p>
    </section>
  `;
}
