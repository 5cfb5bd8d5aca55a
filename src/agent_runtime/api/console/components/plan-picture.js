// The picture of a plan: its steps, and what flows between them. The list below it says the same, so that assistive
// technology gets the list alone.

import { cut, oneLine } from "../format.js";
import { fit, pathOf } from "../plan-graph.js";
import { html, useEffect, useId, useMemo, useRef, useState } from "../ui.js";
import { useLoaded } from "./basics.js";

/** @type {Record<string, string>} */
const SIGNS = { completed: "✓", failed: "✕", skipped: "–", running: "…", outcome_unknown: "?", awaiting_approval: "?" };

/** Return how large the text of the page is, compared with the 16 pixels that the picture is drawn for. */
const textScale = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;

/** Return the width of an element in the units of the picture, and follow it. */
function useWidth() {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!box.current) return undefined;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width / textScale())));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return { box, width };
}

/** @param {ToolStep | AgentStep} step @param {PreviewView} preview */
function subjectOf(step, preview) {
  if (step.kind === "agent") return oneLine(step.instruction.slice(0, 200));
  const touch = preview.touches.find(({ value, resolved }) => value !== null && resolved);
  return touch?.value ?? step.server;
}

/**
 * @param {{ step: ToolStep | AgentStep, state: StepView, preview: PreviewView, number: number, at: { x: number, y: number },
 *   size: { width: number, height: number }, choose: (id: string) => void }} props
 */
function Node({ step, state, preview, number, at: { x, y }, size, choose }) {
  const name = step.kind === "agent" ? "model" : step.tool;
  return html`
    <g class=${`node ${preview.likely_effect} ${state.status} ${step.kind}`} transform=${`translate(${x} ${y})`} onClick=${() => choose(step.id)}>
      <rect width=${size.width} height=${size.height} rx="8" />
      <rect class="edge-mark" width="4" height=${size.height - 16} x="6" y="8" rx="2" />
      <foreignObject x="16" y="6" width=${size.width - 22} height=${size.height - 10}>
        <div class="node-text"><strong>${number}</strong> ${cut(oneLine(name), 80)} ${SIGNS[state.status] && html`<i>${SIGNS[state.status]}</i>`}</div>
        <div class="node-text note">${step.when ? "only if … · " : ""}${cut(oneLine(subjectOf(step, preview)), 80)}</div>
      </foreignObject>
    </g>
  `;
}

/** @param {{ task: TaskView, plan: Contract, previews: PreviewView[], choose: (id: string) => void }} props */
export function PlanPicture({ task, plan, previews, choose }) {
  const { box, width } = useWidth();
  const arrow = useId();
  const { value: dagre } = useLoaded(() => import("dagre"), []);
  const layout = useMemo(
    () => (dagre && width ? fit(dagre, plan.steps, width) : null),
    [dagre, width, task.plan_digest],
  );
  const zoom = textScale() * (layout?.scale ?? 1);
  return html`
    <div class="picture" ref=${box} tabindex="0" role="region" aria-label="Picture of the plan; the list below says the same">
      ${layout && html`
        <svg width=${zoom * layout.width} height=${zoom * layout.height} viewBox=${`0 0 ${layout.width} ${layout.height}`} aria-hidden="true">
          <defs>
            <marker id=${arrow} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
              <path d="M0,0.5 L7.5,4 L0,7.5z" />
            </marker>
          </defs>
          ${layout.edges.map(({ edge, label, points, at }) => html`
            <g key=${`${edge.from} ${edge.to}`} class=${`flow ${edge.kind}`}>
              <path d=${pathOf(points)} marker-end=${`url(#${arrow})`} />
              ${label && at && html`<text x=${at.x} y=${at.y}>${label}</text>`}
            </g>
          `)}
          ${plan.steps.map((step, at) => html`
            <${Node} key=${step.id} step=${step} state=${task.steps[at]} preview=${previews[at]} number=${at + 1}
              at=${layout.nodes.get(step.id)} size=${layout.node} choose=${choose} />
          `)}
        </svg>
      `}
    </div>
  `;
}
